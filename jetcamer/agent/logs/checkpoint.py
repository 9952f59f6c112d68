"""Where each taker is in each stream, on disk.

In: snapshots. Out: one JSON file, replaced as a whole at most once a second, synced, so that a
crash at any moment leaves the old one or the new one. Positions in it never run ahead of what was
really done; see `stream` and `ledger`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.logs.ledger import Ledger
from jetcamer.daemon.files import read_whole, sync_directory
from jetcamer.net.timers import Timer

log = Logger()

FILE_NAME = "logs.checkpoint.json"
VERSION = 1
MAX_SIZE = 64 << 20

#: Seconds between two writes.
WRITE_INTERVAL = 1.0


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """A planned object: the lines from offset `start` to offset `end` of a stream, and its key.

    On disk before its upload begins, so that a crash makes the same object again.
    """

    start: int
    end: int
    lines: int
    key: str


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a file is known by beside its inode: a hash of its first `size` bytes."""

    size: int
    digest: str


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A file that was dealt with, or lay there before we came: not to be read again."""

    inode: int
    head: Head


class StreamState(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One stream. `live` and `archive` are offsets before which everything is settled;
    `archive` is None where lines are not archived. `real` is where the file was, where `path` was
    a symbolic link."""

    id: str
    path: str
    device: int
    inode: int
    head: Head
    size: int
    live: int
    archive: int | None = None
    batches: tuple[Batch, ...] = ()
    rotated: bool = False
    real: str | None = None


class PathState(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """A path under which files are found. `start` is where a file that cannot be read yet is to
    be read from: its size when it was first seen, and its inode, which `start_of` is."""

    known: tuple[Known, ...] = ()
    start: int | None = None
    start_of: int | None = None
    ledger: Ledger = msgspec.field(default_factory=Ledger)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Everything. `patterns` are those of the configuration that have been looked for: a file
    that appears under one of them later is read from its beginning. `counted` are the names of
    objects in the spool that are uploaded, are in the ledger, and may still lie there."""

    version: int = VERSION
    patterns: tuple[str, ...] = ()
    streams: tuple[StreamState, ...] = ()
    paths: dict[str, PathState] = {}
    counted: tuple[str, ...] = ()


class CheckpointFile:
    """The file; blocking. Makes the directory, if need be."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, FILE_NAME)

    def load(self) -> Checkpoint | None:
        """What was written last; None where nothing was, or where it cannot be understood, which
        is said; it is then kept under another name. Raises ``OSError``."""
        try:
            data, _ = read_whole(self.path, MAX_SIZE)
        except FileNotFoundError:
            return None
        try:
            checkpoint = msgspec.json.decode(data, type=Checkpoint)
            if checkpoint.version != VERSION:
                raise ValueError(f"version {checkpoint.version} is not known")
        except (ValueError, RecursionError) as error:
            log.error(
                "[logs] {path}: cannot be used ({why}) and is put aside as {path}.bad;"
                " log files are read from their present ends",
                path=self.path,
                why=str(error),
            )
            with suppress(OSError):  # the next write replaces it
                os.replace(self.path, self.path + ".bad")
            return None
        return checkpoint

    def write(self, data: bytes, *, durable: bool = True) -> None:
        """Replace the file. Raises ``OSError``; the old one is then still there.

        :param durable: it is on disk when this returns; else a power failure, but nothing less,
            may bring an older one back.
        """
        os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
        temporary = self.path + ".new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                if durable:
                    os.fdatasync(fd)
            os.replace(temporary, self.path)
        except OSError as error:
            with suppress(OSError):  # a full disk needs the room
                os.unlink(temporary)
            raise OSError(error.errno, error.strerror, self.path) from None
        if not durable:
            return
        # Only now is it the file that is found after the machine lost its power.
        sync_directory(os.path.dirname(self.path))


#: Runs a blocking function, here or in a thread; the Deferred fires in the reactor's thread.
Run = Callable[[Callable[[], None]], Deferred[None]]


def run_here(function: Callable[[], None]) -> Deferred[None]:
    """The `Run` of who writes rarely."""
    return maybeDeferred(function)


class CheckpointWriter:
    """Writes a snapshot after each change, but not more often than every `interval` seconds.

    :param write: `CheckpointFile.write`.
    :param snapshot: what is to be written, made at the moment of writing.
    """

    def __init__(
        self,
        clock: IReactorTime,
        write: Callable[[bytes], None],
        snapshot: Callable[[], Checkpoint],
        *,
        run: Run = run_here,
        interval: float = WRITE_INTERVAL,
    ) -> None:
        self._clock = clock
        self._write = write
        self._snapshot = snapshot
        self._run = run
        self._interval = interval
        self._next = clock.seconds()
        self._timer = Timer(clock)
        self._writing: Deferred[None] | None = None
        self._changed = False
        self._waiting: list[Deferred[None]] = []
        self._stopped = False
        #: Why the last write failed, or None.
        self.last_error: str | None = None

    def touch(self) -> None:
        """Something changed."""
        self._changed = True
        if not self._timer.running and self._writing is None and not self._stopped:
            delay = max(0.0, self._next - self._clock.seconds())
            self._timer.start(delay, self._begin)

    def written(self) -> Deferred[None]:
        """Fires when a snapshot taken after this call is on disk; fails with ``OSError`` when
        that write failed, or with what the snapshot raised."""
        if self._stopped:
            return fail(OSError(0, "stopped"))
        waiter: Deferred[None] = Deferred(self._leave)
        self._waiting.append(waiter)
        self.touch()
        return waiter

    async def stop(self) -> None:
        """Write what changed, once, now."""
        self._stopped = True
        self._timer.stop()
        if self._writing is not None:
            await self._writing
        if self._changed:
            self._begin()
            if self._writing is not None:
                await self._writing
        self._tell(Failure(OSError(0, "stopped")))

    def _leave(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _begin(self) -> None:
        self._changed = False
        self._next = self._clock.seconds() + self._interval
        served, self._waiting = self._waiting, []
        try:
            data = msgspec.json.encode(self._snapshot())
        except Exception:
            log.failure("[logs] there is no snapshot of the positions")
            self._ended(Failure(), served)
            return
        self._writing = self._run(lambda: self._write(data))
        self._writing.addBoth(self._ended, served)

    def _ended(self, result: Any, served: list[Deferred[None]]) -> None:
        self._writing = None
        if isinstance(result, Failure):
            error = result.value
            why: str | None = str(error)
            if isinstance(error, OSError):
                why = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            words = f"positions cannot be kept: {why}"
            if words != self.last_error:
                log.error(
                    "[logs] {words}; meanwhile nothing is archived, and after a restart lines may"
                    " be sent twice",
                    words=words,
                )
            self.last_error = words
            self._changed = True  # with the next change, or at the end, it is tried again
        else:
            if self.last_error is not None:
                log.info("[logs] the positions can be kept again")
            self.last_error = None
        for waiter in served:
            if waiter.called:  # it was cancelled
                continue
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(None)
        if self._waiting or (self._changed and self.last_error is None):
            self.touch()

    def _tell(self, failure: Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(failure)
