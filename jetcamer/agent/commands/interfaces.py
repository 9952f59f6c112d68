"""What a command is, for those who write one and those who run them.

A package adds a command by placing a module in a folder ``jetcamer/plugins`` on ``sys.path``
(without an ``__init__.py``), with an object at module level that provides both
``twisted.plugin.IPlugin`` and `ICommand`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from zope.interface import Attribute, Interface

#: The commands every agent has (docs/protocol.md, Commands). Nothing may take their names.
BUILTIN_NAMES = frozenset(
    {"get_machine_id", "get_status", "get_version", "ping", "run_health_check"}
)

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def is_command_name(name: object) -> bool:
    """A letter a-z, then at most 63 of a-z, 0-9 and the underscore."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


class CommandOutcome(msgspec.Struct, frozen=True):
    """What a command came to. An empty `error` means that it succeeded."""

    result: str = ""
    error: str = ""
    #: Structured data beside the text; a JSON object.
    details: dict[str, Any] | None = None


class ICommand(Interface):
    """Something a server may ask the agent to do.

    A command may carry a third attribute, ``timeout_seconds``: its deadline, where it is not None.
    At the deadline the Deferred or coroutine is cancelled. One that catches the ``CancelledError``
    to clean up is cancelled again after 2 s and abandoned after one more. A fourth,
    ``shows_result``, where it is true, has the agent's log tell the result of a success, and not
    only that it was one: for short results without secrets.
    """

    name = Attribute("What the server calls it; see `is_command_name`.")

    def run(args):  # type: ignore[no-untyped-def]  # noqa: N805
        """Do it. Must not block.

        :param args: a ``dict`` of strings from the server, not to be trusted.
        :returns: a `CommandOutcome`, or a ``str`` (the result of a success), or an awaitable of
            either. What it raises becomes the ``error`` the server sees, so keep secrets out.
        """
