"""What all agents' connections share: the limits, who may come in, the counters, and the end.

In: connections as a port accepts them. Out: one `AgentWebSocket` for each, and refusals for those
that may not upgrade. Who costs too much is turned away without an answer, before anything is spent
on it. It keeps what would otherwise be kept thousands of times.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from jetcamer.hub.admission import (
    UNIX,
    Admission,
    ClientAddress,
    Offenders,
    network_of,
    plain_address,
)
from jetcamer.hub.agent_websocket import AgentWebSocket
from jetcamer.hub.autobahn_server import Traffic
from jetcamer.hub.deadlines import Deadlines
from jetcamer.hub.handshake import Refusal, Upgrade, try_later
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import Connection
from jetcamer.hub.strangers import Strangers
from jetcamer.net.log_limit import LogLimit
from jetcamer.protocol.close_codes import SERVICE_RESTART
from jetcamer.protocol.envelope import MAX_MESSAGE

__all__ = ["DEFAULT_LIMITS", "AgentWebSocket", "AgentWebSocketFactory", "Limits"]

_log = Logger()

#: The one path there is.
PATH = "/agent"

#: Those sent away at one moment, at least, and how long until the next. Seconds.
_FEWEST_SENT_AWAY = 10
_STEP = 0.05

#: When to come again to a hub that is starting. Seconds.
_SOON = 2.0

#: Who is turned away without an answer is said once in so long; the rest are counted. Seconds.
_TURNED_AWAY_SAID = 60.0

#: Files the hub needs beside its connections: the store's, the operators'.
_OTHER_FILES = 200

#: For `handshakes_refused`: turned away without an answer.
NO_ANSWER = 0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may cost. Seconds, kept to the next whole one, and bytes."""

    max_message: int = MAX_MESSAGE
    #: Before the agent has authenticated. An `auth` is of some hundred bytes.
    max_first_message: int = 16 * 1024
    #: 0: no pings.
    ping_interval: float = 25.0
    #: Nothing at all came, not even the answer to a ping. A peer that is there answers three.
    idle_timeout: float = 75.0
    #: TCP, TLS and the upgrade together.
    handshake_timeout: float = 10.0
    auth_timeout: float = 30.0
    #: What may wait for an agent that does not read. One message more may be on its way.
    max_unsent: int = 256 * 1024
    #: Over which open connections are sent away at the end.
    drain_seconds: float = 3.0
    #: IP addresses and networks whose `X-Forwarded-For` is believed.
    trusted_proxies: tuple[str, ...] = ()
    #: Connections that have not authenticated, in all and of one address (of one IPv6 network of
    #: 64 bits). The second is that of a site that comes back as a whole, and does not hold for
    #: `trusted_proxies` and Unix sockets. One more, and the oldest of them that has had its time
    #: gives way; where there is none, the new one is turned away.
    unauthenticated: int = 5_000
    unauthenticated_per_address: int = 1_000
    #: Of all kinds. None: as many as there may be files open, less some for all the rest.
    max_connections: int | None = None


#: Limits for the field.
DEFAULT_LIMITS = Limits()


