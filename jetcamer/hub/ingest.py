"""A verified message → the store and the bus; a refusal → where an operator finds it.

In: the events of the registry. Out: facts for the store, events for the bus, counters. What is
done here is done for every message, so nothing here waits, formats or logs one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import getsizeof
from typing import Protocol

import msgspec
from twisted.internet.interfaces import IReactorTime

from jetcamer.hub.bus.local import LocalBus, weight_of
from jetcamer.hub.fleet import Agent, Fleet
from jetcamer.hub.records import RefusalRecord
from jetcamer.hub.refusals import Refusals
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import SessionListener
from jetcamer.hub.store.interface import Store
from jetcamer.net.timers import RepeatingTimer
from jetcamer.protocol.envelope import (
    AuthPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsMessage,
    MetricsPayload,
)

#: How often it is written down who was heard. Seconds.
SEEN_INTERVAL = 1.0

#: How often, in these, each session's counters are written down.
_COUNT_EVERY = 60

#: Refusals that look like somebody trying; and those that do where nobody said who he is. Who is
#: too slow to say it is not one of them: behind one address there may be many on a bad line.
_OFFENCES = frozenset({"invalid_signature", "unknown_agent", "auth_required"})
_OFFENCES_OF_STRANGERS = frozenset({"invalid_json", "not_text"})

#: Refusals that are written down in one second: of one address, and in all. All are counted, and
#: the last are kept in memory.
MAX_REFUSALS_OF_ADDRESS = 10
MAX_REFUSALS = 100


class LogEvent(msgspec.Struct, frozen=True, rename="camel"):
    """A line of an agent's log, as the bus tells it."""

    level: str
    message: str
    source: str | None
    received_ms: int
    event: msgspec.Raw | None = None


