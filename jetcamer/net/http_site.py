"""The connections of a JSON site, and what each of them may cost.

In: bytes of anybody. Out: whole requests, given to the site's `Routes`. No client may hold memory
or a connection for longer than the `Limits` say: `twisted.web` has no limit on a body, and its
timeout begins anew with every byte. An answer may take as long as its client needs that goes on
reading. A stream (`net/http_stream.py`) has no deadline, but it is one of the connections, and
there is a limit on streams.
"""

# The HTTP parser of Twisted is not annotated.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, HTTPFactory, Request
from zope.interface import implementer

from jetcamer.net.http import HTTPError, Routes, header_lines
from jetcamer.net.http_answer import reason_phrase

if TYPE_CHECKING:
    from jetcamer.net.http_stream import EventStream

log = Logger()

#: Seconds a connection that is done with may still take to read its answer.
LINGER_SECONDS = 2.0
#: The same when the whole site closes: a daemon must end soon, whoever does not read.
CLOSE_SECONDS = 1.0
#: Bytes of a refused request that are read and thrown away, so that the answer is not lost in a
#: connection reset.
LINGER_BYTES = 1 << 20


class Limits(msgspec.Struct, frozen=True):
    """What one site allows."""

    body: int = 64 * 1024  #: bytes of a request's body
    seconds: float = 10.0  #: for one whole request to arrive, and between two requests
    connections: int = 64  #: open at the same time; more are closed at once
    streams: int = 16  #: answers without an end, of the connections
    #: Seconds for a client to read what the system's buffers hold of a large answer: it may be some
    #: megabytes until it is seen to read at all.
    stall: float = 60.0


class JSONRequest(Request):
    """One request of a `JSONSite`: its body is kept in memory, up to the limit."""

    channel: Any
    content: Any

    def __init__(self, channel: JSONChannel, queued: object = False) -> None:
        super().__init__(channel, queued=False, parsePOSTFormSubmission=False)

    def gotLength(self, length: int | None) -> None:
        # Twisted would put a body of unknown length into a file.
        self.content = io.BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        if self.content.tell() + len(data) > self.channel.limits.body:
            self.channel.refuse(HTTPError(413, "the body is too large"))
        else:
            self.content.write(data)

    def process(self) -> None:
        self.channel.factory.routes.render(self)


