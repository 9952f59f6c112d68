"""How a stream begins: from a file, from what is in the spool, where it was before a restart.

In: a file and what is remembered of its path. Out: a stream that is followed, with the takers'
places in it, and takers that were told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.agent.logs import positions
from jetcamer.agent.logs.attention import Attention
from jetcamer.agent.logs.checkpoint import StreamState
from jetcamer.agent.logs.folders import Folders
from jetcamer.agent.logs.registry import Followed, Registry, TailSettings
from jetcamer.agent.logs.rescue import Rescue
from jetcamer.agent.logs.rotation import File, PathHistory, real_path, reopen
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.stream import Cursor, Source, Stream

log = Logger()

#: Files opened in one scan that are logged one by one.
MAX_LOGGED = 20


class Opener:
    """:param archive: whether the takers have an archive among them."""

    def __init__(
        self,
        clock: IReactorTime,
        registry: Registry,
        attention: Attention,
        spool: Spool,
        folders: Folders,
        settings: TailSettings,
        *,
        archive: bool,
        now: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._attention = attention
        self._spool = spool
        self._folders = folders
        self._settings = settings
        self._now = now
        self.archive = archive
        #: The paths that are followed for their own sake.
        self.found: Container[str] = ()
        #: How many files may be open at the same time, but for those of the last checkpoint.
        self.max_open = settings.max_open
        #: Those opened in this scan; None: there is none.
        self._opened: int | None = None
        self._said: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether no more files can be opened for now."""
        return len(self._registry.followed) >= self.max_open

    def begin_scan(self) -> None:
        """Many files may be opened from now on: they are not all logged one by one."""
        self._opened = 0

    def end_scan(self) -> None:
        if self._opened is not None and self._opened > MAX_LOGGED:
            log.info("[logs] following {count} more files", count=self._opened - MAX_LOGGED)
        self._opened = None

    def siblings(self, path: str, history: PathHistory) -> list[File]:
        """See `Folders.siblings`."""
        return self._folders.siblings(path, history.real)

    def adopt(
        self, path: str, history: PathHistory, *, also: bytes = b"", after: int | None = None
    ) -> bool:
        """Follow what was at a path for so short a time that it was not seen there; see
        `PathHistory.unread`. False where that has to be tried again, which is said."""
        heads = self._registry.heads(history)
        try:
            files = self.siblings(path, history)
            for file in history.unread(files, self._registry.keys, heads, also=also, after=after):
                if file.path in self.found:
                    continue  # it is looked at for its own sake
                if self.is_full:
                    self._wait(path, f"{self.max_open} files are open already")
                    return False
                opened = reopen(file)
                if opened is not None:
                    fd, now = opened
                    self.open(now, fd, history, path=path, rotated=True)
        except OSError as error:
            self._wait(path, error.strerror or str(error))
            return False
        self._said.discard(path)
        return True

    def _wait(self, path: str, why: str) -> None:
        if path not in self._said:
            self._said.add(path)
            words = "[logs] {path}: its rotated files cannot be read for now: {why}"
            log.warn(words, path=path, why=why)

    def open(
        self,
        file: File,
        fd: int,
        history: PathHistory,
        *,
        path: str,
        start: int = 0,
        rotated: bool = False,
        state: StreamState | None = None,
    ) -> None:
        """Follow a file, which was opened as `fd`, as that of `path`.

        :param rotated: it is no longer what the path names, and grows only if it did lately.
        :param state: of the stream, if it is one that was followed before.
        """
        stream = Stream(
            os.urandom(6).hex() if state is None else state.id,
            path,
            Source(fd, head=file.head),
            history.ledger,
            device=file.key[0],
            inode=file.key[1],
            start=start,
        )
        if not rotated:
            history.real = real_path(path)
        stream.real = history.real if state is None or not rotated else state.real
        self._begin(stream, history, file.size, file.mtime, rotated, state)

    def open_spooled(self, state: StreamState, history: PathHistory) -> bool:
        """Follow what is in the spool of a stream. False where nothing is."""
        if self._spool.find(state.id) is None:
            return False
        rescue = Rescue(self._clock, self._spool, state.id, 0)
        source = rescue.source()
        if source is None:
            return False
        stream = Stream(
            state.id,
            state.path,
            source,
            history.ledger,
            device=state.device,
            inode=state.inode,
            head=state.head,
        )
        stream.real = state.real
        place = positions.slowest(state)
        size = max(0, source.base - place) + max(0, state.size - max(place, rescue.end))
        self._registry.lose(
            history.ledger, state.path, size, "the file was taken away while it was rescued"
        )
        self._begin(stream, history, rescue.end, 0, True, state, rescue)
        return True

    def _begin(
        self,
        stream: Stream,
        history: PathHistory,
        size: int,
        mtime: int,
        rotated: bool,
        state: StreamState | None,
        rescue: Rescue | None = None,
    ) -> None:
        now = self._clock.seconds()
        stream.end = size
        if rotated:
            stream.rotated_at = now
            if state is None or state.size:
                history.mtime = max(mtime, history.mtime or 0)
            grace = self._settings.rotated_grace
            stream.complete = rescue is not None or self._now() - mtime / 1e9 >= grace
        if state is not None:
            positions.resume_live(stream, state)
        followed = Followed(stream, history, mtime, now)
        followed.rescue = rescue
        followed.rescued = rescue is not None
        if self.archive:
            if state is not None:
                gone = positions.resume_archive(stream, state)
                why = "they are no longer in the file"
                self._registry.give_up(stream.ledger, stream.path, gone, why)
            else:
                stream.archive = Cursor(stream, stream.archived)
        elif state is not None and state.archive is not None:
            followed.parked = state
        followed.safe = followed.noted = min(stream.archived, stream.live_settled)
        self._registry.add(followed)
        self._log(stream, min(followed.safe, stream.end))
        if rotated:
            self._attention.poll(followed)
        else:
            self._attention.follow(followed)
        self._registry.opened(followed)

    def _log(self, stream: Stream, start: int) -> None:
        if self._opened is not None:
            self._opened += 1
            if self._opened > MAX_LOGGED:
                return
        log.info(
            "[logs] following {path}{rotated} from byte {start} of {size}",
            path=stream.path,
            rotated="" if stream.rotated_at is None else ", the rest of a rotated one,",
            start=start,
            size=stream.end,
        )
