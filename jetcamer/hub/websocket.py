"""What all agents' connections share: the limits, who may come in, the counters, and the end.

In: connections as a port accepts them. Out: one `AgentWebSocket` for each, and refusals for those
that may not upgrade. It keeps what would otherwise be kept thousands of times.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from jetcamer.hub.admission import Admission, ClientAddress, Offenders
from jetcamer.hub.agent_websocket import AgentWebSocket
from jetcamer.hub.autobahn_server import Traffic
from jetcamer.hub.deadlines import Deadlines
from jetcamer.hub.frames import LONGEST
from jetcamer.hub.handshake import Refusal, Upgrade, try_later
from jetcamer.hub.session import AgentSession, Connection
from jetcamer.protocol.envelope import MAX_MESSAGE

__all__ = ["DEFAULT_LIMITS", "AgentWebSocket", "AgentWebSocketFactory", "Limits"]

_log = Logger()

#: WebSocket close code (the IANA registry).
SERVICE_RESTART = 1012

#: The one path there is.
PATH = "/agent"

#: Those sent away at one moment, at least, and how long until the next. Seconds.
_FEWEST_SENT_AWAY = 10
_STEP = 0.05

#: When to come again to a hub that is starting. Seconds.
_SOON = 2.0

#: Refusals that are logged one by one in a second; the rest are counted.
_MOST_LOGGED = 10


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may cost. Seconds, kept to the next whole one, and bytes."""

    max_message: int = MAX_MESSAGE
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


#: Limits for the field.
DEFAULT_LIMITS = Limits()


class AgentWebSocketFactory(ServerFactory):
    """Makes `AgentWebSocket`s.

    :param make_session: called once for each WebSocket that is open.
    :param admission: how many may come in a second; None: any number.
    :param offenders: who may not come at all for a time; None: nobody is turned away.
    """

    protocol = AgentWebSocket  # type: ignore[assignment]
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
        self.max_message = limits.max_message
        self.longest_text_frame = min(LONGEST, limits.max_message)
        self.deadlines = Deadlines(clock)
        self.traffic = Traffic()
        #: New ones are told to come later: it is not ready yet, or no more.
        self.held = False
        self.draining = False
        self.connections: set[AgentWebSocket] = set()
        #: WebSockets opened, and requests refused by status, since the start.
        self.handshakes = 0
        self.handshakes_refused: dict[int, int] = {}
        self._admission = admission
        self._offenders = offenders
        self._client_address = ClientAddress(limits.trusted_proxies)
        self._waiting_for_drain: list[Deferred[None]] = []
        self._sending_away: IDelayedCall | None = None
        self._log_second = 0.0
        self._logged = self._not_logged = 0

    # Who may come in.

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
        if self._log_second != self.deadlines.now:
            if self._not_logged:
                _log.info("[hub] {count} more upgrades refused", count=self._not_logged)
            self._log_second = self.deadlines.now
            self._logged = self._not_logged = 0
        if self._logged < _MOST_LOGGED:
            self._logged += 1
            _log.info(
                "[hub] no upgrade for {peer}: {status} {words}",
                peer=peer,
                status=status,
                words=refusal.words,
            )
        else:
            self._not_logged += 1

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
        if self.connections:
            return
        if self._sending_away is not None:
            self._sending_away.cancel()
            self._sending_away = None
        waiters, self._waiting_for_drain = self._waiting_for_drain, []
        for waiter in waiters:
            waiter.callback(None)
