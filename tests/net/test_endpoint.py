"""Attempts to connect, over real sockets: how each failure reads, and that none leaves a trace."""

from __future__ import annotations

import socket
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor, ssl, tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHostnameResolver, IPushProducer
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from jetcamer.net import endpoint
from jetcamer.net.client_protocol import ClientProtocol
from jetcamer.net.endpoint import ConnectFailed, WebSocketEndpoint, tcp_endpoint
from jetcamer.net.tls import ClientTrust
from jetcamer.net.url import WebSocketURL
from jetcamer.net.websocket import Liveness, WebSocketConnection
from tests.net.peers import (
    PeerFactory,
    PeerProtocol,
    Receiver,
    ScriptedFactory,
    answering,
    the_deadline,
)
from tests.support.certs import Certificate, TestCA, self_signed

UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@implementer(IHostnameResolver)
class Resolver:
    """Knows the addresses it is given; None for a name that it never answers."""

    def __init__(self, addresses: list[str] | None) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, **_: Any) -> Any:
        self.asked.append(hostName)
        receiver.resolutionBegan(self)
        if self.addresses is not None:
            for address in self.addresses:
                kind = IPv6Address if ":" in address else IPv4Address
                receiver.addressResolved(kind("TCP", address, portNumber))
            receiver.resolutionComplete()
        return self


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def need_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        raise SkipTest("there is no IPv6 loopback here") from None


