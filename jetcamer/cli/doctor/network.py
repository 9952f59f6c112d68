"""The way from this machine to an open WebSocket, step by step.

In: a URL, the configuration's trust, perhaps a proxy. Out: rows for name lookup, TCP, proxy, TLS
and upgrade, and the server's time. The connection that is opened is the agent's own kind; nothing
is sent over it, and it is closed with 1000. It must never authenticate: the server would give the
running agent's place to it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet import error
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IResolutionReceiver
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.cli.doctor.advice import advice
from jetcamer.cli.doctor.report import Findings
from jetcamer.cli.doctor.time_limit import TimeLimit
from jetcamer.net.endpoint import (
    ClientTrust,
    ConnectFailed,
    Proxy,
    WebSocketEndpoint,
    WebSocketURL,
    tcp_endpoint,
)
from jetcamer.net.errors import printable
from jetcamer.net.url import is_ip, join_authority
from jetcamer.net.websocket import Disconnected, WebSocketConnection

#: Seconds for one step, if the examination as a whole has as many left.
DNS_SECONDS, TCP_SECONDS, OPEN_SECONDS = 4.0, 4.0, 8.0

#: A server that turns everybody away after the upgrade does so within this. Seconds.
LINGER_SECONDS = 0.3

#: A certificate with fewer days to go deserves a word. Days.
RENEW_DAYS = 14


async def look_up(
    reactor: Any, findings: Findings, towards: WebSocketURL | Proxy, limit: TimeLimit
) -> list[str]:
    """The addresses of a server or proxy, and the row ``dns``."""
    host, port = towards.host, towards.port
    if is_ip(host):
        findings.skip("dns", f"{host} is an address")
        return [host]
    receiver = _Addresses()
    reactor.nameResolver.resolveHostName(receiver, host, port)
    try:
        addresses = await limit.within(DNS_SECONDS, receiver.complete)
    except TimeoutError as late:
        findings.fail(
            "dns", f"{_whose(towards)}{host}: {late}", "this machine's name servers do not answer"
        )
        return []
    if not addresses:
        words = f"{_whose(towards)}name not found: {host}"
        findings.fail("dns", words, advice(words))
        return []
    findings.ok("dns", f"{host} is {', '.join(addresses)}")
    return addresses


def _whose(towards: WebSocketURL | Proxy) -> str:
    """Begins the words for what fails on the way to a proxy, as `WebSocketEndpoint` does."""
    return f"proxy {towards.authority}: " if isinstance(towards, Proxy) else ""


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects what the resolver finds, each address once."""

    def __init__(self) -> None:
        self.complete: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: object) -> None: ...

    def addressResolved(self, address: Any) -> None:
        if address.host not in self._found:
            self._found.append(address.host)

    def resolutionComplete(self) -> None:
        if not self.complete.called:
            self.complete.callback(self._found)


async def connect_tcp(
    reactor: Any,
    findings: Findings,
    addresses: Sequence[str],
    towards: WebSocketURL | Proxy,
    limit: TimeLimit,
) -> bool:
    """Whether an address accepts a connection; one row ``tcp`` for each address."""
    seconds = limit.share(TCP_SECONDS)
    port = towards.port
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False

    async def attempt(address: str) -> float:
        begun = reactor.seconds()
        protocol: Any = await tcp_endpoint(reactor, address, port, seconds).connect(factory)
        protocol.transport.loseConnection()
        return float(reactor.seconds() - begun)

    attempts = [Deferred.fromCoroutine(attempt(address)) for address in addresses]
    results: list[tuple[bool, Any]] = await DeferredList(attempts, consumeErrors=True)
    reached = any(success for success, _ in results)
    for address, (success, result) in zip(addresses, results, strict=True):
        where = join_authority(address, port)
        if success:
            findings.ok("tcp", f"{where} accepts ({result * 1000:.0f} ms)")
            continue
        words = _whose(towards) + _tcp_words(where, result, seconds)
        if reached:
            findings.warn("tcp", words, "the other addresses work; each attempt may lose time here")
        else:
            findings.fail("tcp", words, advice(words))
    return reached


def _tcp_words(where: str, failure: Failure, seconds: float) -> str:
    if failure.check(error.ConnectionRefusedError):
        return f"connection refused by {where}"
    if failure.check(error.TimeoutError, error.TCPTimedOutError):
        return f"no answer from {where} within {seconds:.3g} s"
    number = getattr(failure.value, "osError", None)
    said = os.strerror(number) if isinstance(number, int) else str(failure.value)
    return f"{where} is unreachable ({printable(said)})"