class PresenceEvent(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An agent came, went or was replaced, as the bus tells it."""

    state: str
    address: str = ""
    hostname: str = ""
    version: str = ""
    words: str = ""


class RefusalEvent(msgspec.Struct, frozen=True, rename="camel"):
    address: str
    reason: str
    words: str


class CommandsHear(Protocol):
    """What `Commands` is told."""

    def agent_arrived(self, agent_id: str) -> None: ...


class Offended(Protocol):
    """Who keeps count of strangers that try."""

    def offended(
        self, address: str, agent_id: str | None = None, *, retired: bool = False
    ) -> None: ...

    def pardon(self, address: str) -> None: ...


class _Log(msgspec.Struct, gc=False):
    """What a log line's payload may carry beside the members that every peer sends."""

    event: msgspec.Raw = msgspec.Raw(b"null")


_LOG = msgspec.json.Decoder(_Log)


class Ingest:
    """The registry's listener.

    :param extra: hears every event after it has been dealt with here.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        fleet: Fleet,
        store: Store,
        bus: LocalBus,
        refusals: Refusals,
        offenders: Offended,
        now_ms: Callable[[], int],
        extra: SessionListener | None = None,
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._bus = bus
        self._refusals = refusals
        self._offenders = offenders
        self._now_ms = now_ms
        self._extra = extra
        #: Told which agents come; set by whoever composes.
        self.commands: CommandsHear | None = None
        #: Verified messages by type, since the start.
        self.messages = {"auth": 0, "metrics": 0, "heartbeat": 0, "log": 0, "command_result": 0}
        self._written_ms = 0
        self._written = 0
        self._clock = clock
        #: Refusals written down in this second, by address.
        self._refused_since = 0.0
        self._refused_of: dict[str, int] = {}
        self._refused_in_all = 0
        self._timer = RepeatingTimer(clock, SEEN_INTERVAL, self._write_seen, name="[hub] last seen")

    def start(self) -> None:
        self._timer.start()

    def stop(self) -> None:
        """Write down who was heard, to the message: no more will come."""
        self._timer.stop()
        self._write_seen()

    # SessionListener

    def authenticated(
        self, session: AgentSession, envelope: Envelope, payload: AuthPayload
    ) -> None:
        self.messages["auth"] += 1
        agent = session.agent
        assert agent is not None
        now = session.last_seen_ms
        is_new = not session.record_id
        if is_new:
            session.record_id = self._store.session_started(agent.record(), session.peer, now)
            self._write_seen_of([agent])
            self._offenders.pardon(session.address)
        told = (agent.address, agent.hostname, agent.version)
        if is_new or agent.told != told:
            agent.told = told
            self._bus.publish(
                "agent", agent.agent_id, now, PresenceEvent("online", *told), weight_of(*told)
            )
        if self._extra is not None:
            self._extra.authenticated(session, envelope, payload)
        if self.commands is not None:
            self.commands.agent_arrived(agent.agent_id)

    def metrics(
        self, session: AgentSession, envelope: Envelope | MetricsMessage, payload: MetricsPayload
    ) -> None:
        self.messages["metrics"] += 1
        agent_id, now = envelope.agent_id, session.last_seen_ms
        self._store.add_metrics(
            agent_id, now, payload.cpu_percent, payload.mem_percent, payload.disk_usage
        )
        self._bus.publish("metrics", agent_id, now, payload)
        if self._extra is not None:
            self._extra.metrics(session, envelope, payload)

    def heartbeat(
        self, session: AgentSession, envelope: Envelope, payload: HeartbeatPayload
    ) -> None:
        self.messages["heartbeat"] += 1
        if self._extra is not None:
            self._extra.heartbeat(session, envelope, payload)

    def log(self, session: AgentSession, envelope: Envelope, payload: LogPayload) -> None:
        self.messages["log"] += 1
        agent_id, now = envelope.agent_id, session.last_seen_ms
        event = _event(envelope)
        text = None if event is None else bytes(event).decode()
        self._store.add_log(
            agent_id, now, envelope.ts, payload.level, payload.message, payload.source, text
        )
        self._bus.publish(
            "log",
            agent_id,
            envelope.ts,
            LogEvent(payload.level, payload.message, payload.source, now, event),
            # Its text in memory, and what of it a reader gets, at most.
            len(envelope.payload) + getsizeof(payload.message),
        )
        if self._extra is not None:
            self._extra.log(session, envelope, payload)

    def command_result(
        self, session: AgentSession, envelope: Envelope, payload: CommandResultPayload
    ) -> None:
        """Counted; what it says goes to whoever waits for it."""
        self.messages["command_result"] += 1
        if self._extra is not None:
            self._extra.command_result(session, envelope, payload)

    def disconnected(self, session: AgentSession, words: str) -> None:
        agent = session.agent
        assert agent is not None
        now = self._now_ms()
        self._store.session_ended(session.record_id, now, words, session.verified, session.refused)
        is_gone = agent.session is None
        if is_gone:
            self._write_seen_of([agent])
        self._bus.publish(
            "agent",
            agent.agent_id,
            now,
            PresenceEvent("offline" if is_gone else "replaced", session.address, words=words),
            weight_of(session.address, words),
        )
        if self._extra is not None:
            self._extra.disconnected(session, words)

    def refused(self, refusal: RefusalRecord) -> None:
        self._refusals.add(refusal)
        if self._is_written(refusal.address):
            self._store.add_refusal(refusal)
        agent = self._fleet.get(refusal.agent_id) if refusal.agent_id is not None else None
        if agent is not None:
            agent.was_refused(refusal)
        self._bus.publish(
            "refusal",
            refusal.agent_id,
            refusal.ts_ms,
            RefusalEvent(refusal.address, refusal.reason, refusal.words),
            weight_of(refusal.agent_id, refusal.address, refusal.words),
        )
        if refusal.reason in _OFFENCES or (
            refusal.reason in _OFFENCES_OF_STRANGERS and refusal.agent_id is None
        ):
            # An agent that was revoked goes on trying, and guesses nothing.
            retired = agent is not None and refusal.reason == "unknown_agent"
            self._offenders.offended(refusal.address, refusal.agent_id, retired=retired)
        if self._extra is not None:
            self._extra.refused(refusal)

    def _is_written(self, address: str) -> bool:
        """Whether another refusal of this address is written down in this second."""
        now = self._clock.seconds()
        if now - self._refused_since >= 1.0:
            self._refused_since, self._refused_in_all = now, 0
            self._refused_of.clear()
        of_address = self._refused_of.get(address, 0)
        if of_address >= MAX_REFUSALS_OF_ADDRESS or self._refused_in_all >= MAX_REFUSALS:
            return False
        self._refused_of[address] = of_address + 1
        self._refused_in_all += 1
        return True

    # Who was heard, and up to which message.

    def _write_seen(self) -> None:
        since, self._written_ms = self._written_ms, self._now_ms()
        agents = [*self._fleet]
        self._write_seen_of([agent for agent in agents if (agent.last_seen_ms or -1) >= since])
        # Of one in so many at a time, so that there is never much to write.
        self._written += 1
        self._write_counters_of(agents[self._written % _COUNT_EVERY :: _COUNT_EVERY])

    def _write_seen_of(self, agents: list[Agent]) -> None:
        seen = [
            (agent.agent_id, agent.last_seen_ms, agent.replay.high)
            for agent in agents
            if agent.last_seen_ms is not None and agent.replay.high is not None
        ]
        if seen:
            self._store.seen(seen)

    def _write_counters_of(self, agents: list[Agent]) -> None:
        """What their sessions have counted so far: all that is left of them after a crash."""
        rows = []
        for agent in agents:
            session = agent.session
            if session is not None and session.verified + session.refused != session.counted:
                session.counted = session.verified + session.refused
                rows.append((session.record_id, session.verified, session.refused))
        if rows:
            self._store.sessions_counted(rows)


def _event(envelope: Envelope) -> msgspec.Raw | None:
    """The JSON text of a log line's `event`; None where there is none that can be kept."""
    try:
        event = _LOG.decode(envelope.payload).event
    except msgspec.MsgspecError:  # an escape of half a character, somewhere
        return None
    return event if bytes(event).startswith(b"{") else None
