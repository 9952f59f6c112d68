"""The server's end of one agent's WebSocket: frames in, a session fed, nothing understood.

In: what a transport receives. Out: calls of one `AgentSession` for each WebSocket at `/agent`, and
the frames that the session wants sent. Everything a stranger can make large or slow has a limit
here. It never reads what a message says.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from typing import Any, Protocol, cast

import msgspec
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from txaio import tx
from zope.interface import implementer

from jetcamer.hub.session import AgentSession, Connection
from jetcamer.net.url import join_authority
from jetcamer.protocol.envelope import MAX_MESSAGE

_log = Logger()

#: The one path there is.
PATH = "/agent"

#: WebSocket close codes (RFC 6455, 7.4.1, and the IANA registry).
MESSAGE_TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012

#: A request for an upgrade, its headers included, has no business being longer. Bytes.
_MAX_REQUEST = 16 * 1024

#: Frames of one message. Empty ones weigh nothing on the wire and something here.
_MAX_FRAGMENTS = 16 * 1024

#: How long a connection that we have let go of may take to go. Seconds.
_LINGER = 2.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may cost. Seconds and bytes."""

    max_message: int = MAX_MESSAGE
    ping_interval: float = 25.0
    pong_timeout: float = 10.0
    #: TCP, TLS and the upgrade together.
    handshake_timeout: float = 10.0
    auth_timeout: float = 30.0
    #: What may wait for an agent that does not read.
    max_unsent: int = MAX_MESSAGE


#: Limits for the field.
DEFAULT_LIMITS = Limits()


class _Transport(Protocol):
    def getPeer(self) -> Any: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


