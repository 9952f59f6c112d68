"""What time it is at a server that did not tell in its answer to the upgrade.

In: where it is, and the way there. Out: its time, or nothing. A plain request is sent and only the
head of the answer is read; whatever goes wrong is no error, and is over in `ASK_SECONDS`.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from jetcamer.cli.doctor.time_limit import TimeLimit
from jetcamer.net.endpoint import ClientTrust, Proxy, WebSocketURL, tcp_endpoint
from jetcamer.net.proxy import Tunnel
from jetcamer.net.response import HeadReader, http_date

ASK_SECONDS = 2.0


async def ask_time(
    reactor: Any, target: WebSocketURL, trust: ClientTrust, proxy: Proxy | None, limit: TimeLimit
) -> float | None:
    """Unix seconds by the clock of the server, a moment ago; None where it does not tell."""
    asking = _Asking(target.authority)
    towards = proxy or target
    try:
        factory = _Way(asking, target, trust, proxy, reactor)
    except (OSError, SSL.Error):
        return None
    endpoint = tcp_endpoint(reactor, towards.host, towards.port, ASK_SECONDS + 1)
    connecting = endpoint.connect(factory)
    connecting.addErrback(asking.end)
    try:
        return await limit.within(ASK_SECONDS, asking.date)
    except TimeoutError:
        return None
    finally:
        connecting.cancel()
        factory.leave()


class _Way(Factory):
    """Makes the one connection: through the proxy, then TLS, as far as they are wanted."""

    noisy = False

    def __init__(
        self,
        asking: _Asking,
        target: WebSocketURL,
        trust: ClientTrust,
        proxy: Proxy | None,
        reactor: Any,
    ) -> None:
        self._target = target
        self._proxy = proxy
        self._asking = asking
        self._outermost: Any = None
        self._inner: IProtocolFactory = Factory.forProtocol(lambda: asking)
        if target.secure:
            creator = trust.connection_creator(target.host)
            self._inner = TLSMemoryBIOFactory(creator, True, self._inner, clock=reactor)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        assert addr is not None
        protocol: IProtocol | None = self._inner.buildProtocol(addr)
        assert protocol is not None
        if self._proxy is not None:
            end = self._asking.end
            protocol = Tunnel(self._proxy, self._target.authority, protocol, end, end)
        self._outermost = protocol
        return protocol

    def leave(self) -> None:
        if self._outermost is not None and self._outermost.transport is not None:
            self._outermost.transport.abortConnection()


class _Asking(Protocol):
    """Sends the request and reads the ``Date`` of the answer."""

    def __init__(self, authority: str) -> None:
        self.date: Deferred[float | None] = Deferred()
        self._authority = authority
        self._reader = HeadReader()

    def connectionMade(self) -> None:
        assert self.transport is not None
        # Node's server leaves a request unanswered that nobody in the program handles, but for one
        # with an expectation that is unknown (RFC 9110 §10.1.1); others answer or pass over it.
        lines = ("GET / HTTP/1.1", f"Host: {self._authority}", "Expect: date", "Connection: close")
        self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        if self.date.called:
            return
        try:
            head = self._reader.feed(data)
        except ValueError:
            self.end()
            return
        if head is not None:
            self.date.callback(http_date(head.headers.get("date")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.end()

    def end(self, *reason: object) -> None:
        """There will be no answer."""
        if not self.date.called:
            self.date.callback(None)
