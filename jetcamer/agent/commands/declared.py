"""Commands that the operator declares in the configuration.

In: a name, an argument vector with placeholders, a pattern for each argument, and what a server
sends for them. Out: an argument vector in which each value is exactly one item. Never a shell, and
never a program that the server chooses.

An item of ``argv`` that is ``{name}`` as a whole is a placeholder. Braces elsewhere are literal
text (``{}``, ``a{b,c}``, ``{{.Names}}``), but an item that holds the placeholder of a declared
argument inside other text is refused: ``--unit={unit}`` would let a value change the meaning of
an option. Patterns are Python's ``re``, matched whole.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from zope.interface import implementer

from jetcamer.agent.commands.interfaces import (
    BUILTIN_NAMES,
    CommandOutcome,
    ICommand,
    is_command_name,
)

if TYPE_CHECKING:
    from jetcamer.agent.commands.process import ProcessRunner

#: Bytes of UTF-8 in the value of one argument.
MAX_VALUE = 1024

#: Seconds: a day.
MAX_TIMEOUT = 86_400.0

#: Seconds of CPU that matching one value may take. A pattern with nested repeats, ``(a+)+``, can
#: take longer than the universe has lasted on a value of fifty characters.
MATCH_LIMIT = 0.1

_ARG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ArgvTemplate(msgspec.Struct, frozen=True):
    """A declared command, checked: what `compile_declared` makes."""

    name: str
    argv: tuple[str, ...]
    timeout_seconds: float | None
    patterns: dict[str, re.Pattern[str]]

    def fill(self, args: Mapping[str, str]) -> tuple[str, ...]:
        """The argument vector for these values, one item each.

        :raises ValueError: names the argument and the rule it breaks, never its value.
        """
        for name in args:
            if name not in self.patterns:
                known = ", ".join(self.patterns) or "none"
                raise ValueError(f"unknown argument {name[:64]!a} (known: {known})")
        for name, pattern in self.patterns.items():
            if name not in args:
                raise ValueError(f"argument {name} is missing")
            _check_value(name, pattern, args[name])
        return tuple(
            args[match[1]] if (match := _PLACEHOLDER.fullmatch(item)) else item
            for item in self.argv
        )


def compile_declared(
    name: str,
    argv: Sequence[str],
    timeout_seconds: float | None,
    args: Mapping[str, str],
) -> ArgvTemplate:
    """Check a member of ``commands`` in the configuration.

    :raises ValueError: one line that begins with the dotted name of the member at fault.
    """
    where = f"commands.{name}"
    if not is_command_name(name):
        raise ValueError(
            f"commands: {name[:64]!a} is not a command's name "
            "(a-z, then at most 63 of a-z, 0-9 and the underscore)"
        )
    if name in BUILTIN_NAMES:
        raise ValueError(f"{where}: the agent has a command of this name already")
    if timeout_seconds is not None and not 0 < timeout_seconds <= MAX_TIMEOUT:
        raise ValueError(f"{where}.timeoutSeconds: must be above 0 and at most {MAX_TIMEOUT:.0f}")
    patterns = {arg: _compile(f"{where}.args", arg, pattern) for arg, pattern in args.items()}
    _check_argv(where, argv, patterns)
    used = {match[1] for item in argv if (match := _PLACEHOLDER.fullmatch(item))}
    for arg in patterns:
        if arg not in used:
            raise ValueError(f"{where}.args.{arg}: no item of argv is {{{arg}}}")
    return ArgvTemplate(name, tuple(argv), timeout_seconds, patterns)


@implementer(ICommand)
class DeclaredProcess:
    """An `ICommand` that runs the program of an `ArgvTemplate`."""

    def __init__(self, template: ArgvTemplate, runner: ProcessRunner) -> None:
        self.name = template.name
        self.timeout_seconds = template.timeout_seconds
        self._template = template
        self._runner = runner

    async def run(self, args: Mapping[str, str]) -> CommandOutcome:
        try:
            argv = self._template.fill(args)
        except ValueError as error:
            return CommandOutcome(error=str(error))
        return (await self._runner.run(argv)).outcome()


def _compile(where: str, arg: str, pattern: str) -> re.Pattern[str]:
    if _ARG_NAME.fullmatch(arg) is None:
        raise ValueError(
            f"{where}: {arg[:64]!a} is not an argument's name "
            "(a letter or '_', then letters, digits or '_')"
        )
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{where}.{arg}: not a regular expression: {error}") from None


def _check_argv(where: str, argv: Sequence[str], args: Mapping[str, object]) -> None:
    if not argv or not argv[0]:
        raise ValueError(f"{where}.argv: names no program")
    program = argv[0]
    if _PLACEHOLDER.fullmatch(program):
        raise ValueError(f"{where}.argv[0]: the program cannot be a placeholder")
    if "/" in program and not program.startswith("/"):
        raise ValueError(f"{where}.argv[0]: must be an absolute path or a bare name")
    for index, item in enumerate(argv):
        if "\0" in item:
            raise ValueError(f"{where}.argv[{index}]: holds a NUL character")
        whole = _PLACEHOLDER.fullmatch(item)
        if whole and whole[1] not in args:
            raise ValueError(f"{where}.argv[{index}]: {item} is not named in args")
        if not whole and any(inner in args for inner in _PLACEHOLDER.findall(item)):
            raise ValueError(f"{where}.argv[{index}]: a placeholder must fill the whole item")


def _check_value(name: str, pattern: re.Pattern[str], value: str) -> None:
    if value.startswith("-"):
        raise ValueError(f"argument {name} begins with '-'")
    if "\0" in value:
        raise ValueError(f"argument {name} holds a NUL character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"argument {name} is not valid Unicode") from None
    if size > MAX_VALUE:
        raise ValueError(f"argument {name} is longer than {MAX_VALUE} bytes")
    try:
        with _cpu_limit(MATCH_LIMIT):
            matches = pattern.fullmatch(value) is not None
    except _TooSlowError:
        raise ValueError(f"argument {name} takes too long to match its pattern") from None
    if not matches:
        raise ValueError(f"argument {name} does not match {pattern.pattern}")


class _TooSlowError(Exception):
    """Matching used up its CPU time."""


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    """Raise `_TooSlowError` inside the block after so much CPU time of this process.

    ``re`` looks for signals while it matches, so a timer's handler can stop it. Python delivers
    signals to the main thread only; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: object) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
