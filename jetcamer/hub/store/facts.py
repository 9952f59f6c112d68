"""What waits in memory to be written.

In: facts, from the reactor's thread. Out: all of them at once as a `Batch`, to the database's
thread. The lists stay the same objects, so that adding is one append, which needs no lock: the
lock is for what takes from the front. Never grows beyond its limits: the oldest go, and are
counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from jetcamer.hub.records import RefusalRecord

#: agent id, received ms, three readings
MetricsFact = tuple[str, int, float | None, float | None, float | None]
#: agent id, received ms, ts, level, message, source, event
LogFact = tuple[str, int, int, str, str, str | None, str | None]
#: A function of a `Writer` and its other arguments.
Change = tuple[Callable[..., None], tuple[Any, ...]]
#: last seen, replay floor, by agent id
Seen = dict[str, tuple[int, int]]

MAX_METRICS = 200_000
MAX_LOGS = 200_000
MAX_LOG_BYTES = 64 * 1024 * 1024
MAX_REFUSALS = 20_000
MAX_CHANGES = 100_000

#: Of one kind, in one transaction.
MAX_BATCH = 50_000


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


class Facts:
    def __init__(self) -> None:
        self.metrics: list[MetricsFact] = []
        self.logs: list[LogFact] = []
        self.refusals: list[RefusalRecord] = []
        self.changes: list[Change] = []
        self.dropped = 0
        self._seen: Seen = {}
        self._lock = Lock()
        # Of the logs: each figure is changed by one thread only, or under the lock.
        self._bytes_in = 0
        self._bytes_out = 0

    def __len__(self) -> int:
        lists = (self.metrics, self.logs, self.refusals, self.changes, self._seen)
        return sum(len(each) for each in lists)

    # In the reactor's thread.

    def add_log(self, fact: LogFact) -> bool:
        """Returns False where older ones had to go."""
        self.logs.append(fact)
        self._bytes_in += _size(fact)
        if len(self.logs) <= MAX_LOGS and self._bytes_in - self._bytes_out <= MAX_LOG_BYTES:
            return True
        with self._lock:
            number = len(self.logs) // 16 + 1
            self._bytes_out += sum(map(_size, self.logs[:number]))
            self._drop(self.logs, number)
        return False

    def add_refusal(self, refusal: RefusalRecord) -> bool:
        self.refusals.append(refusal)
        return len(self.refusals) <= MAX_REFUSALS or self._drop_some(self.refusals)

    def add_change(self, change: Change) -> bool:
        self.changes.append(change)
        return len(self.changes) <= MAX_CHANGES or self._drop_some(self.changes)

    def drop_metrics(self) -> None:
        self._drop_some(self.metrics)

    def seen(self, agents: Sequence[tuple[str, int, int]]) -> None:
        news = {agent_id: (last_seen, floor) for agent_id, last_seen, floor in agents}
        with self._lock:
            self._seen.update(news)

    def _drop_some(self, facts: list[Any]) -> bool:
        with self._lock:
            self._drop(facts, len(facts) // 16 + 1)
        return False

    def _drop(self, facts: list[Any], number: int) -> None:
        self.dropped += min(number, len(facts))
        del facts[:number]

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
            self._bytes_out += sum(map(_size, batch.logs))
        return batch

    def put_back(self, batch: Batch) -> None:
        with self._lock:
            for waiting, taken in self._pairs(batch):
                waiting[:0] = taken
            self._seen = batch.seen | self._seen
            self._bytes_out -= sum(map(_size, batch.logs))

    def _pairs(self, batch: Batch) -> tuple[tuple[list[Any], list[Any]], ...]:
        return (
            (self.metrics, batch.metrics),
            (self.logs, batch.logs),
            (self.refusals, batch.refusals),
            (self.changes, batch.changes),
        )


def _size(fact: LogFact) -> int:
    """About as many bytes of memory as it takes."""
    event = fact[6]
    return 300 + sys.getsizeof(fact[4]) + (len(event) if event is not None else 0)
