"""TLS for servers with the standard library's `ssl`, as a wrapper of a protocol factory.

In: the connections of a plain endpoint. Out: the same, with TLS between. The same work as
`twisted.protocols.tls` does with pyOpenSSL, at a fraction of the cost; `TLSServerTransport` says
what it holds to.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IAddress, ILoggingContext, IProtocolFactory, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from jetcamer.net.log_limit import LogLimit
from jetcamer.net.tls_transport import TLSServerTransport
from jetcamer.net.transport_relay import log_prefix
from jetcamer.net.url import join_authority

_log = Logger()


@implementer(IProtocolFactory, ILoggingContext)
class TLSServerFactory:
    """Makes the protocols of `wrapped`, each behind TLS.

    :param get_context: called for each connection; gives the context it is served with.
    :param protocols: a client that offers application protocols (ALPN), but none of these, is
        refused; empty: none is.
    """

    noisy = False

    def __init__(
        self,
        wrapped: IProtocolFactory,
        get_context: Callable[[], ssl.SSLContext],
        clock: IReactorTime,
        *,
        protocols: Iterable[str] = (),
    ) -> None:
        self.wrapped = wrapped
        self.get_context = get_context
        self.clock = clock
        self.protocols = frozenset(name.encode("ascii") for name in protocols)
        self._log_limit = LogLimit(clock, _say_rest)

    def doStart(self) -> None:
        self.wrapped.doStart()

    def doStop(self) -> None:
        self._log_limit.stop()
        self.wrapped.doStop()

    def buildProtocol(self, addr: IAddress) -> TLSServerTransport | None:
        protocol = self.wrapped.buildProtocol(addr)
        return None if protocol is None else TLSServerTransport(self, protocol)

    def ended_badly(self, address: Any, words: str, *, shaken: bool) -> None:
        """For the log: a peer whose connection we had to end, before or after the handshake."""
        if not self._log_limit.admits():
            return
        peer = join_authority(address.host, address.port) if hasattr(address, "host") else address
        if shaken:
            _log.info("[tls] the connection of {peer} is ended: {why}", peer=peer, why=words)
        else:
            _log.info("[tls] no TLS with {peer}: {why}", peer=peer, why=words)

    def logPrefix(self) -> str:
        return log_prefix(self.wrapped)


def _say_rest(count: int) -> None:
    _log.info("[tls] {count} more connections ended badly", count=count)
