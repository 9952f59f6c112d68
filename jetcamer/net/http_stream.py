"""An answer without an end: server-sent events, for readers that may be slow or gone.

In: blocks of text as they come. Out: the same over HTTP, in order. A reader that does not keep up
is cut off at a bound; it never holds memory without one. See the HTML standard, Server-sent events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from zope.interface import implementer

from jetcamer.net.http_answer import Answer, HTTPError, header_lines

log = Logger()

#: Seconds between two comment lines that keep proxies from closing a quiet stream.
KEEPALIVE_SECONDS = 15.0
#: Bytes that may wait for a reader, beside what the system's buffers take.
MAX_WAITING = 1 << 20
#: Seconds that a reader may take none of what waits.
STALL_SECONDS = 60.0

_HEADERS = (
    # A proxy that collects the answer first would never pass it on.
    ("X-Accel-Buffering", "no"),
)


def event_block(event: str, data: bytes, event_id: str | None = None) -> bytes:
    """One event. `data` is JSON: line breaks in it stand between its tokens, and become blanks."""
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    head = b"" if event_id is None else b"id: %s\n" % event_id.encode()
    return b"%sevent: %s\ndata: %s\n\n" % (head, event.encode(), data)


@implementer(IPushProducer)
class EventStream:
    """One reader of events. Given to `Routes` as an answer; it begins with its request.

    :param began: called once the stream is open, with the stream. Returns what ends the supply;
        that is called exactly once, whatever ends the stream.
    """

    def __init__(
        self,
        clock: IReactorTime,
        began: Callable[[EventStream], Callable[[], None]],
        *,
        max_waiting: int = MAX_WAITING,
        keepalive: float = KEEPALIVE_SECONDS,
        keepalive_block: Callable[[], bytes] = lambda: b":\n\n",
    ) -> None:
        self._clock = clock
        self._began = began
        self._max_waiting = max_waiting
        self._keepalive = keepalive
        self._keepalive_block = keepalive_block
        self._request: Any = None
        self._channel: Any = None
        self._end_supply: Callable[[], None] | None = None
        self._timer: IDelayedCall | None = None
        self._paused = False
        self._paused_at = 0.0
        self._backlog: Iterator[bytes] | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0

    @property
    def open(self) -> bool:
        return self._request is not None

    def begin(self, request: Request) -> None:
        """Raises `HTTPError` 503 where the site has as many streams as it may."""
        channel: Any = request.channel
        site = channel.factory
        if len(site.streams) >= site.limits.streams:
            raise HTTPError(503, "too many streams are open", (("Retry-After", "30"),))
        request.setResponseCode(200)
        request.responseHeaders.removeHeader(b"Server")
        answer = Answer(b"", content_type="text/event-stream", headers=_HEADERS)
        for name, value in header_lines(answer):
            if name != b"Content-Length":
                request.setHeader(name, value)
        if request.method == b"HEAD":
            request.write(b"")
            request.finish()
            return
        self._request, self._channel = request, channel
        site.streams.add(self)
        channel.stream = self
        request.notifyFinish().addErrback(self._gone)
        request.registerProducer(self, True)
        # The first bytes take the headers with them: the reader knows at once that it is in.
        self.send(b": open\n\n")
        try:
            self._end_supply = self._began(self)
        except Exception:
            log.failure("[http] a stream of events could not begin")
            self.close()
        if self._request is None:  # ended by what came at once
            self._over()

    def replay(self, blocks: Iterator[bytes]) -> None:
        """Write all of `blocks`, each taken when the reader has room for it, before anything that
        is sent from now on. They count for no bound: whoever gives them has them anyway."""
        self._backlog = blocks
        self._write_on()

    def send(self, block: bytes) -> None:
        """Write now, or when the reader has read; nothing after the end."""
        if self._request is None:
            return
        self._keep_alive()
        if not self._paused and self._backlog is None:
            self._request.write(block)
            return
        self._waiting.append(block)
        self._waiting_bytes += len(block)
        stalled = self._paused and self._clock.seconds() - self._paused_at >= STALL_SECONDS
        if stalled or self._waiting_bytes > self._max_waiting:
            log.info("[http] a reader of events does not read: cut off")
            self._let_go()
            self._channel.transport.abortConnection()

    def close(self) -> None:
        """End the answer in order; what still waits is dropped."""
        request = self._request
        if request is not None:
            self._let_go()
            request.finish()

    def _write_on(self) -> None:
        """What the reader has room for."""
        while self._request is not None and not self._paused:
            if self._backlog is not None:
                block = next(self._backlog, None)
                if block is None:
                    self._backlog = None
                    continue
            elif self._waiting:
                block = self._waiting.popleft()
                self._waiting_bytes -= len(block)
            else:
                return
            self._request.write(block)

    def _keep_alive(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.reset(self._keepalive)
        else:
            self._timer = self._clock.callLater(self._keepalive, self._quiet)

    def _quiet(self) -> None:
        self.send(self._keepalive_block())

    def _gone(self, _: Failure) -> None:
        if self._request is not None:
            self._let_go()

    def _let_go(self) -> None:
        request, self._request = self._request, None
        self._channel.factory.streams.discard(self)
        self._channel.stream = None
        if request.channel is not None:
            request.unregisterProducer()
        self._backlog = None
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._over()

    def _over(self) -> None:
        end, self._end_supply = self._end_supply, None
        if end is not None:
            end()

    # IPushProducer, called by the connection

    def pauseProducing(self) -> None:
        self._paused = True
        self._paused_at = self._clock.seconds()

    def resumeProducing(self) -> None:
        self._paused = False
        self._write_on()

    def stopProducing(self) -> None: ...
