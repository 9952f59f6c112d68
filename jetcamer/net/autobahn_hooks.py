"""What joins Autobahn's state machine to a Twisted transport, for a client and a server alike.

Autobahn calls methods of these names on its way out and up; `autobahn.twisted` has them, with much
that nobody here needs. Nothing is decided here.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

_log = Logger()


class QuietLog:
    """What matters to a person is said by us, once."""

    def debug(self, *ignored: object, **values: object) -> None:
        pass

    trace = debug

    def info(self, format: str | None = None, **values: Any) -> None:  # noqa: A002 - as Twisted's
        _log.debug(format, **values)

    warn = error = critical = failure = info


class AutobahnHooks:
    """To be the first base of a protocol, before Autobahn's own."""

    __slots__ = ()

    transport: Any
    onMessageBegin: Any
    onMessageFrameBegin: Any
    onMessageFrameData: Any
    onMessageFrameEnd: Any
    onMessageFrame: Any
    onMessageEnd: Any
    onMessage: Any
    onPing: Any
    onPong: Any
    onClose: Any

    def _closeConnection(self, abort: bool = False) -> None:
        if abort:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()

    def registerProducer(self, producer: object, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self.transport.unregisterProducer()

    # To the hooks, which it only ever calls by these names.

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
