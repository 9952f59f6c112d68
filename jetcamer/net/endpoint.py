"""One attempt to reach a WebSocket server: either it is usable, or the words say why not.

In: a URL, whom to trust, perhaps a proxy. Out: the receiver that was made for the open connection,
or `ConnectFailed`. One deadline covers name lookup, TCP, proxy, TLS and upgrade together. Nothing
stays behind: when an attempt has failed its socket is closed and its timers are gone, and one that
was cancelled leaves only a socket that closes in the reactor's next turn.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer import __version__
from jetcamer.net.client_protocol import ClientFactory, ClientProtocol
from jetcamer.net.errors import ConnectFailed, Kind, Phase, printable
from jetcamer.net.proxy import Proxy, Tunnel, proxy_from_environment
from jetcamer.net.timers import Timer
from jetcamer.net.tls import ClientTrust, TLSFailed, explain
from jetcamer.net.url import WebSocketURL, is_ip
from jetcamer.net.websocket import Liveness, MessageReceiver, WebSocketConnection

__all__ = [
    "ClientTrust",
    "ConnectFailed",
    "Proxy",
    "WebSocketEndpoint",
    "WebSocketURL",
    "proxy_from_environment",
    "tcp_endpoint",
]

#: Seconds before the next address of a name is tried as well (RFC 8305 §8).
ATTEMPT_DELAY = 0.25

R = TypeVar("R", bound=MessageReceiver)

_UNREACHABLE = frozenset(
    {
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EACCES,  # a local firewall
        errno.EPERM,
    }
)


class WebSocketEndpoint:
    """Where a WebSocket server is, and how to get there.

    :param reactor: connects, looks names up and keeps the time.
    :param url: ``ws://`` or ``wss://``.
    :param trust: whose certificates are accepted; it is for ``wss`` only.
    :param timeout: seconds for the whole of an attempt.
    :param ping_interval: seconds between pings on the open connection.
    :param pong_timeout: seconds until a ping without its pong ends the connection.
    :param max_message: bytes; a longer message ends the connection with code 1009.
    :raises ValueError: `url` is not such a URL; one line.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        *,
        trust: ClientTrust,
        proxy: Proxy | None = None,
        timeout: float = 10.0,
        ping_interval: float = 20.0,
        pong_timeout: float = 10.0,
        max_message: int = 1 << 20,
        user_agent: str = f"JetCamer/{__version__}",
    ) -> None:
        self.url = WebSocketURL.parse(url)
        self.proxy = proxy
        self.timeout = timeout
        self.liveness = Liveness(ping_interval, pong_timeout)
        self.max_message = max_message
        self.user_agent = user_agent
        self.reactor = reactor
        self._trust = trust

    def connect(self, make_receiver: Callable[[WebSocketConnection], R]) -> Deferred[R]:
        """Try once; fires with what `make_receiver` made when the WebSocket was open.

        Fails with `ConnectFailed`, or with whatever `make_receiver` raised. Cancelling it gives
        the attempt up.
        """
        return _Attempt(self, make_receiver).start()

    def connection_creator(self) -> IOpenSSLClientConnectionCreator | None:
        """What starts TLS with this server; None for ``ws``."""
        return self._trust.connection_creator(self.url.host) if self.url.secure else None


def tcp_endpoint(reactor: Any, host: str, port: int, timeout: float) -> IStreamClientEndpoint:
    """TCP to a name, at all its addresses of both families, or to an IP address.

    An address goes past the name resolver, which would start a thread for it.
    """
    if not is_ip(host):
        return HostnameEndpoint(reactor, host, port, timeout=timeout, attemptDelay=ATTEMPT_DELAY)
    if ":" in host:
        return TCP6ClientEndpoint(reactor, host, port, timeout=timeout)
    return TCP4ClientEndpoint(reactor, host, port, timeout=timeout)


