"""TCP and a TLS client in memory, for tests that decide what arrives when."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure


class MemoryTCP(FileDescriptor):
    """A transport with Twisted's own buffer and producer rules, and `room` for what is sent.

    Nothing moves by itself: `deliver` is the peer sending, `flush` the network taking.
    """

    def __init__(self, protocol: Any) -> None:
        super().__init__(self)  # it is its own reactor, too
        self.protocol = protocol
        self.reading = self.writing = False
        self.sent = b""
        self.room = 1 << 30
        self.no_delay: bool | None = None
        self.keep_alive: bool | None = None
        self.aborted = self.half_closed = False
        self.connected = 1
        self.startReading()
        protocol.makeConnection(self)

    # what FileDescriptor asks of a reactor

    def addReader(self, _: object) -> None:
        self.reading = True

    def removeReader(self, _: object) -> None:
        self.reading = False

    def addWriter(self, _: object) -> None:
        self.writing = True

    def removeWriter(self, _: object) -> None:
        self.writing = False

    # what FileDescriptor leaves open

    def writeSomeData(self, data: bytes) -> int:
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def connectionLost(self, reason: Failure) -> None:
        if not self.disconnected:
            super().connectionLost(reason)
            self.protocol.connectionLost(reason)

    def _closeWriteConnection(self) -> None:
        self.half_closed = True
        self.protocol.writeConnectionLost()

    def abortConnection(self) -> None:
        self.aborted = True
        self.stopReading()
        self.stopWriting()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.7", 40000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "192.0.2.1", 443)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        return bool(self.no_delay)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keep_alive = enabled

    def getTcpKeepAlive(self) -> bool:
        return bool(self.keep_alive)

    # what a test does

    def deliver(self, data: bytes) -> None:
        assert self.reading, "nobody reads"
        self.protocol.dataReceived(data)

    def flush(self) -> bytes:
        """Send what there is room for; what has been sent since the last time."""
        while self.writing and self.room and not self.disconnected:
            if isinstance(self.doWrite(), Exception):
                self.connectionLost(Failure(ConnectionDone()))
        sent, self.sent = self.sent, b""
        return sent

    def end(self) -> None:
        """The peer closes; or what the reactor does some time after an abort."""
        if not self.aborted:
            self.stopReading()
            self.protocol.readConnectionLost()
            self.flush()
        if self.aborted:
            self.connectionLost(Failure(ConnectionAborted()))


class MemoryTLSClient:
    """The client's end, over `tcp`."""

    def __init__(self, tcp: MemoryTCP, context: ssl.SSLContext) -> None:
        self.tcp = tcp
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="hub.example")
        #: close_notify was received.
        self.ended = False

    def step(self) -> bool:
        """One try at the handshake; whether it is over on this side."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def shake(self) -> MemoryTLSClient:
        while not self.step():
            self.exchange()
        return self.exchange()

    def exchange(self) -> MemoryTLSClient:
        """What was encrypted here arrives there, and what is sent there here."""
        data = self.outgoing.read()
        if data:
            self.tcp.deliver(data)
        self.incoming.write(self.tcp.flush())
        return self

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.exchange()

    def close(self) -> bytes:
        """The record of our close_notify."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.outgoing.read()

    def received(self) -> bytes:
        """All that is readable now."""
        self.incoming.write(self.tcp.flush())
        found = []
        try:
            while data := self.tls.read(1 << 16):
                found.append(data)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(found)


class Recorder(Protocol):
    """The wrapped protocol; what happened to it."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost: list[Failure] = []
        self.on_made: Any = None
        self.on_data: Any = None
        self.on_lost: Any = None

    @property
    def data(self) -> bytes:
        return b"".join(self.received)

    def connectionMade(self) -> None:
        if self.on_made is not None:
            self.on_made()

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        if self.on_data is not None:
            self.on_data(data)

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.lost.append(reason)
        if self.on_lost is not None:
            self.on_lost(reason)


class Producer:
    """Either sort; counts what it was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")
