"""Which commands there are.

In: built-in commands, those that the operator declared, those that packages add. Out: the command
of a name. The first of a name stays: a package can neither replace a built-in command nor one that
the operator declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf

from twisted.logger import Logger

from jetcamer.agent.commands.interfaces import ICommand, is_command_name

log = Logger()


class CommandRegistry:
    """Commands by name."""

    def __init__(self, commands: Iterable[ICommand] = ()) -> None:
        self._commands: dict[str, ICommand] = {}
        for command in commands:
            self.add(command)

    def add(self, command: ICommand) -> None:
        """:raises ValueError: the name is taken or is none, or the deadline is not one."""
        name = command.name
        if not is_command_name(name):
            raise ValueError(f"{name!a} is not a command's name")
        if name in self._commands:
            raise ValueError(f"there is a command {name} already")
        timeout = getattr(command, "timeout_seconds", None)
        if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < inf):
            raise ValueError("timeout_seconds must be a positive number of seconds")
        self._commands[name] = command

    def add_found(self, found: Mapping[str, ICommand]) -> None:
        """Add what packages bring (see `find_plugins`); one that cannot be added is a warning."""
        for place, command in found.items():
            try:
                self.add(command)
            except ValueError as error:
                log.warn(
                    "the plugin {place} adds no command: {reason}", place=place, reason=str(error)
                )

    def get(self, name: str) -> ICommand | None:
        return self._commands.get(name)

    def names(self) -> list[str]:
        """Sorted."""
        return sorted(self._commands)
