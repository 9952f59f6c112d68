"""What a transport that wraps another passes on as it is: addresses, options of TCP, and the pace
at which it is read.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ILoggingContext


class TransportRelay:
    """Part of an `ITCPTransport` and `IPushProducer`; `_transport` is the one below, once there."""

    __slots__ = ("_transport",)

    def __init__(self) -> None:
        self._transport: Any = None

    def getPeer(self) -> Any:
        return self._transport.getPeer()

    def getHost(self) -> Any:
        return self._transport.getHost()

    def getTcpNoDelay(self) -> bool:
        return bool(self._transport.getTcpNoDelay())

    def setTcpNoDelay(self, enabled: bool) -> None:
        self._transport.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:
        return bool(self._transport.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._transport.setTcpKeepAlive(enabled)

    def pauseProducing(self) -> None:
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._transport.resumeProducing()


def log_prefix(wrapped: object) -> str:
    if ILoggingContext.providedBy(wrapped):
        return f"{wrapped.logPrefix()} (TLS)"
    return f"{type(wrapped).__name__} (TLS)"
