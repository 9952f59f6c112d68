"""What waits to be sent, bounded in bytes, in the order it was put.

In: items of three kinds. Out: calls of a writer, while a connection is open and its transport is
not full: the outbox is the push producer that the transport pauses and resumes. It never holds
more than its limit and never loses an item without telling `on_drop`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()

T = TypeVar("T")


class Keep(Enum):
    """How dear an item is."""

    #: Worth something now only: the first to be dropped, and gone with its connection.
    LIVE = "live"
    #: Outlives a connection; dropped, oldest first, when there is no room.
    QUEUED = "queued"
    #: Never dropped: where there is no room, `Outbox.put` refuses it instead.
    ASSURED = "assured"


#: What is dropped to make way for an item, in this order.
_MAKE_WAY = {
    Keep.LIVE: (Keep.LIVE,),
    Keep.QUEUED: (Keep.LIVE, Keep.QUEUED),
    Keep.ASSURED: (Keep.LIVE, Keep.QUEUED),
}


@implementer(IPushProducer)
class Outbox(Generic[T]):
    """A bounded send queue between what makes messages and the connection that carries them.

    An item whose writing raises is logged, dropped and reported.

    :param limit: the most bytes it holds, by the sizes its users give.
    :param on_drop: called with each item that is dropped.
    """

    def __init__(self, limit: int, on_drop: Callable[[T], None]) -> None:
        self.limit = limit
        self._on_drop = on_drop
        self._queues: dict[Keep, deque[tuple[int, int, T]]] = {keep: deque() for keep in Keep}
        self._sizes = dict.fromkeys(Keep, 0)
        self._sequence = 0
        self._write: Callable[[T], None] | None = None
        self._paused = False
        self._flushing = False
        self._waiters: list[Deferred[None]] = []

    @property
    def size(self) -> int:
        """Bytes that wait now."""
        return sum(self._sizes.values())

    @property
    def is_open(self) -> bool:
        """Whether a connection is there."""
        return self._write is not None

    @property
    def flowing(self) -> bool:
        """Whether what is put now is written now."""
        return self.is_open and not self._paused and not len(self)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def put(self, item: T, size: int, keep: Keep) -> bool:
        """Queue an item of `size` bytes and send what can be sent.

        False when there was no room: an `ASSURED` item larger than what dropping the others
        could free (it is not reported to `on_drop`, the caller still holds it), or a droppable
        one that does not fit at all (reported).
        """
        making_way = _MAKE_WAY[keep]
        held = sum(self._sizes[other] for other in Keep if other not in making_way)
        if held + size > self.limit:
            if keep is not Keep.ASSURED:
                self._on_drop(item)
            return False
        dropped: list[T] = []
        for droppable in making_way:
            while self._queues[droppable] and self.size + size > self.limit:
                dropped.append(self._pop(droppable))
        self._queues[keep].append((self._sequence, size, item))
        self._sequence += 1
        self._sizes[keep] += size
        for victim in dropped:
            self._on_drop(victim)
        self._flush()
        return True

    def open(self, write: Callable[[T], None]) -> None:
        """A connection is there: send through `write` from now on."""
        self._write = write
        self._flush()

    def close(self) -> None:
        """The connection is gone: `LIVE` items are dropped, the others wait for the next."""
        self._write = None
        self._paused = False
        dropped = []
        while self._queues[Keep.LIVE]:
            dropped.append(self._pop(Keep.LIVE))
        for victim in dropped:
            self._on_drop(victim)

    def when_empty(self) -> Deferred[None]:
        """Fires when nothing waits any more; may be cancelled."""
        if not len(self):
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        return waiter

    def _pop(self, keep: Keep) -> T:
        _, size, item = self._queues[keep].popleft()
        self._sizes[keep] -= size
        return item

    def _flush(self) -> None:
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._write is not None and not self._paused:
                filled = [keep for keep, queue in self._queues.items() if queue]
                if not filled:
                    break
                oldest = min(filled, key=lambda keep: self._queues[keep][0][0])
                item = self._pop(oldest)
                try:
                    self._write(item)
                except Exception:
                    log.failure("an item could not be written and is dropped")
                    self._on_drop(item)
        finally:
            self._flushing = False
        if self._waiters and not len(self):
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(None)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._flush()

    def stopProducing(self) -> None:
        """The transport is going; `close` follows."""
