"""What one connection may cost: over real sockets, with the site's clock in the test's hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue, maybeDeferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.http import Request
from zope.interface import implementer

from jetcamer.net.http import Guard, Routes, read_json
from jetcamer.net.http_body import PIECE
from jetcamer.net.http_site import (
    CLOSE_SECONDS,
    LINGER_BYTES,
    LINGER_SECONDS,
    JSONChannel,
    JSONSite,
    Limits,
)
from tests.support.raw_http import MemoryConnection, RawClient, parse_responses, request

JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"


def make_site(clock: Clock, **limits: Any) -> JSONSite:
    site = JSONSite(
        clock,
        Routes(
            Guard("127.0.0.1"),
            {
                "/": {"GET": lambda _: "hello"},
                "/medium": {"GET": lambda _: "x" * 60_000},
                "/long": {"GET": lambda _: "x" * 300_000},
                "/echo": {"POST": lambda asked: {"length": len(read_json(asked))}},
                "/where": {"POST": lambda asked: type(asked.content).__name__},
                "/pending": {"GET": lambda _: site.pending},
            },
        ),
        Limits(**limits),
    )
    site.pending = Deferred()
    return site


def text(length: int) -> bytes:
    """A JSON string that is `length` bytes long with its quotes."""
    return b'"' + b"x" * (length - 2) + b'"'


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


class Full(StringTransport):
    """A transport that is full with every 64 KiB, until somebody reads."""

    def __init__(self) -> None:
        super().__init__(lenient=True)
        self.unread = 0
        self.is_full = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self.unread += len(data)
        if self.unread >= PIECE and not self.is_full:
            self.is_full = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def read(self) -> None:
        self.unread = 0
        if self.is_full:
            self.is_full = False
            self.producer.resumeProducing()


class ParsingTests(SynchronousTestCase):
    """A connection in memory; each ends with no timer left."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.site = make_site(self.clock)
        self.connection = MemoryConnection(self.site)

    def tearDown(self) -> None:
        self.connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.site.channels, set())

    def assert_refused(self, data: bytes, status: int, words: str) -> None:
        responses = self.connection.send(data)
        self.assertEqual([response.status for response in responses], [status])
        self.assertEqual(responses[0].error, words)
        self.assertEqual(responses[0].headers["connection"], "close")
        self.assertEqual(responses[0].headers["content-type"], "application/json")
        self.assertEqual(responses[0].headers["cache-control"], "no-store")
        self.assertTrue(self.connection.transport.disconnecting)
        # Whatever follows is not looked at.
        self.assertEqual(self.connection.send(request()), [])
        self.assertEqual(self.connection.send(b"\r\n" + request()), [])

    def test_malformed_requests(self) -> None:
        for data in (
            b"HELLO\r\n",
            b"GET /\r\n",
            b"GET / HTTP/2.0\r\n",
            b"GET / HTTP/1.1 x\r\n",
            b"G\x00T / HTTP/1.1\r\n",
            b"GET /\xff HTTP/1.1\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: local\x00host\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
            request("POST", "/echo", "Content-Length: -1"),
            request("POST", "/echo", "Content-Length: 1, 1"),
            request("POST", "/echo", "Content-Length: " + "9" * 5000),
            request("POST", "/echo", "Content-Length: 1", "Content-Length: 2"),
            request("POST", "/echo", "Content-Length: 2", CHUNKED),
            request("POST", "/echo", "Transfer-Encoding: gzip"),
            request("POST", "/echo", CHUNKED) + b"zz\r\n",
            request("POST", "/echo", CHUNKED) + b"2\r\n{}x\r\n",
            request("POST", "/echo", CHUNKED) + b"1" * 5000,
        ):
            with self.subTest(data=data[:60]):
                self.assert_refused(data, 400, "malformed request")
                self.connection.lose()
                self.connection = MemoryConnection(self.site)

    def test_too_many_or_too_long_headers(self) -> None:
        many = [f"X-{n}: x" for n in range(100)]
        self.assert_refused(request("GET", "/", *many), 431, "the headers are too large")
        self.connection.lose()
        self.connection = MemoryConnection(self.site)
        large = [f"X-{n}: {'x' * 1000}" for n in range(20)]
        self.assert_refused(request("GET", "/", *large), 431, "the headers are too large")

    def test_a_line_without_an_end(self) -> None:
        words = "the request line or a header is too long"
        self.assert_refused(b"GET /" + b"x" * 20_000, 431, words)
        self.connection.lose()
        self.connection = MemoryConnection(self.site)
        self.assert_refused(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 431, words)

    def test_a_folded_header_cannot_hide_a_size(self) -> None:
        data = b"GET / HTTP/1.1\r\nX: a\r\n" + b" folded\r\n" * 10_000
        self.assert_refused(data, 431, "the headers are too large")

    def test_the_largest_body(self) -> None:
        body = text(64 * 1024)
        (response,) = self.connection.send(request("POST", "/echo", JSON, body=body))
        self.assertEqual(response.json, {"length": len(body) - 2})
        (response,) = self.connection.send(
            request("POST", "/echo", JSON, CHUNKED)
            + chunks(*[body[n : n + 1000] for n in range(0, len(body), 1000)])
        )
        self.assertEqual(response.json, {"length": len(body) - 2})

    def test_a_larger_one_is_refused_before_it_comes(self) -> None:
        for length in (64 * 1024 + 1, 10**12):
            with self.subTest(length=length):
                head = request(
                    "POST", "/echo", JSON, f"Content-Length: {length}", "Expect: 100-continue"
                )
                self.assert_refused(head, 413, "the body is too large")
                self.connection.lose()
                self.connection = MemoryConnection(self.site)

    def test_a_larger_one_of_unknown_length_is_refused_where_it_grows_too_large(self) -> None:
        head = request("POST", "/echo", JSON, CHUNKED)
        part = chunks(b"x" * 1024).removesuffix(b"0\r\n\r\n")
        self.assertEqual(self.connection.send(head + part * 64), [])
        self.assert_refused(part + chunks(), 413, "the body is too large")

    def test_no_body_is_put_into_a_file(self) -> None:
        for data in (
            request("POST", "/where", JSON, CHUNKED) + chunks(b"{}"),
            request("POST", "/where", JSON, body=b"{}"),
        ):
            (response,) = self.connection.send(data)
            self.assertEqual(response.json, "BytesIO")

    def test_every_piece_alone(self) -> None:
        data = request("POST", "/echo", JSON, CHUNKED) + chunks(b'"a', b'bc"')
        for byte in data[:-1]:
            self.assertEqual(self.connection.send(bytes([byte])), [])
        (response,) = self.connection.send(data[-1:])
        self.assertEqual(response.json, {"length": 3})

    def test_many_requests_at_once_are_answered_in_order(self) -> None:
        each = request("POST", "/echo", JSON, body=text(7)) + request("GET", "/")
        responses = self.connection.send(each * 500)
        self.assertEqual(len(responses), 1000)
        self.assertEqual({r.body for r in responses[::2]}, {b'{"length":5}\n'})
        self.assertEqual({r.body for r in responses[1::2]}, {b'"hello"\n'})

    def test_requests_behind_a_slow_one_wait_their_turn(self) -> None:
        self.assertEqual(self.connection.send(request("GET", "/pending") + request()), [])
        self.assertEqual(self.connection.send(request("GET", "/nothing")), [])
        self.site.pending.callback("at last")
        responses = parse_responses(self.connection.transport.value())
        self.assertEqual([r.status for r in responses], [200, 200, 404])
        self.assertEqual(responses[0].json, "at last")

    def test_closes_when_asked_and_after_http_1_0(self) -> None:
        for data in (
            request("GET", "/", "Connection: close"),
            request("GET", "/", version="1.0"),
        ):
            (response,) = self.connection.send(data + request())
            self.assertEqual(response.json, "hello")
            self.assertTrue(self.connection.transport.disconnecting)
            self.connection.lose()
            self.connection = MemoryConnection(self.site)

    def test_stays_open_otherwise_until_it_is_idle_too_long(self) -> None:
        for _ in range(3):
            self.clock.advance(9)
            self.assertEqual(len(self.connection.send(request())), 1)
        self.clock.advance(9.9)
        self.assertFalse(self.connection.transport.disconnecting)
        self.connection.transport.clear()
        self.clock.advance(0.2)
        self.assertTrue(self.connection.transport.disconnecting)
        self.assertEqual(self.connection.transport.value(), b"")

    def test_a_handler_that_takes_its_time_is_not_hurried(self) -> None:
        self.connection.send(request("GET", "/pending"))
        self.clock.advance(1000)
        self.site.pending.callback("at last")
        (response,) = parse_responses(self.connection.transport.value())
        self.assertEqual(response.json, "at last")

    def test_who_does_not_take_the_last_answer_is_cut_off(self) -> None:
        self.connection.send(request("GET", "/long", "Connection: close"))
        self.clock.advance(10)
        self.assertTrue(self.connection.transport.disconnected)

    def test_a_large_answer_goes_out_as_it_is_read(self) -> None:
        for header in ("X: x", "Connection: close"):
            with self.subTest(header=header):
                transport = Full()
                protocol = self.site.buildProtocol(None)
                protocol.makeConnection(transport)
                protocol.dataReceived(request("GET", "/long", header))
                for sent in range(1, 5):
                    self.assertEqual(len(transport.value()) // PIECE, sent)
                    self.clock.advance(50)
                    self.assertFalse(transport.disconnecting or transport.disconnected)
                    transport.read()
                self.clock.advance(50)
                transport.read()
                (response,) = parse_responses(transport.value())
                self.assertEqual(response.json, "x" * 300_000)
                self.assertEqual(transport.disconnecting, header != "X: x")
                protocol.connectionLost(Failure(connectionDone.value))

    def test_who_reads_no_more_of_an_answer_is_cut_off(self) -> None:
        transport = Full()
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(request("GET", "/long"))
        transport.read()
        self.clock.advance(59.9)
        self.assertFalse(transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(transport.disconnected)
        self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
        protocol.connectionLost(Failure(connectionDone.value))
        transport.read()
        self.assertEqual(len(transport.value()) // PIECE, 2)

    def test_a_large_answer_behind_another_waits_for_it(self) -> None:
        transport = Full()
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(transport)
        medium = request("GET", "/medium")
        protocol.dataReceived(medium * 2 + request("GET", "/long") * 2 + medium)
        self.assertLess(transport.unread, 2 * PIECE)
        while transport.is_full:
            transport.read()
            self.assertLess(transport.unread, 2 * PIECE)
        self.assertEqual(len(parse_responses(transport.value())), 5)
        protocol.connectionLost(Failure(connectionDone.value))

    def test_a_handler_between_two_pieces_is_not_hurried(self) -> None:
        transport = Full()
        protocol = self.site.buildProtocol(None)
        protocol.makeConnection(transport)
        protocol.dataReceived(request("GET", "/pending"))
        protocol.requests[0].write(b"x" * PIECE)
        transport.read()
        self.clock.advance(1000)
        self.assertFalse(transport.disconnected)
        protocol.connectionLost(Failure(connectionDone.value))

    def test_who_does_not_stop_sending_is_cut_off(self) -> None:
        self.connection.send(b"HELLO\r\n")
        for _ in range(LINGER_BYTES // 65536 + 1):
            self.assertFalse(self.connection.transport.disconnected)
            self.connection.send(b"x" * 65536)
        self.assertTrue(self.connection.transport.disconnected)

    def test_who_does_not_leave_is_cut_off(self) -> None:
        self.connection.send(b"HELLO\r\n")
        self.clock.advance(LINGER_SECONDS - 0.1)
        self.assertFalse(self.connection.transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(self.connection.transport.disconnected)

    def assert_closed_with_the_site(self) -> None:
        self.site.close()
        self.clock.advance(CLOSE_SECONDS - 0.1)
        self.assertFalse(self.connection.transport.disconnected)
        self.clock.advance(0.2)
        self.assertTrue(self.connection.transport.disconnected)

    def test_the_site_waits_for_nobody(self) -> None:
        """Whatever a connection was doing, or still had time for."""
        for data in (
            b"",
            b"GET / HTTP",
            request("GET", "/long"),
            request("GET", "/long", "Connection: close"),
            request("GET", "/pending"),
            b"HELLO\r\n",
        ):
            with self.subTest(data=data):
                self.connection.send(data)
                self.assert_closed_with_the_site()
            self.tearDown()
            self.setUp()

    def test_an_answer_after_the_site_closed_wins_no_time(self) -> None:
        self.connection.send(request("GET", "/pending"))
        self.site.close()
        self.site.pending.callback("at last")
        self.clock.advance(CLOSE_SECONDS)
        self.assertTrue(self.connection.transport.disconnected)

    def test_who_has_said_all_is_answered_all_of_it(self) -> None:
        waiting = request("GET", "/pending")
        for behind, statuses in (
            (b"", [200]),
            (request() * 2, [200] * 3),
            (waiting + request("GET", "/nothing") + waiting, [200, 200, 404, 200]),
            (request("GET", "/", "Connection: close") + request(), [200, 200]),
            (b"HELLO\r\n" + request(), [200, 400]),
            (b"GET / HTTP", [200]),
        ):
            with self.subTest(behind=behind):
                self.connection.send(waiting + behind)
                self.connection.protocol.readConnectionLost()
                self.clock.advance(1000)
                self.assertFalse(self.connection.transport.disconnecting)
                self.site.pending.callback("at last")
                responses = parse_responses(self.connection.transport.value())
                self.assertEqual([r.status for r in responses], statuses)
                self.assertTrue(self.connection.transport.disconnecting)
            self.tearDown()
            self.setUp()

    def test_who_has_said_all_waits_for_each_slow_one(self) -> None:
        self.connection.send(request("GET", "/pending") * 2)
        self.connection.protocol.readConnectionLost()
        first, self.site.pending = self.site.pending, Deferred()
        first.callback("one")
        self.assertFalse(self.connection.transport.disconnecting)
        self.site.pending.callback("two")
        responses = parse_responses(self.connection.transport.value())
        self.assertEqual([r.json for r in responses], ["one", "two"])
        self.assertTrue(self.connection.transport.disconnecting)

    def test_the_site_wakes_nobody_up_and_speaks_no_http_2(self) -> None:
        self.connection.lose()
        self.site.doStart()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.site.acceptableProtocols(), [b"http/1.1"])
        self.site.doStop()

    def test_twisteds_own_limits_are_set(self) -> None:
        self.assertEqual(JSONChannel.maxHeaders, 64)
        self.assertEqual(JSONChannel.totalHeadersSize, 16384)
        self.assertEqual(JSONChannel.MAX_LENGTH, 16384)


class Heard(JSONSite):
    """Says when bytes or their end have arrived, so that a test can wait for that and not for a
    time."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.heard: DeferredQueue[int] = DeferredQueue()
        self.all_said: DeferredQueue[None] = DeferredQueue()

    def buildProtocol(self, addr: Any) -> Any:
        channel = super().buildProtocol(addr)
        if channel is not None:
            deliver, deliver_end = channel.dataReceived, channel.readConnectionLost

            def data_received(data: bytes) -> None:
                deliver(data)
                self.heard.put(len(data))

            def read_connection_lost() -> None:
                deliver_end()
                self.all_said.put(None)

            channel.dataReceived = data_received
            channel.readConnectionLost = read_connection_lost
        return channel


@implementer(IHalfCloseableProtocol)
class Stubborn(RawClient):
    """Goes on sending after the server said that it has heard enough."""

    def readConnectionLost(self) -> None: ...

    def writeConnectionLost(self) -> None: ...


class SocketTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.clock = Clock()
        self.requests: list[Request] = []
        self.pending: Deferred[object] = Deferred()
        self.arrived: DeferredQueue[Request] = DeferredQueue()
        self.site = Heard(
            self.clock,
            Routes(
                Guard("127.0.0.1"),
                {
                    "/": {"GET": lambda _: "hello"},
                    "/echo": {"POST": lambda asked: {"length": len(read_json(asked))}},
                    "/pending": {"GET": self.wait},
                },
            ),
            Limits(connections=8),
        )
        self.listening = reactor.listenTCP(0, self.site, interface="127.0.0.1")
        self.port = self.listening.getHost().port

    async def tearDown(self) -> None:
        await maybeDeferred(self.listening.stopListening)
        await self.site.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def wait(self, asked: Request) -> Deferred[object]:
        self.arrived.put(asked)
        return self.pending

    async def connect(self) -> RawClient:
        return await RawClient.connect(reactor, self.port)

    async def all_said(self) -> None:
        """The site has heard that a client has said all, and has had the time to do its worst."""
        await self.site.all_said.get()
        await self.ask(request("GET", "/", "Connection: close"))

    async def ask(self, data: bytes) -> bytes:
        client = await self.connect()
        client.send(data)
        return await client.until_closed()

    async def test_one_byte_a_second(self) -> None:
        client = await self.connect()
        for byte in request()[:10]:
            self.assertTrue(client.open)
            client.send(bytes([byte]))
            await self.site.heard.get()
            self.clock.advance(1)
        self.assertEqual(await client.until_closed(), b"")

    async def test_one_header_a_second(self) -> None:
        client = await self.connect()
        client.send(b"GET / HTTP/1.1\r\n")
        for _ in range(10):
            await self.site.heard.get()
            self.clock.advance(1)
            client.send(b"X: x\r\n")
        (response,) = parse_responses(await client.until_closed())
        self.assertEqual((response.status, response.error), (408, "the request took too long"))

    async def test_a_body_of_one_byte_a_second(self) -> None:
        client = await self.connect()
        client.send(request("POST", "/echo", JSON, "Content-Length: 100"))
        for _ in range(10):
            await self.site.heard.get()
            self.clock.advance(1)
            client.send(b"x")
        (response,) = parse_responses(await client.until_closed())
        self.assertEqual(response.status, 408)

    async def test_who_says_nothing(self) -> None:
        client = await self.connect()
        client.send(request())
        await client.until(lambda data: b"hello" in data)
        self.clock.advance(10)
        self.assertEqual(len(parse_responses(await client.until_closed())), 1)

    async def test_a_declared_size_is_refused_without_the_body(self) -> None:
        head = request("POST", "/echo", JSON, "Content-Length: 1000000000000")
        (response,) = parse_responses(await self.ask(head))
        self.assertEqual((response.status, response.error), (413, "the body is too large"))

    async def test_the_refusal_reaches_a_client_that_goes_on_sending(self) -> None:
        head = request("POST", "/echo", JSON, "Content-Length: 900000")
        for data in (
            head + b"x" * 900_000,
            request("POST", "/echo", JSON, CHUNKED) + chunks(*[b"x" * 1000] * 900),
        ):
            (response,) = parse_responses(await self.ask(data))
            self.assertEqual(response.status, 413)

    async def test_an_endless_body_is_cut_off(self) -> None:
        client = await Stubborn.connect(reactor, self.port)
        client.send(request("POST", "/echo", JSON, CHUNKED) + chunks(*[b"x" * 65_000] * 200))
        await client.until_closed()
        heard = 0
        while self.site.heard.pending:
            heard += await self.site.heard.get()
        self.assertGreater(heard, LINGER_BYTES)
        self.assertLess(heard, LINGER_BYTES + 4 * 65_536)
        self.assertIn(b"413", client.received.splitlines()[0])

    async def test_malformed_over_a_socket(self) -> None:
        for data in (b"\x16\x03\x01\x00\xa5\r\n", b"GET /\r\n\r\n", b"\x00" * 20_000):
            (response,) = parse_responses(await self.ask(data))
            self.assertIn(response.status, (400, 431))
            self.assertEqual(response.headers["content-type"], "application/json")

    async def test_a_rebound_name_and_a_foreign_page(self) -> None:
        close = "Connection: close"
        for data in (
            request("GET", "/", close, host="evil.example"),
            request("GET", "/", close, "Origin: http://evil.example"),
            request("GET", "/", close, "Sec-Fetch-Site: cross-site"),
        ):
            (response,) = parse_responses(await self.ask(data))
            self.assertEqual(response.status, 403)
            self.assertNotIn(b"hello", response.body)

    async def test_pipelined(self) -> None:
        data = request() * 50 + request("GET", "/", "Connection: close")
        responses = parse_responses(await self.ask(data))
        self.assertEqual([r.json for r in responses], ["hello"] * 51)

    async def test_who_has_said_all_is_still_answered(self) -> None:
        for data, statuses in (
            (request() * 3, [200] * 3),
            (request("POST", "/echo", JSON, "Content-Length: 70000"), [413]),
            (request("POST", "/echo", JSON, "Content-Length: 7") + b"{", []),
        ):
            client = await self.connect()
            client.send(data)
            client.transport.loseWriteConnection()
            responses = parse_responses(await client.until_closed())
            self.assertEqual([response.status for response in responses], statuses)

    async def test_who_has_said_all_is_answered_when_the_answer_is_there(self) -> None:
        client = await self.connect()
        client.send(request("GET", "/pending"))
        await self.arrived.get()
        client.transport.loseWriteConnection()
        await self.all_said()
        self.pending.callback("at last")
        (response,) = parse_responses(await client.until_closed())
        self.assertEqual(response.json, "at last")

    async def test_who_hung_up_is_noticed_by_the_answer(self) -> None:
        client = await self.connect()
        client.send(request("GET", "/pending"))
        await self.arrived.get()
        client.transport.loseConnection()
        await self.all_said()
        self.pending.callback("x" * 1_000_000)
        await self.listening.stopListening()
        await self.site.close()

    async def test_who_leaves_cancels_what_was_asked(self) -> None:
        client = await self.connect()
        client.send(request("GET", "/pending"))
        await self.arrived.get()
        client.transport.abortConnection()
        with self.assertRaises(CancelledError):
            await self.pending

    async def test_more_connections_than_are_allowed(self) -> None:
        clients = [await self.connect() for _ in range(8)]
        for client in clients:
            client.send(request())
            await client.until(lambda data: b"hello" in data)
        with capturedLogs() as events:
            for _ in range(3):
                self.assertEqual(await self.ask(b""), b"")
        warnings = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), 1)
        clients[0].transport.loseConnection()
        await clients[0].until_closed()
        self.clock.advance(10)
        for client in clients:
            await client.until_closed()
        self.assertIn(b"hello", await self.ask(request("GET", "/", "Connection: close")))

    async def test_close_ends_every_connection(self) -> None:
        idle, asking, waiting = [await self.connect() for _ in range(3)]
        asking.send(b"GET / HTTP")
        waiting.send(request("GET", "/pending"))
        await self.arrived.get()
        cancelled: list[object] = []
        self.pending.addErrback(cancelled.append)
        await self.listening.stopListening()
        await self.site.close()
        for client in (idle, asking, waiting):
            self.assertEqual(await client.until_closed(), b"")
        self.assertEqual(len(cancelled), 1)

    async def test_close_does_not_wait_for_a_client_that_reads_nothing(self) -> None:
        working, answered = [await self.connect() for _ in range(2)]
        for client, header in ((working, "X: x"), (answered, "Connection: close")):
            client.transport.pauseProducing()
            client.send(request("GET", "/pending", header))
            asked = await self.arrived.get()
            asked.write(b"x" * 20_000_000)  # more than the kernel takes
        asked.finish()
        closing = self.site.close()
        self.assertFalse(closing.called)
        self.clock.advance(CLOSE_SECONDS)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        await closing
        for client in (working, answered):
            client.transport.abortConnection()
            await client.until_closed()
