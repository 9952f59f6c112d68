"""What waits in memory to be written.

In: facts, from the reactor's thread. Out: all of them at once as a `Batch`, to the database's
thread. The lists stay the same objects, so that adding is one append, which needs no lock: the
lock is for what takes from the front. Never grows beyond its limits, of facts and of bytes: the
oldest go, and are counted by their kind.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any, NamedTuple

from jetcamer.hub.records import RefusalRecord
from jetcamer.hub.store.paging import weight

#: agent id, received ms, three readings
MetricsFact = tuple[str, int, float | None, float | None, float | None]
#: agent id, received ms, ts, level, message, source, event
LogFact = tuple[str, int, int, str, str, str | None, str | None]
#: last seen, replay floor, by agent id
Seen = dict[str, tuple[int, int]]

MAX_METRICS = 200_000
MAX_LOGS = 200_000
MAX_LOG_BYTES = 64 * 1024 * 1024
MAX_REFUSALS = 20_000
MAX_CHANGES = 100_000
MAX_CHANGE_BYTES = 64 * 1024 * 1024

#: Of one kind, in one transaction.
MAX_BATCH = 50_000


class Change(NamedTuple):
    """A fact that is more than a row to add."""

    #: What is lost with it, in the plural: "commands".
    kind: str
    #: Called with the connection, the `Numbers` and the arguments.
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    #: About as many bytes of memory as it takes.
    size: int


def change(kind: str, function: Callable[..., None], *arguments: Any) -> Change:
    return Change(kind, function, arguments, 200 + weight(arguments))


class Batch:
    """Facts for one transaction."""

    __slots__ = ("changes", "logs", "metrics", "refusals", "seen")

    def __init__(self) -> None:
        self.metrics: list[MetricsFact] = []
        self.logs: list[LogFact] = []
        self.refusals: list[RefusalRecord] = []
        self.changes: list[Change] = []
        self.seen: Seen = {}

    def __len__(self) -> int:
        lists = (self.metrics, self.logs, self.refusals, self.changes, self.seen)
        return sum(len(each) for each in lists)


class _Bytes:
    """How many bytes the facts of one kind take. `came` is of the reactor's thread; `went` is
    changed under the lock."""

    __slots__ = ("came", "went")

    def __init__(self) -> None:
        self.came = self.went = 0

    @property
    def waiting(self) -> int:
        return self.came - self.went


class Facts:
    def __init__(self) -> None:
        self.metrics: list[MetricsFact] = []
        self.logs: list[LogFact] = []
        self.refusals: list[RefusalRecord] = []
        self.changes: list[Change] = []
        #: Facts that had to go: all, and by kind for the reactor's thread.
        self.dropped = 0
        self.dropped_kinds: Counter[str] = Counter()
        self._seen: Seen = {}
        self._lock = Lock()
        self._log_bytes = _Bytes()
        self._change_bytes = _Bytes()

    def __len__(self) -> int:
        lists = (self.metrics, self.logs, self.refusals, self.changes, self._seen)
        return sum(len(each) for each in lists)

    # In the reactor's thread. What adds returns False where older facts had to go.

    def add_log(self, fact: LogFact) -> bool:
        self.logs.append(fact)
        self._log_bytes.came += _size(fact)
        if len(self.logs) <= MAX_LOGS and self._log_bytes.waiting <= MAX_LOG_BYTES:
            return True
        with self._lock:
            gone = self._drop(self.logs)
            self._log_bytes.went += sum(map(_size, gone))
            self._count("log messages", len(gone))
        return False

    def add_refusal(self, refusal: RefusalRecord) -> bool:
        self.refusals.append(refusal)
        if len(self.refusals) <= MAX_REFUSALS:
            return True
        with self._lock:
            self._count("refusals", len(self._drop(self.refusals)))
        return False

    def add_change(self, fact: Change) -> bool:
        self.changes.append(fact)
        self._change_bytes.came += fact.size
        well = True
        while len(self.changes) > MAX_CHANGES or self._change_bytes.waiting > MAX_CHANGE_BYTES:
            well = False
            with self._lock:
                gone = self._drop(self.changes)
                self._change_bytes.went += _sizes(gone)
                for each in gone:
                    self._count(each.kind, 1)
            if not gone:
                break
        return well

    def drop_metrics(self) -> None:
        with self._lock:
            self._count("metrics", len(self._drop(self.metrics)))

    def seen(self, agents: Sequence[tuple[str, int, int]]) -> None:
        news = {agent_id: (last_seen, floor) for agent_id, last_seen, floor in agents}
        with self._lock:
            self._seen.update(news)

    def _count(self, kind: str, number: int) -> None:
        self.dropped += number
        self.dropped_kinds[kind] += number

    @staticmethod
    def _drop(facts: list[Any]) -> list[Any]:
        """Take the oldest out: some at once, so that it is not done for each that comes."""
        number = len(facts) // 16 + 1
        gone = facts[:number]
        del facts[:number]
        return gone

    # In the database's thread.

    def batches(self) -> int:
        """How many times `take` has to be called for all that waits now; at least 1."""
        lists = (self.metrics, self.logs, self.refusals, self.changes)
        return max(1, *(-(-len(each) // MAX_BATCH) for each in lists))

    def take(self) -> Batch:
        batch = Batch()
        with self._lock:
            for waiting, taken in self._pairs(batch):
                taken[:] = waiting[:MAX_BATCH]
                del waiting[: len(taken)]
            batch.seen, self._seen = self._seen, {}
            self._log_bytes.went += sum(map(_size, batch.logs))
            self._change_bytes.went += _sizes(batch.changes)
        return batch

    def put_back(self, batch: Batch) -> None:
        with self._lock:
            for waiting, taken in self._pairs(batch):
                waiting[:0] = taken
            self._seen = batch.seen | self._seen
            self._log_bytes.went -= sum(map(_size, batch.logs))
            self._change_bytes.went -= _sizes(batch.changes)

    def _pairs(self, batch: Batch) -> tuple[tuple[list[Any], list[Any]], ...]:
        return (
            (self.metrics, batch.metrics),
            (self.logs, batch.logs),
            (self.refusals, batch.refusals),
            (self.changes, batch.changes),
        )


def _size(fact: LogFact) -> int:
    """About as many bytes of memory as it takes."""
    size = 300 + sys.getsizeof(fact[4])
    if fact[5] is not None:
        size += sys.getsizeof(fact[5])
    if fact[6] is not None:
        size += sys.getsizeof(fact[6])
    return size


def _sizes(changes: Iterable[Change]) -> int:
    return sum(each.size for each in changes)
