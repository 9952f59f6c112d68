"""The agent's own room on disk for log lines that have no other place to wait.

In: the rest of log files that were deleted, events that were POSTed, objects that S3 refused. Out:
the same, also after a restart. Must never hold more than its limit, nor make anything before its
first use. A disk that is full or cannot be written is a spool that is full, with the system's
words in `Spool.last_error`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from threading import Lock

from jetcamer.daemon.files import sync_directory

_STREAMS, _OBJECTS, _ASIDE = "streams", "objects", "rejected"
_TEMPORARY = ".new-"

#: What a small file takes up on disk, so that many of them do not fill it beyond the limit.
BLOCK = 4096


class Spool:
    """The directory. One process uses it; `put_object` and `put_aside` may run in a thread.

    :param directory: is made when it is first needed; the one it lies in is not.
    :param limit: bytes, over everything.
    """

    def __init__(self, directory: str, limit: int) -> None:
        self.directory = directory
        self.limit = limit
        #: Why something was not taken, last.
        self.last_error: str | None = None
        #: Objects that were put aside and that nobody has taken away.
        self.aside = 0
        self._used = 0
        self._lock = Lock()
        self._open: dict[str, SpooledStream] = {}
        self._scan()

    @property
    def used(self) -> int:
        """Bytes held now; a small object counts as the block of the disk that it takes."""
        return self._used

    # Streams

    def keep(self, stream_id: str, start: int) -> SpooledStream:
        """Where the bytes of a stream from offset `start` are kept: what is there already, or a
        new file, which is made when something is appended."""
        stream = self.find(stream_id)
        if stream is None:
            path = self._path(_STREAMS, f"{stream_id}-{start}.log")
            stream = self._open[stream_id] = SpooledStream(self, stream_id, path, start, -1)
        return stream

    def find(self, stream_id: str) -> SpooledStream | None:
        """What is kept of a stream; None where nothing is, or where it cannot be opened."""
        if stream_id in self._open:
            return self._open[stream_id]
        for found, start in self._streams():
            if found == stream_id:
                path = self._path(_STREAMS, f"{stream_id}-{start}.log")
                try:
                    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
                except OSError as error:
                    self._cannot(path, error)
                    return None
                stream = self._open[stream_id] = SpooledStream(self, stream_id, path, start, fd)
                return stream
        return None

    def sweep(self, known: Collection[str]) -> None:
        """Remove what is kept of streams that are not `known`: after a crash nobody would."""
        for stream_id in {found for found, _ in self._streams()}.difference(known):
            stream = self.find(stream_id)
            if stream is not None:
                stream.remove()

    def _streams(self) -> Iterator[tuple[str, int]]:
        """Id and start of each."""
        with suppress(OSError):
            for name in sorted(os.listdir(os.path.join(self.directory, _STREAMS))):
                stream_id, _, start = name.removesuffix(".log").rpartition("-")
                if stream_id and start.isdecimal():
                    yield stream_id, int(start)

    # Objects

    def put_object(self, name: str, body: bytes | bytearray) -> bool:
        """Keep an object, on disk when this returns. False: there is no room, see `last_error`."""
        return self._store(_OBJECTS, name, body)

    def objects(self, limit: int, besides: Collection[str] = ()) -> dict[str, int]:
        """Names and sizes of up to `limit` objects, in no order, without those in `besides`."""
        found: dict[str, int] = {}
        with suppress(OSError), os.scandir(self._path(_OBJECTS, "")) as entries:
            for entry in entries:
                if entry.name in besides:
                    continue
                if len(found) == limit:
                    break
                with suppress(OSError):
                    found[entry.name] = entry.stat().st_size
        return found

    def read_object(self, name: str) -> bytes:
        """Raises ``OSError``."""
        with open(self._path(_OBJECTS, name), "rb") as file:
            return file.read()

    def remove_object(self, name: str) -> None:
        """Raises ``OSError``, but not where there is none."""
        path = self._path(_OBJECTS, name)
        size = _size(path)
        if size is not None:
            os.unlink(path)
            self.release(_cost(size))

    def put_aside(self, name: str, body: bytes | bytearray) -> bool:
        """Keep an object that S3 does not take, for a person to look at; nothing here removes it.
        False: there is no room."""
        return self._store(_ASIDE, name, body)

    def move_aside(self, name: str) -> bool:
        """`put_aside` for an object that is here already."""
        place = self._path(_ASIDE, name)
        try:
            self._make_directory(_ASIDE)
            replaced = _size(place)
            os.replace(self._path(_OBJECTS, name), place)
        except OSError as error:
            self._cannot(place, error)
            return False
        self._sync_directory(_ASIDE)
        if replaced is None:
            self.aside += 1
        else:
            self.release(_cost(replaced))
        return True

    def _store(self, kind: str, name: str, body: bytes | bytearray) -> bool:
        cost = _cost(len(body))
        if self.reserve(cost, cost) == 0:
            return False
        place = self._path(kind, name)
        temporary = os.path.join(self.directory, _TEMPORARY + os.urandom(8).hex())
        try:
            self._make_directory(kind)
            replaced = _size(place)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temporary, flags, 0o600)
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(body)
                while view:
                    view = view[file.write(view) :]
                os.fdatasync(fd)
            os.replace(temporary, place)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary)
            self.release(cost)
            self._cannot(place, error)
            return False
        self._sync_directory(kind)
        if replaced is not None:
            self.release(_cost(replaced))
        elif kind == _ASIDE:
            self.aside += 1
        return True

    # The limit

    def reserve(self, least: int, most: int) -> int:
        """Take between `least` and `most` bytes of the room that is left; 0 where it is less."""
        with self._lock:
            size = min(most, self.limit - self._used)
            if size < most:
                self.last_error = f"the spool is full: {self.limit} bytes (spoolMaxBytes)"
            if size < least:
                return 0
            self._used += size
            return size

    def release(self, size: int) -> None:
        with self._lock:
            self._used -= size

    def forget(self, stream_id: str) -> None:
        """To be called by a `SpooledStream` that was closed."""
        self._open.pop(stream_id, None)

    # The directory

    def _scan(self) -> None:
        """Count what an earlier process left, and remove what it had not finished."""
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    if entry.name.startswith(_TEMPORARY):
                        os.unlink(entry.path)
            for kind in (_STREAMS, _OBJECTS, _ASIDE):
                with suppress(FileNotFoundError), os.scandir(self._path(kind, "")) as entries:
                    for entry in entries:
                        size = entry.stat(follow_symlinks=False).st_size
                        self._used += size if kind == _STREAMS else _cost(size)
                        self.aside += kind == _ASIDE
        except FileNotFoundError:
            pass
        except OSError as error:
            self._cannot(self.directory, error)

    def make_stream_file(self, path: str) -> int:
        """A file descriptor. Raises ``OSError``."""
        self._make_directory(_STREAMS)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path, flags, 0o600)

    def _make_directory(self, kind: str) -> None:
        for directory in (self.directory, os.path.join(self.directory, kind)):
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)

    def _path(self, kind: str, name: str) -> str:
        return os.path.join(self.directory, kind, name)

    def _sync_directory(self, kind: str) -> None:
        """Without it a file is lost only if the machine lost its power now."""
        try:
            sync_directory(self._path(kind, ""))
        except OSError as error:
            self._cannot(self._path(kind, ""), error)

    def _cannot(self, path: str, error: OSError) -> None:
        self.last_error = f"{path}: {error.strerror}"


class SpooledStream:
    """The bytes of one stream from offset `start`; made by a `Spool`.

    `fd` is for reading, and belongs to this object: who wants one to close takes a ``dup``. It is
    -1 until something was appended.
    """

    def __init__(self, spool: Spool, stream_id: str, path: str, start: int, fd: int) -> None:
        self.start = start
        self.fd = fd
        #: Bytes held.
        self.size = 0 if fd < 0 else os.fstat(fd).st_size
        self._spool = spool
        self._id = stream_id
        self._path = path

    def append(self, data: bytes) -> int:
        """How many bytes of `data` were taken, from its beginning; the rest finds no room."""
        if not data:
            return 0
        room = self._spool.reserve(1, len(data))
        written = 0
        try:
            if room and self.fd < 0:
                self.fd = self._spool.make_stream_file(self._path)
            view = memoryview(data)[:room]
            while written < room:
                written += os.write(self.fd, view[written:])
        except OSError as error:
            self._spool.last_error = f"{self._path}: {error.strerror}"
        self._spool.release(room - written)
        self.size += written
        return written

    def remove(self) -> None:
        """Give the room back."""
        self.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._spool.last_error = f"{self._path}: {error.strerror}"
            return
        self._spool.release(self.size)
        self.size = 0

    def close(self) -> None:
        """What is held stays, and is found again."""
        self._spool.forget(self._id)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _cost(size: int) -> int:
    return max(1, -(-size // BLOCK)) * BLOCK


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return None
