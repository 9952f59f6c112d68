"""The unread rest of a file that was deleted, brought into the spool.

In: a stream whose file has no name any more. Out: the same bytes in the spool, from which the
stream is read on. Must never hold up the agent: it copies a slice at a time.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.stream import Source, Stream
from jetcamer.net.timers import Timer

#: Bytes that are copied in one turn.
SLICE = 1 << 20


class Rescue:
    """Of one stream, from offset `start`, or what the spool has of it already."""

    def __init__(self, clock: IReactorTime, spool: Spool, stream_id: str, start: int) -> None:
        self._spool = spool
        self._kept = spool.keep(stream_id, start)
        self._timer = Timer(clock)
        #: Why what is missing could not be copied when it was tried last; None: it could.
        self.trouble: str | None = None

    @property
    def end(self) -> int:
        """The offset up to which the bytes are in the spool."""
        return self._kept.start + self._kept.size

    def go_on(self, stream: Stream) -> bool:
        """Copy what has not been copied; to be called again when the file has grown, or when
        there may be room. Whether all is copied for which there is room."""
        if not self._timer.running:
            self._copy(stream)
        return not self._timer.running

    def stop(self) -> None:
        self._timer.stop()

    def source(self) -> Source | None:
        """What is in the spool, for reading until `close` or `remove`; None where nothing is."""
        if self._kept.fd < 0 or not self._kept.size:
            return None
        return Source(self._kept.fd, base=self._kept.start, borrowed=True)

    def close(self) -> None:
        """What is in the spool stays there."""
        self.stop()
        self._kept.close()

    def remove(self) -> None:
        """It is needed no longer."""
        self.stop()
        self._kept.remove()

    def _copy(self, stream: Stream) -> None:
        self.trouble = None
        wanted = min(SLICE, stream.end - self.end)
        if wanted <= 0:
            return
        try:
            data = stream.read(self.end, wanted)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            return
        room = max(0, self._spool.limit - self._spool.used)
        if room < len(data):  # rather no line than half a line
            data = data[: data.rfind(b"\n", 0, room) + 1]
        if self._kept.append(data) < wanted:
            self.trouble = self._spool.last_error or "the spool is full"
        elif self.end < stream.end:
            self._timer.start(0, self._copy, stream)
