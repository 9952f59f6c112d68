"""Autobahn's WebSocket client on Twisted, without the package `autobahn.twisted`.

In: a transport's bytes. Out: Autobahn's hooks (`onOpen`, `onMessage`, …). That package brings a
component framework with it, 0.8 MB that an agent never uses; it formats a log line for every read,
and takes the server's certificate apart at every open. Only what joins Autobahn's protocol to a
transport is needed, and is here. Autobahn's own log goes to ours at debug.
"""

from __future__ import annotations

from typing import Any

import txaio
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

# Autobahn's modules ask for this when they are imported.
txaio.use_twisted()

from autobahn.websocket import protocol  # noqa: E402

_log = Logger()


class QuietLog:
    """What matters to a person is said by us, once."""

    def debug(self, *ignored: object, **values: object) -> None:
        pass

    trace = debug

    def info(self, format: str | None = None, **values: Any) -> None:  # noqa: A002 - as Twisted's
        _log.debug(format, **values)

    warn = error = critical = failure = info


class AutobahnClientProtocol(protocol.WebSocketClientProtocol, Protocol):
    """What `autobahn.twisted.websocket.WebSocketClientProtocol` is to its subclasses."""

    log = QuietLog()
    peer = "?"

    # From Twisted to Autobahn.

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.peer = str(transport.getPeer())
        transport.setTcpNoDelay(True)
        self._connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self._dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connectionLost(reason)

    # From Autobahn to Twisted.

    def _closeConnection(self, abort: bool = False) -> None:
        transport: Any = self.transport
        if abort:
            transport.abortConnection()
        else:
            transport.loseConnection()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        transport: Any = self.transport
        transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        transport: Any = self.transport
        transport.unregisterProducer()

    # From Autobahn to the hooks, which it only ever calls by these names.

    def _onConnect(self, response: Any) -> None:
        self.onConnect(response)

    def _onOpen(self) -> None:
        self.onOpen()

    def _onMessageBegin(self, isBinary: bool) -> None:
        self.onMessageBegin(isBinary)

    def _onMessageFrameBegin(self, length: int) -> None:
        self.onMessageFrameBegin(length)

    def _onMessageFrameData(self, payload: bytes) -> None:
        self.onMessageFrameData(payload)

    def _onMessageFrameEnd(self) -> None:
        self.onMessageFrameEnd()

    def _onMessageFrame(self, payload: Any) -> None:
        self.onMessageFrame(payload)

    def _onMessageEnd(self) -> None:
        self.onMessageEnd()

    def _onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.onMessage(payload, isBinary)

    def _onPing(self, payload: bytes) -> None:
        self.onPing(payload)

    def _onPong(self, payload: bytes) -> None:
        self.onPong(payload)

    def _onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.onClose(wasClean, code, reason)


class AutobahnClientFactory(  # type: ignore[misc] # both declare `protocol`, unused here
    protocol.WebSocketClientFactory, Factory
):
    """What `autobahn.twisted.websocket.WebSocketClientFactory` is, for one connection."""

    log = QuietLog()

    def __init__(self, reactor: IReactorTime, **arguments: Any) -> None:
        self.reactor = reactor
        super().__init__(**arguments)
