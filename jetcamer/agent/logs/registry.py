"""The streams that are open, and what is remembered of their paths.

In: streams as they come and go. Out: the same by id, by file and by path; calls of the takers.
Touches no file.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Protocol

import msgspec
from twisted.logger import Logger

from jetcamer.agent.logs.checkpoint import StreamState
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.rescue import Rescue
from jetcamer.agent.logs.rotation import Key, PathHistory
from jetcamer.agent.logs.stream import Stream

log = Logger()

#: Paths without a file that are remembered one by one; the counts of others are added up.
MAX_GONE = 256

#: The path under which they are.
EARLIER = "(earlier files)"


class Taker(Protocol):
    """Who reads streams. A call that raises is logged, and hurts nobody else; for ``OSError`` it
    is made again when the file can be read."""

    def opened(self, stream: Stream) -> None:
        """A stream to read from, its cursors set; there may be something in it already."""

    def more(self, stream: Stream) -> None:
        """It grew, or became complete: a last line without its line feed counts from now on."""

    def closed(self, stream: Stream) -> None:
        """The last call. What was not read is lost, and counted in the ledger; what was planned
        and not uploaded is the archive's to count."""


class TailSettings(msgspec.Struct, frozen=True):
    """Seconds, and a number of files."""

    #: Between two searches for files.
    scan_interval: float = 10.0
    #: Between two looks at a busy file.
    active_interval: float = 0.25
    #: Between two looks at a file that was rotated away, or that is idle and cannot be watched.
    poll_interval: float = 1.0
    #: Without a change, after which a file is idle.
    idle_after: float = 5.0
    #: Without a change, after which nothing more is expected of a file that was rotated away.
    rotated_grace: float = 60.0
    max_files: int = 512
    #: With those that were rotated away and are needed still.
    max_open: int = 2048


class Followed:
    """An open stream and what the tail keeps about it."""

    __slots__ = (
        "changed_at",
        "folder",
        "history",
        "key",
        "mtime",
        "noted",
        "parked",
        "rescue",
        "rescued",
        "safe",
        "said",
        "stream",
        "trouble",
    )

    def __init__(self, stream: Stream, history: PathHistory, mtime: int, now: float) -> None:
        self.stream = stream
        self.history = history
        self.key = (stream.device, stream.inode)
        #: As it was at the last look: nanoseconds.
        self.mtime = mtime
        #: When a look found a change, by the clock.
        self.changed_at = now
        #: Up to where all was settled at the last snapshot but one, and at the last: the former
        #: is on disk.
        self.safe = self.noted = 0
        #: The archive's place at the last checkpoint, while there is no archive.
        self.parked: StreamState | None = None
        self.rescue: Rescue | None = None
        #: The stream is read from the spool.
        self.rescued = False
        #: Why it could not be read, and whether that was said.
        self.trouble: OSError | None = None
        self.said = False
        #: The state of its path's folder when something was looked for there: see
        #: `Folders.signature`.
        self.folder: tuple[int, ...] | None = None


#: Tells the server: level, words, path.
Say = Callable[[str, str, str | None], object]


def unheard(level: str, words: str, path: str | None) -> None:
    """The `Say` of who has no server."""


class Registry:
    """:param ledgers: by path; those of new paths are added.
    :param say: tells the server that something was lost: level, words, path.
    """

    def __init__(
        self,
        takers: Sequence[Taker],
        ledgers: dict[str, Ledger],
        changed: Callable[[], None],
        say: Say,
    ) -> None:
        self._say = say
        self.takers = list(takers)
        self.ledgers = ledgers
        self.changed = changed
        #: By id.
        self.streams: dict[str, Stream] = {}
        self.followed: dict[str, Followed] = {}
        #: By what the file system knows the file by.
        self.keys: dict[Key, Followed] = {}
        #: By path: those that are what the path names.
        self.current: dict[str, Followed] = {}
        self.histories: dict[str, PathHistory] = {}

    def add(self, followed: Followed) -> None:
        stream = followed.stream
        self.streams[stream.id] = stream
        self.followed[stream.id] = followed
        if not followed.rescued:
            self.keys[followed.key] = followed
        if stream.rotated_at is None:
            self.current[stream.path] = followed
        self.changed()

    def lose(self, ledger: Ledger, path: str, size: int, why: str) -> None:
        """Count and say that bytes are lost, if any are."""
        if size <= 0:
            return
        ledger.missed_bytes += size
        self.tell_of_loss(path, f"{size:,} bytes were lost before they were read: {why}")

    def give_up(self, ledger: Ledger, path: str, lines: int, why: str) -> None:
        """Count and say that lines are lost that were read already, if any are."""
        if lines <= 0:
            return
        ledger.given_up += lines
        self.tell_of_loss(path, f"{lines:,} lines were lost after they were read: {why}")

    def tell_of_loss(self, path: str, words: str) -> None:
        log.warn("[logs] {path}: {words}", path=path, words=words)
        self._say("warn", words, path)

    def remove(self, followed: Followed) -> None:
        stream = followed.stream
        self.streams.pop(stream.id, None)
        self.followed.pop(stream.id, None)
        self.release(followed)
        self.leave(followed)
        self.changed()

    def leave(self, followed: Followed) -> bool:
        """It is no longer what its path names. Whether it was."""
        path = followed.stream.path
        if self.current.get(path) is not followed:
            return False
        del self.current[path]
        return True

    def release(self, followed: Followed) -> None:
        """It is no longer read from its file; another may get its number."""
        if self.keys.get(followed.key) is followed:
            del self.keys[followed.key]

    def note(self) -> None:
        """The positions as they are now go to disk."""
        for followed in self.followed.values():
            stream = followed.stream
            followed.safe = followed.noted
            followed.noted = min(stream.archived, stream.live_settled)

    def history(self, path: str) -> PathHistory:
        """Made where there is none."""
        history = self.histories.get(path)
        if history is None:
            ledger = self.ledgers.setdefault(path, Ledger())
            history = self.histories[path] = PathHistory(ledger)
        return history

    def heads(self, history: PathHistory) -> list[bytes]:
        """How the open files of a path begin."""
        return [
            one.stream.source.head or b""
            for one in self.followed.values()
            if one.history is history
        ]

    def forget_gone(self, found: Container[str]) -> None:
        """Of paths that have had no file for long, only the sums are kept."""
        if len(self.histories) <= MAX_GONE:
            return
        used = {followed.stream.path for followed in self.followed.values()}
        gone = [
            path
            for path in self.histories
            if path not in found and path not in used and path != EARLIER
        ]
        if len(gone) <= MAX_GONE:
            return
        earlier = self.history(EARLIER).ledger
        for path in gone[:-MAX_GONE]:
            ledger = self.histories.pop(path).ledger
            self.ledgers.pop(path, None)
            earlier.add(ledger)
        self.changed()

    # The takers

    def add_taker(self, taker: Taker) -> None:
        self.takers.append(taker)
        for followed in tuple(self.followed.values()):
            self._tell(followed, [taker.opened])
        self.changed()

    def opened(self, followed: Followed) -> None:
        self._tell(followed, [taker.opened for taker in self.takers])

    def more(self, followed: Followed) -> None:
        self._tell(followed, [taker.more for taker in self.takers])

    def closed(self, followed: Followed) -> None:
        self._tell(followed, [taker.closed for taker in self.takers])

    def _tell(self, followed: Followed, calls: Sequence[Callable[[Stream], None]]) -> None:
        for call in calls:
            try:
                call(followed.stream)
            except OSError as error:
                followed.trouble = error
            except Exception:
                log.failure("[logs] {path}: a taker failed", path=followed.stream.path)
