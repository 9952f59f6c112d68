"""TCP between machines, in memory: with delays, partitions, resets and half-open sockets.

In: `connectTCP` of an agent's machine, an endpoint of the hub's. Out: transports that behave as
Twisted's do. All bytes between an agent's machine and the hub go over its two directions: ``up``
and ``down``; each flows, holds what comes (as while TCP sends again), or loses it. A connection
that lost bytes carries nothing more in that direction, as through a router that has forgotten it:
it ends by a reset, or when one side notices.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any, Literal, Protocol

from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import (
    IConnector,
    IListeningPort,
    IStreamServerEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.simulation.clock import Process, Time
from tests.support.simulation.transport import FIN, RST, Transport

Condition = Literal["flows", "held", "lost"]

#: One delivery in so many comes in two reads.
CUT_ONE_IN = 25

HUB = IPv4Address("TCP", "10.0.0.1", 8443)


class Eavesdropping(Protocol):
    """Sees every write between a machine and the hub."""

    auths: list[tuple[float, bytes]]
    repeated: int

    def up(self, data: bytes) -> None: ...
    def down(self, data: bytes) -> bytes:
        """What arrives instead."""


class Network:
    """All machines and the connections between them."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.listener: HubPort | None = None
        self.connections: set[Wire] = set()
        self.dials = 0

    def machine(self, address: str, random: Random) -> Machine:
        return Machine(self, address, random)


class Machine:
    """Where an agent runs: its address, and its way to the hub."""

    def __init__(self, network: Network, address: str, random: Random) -> None:
        self.network = network
        self.address = address
        self.random = random
        self.up: Condition = "flows"
        self.down: Condition = "flows"
        self.wires: dict[Wire, None] = {}
        self._port = 32_768
        #: One way, seconds; each delivery takes between half and one and a half of it.
        self.latency = random.choice((0.002, 0.01, 0.04, 0.15))
        #: Somebody on the way, without a key.
        self.ear: Eavesdropping | None = None

    def next_port(self) -> int:
        self._port += 1
        return self._port

    def delay(self) -> float:
        return self.latency * (0.5 + self.random.random())

    def set(self, up: Condition, down: Condition) -> None:
        """Change the two directions; what was held goes on its way."""
        self.up, self.down = up, down
        for wire in list(self.wires):
            wire.up.schedule()
            wire.down.schedule()

    def reset(self) -> None:
        """Both ends of every connection hear a reset, whatever the way is like."""
        for wire in list(self.wires):
            for end in (wire.client, wire.server):
                if end is not None:
                    end.lost(ConnectionLost())


