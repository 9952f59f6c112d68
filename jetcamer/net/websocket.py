"""One client WebSocket, seen message by message.

In: what the frames of an open connection say. Out: whole text messages, and in the end one
`Disconnected` that says why in words. It never hands on anything after it has begun to close, and
notices a silent peer by its missing pongs.

All timers are here and run on the clock that is passed in; the frames are `client_protocol`'s.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Callable

import msgspec
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from jetcamer.net.timers import Timer

log = Logger()

#: Seconds between the close frame that we send and the end of the TCP connection.
CLOSE_TIMEOUT = 1.0


class Disconnected(msgspec.Struct, frozen=True):
    """How a connection ended.

    `code` and `reason` are those of the close frame that decided it: the server's if it closed
    first, else ours; None and empty where there was none. `clean`: both close frames were
    exchanged. `words` is one line for a person.
    """

    code: int | None
    reason: str
    by_peer: bool
    clean: bool
    words: str


class MessageReceiver(typing.Protocol):
    """What is made for an open connection, and hears of everything that happens on it."""

    def message_received(self, data: bytes) -> None:
        """One whole text message, valid UTF-8."""

    def closing(self) -> None:
        """A close frame was sent or received: nothing can be sent any more. Not always called."""

    def disconnected(self, reason: Disconnected) -> None:
        """The end; called exactly once, after everything else."""


class Wire(typing.Protocol):
    """The frames of an open connection, as `WebSocketConnection` uses them."""

    max_message: int

    @property
    def is_usable(self) -> bool:
        """Whether the connection is open, and no close frame was sent or received."""

    def send_text(self, data: bytes) -> None: ...

    def send_ping(self, payload: bytes) -> None: ...

    def send_pong(self, payload: bytes) -> None: ...

    def send_close(self, code: int, reason: str) -> None:
        """Send a close frame, its reason cut to what fits; `close_sent` follows."""

    def drop(self) -> None:
        """End the TCP connection now; `lost` follows."""


class Liveness(msgspec.Struct, frozen=True):
    """Seconds between pings, and until a ping's pong is overdue."""

    ping_interval: float = 20.0
    pong_timeout: float = 10.0


class WebSocketConnection:
    """An open WebSocket.

    :ivar peer: the other end, for a person: ``ip:port``, or the server's ``host:port`` and by which
        proxy it is reached.
    :ivar server_date: Unix seconds from the ``Date`` of the answer to the upgrade, or None.
    """

    def __init__(
        self,
        wire: Wire,
        clock: IReactorTime,
        liveness: Liveness,
        peer: str,
        server_date: float | None,
    ) -> None:
        self.peer = peer
        self.server_date = server_date
        self._wire = wire
        self._liveness = liveness
        self._receiver: MessageReceiver | None = None
        self._ending: str | None = None
        self._awaited_pong = b""
        self._next_ping = Timer(clock)
        self._pong_deadline = Timer(clock)
        self._close_deadline = Timer(clock)
        self._valve = Valve()
        self._next_ping.start(liveness.ping_interval, self._ping)

    def attach(self, receiver: MessageReceiver) -> None:
        """Say who hears of messages and of the end; called once, by whoever opens."""
        self._receiver = receiver

    def send(self, data: bytes) -> None:
        """Send one text frame; nothing happens once the connection is closing.

        :raises ValueError: `data` is longer than the longest message allowed.
        """
        if len(data) > self._wire.max_message:
            raise ValueError(f"a message of {len(data)} bytes is too long to be sent")
        if self._wire.is_usable:
            self._wire.send_text(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake; one second later the TCP connection is dropped anyway."""
        if self._wire.is_usable:
            self._wire.send_close(code, reason)

    def abort(self) -> None:
        """Drop the TCP connection at once, with all that is unsent."""
        self._drop("aborted")

    def register_producer(self, producer: IPushProducer) -> None:
        """Have `producer` paused while the transport's buffer is full; one at a time."""
        self._valve.connect(producer)

    # What the wire tells.

    @property
    def valve(self) -> Valve:
        """What the transport pauses and resumes."""
        return self._valve

    def message(self, data: bytes) -> None:
        if self._receiver is not None:
            try:
                self._receiver.message_received(data)
            except Exception:
                log.failure("[ws] the receiver of a message failed; the connection stays")

    def ping_received(self, payload: bytes) -> None:
        # While the peer does not read, only the latest ping is answered (RFC 6455 §5.5.3), and
        # only once it reads again: answers must not pile up.
        self._valve.when_open(lambda: self._wire.send_pong(payload))

    def pong_received(self, payload: bytes) -> None:
        # Only the answer to our own ping counts: other traffic does not show that ours arrives.
        if payload == self._awaited_pong:
            self._pong_deadline.stop()

    def close_sent(self) -> None:
        self._stop_pings()
        self._close_deadline.start(CLOSE_TIMEOUT, self._close_overdue)
        if self._receiver is not None:
            try:
                self._receiver.closing()
            except Exception:
                log.failure("[ws] the receiver of a closing failed")

    def lost(self, how: Callable[[str | None], Disconnected]) -> None:
        """The end of the transport; `how` makes the last word of the words of our own doing."""
        self._stop_pings()
        self._close_deadline.stop()
        self._valve.connect(None)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        try:
            receiver.disconnected(how(self._ending))
        except Exception:
            log.failure("[ws] the receiver of a connection's end failed")

    # Timers.

    def _ping(self) -> None:
        self._next_ping.start(self._liveness.ping_interval, self._ping)
        if not self._pong_deadline.running:
            # Random, so that only a peer that read it can answer it.
            self._awaited_pong = os.urandom(8)
            self._wire.send_ping(self._awaited_pong)
            self._pong_deadline.start(self._liveness.pong_timeout, self._pong_overdue)

    def _pong_overdue(self) -> None:
        self._drop(f"no pong within {self._liveness.pong_timeout:g} s")

    def _close_overdue(self) -> None:
        self._drop(None)

    def _stop_pings(self) -> None:
        self._next_ping.stop()
        self._pong_deadline.stop()

    def _drop(self, words: str | None) -> None:
        self._ending = self._ending or words
        self._stop_pings()
        self._wire.drop()


@implementer(IPushProducer)
class Valve:
    """The transport's producer for the life of the connection; passes its wishes on."""

    def __init__(self) -> None:
        self._closed = False
        self._producer: IPushProducer | None = None
        self._waiting: Callable[[], None] | None = None

    def connect(self, producer: IPushProducer | None) -> None:
        self._producer = producer
        if producer is not None and self._closed:
            producer.pauseProducing()

    def when_open(self, action: Callable[[], None]) -> None:
        """Act now, or when the transport has room again; the last action asked for wins."""
        if self._closed:
            self._waiting = action
        else:
            action()

    def pauseProducing(self) -> None:
        self._closed = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        self._closed = False
        action, self._waiting = self._waiting, None
        if action is not None:
            action()
        if self._producer is not None and not self._closed:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self._closed = True
        if self._producer is not None:
            self._producer.stopProducing()
