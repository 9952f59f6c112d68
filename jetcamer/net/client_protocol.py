"""Autobahn's client protocol, cut down to what `websocket` and `endpoint` need.

In: bytes from a transport. Out: calls on an `Opening` until the WebSocket is usable, and on its
`WebSocketConnection` from then on. It never keeps time and never speaks in the log.

Autobahn's timers are all off: they round down to whole seconds (a deadline of 1 s can pass at
once), they ignore the reactor they are given, and one outlives its connection. Its drop on a
violation is off too, so that the server is told the code; what follows a violation is not read.
"""

from __future__ import annotations

import os
import struct
import time
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from autobahn.util import encode_truncate
from autobahn.websocket.types import ConnectingRequest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IHandshakeListener, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.net.autobahn_client import AutobahnClientFactory, AutobahnClientProtocol
from jetcamer.net.errors import ConnectFailed, printable
from jetcamer.net.response import HeadReader, ResponseHead, http_date
from jetcamer.net.url import WebSocketURL, join_authority
from jetcamer.net.websocket import Disconnected, Liveness, WebSocketConnection

#: Frames of one message. Empty ones weigh nothing on the wire and something here.
MAX_FRAGMENTS = 16 * 1024

#: Seconds; what a server asks for beyond it is no number to reckon with.
_A_DAY = 86_400.0


class Opening(typing.Protocol):
    """Whoever opens the connection: told how far it came, and of its end before it was open."""

    def connected(self) -> None:
        """The transport is there."""

    def secured(self) -> None:
        """The TLS handshake is over and the server's certificate was accepted."""

    def opened(self, connection: WebSocketConnection) -> None:
        """The WebSocket is usable. Nothing more is said to the opening."""

    def refused(self, error: ConnectFailed) -> None:
        """The server's answer is no WebSocket. The transport is still open."""

    def lost(self, reason: Failure) -> None:
        """The transport is gone."""


