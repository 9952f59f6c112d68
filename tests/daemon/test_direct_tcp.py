"""Ports whose connections send at once, with real sockets."""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import DeferredQueue
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.posixbase import PosixReactorBase
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from jetcamer.daemon.direct_tcp import DirectConnection, DirectPort

MEGABYTES = bytes(range(256)) * 4096 * 8


class Peer(Protocol):
    """The server's end; what happens to it goes to the test."""

    transport: Any

    def __init__(self, test: DirectTests) -> None:
        self._test = test

    def connectionMade(self) -> None:
        self._test.made.put(self)

    def dataReceived(self, data: bytes) -> None:
        self._test.received.put(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._test.lost.put(reason.type)


class DirectTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        if not isinstance(reactor, PosixReactorBase):
            raise SkipTest("the reactor's sockets are not the system's")
        self.made: DeferredQueue[Peer] = DeferredQueue()
        self.received: DeferredQueue[bytes] = DeferredQueue()
        self.lost: DeferredQueue[Any] = DeferredQueue()

    def listen(self, factory: Factory | None = None, interface: str = "127.0.0.1") -> None:
        factory = factory or Factory.forProtocol(lambda: Peer(self))
        self.port = DirectPort(0, factory, 200, interface, reactor)
        self.port.startListening()
        self.addCleanup(self.port.stopListening)

    def connect(self) -> socket.socket:
        address = self.port.getHost()
        client = socket.create_connection((address.host, address.port), timeout=20)
        self.addCleanup(client.close)
        return client

    async def pair(self) -> tuple[socket.socket, Peer]:
        self.listen()
        client = self.connect()
        return client, await self.made.get()

    async def test_sends_before_the_reactor_turns(self) -> None:
        client, peer = await self.pair()
        peer.transport.write(b"one ")
        peer.transport.write(b"two")
        self.assertEqual(client.recv(100, socket.MSG_DONTWAIT), b"one two")

    async def test_what_does_not_fit_follows_in_order(self) -> None:
        client, peer = await self.pair()
        client.settimeout(20)
        events: list[str] = []

        class Source:
            def pauseProducing(self) -> None:
                events.append("pause")

            def resumeProducing(self) -> None:
                events.append("resume")

            def stopProducing(self) -> None:
                events.append("stop")

        peer.transport.registerProducer(Source(), True)
        peer.transport.write(MEGABYTES)
        self.assertEqual(events, ["pause"])
        found = [client.recv(65536) for _ in range(20)]  # so that there is room again
        peer.transport.write(b"the end")
        peer.transport.unregisterProducer()
        peer.transport.loseConnection()

        def read() -> bytes:
            while data := client.recv(65536):
                found.append(data)
            return b"".join(found)

        self.assertEqual(await deferToThread(read), MEGABYTES + b"the end")
        self.assertIs(await self.lost.get(), ConnectionDone)

    async def test_what_waits_goes_first(self) -> None:
        """Also where the socket has room again before the reactor has seen it."""
        self.listen()
        for turns in (0, 2):
            client = socket.socket()
            self.addCleanup(client.close)
            client.settimeout(20)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", self.port.getHost().port))
            peer = await self.made.get()
            peer.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            data, found = MEGABYTES[:60_000], []
            peer.transport.write(data)
            for turn in range(turns + 1):
                if turn:
                    await deferLater(reactor, 0)
                while not select.select([], [peer.transport], [], 0)[1]:
                    found.append(client.recv(1024))
            peer.transport.write(b"the end")
            peer.transport.loseConnection()

            def read(client: socket.socket = client, found: list[bytes] = found) -> bytes:
                while part := client.recv(65536):
                    found.append(part)
                return b"".join(found)

            self.assertEqual(await deferToThread(read), data + b"the end", turns)

    async def test_a_source_that_never_ends_is_paused(self) -> None:
        """However much the kernel would take, others have their turn."""
        client, peer = await self.pair()
        client.settimeout(20)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        piece, pieces = b"p" * 1000, 0

        class Source:
            paused = False

            def pauseProducing(self) -> None:
                self.paused = True

            def resumeProducing(self) -> None:
                self.paused = False

            def stopProducing(self) -> None:
                pass

        source = Source()
        peer.transport.registerProducer(source, True)
        for most in (140_000, 280_000):
            while not source.paused:
                peer.transport.write(piece)
                pieces += 1
            self.assertLess(pieces * len(piece), most)
            while source.paused:
                await deferLater(reactor, 0)
        peer.transport.unregisterProducer()

        def read() -> None:
            left = pieces * len(piece)
            while left:
                left -= len(client.recv(left))

        await deferToThread(read)
        peer.transport.write(b"at once")
        self.assertEqual(client.recv(100, socket.MSG_DONTWAIT), b"at once")

    async def test_only_bytes(self) -> None:
        _, peer = await self.pair()
        for data in ("text", memoryview(b"m"), bytearray(8_000_000)):
            with self.assertRaises(TypeError):
                peer.transport.write(data)

    async def test_a_reset_that_a_write_finds(self) -> None:
        client, peer = await self.pair()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        peer.transport.write(b"into the void")
        self.assertIs(await self.lost.get(), ConnectionLost)

    async def test_a_source_that_is_pulled(self) -> None:
        client, peer = await self.pair()
        client.settimeout(20)
        parts = [b"one ", b"two ", b"three"]

        class Source:
            def resumeProducing(self) -> None:
                if parts:
                    peer.transport.write(parts.pop(0))
                else:
                    peer.transport.unregisterProducer()
                    peer.transport.loseConnection()

            def stopProducing(self) -> None:
                pass

        peer.transport.registerProducer(Source(), False)
        await self.lost.get()
        self.assertEqual(client.recv(100), b"one two three")

    async def test_nothing_is_sent_after_an_abort(self) -> None:
        client, peer = await self.pair()
        peer.transport.abortConnection()
        peer.transport.write(b"too late")
        await self.lost.get()
        with self.assertRaises(ConnectionResetError):
            client.recv(100)

    async def test_a_peer_that_is_gone_is_lost_later(self) -> None:
        client, peer = await self.pair()
        peer.transport.pauseProducing()  # so that only a write can notice
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        peer.transport.write(b"into the void")
        self.assertEqual(self.lost.pending, [])
        await self.lost.get()

    async def test_sends_without_delay(self) -> None:
        _, peer = await self.pair()
        self.assertTrue(peer.transport.getTcpNoDelay())
        peer.transport.setTcpNoDelay(True)
        self.assertTrue(peer.transport.getTcpNoDelay())
        peer.transport.setTcpNoDelay(False)
        self.assertFalse(peer.transport.getTcpNoDelay())
        peer.transport.setTcpNoDelay(True)
        self.assertTrue(peer.transport.getTcpNoDelay())

    async def test_who_it_is_with(self) -> None:
        client, peer = await self.pair()
        self.assertIsInstance(peer.transport, DirectConnection)
        address = peer.transport.getPeer()
        self.assertEqual((address.host, address.port), client.getsockname())

    async def test_many_at_once_each_way(self) -> None:
        self.listen()
        clients = [self.connect() for _ in range(150)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number)
        peers = [await self.made.get() for _ in clients]
        self.assertEqual(len(set(peers)), 150)
        said = {await self.received.get() for _ in clients}
        self.assertEqual(said, {b"%d" % number for number in range(150)})

    async def test_a_factory_that_wants_none_or_fails(self) -> None:
        class Odd(Factory):
            turns = 0

            def buildProtocol(odd, addr: Any) -> Peer | None:
                odd.turns += 1
                if odd.turns == 1:
                    return None
                if odd.turns == 2:
                    raise RuntimeError("no")
                return Peer(self)

        self.listen(Odd())
        self.assertEqual(await deferToThread(self.connect().recv, 1), b"")
        self.connect()
        self.connect()
        await self.made.get()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_an_ipv6_address(self) -> None:
        try:
            self.listen(interface="::1")
        except Exception as error:
            raise SkipTest("no IPv6 here") from error
        client = self.connect()
        peer = await self.made.get()
        self.assertEqual(peer.transport.getPeer().host, "::1")
        peer.transport.write(b"at once")
        self.assertEqual(client.recv(100, socket.MSG_DONTWAIT), b"at once")
