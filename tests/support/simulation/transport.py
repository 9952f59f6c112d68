"""One end of a simulated TCP connection, as `twisted.internet.tcp.Connection` is.

In: what the other end sent, and how it ended. Out: calls of a protocol. Like Twisted's own it reads
nothing once it is closing, closes in the next turn of the reactor, and pauses its producer while
the kernel's buffer is full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.support.simulation.clock import Process

if TYPE_CHECKING:
    from tests.support.simulation.network import Pipe, Wire

log = Logger()

#: What the kernels of both sides take before `write` has to wait. Bytes.
KERNEL_BUFFER = 64 * 1024

#: What goes over a pipe beside bytes.
FIN, RST = b"FIN", b"RST"


@implementer(ITCPTransport)
class Transport:
    """One end of a connection, as `twisted.internet.tcp.Connection` is."""

    disconnected = False

    def __init__(
        self, wire: Wire, reactor: Process, out: Pipe, host: IPv4Address, peer: IPv4Address
    ) -> None:
        self.reactor = reactor
        self.paused = False
        self.disconnecting = False
        self.connected = 1
        self._wire = wire
        self._out = out
        self._host = host
        self._peer = peer
        self._protocol: Any = None
        self._producer: Any = None
        self._producer_paused = False

    def connect(self, protocol: Any) -> None:
        self._protocol = protocol
        protocol.makeConnection(self)

    # From the network

    def received(self, data: bytes) -> None:
        if self.disconnecting or not self.connected or not self.reactor.alive:
            return
        try:
            self._protocol.dataReceived(data)
        except Exception as error:
            log.failure("dataReceived failed")
            self.lost(error)

    def drained(self, size: int) -> None:
        """The pipe out has so many bytes left."""
        if not self.connected or size >= KERNEL_BUFFER or not self.reactor.alive:
            return
        if self._producer is not None and self._producer_paused:
            self._producer_paused = False
            self._producer.resumeProducing()
        elif self.disconnecting:
            self.reactor.callLater(0, self._close)

    def lost(self, error: Exception) -> None:
        """The end of this end."""
        if not self.connected:
            return
        self.connected = 0
        self.disconnected = True
        self._wire.ended(self)
        if not self.reactor.alive:
            return
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self._protocol.connectionLost(Failure(error))

    def vanish(self, last_word: bool = False) -> None:
        """This end hears that the connection is lost; the other hears nothing, or a FIN in time."""
        if last_word:
            self._out.put(FIN)
        self.lost(ConnectionLost())

    def died(self, quietly: bool) -> None:
        """The process is gone: its kernel says so to the other side, or has no power to."""
        if self.connected:
            self.connected = 0
            if not quietly:
                self._out.put(RST)
            self._wire.ended(self)

    # ITCPTransport

    def write(self, data: bytes) -> None:
        if not self.connected or self.disconnecting or not data:
            return
        self._out.put(bytes(data))
        if self._out.size > KERNEL_BUFFER and self._producer is not None:
            self._producer_paused = True
            self._producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            if self._out.size < KERNEL_BUFFER:
                self.reactor.callLater(0, self._close)

    def abortConnection(self) -> None:
        if self.connected:
            self.disconnecting = True
            self.reactor.callLater(0, self._abort)

    def _close(self) -> None:
        if self.connected:
            self._out.put(FIN)
            self.lost(ConnectionDone())

    def _abort(self) -> None:
        if self.connected:
            self._out.put(RST)
            self.lost(ConnectionAborted())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("there is a producer already")
        self._producer = producer
        if not self.connected:
            producer.stopProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        if self.paused:
            self.paused = False
            (self._wire.up if self is self._wire.server else self._wire.down).schedule()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getHost(self) -> IPv4Address:
        return self._host

    def getPeer(self) -> IPv4Address:
        return self._peer

    def setTcpNoDelay(self, enabled: bool) -> None: ...
    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None: ...
    def getTcpKeepAlive(self) -> bool:
        return False

    def loseWriteConnection(self) -> None:
        self.loseConnection()
