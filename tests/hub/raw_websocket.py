"""The client's side of a WebSocket, byte by byte, for tests of what a server does with bytes."""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from jetcamer.hub.websocket import AgentWebSocketFactory

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def request(path: str = "/agent", *more: str) -> bytes:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(
    opcode: int,
    payload: bytes = b"",
    fin: bool = True,
    length: int | None = None,
    *,
    mask: bytes | None = b"\0\0\0\0",
    rsv: int = 0,
    form: int | None = None,
) -> bytes:
    """One frame, masked with zeros; `length` may promise more than there is.

    :param mask: None: not masked.
    :param form: bits of the length: 7, 16 or 64; None: as few as it takes.
    """
    size = len(payload) if length is None else length
    if form is None:
        form = 7 if size < 126 else 16 if size < 1 << 16 else 64
    second = {7: size, 16: 126, 64: 127}[form] | (0 if mask is None else 0x80)
    head = bytes([opcode | rsv << 4 | (0x80 if fin else 0), second])
    head += {7: b"", 16: struct.pack("!H", size & 0xFFFF), 64: struct.pack("!Q", size)}[form]
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """The unmasked frames in `data`: (opcode, payload)."""
    found = []
    while data:
        opcode, size, begin = data[0] & 0x0F, data[1] & 0x7F, 2
        if size == 126:
            size, begin = struct.unpack("!H", data[2:4])[0], 4
        elif size == 127:
            size, begin = struct.unpack("!Q", data[2:10])[0], 10
        found.append((opcode, data[begin : begin + size]))
        data = data[begin + size :]
    return found


class RawTransport(StringTransport):
    """As lenient as a socket about what was never registered; tells an abort from an end."""

    aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def unregisterProducer(self) -> None:
        self.producer = None

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class RawClient:
    """One connection to a factory under test.

    :param upgrade: whether it asks for the WebSocket at once.

    Raises ConnectionRefusedError where the factory turns it away.
    """

    def __init__(
        self,
        factory: AgentWebSocketFactory,
        upgrade: bool = True,
        address: object = IPv4Address("TCP", "192.0.2.7", 50000),
    ) -> None:
        self.transport = RawTransport(peerAddress=address)
        self.protocol: Any = factory.buildProtocol(address)
        if self.protocol is None:
            raise ConnectionRefusedError
        self.protocol.makeConnection(self.transport)
        self.head = b""
        if upgrade:
            self.send(request())
            self.head = self.read()

    def send(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def read(self) -> bytes:
        data = self.transport.value()
        self.transport.clear()
        return data

    def frames(self) -> list[tuple[int, bytes]]:
        return frames(self.read())

    def closed_with(self) -> tuple[int, str]:
        """Code and reason of the close frame that came; nothing else may have come."""
        ((opcode, payload),) = self.frames()
        if opcode != CLOSE:
            raise AssertionError(f"frame {opcode} is no close frame")
        return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    def answer_close(self, code: int = 1000) -> None:
        self.send(close_frame(code))

    @property
    def gone(self) -> bool:
        """Whether the server has let the connection go."""
        return self.transport.disconnecting or self.transport.aborted

    def lose(self) -> None:
        reason = ConnectionAborted() if self.transport.aborted else ConnectionDone()
        self.protocol.connectionLost(Failure(reason))
