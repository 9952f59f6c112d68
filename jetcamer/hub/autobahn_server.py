"""Autobahn's WebSocket server as a parser and a state machine, and no more than that.

In: a transport's bytes, once the handshake is done. Out: Autobahn's hooks (`onMessage`, `onClose`,
…). Stock Autobahn copies some sixty options and counters into every instance, formats log lines
that nobody sees, makes a delayed call for every deadline and keeps the request it answered: 5 kB
and 0.6 ms for each connection. Here what is the same for all is on the class, what few connections
need is made when they need it, and handshake and deadlines are the subclass's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import txaio
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from jetcamer.net.autobahn_hooks import AutobahnHooks, QuietLog

# Autobahn's modules ask for this when they are imported.
txaio.use_twisted()

from autobahn.websocket import protocol  # noqa: E402
from autobahn.websocket.utf8validator import Utf8Validator  # noqa: E402


class Traffic:
    """What all connections of a factory received and sent; the names are Autobahn's.

    Wire is with frame headers, WebSocket and App are payloads. Frames and messages are of data.
    """

    __slots__ = (
        "incomingOctetsAppLevel",
        "incomingOctetsWebSocketLevel",
        "incomingOctetsWireLevel",
        "incomingWebSocketFrames",
        "incomingWebSocketMessages",
        "outgoingOctetsAppLevel",
        "outgoingOctetsWebSocketLevel",
        "outgoingOctetsWireLevel",
        "outgoingWebSocketFrames",
        "outgoingWebSocketMessages",
    )

    def __init__(self) -> None:
        self.incomingOctetsWireLevel = 0
        self.incomingOctetsWebSocketLevel = 0
        self.incomingOctetsAppLevel = 0
        self.incomingWebSocketFrames = 0
        self.incomingWebSocketMessages = 0
        self.outgoingOctetsWireLevel = 0
        self.outgoingOctetsWebSocketLevel = 0
        self.outgoingOctetsAppLevel = 0
        self.outgoingWebSocketFrames = 0
        self.outgoingWebSocketMessages = 0


class _NobodyWaits:
    """Stands for the Deferreds `is_open` and `is_closed`, which nobody asks for."""

    def callback(self, result: object) -> None:
        pass


class AutobahnServerProtocol(AutobahnHooks, protocol.WebSocketServerProtocol, Protocol):
    """What `autobahn.twisted.websocket.WebSocketServerProtocol` is to its subclasses, and less.

    The factory has `isServer` and `traffic`. The subclass answers the handshake and sets `state`,
    and has `current_frame`, `current_frame_masker`, `control_frame_data`, `data`,
    `inside_message` and `max_message` of its own, as a connection begins with them.
    """

    transport: Any
    #: Bytes of the longest message that is taken now.
    max_message: int
    log = QuietLog()
    is_open = is_closed = _NobodyWaits()

    # Autobahn's options. A message too large is told so with 1009, not dropped.
    failByDrop = False
    echoCloseCodeReason = False
    applyMask = utf8validateIncoming = requireMaskedClientFrames = True
    maskServerFrames = False
    autoFragmentSize = 0
    logOctets = logFrames = trackTimings = False
    websocket_version = 13
    _perMessageCompress = None
    # Its timers, which are all the subclass's business.
    closeHandshakeTimeout = autoPingInterval = autoPingTimeout = 0
    autoPingRestartOnAnyTraffic = False
    openHandshakeTimeoutCall = closeHandshakeTimeoutCall = None
    autoPingPending = autoPingPendingCall = autoPingTimeoutCall = None

    # Its state, as a connection begins.
    trackedTimings: Any = None
    send_queue: Any = ()
    closedByMe = failedByMe = droppedByMe = wasClean = False
    wasNotCleanReason: Any = None
    message_data: Any = None
    wasMaxFramePayloadSizeExceeded = wasMaxMessagePayloadSizeExceeded = False
    wasServingFlashSocketPolicyFile = False
    localCloseCode = localCloseReason = remoteCloseCode = remoteCloseReason = None

    def __init__(self) -> None:
        # Not Autobahn's: it makes what nobody here asks for.
        pass

    @property
    def maxFramePayloadSize(self) -> int:
        return self.max_message

    maxMessagePayloadSize = maxFramePayloadSize

    @property
    def trafficStats(self) -> Traffic:  # type: ignore[override]
        traffic: Traffic = self.factory.traffic
        return traffic

    @cached_property
    def utf8validator(self) -> Any:  # type: ignore[override]
        """Made for the first message that does not come in one short frame."""
        return Utf8Validator()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Not the server's own, which only counts. A failure is what it expects in fact.
        protocol.WebSocketProtocol._connectionLost(self, cast(Any, reason))

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self.transport.write(data)
        self.trafficStats.outgoingOctetsWireLevel += len(data)

    def onMessageEnd(self) -> None:
        data, self.message_data = self.message_data, None
        if not self.failedByMe:
            self.onMessage(b"".join(data), self.message_is_binary)
