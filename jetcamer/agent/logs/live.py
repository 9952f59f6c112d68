"""Log lines to the server as they are written: the taker that is always up to date.

In: streams, and the link's queue. Out: ``log`` messages, no more than so many a second, and fewer
to a server that limits them. The newest lines wait for their turn or for the link; those for which
there is no room are counted, and once a minute it is said how many there were. Must never hold up
reading: the files are read to their ends whatever the link does.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.agent.logs.lines import Block, Parser, clean, text
from jetcamer.agent.logs.pace import Pace
from jetcamer.agent.logs.stream import Stream
from jetcamer.net.timers import Timer

log = Logger()

#: What waits at most: lines, and bytes of them.
MAX_WAITING = 1000
MAX_WAITING_BYTES = 1 << 20

#: Bytes that are read before the rest of the agent gets its turn.
TURN_SIZE = 1 << 20

#: Seconds between two looks at whether more may be sent, while lines wait and the link is open.
SEND_INTERVAL = 0.25

#: And while lines wait for their turn, at least so many.
SHORTEST_INTERVAL = 0.05

#: Seconds between two messages that say how many lines of a path were suppressed, and the paths
#: that are spoken of at once.
SAY_INTERVAL = 60.0
MAX_SAID = 50


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
    start: int
    end: int
    raw: bytes


class Live:
    """A taker (see `tail.Taker`) that sends.

    :param rate: the most lines in any second; 0 sends none.
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
        self._pace = Pace(clock, rate) if rate > 0 else None
        self._parser_for = parser_for
        self._stopped = False
        self._parsers: dict[str, Parser] = {}
        self._changed = changed
        self._waiting: deque[_Line] = deque()
        self._waiting_bytes = 0
        #: How many lines of each stream wait, or were handed over and not written yet.
        self._unsettled: Counter[str] = Counter()
        self._handed: _Line | None = None
        #: Lines behind that one that were suppressed: they count when their place does.
        self._held = 0
        #: How many of those that wait were there when the link was opened: the oldest.
        self._overdue = 0
        self._was_open = False
        #: Streams of which a line was settled, and perhaps the last one.
        self._touched: set[Stream] = set()
        self._reading: dict[str, Stream] = {}
        self._unreadable: set[str] = set()
        self._read_timer = Timer(clock)
        self._send_timer = Timer(clock)
        self._say_timer = Timer(clock)
        #: Lines of each path that were suppressed and have not been spoken of.
        self._unsaid: Counter[str] = Counter()

    # A taker

    def opened(self, stream: Stream) -> None:
        self.more(stream)

    def more(self, stream: Stream) -> None:
        if self._stopped:
            return
        self._reading[stream.id] = stream
        if not self._read_timer.running:
            self._read()

    def closed(self, stream: Stream) -> None:
        """Lines of it that wait are still sent."""
        self._reading.pop(stream.id, None)
        self._unreadable.discard(stream.id)
        self._parsers.pop(stream.path, None)

    # The agent

    def link_changed(self) -> None:
        """The link was opened or lost."""
        was_open, self._was_open = self._was_open, self._queue.is_open
        if self._pace is not None and not self._stopped and was_open != self._was_open:
            if self._was_open:
                self._overdue = len(self._waiting)
                self._pace.opened()
            else:
                self._pace.stop()
        if self._waiting and not self._send_timer.running:
            self._send()
        self._arrange_to_say()

    def server_limits(self) -> None:
        """The server closed the link because of too many messages."""
        if self._pace is not None and self._pace.refused():
            log.warn(
                "[logs] the server limits messages: sending at most {rate} lines a second",
                rate=self.rate,
            )

    def stop(self) -> None:
        """What was not sent, and what is still written, is read again after a restart."""
        if self._queue.flowing:
            self._say_more()
        self._stopped = True
        for timer in (self._read_timer, self._send_timer, self._say_timer):
            timer.stop()
        if self._pace is not None:
            self._pace.stop()
        self._reading.clear()
        self._waiting.clear()

    @property
    def waiting(self) -> int:
        """Lines that wait to be sent."""
        return len(self._waiting)

    @property
    def rate(self) -> int:
        """The most lines that are sent in a second now."""
        return 0 if self._pace is None else int(self._pace.rate)

    # Reading

    def _read(self) -> None:
        budget = TURN_SIZE
        while self._reading and budget > 0:
            stream = self._reading.pop(next(iter(self._reading)))
            size = self._read_block(stream)
            if size is not None:
                budget -= size
                self._reading[stream.id] = stream  # after the others
        if self._reading:
            self._read_timer.start(0, self._read)
        self._settle()
        if not self._send_timer.running:
            self._send()

    def _read_block(self, stream: Stream) -> int | None:
        """Its size; None where all has been read, or nothing can be."""
        try:
            block = stream.live.take()
        except OSError as error:  # the tail finds it, too, and looks again
            if stream.id not in self._unreadable:
                self._unreadable.add(stream.id)
                log.warn(
                    "[logs] {path}: cannot be read: {why}", path=stream.path, why=error.strerror
                )
            return None
        self._unreadable.discard(stream.id)
        self._touched.add(stream)
        if block is None:
            return None
        if block.data:
            self._take(stream, block)
        return block.end - block.start or TURN_SIZE

    def _take(self, stream: Stream, block: Block) -> None:
        if self._pace is None:
            self._suppress(stream, block.lines)
            return
        if stream.end - block.end >= MAX_WAITING_BYTES:  # newer ones will take all the room
            self._drop(len(self._waiting))
            self._suppress(stream, block.lines)
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
            self._drop(len(self._waiting))
            end += sum(map(len, lines[:skipped])) + skipped
            self._suppress(stream, skipped)
            del lines[:skipped]
        self._unsettled[stream.id] += len(lines)
        if skipped > 0:
            self._settle_to(stream, end)
        for raw in lines:
            start, end = end, min(end + len(raw) + 1, block.end) if len(lines) > 1 else block.end
            self._waiting.append(_Line(stream, start, end, raw))
            self._waiting_bytes += len(raw)
        self._drop(len(self._waiting) - MAX_WAITING)
        while self._waiting_bytes > MAX_WAITING_BYTES:
            self._drop(1)

    # Sending

    def _send(self) -> None:
        pace, interval = self._pace, SEND_INTERVAL
        while pace and self._waiting and self._handed is None and self._queue.flowing:
            wait = pace.wait(waited=self._overdue > 0)
            if wait > 0:
                interval = max(wait, SHORTEST_INTERVAL)
                break
            pace.sent()
            self._hand_over(self._pop())
        self._settle()
        if self._waiting and self._queue.is_open:
            self._send_timer.start(interval, self._send)

    def _hand_over(self, line: _Line) -> None:
        stream = line.stream
        parse = self._parsers.get(stream.path)
        if parse is None:
            parse = self._parsers[stream.path] = self._parser_for(stream.path)
        message = text(clean(line.raw, line.end - line.start))
        self._handed = line

        def told(written: bool) -> None:
            self._handed = None
            if written:
                stream.ledger.sent += 1
            else:
                self._suppress(stream, 1)
            self._settled(line)
            if self._held:
                stream.ledger.suppressed += self._held
                self._held = 0
                behind = (each.start for each in self._waiting if each.stream is stream)
                stream.live_settled = next(behind, stream.live.position)
            self._settle()

        self._queue.log_message("info", message, stream.path, parse(message), told)

    # Settling: every line ends here, sent or suppressed

    def _pop(self) -> _Line:
        line = self._waiting.popleft()
        self._waiting_bytes -= len(line.raw)
        self._overdue = max(0, self._overdue - 1)
        return line

    def _drop(self, count: int) -> None:
        """The oldest lines make way."""
        for _ in range(count):
            line = self._pop()
            self._suppress(line.stream, 1)
            self._settled(line)

    def _settled(self, line: _Line) -> None:
        stream = line.stream
        self._unsettled[stream.id] -= 1
        self._settle_to(stream, line.end)
        self._touched.add(stream)

    def _settle_to(self, stream: Stream, end: int) -> None:
        # What was handed over before it may yet have to be sent again.
        if self._handed is None or self._handed.stream is not stream:
            stream.live_settled = end

    def _settle(self) -> None:
        """Of streams of which nothing waits any more, everything read is settled."""
        for stream in self._touched:
            if not self._unsettled[stream.id]:
                del self._unsettled[stream.id]
                stream.live_settled = stream.live.position
        if self._touched:
            self._touched.clear()
            self._changed()

    def _suppress(self, stream: Stream, lines: int) -> None:
        if self._handed is not None and self._handed.stream is stream:
            self._held += lines
        else:
            stream.ledger.suppressed += lines
        self._unsaid[stream.path] += lines
        self._arrange_to_say()

    def _arrange_to_say(self) -> None:
        if self._unsaid and not self._say_timer.running and not self._stopped:
            self._say_timer.start(SAY_INTERVAL, self._say)

    def _say(self) -> None:
        if not self._queue.flowing:
            if self._queue.is_open:  # else `link_changed` arranges it anew
                self._arrange_to_say()
            return
        self._say_more()

    def _say_more(self) -> None:
        for path in list(self._unsaid)[:MAX_SAID]:
            count = self._unsaid.pop(path)
            lines = "line" if count == 1 else "lines"
            self._queue.log_message("info", f"… and {count:,} {lines} more", path)
        self._arrange_to_say()