class ConnectCase(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.addCleanup(self.assert_no_client_left)

    def assert_no_client_left(self) -> None:
        left = [reader for reader in reactor.getReaders() if isinstance(reader, tcp.Client)]
        self.assertEqual(left, [])

    def resolve(self, *addresses: str, never: bool = False) -> Resolver:
        self.patch(endpoint, "ATTEMPT_DELAY", 0.01)
        resolver = Resolver(None if never else list(addresses))
        before = reactor.installNameResolver(resolver)
        self.addCleanup(reactor.installNameResolver, before)
        return resolver

    def listen(
        self, factory: Any, served: Certificate | None = None, interface: str = "127.0.0.1"
    ) -> int:
        """Listen, with TLS if there is a certificate; the port."""
        self.factory = factory
        if served is not None:
            factory = TLSMemoryBIOFactory(served.server_context(), False, factory)
            factory.noisy = False
        port = reactor.listenTCP(0, factory, interface=interface)
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def silent(self, served: Certificate | None = None) -> tuple[int, Deferred[None]]:
        """A server that listens and says nothing: its port, and when it has heard something."""
        asked: Deferred[None] = Deferred()
        factory = ScriptedFactory(lambda peer, data: asked.called or asked.callback(None))
        return self.listen(factory, served), asked

    def endpoint(self, url: str, trust: ClientTrust | None = None, **options: Any) -> Any:
        return WebSocketEndpoint(reactor, url, trust=trust or ClientTrust(), **options)

    async def open(self, url: str, trust: ClientTrust | None = None, **options: Any) -> Receiver:
        receiver = await self.endpoint(url, trust, **options).connect(Receiver)
        self.addCleanup(lambda: receiver.gone)
        self.addCleanup(receiver.connection.abort)
        return receiver

    async def failure(
        self, url: str, trust: ClientTrust | None = None, **options: Any
    ) -> ConnectFailed:
        made: list[WebSocketConnection] = []
        with self.assertRaises(ConnectFailed) as caught:
            await self.endpoint(url, trust, **options).connect(made.append)
        self.assertEqual(made, [])
        self.assert_no_client_left()
        self.assertEqual(len(str(caught.exception).splitlines()), 1)
        return caught.exception

    async def assert_fails(self, url: str, kind: str, words: str, **options: Any) -> ConnectFailed:
        failure = await self.failure(url, **options)
        self.assertEqual((str(failure), failure.kind), (words, kind))
        return failure


class OpenTests(ConnectCase):
    async def test_plain(self) -> None:
        port = self.listen(PeerFactory(reactor))
        receiver = await self.open(f"ws://127.0.0.1:{port}/agent")
        self.assertEqual(receiver.connection.peer, f"127.0.0.1:{port}")
        self.assertIsNone(receiver.connection.server_date)
        receiver.connection.send(b"over")
        receiver.connection.close()
        self.assertTrue((await receiver.gone).clean)
        (peer,) = self.factory.connections
        self.assertEqual(peer.messages, [b"over"])

    async def test_tls_to_an_address(self) -> None:
        ca = TestCA(self.mktemp())
        port = self.listen(PeerFactory(reactor), ca.issue(ips=["127.0.0.1"]))
        receiver = await self.open(f"wss://127.0.0.1:{port}/agent", ClientTrust(ca.path_cert))
        receiver.connection.send(b"over")
        receiver.connection.close()
        self.assertTrue((await receiver.gone).clean)
        (peer,) = self.factory.connections
        self.assertEqual(peer.messages, [b"over"])

    async def test_tls_to_a_name(self) -> None:
        self.resolve("127.0.0.1")
        ca = TestCA(self.mktemp())
        port = self.listen(PeerFactory(reactor), ca.issue(dns=["hub.example"]))
        receiver = await self.open(f"wss://hub.example:{port}/agent", ClientTrust(ca.path_cert))
        receiver.connection.close()
        self.assertTrue((await receiver.gone).clean)

    async def test_ipv6(self) -> None:
        need_ipv6()
        ca = TestCA(self.mktemp())
        port = self.listen(PeerFactory(reactor), ca.issue(ips=["::1"]), interface="::1")
        receiver = await self.open(f"wss://[::1]:{port}/agent", ClientTrust(ca.path_cert))
        self.assertEqual(receiver.connection.peer, f"[::1]:{port}")
        (peer,) = self.factory.connections
        self.assertEqual(peer.request.headers["host"], f"[::1]:{port}")
        receiver.connection.close()
        self.assertTrue((await receiver.gone).clean)

    async def test_all_addresses_of_a_name_are_tried(self) -> None:
        resolver = self.resolve("::1", "127.0.0.2", "127.0.0.1")
        port = self.listen(PeerFactory(reactor))
        receiver = await self.open(f"ws://hub.example:{port}/agent")
        self.assertEqual(receiver.connection.peer, f"127.0.0.1:{port}")
        self.assertEqual(resolver.asked, ["hub.example"])

    async def test_an_address_asks_no_resolver(self) -> None:
        resolver = self.resolve(never=True)
        port = self.listen(PeerFactory(reactor))
        await self.open(f"ws://127.0.0.1:{port}/agent")
        self.assertEqual(resolver.asked, [])

    async def test_messages_in_the_same_segment_as_the_answer(self) -> None:
        """What the server says at once reaches a receiver that knows its connection."""

        class Eager(PeerFactory):
            def buildProtocol(self, addr: Any) -> PeerProtocol:
                peer = super().buildProtocol(addr)
                peer.makeConnection, make = (
                    lambda transport: make(Corked(transport)),
                    peer.makeConnection,
                )
                return peer

        class Corked:
            """A transport that sends only when 3 writes are there."""

            def __init__(self, transport: Any) -> None:
                self._transport = transport
                self._held: list[bytes] = []

            def write(self, data: bytes) -> None:
                self._held.append(data)
                if len(self._held) >= 3:
                    self._transport.write(b"".join(self._held))

            def __getattr__(self, name: str) -> Any:
                return getattr(self._transport, name)

        factory = Eager(reactor)

        def greet(peer: PeerProtocol) -> None:
            peer.sendMessage(b"one")
            peer.sendMessage(b"two")

        factory.on_open = greet
        port = self.listen(factory)
        receiver = await self.open(f"ws://127.0.0.1:{port}/agent")
        self.assertEqual(await receiver.received(2), [b"one", b"two"])

    async def test_long_messages_over_tls(self) -> None:
        ca = TestCA(self.mktemp())
        factory = PeerFactory(reactor)
        factory.on_message = lambda peer, data: peer.sendMessage(data)
        port = self.listen(factory, ca.issue(ips=["127.0.0.1"]))
        receiver = await self.open(f"wss://127.0.0.1:{port}/agent", ClientTrust(ca.path_cert))
        receiver.connection.send(b"x" * (1 << 20))
        (echo,) = await receiver.received(1)
        self.assertEqual(len(echo), 1 << 20)

    async def test_request(self) -> None:
        factory = answering(b"HTTP/1.1 404 Not Found\r\n\r\n")
        port = self.listen(factory)
        await self.failure(f"ws://127.0.0.1:{port}/a%20b?c=d", user_agent="Test/1")
        (peer,) = factory.connections
        lines = peer.received.decode().split("\r\n")
        self.assertEqual(lines[0], "GET /a%20b?c=d HTTP/1.1")
        self.assertEqual(
            {line.partition(":")[0] for line in lines[1:] if line},
            {
                "User-Agent",
                "Host",
                "Upgrade",
                "Connection",
                "Pragma",
                "Cache-Control",
                "Sec-WebSocket-Key",
                "Sec-WebSocket-Version",
            },
        )
        self.assertIn("User-Agent: Test/1", lines)
        self.assertIn(f"Host: 127.0.0.1:{port}", lines)

    async def test_reset_of_an_open_connection(self) -> None:
        port = self.listen(PeerFactory(reactor))
        receiver = await self.open(f"ws://127.0.0.1:{port}/agent")
        self.factory.connections[0].transport.abortConnection()
        end = await receiver.gone
        self.assertEqual(end.words, "connection lost (reset by the server or the network)")

    async def test_reset_of_an_open_connection_over_tls(self) -> None:
        ca = TestCA(self.mktemp())
        port = self.listen(PeerFactory(reactor), ca.issue(ips=["127.0.0.1"]))
        receiver = await self.open(f"wss://127.0.0.1:{port}/agent", ClientTrust(ca.path_cert))
        self.factory.connections[0].transport.transport.abortConnection()
        end = await receiver.gone
        self.assertEqual(end.words, "connection lost (reset by the server or the network)")

    async def test_frozen_peer_over_tls(self) -> None:
        ca = TestCA(self.mktemp())
        port = self.listen(PeerFactory(reactor), ca.issue(ips=["127.0.0.1"]))
        receiver = await self.open(
            f"wss://127.0.0.1:{port}/agent",
            ClientTrust(ca.path_cert),
            ping_interval=0.05,
            pong_timeout=0.05,
        )
        (peer,) = self.factory.connections
        peer.transport.pauseProducing()  # its kernel goes on answering for it
        self.assertEqual((await receiver.gone).words, "no pong within 0.05 s")
        peer.transport.abortConnection()

    async def test_abort_after_the_end_over_tls(self) -> None:
        ca = TestCA(self.mktemp())
        port = self.listen(PeerFactory(reactor), ca.issue(ips=["127.0.0.1"]))
        receiver = await self.open(f"wss://127.0.0.1:{port}/agent", ClientTrust(ca.path_cert))
        receiver.connection.abort()
        await receiver.gone
        receiver.connection.abort()
        receiver.connection.close()
        self.assertEqual(len(receiver.ends), 1)


class FailureTests(ConnectCase):
    """Each way to fail, its kind and its words."""

    async def test_name_not_found(self) -> None:
        words = "name not found: nohost.invalid"
        failure = await self.assert_fails("wss://nohost.invalid/agent", "dns", words)
        self.assertEqual(failure.phase, "name lookup")

    async def test_refused(self) -> None:
        port = free_port()
        words = f"connection refused by 127.0.0.1:{port}"
        failure = await self.assert_fails(f"ws://127.0.0.1:{port}/", "refused", words)
        self.assertEqual(failure.phase, "TCP connect")

    async def test_refused_by_every_address(self) -> None:
        self.resolve("127.0.0.1", "127.0.0.2")
        port = free_port()
        words = f"connection refused by hub.example:{port}"
        await self.assert_fails(f"ws://hub.example:{port}/", "refused", words)

    async def test_unreachable(self) -> None:
        await self.assert_fails(
            "ws://255.255.255.255:9/",
            "unreachable",
            "255.255.255.255:9 is unreachable (Network is unreachable)",
        )

    async def assert_out_of_time(
        self,
        url: str,
        phase: str,
        asked: Deferred[None] | None = None,
        trust: ClientTrust | None = None,
    ) -> None:
        """Once the server was `asked` and said nothing, let the ten seconds be over."""
        opening = self.endpoint(url, trust).connect(Receiver)
        await (asked or deferLater(reactor, 0))
        deadline = the_deadline()
        self.assertLessEqual(deadline.getTime(), reactor.seconds() + 10)
        deadline.reset(0)
        with self.assertRaises(ConnectFailed) as caught:
            await opening
        self.assertEqual(str(caught.exception), f"no answer to the {phase} within 10 s")
        self.assertEqual((caught.exception.kind, caught.exception.phase), ("timeout", phase))
        self.assert_no_client_left()

    async def test_no_answer_to_the_name_lookup(self) -> None:
        self.resolve(never=True)
        await self.assert_out_of_time("ws://hub.example/", "name lookup")

    async def test_no_answer_to_the_tcp_connect(self) -> None:
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for filling in (first, second):
                filling.setblocking(False)
                filling.connect_ex(full.getsockname())
            url = f"ws://127.0.0.1:{full.getsockname()[1]}/"
            await self.assert_out_of_time(url, "TCP connect")

    async def test_no_answer_to_the_tls_handshake(self) -> None:
        port, asked = self.silent()
        await self.assert_out_of_time(f"wss://127.0.0.1:{port}/", "TLS handshake", asked)

    async def test_no_answer_to_the_upgrade(self) -> None:
        port, asked = self.silent()
        await self.assert_out_of_time(f"ws://127.0.0.1:{port}/", "WebSocket upgrade", asked)

    async def test_no_answer_to_the_upgrade_over_tls(self) -> None:
        ca = TestCA(self.mktemp())
        port, asked = self.silent(ca.issue(ips=["127.0.0.1"]))
        await self.assert_out_of_time(
            f"wss://127.0.0.1:{port}/", "WebSocket upgrade", asked, ClientTrust(ca.path_cert)
        )

    def test_bytes_now_and_then_do_not_move_the_deadline(self) -> None:
        clock = MemoryReactorClock()
        towards = WebSocketEndpoint(clock, "ws://192.0.2.1/", trust=ClientTrust())
        opening = towards.connect(Receiver)
        client = clock.tcpClients[0][2].buildProtocol(None)
        transport = FakeTransport(client, False)
        client.makeConnection(transport)
        client.dataReceived(b"HTTP/1.1 101 Switching Protocols\r\n")
        for second in range(10):
            self.assertFalse(transport.disconnecting, second)
            clock.advance(1)
            client.dataReceived(b"X: y\r\n")
        self.assertTrue(transport.disconnecting)
        client.connectionLost(Failure(ConnectionAborted()))
        words = "no answer to the WebSocket upgrade within 10 s"
        self.assertEqual(str(self.failureResultOf(opening, ConnectFailed).value), words)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_server_that_closes_at_once(self) -> None:
        factory = ScriptedFactory(on_connect=lambda peer: peer.transport.loseConnection())
        port = self.listen(factory)
        for scheme, phase in (("ws", "WebSocket upgrade"), ("wss", "TLS handshake")):
            failure = await self.failure(f"{scheme}://127.0.0.1:{port}/")
            self.assertEqual(failure.kind, "closed")
            self.assertRegex(
                str(failure), f"the connection was (closed|broken off) during the {phase}"
            )

    async def test_server_that_closes_on_the_request(self) -> None:
        factory = ScriptedFactory(on_data=lambda peer, data: peer.transport.loseConnection())
        port = self.listen(factory)
        words = "the connection was closed during the WebSocket upgrade"
        await self.assert_fails(f"ws://127.0.0.1:{port}/", "closed", words)

    async def test_server_that_resets(self) -> None:
        factory = ScriptedFactory(on_data=lambda peer, data: peer.transport.abortConnection())
        port = self.listen(factory)
        words = "the connection was broken off during the WebSocket upgrade"
        await self.assert_fails(f"ws://127.0.0.1:{port}/", "closed", words)

    async def answered(self, answer: bytes) -> ConnectFailed:
        port = self.listen(answering(answer))
        return await self.failure(f"ws://127.0.0.1:{port}/")

    async def test_http_statuses(self) -> None:
        for line, words in (
            (b"401 Unauthorized", "HTTP 401 Unauthorized instead of an upgrade"),
            (b"403 Forbidden", "HTTP 403 Forbidden instead of an upgrade"),
            (b"404 Not Found", "HTTP 404 Not Found instead of an upgrade"),
            (b"429 Too Many Requests", "HTTP 429 Too Many Requests instead of an upgrade"),
            (b"500 ", "HTTP 500 instead of an upgrade"),
            (b"503 Service Unavailable", "HTTP 503 Service Unavailable instead of an upgrade"),
            (b"200 OK", "HTTP 200 OK instead of an upgrade"),
            (b"426", "HTTP 426 instead of an upgrade"),
            (b"400 B\xe4d\x1b[2J", "HTTP 400 Bäd?[2J instead of an upgrade"),
        ):
            failure = await self.answered(b"HTTP/1.1 " + line + b"\r\nContent-Length: 2\r\n\r\nno")
            self.assertEqual((str(failure), failure.kind), (words, "http"))
            self.assertIsNone(failure.retry_after)

    async def test_redirections(self) -> None:
        failure = await self.answered(
            b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://elsewhere.example/\r\n\r\n"
        )
        self.assertEqual(
            str(failure),
            "HTTP 301 Moved Permanently instead of an upgrade"
            " (it points to https://elsewhere.example/)",
        )

    async def retry_after(self, value: str, status: int = 503, date: str = "") -> float | None:
        head = f"HTTP/1.1 {status} No\r\nRetry-After: {value}\r\n{date}\r\n"
        return (await self.answered(head.encode())).retry_after

    async def test_retry_after(self) -> None:
        for value, expected in (
            ("0", 0.0),
            ("7", 7.0),
            ("0000000000012", 12.0),
            ("86400", 86_400.0),
            ("86401", 86_400.0),
            ("9" * 10_000, 86_400.0),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
            ("٣", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
            (formatdate(32503680000, usegmt=True), 86_400.0),
            ("Thu, 99 Jan 99999 00:00:00 GMT", None),
        ):
            self.assertEqual(await self.retry_after(value), expected, value)
        self.assertEqual(await self.retry_after("7", status=429), 7.0)
        self.assertIsNone(await self.retry_after("7", status=401))
        self.assertIsNone(await self.retry_after("7", status=301))

    async def test_retry_after_goes_by_the_clock_of_the_server(self) -> None:
        """So that a machine whose clock is wrong waits no longer for it."""
        date = f"Date: {formatdate(1000, usegmt=True)}\r\n"
        self.assertEqual(await self.retry_after(formatdate(1042, usegmt=True), date=date), 42.0)

    def refusal(self, clock: Any, answer: bytes) -> ConnectFailed:
        """What an attempt says of `answer`, by a reactor that keeps the time of `clock`."""
        opening = WebSocketEndpoint(clock, "ws://192.0.2.1/", trust=ClientTrust()).connect(Receiver)
        client = clock.tcpClients[-1][2].buildProtocol(None)
        transport = FakeTransport(client, False)
        client.makeConnection(transport)
        client.dataReceived(answer)
        client.connectionLost(Failure(ConnectionAborted()))
        self.assertEqual(clock.getDelayedCalls(), [])
        return self.failureResultOf(opening, ConnectFailed).value

    def test_retry_after_is_not_reckoned_by_the_clock_of_the_reactor(self) -> None:
        """Which counts from the start of the machine, where it must not be put back."""
        clock = MemoryReactorClock()
        clock.advance(12_345.0)
        until = formatdate(time.time() + 300, usegmt=True)
        answer = f"HTTP/1.1 503 No\r\nRetry-After: {until}\r\n\r\n"
        left = self.refusal(clock, answer.encode()).retry_after
        self.assertTrue(200 < left <= 300, left)

    def test_retry_after_by_a_time_of_day_that_is_given(self) -> None:
        refusals: list[ConnectFailed] = []

        class Refused:
            connected = staticmethod(lambda: None)
            refused = staticmethod(refusals.append)

        for date, expected in ((1_700_000_042, 42.0), (1_699_999_999, 0.0), (2e9, 86_400.0)):
            protocol = ClientProtocol(
                WebSocketURL.parse("ws://192.0.2.1/"),
                Refused(),
                MemoryReactorClock(),
                Liveness(),
                max_message=1 << 20,
                now=lambda: 1_700_000_000.0,
            )
            until = formatdate(date, usegmt=True)
            protocol.state = protocol.STATE_CONNECTING
            protocol.dataReceived(f"HTTP/1.1 429 No\r\nRetry-After: {until}\r\n\r\n".encode())
            self.assertEqual(refusals.pop().retry_after, expected)

    async def test_garbage(self) -> None:
        for answer, words in (
            (
                b"SSH-2.0-OpenSSH_9.2\r\n",
                "the server does not speak WebSocket:"
                " it sent 'SSH-2.0-OpenSSH_9.2??' where HTTP was expected",
            ),
            (
                b"\x15\x03\x01\x00\x02\x02\x50",
                "the server does not speak WebSocket:"
                " it answered in TLS where plain HTTP was expected",
            ),
            (
                b"HTTP/1.1\r\n\r\n",
                "the server does not speak WebSocket:"
                " it sent 'HTTP/1.1' where a status was expected",
            ),
            (
                b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3000,
                "the server does not speak WebSocket:"
                " the head of its answer is longer than 16384 bytes",
            ),
        ):
            failure = await self.answered(answer)
            self.assertEqual((str(failure), failure.kind), (words, "protocol"))

    async def test_wrong_answers_to_the_upgrade(self) -> None:
        for answer, words in (
            (UPGRADE + b"Sec-WebSocket-Accept: bm9wZQ==\r\n\r\n", "Sec-WebSocket-Accept bogus"),
            (UPGRADE + b"\r\n", "Sec-WebSocket-Accept header missing"),
            (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP Upgrade header missing"),
            (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nX-\xe9: \xff\r\n\r\n",
                "Upgrade header different",
            ),
            (b"HTTP/1.0 101 Switching Protocols\r\n\r\n", "Unsupported HTTP version"),
        ):
            failure = await self.answered(answer)
            self.assertEqual(failure.kind, "protocol")
            self.assertIn("the server's upgrade answer is wrong: ", str(failure))
            self.assertIn(words, str(failure))

    async def upgraded(self, extra: bytes) -> ScriptedFactory:
        """A server that accepts, correctly, with more headers than it should have."""
        from base64 import b64encode
        from hashlib import sha1

        def accept(peer: Any, data: bytes) -> None:
            key = peer.received.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
            digest = sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            peer.transport.write(
                UPGRADE + b"Sec-WebSocket-Accept: " + b64encode(digest) + b"\r\n" + extra + b"\r\n"
            )

        return ScriptedFactory(accept)

    async def test_extensions_and_subprotocols_nobody_asked_for(self) -> None:
        for extra in (
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
            b"Sec-WebSocket-Extensions: x-unheard-of\r\n",
            b"Sec-WebSocket-Protocol: chat\r\n",
        ):
            port = self.listen(await self.upgraded(extra))
            failure = await self.failure(f"ws://127.0.0.1:{port}/")
            self.assertEqual(failure.kind, "protocol")

    async def test_headers_beyond_ascii_do_no_harm(self) -> None:
        """Autobahn alone trips over them."""
        port = self.listen(await self.upgraded(b"Server: B\xe4r/\xff\r\n"))
        receiver = await self.open(f"ws://127.0.0.1:{port}/")
        self.assertEqual(receiver.ends, [])

    async def test_certificates(self) -> None:
        ca = TestCA(self.mktemp())
        trust = ClientTrust(ca.path_cert)
        for served, words in (
            (
                ca.issue(dns=["hub.example"]),
                "TLS: the certificate is not valid for IP address 127.0.0.1"
                " (it names DNS:hub.example)",
            ),
            (
                TestCA(self.mktemp(), "stranger").issue(ips=["127.0.0.1"]),
                "TLS: unknown certificate authority (issuer CN=stranger);"
                " wsCaFile does not hold it",
            ),
            (
                self_signed(self.mktemp(), ips=["127.0.0.1"]),
                "TLS: self-signed certificate (CN=selfmade); wsCaFile does not hold it",
            ),
        ):
            factory = ScriptedFactory()
            port = self.listen(factory, served)
            url = f"wss://127.0.0.1:{port}/"
            failure = await self.assert_fails(url, "tls", words, trust=trust)
            self.assertEqual(failure.phase, "TLS handshake")
            (peer,) = factory.connections
            await peer.gone
            self.assertEqual(peer.received, b"")

    async def test_server_that_wants_a_certificate_of_ours(self) -> None:
        """With TLS 1.3 its alert comes when the handshake is over for us."""
        ca = TestCA(self.mktemp())
        served = ca.issue(ips=["127.0.0.1"]).server_context(
            trustRoot=ssl.trustRootFromCertificates(
                [ssl.Certificate.loadPEM(Path(ca.path_cert).read_bytes())]
            )
        )
        factory = TLSMemoryBIOFactory(served, False, ScriptedFactory())
        port = self.listen(factory)
        words = "TLS: the server refused the handshake (certificate required)"
        trust = ClientTrust(ca.path_cert)
        await self.assert_fails(f"wss://127.0.0.1:{port}/", "tls", words, trust=trust)

    async def test_tls_to_a_plain_server(self) -> None:
        port = self.listen(
            ScriptedFactory(lambda peer, data: peer.transport.write(b"HTTP/1.1 400 Bad\r\n\r\n"))
        )
        words = "TLS: the server does not speak TLS on this port"
        await self.assert_fails(f"wss://127.0.0.1:{port}/", "tls", words)

    async def test_roots_that_cannot_be_loaded(self) -> None:
        trust = ClientTrust()

        def fail(host: str) -> None:
            raise OSError("disk on fire")

        self.patch(trust, "connection_creator", fail)
        failure = await self.failure("wss://127.0.0.1/", trust)
        self.assertEqual(failure.kind, "tls")
        words = "TLS: the trusted certificates cannot be loaded (disk on fire)"
        self.assertEqual(str(failure), words)

    async def test_maker_that_fails(self) -> None:
        def make(connection: WebSocketConnection) -> Receiver:
            raise RuntimeError("a bug")

        port = self.listen(PeerFactory(reactor))
        with self.assertRaises(RuntimeError):
            await self.endpoint(f"ws://127.0.0.1:{port}/").connect(make)
        _, code, _ = await self.factory.connections[0].closed
        self.assertIsNone(code)

    async def test_nothing_is_logged_above_debug(self) -> None:
        """The words go to the caller, who says them once."""
        ca = TestCA(self.mktemp())
        trust = ClientTrust(ca.path_cert)
        for factory, served in (
            (answering(b"HTTP/1.1 503 No\r\n\r\n"), None),
            (answering(UPGRADE + b"\r\n"), None),
            (ScriptedFactory(lambda peer, data: peer.transport.abortConnection()), None),
            (ScriptedFactory(), self_signed(self.mktemp(), ips=["127.0.0.1"])),
        ):
            port = self.listen(factory, served)
            scheme = "ws" if served is None else "wss"
            await self.failure(f"{scheme}://127.0.0.1:{port}/", trust)
        loud = [
            event
            for event in self.events
            if event.get("log_level", LogLevel.debug) > LogLevel.debug
            and " starting on " not in str(event.get("log_text"))  # the listening ports of the test
        ]
        self.assertEqual(loud, [])


class CancelTests(ConnectCase):
    """Given up in each phase: CancelledError, and nothing stays."""

    async def cancelled(
        self, opening: Deferred[Any], after: Deferred[Any] | None, peer_gone: bool = True
    ) -> None:
        if after is not None:
            await after
        opening.cancel()
        self.assertTrue(opening.called)
        with self.assertRaises(CancelledError):
            await opening
        if peer_gone:
            await self.factory.connections[0].gone

    async def test_during_the_name_lookup(self) -> None:
        self.resolve(never=True)
        opening = self.endpoint("ws://hub.example/").connect(Receiver)
        await self.cancelled(opening, None, peer_gone=False)

    async def test_during_the_tcp_connect(self) -> None:
        port = self.listen(ScriptedFactory())
        opening = self.endpoint(f"ws://127.0.0.1:{port}/").connect(Receiver)
        await self.cancelled(opening, None, peer_gone=False)

    async def test_during_the_tcp_connect_to_a_name(self) -> None:
        self.resolve("127.0.0.2", "127.0.0.1")
        port = self.listen(ScriptedFactory())
        opening = self.endpoint(f"ws://hub.example:{port}/").connect(Receiver)
        await self.cancelled(opening, None, peer_gone=False)

    async def test_during_the_tls_handshake(self) -> None:
        port, arrived = self.silent()
        opening = self.endpoint(f"wss://127.0.0.1:{port}/").connect(Receiver)
        await self.cancelled(opening, arrived)

    async def test_during_the_upgrade(self) -> None:
        port, arrived = self.silent()
        opening = self.endpoint(f"ws://127.0.0.1:{port}/").connect(Receiver)
        await self.cancelled(opening, arrived)

    async def test_during_the_upgrade_over_tls(self) -> None:
        ca = TestCA(self.mktemp())
        port, arrived = self.silent(ca.issue(ips=["127.0.0.1"]))
        towards = self.endpoint(f"wss://127.0.0.1:{port}/", ClientTrust(ca.path_cert))
        await self.cancelled(towards.connect(Receiver), arrived)

    async def test_during_the_proxys_connect(self) -> None:
        from jetcamer.net.proxy import Proxy

        port, arrived = self.silent()
        towards = self.endpoint("wss://127.0.0.1:1/", proxy=Proxy("127.0.0.1", port))
        await self.cancelled(towards.connect(Receiver), arrived)

    async def test_by_the_maker_itself(self) -> None:
        def make(connection: WebSocketConnection) -> Receiver:
            opening.cancel()
            return Receiver(connection)

        port = self.listen(PeerFactory(reactor))
        opening = self.endpoint(f"ws://127.0.0.1:{port}/").connect(make)
        with self.assertRaises(CancelledError):
            await opening
        await self.factory.connections[0].closed

    async def test_cancel_after_failure_is_harmless(self) -> None:
        opening = self.endpoint(f"ws://127.0.0.1:{free_port()}/").connect(Receiver)
        with self.assertRaises(ConnectFailed):
            await opening
        opening.cancel()

    def test_clock_is_empty_at_once(self) -> None:
        clock = MemoryReactorClock()
        towards = WebSocketEndpoint(clock, "ws://192.0.2.1/", trust=ClientTrust())
        opening = towards.connect(Receiver)
        self.assertNotEqual(clock.getDelayedCalls(), [])
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertTrue(clock.connectors[0].stoppedConnecting)


@implementer(IPushProducer)
class Pump:
    """Sends as fast as it may."""

    def __init__(self, connection: WebSocketConnection, message: bytes, limit: int) -> None:
        self.connection = connection
        self.message = message
        self.left = limit
        self.paused = False
        self.pauses = 0
        self.done: Deferred[None] = Deferred()

    def run(self) -> None:
        while self.left and not self.paused:
            self.left -= 1
            self.connection.send(self.message)
        if not self.left and not self.done.called:
            self.done.callback(None)

    def pauseProducing(self) -> None:
        self.paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.paused = False
        self.run()

    def stopProducing(self) -> None:
        self.paused = True


class FlowControlTests(ConnectCase):
    """A server that stops reading."""

    MESSAGE = b"x" * 16384
    COUNT = 96  # 1.5 MB in all

    async def stalled(self, receiver: Receiver) -> None:
        (peer,) = self.factory.connections
        for end, option in (
            (peer, socket.SO_RCVBUF),
            (receiver.connection._wire, socket.SO_SNDBUF),
        ):
            transport = getattr(end.transport, "transport", end.transport)
            transport.socket.setsockopt(socket.SOL_SOCKET, option, 65536)
        peer.transport.pauseProducing()
        pump = Pump(receiver.connection, self.MESSAGE, self.COUNT)
        receiver.connection.register_producer(pump)
        pump.run()
        before = -1
        while before != pump.left:  # until the kernel takes no more
            before = pump.left
            for _ in range(50):
                await deferLater(reactor, 0)
        self.assertTrue(pump.paused)
        sent = (self.COUNT - pump.left) * len(self.MESSAGE)
        self.assertLess(sent, 1 << 20, "what the kernel's buffers can hold, and no more")
        self.assertLess(self.buffered(receiver), 256 * 1024)
        peer.transport.resumeProducing()
        await pump.done
        receiver.connection.close()
        await receiver.gone
        self.assertEqual(len(peer.messages), self.COUNT)

    def buffered(self, receiver: Receiver) -> int:
        """Bytes that wait in our own process."""
        transport = receiver.connection._wire.transport
        total = 0
        if hasattr(transport, "_appSendBuffer"):
            total += sum(map(len, transport._appSendBuffer))
            total += sum(map(len, transport._aggregator._buffer))
            transport = transport.transport
        return total + len(transport.dataBuffer) + transport._tempDataLen

    async def test_plain(self) -> None:
        port = self.listen(PeerFactory(reactor))
        await self.stalled(await self.open(f"ws://127.0.0.1:{port}/"))

    async def test_tls(self) -> None:
        ca = TestCA(self.mktemp())
        port = self.listen(PeerFactory(reactor), ca.issue(ips=["127.0.0.1"]))
        trust = ClientTrust(ca.path_cert)
        await self.stalled(await self.open(f"wss://127.0.0.1:{port}/", trust))


class UrlTests(SynchronousTestCase):
    def endpoint(self, url: str) -> WebSocketEndpoint:
        return WebSocketEndpoint(MemoryReactorClock(), url, trust=ClientTrust())

    def test_parts(self) -> None:
        for url, parts in (
            ("wss://Hub.Example/agent", (True, "hub.example", 443, "/agent")),
            ("ws://hub.example", (False, "hub.example", 80, "/")),
            ("WSS://hub.example:8443/a/b?c=d&e", (True, "hub.example", 8443, "/a/b?c=d&e")),
            ("wss://hub.example?x", (True, "hub.example", 443, "/?x")),
            ("wss://[2001:DB8::1]:1/", (True, "2001:db8::1", 1, "/")),
            ("wss://10.0.0.1/", (True, "10.0.0.1", 443, "/")),
        ):
            with self.subTest(url=url):
                found = self.endpoint(url).url
                self.assertEqual((found.secure, found.host, found.port, found.resource), parts)

    def test_what_is_no_url(self) -> None:
        for url in (
            "",
            "hub.example",
            "http://hub.example/",
            "https://hub.example/",
            "wss:",
            "wss://",
            "wss:///agent",
            "wss://:443/agent",
            "wss://user@hub.example/",
            "wss://user:secret@hub.example/",
            "wss://user:secret",
            "wss://hub.example/#top",
            "wss://hub.example/#",
            "wss://hub.example:0/",
            "wss://hub.example:65536/",
            "wss://hub.example:secret/",
            "wss://hub example/",
            "wss://hub.example/a b",
            "wss://hub.example/\r\nX: y",
            "wss://hüb.example/",
            "wss://hub..example/",
            "wss://-hub.example/",
            "wss://*.example/",
            "wss://12345/",
            "wss://10.1/",
            "wss://[::1/",
            "wss://[::1]x/",
            "wss://[hub]/",
            "wss://[fe80::1%25eth0]/",
            "wss://" + "a" * 64 + ".example/",
            "wss://" + "a." * 130 + "example/",
        ):
            with self.subTest(url=url):
                with self.assertRaises(ValueError) as caught:
                    self.endpoint(url)
                self.assertNotIn("secret", str(caught.exception))
                self.assertEqual(len(str(caught.exception).splitlines()), 1)

    def test_endpoints_of_addresses(self) -> None:
        clock = MemoryReactorClock()
        for host, name in (("10.0.0.1", "TCP4ClientEndpoint"), ("::1", "TCP6ClientEndpoint")):
            self.assertEqual(type(tcp_endpoint(clock, host, 1, 1)).__name__, name)