@implementer(IHalfCloseableProtocol)
class JSONChannel(HTTPChannel):
    """One connection. A single timer bounds it in every state but one: while a handler works."""

    requestFactory: Any = JSONRequest
    maxHeaders = 64
    #: Twisted's own timeout begins anew with every byte; ours does not.
    timeOut = None

    factory: JSONSite
    transport: Any
    #: The answer without an end that is being given, set by itself.
    stream: EventStream | None = None
    _timer: IDelayedCall | None = None
    #: The last answer is on its way; what still comes in is thrown away.
    _ended = False
    #: Nothing comes in any more, but requests that came before are still to be answered.
    _all_said = False
    _discarded = 0
    #: The answer being written is more than the connection takes at once.
    _is_large = False

    @property
    def limits(self) -> Limits:
        return self.factory.limits

    def connectionMade(self) -> None:
        self.factory.channels.add(self)
        self._arm(self.limits.seconds)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._arm(None)
        self._ended = True
        super().connectionLost(reason)
        self.factory.channel_lost(self)

    def readConnectionLost(self) -> None:
        """The client has said all; it is still told what it asked for.

        One that has closed its socket looks the same, up to the first write to it.
        """
        self._all_said = True
        if self.stream is not None:
            # Readers of events do not close one half; this one has left.
            self.end()
        elif self._ended:
            self.loseConnection()
        elif not self._handlingRequest:
            self.end()

    def writeConnectionLost(self) -> None: ...

    def end(self, within: float = LINGER_SECONDS) -> None:
        """Close once what is written has gone out; at the latest `within` seconds from now, however
        long a connection that has ended already was still given."""
        self._arm(within)
        if not self._ended:
            self._ended = True
            if self.stream is not None:
                self.stream.close()
            self.loseConnection()

    def refuse(self, error: HTTPError) -> None:
        """Answer what cannot be let through to a route, and close without reading the rest."""
        if self._ended:
            return
        self._ended = True
        self._arm(LINGER_SECONDS)
        answer = error.answer
        reason = reason_phrase(answer.status)
        lines = [b"HTTP/1.1 %d %s" % (answer.status, reason), b"Connection: close"]
        lines += [name + b": " + value for name, value in header_lines(answer)]
        self.transport.write(b"\r\n".join([*lines, b"", answer.body]))
        if ITCPTransport.providedBy(self.transport) and not self.isSecure():
            # Closing with unread bytes resets the connection, and the peer loses the answer.
            self.transport.loseWriteConnection()
        else:
            self.loseConnection()

    def _arm(self, seconds: float | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self.callLater(seconds, self._expired)

    def _expired(self) -> None:
        if self._ended:
            self.transport.abortConnection()
        elif self._is_answering():
            # It does not read; what it has of the answer cannot be taken back.
            self.transport.abortConnection()
        elif self.requests:
            self.refuse(HTTPError(408, "the request took too long"))
        else:
            self.end()

    def _is_answering(self) -> bool:
        return bool(self.requests and self.requests[0].startedWriting)

    # What the transport calls: it is full of an answer, and has room again

    def pauseProducing(self) -> None:
        super().pauseProducing()
        if self.stream is None and not self._ended and self._is_answering():
            self._is_large = True
            self._arm(self.limits.stall)

    def resumeProducing(self) -> None:
        if self._handlingRequest and self.stream is None and not self._ended:
            self._arm(None)  # until it is full again, or the answer is at its end
        super().resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        if self._waitingForTransport:  # full of the answer before
            producer.pauseProducing()

    # What twisted.web's parser calls, in the order of a request

    def dataReceived(self, data: bytes) -> None:
        if not self._ended:
            super().dataReceived(data)
            return
        self._discarded += len(data)
        if self._discarded > LINGER_BYTES:
            self.transport.abortConnection()

    def lineReceived(self, line: bytes) -> None:
        if not self._ended:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(HTTPError(431, "the request line or a header is too long"))

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length of more digits than Python converts
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > self.limits.body:
            self.refuse(HTTPError(413, "the body is too large"))
        else:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if not self._ended:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        if not self._ended:
            self._arm(None)
            super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        if not self._ended:
            self._ended = not self.persistent
            self._arm(self.limits.stall if self._is_large else self.limits.seconds)
            self._is_large = False
        super().requestDone(request)  # which goes on with what has come behind the request
        if self._all_said and not (self._ended or self._handlingRequest or self._busyReceiving):
            self.end()

    def _respondToBadRequestAndDisconnect(self) -> None:
        too_large = (
            self._receivedHeaderSize > self.totalHeadersSize
            or self._receivedHeaderCount > self.maxHeaders
        )
        self.refuse(
            HTTPError(431, "the headers are too large")
            if too_large
            else HTTPError(400, "malformed request")
        )


class JSONSite(HTTPFactory):
    """The factory to listen with. Speaks HTTP/1.1 only, keeps no access log, sends no banner."""

    protocol: Any = JSONChannel
    noisy = False

    def __init__(self, reactor: IReactorTime, routes: Routes, limits: Limits | None = None) -> None:
        super().__init__(reactor=reactor)
        self.timeOut = None
        self.routes = routes
        self.limits = Limits() if limits is None else limits
        self.channels: set[JSONChannel] = set()
        self.streams: set[EventStream] = set()
        self._full = False
        self._closed: Deferred[None] | None = None

    def startFactory(self) -> None:
        """Does not call Twisted's, which wakes up every second for an access log."""

    def stopFactory(self) -> None: ...

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]

    def buildProtocol(self, addr: Any) -> Any:
        if self._closed is not None:
            return None
        full = len(self.channels) >= self.limits.connections
        if full and not self._full:
            log.warn("[http] {count} connections are open: no more", count=len(self.channels))
        self._full = full
        return None if full else super().buildProtocol(addr)

    def channel_lost(self, channel: JSONChannel) -> None:
        self.channels.discard(channel)
        if self._closed is not None and not self.channels and not self._closed.called:
            self._closed.callback(None)

    def close(self) -> Deferred[None]:
        """Take no more connections and end those that are open; fires when all are gone, within
        `CLOSE_SECONDS` whatever the clients do."""
        if self._closed is None:
            self._closed = Deferred()
            for channel in [*self.channels]:
                channel.end(CLOSE_SECONDS)
            if not self.channels and not self._closed.called:
                self._closed.callback(None)
        return self._closed