class MachineReactor(Process):
    """What a process on a machine has for a reactor."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.network.time)
        self.machine = machine

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Dial:
        return Dial(self, factory, timeout)


@implementer(IConnector)
class Dial:
    """One attempt to reach the hub, then the connection that it came to."""

    def __init__(self, reactor: MachineReactor, factory: Any, timeout: float) -> None:
        self._reactor = reactor
        self._machine = machine = reactor.machine
        self._factory = factory
        self._wire: Wire | None = None
        self._pending = True
        machine.network.dials += 1
        self._overdue = reactor.callLater(timeout, self._failed, TimeoutError())
        reactor.callLater(machine.delay(), self._at_hub)
        factory.doStart()
        factory.startedConnecting(self)

    def _at_hub(self) -> None:
        """The SYN is there. One that finds no way is not sent again: the dial runs out of time."""
        machine = self._machine
        if not self._pending or machine.up != "flows" or machine.down != "flows":
            return
        if machine.network.listener is None:
            self._reactor.callLater(machine.delay(), self._failed, ConnectionRefusedError())
        else:
            self._reactor.callLater(machine.delay(), self._answered)

    def _answered(self) -> None:
        if not self._pending:
            return
        self._over()
        protocol = self._factory.buildProtocol(HUB)
        if protocol is None:
            return
        self._wire = Wire(self._machine, self._reactor, protocol)

    def _failed(self, error: Exception) -> None:
        if self._pending:
            self._over()
            self._factory.clientConnectionFailed(self, Failure(error))
            self._factory.doStop()

    def _over(self) -> None:
        self._pending = False
        if self._overdue.active():
            self._overdue.cancel()

    # IConnector

    def stopConnecting(self) -> None:
        self._failed(UserError())

    def disconnect(self) -> None:
        if self._wire is not None and self._wire.client is not None:
            self._wire.client.loseConnection()
        else:
            self.stopConnecting()

    def connect(self) -> None:
        raise AssertionError("nobody connects a second time")

    def getDestination(self) -> IPv4Address:
        return HUB


class Wire:
    """One TCP connection: two pipes, and an end at each side until that side has closed."""

    def __init__(self, machine: Machine, reactor: MachineReactor, protocol: Any) -> None:
        self.machine = machine
        self.network = machine.network
        self.client: Transport | None = None
        self.server: Transport | None = None
        self.accepted = False
        #: Nothing moves on this one, whatever the way is like.
        self.stuck = False
        self.up = Pipe(self, "up")
        self.down = Pipe(self, "down")
        self._peer = IPv4Address("TCP", machine.address, machine.next_port())
        self.network.connections.add(self)
        machine.wires[self] = None
        self.up.put(b"")  # the ACK with which the hub accepts
        self.client = Transport(self, reactor, self.up, self._peer, HUB)
        self.client.connect(protocol)

    @property
    def is_whole(self) -> bool:
        """Both ends are there, and what one says reaches the other."""
        ends = self.client is not None and self.server is not None
        return ends and not (self.stuck or self.up.broken or self.down.broken)

    def unstick(self) -> None:
        self.stuck = False
        self.up.schedule()
        self.down.schedule()

    def accept(self) -> None:
        """The first that arrives at the hub."""
        self.accepted = True
        listener = self.network.listener
        protocol = None if listener is None else listener.factory.buildProtocol(self._peer)
        if listener is None or protocol is None:
            self.down.put(RST)
            self.ended(None)
            return
        self.server = Transport(self, listener.reactor, self.down, HUB, self._peer)
        self.server.connect(protocol)

    def never_accepted(self) -> None:
        self.accepted = True
        self.ended(None)

    def ended(self, transport: Transport | None) -> None:
        """One end has closed."""
        if transport is self.client:
            self.client = None
        elif transport is self.server:
            self.server = None
        if self.accepted and self.client is None and self.server is None:
            self.up.clear()
            self.down.clear()
            self.network.connections.discard(self)
            self.machine.wires.pop(self, None)


class Pipe:
    """One direction of a connection. What was put first arrives first."""

    def __init__(self, wire: Wire, direction: Literal["up", "down"]) -> None:
        self._wire = wire
        self._direction = direction
        self._queue: deque[tuple[float, float, bytes]] = deque()  # put at, due at, what
        self._call: DelayedCall | None = None
        self.size = 0
        #: It has lost bytes: nothing arrives any more.
        self.broken = False

    def put(self, data: bytes) -> None:
        machine, now = self._wire.machine, self._wire.network.time.now
        if data is RST:
            self.clear()
        elif data is not FIN and machine.ear is not None:
            if self._direction == "down":
                data = machine.ear.down(data)
            else:
                machine.ear.up(data)
        queue = self._queue
        self.size += len(data)
        if queue and queue[-1][0] == now and data is not FIN and queue[-1][2] is not FIN:
            put, due, before = queue.pop()
            queue.append((put, due, before + data))
            return
        due = now + machine.delay()
        if queue and due < queue[-1][1]:
            due = queue[-1][1]
        queue.append((now, due, data))
        if len(queue) == 1:
            self.schedule()

    def clear(self) -> None:
        self._queue.clear()
        self.size = 0
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def schedule(self) -> None:
        """Deliver what is next when its time comes, if the way is open."""
        if not self._queue or (self._call is not None and self._call.active()):
            return
        if self._wire.stuck or getattr(self._wire.machine, self._direction) == "held":
            return
        sink = self._sink
        if sink is not None and sink.paused:
            return
        time = self._wire.network.time
        self._call = time.callLater(max(0.0, self._queue[0][1] - time.now), self._deliver)

    @property
    def _sink(self) -> Transport | None:
        return self._wire.server if self._direction == "up" else self._wire.client

    @property
    def _source(self) -> Transport | None:
        return self._wire.client if self._direction == "up" else self._wire.server

    def _deliver(self) -> None:
        self._call = None
        wire = self._wire
        condition = getattr(wire.machine, self._direction)
        sink = self._sink
        if (
            wire.stuck
            or condition == "held"
            or not self._queue
            or (sink is not None and sink.paused)
        ):
            return  # until it flows again
        _, _, data = self._queue.popleft()
        self.size -= len(data)
        if condition == "lost":
            self.broken = True
        if not self.broken:
            self._arrive(data)
        elif self._direction == "up" and not wire.accepted:
            wire.never_accepted()
        source = self._source
        if source is not None:
            source.drained(self.size)
        self.schedule()

    def _arrive(self, data: bytes) -> None:
        wire = self._wire
        if self._direction == "up" and not wire.accepted:
            if data is RST:
                wire.never_accepted()
                return
            wire.accept()
        sink = self._sink
        if sink is None:
            if data is not RST and data is not FIN and data:
                # A packet for a socket that is gone.
                back = wire.down if self._direction == "up" else wire.up
                back.put(RST)
        elif data is RST:
            sink.lost(ConnectionLost())
        elif data is FIN:
            sink.lost(ConnectionDone())
        elif data:
            random = wire.machine.random
            if len(data) > 1 and random.randrange(CUT_ONE_IN) == 0:
                at = random.randrange(1, len(data))
                sink.received(data[:at])
                data = data[at:]
            sink.received(data)


@implementer(IStreamServerEndpoint)
class HubEndpoint:
    """Where a hub's process listens."""

    def __init__(self, network: Network, reactor: Process) -> None:
        self._network = network
        self._reactor = reactor

    def listen(self, factory: Any) -> Deferred[HubPort]:
        if self._network.listener is not None:
            raise AssertionError("two hubs on one port")
        port = self._network.listener = HubPort(self._network, self._reactor, factory)
        factory.doStart()
        return succeed(port)


@implementer(IListeningPort)
class HubPort:
    def __init__(self, network: Network, reactor: Process, factory: Any) -> None:
        self._network = network
        self.reactor = reactor
        self.factory = factory

    def startListening(self) -> None: ...

    def stopListening(self) -> Deferred[None]:
        if self._network.listener is self:
            self._network.listener = None
            self.factory.doStop()
        return succeed(None)

    def died(self, quietly: bool) -> None:
        """The hub's process is gone, with every connection of its."""
        if self._network.listener is self:
            self._network.listener = None
        for wire in list(self._network.connections):
            if wire.server is not None and wire.server.reactor is self.reactor:
                wire.server.died(quietly)

    def getHost(self) -> IPv4Address:
        return HUB
