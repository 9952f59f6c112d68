"""What comes out of our WebSocket is what comes out of stock Autobahn, however the bytes are cut.

Stock Autobahn, with our limits and none of our code under it, is the measure: the same sequences of
frames go through it and through `AgentWebSocket`, cut in two at every byte, byte by byte, and at
places drawn by hypothesis. Messages, the bytes sent, close codes, states and counters must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any

from autobahn.twisted import websocket as stock_twisted
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket import protocol as stock
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from txaio import tx

from jetcamer.hub.websocket import AgentWebSocketFactory, Limits
from jetcamer.net import autobahn_hooks
from jetcamer.net.autobahn_client import QuietLog
from tests.hub.raw_websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawClient,
    RawTransport,
    close_frame,
    frame,
    request,
)

MASK = b"\x37\x00\xff\x81"
MAX_MESSAGE = 70_000

#: What an outcome is compared by, of either protocol.
STATE = (
    "state",
    "closedByMe",
    "failedByMe",
    "droppedByMe",
    "wasClean",
    "wasMaxFramePayloadSizeExceeded",
    "wasMaxMessagePayloadSizeExceeded",
    "localCloseCode",
    "localCloseReason",
    "remoteCloseCode",
    "remoteCloseReason",
)
COUNTERS = (
    "incomingWebSocketFrames",
    "incomingWebSocketMessages",
    "outgoingOctetsWireLevel",
    "outgoingWebSocketFrames",
    "outgoingWebSocketMessages",
)


def text(payload: bytes, **options: Any) -> bytes:
    return frame(TEXT, payload, mask=MASK, **options)


GOOD = text(b"good")
UNICODE = "√🛰".encode()

CLOSE_CODES = [0, 999, 1000, 1001, 1004, 1005, 1006, 1008, 1012, 1014, 1015, 1016, 2999]
CLOSE_CODES += [3000, 4999, 5000, 65535]

#: One oddity each; each comes between two good messages.
ODDITIES: dict[str, Sequence[bytes]] = {
    "nothing": (),
    "empty": (text(b""),),
    "characters": (text(UNICODE),),
    "125 bytes": (text(b"a" * 125),),
    "126 bytes": (text(b"a" * 126),),
    "an answer is sent": (text(b"answer"),),
    "the session closes": (text(b"close"), text(b"late")),
    "the session closes in fragments": (text(b"clo", fin=False), frame(0, b"se"), text(b"late")),
    "the session drops": (text(b"drop"), text(b"late")),
    "the session closes, then the peer": (text(b"close"), close_frame(1008, b"x"), text(b"late")),
    "the session closes, then a fault": (text(b"close"), frame(3, b"x")),
    "fragments": (text(b"a", fin=False), frame(0, b"b", fin=False), frame(0, b"c", mask=MASK)),
    "empty fragments": (text(b"", fin=False), frame(0, b"", fin=False), frame(0)),
    "a ping between fragments": (text(b"a", fin=False), frame(PING, b"p"), frame(0, b"b")),
    "a character in fragments": (text(UNICODE[:2], fin=False), frame(0, UNICODE[2:])),
    "half a character in fragments": (text(b"a", fin=False), frame(0, UNICODE[:2])),
    "text between fragments": (text(b"a", fin=False), text(b"b"), frame(0, b"c")),
    "a fragment without a beginning": (frame(0, b"a"),),
    "binary": (frame(BINARY, b"\x00\xff", mask=MASK),),
    "binary in fragments": (frame(BINARY, b"\x00", fin=False), frame(0, b"\xff")),
    "ping": (frame(PING, b"p", mask=MASK),),
    "empty ping": (frame(PING),),
    "largest ping": (frame(PING, b"p" * 125),),
    "larger ping": (frame(PING, b"p" * 126),),
    "fragment of a ping": (frame(PING, b"p", fin=False),),
    "pong": (frame(PONG, b"p"),),
    "reserved control frame": (frame(11, b"x"),),
    "reserved data frame": (frame(7, b"x"),),
    **{f"reserved bits {bits}": (text(b"x", rsv=bits),) for bits in (1, 2, 4, 7)},
    "reserved bits of a ping": (frame(PING, b"x", rsv=4),),
    "not masked": (frame(TEXT, b"x", mask=None),),
    "not masked, 16 bits": (frame(TEXT, b"x" * 130, mask=None),),
    "not masked ping": (frame(PING, b"x", mask=None),),
    "not masked close": (frame(CLOSE, b"\x03\xe8", mask=None),),
    "not UTF-8": (text(b"a\xff"), text(b"late")),
    "overlong": (text(b"\xc0\x80"),),
    "a surrogate": (text(b"\xed\xa0\x80"),),
    "beyond Unicode": (text(b"\xf4\x90\x80\x80"),),
    "half a character": (text(UNICODE[:2]),),
    "7 bits in 16": (text(b"a" * 125, form=16),),
    "0 in 16": (text(b"", form=16),),
    "7 bits in 64": (text(b"a", form=64),),
    "16 bits in 64": (text(b"a" * 130, form=64),),
    "a ping in 16": (frame(PING, b"p", form=16),),
    "64 bits, all of them": (text(b"", form=64)[:2] + b"\xff" * 8 + MASK,),
    "too large": (frame(TEXT, length=MAX_MESSAGE + 1),),
    "too large in fragments": (text(b"a", fin=False), frame(0, length=MAX_MESSAGE)),
    "close": (frame(CLOSE), text(b"late")),
    "close, half a code": (frame(CLOSE, b"\x03"), text(b"late")),
    "close, not UTF-8": (close_frame(1000, b"\xff"), text(b"late")),
    "close, half a character": (close_frame(1000, UNICODE[:2]), text(b"late")),
    "close, characters": (close_frame(3000, UNICODE), text(b"late")),
    "close, longest": (close_frame(1000, b"r" * 123),),
    "close, longer": (close_frame(1000, b"r" * 124),),
    "close in fragments": (frame(CLOSE, b"\x03\xe8", fin=False),),
    "close between fragments": (text(b"a", fin=False), close_frame(1000), frame(0, b"b")),
    **{f"close {code}": (close_frame(code), text(b"late")) for code in CLOSE_CODES},
}

#: Too long to be cut at every byte.
LARGE: dict[str, Sequence[bytes]] = {
    "awaited": (text(b"a" * 4000), text(b"b" * 5000)),
    "16 bits": (text(b"a" * 0xFFFF),),
    "64 bits": (text(b"a" * 0x10000),),
    "largest": (text(b"a" * MAX_MESSAGE),),
    "larger": (text(b"a" * (MAX_MESSAGE + 1)),),
    "larger in fragments": (text(b"a" * 40_000, fin=False), frame(0, b"b" * 40_000)),
    "not UTF-8 at the end": (text(b"a" * 5000 + b"\xff"),),
    "many": [text(b"%d" % number) for number in range(500)],
}


class Session:
    """Remembers; does as messages say."""

    agent_id = "agent-1"

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.heard: list[bytes | None] = []

    def message_received(self, data: bytes) -> None:
        self.heard.append(data)
        if data == b"answer":
            self.connection.send(b"the answer")
        elif data == b"close":
            self.connection.close(1008, "as told")
        elif data == b"drop":
            self.connection.drop()

    def binary_received(self) -> None:
        self.heard.append(None)
        self.connection.close(1003, "not_text")

    def connection_lost(self, words: str) -> None:
        self.heard.append(b"lost")


class OurConnection:
    def __init__(self, connection: Any) -> None:
        self.send, self.close = connection.send, connection.close
        self.drop = lambda: connection._protocol.dropConnection(abort=True)


class StockWebSocket(WebSocketServerProtocol):
    """The hub's rules, written anew on Autobahn's own hooks."""

    log = QuietLog()

    def onOpen(self) -> None:
        self.session = Session(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        # Nothing is acted upon after a close frame.
        if self.state == self.STATE_OPEN:
            if isBinary:
                self.session.binary_received()
            else:
                self.session.message_received(payload)

    def send(self, data: bytes) -> None:
        self.sendMessage(data)

    def close(self, code: int, reason: str) -> None:
        self.sendCloseFrame(code, reason.encode())

    def drop(self) -> None:
        self.dropConnection(abort=True)


def outcome(protocol: Any, session: Session, transport: RawTransport) -> dict[str, Any]:
    sent = transport.value()
    # What a message that was begun leaves behind, once the connection has failed, depends on how
    # much of it had come.
    while_open = {
        "inside_message": protocol.inside_message,
        "octets": protocol.trafficStats.incomingOctetsAppLevel,
        "payload octets": protocol.trafficStats.incomingOctetsWebSocketLevel,
    }
    return {
        **(while_open if protocol.state == protocol.STATE_OPEN else {}),
        "heard": list(session.heard),
        "sent": sent[sent.index(b"\r\n\r\n") + 4 :],
        "aborted": transport.aborted,
        "disconnecting": transport.disconnecting,
        **{name: getattr(protocol, name) for name in STATE},
        **{name: getattr(protocol.trafficStats, name) for name in COUNTERS},
    }


class PathsTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Most of its time is for lines of the debug log.
        for name in ("pformat", "hltype", "hlval"):
            self.patch(stock, name, lambda *_: "")
        for name in ("hltype", "hlval"):
            self.patch(stock_twisted, name, lambda *_: "")
        self.patch(autobahn_hooks._log, "observer", lambda event: None)
        self.patch(tx.config, "loop", Clock())
        self.stock_factory = WebSocketServerFactory(reactor=Clock())
        self.stock_factory.protocol = StockWebSocket
        self.stock_factory.setProtocolOptions(
            maxFramePayloadSize=MAX_MESSAGE,
            maxMessagePayloadSize=MAX_MESSAGE,
            failByDrop=False,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=2,
        )

    def ours(self, reads: Iterable[bytes]) -> dict[str, Any]:
        sessions: list[Session] = []

        def make_session(connection: Any) -> Any:
            sessions.append(Session(OurConnection(connection)))
            return sessions[0]

        limits = Limits(max_message=MAX_MESSAGE)
        factory = AgentWebSocketFactory(Clock(), make_session, limits)
        client = RawClient(factory, upgrade=False)
        client.send(request())
        total = 0
        for data in reads:
            client.send(data)
            total += len(data)
        received = factory.traffic.incomingOctetsWireLevel
        self.assertEqual(received, len(request()) + total)
        return outcome(client.protocol, sessions[0], client.transport)

    def stock(self, reads: Iterable[bytes]) -> dict[str, Any]:
        protocol = self.stock_factory.buildProtocol(None)
        transport = RawTransport(peerAddress=IPv4Address("TCP", "192.0.2.7", 50000))
        protocol.makeConnection(transport)
        # As its handshake does when the request was good; the whole of it takes 0.5 ms.
        protocol.websocket_version, protocol._wskey = 13, ""
        protocol.websocket_protocols = protocol.websocket_extensions = ()
        protocol.succeedHandshake(None)
        for data in reads:
            protocol.dataReceived(data)
        return outcome(protocol, protocol.session, transport)

    def check(self, name: str, reads: Sequence[bytes]) -> dict[str, Any]:
        ours, theirs = self.ours(reads), self.stock(reads)
        self.assertEqual(ours, theirs, f"{name}, cut into {[len(data) for data in reads[:9]]}")
        return ours

    def test_cut_at_every_byte(self) -> None:
        """In two, but in the middle of a long payload, which is like any other; and into bytes."""
        for name, frames in ODDITIES.items():
            data = b"".join([GOOD, *frames, GOOD])
            self.check(name, [data])
            self.check(name, [data[at : at + 1] for at in range(len(data))])
            # The first message alone, whatever follows it, is cut with the first of them.
            first = 1 if not frames else len(GOOD) - 1
            for cut in range(first, len(data)):
                if cut < 40 or len(data) - cut < 40:
                    self.check(name, [data[:cut], data[cut:]])

    def test_large(self) -> None:
        for name, frames in LARGE.items():
            data = b"".join([GOOD, *frames, GOOD])
            self.check(name, [data])
            for size in (1000, 4099, 65_536):
                self.check(name, [data[at : at + size] for at in range(0, len(data), size)])

    def test_with_the_handshake(self) -> None:
        """Frames that come in one read with the request."""
        for name in ("nothing", "ping", "the session closes", "not UTF-8", "close 1000"):
            data = b"".join([GOOD, *ODDITIES[name], GOOD])
            sessions: list[Session] = []
            factory = AgentWebSocketFactory(
                Clock(),
                lambda connection, sessions=sessions: (
                    sessions.append(Session(OurConnection(connection))) or sessions[0]
                ),
                Limits(max_message=MAX_MESSAGE),
            )
            client = RawClient(factory, upgrade=False)
            client.send(request() + data)
            found = outcome(client.protocol, sessions[0], client.transport)
            self.assertEqual(found, self.stock([data]), name)

    def test_expected(self) -> None:
        """The measure itself: what the sequences are known to come to."""
        for name, code in (
            ("nothing", None),
            ("fragments", None),
            ("the session closes", 1008),
            ("binary", 1003),
            ("not masked", 1002),
            ("reserved bits 4", 1002),
            ("7 bits in 16", 1002),
            ("not UTF-8", 1007),
            ("too large", 1009),
            ("close", 1000),
            ("close 1005", 1002),
        ):
            found = self.check(name, [b"".join([GOOD, *ODDITIES[name], GOOD])])
            self.assertEqual(found["localCloseCode"], code, name)
            self.assertEqual(found["heard"][0], b"good")

    @settings(max_examples=80, deadline=None)
    @given(
        st.lists(st.sampled_from([GOOD, *chain.from_iterable(ODDITIES.values())]), max_size=12),
        st.lists(st.integers(0, 2000), max_size=12),
    )
    def test_drawn(self, frames: list[bytes], cuts: list[int]) -> None:
        # A good frame at the end: an unfinished one is understood later by one than by the other.
        # One at the beginning: from a stranger, ours does not take as much.
        data = b"".join([GOOD, *frames, GOOD])
        places = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
        self.check("drawn", [data[a:b] for a, b in pairwise(places) if a < b])

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.builds(
                frame,
                st.sampled_from([TEXT, TEXT, TEXT, 0, BINARY, CLOSE, PING, PONG, 3, 15]),
                st.binary(max_size=140) | st.text(max_size=60).map(str.encode),
                st.booleans() | st.just(True),
                mask=st.none() | st.binary(min_size=4, max_size=4),
                rsv=st.sampled_from([0, 0, 0, 0, 1, 4]),
                form=st.sampled_from([None, None, None, 16, 64]),
            ),
            max_size=8,
        ),
        st.lists(st.integers(0, 2000), max_size=8),
    )
    def test_drawn_anew(self, frames: list[bytes], cuts: list[int]) -> None:
        self.test_drawn.hypothesis.inner_test(self, frames, cuts)  # type: ignore[attr-defined]
