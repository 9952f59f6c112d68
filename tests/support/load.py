"""Thousands of agents' WebSockets in one process: raw sockets, epoll, and frames made by hand.

``load = Load((host, port))``; ``load.open(agent, events)`` dials; ``load.poll(seconds)`` lets what
can happen. Nothing of the project's own client is used but its signatures, so that what is measured
or tested is the server. It answers pings, and looks at no more of what comes back than it must.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import Protocol
from uuid import UUID

from websockets.speedups import apply_mask

from jetcamer.net.response import HeadReader, ResponseHead
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.signing import SigningKey

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10

_READ = select.EPOLLIN
_READ_AND_WRITE = select.EPOLLIN | select.EPOLLOUT


def frame(opcode: int, payload: bytes) -> bytes:
    """One final, masked frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0xFF, size)
    mask = os.urandom(4)
    return head + mask + apply_mask(payload, mask)


class LoadAgent:
    """One agent's identity: signs messages whose `ts` rise and whose nonces are new."""

    def __init__(self, agent_id: str, secret: str) -> None:
        self.agent_id = agent_id
        self._key = SigningKey(secret)
        self._ts = 0

    def message(self, type: str, payload: bytes) -> bytes:
        """The masked frame of a message of this moment; `payload` is canonical JSON."""
        self._ts = max(self._ts + 1, time.time_ns() // 1_000_000)
        nonce = str(UUID(bytes=os.urandom(16), version=4))
        return frame(_TEXT, self._key.seal(type, self.agent_id, payload, ts=self._ts, nonce=nonce))

    def auth(self) -> bytes:
        return self.message("auth", canonical({"hostname": self.agent_id, "version": "1.0.0"}))

    def metrics(self, number: int) -> bytes:
        readings = {
            "cpuPercent": number % 1000 / 10,
            "memPercent": 45.21,
            "diskUsage": 60.1,
        }
        return self.message("metrics", canonical(readings))


class Events(Protocol):
    """Who is told what becomes of a connection. For each: `opened` at most once; one `gone`."""

    def opened(self, connection: LoadConnection) -> None:
        """The upgrade was answered with 101."""

    def pong(self, connection: LoadConnection) -> None: ...

    def gone(self, connection: LoadConnection) -> None:
        """The connection is over; `answer`, `code` and `error` say what is known of why."""


class LoadConnection:
    """One dialled connection.

    :ivar answer: the answer to the upgrade, once it is here.
    :ivar code: of the server's close frame; None without one.
    :ivar error: the system's, where there was one.
    """

    __slots__ = ("_load", "_reader", "_received", "_socket", "_state", "_unsent",
                 "agent", "answer", "code", "error", "events", "reason")  # fmt: skip

    def __init__(self, load: Load, agent: LoadAgent, events: Events) -> None:
        self.agent = agent
        self.events = events
        self.answer: ResponseHead | None = None
        self.code: int | None = None
        self.reason = ""
        self.error: OSError | None = None
        self._load = load
        self._reader = HeadReader()
        self._received = b""
        self._unsent = b""
        self._state = "connecting"
        plain = socket.socket()
        plain.setblocking(False)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: socket.socket | ssl.SSLSocket = plain
        try:
            plain.connect(load.address)
        except BlockingIOError:
            pass
        except OSError as error:
            self.error = error  # told by the first `ready`, as any other

    @property
    def is_open(self) -> bool:
        return self._state == "open"

    @property
    def is_over(self) -> bool:
        return self._state == "over"

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Write it now, and what the socket does not take as soon as it does."""
        if self._state == "over":
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        except OSError as error:
            self._over(error)
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self._load.watch(self, _READ_AND_WRITE)

    def ping(self) -> None:
        self.send(frame(_PING, b"load"))

    def abort(self, error: OSError | None = None) -> None:
        """End it with a reset, which leaves no socket in TIME_WAIT."""
        if self._state != "over":
            linger = struct.pack("ii", 1, 0)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._over(error)

    # What the loop calls

    def ready(self, mask: int) -> None:
        try:
            if self._state == "connecting" and not self._connected():
                return
            if self._state == "securing" and not self._secured():
                return
            if mask & select.EPOLLOUT and self._unsent:
                self._flush()
            if mask & ~select.EPOLLOUT:
                self._read()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._over(error)

    def _connected(self) -> bool:
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self.error is not None or number:
            self._over(self.error or OSError(number, os.strerror(number)))
            return False
        context = self._load.context
        if context is None:
            self._ask()
            return True
        self._socket = context.wrap_socket(
            self._socket, do_handshake_on_connect=False, server_hostname=self._load.address[0]
        )
        self._state = "securing"
        self._load.watch(self, _READ)
        return True

    def _secured(self) -> bool:
        assert isinstance(self._socket, ssl.SSLSocket)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self._ask()
        return True

    def _ask(self) -> None:
        self._state = "upgrading"
        self._load.watch(self, _READ)
        self.send(self._load.request)

    def _flush(self) -> None:
        self._unsent = self._unsent[self._socket.send(self._unsent) :]
        if not self._unsent:
            self._load.watch(self, _READ)

    def _read(self) -> None:
        while True:
            data = self._socket.recv(65536)
            if not data:
                self._over(None)
                return
            if self._state == "upgrading":
                self._upgraded(data)
            else:
                self._received += data
                self._take_frames()
            if self._state == "over" or self._load.context is None:
                return  # of TLS, what is decrypted already wakes no epoll

    def _upgraded(self, data: bytes) -> None:
        try:
            self.answer = self._reader.feed(data)
        except ValueError as error:
            self._over(OSError(str(error)))
            return
        if self.answer is None:
            return
        if self.answer.status != 101:
            self._over(None)
            return
        self._state = "open"
        self._received = self._reader.rest
        self.events.opened(self)
        self._take_frames()

    def _take_frames(self) -> None:
        for opcode, payload in self._frames():
            if opcode == _PING:
                self.send(frame(_PONG, payload))
            elif opcode == _PONG:
                self.events.pong(self)
            elif opcode == _CLOSE:
                if len(payload) >= 2:
                    self.code = int.from_bytes(payload[:2], "big")
                    self.reason = payload[2:].decode("utf-8", "replace")
                self.send(frame(_CLOSE, payload[:2]))
                # The server is the first to let the connection go (RFC 6455, 7.1.1).

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Whole frames, as a server sends them: not masked."""
        while len(self._received) >= 2:
            size, start = self._received[1], 2
            if size == 126:
                size, start = int.from_bytes(self._received[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(self._received[2:10], "big"), 10
            if len(self._received) < start + size:
                return
            opcode, payload = self._received[0] & 15, self._received[start : start + size]
            self._received = self._received[start + size :]
            yield opcode, payload

    def _over(self, error: OSError | None) -> None:
        if self._state == "over":
            return
        self._state = "over"
        self.error = error
        self._load.forget(self)
        self._socket.close()
        self.events.gone(self)


class Load:
    """The loop over all connections to one server.

    :param context: TLS with it; None: plain.
    """

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None = None) -> None:
        self.address = address
        self.context = context
        self.request = (
            f"GET /agent HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\nUser-Agent: load\r\n\r\n"
        ).encode()
        self._epoll = select.epoll()
        self._connections: dict[int, LoadConnection] = {}

    def open(self, agent: LoadAgent, events: Events) -> LoadConnection:
        connection = LoadConnection(self, agent, events)
        self._connections[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), _READ_AND_WRITE)
        return connection

    def watch(self, connection: LoadConnection, mask: int) -> None:
        self._epoll.modify(connection.fileno(), mask)

    def forget(self, connection: LoadConnection) -> None:
        self._epoll.unregister(connection.fileno())
        del self._connections[connection.fileno()]

    def poll(self, seconds: float) -> None:
        """Wait at most so long for something to happen, and let it."""
        for number, mask in self._epoll.poll(max(seconds, 0)):
            connection = self._connections.get(number)
            if connection is not None:  # closed by what happened just before
                connection.ready(mask)
