"""A connection and the time: from its deadline for the upgrade to its last two seconds.

In: that something was received, that a phase began, and the calls of `Deadlines`. Out: pings, and
the end of a connection that is late, silent or half open. It looks at nothing that was said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetcamer.hub.autobahn_server import AutobahnServerProtocol
from jetcamer.protocol.close_codes import GOING_AWAY

if TYPE_CHECKING:
    from jetcamer.hub.session import AgentSession
    from jetcamer.hub.websocket import AgentWebSocketFactory

#: The states of a WebSocket, in Autobahn's numbers.
CONNECTING: int = AutobahnServerProtocol.STATE_CONNECTING
OPEN: int = AutobahnServerProtocol.STATE_OPEN
CLOSING: int = AutobahnServerProtocol.STATE_CLOSING
CLOSED: int = AutobahnServerProtocol.STATE_CLOSED

#: How long an agent may take to answer our close frame, and a connection that we have let go of
#: to go. Seconds.
_CLOSING = 2.0
_LINGER = 2.0

#: When a connection was heard is known to the second.
_GRAIN = 1.0

_PING = b"\x89\x00"
_NEVER = float("inf")


class TimedWebSocket(AutobahnServerProtocol):
    """The state of a connection, and what each state must come to in time."""

    __slots__ = (
        "_deadline",  # when the phase ends: handshake, auth, closing, lingering
        "_heard",  # when bytes last came
        "_pinged",
        "session",
        "slot",
        "state",
    )

    factory: AgentWebSocketFactory
    session: AgentSession | None
    slot: int | None
    state: int
    _deadline: float
    _heard: float
    _pinged: float

    def __init__(self) -> None:
        super().__init__()
        self.state = CONNECTING
        self.session = None
        self.slot = None
        self._heard = self._pinged = 0.0

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        begins = self.state == OPEN
        super().sendCloseFrame(code, reasonUtf8, isReply)
        if begins:
            self._phase(_CLOSING)

    def _closeConnection(self, abort: bool = False) -> None:
        """Let the transport go, and see to it that it goes: a peer that reads nothing more, or
        never answers the end of TLS, would keep it for ever."""
        super()._closeConnection(abort)
        if not abort:
            self._phase(_LINGER)

    def _opened(self) -> None:
        factory, limits = self.factory, self.factory.limits
        now = self._pinged = factory.clock.seconds()
        self._deadline = now + limits.auth_timeout
        factory.deadlines.watch(self, self._next_look())

    def _phase(self, seconds: float) -> None:
        """What comes next must have come within `seconds`."""
        self._deadline = self.factory.clock.seconds() + seconds
        self.factory.deadlines.watch(self, self._deadline)

    def deadline_reached(self, now: int) -> float | None:
        if self.state == OPEN:
            return self._look(now)
        if self.state == CLOSED:
            self.transport.abortConnection()
        elif self.state == CLOSING:
            self._drop("the agent did not answer the close in time")
        else:
            self._drop("the upgrade did not come in time")
        return None

    def _look(self, now: int) -> float | None:
        """Whether an open connection still lives; returns when to look again."""
        session, limits = self.session, self.factory.limits
        if session is None:
            return None
        if now >= self._deadline:
            self._deadline = _NEVER
            if session.agent_id is None:
                session.auth_overdue()
        if self.state == OPEN and now - self._heard >= limits.idle_timeout + _GRAIN:
            session.close(GOING_AWAY, "idle_timeout")
        if self.state != OPEN:
            return None
        if 0 < limits.ping_interval <= now - self._pinged:
            self._pinged = now
            self.sendData(_PING)
        return self._next_look()

    def _next_look(self) -> float:
        limits = self.factory.limits
        idle = self._heard + limits.idle_timeout + _GRAIN
        next_ping = self._pinged + limits.ping_interval if limits.ping_interval else _NEVER
        return min(self._deadline, idle, next_ping)

    def _drop(self, why: str) -> None:
        self.wasNotCleanReason = why
        self.dropConnection(abort=True)
