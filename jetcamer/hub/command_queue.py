"""Commands that wait for agents which are away: in order, for a time, in bounded room.

In: records in the state ``queued``. Out: the next one of an agent; those whose time is over. Only
memory: what is on disk is `Commands`' business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from jetcamer.hub.records import CommandRecord
from jetcamer.hub.registry import CommandError

#: Commands that may wait for one agent, and for all; and the bytes of memory that these may take.
MAX_QUEUED_EACH = 100
MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 16 << 20

#: What a record takes beside its texts, in bytes, about.
_RECORD_BYTES = 600


class TooManyCommandsError(CommandError):
    """No more can be queued."""


def weight(record: CommandRecord) -> int:
    """The bytes of memory that a command takes until it has ended, at most."""
    texts = sum(len(name) + len(value) for name, value in record.args.items())
    return _RECORD_BYTES + 4 * (texts + len(record.command))


class CommandQueue:
    def __init__(self) -> None:
        self._of: dict[str, deque[CommandRecord]] = {}
        self._number = 0
        self._bytes = 0

    def __iter__(self) -> Iterator[str]:
        """The agents for which something waits."""
        return iter([*self._of])

    def number(self, agent_id: str) -> int:
        return len(self._of.get(agent_id, ()))

    def check(self, record: CommandRecord) -> None:
        """Raises TooManyCommandsError where there is no room for this one."""
        of_agent = self.number(record.agent_id)
        if of_agent >= MAX_QUEUED_EACH or self._number >= MAX_QUEUED:
            words = f"{of_agent} commands wait for {record.agent_id}, {self._number} in all"
        elif self._bytes + weight(record) > MAX_QUEUED_BYTES:
            words = f"the commands that wait take {self._bytes >> 20} MiB of memory"
        else:
            return
        raise TooManyCommandsError(f"{words}: no more")

    def add(self, record: CommandRecord) -> None:
        self._of.setdefault(record.agent_id, deque()).append(record)
        self._number += 1
        self._bytes += weight(record)

    def head(self, agent_id: str) -> CommandRecord | None:
        """The one that has waited longest."""
        queue = self._of.get(agent_id)
        return queue[0] if queue else None

    def remove(self, record: CommandRecord) -> None:
        """Take out one that is in."""
        queue = self._of[record.agent_id]
        queue.remove(record)
        if not queue:
            del self._of[record.agent_id]
        self._number -= 1
        self._bytes -= weight(record)

    def remove_all(self, agent_id: str) -> list[CommandRecord]:
        """Take out what waits for this agent, in order."""
        records = [*self._of.get(agent_id, ())]
        for record in records:
            self.remove(record)
        return records

    def remove_expired(self, now_ms: int) -> list[CommandRecord]:
        expired = [
            record
            for queue in self._of.values()
            for record in queue
            if record.expires_ms is not None and record.expires_ms <= now_ms
        ]
        for record in expired:
            self.remove(record)
        return expired
