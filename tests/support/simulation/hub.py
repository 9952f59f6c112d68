"""The hub: its own parts, put together for a process that can be killed, and what its disk keeps.

In: a network to listen on. Out: connections accepted, sessions verified, commands sent; what a
`Watch` is told. It is `jetcamer.hub.service` less files, threads and the API: the only module here
that knows how the hub is put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, Protocol

from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed

from jetcamer.hub.admission import Admission, Offenders
from jetcamer.hub.bus.local import LocalBus
from jetcamer.hub.commands import Commands
from jetcamer.hub.fleet import Fleet, after_kill
from jetcamer.hub.gateway import Gateway
from jetcamer.hub.ingest import Ingest
from jetcamer.hub.records import AgentRecord, CommandRecord, RefusalRecord
from jetcamer.hub.refusals import Refusals
from jetcamer.hub.registry import AgentRegistry
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import Connection, Policy
from jetcamer.protocol.envelope import (
    AuthPayload,
    Envelope,
    LogPayload,
    MetricsMessage,
    MetricsPayload,
)
from tests.support.simulation.agents import EPOCH
from tests.support.simulation.clock import Process
from tests.support.simulation.network import HubEndpoint, Network

#: Seconds between two writes of the hub's database. What came since the last dies in a crash.
WRITTEN_EVERY = 1.0

#: Seconds that a write takes which somebody waits for.
WRITING = 0.02

#: Handshakes a second. So few that a fleet of thousands is sent away in part when it comes back.
ADMITTED = 400.0

UNFINISHED = ("queued", "sent")


class Watch(Protocol):
    """Who is told what the hub acts upon."""

    def authenticated(self, agent_id: str, hostname: str, address: str) -> None: ...
    def metrics(self, agent_id: str, cpu_percent: float | None) -> None: ...
    def log(self, agent_id: str, message: str) -> None: ...
    def disconnected(self, agent_id: str, hostname: str, words: str) -> None: ...
    def refused(self, refusal: RefusalRecord) -> None: ...


class Disk:
    """What survives the hub: agents, their secrets, up to when their messages counted, commands."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self.secrets = secrets
        self.agents = {
            agent_id: AgentRecord(agent_id=agent_id, created_ms=0) for agent_id in secrets
        }
        self.commands: dict[str, CommandRecord] = {}
        #: A hub has it open, or was killed while it had.
        self.in_use = False


