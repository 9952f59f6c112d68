"""Where a file's bytes went: its rotated siblings, and which of them were dealt with.

In: paths, heads. Out: files that are the same, a copy, or new. Opens files only to read their
first bytes; keeps none open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from jetcamer.agent.logs.checkpoint import Head, Known, PathState, StreamState
from jetcamer.agent.logs.discovery import RefusedError, is_rotated_name, open_log
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.stream import HEAD_SIZE, digest

#: Bytes of a head by which alone a file is recognised.
MIN_HEAD = 64

#: Files that are remembered for each path.
MAX_KNOWN = 32

#: What a file system knows a file by.
Key = tuple[int, int]


class File(NamedTuple):
    """A regular file as it was at one moment; `mtime` in nanoseconds."""

    path: str
    key: Key
    size: int
    mtime: int
    head: bytes

    def has(self, head: Head) -> bool:
        """Whether it begins so."""
        return self.size >= head.size and digest(self.head[: head.size]) == head

    def is_like(self, head: bytes) -> bool:
        """Whether one of it and a file that begins with `head` may be a copy of the other, which
        takes `MIN_HEAD` bytes, or all of `head`."""
        size = min(len(head), len(self.head))
        return size >= min(len(head), MIN_HEAD) > 0 and self.head[:size] == head[:size]


def examine(path: str) -> File:
    """Raises `RefusedError` or ``OSError``."""
    fd, status = open_log(path)
    try:
        return describe(path, fd, status)
    finally:
        os.close(fd)


def describe(path: str, fd: int, status: os.stat_result) -> File:
    """Raises ``OSError``."""
    key = status.st_dev, status.st_ino
    return File(path, key, status.st_size, status.st_mtime_ns, os.pread(fd, HEAD_SIZE, 0))


def reopen(file: File) -> tuple[int, File] | None:
    """A file that was examined, if it is still the same."""
    try:
        fd, status = open_log(file.path)
    except (OSError, RefusedError):
        return None
    try:
        now = describe(file.path, fd, status)
    except OSError:
        os.close(fd)
        return None
    if now.key == file.key and now.head.startswith(file.head):
        return fd, now
    os.close(fd)
    return None


def siblings(path: str) -> list[File]:
    """The files beside `path` that look like rotated ones of it, oldest first. Those that cannot
    be read are left out."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]

    def is_rotated(entry: os.DirEntry[str]) -> bool:
        return entry.name.startswith(stem) and is_rotated_name(name, entry.name)

    return _files(folder, is_rotated)


def _files(folder: str, wanted: Callable[[os.DirEntry[str]], bool]) -> list[File]:
    found = []
    try:
        with os.scandir(folder) as entries:
            paths = [entry.path for entry in entries if wanted(entry)]
    except OSError:
        return []
    for path in paths:
        try:
            found.append(examine(path))
        except (OSError, RefusedError):
            continue
    found.sort(key=lambda file: file.mtime)
    return found


class PathHistory:
    """What is remembered of a path.

    `start` is set while no file of it could be read yet: where reading is to begin. `mtime` is
    the time of change, in nanoseconds, of the newest file that was read and rotated away, or
    None. `copies` are the inodes of what was found to be a copy of the present file. `wanted`:
    the path was found by a pattern.
    """

    __slots__ = ("copies", "known", "ledger", "mtime", "start", "wanted")

    def __init__(self, ledger: Ledger, state: PathState | None = None) -> None:
        self.ledger = ledger
        self.start = None if state is None else state.start
        self.wanted = False
        self.mtime: int | None = None
        self.copies: set[int] = set()
        self.known: dict[int, Head] = {}
        if state is not None:
            self.known = {known.inode: known.head for known in state.known}

    def state(self) -> PathState:
        known = tuple(Known(inode, head) for inode, head in self.known.items())
        return PathState(known=known, start=self.start, ledger=self.ledger)

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

    def remember_siblings(self, path: str) -> None:
        """What lies beside a file that is seen for the first time is none of ours."""
        for file in siblings(path)[-MAX_KNOWN:]:
            self.remember(file.key[1], digest(file.head))

    def find_copy(
        self, path: str, head: Head | bytes, *, seen: int, least: int, besides: Iterable[Key]
    ) -> File | None:
        """The copy that was made before the file at `path` was truncated; it has `least` bytes or
        more of the `seen` that were there.

        Where the file was too short to be recognised by its head, all of it has to be the head;
        and then only a file that was never seen before is taken for its copy.

        :param head: the file's first bytes, where they are still known.
        """
        size = len(head) if isinstance(head, bytes) else head.size
        if size < MIN_HEAD and size != seen:
            return None
        taken = set(besides)
        best: File | None = None
        for file in siblings(path):
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
        path: str,
        besides: Iterable[Key],
        heads: Iterable[bytes],
        *,
        also: bytes = b"",
        after: int | None = None,
    ) -> list[File]:
        """The files that were at `path` for so short a time that nobody saw them there, oldest
        first; and remembers what is only a copy.

        :param heads: how files begin of which there may be copies.
        :param also: another, which may be short.
        :param after: what was changed before that is older; by default, before `mtime`.
        """
        taken = set(besides)
        files = [file for file in siblings(path) if file.key not in taken]
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


def find_renamed(state: StreamState) -> File | None:
    """The file of a stream as it was at the last checkpoint: at its path, or elsewhere in the
    same folder. Raises ``OSError`` where it lies at its path and cannot be read."""
    try:
        status = os.stat(state.path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    else:
        if status.st_ino == state.inode:
            try:
                file = examine(state.path)
            except RefusedError:
                return None
            if _is_of(state, file):
                return file
    folder, name = os.path.split(state.path)
    for file in _files(folder, lambda entry: entry.inode() == state.inode):
        if file.path == state.path or not _is_of(state, file):
            continue
        # Few bytes show nothing where the inode may have been given to any other file.
        if state.head.size >= MIN_HEAD or is_rotated_name(name, os.path.basename(file.path)):
            return file
    return None


def _is_of(state: StreamState, file: File) -> bool:
    if file.key[1] != state.inode or not file.has(state.head):
        return False
    # The number of a device may be another after the machine was started anew.
    return file.key[0] == state.device or state.head.size >= MIN_HEAD
