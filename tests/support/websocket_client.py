"""A client of the hub over a real socket that says exactly what a test wants said."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

from tests.hub.raw_websocket import CLOSE, PING, PONG, TEXT, frame, frames, request


class WebSocketClient(Protocol):
    def __init__(self) -> None:
        self._head = b""
        self._data = b""
        self._open: Deferred[None] = Deferred()
        self._pong: Deferred[None] | None = None
        self._closed: Deferred[tuple[int, str]] = Deferred()
        #: Messages that came.
        self.texts: list[bytes] = []

    def send_text(self, data: bytes) -> None:
        self.transport.write(frame(TEXT, data))

    def ping(self) -> Deferred[None]:
        """Fires when everything sent before has been read, and acted upon."""
        self._pong = Deferred()
        self.transport.write(frame(PING))
        return self._pong

    def closed(self) -> Deferred[tuple[int, str]]:
        """Fires with the code and the reason the server closes with."""
        return self._closed

    def connectionMade(self) -> None:
        self.transport.write(request())

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if not self._head:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in head, head
            self._head, self._data = head, rest
            self._open.callback(None)
        for opcode, payload in frames(self._data):  # each came in one piece: they are short
            if opcode == TEXT:
                self.texts.append(payload)
            elif opcode == PONG and self._pong is not None:
                self._pong.callback(None)
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")
                self._closed.callback((code, payload[2:].decode()))
                self.transport.write(frame(CLOSE, payload[:2]))
        self._data = b""

    def connectionLost(self, reason: Any = None) -> None:
        if not self._closed.called:
            self._closed.callback((1006, str(reason.value)))


async def connect(reactor: Any, port: int) -> WebSocketClient:
    """A WebSocket that is open."""
    client = await connectProtocol(
        TCP4ClientEndpoint(reactor, "127.0.0.1", port), WebSocketClient()
    )
    await client._open
    return client
