"""Commands that other packages add, found once, at start.

In: a plugin package (``jetcamer.plugins``). Out: the objects in its modules that provide
`ICommand`. A module that cannot be imported, and an object that is not what it says, is logged by
name and left out; neither stops the agent.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from twisted.logger import Logger

from jetcamer.agent.commands.interfaces import ICommand

log = Logger()


def find_plugins(package: ModuleType | None = None) -> dict[str, ICommand]:
    """The commands of `package`, by the dotted name of each, in the order of their names.

    Imports what has changed since ``dropin.cache`` was written, and writes that file where it may;
    where it may not, it says so in the log and goes on.
    """
    # `twisted.plugin.getPlugins` is these few lines without the names of those that fail.
    from twisted.plugin import getCache
    from twisted.python.modules import getModule

    if package is None:
        package = import_module("jetcamer.plugins")
    dropins = getCache(package)
    for module in getModule(package.__name__).iterModules():
        if module.name.split(".")[-1] not in dropins:
            log.error("the plugin module {module} cannot be imported", module=module.name)
    found: dict[str, ICommand] = {}
    for dropin in dropins.values():
        for plugin in dropin.plugins:
            place = f"{dropin.moduleName}.{plugin.name}"
            try:
                command = ICommand(plugin, None)
                if command is not None:
                    _verify(command)
                    found[place] = command
            except Exception:
                log.failure("the plugin {place} is left out", place=place)
    return dict(sorted(found.items()))


def _verify(command: ICommand) -> None:
    from zope.interface.verify import verifyObject

    verifyObject(ICommand, command)
