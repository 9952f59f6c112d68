"""The opening handshake: requests right and wrong, measured against stock Autobahn."""

from __future__ import annotations

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket import protocol as stock
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from txaio import tx

from jetcamer.hub.handshake import Refusal, Upgrade, accepting, read_request, refusing, try_later
from tests.hub.raw_websocket import RawTransport, request

KEY = "dGhlIHNhbXBsZSBub25jZQ=="

GOOD = request().decode()


def without(name: str) -> str:
    lines = GOOD.split("\r\n")
    return "\r\n".join(line for line in lines if not line.startswith(f"{name}:"))


def instead(name: str, *values: str) -> str:
    """The good request, with other values for a field; several: several fields."""
    lines = without(name).split("\r\n")
    return "\r\n".join([lines[0], *(f"{name}: {value}" for value in values), *lines[1:]])


def line(text: str) -> str:
    """The good request, its first line replaced."""
    return "\r\n".join([text, *GOOD.split("\r\n")[1:]])


def and_(text: str) -> str:
    """The good request, and one line more."""
    return GOOD[:-2] + text + "\r\n\r\n"


#: What both say to each; 101: come in.
BOTH: list[tuple[str, int]] = [
    (GOOD, 101),
    (line("GET /agent?x=1&x=2 HTTP/1.1"), 101),
    (line("GET http://hub.example/agent HTTP/1.1"), 101),
    (GOOD.replace("Host:", "hOST:"), 101),
    (GOOD.replace(": ", ":"), 101),
    (GOOD.replace(": ", ": \t "), 101),
    (GOOD.replace("\r\nUpgrade", "  \r\nUpgrade"), 101),
    (and_("X-Empty:"), 101),
    (and_("X-Latin: \xe9\xff"), 101),
    (and_("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"), 101),
    (and_("Sec-WebSocket-Protocol: chat, wamp.2.json"), 101),
    (and_("Origin: https://evil.example"), 101),
    (instead("Host", "hub.example:8443"), 101),
    (instead("Host", "[::1]:8443"), 101),
    (instead("Host", "[::1]"), 101),
    (instead("Host", ""), 101),
    (instead("Upgrade", "WebSocket"), 101),
    (instead("Upgrade", "h2c, websocket"), 101),
    (instead("Upgrade", "h2c", "websocket"), 101),
    (instead("Connection", "keep-alive, Upgrade"), 101),
    (instead("Connection", "keep-alive", "UPGRADE"), 101),
    (line("POST /agent HTTP/1.1"), 405),
    (line("get /agent HTTP/1.1"), 405),
    (line("GET /agent HTTP/1.0"), 505),
    (line("GET /agent HTTP/2.0"), 505),
    (line("GET /agent"), 400),
    (line("GET"), 400),
    (line(""), 400),
    (line("GET /agent x HTTP/1.1"), 400),
    (line("GET /agent#x HTTP/1.1"), 400),
    (line("GET /agent?y#x HTTP/1.1"), 400),
    ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    ("\r\n\r\n", 400),
    (without("Host"), 400),
    (instead("Host", "a", "b"), 400),
    (instead("Host", "hub.example:"), 400),
    (instead("Host", "hub.example:http"), 400),
    (without("Upgrade"), 426),
    (instead("Upgrade", "h2c"), 400),
    (instead("Upgrade", "websockets"), 400),
    (instead("Upgrade", ""), 400),
    (without("Connection"), 400),
    (instead("Connection", "keep-alive"), 400),
    (without("Sec-WebSocket-Version"), 400),
    (instead("Sec-WebSocket-Version", "13", "13"), 400),
    (instead("Sec-WebSocket-Version", "thirteen"), 400),
    (instead("Sec-WebSocket-Version", ""), 400),
    (without("Sec-WebSocket-Key"), 400),
    (instead("Sec-WebSocket-Key", KEY, KEY), 400),
    (instead("Sec-WebSocket-Key", KEY[:-1]), 400),
    (instead("Sec-WebSocket-Key", KEY + "="), 400),
    (instead("Sec-WebSocket-Key", "=" + KEY[1:]), 400),
    (instead("Sec-WebSocket-Key", KEY[:-2] + "xx"), 400),
    (instead("Sec-WebSocket-Key", "*" + KEY[1:]), 400),
    (instead("Sec-WebSocket-Key", ""), 400),
]