class AgentWebSocketFactory(ServerFactory):
    """Makes `AgentWebSocket`s.

    :param make_session: called once for each WebSocket that is open.
    :param admission: how many may come in a second; None: any number.
    :param offenders: who may not come at all for a time; None: nobody is turned away.
    """

    noisy = False
    isServer = True  # Autobahn asks

    def __init__(
        self,
        clock: IReactorTime,
        make_session: Callable[[Connection], AgentSession],
        limits: Limits,
        *,
        admission: Admission | None = None,
        offenders: Offenders | None = None,
    ) -> None:
        self.clock = clock
        self.make_session = make_session
        self.limits = limits
        self.max_first_message = min(limits.max_first_message, limits.max_message)
        self.deadlines = Deadlines(clock)
        self.traffic = Traffic()
        #: New ones are told to come later: it is not ready yet, or no more.
        self.held = False
        self.draining = False
        self.connections: set[AgentWebSocket] = set()
        self.strangers = Strangers(
            clock, most=limits.unauthenticated, per_address=limits.unauthenticated_per_address
        )
        #: WebSockets opened, and requests refused by status (or `NO_ANSWER`), since the start.
        self.handshakes = 0
        self.handshakes_refused: dict[int, int] = {}
        self._admission = admission
        self._offenders = offenders
        self._client_address = ClientAddress(limits.trusted_proxies)
        self._waiting_for_drain: list[Deferred[None]] = []
        self._sending_away: IDelayedCall | None = None
        self._max_connections = limits.max_connections
        self._refused_log = LogLimit(clock, _say_refused)
        self._turned_away_log = LogLimit(clock, _say_turned_away, most=1, seconds=_TURNED_AWAY_SAID)

    # IProtocolFactory

    def startFactory(self) -> None:
        if self.limits.max_connections is None:
            soft, _ = getrlimit(RLIMIT_NOFILE)
            self._max_connections = (
                None if soft == RLIM_INFINITY else max(soft - _OTHER_FILES, soft // 2)
            )

    def stopFactory(self) -> None:
        self._refused_log.stop()
        self._turned_away_log.stop()

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> AgentWebSocket | None:
        host = _host(addr)
        why = self._why_not(host)
        if why is not None:
            self.turned_away(host, why)
            return None
        connection = AgentWebSocket()
        connection.factory = self
        return connection

    # Who may come in.

    def _why_not(self, host: str) -> str | None:
        """Why a connection of `host` may not even be read from; None: it may."""
        most = self._max_connections
        if most is not None and len(self.connections) >= most and not self.strangers.make_room():
            return "too many connections"
        return self.strangers.why_not(self._counted_address(host))

    def _counted_address(self, host: str) -> str | None:
        """Whose connections are counted together; None for who speaks for many."""
        if host == UNIX or self._client_address.is_trusted(host):
            return None
        return network_of(host)

    def is_banned(self, addr: IAddress | None) -> bool:
        """Whether a connection from there would only be told so; it is counted as turned away."""
        host = _host(addr)
        if self._offenders is None or not self._offenders.banned_for(host):
            return False
        if self._client_address.is_trusted(host):
            return False
        self.turned_away(host, "banned")
        return True

    def turned_away(self, host: str, words: str) -> None:
        refused = self.handshakes_refused
        refused[NO_ANSWER] = refused.get(NO_ANSWER, 0) + 1
        if self._turned_away_log.admits():
            _log.warn("[hub] turned away {host}: {words}", host=host, words=words)

    def joined(self, connection: AgentWebSocket) -> None:
        self.connections.add(connection)
        self.strangers.came(connection, self._counted_address(connection.host))

    def admit(self, host: str, request: Upgrade) -> str | Refusal:
        """The client's address, for a request that may become a WebSocket now.

        :param host: the transport's peer.
        """
        if self.draining:
            return try_later(503, "draining", self.limits.drain_seconds)
        if self.held:
            return try_later(503, "starting", _SOON)
        if request.path != PATH:
            return Refusal(404, "another path")
        address = self._client_address.of(host, request.forwarded_for)
        if self._offenders is not None:
            banned_for = self._offenders.banned_for(address)
            if banned_for > 0.0:
                return try_later(429, "banned", banned_for)
        if self._admission is not None:
            wait = self._admission.admit()
            if wait is not None:
                return try_later(503, "too many at once", wait)
        self.handshakes += 1
        return address

    def refused(self, peer: str, refusal: Refusal) -> None:
        """Count it, and say so, but not in a line for each of a storm."""
        status = refusal.status
        self.handshakes_refused[status] = self.handshakes_refused.get(status, 0) + 1
        if self._refused_log.admits():
            _log.info(
                "[hub] no upgrade for {peer}: {status} {words}",
                peer=peer,
                status=status,
                words=refusal.words,
            )

    # The end.

    def drain(self) -> Deferred[None]:
        """Tell every agent to come back (1012), a few at a time, and take no new one.

        Fires when the last connection is gone, some seconds after `drain_seconds` whatever the
        agents do.
        """
        self.draining = True
        if not self.connections:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting_for_drain.append(waiter)
        if self._sending_away is None:
            waiting = [each for each in self.connections if each.session is not None]
            steps = max(1.0, self.limits.drain_seconds / _STEP)
            self._send_away(waiting, max(_FEWEST_SENT_AWAY, ceil(len(waiting) / steps)))
        return waiter

    def _send_away(self, waiting: list[AgentWebSocket], count: int) -> None:
        self._sending_away = None
        for connection in waiting[:count]:
            if connection.session is not None:
                connection.session.close(SERVICE_RESTART, "service_restart")
        del waiting[:count]
        if waiting:
            self._sending_away = self.clock.callLater(_STEP, self._send_away, waiting, count)
            return
        for connection in list(self.connections):
            if connection.state == connection.STATE_CONNECTING:
                connection.dropConnection(abort=True)

    def forget(self, connection: AgentWebSocket) -> None:
        self.connections.discard(connection)
        self.strangers.left(connection)
        if self.connections:
            return
        if self._sending_away is not None:
            self._sending_away.cancel()
            self._sending_away = None
        waiters, self._waiting_for_drain = self._waiting_for_drain, []
        for waiter in waiters:
            waiter.callback(None)


def _host(addr: Any) -> str:
    host = getattr(addr, "host", None)
    return UNIX if host is None else plain_address(host)


def _say_refused(count: int) -> None:
    _log.info("[hub] {count} more upgrades refused", count=count)


def _say_turned_away(count: int) -> None:
    _log.warn("[hub] {count} more connections turned away", count=count)
