"""Log lines to the server as they are written: the taker that is always up to date.

In: streams, and the link's queue. Out: ``log`` messages, no more than so many a second. The newest
lines wait for their turn or for the link; those for which there is no room are counted, and once
a minute it is said how many there were. Must never hold up reading: the files are read to their
ends whatever the link does.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from jetcamer.agent.logs.lines import Block, clean, text
from jetcamer.agent.logs.stream import Stream

log = Logger()

#: What waits at most: lines, and bytes of them.
MAX_WAITING = 1000
MAX_WAITING_BYTES = 1 << 20

#: Bytes of one stream that are read before others get their turn.
READ_SIZE = 1 << 20

#: Seconds between two looks at whether more may be sent, while lines wait and the link is open.
SEND_INTERVAL = 0.25

#: Seconds between two lines that say how many were suppressed.
SAY_INTERVAL = 60.0

#: What a parser makes of a line; None where it is of no known format.
Parser = Callable[[str], Mapping[str, Any] | None]


class Queue(Protocol):
    """`jetcamer.agent.send_queue.SendQueue`."""

    @property
    def is_open(self) -> bool: ...

    @property
    def flowing(self) -> bool: ...

    def log_message(
        self,
        level: str,
        message: str,
        source: str | None,
        event: Mapping[str, Any] | None = None,
        told: Callable[[bool], None] | None = None,
    ) -> bool: ...


class _Line(NamedTuple):
    stream: Stream
    end: int
    raw: bytes
    length: int


class Live:
    """A taker (see `tail.Taker`) that sends.

    :param rate: lines a second; 0 sends none.
    :param parser_for: gives the parser for the lines of a path.
    :param changed: called when something was settled.
    """

    def __init__(
        self,
        clock: IReactorTime,
        queue: Queue,
        *,
        rate: int,
        parser_for: Callable[[str], Parser],
        changed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._queue = queue
        self._rate = rate
        self._parser_for = parser_for
        self._stopped = False
        self._parsers: dict[str, Parser] = {}
        self._changed = changed
        self._waiting: deque[_Line] = deque()
        self._waiting_bytes = 0
        #: How many lines of each stream wait, or were handed over and not written yet.
        self._unsettled: Counter[str] = Counter()
        self._handed: _Line | None = None
        self._allowance = float(rate)
        self._allowed_at = clock.seconds()
        self._reading: dict[str, Stream] = {}
        self._unreadable: set[str] = set()
        self._read_call: IDelayedCall | None = None
        self._send_call: IDelayedCall | None = None
        self._say_call: IDelayedCall | None = None
        #: Lines of each path that were suppressed and have not been spoken of.
        self._unsaid: Counter[str] = Counter()

    # A taker

    def opened(self, stream: Stream) -> None:
        self.more(stream)

    def more(self, stream: Stream) -> None:
        if self._stopped:
            return
        self._reading[stream.id] = stream
        if self._read_call is None:
            self._read()

    def closed(self, stream: Stream) -> None:
        """Lines of it that wait are still sent."""
        self._reading.pop(stream.id, None)
        self._unreadable.discard(stream.id)
        self._parsers.pop(stream.path, None)

    # The agent

    def link_changed(self) -> None:
        """The link was opened or lost."""
        if self._waiting and self._send_call is None:
            self._send()
        self._arrange_to_say()

    def stop(self) -> None:
        """What was not sent, and what is still written, is read again after a restart."""
        self._stopped = True
        for call in (self._read_call, self._send_call, self._say_call):
            if call is not None and call.active():
                call.cancel()
        self._read_call = self._send_call = self._say_call = None
        self._reading.clear()
        self._waiting.clear()

    @property
    def waiting(self) -> int:
        """Lines that wait to be sent."""
        return len(self._waiting)

    # Reading

    def _read(self) -> None:
        self._read_call = None
        for stream in tuple(self._reading.values()):
            if self._read_stream(stream):
                self._reading.pop(stream.id, None)
        if self._reading:
            self._read_call = self._clock.callLater(0, self._read)
        if self._send_call is None:
            self._send()
        self._changed()

    def _read_stream(self, stream: Stream) -> bool:
        """Whether all that is there has been read, or nothing can be read."""
        until = stream.live.position + READ_SIZE
        while stream.live.position < until:
            try:
                block = stream.live.take()
            except OSError as error:  # the tail finds it, too, and looks again
                if stream.id not in self._unreadable:
                    self._unreadable.add(stream.id)
                    log.warn(
                        "[logs] {path}: cannot be read: {why}",
                        path=stream.path,
                        why=error.strerror,
                    )
                return True
            self._unreadable.discard(stream.id)
            if block is None:
                self._settle(stream)
                return True
            if not block.data:
                return False
            self._take(stream, block)
        return False

    def _take(self, stream: Stream, block: Block) -> None:
        if self._rate == 0:
            self._suppress(stream, block.lines)
            self._settle(stream)
            return
        if len(block.data) < block.end - block.start:
            lines = [block.data]
        else:
            lines = block.data.split(b"\n")
            if not lines[-1]:
                lines.pop()
        end = block.start
        skipped = len(lines) - MAX_WAITING
        if skipped > 0:
            while self._waiting:
                self._drop_oldest()
            end += sum(map(len, lines[:skipped])) + skipped
            self._suppress(stream, skipped)
            del lines[:skipped]
        for raw in lines:
            length = len(raw) + 1 if len(lines) > 1 else block.end - end
            end = min(end + length, block.end)
            self._waiting.append(_Line(stream, end, raw, length))
            self._waiting_bytes += len(raw)
        self._unsettled[stream.id] += len(lines)
        while len(self._waiting) > MAX_WAITING or self._waiting_bytes > MAX_WAITING_BYTES:
            self._drop_oldest()

    # Sending

    def _send(self) -> None:
        self._send_call = None
        now = self._clock.seconds()
        grown = self._allowance + (now - self._allowed_at) * self._rate
        self._allowance = min(float(self._rate), grown)
        self._allowed_at = now
        while self._waiting and self._allowance >= 1 and self._handed is None:
            if not self._queue.flowing:
                break
            self._allowance -= 1
            self._hand_over(self._pop())
        if self._waiting and self._queue.is_open:
            self._send_call = self._clock.callLater(SEND_INTERVAL, self._send)

    def _hand_over(self, line: _Line) -> None:
        stream = line.stream
        parse = self._parsers.get(stream.path)
        if parse is None:
            parse = self._parsers[stream.path] = self._parser_for(stream.path)
        message = text(clean(line.raw, line.length))
        self._handed = line

        def told(written: bool) -> None:
            self._handed = None
            if written:
                stream.ledger.sent += 1
            else:
                self._suppress(stream, 1)
            self._settled(line)

        self._queue.log_message("info", message, stream.path, parse(message), told)

    # Settling: every line ends here, sent or suppressed

    def _pop(self) -> _Line:
        line = self._waiting.popleft()
        self._waiting_bytes -= len(line.raw)
        return line

    def _drop_oldest(self) -> None:
        line = self._pop()
        self._suppress(line.stream, 1)
        self._settled(line)

    def _settled(self, line: _Line) -> None:
        self._unsettled[line.stream.id] -= 1
        if self._handed is None or self._handed.stream is not line.stream:
            line.stream.live_settled = line.end
        self._settle(line.stream)
        self._changed()

    def _settle(self, stream: Stream) -> None:
        """Where nothing of it waits, everything read is settled."""
        if not self._unsettled[stream.id]:
            del self._unsettled[stream.id]
            stream.live_settled = stream.live.position

    def _suppress(self, stream: Stream, lines: int) -> None:
        stream.ledger.suppressed += lines
        self._unsaid[stream.path] += lines
        self._arrange_to_say()

    def _arrange_to_say(self) -> None:
        if self._unsaid and self._say_call is None and not self._stopped:
            self._say_call = self._clock.callLater(SAY_INTERVAL, self._say)

    def _say(self) -> None:
        self._say_call = None
        if not self._queue.flowing:
            return  # `link_changed` arranges it anew
        unsaid, self._unsaid = self._unsaid, Counter()
        for path, count in unsaid.items():
            lines = "line" if count == 1 else "lines"
            self._queue.log_message("info", f"… and {count:,} {lines} more", path)