#: Where we differ, and mean to: ours, then stock Autobahn's.
STRICTER: list[tuple[str, int, int]] = [
    # RFC 6455 4.4 and RFC 9110 15.5.22 name the status.
    (instead("Sec-WebSocket-Version", "8"), 426, 400),
    (instead("Sec-WebSocket-Version", "14"), 426, 400),
    # RFC 9112 5: what is no field is no request; a proxy may have read another one.
    (and_("no colon"), 400, 101),
    (and_(": no name"), 400, 101),
    (and_("X-Space : x"), 400, 101),
    (and_(" folded"), 400, 101),
    (and_("X-Null: \x00"), 400, 101),
    (and_("X-Bare: a\nHost: b"), 400, 400),
    (and_("X-Bare: a\rb"), 400, 101),
    (and_("X-N\xe4me: x"), 400, 101),
    (line("GET  /agent HTTP/1.1"), 400, 101),
    (line("GET /agent\t HTTP/1.1"), 400, 101),
    (line(" GET /agent HTTP/1.1"), 400, 101),
    (line("GET /agent http/1.1"), 400, 505),
    (line("G\xcbT /agent HTTP/1.1"), 400, 405),
    (instead("Host", "hub.example/x"), 400, 101),
    (instead("Host", "hub example"), 400, 101),
    (instead("Host", "hub:+80"), 400, 101),
    (instead("Sec-WebSocket-Version", "013"), 426, 101),
]

#: Fields that an agent has no use for are not read at all.
NOT_READ: list[tuple[str, int, int]] = [
    (and_("Origin: nonsense"), 101, 400),
    (and_("Origin: http://a\r\nOrigin: http://b"), 101, 400),
    (and_("Sec-WebSocket-Protocol: a, a"), 101, 400),
]


class HandshakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(stock, "pformat", lambda _: "")
        self.patch(tx.config, "loop", Clock())

    def ours(self, text: str) -> int:
        answer = read_request(text.encode("latin-1"))
        if isinstance(answer, Upgrade):
            self.assertEqual((answer.path, answer.key), ("/agent", KEY))
            return 101
        return answer.status

    def stock(self, text: str) -> int:
        factory = WebSocketServerFactory(reactor=Clock())
        factory.protocol = WebSocketServerProtocol
        factory.setProtocolOptions(
            versions=[13], webStatus=False, openHandshakeTimeout=0, allowNullOrigin=True
        )
        protocol = factory.buildProtocol(None)
        transport = RawTransport(peerAddress=IPv4Address("TCP", "192.0.2.7", 50000))
        protocol.makeConnection(transport)
        protocol.dataReceived(text.encode("latin-1"))
        return int(transport.value().split()[1])

    def test_as_stock(self) -> None:
        for text, status in BOTH:
            self.assertEqual((self.ours(text), self.stock(text)), (status, status), text)

    def test_differences(self) -> None:
        for text, ours, theirs in [*STRICTER, *NOT_READ]:
            self.assertEqual((self.ours(text), self.stock(text)), (ours, theirs), text)

    def test_path(self) -> None:
        """As it was spelled: nothing is decoded and nothing resolved."""
        for target, path in (
            ("/agent", "/agent"),
            ("/agent?a=/b", "/agent"),
            ("/%61gent", "/%61gent"),
            ("/agent;x", "/agent;x"),
            ("/x/../agent", "/x/../agent"),
            ("//agent", "//agent"),
            ("*", "*"),
            ("wss://hub.example:8443/agent?x", "/agent"),
            ("HTTP://hub.example", ""),
            ("/http://hub.example/agent", "/http://hub.example/agent"),
        ):
            answer = read_request(line(f"GET {target} HTTP/1.1").encode())
            self.assertEqual(answer, Upgrade(path, KEY, ""), target)

    def test_forwarded(self) -> None:
        """All of them, in the order they came."""
        more = ["X-Forwarded-For: 192.0.2.1, 192.0.2.2", "x-forwarded-for: 192.0.2.3"]
        answer = read_request(request("/agent", *more))
        self.assertEqual(answer, Upgrade("/agent", KEY, "192.0.2.1, 192.0.2.2, 192.0.2.3"))

    def test_accepting(self) -> None:
        """The example of RFC 6455, 1.3."""
        answer = accepting(KEY).decode()
        self.assertTrue(answer.startswith("HTTP/1.1 101 Switching Protocols\r\n"))
        self.assertIn("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", answer)
        self.assertTrue(answer.endswith("\r\n\r\n"))

    def test_refusing(self) -> None:
        """Each status with what its meaning asks for, and nothing that the peer wrote."""
        for refusal, field in (
            (read_request(line("BREW /agent HTTP/1.1").encode()), "Allow: GET"),
            (read_request(instead("Sec-WebSocket-Version", "8").encode()), "Upgrade: websocket"),
            (read_request(without("Upgrade").encode()), "Sec-WebSocket-Version: 13"),
            (try_later(503, "too many", 2.1), "Retry-After: 3"),
            (try_later(429, "banned", 0.0), "Retry-After: 1"),
        ):
            assert isinstance(refusal, Refusal)
            answer = refusing(refusal).decode()
            self.assertTrue(answer.startswith(f"HTTP/1.1 {refusal.status} "))
            self.assertIn(f"\r\n{field}\r\n", answer)
            self.assertIn("\r\nConnection: close\r\n", answer)
            self.assertTrue(answer.endswith("\r\n\r\n"))
            self.assertNotIn("BREW", answer)