class Database:
    """A `Store` over a `Disk`: facts reach it once a second, or when somebody waits for them."""

    def __init__(self, clock: Process, disk: Disk) -> None:
        self._clock = clock
        self._disk = disk
        self._numbers = count(1)
        self._facts: list[Callable[[], object]] = []
        self._writing = clock.callLater(WRITTEN_EVERY, self._write)
        self.metrics = 0

    def session_started(self, agent: AgentRecord, peer: str, started_ms: int) -> int:
        def write() -> None:
            before = self._disk.agents[agent.agent_id].replay_floor_ms
            floor = max(before or 0, agent.replay_floor_ms or 0)
            self._disk.agents[agent.agent_id] = replace(agent, replay_floor_ms=floor)

        self._facts.append(write)
        return next(self._numbers)

    def session_ended(self, *arguments: object) -> None: ...
    def sessions_counted(self, *arguments: object) -> None: ...
    def add_log(self, *arguments: object) -> None: ...
    def add_refusal(self, refusal: RefusalRecord) -> None: ...

    def add_metrics(self, *arguments: object) -> None:
        self.metrics += 1

    def put_command(self, command: CommandRecord) -> None:
        self._facts.append(lambda: self._disk.commands.update({command.command_id: command}))

    def seen(self, agents: Sequence[tuple[str, int, int]]) -> None:
        def write() -> None:
            for agent_id, last_seen, floor in agents:
                record = self._disk.agents[agent_id]
                self._disk.agents[agent_id] = replace(
                    record, last_seen_ms=last_seen, replay_floor_ms=floor
                )

        self._facts.append(write)

    def unfinished_commands(self) -> Deferred[list[CommandRecord]]:
        commands = self._disk.commands.values()
        return succeed([command for command in commands if command.state in UNFINISHED])

    def flush(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def written() -> None:
            self._empty()
            done.callback(None)

        self._clock.callLater(WRITING, written)
        return done

    def close(self) -> None:
        self._writing.cancel()
        self._empty()
        self._disk.in_use = False

    def _write(self) -> None:
        self._writing = self._clock.callLater(WRITTEN_EVERY, self._write)
        self._empty()

    def _empty(self) -> None:
        facts, self._facts = self._facts, []
        for write in facts:
            write()


class InOrder(dict[Any, None]):
    """A set that is gone through in the order of time, not in that of addresses in memory."""

    def add(self, member: object) -> None:
        self[member] = None

    def discard(self, member: object) -> None:
        self.pop(member, None)


class Hub:
    """One run of the hub, from its start to its end. Also the listener beyond its own."""

    def __init__(self, network: Network, disk: Disk, watch: Watch) -> None:
        self.reactor = reactor = Process(network.time)
        self.watch = watch
        self.store: Any = Database(reactor, disk)
        self.fleet = Fleet()
        for agent_id, record in disk.agents.items():
            known = after_kill(record, self.now_ms()) if disk.in_use else record
            self.fleet.add(known, [(disk.secrets[agent_id], None)])
        disk.in_use = True
        refusals = Refusals(reactor, self.fleet)
        offenders = Offenders(reactor)
        bus = LocalBus()
        self.ingest = Ingest(
            reactor,
            fleet=self.fleet,
            store=self.store,
            bus=bus,
            refusals=refusals,
            offenders=offenders,
            now_ms=self.now_ms,
            extra=self,
        )
        self.registry = AgentRegistry(reactor, self.ingest)
        self.commands = Commands(
            reactor, registry=self.registry, store=self.store, bus=bus, now_ms=self.now_ms
        )
        self.ingest.commands = self.commands
        self._policy = Policy(explain=refusals.explain)
        self.gateway = Gateway(
            reactor,
            HubEndpoint(network, reactor),
            self._make_session,
            admission=Admission(reactor, ADMITTED),
            offenders=offenders,
        )
        self.gateway.factory.connections = InOrder()  # so that a seed draws the same again
        self.ingest.start()
        self.gateway.privilegedStartService()
        self.gateway.startService()
        self._port = network.listener

    def now_ms(self) -> int:
        return int((EPOCH + self.reactor.seconds()) * 1000)

    def _make_session(self, connection: Connection) -> AgentSession:
        return AgentSession(connection, self.fleet, self.registry, self.now_ms, self._policy)

    # What a scenario asks.

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.commands.start())

    def present(self) -> Iterator[tuple[str, str]]:
        """The agents that are here, and the host name that each gave with its `auth`."""
        for session in self.registry:
            assert session.agent_id is not None
            assert session.auth is not None
            yield session.agent_id, session.auth.hostname

    def command(
        self, agent_id: str, args: dict[str, str], queue_seconds: float | None
    ) -> Deferred[CommandRecord]:
        """Have the agent run `count`; as `Commands.send`."""
        return self.commands.send(
            agent_id, "count", args, who="operator", queue_seconds=queue_seconds
        )

    def stop(self) -> Deferred[None]:
        """As at SIGTERM."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.commands.stop()
        await self.gateway.stopService()
        self.registry.stop()
        self.ingest.stop()
        self.store.close()

    def crash(self, quietly: bool) -> None:
        """As at SIGKILL, or, `quietly`, as when the power fails: no agent is told."""
        self.reactor.kill()
        if self._port is not None:
            self._port.died(quietly)

    # SessionListener

    def authenticated(
        self, session: AgentSession, envelope: Envelope, payload: AuthPayload
    ) -> None:
        self.watch.authenticated(envelope.agent_id, payload.hostname, session.address)

    def metrics(
        self, session: AgentSession, envelope: Envelope | MetricsMessage, payload: MetricsPayload
    ) -> None:
        self.watch.metrics(envelope.agent_id, payload.cpu_percent)

    def log(self, session: AgentSession, envelope: Envelope, payload: LogPayload) -> None:
        self.watch.log(envelope.agent_id, payload.message)

    def heartbeat(self, session: AgentSession, envelope: Envelope, payload: Any) -> None: ...
    def command_result(self, session: AgentSession, envelope: Envelope, payload: Any) -> None: ...

    def disconnected(self, session: AgentSession, words: str) -> None:
        assert session.agent_id is not None
        assert session.auth is not None
        self.watch.disconnected(session.agent_id, session.auth.hostname, words)

    def refused(self, refusal: RefusalRecord) -> None:
        self.watch.refused(refusal)
