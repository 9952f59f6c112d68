"""The other ends of connections, for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from jetcamer.net.websocket import Disconnected, WebSocketConnection
from tests.support.line_process import LineProcess

CONNECT_PROXY = Path(__file__).resolve().parents[1] / "support" / "connect_proxy.py"


def the_deadline() -> Any:
    """The delayed call that ends the one attempt in progress; `reset(0)` makes it late."""
    from twisted.internet import reactor

    (deadline,) = (
        call
        for call in reactor.getDelayedCalls()
        if getattr(call.func, "__name__", "") == "_too_late"
    )
    return deadline


class Receiver:
    """Keeps what a connection tells, and lets a test wait for it."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self.messages: list[bytes] = []
        self.ends: list[Disconnected] = []
        self.closings = 0
        self.gone: Deferred[Disconnected] = Deferred()
        self._wanted = 0
        self._arrived: Deferred[list[bytes]] | None = None

    @property
    def end(self) -> Disconnected:
        (end,) = self.ends
        return end

    def received(self, count: int) -> Deferred[list[bytes]]:
        """Fires when `count` messages are there."""
        self._wanted = count
        self._arrived = Deferred()
        self._tell()
        return self._arrived

    def message_received(self, data: bytes) -> None:
        assert not self.ends, "a message after the end"
        self.messages.append(data)
        self._tell()

    def closing(self) -> None:
        self.closings += 1

    def disconnected(self, reason: Disconnected) -> None:
        self.ends.append(reason)
        if not self.gone.called:
            self.gone.callback(reason)

    def _tell(self) -> None:
        if self._arrived is not None and len(self.messages) >= self._wanted:
            arrived, self._arrived = self._arrived, None
            arrived.callback(self.messages)


class PeerProtocol(WebSocketServerProtocol):
    """A WebSocket server's end that keeps what it hears."""

    def onConnect(self, request: Any) -> None:
        self.request = request

    def onOpen(self) -> None:
        self.factory.connections.append(self)
        self.messages: list[bytes] = []
        self.closed: Deferred[tuple[bool, int | None, str | None]] = Deferred()
        self.factory.on_open(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.messages.append(payload)
        self.factory.on_message(self, payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if hasattr(self, "closed"):
            self.closed.callback((wasClean, self.remoteCloseCode, self.remoteCloseReason))


class PeerFactory(WebSocketServerFactory):
    """A WebSocket server without timers; `on_open` and `on_message` say what it does."""

    protocol = PeerProtocol
    noisy = False

    def __init__(self, clock: Any) -> None:
        super().__init__(reactor=clock)
        self.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, failByDrop=False, tcpNoDelay=True
        )
        self.connections: list[PeerProtocol] = []
        self.on_open: Callable[[PeerProtocol], object] = lambda peer: None
        self.on_message: Callable[[PeerProtocol, bytes], object] = lambda peer, data: None


class Scripted(Protocol):
    """A server that does what its factory's `on_connect` and `on_data` say."""

    def connectionMade(self) -> None:
        self.received = b""
        self.gone: Deferred[None] = Deferred()
        self.factory.connections.append(self)
        self.factory.on_connect(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.factory.on_data(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


class ScriptedFactory(Factory):
    protocol = Scripted
    noisy = False

    def __init__(
        self,
        on_data: Callable[[Scripted, bytes], object] = lambda peer, data: None,
        on_connect: Callable[[Scripted], object] = lambda peer: None,
    ) -> None:
        self.on_data = on_data
        self.on_connect = on_connect
        self.connections: list[Scripted] = []


def answering(answer: bytes) -> ScriptedFactory:
    """A server that gives `answer` once it has read a whole request head."""

    def answer_head(peer: Scripted, data: bytes) -> None:
        if b"\r\n\r\n" in peer.received:
            peer.transport.write(answer)

    return ScriptedFactory(answer_head)


class ProxyProcess(LineProcess[str]):
    """`connect_proxy.py` as a process."""

    def __init__(self, reactor: Any, *options: str) -> None:
        super().__init__(reactor)
        self._options = options
        self.port = 0

    def parse(self, line: str) -> str:
        return line

    async def start(self) -> ProxyProcess:
        self.spawn([sys.executable, "-S", "-E", str(CONNECT_PROXY), *self._options])
        line = await self.wait_for(lambda line: line.startswith("listening "))
        self.port = int(line.split()[1])
        return self

    @property
    def requests(self) -> list[str]:
        return self.events[1:]
