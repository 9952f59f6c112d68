"""Where one archived object ends and the next begins.

In: streams, as far as they have grown. Out: batches of lines, by their bounds. It only counts
lines, and holds offsets, never bytes: the files are the buffer. While `max_planned` batches are
not settled nothing more is planned. Must never hold up the reactor, however much there is to
plan, nor let one stream wait for another that has more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.agent.logs.lines import Block
from jetcamer.agent.logs.stream import Stream
from jetcamer.net.timers import Timer

log = Logger()

#: Bytes that are planned before others get their turn.
TURN_SIZE = 1 << 20


class ArchiveSettings(msgspec.Struct, frozen=True):
    #: Lines of an object.
    max_batch: int = 500
    #: Seconds that a line waits for others to fill an object with.
    flush_interval: float = 10.0
    #: Bytes of an object, as they stand in the file; one longer line is an object of its own.
    max_bytes: int = 512 << 10
    #: Objects that are planned and not yet uploaded; also of those that were POSTed.
    max_planned: int = 256
    #: Uploads at the same time, and the bytes that these may hold in memory. One may be begun
    #: whatever it needs.
    max_uploads: int = 4
    max_in_flight_bytes: int = 8 << 20


class Cutter:
    """One stream's lines, cut into batches. From `start` to `end` are `lines` lines that were
    read and are in no batch yet."""

    def __init__(self, stream: Stream, start: int, settings: ArchiveSettings) -> None:
        self.stream = stream
        self.start = self.end = start
        self.lines = 0
        self.hungry = False
        self.stale = False
        self._settings = settings

    def cut(self, block: Block) -> Iterator[tuple[int, int, int]]:
        """The batches that are full with the next lines: start, end and lines of each."""
        data = block.data
        if len(data) < block.end - block.start:  # one overlong line
            if self.lines:
                yield self.seal()
            self.end = block.end
            self.lines = 1
            yield self.seal()
            return
        max_lines, max_bytes = self._settings.max_batch, self._settings.max_bytes
        find, base, place, size = data.find, block.start, 0, len(data)
        while place < size:
            lines = self.lines
            limit = self.start + max_bytes - base
            while place < size and lines < max_lines:
                following = find(b"\n", place) + 1 or size
                if following > limit and lines:
                    break
                lines += 1
                place = following
            self.lines = lines
            self.end = base + place
            if place < size or lines == max_lines:
                yield self.seal()

    def seal(self) -> tuple[int, int, int]:
        sealed = self.start, self.end, self.lines
        self.start = self.end
        self.lines = 0
        return sealed


class Planner:
    """
    :param seal: called with a stream and the start, end and lines of a batch.
    :param turn_over: called when some were sealed, after several.
    :param stale: called with a stream whose content is not what it was.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: ArchiveSettings,
        *,
        seal: Callable[[Stream, int, int, int], None],
        turn_over: Callable[[], None],
        stale: Callable[[Stream], None],
    ) -> None:
        #: Batches that are planned and not settled.
        self.planned = 0
        self._clock = clock
        self._settings = settings
        self._seal = seal
        self._turn_over = turn_over
        self._stale = stale
        self._cutters: dict[str, Cutter] = {}
        self._hungry: deque[Cutter] = deque()
        #: When the oldest line of each was read that is in no batch yet; the oldest first.
        self._partial: dict[Cutter, float] = {}
        self._broken: set[Stream] = set()
        self._full = False
        self._running = False
        self._timer = Timer(clock)

    def start(self) -> None:
        self._running = True
        self._arrange()

    def stop(self) -> None:
        """Lines that are in no batch yet are read again after a restart."""
        self._running = False
        self._timer.stop()

    def opened(self, stream: Stream) -> None:
        assert stream.archive is not None
        self._cutters[stream.id] = Cutter(stream, stream.archive.position, self._settings)
        self._count(len(stream.batches))
        self.more(stream)

    def more(self, stream: Stream) -> None:
        cutter = self._cutters[stream.id]
        self._broken.discard(stream)
        if not cutter.hungry:
            cutter.hungry = True
            self._hungry.append(cutter)
            self._arrange()

    def closed(self, stream: Stream) -> None:
        cutter = self._cutters.pop(stream.id)
        self._partial.pop(cutter, None)
        self._broken.discard(stream)
        if cutter.hungry:
            self._hungry.remove(cutter)

    def settled(self, batches: int) -> None:
        """So many are not planned any more."""
        self.planned -= batches
        # Not at once: the end of a block that is not planned has to be read a second time.
        if self._full and self.planned <= self._settings.max_planned * 3 // 4:
            self._full = False
            self._arrange()

    def try_again(self) -> None:
        """Read what could not be read."""
        for stream in tuple(self._broken):
            self.more(stream)

    def _count(self, batches: int) -> None:
        self.planned += batches
        self._full = self.planned >= self._settings.max_planned

    def _arrange(self) -> None:
        self._timer.stop()
        if self._full or not self._running:
            return
        if self._hungry:
            self._timer.start(0, self._turn)
        elif self._partial:
            due = next(iter(self._partial.values())) + self._settings.flush_interval
            delay = max(0.0, due - self._clock.seconds())
            self._timer.start(delay, self._turn)

    def _turn(self) -> None:
        before = self.planned
        now = self._clock.seconds()
        budget = TURN_SIZE
        stale: list[Stream] = []
        while self._hungry and budget > 0 and not self._full:
            cutter = self._hungry.popleft()
            cutter.hungry = False
            size = self._read(cutter, now)
            if size is None:
                if cutter.stream.stale and not cutter.stale:
                    cutter.stale = True
                    stale.append(cutter.stream)
            else:
                cutter.stale = False
                cutter.hungry = True
                self._hungry.append(cutter)
                budget -= size
        while self._partial and not self._full:
            cutter, since = next(iter(self._partial.items()))
            if since + self._settings.flush_interval > now:
                break
            self._seal_rest(cutter)
        if self.planned != before:
            self._turn_over()
        self._arrange()
        for stream in stale:
            self._stale(stream)

    def _read(self, cutter: Cutter, now: float) -> int | None:
        """Plan the next block. How many bytes it cost; None when there is no more."""
        stream = cutter.stream
        cursor = stream.archive
        assert cursor is not None
        try:
            block = cursor.take()
        except OSError as error:
            log.warn("[logs] {path}: cannot be read: {why}", path=stream.path, why=error.strerror)
            self._broken.add(stream)
            return None
        if block is None:
            if cutter.lines and stream.complete and not stream.stale:
                self._seal_rest(cutter)
            return None
        if not block.data:  # it is looking for the end of an overlong line
            return TURN_SIZE
        for batch in cutter.cut(block):
            self._seal_batch(cutter, batch)
            if self._full:
                # What is behind it is taken again later.
                cursor.position = cutter.end
                break
        if cutter.lines and cutter not in self._partial:
            self._partial[cutter] = now
        return block.end - block.start

    def _seal_rest(self, cutter: Cutter) -> None:
        """What waits to fill a batch; unless the stream is shorter than it was, because not all
        of it found room in the spool: then what is left is taken again."""
        stream = cutter.stream
        try:
            is_there = cutter.end <= stream.source.size()
        except OSError:
            is_there = False
        if is_there:
            self._seal_batch(cutter, cutter.seal())
            return
        self._partial.pop(cutter, None)
        cutter.lines = 0
        cutter.end = cutter.start
        assert stream.archive is not None
        stream.archive.position = cutter.start
        self.more(stream)

    def _seal_batch(self, cutter: Cutter, batch: tuple[int, int, int]) -> None:
        self._partial.pop(cutter, None)
        self._seal(cutter.stream, *batch)
        self._count(1)
