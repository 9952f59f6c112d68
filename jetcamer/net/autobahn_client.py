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
from twisted.python.failure import Failure

from jetcamer.net.autobahn_hooks import AutobahnHooks, QuietLog

# Autobahn's modules ask for this when they are imported.
txaio.use_twisted()

from autobahn.websocket import protocol  # noqa: E402


class AutobahnClientProtocol(AutobahnHooks, protocol.WebSocketClientProtocol, Protocol):
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

    # From Autobahn to the client's own hooks.

    def _onConnect(self, response: Any) -> None:
        self.onConnect(response)

    def _onOpen(self) -> None:
        self.onOpen()


class AutobahnClientFactory(  # type: ignore[misc] # both declare `protocol`, unused here
    protocol.WebSocketClientFactory, Factory
):
    """What `autobahn.twisted.websocket.WebSocketClientFactory` is, for one connection."""

    log = QuietLog()

    def __init__(self, reactor: IReactorTime, **arguments: Any) -> None:
        self.reactor = reactor
        super().__init__(**arguments)
