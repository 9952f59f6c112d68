"""Why messages and connections were not accepted: kept, counted and said, in bounded room.

In: refusals. Out: the last ones of an agent id and of an address, for the operator who asks why;
counts by reason; lines in the log, one for many of a kind. What a stranger sends may fill none of
these.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.hub.fleet import Agent, Fleet
from jetcamer.hub.records import RefusalRecord
from jetcamer.protocol.diagnosis import explain_signature
from jetcamer.protocol.errors import excerpt

_log = Logger()

#: Refusals kept of one agent id or address, ids and addresses kept, and refusals in all.
KEPT_OF_EACH = 20
KEPT_LATEST = 1_000
KEPT_NAMES = 10_000

#: A refusal like one that was said is counted for this long before it is said again. Seconds.
QUIET_SECONDS = 60.0

#: Looking for what a wrong signature may have covered takes some milliseconds: at most this often.
_EXPLAINED_PER_SECOND = 20


class Refusals:
    """The last refusals, by who and whence."""

    def __init__(self, clock: IReactorTime, fleet: Fleet) -> None:
        self._clock = clock
        self._fleet = fleet
        self._by_agent = _Recent()
        self._by_address = _Recent()
        self._latest: deque[RefusalRecord] = deque(maxlen=KEPT_LATEST)
        #: By reason, since the start.
        self.counts: dict[str, int] = {}
        self._said: OrderedDict[tuple[str | None, str, str], _Said] = OrderedDict()
        self._explained_since = 0.0
        self._explained = 0

    def add(self, refusal: RefusalRecord) -> None:
        self.counts[refusal.reason] = self.counts.get(refusal.reason, 0) + 1
        if refusal.agent_id is not None:
            self._by_agent.add(refusal.agent_id, refusal)
        self._by_address.add(refusal.address, refusal)
        self._latest.append(refusal)
        self._say(refusal)

    def of_agent(self, agent_id: str) -> list[RefusalRecord]:
        """Newest first; at most `KEPT_OF_EACH`."""
        return self._by_agent.of(agent_id)

    def of_address(self, address: str) -> list[RefusalRecord]:
        """Newest first; at most `KEPT_OF_EACH`."""
        return self._by_address.of(address)

    def latest(self) -> list[RefusalRecord]:
        """Whoever they were for, newest first; at most `KEPT_LATEST`."""
        return [*reversed(self._latest)]

    def explain(self, data: bytes, agent: Agent) -> str:
        """Why the signature of `data` matches none of the agent's keys, in words; "" where too
        many were asked for."""
        now = self._clock.seconds()
        if now - self._explained_since >= 1.0:
            self._explained_since, self._explained = now, 0
        self._explained += 1
        if self._explained > _EXPLAINED_PER_SECOND:
            return ""
        return explain_signature(data, self._fleet.keys_by_name(agent))

    def _say(self, refusal: RefusalRecord) -> None:
        """In the log: the first of a kind at once, the others once a minute, as a number."""
        kind = (refusal.agent_id, refusal.address, refusal.reason)
        now = self._clock.seconds()
        said = self._said.pop(kind, None)
        if said is not None and now - said.when < QUIET_SECONDS:
            said.more += 1
        else:
            _log.warn(
                "[hub] refused {reason} from {address} ({agent}): {words}{more}",
                reason=refusal.reason,
                address=refusal.address,
                agent=excerpt(refusal.agent_id) if refusal.agent_id else "not authenticated",
                words=refusal.words,
                more=f" (and {said.more} more like it)" if said is not None and said.more else "",
            )
            said = _Said(now)
        self._said[kind] = said
        while len(self._said) > KEPT_NAMES:
            self._said.popitem(last=False)


class _Said:
    __slots__ = ("more", "when")

    def __init__(self, when: float) -> None:
        self.when = when
        self.more = 0


class _Recent:
    """The last refusals of each name; the names longest unheard of are forgotten."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, deque[RefusalRecord]] = OrderedDict()

    def add(self, name: str, refusal: RefusalRecord) -> None:
        kept = self._of.get(name)
        if kept is None:
            kept = self._of[name] = deque(maxlen=KEPT_OF_EACH)
            while len(self._of) > KEPT_NAMES:
                self._of.popitem(last=False)
        else:
            self._of.move_to_end(name)
        kept.append(refusal)

    def of(self, name: str) -> list[RefusalRecord]:
        return [*reversed(self._of.get(name, ()))]
