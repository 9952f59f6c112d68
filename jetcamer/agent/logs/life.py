"""The life of one stream: it grows, is rotated away, truncated or deleted, and is over.

In: looks. Out: streams whose `end`, `source` and `complete` are as the file is, and takers that
were told. Reads no line, only heads, and what has to be rescued.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.agent.logs import positions
from jetcamer.agent.logs.attention import Attention
from jetcamer.agent.logs.folders import Folders
from jetcamer.agent.logs.opening import Opener
from jetcamer.agent.logs.registry import Followed, Registry, TailSettings
from jetcamer.agent.logs.rescue import Rescue
from jetcamer.agent.logs.rotation import File, is_rotated_path, real_path, reopen
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.stream import Source, Stream
from jetcamer.agent.logs.watch import Watcher

log = Logger()


class Life:
    """:param archive: whether the takers have an archive among them.
    :param admit: called with a path at which there may be a new file.
    """

    def __init__(
        self,
        clock: IReactorTime,
        registry: Registry,
        spool: Spool,
        watcher: Watcher | None,
        folders: Folders,
        settings: TailSettings,
        *,
        archive: bool,
        now: Callable[[], float],
        admit: Callable[[str], None],
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._spool = spool
        self._folders = folders
        self._settings = settings
        self._admit = admit
        self.attention = Attention(clock, settings, watcher, self.look, folders.new_turn)
        self.opener = Opener(
            clock, registry, self.attention, spool, folders, settings, archive=archive, now=now
        )
        #: What is in the spool of closed streams, until that they are closed is surely on disk.
        self._leftovers: list[tuple[float, Rescue]] = []

    def at_other_path(self, followed: Followed, path: str) -> None:
        """A followed file is found at another path; or now only there, and then that is its."""
        stream = followed.stream
        if stream.rotated_at is None or stream.complete or path in self._registry.current:
            return
        if path != stream.path and is_rotated_path(stream.path, stream.real, path):
            return
        followed.history = self._registry.history(path)
        followed.history.start = None
        followed.history.wanted = True
        followed.history.real = stream.real = real_path(path)
        stream.path = path
        stream.ledger = followed.history.ledger
        stream.rotated_at = None
        self._registry.add(followed)
        self.attention.follow(followed)

    # Looks

    def is_followed(self, path: str, status: os.stat_result | None) -> bool:
        """Whether the file at a path is followed; looks at it where it changed.

        :param status: of what is at the path; None: it is what it was.
        """
        current = self._registry.current.get(path)
        if current is None:
            return False
        if status is None:
            try:
                size = os.fstat(current.stream.source.fd).st_size
            except OSError:
                size = -1
        else:
            is_other = current.key != (status.st_dev, status.st_ino)
            size = -1 if is_other else status.st_size
        if size != current.stream.end:
            self.attention.wake(current)  # not every file system wakes us
        return path in self._registry.current

    def look_around(self) -> None:
        """What is due now and then."""
        for followed in tuple(self._registry.followed.values()):
            stream = followed.stream
            if followed.trouble is not None:
                self._try_again(followed)
            elif stream.rotated_at is None:
                if stream.path not in self.opener.found:
                    self.attention.wake(followed)
            elif not stream.complete:
                self.opener.adopt(stream.path, followed.history)
        before = self._clock.seconds() - self._settings.scan_interval
        while self._leftovers and self._leftovers[0][0] <= before:
            self._leftovers.pop(0)[1].remove()

    def look_closer(self, followed: Followed) -> None:
        """Look at it, also if it is idle."""
        if self.attention.is_idle(followed):
            self.attention.wake(followed)
        else:
            self._folders.new_turn()
            self.look(followed)

    def look(self, followed: Followed) -> bool:
        """Whether the file has changed since the last look. Never raises."""
        try:
            return self._look(followed)
        except OSError as error:
            self._in_trouble(followed, error)
        except Exception:
            log.failure("[logs] {path}: looking at it failed", path=followed.stream.path)
        return False

    def _look(self, followed: Followed) -> bool:
        stream = followed.stream
        if followed.rescued:
            self._age(followed, None)
            return False
        status = os.fstat(stream.source.fd)
        size = status.st_size
        changed = size != stream.end or status.st_mtime_ns != followed.mtime
        if size < stream.end or stream.stale or (changed and not stream.source.is_same()):
            self._truncated(followed)
            return True
        if size > stream.end and stream.complete and _ends_with_a_line(stream):
            stream.complete = False  # a writer had it open for longer than is usual
        if changed and not stream.complete:
            if not stream.end and stream.rotated_at is None:
                # It may have been written, copied and truncated before.
                path, head = stream.path, stream.source.head or b""
                if not self.opener.adopt(path, followed.history, also=head, after=followed.mtime):
                    return True
            followed.mtime = status.st_mtime_ns
            followed.changed_at = self._clock.seconds()
            if size != stream.end:
                stream.end = size
                self._registry.more(followed)
        if followed.trouble is not None:
            raise followed.trouble
        if followed.said:
            followed.said = False
            log.info("[logs] {path}: can be read again", path=stream.path)
        if stream.rotated_at is None:
            if not _is_at_its_path(followed):
                self._rotated(followed)
        else:
            self._age(followed, status)
        return changed

    def _rotated(self, followed: Followed) -> None:
        stream = followed.stream
        stream.rotated_at = self._clock.seconds()
        followed.history.mtime = followed.mtime
        self._registry.leave(followed)
        self._registry.changed()
        self.attention.poll(followed)
        self.opener.adopt(stream.path, followed.history)
        self._admit(stream.path)

    def _truncated(self, followed: Followed) -> None:
        """What was there before is another stream than what comes now."""
        stream, history = followed.stream, followed.history
        seen = max(stream.end, stream.live.position)
        needed = stream.live_settled
        if stream.archive is not None:
            seen = max(seen, stream.archive.position)
            needed = min(needed, stream.archived)
        elif followed.parked is not None:
            needed = min(needed, positions.first_needed(followed.parked))
        head = stream.source.head or b""
        opened = self._open_copy(followed, head, seen, needed)
        was_current = self._registry.leave(followed)
        self.attention.drop(followed)
        self._registry.release(followed)
        history.mtime = followed.mtime
        if opened is None:
            self._lose(followed, seen, 0)
            self.close(followed, remember=False)
        else:
            self._move_to_copy(followed, *opened, seen)
        if was_current:
            self._admit(stream.path)
        self.opener.adopt(stream.path, history, also=head)

    def _open_copy(
        self, followed: Followed, head: bytes, seen: int, least: int
    ) -> tuple[int, File] | None:
        """Raises ``OSError`` where it cannot be told whether there is a copy."""
        path, history = followed.stream.path, followed.history
        for _ in range(2):
            copy = history.find_copy(
                self.opener.siblings(path, history),
                head,
                seen=seen,
                least=least,
                besides=self._registry.keys,
            )
            opened = None if copy is None else reopen(copy)
            if opened is not None:
                return opened
            self._folders.new_turn()  # it may be younger than what we know of its folder
        return None

    def _move_to_copy(self, followed: Followed, fd: int, file: File, seen: int) -> None:
        stream = followed.stream
        stream.move(Source(fd, head=file.head))
        stream.device, stream.inode = file.key
        followed.key, followed.mtime = file.key, file.mtime
        stream.end = file.size
        if stream.rotated_at is None:
            stream.rotated_at = self._clock.seconds()
        stream.complete = True  # nobody writes to a copy
        self._lose(followed, seen, file.size)
        self._registry.add(followed)
        self.attention.poll(followed)
        self._registry.more(followed)

    # The end

    def _age(self, followed: Followed, status: os.stat_result | None) -> None:
        """:param status: None where the file is read no longer, but the spool."""
        stream = followed.stream
        assert stream.rotated_at is not None
        if not stream.complete:
            since = max(stream.rotated_at, followed.changed_at)
            if self._clock.seconds() - since >= self._settings.rotated_grace:
                stream.complete = True
                self._registry.more(followed)
            elif stream.path not in self._registry.current:
                self._look_for_successor(followed)
        if stream.complete and (stream.settled or _is_at_a_loss(stream)):
            if followed.parked is not None:
                self._lose(followed, stream.end, 0, "nothing is archived")
            if status is not None:
                self._lose_late(stream, status.st_size)
            self.close(followed)
        elif status is not None and status.st_nlink == 0 and stream.archive is not None:
            self._rescue(followed, status.st_size)

    def _look_for_successor(self, followed: Followed) -> None:
        """What takes a file's place may come a little later."""
        path = followed.stream.path
        folder = self._folders.signature(os.path.dirname(path))
        if folder is None or folder != followed.folder or followed.stream.real is not None:
            followed.folder = folder
            self.opener.adopt(path, followed.history)
            self._admit(path)

    def _lose_late(self, stream: Stream, size: int) -> None:
        """Count what was written after a last line that had no line feed."""
        why = "the last line, without a line feed, was taken for whole before"
        self._registry.lose(stream.ledger, stream.path, size - stream.end, why)

    def _rescue(self, followed: Followed, size: int) -> None:
        stream, rescue = followed.stream, followed.rescue
        assert stream.archive is not None
        if rescue is None:
            if followed.safe >= stream.end:
                return
            rescue = Rescue(self._clock, self._spool, stream.id, followed.safe)
            followed.rescue = rescue
        over = rescue.go_on(stream)
        if not over or not stream.complete or stream.live.position < stream.end:
            return
        # The disk gets its room back.
        self._lose_late(stream, size)
        self._lose(followed, stream.end, rescue.end, rescue.trouble)
        source = rescue.source()
        if source is None:
            self.close(followed)
            return
        stream.move(source)
        stream.end = rescue.end
        if stream.batches and stream.batches[-1].end > rescue.end:
            # They are counted as given up when their turn comes; say it now.
            words = f"lines that wait for S3 are lost, for {rescue.trouble or 'they are gone'}"
            self._registry.tell_of_loss(stream.path, words)
        followed.rescued = True
        self._registry.release(followed)
        self._registry.changed()

    def close(self, followed: Followed, *, remember: bool = True) -> None:
        """The stream is over, and what is lost of it counted."""
        stream = followed.stream
        self.attention.drop(followed)
        if remember and not followed.rescued and os.fstat(stream.source.fd).st_nlink:
            followed.history.remember(stream.inode, stream.head)
        self._registry.remove(followed)
        self._registry.closed(followed)
        stream.source.close()
        if followed.rescue is not None:
            followed.rescue.stop()
            self._leftovers.append((self._clock.seconds(), followed.rescue))

    def _lose(self, followed: Followed, seen: int, kept: int, why: str | None = None) -> None:
        """Count what was not read of the bytes between what is `kept` and what was `seen`."""
        stream = followed.stream
        place = stream.live.position
        if stream.archive is not None:
            planned = stream.batches[-1].end if stream.batches else stream.archived
            place = min(place, planned)
        elif followed.parked is not None:
            place = min(place, positions.slowest(followed.parked))
        why = why or "it was truncated or taken away"
        self._registry.lose(stream.ledger, stream.path, seen - max(kept, place), why)
        if followed.parked is not None and not kept:
            lines = positions.planned_lines(followed.parked)
            self._registry.give_up(stream.ledger, stream.path, lines, why)
            followed.parked = None

    # Trouble

    def _in_trouble(self, followed: Followed, error: OSError) -> None:
        followed.trouble = error
        self.attention.drop(followed)
        stream = followed.stream
        if not followed.said:
            followed.said = True
            words = "[logs] {path}: cannot be read for now: {why}"
            log.warn(words, path=stream.path, why=error.strerror or str(error))
        if error.errno == errno.ESTALE:  # it is gone from its server
            self._lose(followed, stream.end, 0, error.strerror)
            self.close(followed, remember=False)

    def _try_again(self, followed: Followed) -> None:
        """It was in trouble."""
        followed.trouble = None
        if followed.stream.rotated_at is None:
            self.attention.follow(followed)
        else:
            self.attention.poll(followed)
        self._registry.more(followed)
        self.look(followed)

    def stop(self) -> None:
        self.attention.stop()
        for followed in self._registry.followed.values():
            followed.stream.source.close()
            if followed.rescue is not None:
                followed.rescue.close()
        for _, rescue in self._leftovers:
            rescue.close()  # after the next start nobody knows it, and it is swept away


def _is_at_its_path(followed: Followed) -> bool:
    try:
        status = os.stat(followed.stream.path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # that cannot be known
    return followed.key == (status.st_dev, status.st_ino)


def _ends_with_a_line(stream: Stream) -> bool:
    """Whether what has been seen of it does: then what follows begins another."""
    source, end = stream.source, stream.end
    return end <= source.base or source.read(end - 1, 1) == b"\n"


def _is_at_a_loss(stream: Stream) -> bool:
    """Whether all that is left to upload was planned from more than there is by now."""
    batches = stream.batches
    return bool(batches) and batches[0].end > stream.end and stream.live_settled >= stream.end
