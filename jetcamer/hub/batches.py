"""Commands for many agents: which of them have yet to be sent, and how far each is.

In: the records of one command for many, and each end. Out: the progress. One that is not finished
is never forgotten; of the finished ones the last are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec
from twisted.internet.defer import Deferred

from jetcamer.hub.records import CommandRecord

#: Finished ones that are kept.
KEPT_BATCHES = 100


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a command for many agents is. `failed` counts all that were not done."""

    batch_id: str
    total: int
    done: int
    failed: int
    waiting: int
    finished: bool


class Batch:
    """One command for many.

    :ivar left: those whose turn has not come.
    :ivar room: fires when one of those that were sent has ended; None while nobody waits for it.
    """

    __slots__ = ("done", "failed", "left", "room", "running", "total")

    def __init__(self, records: Iterable[CommandRecord]) -> None:
        self.left = deque(records)
        self.total = len(self.left)
        self.done = 0
        self.failed = 0
        self.running = 0
        self.room: Deferred[None] | None = None

    @property
    def waiting(self) -> int:
        return self.total - self.done - self.failed

    def released(self) -> None:
        """One that was sent has ended."""
        self.running -= 1
        room, self.room = self.room, None
        if room is not None:
            room.callback(None)


class Batches:
    def __init__(self) -> None:
        self._batches: dict[str, Batch] = {}
        self._finished: deque[str] = deque()

    def add(self, batch_id: str, records: Iterable[CommandRecord]) -> Batch:
        batch = self._batches[batch_id] = Batch(records)
        self._forget_if_finished(batch_id, batch)
        return batch

    def count(self, batch_id: str | None, is_done: bool) -> None:
        """One of its commands has ended."""
        batch = self._batches.get(batch_id) if batch_id is not None else None
        if batch is None or batch_id is None:
            return
        if is_done:
            batch.done += 1
        else:
            batch.failed += 1
        self._forget_if_finished(batch_id, batch)

    def progress(self, batch_id: str) -> BatchProgress | None:
        batch = self._batches.get(batch_id)
        if batch is None:
            return None
        return BatchProgress(
            batch_id=batch_id,
            total=batch.total,
            done=batch.done,
            failed=batch.failed,
            waiting=batch.waiting,
            finished=not batch.waiting,
        )

    def number_left(self) -> int:
        """Commands whose turn has not come."""
        return sum(len(batch.left) for batch in self._batches.values())

    def take_left(self) -> list[CommandRecord]:
        """Commands whose turn shall never come."""
        left = [record for batch in self._batches.values() for record in batch.left]
        for batch in self._batches.values():
            batch.left.clear()
        return left

    def _forget_if_finished(self, batch_id: str, batch: Batch) -> None:
        if batch.waiting:
            return
        self._finished.append(batch_id)
        if len(self._finished) > KEPT_BATCHES:
            self._batches.pop(self._finished.popleft(), None)