@implementer(IProtocolFactory)
class _Attempt(Generic[R]):
    """One call of `connect`: the factory of its protocols, and their `Opening`."""

    noisy = False

    def __init__(
        self, endpoint: WebSocketEndpoint, make_receiver: Callable[[WebSocketConnection], R]
    ) -> None:
        self._endpoint = endpoint
        self._make_receiver = make_receiver
        self._result: Deferred[R] = Deferred(self._cancelled)
        self._phase: Phase = "name lookup"
        self._failure: Failure | None = None
        self._open = False
        self._creator: IOpenSSLClientConnectionCreator | None = None
        self._deadline = Timer(endpoint.reactor)
        self._connecting: Deferred[IProtocol] | None = None
        self._outermost: Protocol | None = None

    def start(self) -> Deferred[R]:
        endpoint, reactor = self._endpoint, self._endpoint.reactor
        try:
            self._creator = endpoint.connection_creator()
        except (OSError, SSL.Error) as problem:
            words = f"TLS: the trusted certificates cannot be loaded ({printable(str(problem))})"
            self._fail(words, "tls")
            return self._result
        self._deadline.start(endpoint.timeout, self._too_late)
        towards = endpoint.proxy or endpoint.url
        # One second more than the deadline, which has the better words.
        tcp = tcp_endpoint(reactor, towards.host, towards.port, endpoint.timeout + 1)
        self._connecting = maybeDeferred(tcp.connect, self)
        self._connecting.addErrback(self._not_connected)
        return self._result

    # IProtocolFactory

    def doStart(self) -> None:
        self._phase = "TCP connect"

    def doStop(self) -> None:
        pass

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        endpoint = self._endpoint
        make_protocol = partial(
            ClientProtocol,
            endpoint.url,
            self,
            endpoint.reactor,
            endpoint.liveness,
            endpoint.max_message,
        )
        factory: IProtocolFactory = ClientFactory(
            make_protocol, endpoint.reactor, endpoint.max_message, endpoint.user_agent
        )
        if self._creator is not None:
            factory = TLSMemoryBIOFactory(self._creator, True, factory, clock=endpoint.reactor)
        protocol = factory.buildProtocol(addr)
        assert protocol is not None
        if endpoint.proxy is not None:
            self._phase = "proxy CONNECT"
            authority = endpoint.url.authority
            protocol = Tunnel(endpoint.proxy, authority, protocol, self.refused, self.lost)
        assert isinstance(protocol, Protocol)
        self._outermost = protocol
        return protocol

    # Opening

    def connected(self) -> None:
        self._phase = "TLS handshake" if self._creator is not None else "WebSocket upgrade"

    def secured(self) -> None:
        self._phase = "WebSocket upgrade"

    def opened(self, connection: WebSocketConnection) -> None:
        if self._failure is not None:
            connection.abort()
            return
        self._open = True
        self._deadline.stop()
        server, proxy = self._endpoint.url, self._endpoint.proxy
        if proxy is not None:
            connection.peer = f"{server.authority} (through the proxy {proxy.authority})"
        try:
            receiver = self._make_receiver(connection)
        except Exception:
            connection.abort()
            self._result.errback(Failure())
            return
        connection.attach(receiver)
        if self._result.called:  # cancelled by the maker itself
            connection.abort()
        else:
            self._result.callback(receiver)

    def refused(self, error: ConnectFailed) -> None:
        self._give_up(error)

    def lost(self, reason: Failure) -> None:
        if self._failure is None:
            if isinstance(reason.value, SSL.Error):
                known = isinstance(reason.value, TLSFailed)
                words = str(reason.value) if known else explain(reason.value)
                self._failure = self._describe(f"TLS: {words}", "tls")
            else:
                self._failure = self._describe(*self._closed_words(reason))
        self._finish()

    # Ways to fail

    def _cancelled(self, result: Deferred[R]) -> None:
        self._give_up(CancelledError())

    def _too_late(self) -> None:
        words = f"no answer to the {self._phase} within {self._endpoint.timeout:g} s"
        self._give_up(self._error(self._by_proxy(words), "timeout"))

    def _not_connected(self, failure: Failure) -> None:
        if self._failure is None:
            self._failure = self._describe(*self._tcp_words(failure))
            self._finish()

    def _fail(self, words: str, kind: Kind) -> None:
        self._give_up(self._error(words, kind))

    def _give_up(self, problem: Exception) -> None:
        """Take down what stands; `_finish` comes when it is down."""
        if self._failure is not None or self._open:
            return
        self._failure = Failure(problem)
        self._deadline.stop()
        if self._outermost is not None and self._outermost.transport is not None:
            self._outermost.transport.abortConnection()  # type: ignore[attr-defined]
            return  # `lost` comes
        if self._connecting is not None:
            self._connecting.cancel()  # which says so before its socket is closed
        self._finish()

    def _finish(self) -> None:
        self._deadline.stop()
        assert self._failure is not None
        if not self._result.called:
            self._result.errback(self._failure)

    # Words

    def _error(self, words: str, kind: Kind) -> ConnectFailed:
        return ConnectFailed(words, kind=kind, phase=self._phase)

    def _describe(self, words: str, kind: Kind) -> Failure:
        return Failure(self._error(words, kind))

    def _by_proxy(self, words: str) -> str:
        """Says so where it is the proxy that did not let us through."""
        proxy = self._endpoint.proxy
        if proxy is None or self._phase in ("TLS handshake", "WebSocket upgrade"):
            return words
        return f"proxy {proxy.authority}: {words}"

    def _closed_words(self, reason: Failure) -> tuple[str, Kind]:
        done = isinstance(reason.value, error.ConnectionDone)
        what = "closed" if done else "broken off"
        words = f"the connection was {what} during the {self._phase}"
        return self._by_proxy(words), "proxy" if self._phase == "proxy CONNECT" else "closed"

    def _tcp_words(self, failure: Failure) -> tuple[str, Kind]:
        towards = self._endpoint.proxy or self._endpoint.url
        problem = failure.value
        kind: Kind = "unreachable"
        if failure.check(error.DNSLookupError):
            words, kind = f"name not found: {towards.host}", "dns"
        elif failure.check(error.ConnectionRefusedError):
            words, kind = f"connection refused by {towards.authority}", "refused"
        elif failure.check(error.TimeoutError, error.TCPTimedOutError):
            words, kind = f"no answer to the TCP connect to {towards.authority}", "timeout"
        else:
            number = getattr(problem, "osError", None)
            what = "unreachable" if number in _UNREACHABLE else "not reached"
            said = errno_words(number) or printable(str(problem), 120)
            words = f"{towards.authority} is {what} ({said})"
        if self._endpoint.proxy is not None and kind != "timeout":
            kind = "proxy"
        return self._by_proxy(words), kind


def errno_words(number: object) -> str:
    """``Network is unreachable`` and its like; empty for what is no error number."""
    import os

    return os.strerror(number) if isinstance(number, int) else ""