async def open_websocket(
    reactor: Any,
    findings: Findings,
    url: str,
    trust: WatchedTrust,
    proxy: Proxy | None,
    limit: TimeLimit,
) -> float | None:
    """Open and close a WebSocket; rows ``proxy``, ``tls`` and ``websocket``.

    :returns: the Unix time by the server's clock, a moment ago, if it told.
    """
    target = WebSocketURL.parse(url)
    endpoint = WebSocketEndpoint(
        reactor, url, trust=trust, proxy=proxy, timeout=limit.share(OPEN_SECONDS)
    )
    try:
        visit = await endpoint.connect(_Visit)
    except ConnectFailed as failed:
        _tell_failure(findings, failed, target, trust, proxy)
        return None
    _tell_ways(findings, target, trust, proxy)
    timer = reactor.callLater(LINGER_SECONDS, visit.leave)
    ended = await visit.ended  # the connection has a deadline of its own for closing
    if timer.active():
        timer.cancel()
    if ended.by_peer:
        words = f"the server upgrades, and closes at once ({ended.words})"
        findings.warn("websocket", words, advice(ended.words))
    else:
        findings.ok("websocket", f"{target.resource} answers with an upgrade, and closes cleanly")
    return visit.connection.server_date


def _tell_failure(
    findings: Findings,
    failed: ConnectFailed,
    target: WebSocketURL,
    trust: WatchedTrust,
    proxy: Proxy | None,
) -> None:
    """Rows for an attempt: well as far as it came, failed there, skipped from then on."""
    words = str(failed)
    if failed.phase == "WebSocket upgrade":
        _tell_ways(findings, target, trust, proxy)
        findings.fail("websocket", words, advice(words))
    elif failed.phase == "TLS handshake" or failed.kind == "tls":
        _tell_proxy(findings, proxy)
        findings.fail("tls", words.removeprefix("TLS: "), _tls_advice(words, target, trust))
        findings.skip("websocket", "there is no TLS connection")
    else:
        findings.fail("websocket" if proxy is None else "proxy", words, advice(words))
        if proxy is not None:
            findings.skip("tls", "the proxy lets nothing through")
            findings.skip("websocket", "the proxy lets nothing through")


def _tell_ways(
    findings: Findings, target: WebSocketURL, trust: WatchedTrust, proxy: Proxy | None
) -> None:
    """Rows for a proxy and a TLS handshake that did their part."""
    _tell_proxy(findings, proxy)
    if not target.secure:
        findings.skip("tls", "the URL begins with ws://: nothing is encrypted")
    elif trust.connection is not None:
        _tell_certificate(findings, trust.connection)


def _tell_proxy(findings: Findings, proxy: Proxy | None) -> None:
    if proxy is not None:
        findings.ok("proxy", f"{proxy.authority} lets us through")


def _tls_advice(words: str, target: WebSocketURL, trust: ClientTrust) -> str:
    """`advice`, with the very name that the certificate lacks."""
    wanted = trust.server_name or target.host
    san = f"the IP SAN {wanted}" if is_ip(wanted) else f"the DNS SAN {wanted}"
    if "names no host" in words:
        return f"issue the certificate with {san}: it has no SAN at all"
    if "not valid for" in words:
        return f"issue the certificate with {san}, or set wsServerName to a name that it carries"
    return advice(words)


def _tell_certificate(findings: Findings, connection: SSL.Connection) -> None:
    pyopenssl = connection.get_peer_certificate()
    assert pyopenssl is not None
    certificate = pyopenssl.to_cryptography()
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    words = (
        f"{connection.get_protocol_version_name()}; the certificate of "
        f"{_name(certificate.subject)} for {_names(certificate)}, issued by "
        f"{_name(certificate.issuer)}, is good for {days} days"
    )
    if days < RENEW_DAYS:
        findings.warn("tls", words, "renew the server's certificate in time")
    else:
        findings.ok("tls", words)


def _name(name: x509.Name) -> str:
    return printable(name.rfc4514_string(), 120) or "(no name)"


def _names(certificate: x509.Certificate) -> str:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    names = [
        *(f"DNS:{name}" for name in found.get_values_for_type(x509.DNSName)),
        *(f"IP:{address}" for address in found.get_values_for_type(x509.IPAddress)),
    ]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return printable(", ".join(names[:10]), 400) + more


class WatchedTrust(ClientTrust):
    """The agent's trust, and the last TLS connection that was made with it."""

    connection: SSL.Connection | None = None

    def connection_creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        creator: IOpenSSLClientConnectionCreator = _WatchedCreator(
            self, super().connection_creator(host)
        )
        return creator


@implementer(IOpenSSLClientConnectionCreator)
class _WatchedCreator:
    def __init__(self, trust: WatchedTrust, creator: IOpenSSLClientConnectionCreator) -> None:
        self._trust = trust
        self._creator = creator

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        self._trust.connection = connection
        return connection


class _Visit:
    """The receiver of a connection that says nothing and leaves."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection
        self.ended: Deferred[Disconnected] = Deferred()

    def leave(self) -> None:
        self.connection.close(1000, "jetcamer doctor")

    def message_received(self, data: bytes) -> None:
        """A server may greet; that is no affair of ours."""

    def closing(self) -> None:
        """Nothing was to be sent anyway."""

    def disconnected(self, reason: Disconnected) -> None:
        if not self.ended.called:
            self.ended.callback(reason)
