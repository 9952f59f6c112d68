"""The agents: everything the real one has above the socket, many times.

In: a machine, an identity, a clock that may be wrong. Out: `AgentLink`s that dial the hub, and a
count of every command that ran.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface import implementer

from jetcamer.agent.commands import (
    CommandDispatcher,
    CommandOutcome,
    CommandRegistry,
    ICommand,
    ProcessRunner,
    builtin_commands,
)
from jetcamer.agent.credentials import LinkCredentials
from jetcamer.agent.link import AgentLink
from jetcamer.agent.link_machine import SessionMaker
from jetcamer.agent.reconnect import ReconnectPolicy
from jetcamer.agent.service import ADDITIONS
from jetcamer.agent.session import Session, SessionSettings
from jetcamer.net.endpoint import WebSocketEndpoint
from jetcamer.net.tls import ClientTrust
from jetcamer.net.websocket import Disconnected, WebSocketConnection
from jetcamer.protocol.replay import ReplayGuard
from jetcamer.protocol.signing import SigningKey
from tests.support.simulation.network import HUB, Machine, MachineReactor

URL = f"ws://{HUB.host}:{HUB.port}/agent"

#: Unix seconds at which the simulated time begins.
EPOCH = 1_800_000_000

#: Seconds. Longer than in the field, for the sake of the test's own time.
METRICS_INTERVAL = 40.0
HEARTBEAT_INTERVAL = 100.0

_TRUST = ClientTrust()


@implementer(ICommand)
class Count:
    """Takes a while, and counts its runs by the id in its arguments."""

    name = "count"

    def __init__(self, process: AgentProcess) -> None:
        self._process = process

    def run(self, args: Mapping[str, str]) -> Deferred[CommandOutcome]:
        process, agent = self._process, self._process.agent
        agent.runs[args["id"]] += 1
        if args["for"] != agent.agent_id:
            agent.wrong.append(f"{agent.agent_id} ran a command for {args['for']}")
        seconds = float(args["seconds"])
        outcome = CommandOutcome(result=answer_to(args["id"]), details={"id": args["id"]})
        process.running += 1

        def over(result: CommandOutcome) -> CommandOutcome:
            process.running -= 1
            return result

        return deferLater(process.reactor, seconds, lambda: outcome).addBoth(over)


def answer_to(command_id: str) -> str:
    return f"ran {command_id} <&> \u2028"


class Readings:
    """A sampler whose readings tell the connection they were sent over."""

    def __init__(self, ordinal: int) -> None:
        self._reading = ordinal / 100

    def sample(self) -> dict[str, Any]:
        return {"cpuPercent": self._reading, "memPercent": 1e-7, "diskUsage": 60.0}


class SimulatedAgent:
    """One identity on one machine; its process comes and goes.

    :param skew: seconds by which its clock is ahead of the hub's.
    """

    def __init__(
        self, machine: Machine, agent_id: str, secret: str, skew: float, random: Random
    ) -> None:
        self.machine = machine
        self.agent_id = agent_id
        self.secret = secret
        self.skew = skew
        self.random = random
        self.process: AgentProcess | None = None
        #: Told how each connection ended: its number, when it was opened, and how.
        self.on_closed: Callable[[SimulatedAgent, int, float, Disconnected], None] | None = None
        self.on_start: Callable[[], object] = lambda: None
        #: Connections opened so far, by all its processes. The host name it sends ends in it.
        self.ordinal = 0
        self.runs: Counter[str] = Counter()
        self.wrong: list[str] = []
        #: Messages from the hub refused, by reason, by all its processes.
        self.refused: Counter[str] = Counter()
        #: When each of its processes dialled.
        self.dials: list[list[float]] = []

    def now(self) -> float:
        return EPOCH + self.machine.network.time.now + self.skew

    @property
    def online(self) -> bool:
        return self.process is not None and self.process.link.state == "online"

    def is_settled(self) -> bool:
        """Whether it is connected by a way that is whole."""
        process, machine = self.process, self.machine
        if process is None or process.link.state != "online":
            return False
        if machine.up != "flows" or machine.down != "flows":
            return False
        wires = [wire for wire in machine.wires if wire.client is not None]
        return len(wires) == 1 and wires[0].is_whole

    def start(self) -> None:
        if self.process is None:
            self.on_start()
            self.process = AgentProcess(self)

    def stop(self) -> Deferred[None]:
        """As at SIGTERM."""
        process, self.process = self.process, None
        return Deferred.fromCoroutine(self._stop(process))

    async def _stop(self, process: AgentProcess | None) -> None:
        if process is not None:
            await process.stop()
            self._gone(process)

    def crash(self, quietly: bool) -> None:
        """As at SIGKILL, or, `quietly`, as when the power fails: nobody is told."""
        process, self.process = self.process, None
        if process is not None:
            self._gone(process)
            process.reactor.kill()
            for wire in list(self.machine.wires):
                if wire.client is not None and wire.client.reactor is process.reactor:
                    wire.client.died(quietly)

    def _gone(self, process: AgentProcess) -> None:
        self.refused.update(process.link.counters.refused)


class AgentProcess:
    """What `jetcamer.agent.service.Agent` puts together, less files and the local interface."""

    def __init__(self, agent: SimulatedAgent) -> None:
        self.agent = agent
        self.reactor = reactor = MachineReactor(agent.machine)
        self._dials: list[float] = []
        agent.dials.append(self._dials)
        registry = CommandRegistry(
            builtin_commands(
                version="5.0.0",
                machine_id=lambda: agent.agent_id,
                check_health=_no_health,
                runner=ProcessRunner(reactor, {}),
            )
        )
        #: Commands that run.
        self.running = 0
        registry.add(Count(self))
        self.dispatcher = CommandDispatcher(reactor, registry)
        self._capabilities = (*ADDITIONS, *(f"command:{name}" for name in registry.names()))
        self._guard = ReplayGuard()
        self.link = AgentLink(
            reactor,
            now=agent.now,
            dial=self._dial,
            make_session=self._make_session,
            policy=ReconnectPolicy(random=agent.random.random),
        )
        self.dispatcher.start()
        self.link.startService()
        self.link.set_credentials(
            LinkCredentials(
                agent_id=agent.agent_id,
                url=URL,
                secret=agent.secret,
                secret_source="config",
                region=None,
            )
        )

    def _dial(self, credentials: LinkCredentials, make: SessionMaker) -> Deferred[Session]:
        assert credentials.url is not None
        self._dials.append(self.reactor.seconds())
        return WebSocketEndpoint(self.reactor, credentials.url, trust=_TRUST).connect(make)

    def _make_session(
        self,
        connection: WebSocketConnection,
        credentials: LinkCredentials,
        on_disconnected: Callable[[Disconnected], None],
    ) -> Session:
        assert credentials.secret is not None
        agent = self.agent
        agent.ordinal += 1
        ordinal, opened = agent.ordinal, self.reactor.seconds()

        def closed(reason: Disconnected) -> None:
            if agent.on_closed is not None:
                agent.on_closed(agent, ordinal, opened, reason)
            on_disconnected(reason)

        return Session(
            connection,
            SigningKey(credentials.secret),
            credentials.agent_id,
            settings=SessionSettings(
                hostname=f"host-{agent.ordinal}",
                version="5.0.0",
                capabilities=self._capabilities,
                metrics_interval=METRICS_INTERVAL,
                heartbeat_interval=HEARTBEAT_INTERVAL,
            ),
            queue=self.link.queue,
            guard=self._guard,
            sampler=Readings(agent.ordinal),
            dispatcher=self.dispatcher,
            counters=self.link.counters,
            clock=self.reactor,
            now=agent.now,
            on_disconnected=closed,
        )

    async def stop(self) -> None:
        await self.dispatcher.stop()
        await self.link.stopService()


async def _no_health() -> tuple[Any, ...]:
    return ()
