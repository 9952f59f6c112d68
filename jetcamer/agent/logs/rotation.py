"""Where a file's bytes went: its rotated siblings, and which of them were dealt with.

In: files as they lie there, heads. Out: those that are the same, a copy, or new.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jetcamer.agent.logs.checkpoint import Head, Known, PathState
from jetcamer.agent.logs.discovery import RefusedError, is_rotated_name, open_log
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.stream import HEAD_SIZE, digest

#: Bytes of a head by which alone a file is recognised.
MIN_HEAD = 64

#: Files that are remembered for each path.
MAX_KNOWN = 32

#: Errors that say that there is no such file.
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)

#: What a file system knows a file by.
Key = tuple[int, int]


class File(NamedTuple):
    """A regular file as it was at one moment; `mtime` in nanoseconds."""

    path: str
    key: Key
    size: int
    mtime: int
    head: bytes

    def is_as(self, status: os.stat_result) -> bool:
        """Whether nothing has changed since."""
        key = status.st_dev, status.st_ino
        return (self.key, self.size, self.mtime) == (key, status.st_size, status.st_mtime_ns)

    def has(self, head: Head) -> bool:
        """Whether it begins so."""
        return self.size >= head.size and digest(self.head[: head.size]) == head

    def is_like(self, head: bytes) -> bool:
        """Whether one of it and a file that begins with `head` may be a copy of the other, which
        takes `MIN_HEAD` bytes, or all of `head`."""
        size = min(len(head), len(self.head))
        return size >= min(len(head), MIN_HEAD) > 0 and self.head[:size] == head[:size]


def describe(path: str, fd: int, status: os.stat_result) -> File:
    """Raises ``OSError``."""
    key = status.st_dev, status.st_ino
    return File(path, key, status.st_size, status.st_mtime_ns, os.pread(fd, HEAD_SIZE, 0))


def reopen(file: File) -> tuple[int, File] | None:
    """A file that was examined, if it is still the same. Raises ``OSError``, but not where it is
    gone."""
    try:
        fd, status = open_log(file.path)
    except RefusedError:
        return None
    except OSError as error:
        if error.errno in GONE or isinstance(error, PermissionError):
            return None
        raise
    try:
        now = describe(file.path, fd, status)
    except BaseException:
        os.close(fd)
        raise
    if now.key == file.key and now.head.startswith(file.head):
        return fd, now
    os.close(fd)
    return None


def real_path(path: str) -> str | None:
    """Where the file at a path lies, if the path is a symbolic link."""
    real = os.path.realpath(path)
    folder, name = os.path.split(path)
    return None if real == os.path.join(os.path.realpath(folder), name) else real


def is_rotated_path(path: str, real: str | None, other: str) -> bool:
    """Whether `other` is named as a rotation of the file at `path` is, which may be a symbolic
    link to `real`."""
    name = os.path.basename(other)
    return any(is_rotated_name(os.path.basename(place), name) for place in (path, real or path))


class PathHistory:
    """What is remembered of a path.

    `start` is set while no file of it could be read yet: where reading is to begin in the one
    whose inode is `start_of`. `real` is where the file lies, if the path is a symbolic link.
    `mtime` is the time of change, in nanoseconds, of the newest file that was read and rotated
    away, or None. `copies` are the inodes of what was found to be a copy of the present file.
    `wanted`: the path was found by a pattern.
    """

    __slots__ = ("copies", "known", "ledger", "mtime", "real", "start", "start_of", "wanted")

    def __init__(self, ledger: Ledger, state: PathState | None = None) -> None:
        self.ledger = ledger
        self.start = None if state is None else state.start
        self.start_of = None if state is None else state.start_of
        self.real: str | None = None
        self.wanted = False
        self.mtime: int | None = None
        self.copies: set[int] = set()
        self.known: dict[int, Head] = {}
        if state is not None:
            self.known = {known.inode: known.head for known in state.known}

    def state(self) -> PathState:
        known = tuple(Known(inode, head) for inode, head in self.known.items())
        return PathState(known=known, start=self.start, start_of=self.start_of, ledger=self.ledger)

    def begin(self, file: File) -> int:
        """Where to read a file from that is the first of the path that can be read."""
        start, self.start = self.start, None
        is_other = self.start_of not in (None, file.key[1])
        self.start_of = None
        return 0 if start is None or is_other or start > file.size else start

    def remember(self, inode: int, head: Head) -> None:
        """A file was dealt with. An empty one is nothing to be known by."""
        self.known.pop(inode, None)
        if head.size:
            self.known[inode] = head
        while len(self.known) > MAX_KNOWN:
            del self.known[next(iter(self.known))]

    def knows(self, file: File) -> bool:
        head = self.known.get(file.key[1])
        if head is None or not file.has(head):
            return False
        # A file of few bytes was known as a whole.
        return head.size >= MIN_HEAD or file.size == head.size

    def remember_all(self, files: Sequence[File]) -> None:
        """What lies beside a file that is seen for the first time is none of ours."""
        for file in files[-MAX_KNOWN:]:
            self.remember(file.key[1], digest(file.head))

    def find_copy(
        self,
        files: Iterable[File],
        head: Head | bytes,
        *,
        seen: int,
        least: int,
        besides: Iterable[Key],
    ) -> File | None:
        """The copy, among siblings, that was made before a file was truncated; it has `least`
        bytes or more of the `seen` that were there.

        Where the file was too short to be recognised by its head, all of it has to be the head;
        and then only a file that was never seen before is taken for its copy.

        :param head: the file's first bytes, where they are still known.
        """
        size = len(head) if isinstance(head, bytes) else head.size
        if size < MIN_HEAD and size != seen:
            return None
        taken = set(besides)
        best: File | None = None
        for file in files:
            if not size or file.key in taken or file.size < least:
                continue
            if not (file.is_like(head) if isinstance(head, bytes) else file.has(head)):
                continue
            is_copy = size >= MIN_HEAD and file.key[1] in self.copies
            if self.knows(file) and not is_copy:
                continue
            # The newest that has everything, else the longest.
            if best is None or min(file.size, seen) >= min(best.size, seen):
                best = file
        return best

    def unread(
        self,
        files: Iterable[File],
        besides: Iterable[Key],
        heads: Iterable[bytes],
        *,
        also: bytes = b"",
        after: int | None = None,
    ) -> list[File]:
        """The siblings, of all in order, that were at the path for so short a time that nobody
        saw them there; and remembers what is only a copy.

        :param heads: how files begin of which there may be copies.
        :param also: another, which may be short.
        :param after: what was changed before that is older; by default, before `mtime`.
        """
        taken = set(besides)
        files = [file for file in files if file.key not in taken]
        if after is None:
            after = self.mtime
        if after is None:
            after = max((file.mtime for file in files if self.knows(file)), default=0)
        found = []
        for file in files:
            if not file.size or file.mtime < after or self.knows(file):
                continue
            if not self.is_copy(file, heads, also):
                found.append(file)
        return found

    def is_copy(self, file: File, heads: Iterable[bytes], also: bytes = b"") -> bool:
        """Whether it is a copy of a file that begins so; remembers it then."""
        is_long = any(len(head) >= MIN_HEAD and file.is_like(head) for head in heads)
        if not is_long and not file.is_like(also):
            return False
        self.copies.add(file.key[1])
        self.remember(file.key[1], digest(file.head))
        return True
