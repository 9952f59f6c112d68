"""One file's bytes, from its birth or truncation to its end, and who has read how far.

In: an open file. Out: whole lines, for each taker from its own `Cursor`. Offsets count from the
stream's first byte, wherever its bytes lie by now: in the file, in a copy of it, or in the spool.
Must never give bytes of another file, nor of this one after it was truncated.
"""

from __future__ import annotations

import os
from collections import deque
from hashlib import blake2b

from jetcamer.agent.logs.checkpoint import Batch, Head, StreamState
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.lines import MAX_LINE, Block

#: Bytes of a file's beginning that it is known by, beside its inode.
HEAD_SIZE = 256

#: Bytes read at once.
BLOCK_SIZE = 1 << 18

#: Bytes of one overlong line that are searched for its end before others get their turn.
SEARCH_SIZE = 1 << 23


def digest(head: bytes) -> Head:
    """The head of a file as the checkpoint holds it: a log's content is nobody's business there."""
    return Head(len(head), blake2b(head, digest_size=16).hexdigest())


def held_size(start: int, end: int) -> int:
    """How many bytes a block with these bounds holds: of one overlong line, the beginning."""
    size = end - start
    return size if size <= BLOCK_SIZE * 4 else MAX_LINE + 4


class Source:
    """Where a stream's bytes are: the open file `fd`, whose first byte is the stream's `base`.
    One that was closed gives ``OSError``, never the bytes of another that got its number.

    :param head: the file's first bytes, by which a truncation is noticed; None for a file that
        nobody else writes (the spool's).
    :param borrowed: somebody else closes the file, and later than this.
    """

    __slots__ = ("_borrowed", "base", "fd", "head")

    def __init__(
        self, fd: int, *, base: int = 0, head: bytes | None = None, borrowed: bool = False
    ) -> None:
        self.fd = fd
        self.base = base
        self.head = head
        self._borrowed = borrowed

    def read(self, offset: int, size: int) -> bytes:
        """From the stream's `offset`, which is not before `base`. Raises ``OSError``."""
        return os.pread(self.fd, size, offset - self.base)

    def size(self) -> int:
        """The stream's end by this source."""
        return self.base + os.fstat(self.fd).st_size

    def is_same(self) -> bool:
        """Whether the file still begins as it did; learns more of the beginning as it grows."""
        if self.head is None:
            return True
        now = self.read(self.base, HEAD_SIZE)
        if not now.startswith(self.head):
            return False
        self.head = now
        return True

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0 and not self._borrowed:
            os.close(fd)


class Stream:
    """`live` and `archive` are the takers' cursors; `archive` is None where nothing is archived.

    The tail sets `end`, `rotated_at` and `complete`, and replaces `source`. The takers move their
    cursors, and settle what they took: `live_settled` and `archived` are the offsets that a
    restart may begin at.
    """

    def __init__(
        self,
        stream_id: str,
        path: str,
        source: Source,
        ledger: Ledger,
        *,
        device: int,
        inode: int,
        head: Head | None = None,
        start: int = 0,
    ) -> None:
        """:param head: that of the file, where `source` is not the file."""
        self.id = stream_id
        self.path = path
        self.source = source
        self.ledger = ledger
        self.device = device
        self.inode = inode
        #: Where the file was, if the path was a symbolic link.
        self.real: str | None = None
        #: The size seen last, as an offset.
        self.end = start
        #: When, by the clock, the file was found to be no longer what its path names.
        self.rotated_at: float | None = None
        #: Nothing will be added any more: a last line without its line feed counts as a line.
        self.complete = False
        #: The content is not what it was; the tail has to look.
        self.stale = False
        self.live = Cursor(self, start)
        self.live_settled = start
        self.archive: Cursor | None = None
        self.archived = start
        #: Planned objects that S3 has not confirmed, in order, from `archived` to `archive`.
        self.batches: deque[Batch] = deque()
        self._head = head

    @property
    def settled(self) -> bool:
        """Whether everything up to the end is dealt with by both takers."""
        if self.live_settled < self.end:
            return False
        return self.archive is None or self.archived >= self.end

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes. None are given, and the stream becomes `stale`, when the file no
        longer begins as it did. Raises ``OSError`` as the disk does."""
        source = self.source
        data = source.read(offset, size) if offset >= source.base else b""
        # In this order: what was read before a truncation is ours.
        if not source.is_same() or self.stale:
            self.stale = True
            return b""
        return data

    def move(self, source: Source) -> None:
        """The bytes are in another place from now on; the old one is closed."""
        self._head = self.head
        before, self.source = self.source, source
        self.stale = False
        before.close()

    @property
    def head(self) -> Head:
        """What the file is known by: its own beginning, also where the bytes are in the spool."""
        if self.source.head is not None:
            return digest(self.source.head)
        return self._head or digest(b"")

    def block(self, start: int, end: int) -> Block | None:
        """The lines from `start` to `end`, which a cursor's blocks gave as their bounds; None
        when they cannot be read as they were."""
        size = held_size(start, end)
        data = self.read(start, size)
        return Block(start, end, data) if len(data) == size else None

    def state(self) -> StreamState:
        """What the checkpoint keeps."""
        return StreamState(
            id=self.id,
            path=self.path,
            device=self.device,
            inode=self.inode,
            head=self.head,
            size=self.end,
            live=self.live_settled,
            archive=None if self.archive is None else self.archived,
            batches=tuple(self.batches),
            rotated=self.rotated_at is not None,
            real=self.real,
        )


class Cursor:
    """A taker's place in a stream: `position` is the beginning of the first line not taken."""

    __slots__ = ("_searched", "_stream", "position")

    def __init__(self, stream: Stream, position: int) -> None:
        self._stream = stream
        self.position = position
        self._searched = position

    def take(self, size: int = BLOCK_SIZE) -> Block | None:
        """The next whole lines, at most `size` bytes of them or one longer line; the cursor goes
        past them.

        None when there are none yet. A block of no bytes means: call again, later in this turn
        or the next; an overlong line is being searched for its end. A line that has no line feed
        is a line only once the stream is complete.
        """
        stream, start = self._stream, self.position
        data = stream.read(start, size)
        end = data.rfind(b"\n") + 1
        if end:
            self.position = start + end
            return Block(start, self.position, data if end == len(data) else data[:end])
        if len(data) < size:
            if not data or not stream.complete:
                return None
            self.position = start + len(data)
            return Block(start, self.position, data)
        return self._overlong(data)

    def _overlong(self, data: bytes) -> Block | None:
        """A line that is longer than asked for: `data` is how it begins."""
        stream, start = self._stream, self.position
        place = max(self._searched, start + len(data))
        until = place + SEARCH_SIZE
        found = -1
        while place < until:
            piece = stream.read(place, BLOCK_SIZE)
            found = piece.find(b"\n")
            if found >= 0 or not piece:
                break
            place += len(piece)
        self._searched = place
        if found >= 0:
            self.position = place + found + 1
        elif place >= until:
            return Block(start, start, b"")
        elif stream.complete and not stream.stale:
            self.position = place
        else:
            return None
        # As much as is kept of a line, however little was asked for.
        size = min(self.position - start, MAX_LINE + 4)
        if len(data) < size:
            data = stream.read(start, size)
            if len(data) < size:  # it was truncated meanwhile
                self.position = start
                return None
        return Block(start, self.position, data[:size])
