"""Commands that other packages add, found once, at start.

In: a plugin package (``jetcamer.plugins``). Out: the objects in its modules that provide
`ICommand`. A module that cannot be imported, and an object that is not what it says, is named in
one line of the log and left out; neither stops the agent.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from twisted.logger import Logger

from jetcamer.agent.commands.interfaces import ICommand

log = Logger()


def find_plugins(package: ModuleType | None = None) -> dict[str, ICommand]:
    """The commands of `package`, by the dotted name of each, in the order of their names.

    Imports every module of it. `twisted.plugin.getPlugins` would spare that to those without a
    command, for a cache that it writes beside them, and writes tracebacks about the others.
    """
    from pkgutil import iter_modules

    from twisted.plugin import IPlugin

    if package is None:
        package = import_module("jetcamer.plugins")
    found: dict[str, ICommand] = {}
    for name in sorted({info.name for info in iter_modules(package.__path__)}):
        module = _import(f"{package.__name__}.{name}")
        for attribute, item in vars(module).items() if module is not None else ():
            place = f"{package.__name__}.{name}.{attribute}"
            try:
                command = ICommand(item, None) if IPlugin(item, None) is not None else None
                if command is not None:
                    _verify(command)
                    found[place] = command
            except Exception as error:
                log.error(
                    "the plugin {place} is left out: {words}", place=place, words=_words(error)
                )
    return dict(sorted(found.items()))


def _import(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:
        log.error(
            "the plugin module {module} cannot be imported: {words}",
            module=name,
            words=_words(error) + _place(error),
        )
        return None


def _words(error: BaseException) -> str:
    """What happened, in one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if words else ''}{words}"


def _place(error: BaseException) -> str:
    """In which line of which file, where the words do not say so themselves."""
    from traceback import extract_tb

    frame = extract_tb(error.__traceback__)[-1]
    return "" if isinstance(error, SyntaxError) else f" ({frame.filename}, line {frame.lineno})"


def _verify(command: ICommand) -> None:
    from zope.interface.verify import verifyObject

    verifyObject(ICommand, command)
