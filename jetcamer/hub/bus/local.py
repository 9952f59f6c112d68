"""Events within this process: published once, heard by many, the last ones kept for a while.

In: what was acted upon. Out: calls of those who subscribed, in order; and what somebody missed who
knows the last event he heard. An event becomes text only when somebody listens. Never waits for a
subscriber, and one that raises costs nobody else anything.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterator
from sys import getsizeof
from typing import Literal, NamedTuple

import msgspec
from twisted.logger import Logger

from jetcamer.daemon.clock import wall_clock_ms

_log = Logger()

Kind = Literal["agent", "metrics", "log", "command", "refusal"]

#: Events kept for those who come back, and the bytes that they may take, about.
KEPT_EVENTS = 10_000
KEPT_BYTES = 8 << 20

#: Metrics are kept while somebody listens, and for so long after; milliseconds. To keep those that
#: nobody ever asks for would cost a third of what it takes to receive them.
METRICS_KEPT_MS = 300_000

#: What one event is taken to weigh besides the text that it carries.
_WEIGHT = 200


def weight_of(*texts: str | None) -> int:
    """The bytes that these take, in memory or as JSON, whichever are more; for `publish`."""
    return sum(max(getsizeof(text), _length_as_json(text)) for text in texts if text)


def _length_as_json(text: str) -> int:
    try:
        return len(msgspec.json.encode(text))
    except UnicodeEncodeError:  # half a character
        return 6 * len(text)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `data` is the JSON text of an object, whose first two members are
    ``agentId`` and ``ts``."""

    #: ``<epoch>-<number>``: the epoch is another in each run of the hub.
    event_id: str
    kind: Kind
    agent_id: str | None
    ts_ms: int
    data: bytes


class _Kept(NamedTuple):
    number: int
    kind: Kind
    agent_id: str | None
    ts_ms: int
    data: object
    weight: int


class _Subscription:
    __slots__ = ("agent_ids", "kinds", "receiver")

    def __init__(
        self,
        receiver: Callable[[Event], None],
        kinds: Collection[str] | None,
        agent_ids: Collection[str] | None,
    ) -> None:
        self.receiver = receiver
        self.kinds = None if kinds is None else frozenset(kinds)
        self.agent_ids = None if agent_ids is None else frozenset(agent_ids)

    def wants(self, kept: _Kept) -> bool:
        return (self.kinds is None or kept.kind in self.kinds) and (
            self.agent_ids is None or kept.agent_id in self.agent_ids
        )


class LocalBus:
    """The bus of a hub that is one process.

    :param epoch: tells this run's events from another's; random where left out.
    :param now_ms: Unix milliseconds, the clock by which metrics are stamped.
    """

    def __init__(
        self, epoch: str | None = None, *, now_ms: Callable[[], int] = wall_clock_ms
    ) -> None:
        self._now_ms = now_ms
        self._epoch = secrets.token_hex(4) if epoch is None else epoch
        self._number = 0
        self._kept: deque[_Kept] = deque()
        self._weight = 0
        self._subscriptions: list[_Subscription] = []
        #: When somebody last listened, and the number of the last event that was not kept.
        self._listened_ms = -METRICS_KEPT_MS
        self._not_kept = 0

    @property
    def last_event_id(self) -> str:
        """That of the newest event; of a number that no event has, before the first."""
        return f"{self._epoch}-{self._number}"

    def publish(
        self, kind: Kind, agent_id: str | None, ts_ms: int, data: object, text: int = 0
    ) -> None:
        """Tell it.

        :param data: what msgspec can write as a JSON object, without ``agentId`` and ``ts``; not to
            be changed any more.
        :param text: bytes that its texts take, in memory or as JSON, whichever are more; about.
        """
        self._number += 1
        subscriptions = self._subscriptions
        if not subscriptions and kind == "metrics" and ts_ms - self._listened_ms > METRICS_KEPT_MS:
            self._not_kept = self._number
            return
        all_kept = self._kept
        kept = _Kept(self._number, kind, agent_id, ts_ms, data, _WEIGHT + text)
        all_kept.append(kept)
        self._weight += _WEIGHT + text
        while self._weight > KEPT_BYTES or len(all_kept) > KEPT_EVENTS:
            self._weight -= all_kept.popleft().weight
        if not subscriptions:
            return
        event: Event | None = None
        for subscription in [*subscriptions]:
            if not subscription.wants(kept):
                continue
            event = self._event(kept) if event is None else event
            try:
                subscription.receiver(event)
            except Exception:
                _log.failure("[hub] an event could not be delivered")

    def subscribe(
        self,
        receiver: Callable[[Event], None],
        *,
        kinds: Collection[str] | None = None,
        agent_ids: Collection[str] | None = None,
    ) -> Callable[[], None]:
        """Call `receiver` with each event of these kinds and agents; returns what ends that."""
        subscription = _Subscription(receiver, kinds, agent_ids)
        self._subscriptions.append(subscription)

        def unsubscribe() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                self._listened_ms = self._now_ms()

        return unsubscribe

    def since(self, event_id: str) -> Iterator[Event] | None:
        """What came after that event, up to now; None where it is not known any more, or never
        was. Each becomes text when it is taken, and stays known until then."""
        epoch, _, digits = event_id.rpartition("-")
        if epoch != self._epoch or not (digits.isascii() and digits.isdecimal()):
            return None
        number = int(digits[:18])
        first = self._kept[0].number if self._kept else self._number + 1
        if not max(first - 1, self._not_kept) <= number <= self._number:
            return None
        return self._events(deque(kept for kept in self._kept if kept.number > number))

    def _events(self, missed: deque[_Kept]) -> Iterator[Event]:
        while missed:
            yield self._event(missed.popleft())

    def _event(self, kept: _Kept) -> Event:
        head = msgspec.json.encode({"agentId": kept.agent_id, "ts": kept.ts_ms})
        data = msgspec.json.encode(kept.data)
        return Event(
            event_id=f"{self._epoch}-{kept.number}",
            kind=kept.kind,
            agent_id=kept.agent_id,
            ts_ms=kept.ts_ms,
            data=head if data == b"{}" else head[:-1] + b"," + data[1:],
        )