@implementer(IPushProducer)
class AgentWebSocket(WebSocketServerProtocol):
    """One connection. Also the producer its transport pauses: who does not read is not read."""

    factory: AgentWebSocketFactory
    #: Autobahn's own voice, less what is said here in better words.
    log = tx.make_logger(level="error")

    session: AgentSession | None = None
    _auth_deadline: IDelayedCall | None = None
    _linger: IDelayedCall | None = None
    _address = "an unknown address"
    _unread = False
    _unsent = 0
    _fragments = 0

    @property
    def _own_transport(self) -> _Transport:
        return cast(_Transport, self.transport)

    # Autobahn's hooks

    def connectionMade(self) -> None:
        address = self._own_transport.getPeer()
        if hasattr(address, "host"):  # not that of a Unix socket
            self._address = join_authority(address.host, address.port)
        super().connectionMade()
        self.factory.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.state == self.STATE_CONNECTING and len(self.data) > _MAX_REQUEST:
            self.data = b""
            self.failHandshake("Request Header Fields Too Large", 431)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        _log.info(
            "[hub] no upgrade for {peer}: {code} {reason}",
            peer=self._address,
            code=code,
            reason=reason,
        )
        super().failHandshake(reason, code, responseHeaders)

    def onConnect(self, request: ConnectionRequest) -> tuple[None, dict[str, str]]:
        if self.factory.draining:
            raise ConnectionDeny(503, "Service Unavailable")
        if request.path != PATH:
            raise ConnectionDeny(404, "Not Found")
        # Agents compare their clock with ours.
        return None, {"Date": formatdate(usegmt=True)}

    def onOpen(self) -> None:
        self.registerProducer(self, True)
        session = self.factory.make_session(_SessionConnection(self))
        self.session = session
        self._auth_deadline = self.factory.clock.callLater(
            self.factory.limits.auth_timeout, session.auth_overdue
        )

    def onMessageBegin(self, isBinary: bool) -> None:
        self._fragments = 0
        super().onMessageBegin(isBinary)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        self._fragments += 1
        if self._fragments > _MAX_FRAGMENTS and not self.failedByMe:
            self._fail_connection(MESSAGE_TOO_BIG, "too many fragments")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        session = self.session
        if session is None:
            return
        try:
            if isBinary:
                session.binary_received()
            else:
                session.message_received(payload)
        except Exception:
            _log.failure("[hub] a message from {peer} could not be handled", peer=self._address)
            session.close(INTERNAL_ERROR, "internal_error")
        if session.agent_id is not None:
            self._cancel_auth_deadline()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self._cancel_auth_deadline()
        session, self.session = self.session, None
        if session is None:
            return
        try:
            session.connection_lost(self._how_it_ended(wasClean, code, reason))
        except Exception:
            _log.failure("[hub] the end of {peer} could not be handled", peer=self._address)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        super().connectionLost(reason)
        self.factory.forget(self)

    def _closeConnection(self, abort: bool = False) -> None:
        """Let the transport go, and see to it that it goes: a peer that reads nothing more, or
        never answers the end of TLS, would keep it for ever."""
        super()._closeConnection(abort)
        if not abort and self._linger is None:
            self._linger = self.factory.clock.callLater(_LINGER, self._abort)

    def _abort(self) -> None:
        self._linger = None
        self._own_transport.abortConnection()

    # What the session asks for

    def send_text(self, data: bytes) -> None:
        if self.state != self.STATE_OPEN:
            return
        if self._unread:
            self._unsent += len(data)
            if self._unsent > self.factory.limits.max_unsent:
                _log.warn(
                    "[hub] {peer} does not read: its connection is dropped", peer=self._address
                )
                self.wasNotCleanReason = "the agent does not read"
                self.dropConnection(abort=True)
                return
        self.sendMessage(data, isBinary=False)

    def close_with(self, code: int, reason: str) -> None:
        # Not sendClose(): it refuses every code but 1000 and the private ones.
        self.sendCloseFrame(code=code, reasonUtf8=reason.encode("utf-8")[:123])

    # IPushProducer: the transport's buffer is full, or has room again

    def pauseProducing(self) -> None:
        # The transport calls this at each write while it is full, not only at the first.
        if not self._unread:
            self._unread, self._unsent = True, 0
            self._own_transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._unread = False
        self._own_transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is going; `connectionLost` follows."""

    def _cancel_auth_deadline(self) -> None:
        if self._auth_deadline is not None and self._auth_deadline.active():
            self._auth_deadline.cancel()
        self._auth_deadline = None

    def _how_it_ended(self, was_clean: bool, code: int | None, reason: str | None) -> str:
        own_code: Any = self.localCloseCode
        own_reason: Any = self.localCloseReason
        if self.closedByMe and own_code is not None:
            words = (own_reason or b"").decode("utf-8", "replace")
            return f"closed by the hub: {own_code} {words}".rstrip()
        if was_clean:
            return f"closed by the agent: {code or 'no code'} {(reason or '')[:123]}".rstrip()
        lost: Any = self.wasNotCleanReason
        return str(lost or "the connection was lost")


class _SessionConnection:
    """The `Connection` a session sees: nothing of Autobahn shows through."""

    __slots__ = ("_protocol", "peer")

    def __init__(self, protocol: AgentWebSocket) -> None:
        self._protocol = protocol
        self.peer = protocol._address

    def send(self, data: bytes) -> None:
        self._protocol.send_text(data)

    def close(self, code: int, reason: str) -> None:
        self._protocol.close_with(code, reason)


class AgentWebSocketFactory(WebSocketServerFactory):
    """Makes `AgentWebSocket`s, with every limit that Autobahn leaves open set.

    :param make_session: called once for each WebSocket that is open.
    """

    protocol = AgentWebSocket  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        make_session: Callable[[Connection], AgentSession],
        limits: Limits,
    ) -> None:
        # Autobahn's timers run on this and ignore the factory's reactor.
        cast(Any, tx.config).loop = clock
        super().__init__(server="JetCamer", reactor=clock)
        self.clock = clock
        self.make_session = make_session
        self.limits = limits
        self.draining = False
        self.connections: set[AgentWebSocket] = set()
        self._waiting_for_drain: list[Deferred[None]] = []
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            maxFramePayloadSize=limits.max_message,
            maxMessagePayloadSize=limits.max_message,
            failByDrop=False,  # a message too large is told so: 1009
            openHandshakeTimeout=limits.handshake_timeout,
            # Autobahn rounds its deadlines down to whole seconds: 2 is at least one.
            closeHandshakeTimeout=2,
            autoPingInterval=limits.ping_interval,
            autoPingTimeout=limits.pong_timeout,
            # An agent is no browser: what it says of its origin proves nothing.
            allowedOrigins=["*"],
            allowNullOrigin=True,
            perMessageCompressionAccept=lambda _offers: None,
        )

    def drain(self) -> Deferred[None]:
        """Tell every agent to come back (1012), and take no new one.

        Fires when the last connection is gone, within some seconds whatever the agents do.
        """
        self.draining = True
        for connection in list(self.connections):
            session = connection.session
            if session is not None:
                session.close(SERVICE_RESTART, "service_restart")
            elif connection.state == connection.STATE_CONNECTING:
                connection.dropConnection(abort=True)
        if not self.connections:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting_for_drain.append(waiter)
        return waiter

    def forget(self, connection: AgentWebSocket) -> None:
        self.connections.discard(connection)
        if not self.connections:
            waiters, self._waiting_for_drain = self._waiting_for_drain, []
            for waiter in waiters:
                waiter.callback(None)
