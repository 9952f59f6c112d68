"""A store that remembers what it was told, and answers from that."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from jetcamer.hub.records import CommandRecord
from jetcamer.hub.store.interface import StoreError


class RecordingStore:
    """The facts of a `Store`, as (name, arguments); commands by their ids."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, tuple[Any, ...]]] = []
        self.saved: dict[str, CommandRecord] = {}
        #: Fired by the test where it wants a flush to take its time.
        self.flushes: list[Deferred[None]] | None = None
        self.broken = False

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for kind, arguments in self.facts if kind == name]

    def session_started(self, *arguments: Any) -> int:
        self.facts.append(("session_started", arguments))
        return len(self.of("session_started"))

    def put_command(self, command: CommandRecord) -> None:
        self.facts.append(("put_command", (command,)))
        self.saved[command.command_id] = command

    def states(self, command_id: str) -> list[str]:
        return [
            command.state
            for (command,) in self.of("put_command")
            if command.command_id == command_id
        ]

    def flush(self) -> Deferred[None]:
        self.facts.append(("flush", ()))
        if self.broken:
            return fail(StoreError("the disk is full"))
        if self.flushes is None:
            return succeed(None)
        self.flushes.append(Deferred())
        return self.flushes[-1]

    def unfinished_commands(self) -> Deferred[list[CommandRecord]]:
        return succeed([c for c in self.saved.values() if c.state in ("queued", "sent")])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self.facts.append((name, arguments))
