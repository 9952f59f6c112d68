"""The server's end of one agent's WebSocket: frames in, a session fed, nothing understood.

In: what a transport receives. Out: calls of one `AgentSession` for each WebSocket at `/agent`, and
the frames that the session wants sent. Whole text frames take the short way of frames.py, anything
else Autobahn's; what comes out is the same. Everything a stranger can make large or slow has a
limit here. It never reads what a message says.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.hub.admission import UNIX, plain_address
from jetcamer.hub.frames import LONGEST, is_awaited, text_frames, wire_length
from jetcamer.hub.handshake import END, Refusal, Upgrade, accepting, read_request, refusing
from jetcamer.hub.timed_websocket import CLOSED, CLOSING, CONNECTING, OPEN, TimedWebSocket
from jetcamer.net.url import join_authority
from jetcamer.protocol.close_codes import INTERNAL_ERROR, MESSAGE_TOO_BIG

if TYPE_CHECKING:
    from jetcamer.hub.session import AgentSession
    from jetcamer.hub.websocket import AgentWebSocketFactory

_log = Logger()

#: A request for an upgrade, its headers included, has no business being longer. Bytes.
_MAX_REQUEST = 16 * 1024

#: Frames of one message. Empty ones weigh nothing on the wire and something here.
_MAX_FRAGMENTS = 1024

#: Frames in a second that do not take the short way, before the agent has authenticated and after:
#: each costs 50 times what one costs that does, and six bytes are enough for one. Agents send a few
#: in a minute. Those of so many bytes that they pay for themselves do not count: fragments, say, of
#: a large message.
_MAX_SLOW_FRAMES = (32, 256)
_PAYS_FOR_ITSELF = 1024

#: What a transport holds when it says that it is full. Bytes.
_TRANSPORT_BUFFER = 64 * 1024


class _Transport(Protocol):
    def getPeer(self) -> Any: ...
    def setTcpNoDelay(self, enabled: bool) -> None: ...
    def write(self, data: bytes) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...


@implementer(IPushProducer)
class AgentWebSocket(TimedWebSocket):
    """One connection. Also the producer its transport pauses: who does not read is not read.

    Until the agent has authenticated it is a stranger, of whom little is taken (`strangers.py`).

    Thousands of these wait, so what each one has is in slots, and Autobahn's rarer attributes come
    into its dictionary only when they differ from those of the class.
    """

    __slots__ = (
        "_longest",  # payload bytes of a text frame that takes the short way
        "_second",  # the one that `_slow_frames` counts in
        "_slow_frames",
        "_stranger",  # the agent has not authenticated
        "connected",
        "control_frame_data",
        "current_frame",
        "current_frame_masker",
        "data",  # received, and not yet understood
        "factory",
        "host",  # the transport's peer, an IP address or `UNIX`
        "inside_message",
        "max_message",
        "peer",  # the same with the port, for the log
        "transport",
    )

    factory: AgentWebSocketFactory
    current_frame: Any
    current_frame_masker: Any
    control_frame_data: Any
    data: bytes
    host: str
    inside_message: bool
    max_message: int
    peer: str
    _longest: int
    _second: int
    _slow_frames: int
    _stranger: bool

    # Of an agent that does not read, or sends in fragments.
    _unread = False
    _unsent = 0
    _fragments = 0

    def __init__(self) -> None:
        super().__init__()
        self.transport = None
        self.connected = 0
        self.data = b""
        self.current_frame = self.current_frame_masker = self.control_frame_data = None
        self.inside_message = False
        self._second = self._slow_frames = 0
        self._stranger = True

    @property
    def _own_transport(self) -> _Transport:
        return cast(_Transport, self.transport)

    # From the transport.

    def connectionMade(self) -> None:
        transport = self._own_transport
        address = transport.getPeer()
        if hasattr(address, "host"):
            self.host = plain_address(address.host)
            self.peer = join_authority(self.host, address.port)
            # A peer may be gone already, and a transport may know no such thing.
            with suppress(OSError, AttributeError):
                transport.setTcpNoDelay(True)
        else:
            self.host = self.peer = UNIX
        factory = self.factory
        self.max_message = factory.max_first_message
        self._longest = min(LONGEST, self.max_message)
        factory.joined(self)
        self._phase(factory.limits.handshake_timeout)

    def dataReceived(self, data: bytes) -> None:
        factory = self.factory
        self._heard = factory.deadlines.now
        factory.traffic.incomingOctetsWireLevel += len(data)
        self.data = self.data + data if self.data else data
        self.consumeData()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.deadlines.forget(self)
        super().connectionLost(reason)
        self.factory.forget(self)

    # What comes in.

    def consumeData(self) -> None:
        """Autobahn's loop over its steps, with the short way in front of each.

        A frame that Autobahn has begun is Autobahn's, and so is every frame of a message in
        fragments.
        """
        if self.state == CONNECTING:
            self._read_handshake()
            if self.state == OPEN and not self.data:
                return  # as nearly always: agents wait for the answer
        while (state := self.state) == OPEN or state == CLOSING:
            short = state == OPEN and self.current_frame is None and not self.inside_message
            if short and not self._take_text_frames():
                return
            # The session may have ended it.
            more = self.state != CLOSED and self.processData()
            if self.current_frame is None:
                self.current_frame_masker = None
            if not more:
                break
        if self.state == CLOSED:
            self.data = b""

    def _take_text_frames(self) -> bool:
        """Hand the whole text frames in hand to the session, as long as it wants them; whether
        something is left to parse."""
        data = self.data
        session = self.session
        if session is None:
            return bool(data)
        payloads, at = text_frames(data, self._longest)
        taken = 0
        try:
            for payload in payloads:
                taken += 1
                session.message_received(payload)
                # What comes after a close frame of ours is not acted upon.
                if self.state != OPEN:
                    break
        except Exception:
            self._session_failed(session)
        if self._stranger:
            self._look_who_it_is(session)
        if taken < len(payloads):
            del payloads[taken:]
            at = wire_length(payloads)
        octets = sum(map(len, payloads))
        traffic = self.factory.traffic
        traffic.incomingWebSocketFrames += taken
        traffic.incomingWebSocketMessages += taken
        traffic.incomingOctetsWebSocketLevel += octets
        traffic.incomingOctetsAppLevel += octets
        if at == len(data):
            self.data = b""
            return False
        if at:
            self.data = data[at:]
        return self.state != OPEN or not is_awaited(self.data, self._longest)

    def _look_who_it_is(self, session: AgentSession) -> None:
        """Whether the agent has authenticated: then it may send as much as agents may."""
        if session.agent_id is None:
            return
        self._stranger = False
        self.max_message = self.factory.limits.max_message
        self._longest = min(LONGEST, self.max_message)
        self.factory.strangers.left(self)

    def onFrameBegin(self) -> None:
        second = self.factory.deadlines.now
        if self._second != second:
            self._second, self._slow_frames = second, 0
        if self.current_frame.length < _PAYS_FOR_ITSELF:
            self._slow_frames += 1
            if self._slow_frames > _MAX_SLOW_FRAMES[not self._stranger]:
                self._drop("too many control frames and fragments")
        super().onFrameBegin()

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
        if session is None or self.state != OPEN:
            return
        try:
            if isBinary:
                session.binary_received()
            else:
                session.message_received(payload)
        except Exception:
            self._session_failed(session)
        if self._stranger:
            self._look_who_it_is(session)

    def _session_failed(self, session: AgentSession) -> None:
        _log.failure("[hub] a message from {peer} could not be handled", peer=self.peer)
        session.close(INTERNAL_ERROR, "internal_error")

    # The handshake.

    def _read_handshake(self) -> None:
        end = self.data.find(END)
        if end < 0 and len(self.data) <= _MAX_REQUEST:
            return
        if not 0 <= end <= _MAX_REQUEST:
            self._refuse(Refusal(431, "the request is too large"))
            return
        head, self.data = self.data[: end + len(END)], self.data[end + len(END) :]
        request = read_request(head)
        if isinstance(request, Refusal):
            self._refuse(request)
            return
        admitted = self.factory.admit(self.host, request)
        if isinstance(admitted, Refusal):
            self._refuse(admitted)
        else:
            self._open(request, admitted)

    def _refuse(self, refusal: Refusal) -> None:
        self.factory.refused(self.peer, refusal)
        self._own_transport.write(refusing(refusal))
        self.dropConnection(abort=False)

    def _open(self, request: Upgrade, address: str) -> None:
        factory = self.factory
        self._own_transport.write(accepting(request.key))
        self.state = OPEN
        self.registerProducer(self, True)
        self.session = factory.make_session(_SessionConnection(self, address))
        self._opened()

    # The end.

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        session, self.session = self.session, None
        if session is None:
            return
        try:
            session.connection_lost(self._how_it_ended(wasClean, code, reason))
        except Exception:
            _log.failure("[hub] the end of {peer} could not be handled", peer=self.peer)

    def _how_it_ended(self, was_clean: bool, code: int | None, reason: str | None) -> str:
        own_code: Any = self.localCloseCode
        own_reason: Any = self.localCloseReason
        if self.closedByMe and own_code is not None:
            words = (own_reason or b"").decode("utf-8", "replace")
            return f"closed by the hub: {own_code} {words}".rstrip()
        if was_clean:
            return f"closed by the agent: {code or 'no code'} {(reason or '')[:123]}".rstrip()
        return str(self.wasNotCleanReason or "the connection was lost")

    # What the session asks for.

    def send_text(self, data: bytes) -> None:
        if self.state != OPEN:
            return
        if self._unread:
            self._unsent += len(data)
            if self._unsent > self.factory.limits.max_unsent:
                _log.warn("[hub] {peer} does not read: its connection is dropped", peer=self.peer)
                self._drop("the agent does not read")
                return
        self.sendMessage(data, isBinary=False)

    def close_with(self, code: int, reason: str) -> None:
        # Not sendClose(): it refuses every code but 1000 and the private ones.
        self.sendCloseFrame(code=code, reasonUtf8=reason.encode("utf-8")[:123])

    def give_way(self) -> None:
        """Another has come, and this one has had its time to authenticate."""
        self.factory.turned_away(self.host, "it did not authenticate, and others wait")
        self._drop("it gave way to another")

    # IPushProducer: the transport's buffer is full, or has room again.

    def pauseProducing(self) -> None:
        # The transport calls this at each write while it is full, not only at the first.
        if not self._unread:
            self._unread, self._unsent = True, _TRANSPORT_BUFFER
            self._own_transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._unread = False
        self._own_transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is going; `connectionLost` follows."""


class _SessionConnection:
    """The `Connection` a session sees: nothing of Autobahn shows through."""

    __slots__ = ("_protocol", "address", "peer")

    def __init__(self, protocol: AgentWebSocket, address: str) -> None:
        self._protocol = protocol
        self.peer = protocol.peer
        self.address = address

    def send(self, data: bytes) -> None:
        self._protocol.send_text(data)

    def close(self, code: int, reason: str) -> None:
        self._protocol.close_with(code, reason)