@implementer(IHandshakeListener)
class ClientProtocol(AutobahnClientProtocol):
    """Turns Autobahn's hooks into calls on the opening, and then on the connection.

    :param now: Unix seconds. Not `clock`, which may count from anywhere.
    """

    def __init__(
        self,
        url: WebSocketURL,
        opening: Opening,
        clock: IReactorTime,
        liveness: Liveness,
        max_message: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.max_message = max_message
        self._url = url
        self._opening: Opening | None = opening
        self._clock = clock
        self._liveness = liveness
        self._now = now
        self._reader = HeadReader()
        self._head: ResponseHead | None = None
        self._connection: WebSocketConnection | None = None
        self._violation: tuple[int, str] | None = None
        self._fragments = 0
        self._is_lost = False

    # From the transport.

    def connectionMade(self) -> None:
        assert self._opening is not None
        self._opening.connected()
        super().connectionMade()

    def handshakeCompleted(self) -> None:
        if self._opening is not None:
            self._opening.secured()

    def dataReceived(self, data: bytes) -> None:
        if self.state == self.STATE_CONNECTING:
            self._answer_received(data)
        elif not self._violation:
            # What follows a violation has no reader: the answer to our close frame is the end of
            # the TCP connection, or its deadline.
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        clean = isinstance(reason.value, ConnectionDone)
        # Autobahn takes the errors of TLS apart, and not every one of them has that shape.
        super().connectionLost(reason if clean else Failure(ConnectionLost()))
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.lost(reason)
        elif self._connection is not None:
            self._connection.lost(partial(self._epitaph, reason))

    # The upgrade.

    def onConnecting(self, transport_details: Any) -> ConnectingRequest:
        host, _, port = self._url.authority.rpartition(":")  # an IPv6 address keeps its brackets
        return ConnectingRequest(
            host=host,
            port=port,
            resource=self._url.resource,
            headers={},
            useragent=self.factory.useragent,
            origin=None,
            protocols=[],
        )

    def _answer_received(self, data: bytes) -> None:
        """Read the answer's head before Autobahn does, which has no limit and few words."""
        if self._head is not None:
            return  # refused; nobody waits for the rest
        try:
            self._head = head = self._reader.feed(data)
        except ValueError as error:
            self._head = ResponseHead(0, "", {})
            self._refuse(f"the server does not speak WebSocket: {error}", "protocol")
            return
        if head is None:
            return
        if head.status != 101:
            location = head.headers.get("location")
            where = f" (it points to {printable(location, 120)})" if location else ""
            words = f"HTTP {head.status_line} instead of an upgrade{where}"
            self._refuse(words, "http", self._retry_after(head))
            return
        ascii_head = self._reader.raw.decode("ascii", "replace").encode("ascii", "replace")
        rest, self._reader = self._reader.rest, HeadReader()
        super().dataReceived(ascii_head + rest)

    def _retry_after(self, head: ResponseHead) -> float | None:
        """Seconds (RFC 9110 §10.2.3), 0 to a day; by the server's own clock where it shows it."""
        value = head.headers.get("retry-after", "")
        if head.status not in (429, 503) or not value:
            return None
        if value.isascii() and value.isdigit():
            return min(float(value), _A_DAY)
        until = http_date(value)
        if until is None:
            return None
        now = http_date(head.headers.get("date"))
        seconds = until - (self._now() if now is None else now)
        return min(max(seconds, 0.0), _A_DAY)

    def failHandshake(self, reason: str) -> None:
        self._refuse(f"the server's upgrade answer is wrong: {printable(reason, 160)}", "protocol")

    def _refuse(
        self, words: str, kind: typing.Literal["http", "protocol"], retry_after: float | None = None
    ) -> None:
        if self._opening is not None:
            self._opening.refused(
                ConnectFailed(words, kind=kind, phase="WebSocket upgrade", retry_after=retry_after)
            )

    def onOpen(self) -> None:
        assert self._head is not None
        assert self.transport is not None
        address: Any = self.transport.getPeer()
        self._connection = WebSocketConnection(
            self,
            self._clock,
            self._liveness,
            peer=join_authority(address.host, address.port),
            server_date=http_date(self._head.headers.get("date")),
        )
        self._head = None
        self.registerProducer(self._connection.valve, True)
        opening, self._opening = self._opening, None
        assert opening is not None
        opening.opened(self._connection)

    # The open connection.

    def onMessageBegin(self, isBinary: bool) -> None:
        self._fragments = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        self._fragments += 1
        if self._fragments > MAX_FRAGMENTS and self.is_usable:
            self.violated(1009, f"message in over {MAX_FRAGMENTS} fragments")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._connection is None or not self.is_usable:
            return
        if isBinary:
            self.violated(1003, "only text messages are understood")
            return
        try:
            str(payload, "utf-8")
        except UnicodeDecodeError:
            self.violated(1007, "a text message was not valid UTF-8")
            return
        self._connection.message(payload)

    def onPing(self, payload: bytes) -> None:
        if self._connection is not None:
            self._connection.ping_received(payload)

    def onPong(self, payload: bytes) -> None:
        if self._connection is not None:
            self._connection.pong_received(payload)

    def violated(self, code: int, words: str) -> None:
        """Close because of what the server sent."""
        self._violation = (code, words)
        self.send_close(code, words)

    def sendFrame(
        self,
        opcode: int,
        payload: bytes = b"",
        fin: bool = True,
        rsv: int = 0,
        mask: bytes | None = None,
        payload_len: int | None = None,
        chopsize: int | None = None,
        sync: bool = False,
    ) -> None:
        # The other arguments are for fuzzing; nobody here gives them. Autobahn
        # masks byte by byte where its native helpers are off: half a second for 1 MiB. And its
        # `sendData` paints the frame for a debug line each time, a tenth of what a message costs.
        if self.transport is not None:
            self.transport.write(masked_frame(opcode, payload, fin, os.urandom(4)))

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        was_usable = self.is_usable
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if was_usable and self.failedByMe and self._violation is None:
            reason = (reasonUtf8 or b"").decode("utf-8", "replace")
            if code == 1009:
                reason = f"message over {self.max_message} bytes"
            self._violation = (code or 1002, reason)
        if was_usable and self._connection is not None:
            self._connection.close_sent()

    # Wire

    @property
    def is_usable(self) -> bool:
        return bool(self.state == self.STATE_OPEN)

    def send_text(self, data: bytes) -> None:
        self.sendFrame(1, data)

    def send_ping(self, payload: bytes) -> None:
        self.sendPing(payload)

    def send_pong(self, payload: bytes) -> None:
        self.sendPong(payload)

    def send_close(self, code: int, reason: str) -> None:
        self.sendCloseFrame(code, encode_truncate(reason, 123))

    def drop(self) -> None:
        if self._is_lost:
            return
        self.dropConnection(abort=True)
        if self.transport is not None:  # Autobahn may think it is closed when it only asked
            self.transport.abortConnection()

    def _epitaph(self, failure: Failure, ending: str | None) -> Disconnected:
        """Who ended the connection, and why."""
        if self._violation is not None:
            code, reason = self._violation
            words = f"closed by us: {reason} ({code})"
            return Disconnected(code, reason, by_peer=False, clean=False, words=words)
        clean = bool(self.wasClean)
        if self.closedByMe:
            ours = self.localCloseCode
            reason = (self.localCloseReason or b"").decode("utf-8", "replace")
            words = f"closed by us: {ours} {reason}".rstrip()
            if not clean:
                words += "; the server did not answer"
            return Disconnected(ours, reason, by_peer=False, clean=clean, words=words)
        if clean:
            reason = printable(self.remoteCloseReason or "", 123)
            words = f"closed by the server: {self.remoteCloseCode or 'no code'} {reason}".rstrip()
            return Disconnected(self.remoteCloseCode, reason, by_peer=True, clean=True, words=words)
        if ending is not None:
            return Disconnected(None, "", by_peer=False, clean=False, words=ending)
        if isinstance(failure.value, ConnectionDone):
            words = "the server ended the connection without a closing handshake"
        elif isinstance(failure.value, ConnectionLost):
            words = "connection lost (reset by the server or the network)"
        else:
            words = f"connection lost ({printable(str(failure.value), 120)})"
        return Disconnected(None, "", by_peer=True, clean=False, words=words)


def masked_frame(opcode: int, payload: bytes, fin: bool, mask: bytes) -> bytes:
    """One frame from a client (RFC 6455 §5.2), its payload masked with the four bytes `mask`."""
    length = len(payload)
    first = (0x80 if fin else 0) | opcode
    if length < 126:
        head = struct.pack("!BB", first, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, length)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, length)
    pad = (mask * (length // 4 + 1))[:length]
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(pad, "little")
    return b"".join((head, mask, mixed.to_bytes(length, "little")))


class ClientFactory(AutobahnClientFactory):
    """Builds the protocol of one attempt, with every option of Autobahn's said outright."""

    noisy = False

    def __init__(
        self,
        make_protocol: Callable[[], ClientProtocol],
        clock: IReactorTime,
        max_message: int,
        user_agent: str,
    ) -> None:
        super().__init__(clock, useragent=user_agent, protocols=[])
        self.logOctets = self.logFrames = self.trackTimings = False
        self.setProtocolOptions(**protocol_options(max_message))
        self._make_protocol = make_protocol

    def buildProtocol(self, addr: IAddress | None) -> ClientProtocol:
        protocol = self._make_protocol()
        protocol.factory = self
        return protocol


def protocol_options(max_message: int) -> dict[str, Any]:
    """What Autobahn is told, every option of a client by its name."""
    return {
        "version": 18,  # RFC 6455
        "acceptMaskedServerFrames": False,
        "maskClientFrames": True,
        "applyMask": True,
        "maxFramePayloadSize": max_message,
        "maxMessagePayloadSize": max_message,
        "autoFragmentSize": 0,
        "utf8validateIncoming": False,  # once, in C, when the message is whole
        "perMessageCompressionOffers": [],
        "perMessageCompressionAccept": _no_compression,
        "failByDrop": False,
        "echoCloseCodeReason": False,
        "tcpNoDelay": True,
        "openHandshakeTimeout": 0,
        "closeHandshakeTimeout": 0,
        "serverConnectionDropTimeout": 0,
        "autoPingInterval": 0,
        "autoPingTimeout": 0,
        "autoPingSize": 12,
        "autoPingRestartOnAnyTraffic": False,
    }


def _no_compression(offered: object) -> None:
    return None
