"""What the archive is tested in: files, a tail that does as it is told, a bucket with faults, and
a machine that can be made to crash.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from random import Random
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from jetcamer.agent.logs.archive import Archive, ArchiveSettings
from jetcamer.agent.logs.checkpoint import (
    Checkpoint,
    CheckpointFile,
    CheckpointWriter,
    PathState,
    StreamState,
)
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.s3_errors import UploadError
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.stream import Cursor, Source, Stream

#: 2026-11-23 04:05:06 UTC.
MOMENT = 1795406706.0
MACHINE = "0123456789abcdef"


def transient(words: str = "S3 has trouble", retry_after: float | None = None) -> UploadError:
    return UploadError(words, kind="transient", retry_after=retry_after)


def environment(words: str = "AccessDenied") -> UploadError:
    return UploadError(words, kind="environment")


def refused(words: str = "InvalidRequest") -> UploadError:
    return UploadError(words, kind="refused")


def too_large(words: str = "EntityTooLarge") -> UploadError:
    return UploadError(words, kind="too_large")


def parser_for(path: str) -> Callable[[str], Mapping[str, Any] | None]:
    return lambda line: {"line": line} if line.startswith("GET") else None


def without_syncing(test: Any) -> None:
    """Let the rest of `test` not wait for the disk: what it makes crash is not the kernel."""
    patch = mock.patch.multiple("os", fsync=lambda fd: None, fdatasync=lambda fd: None)
    patch.start()
    test.addCleanup(patch.stop)


class Bucket:
    """An `Uploader`. `faults` are for the next puts, in order; afterwards there are none:

    an exception: fails with it, and stores nothing; ("lose", exception): stores it, and fails;
    "hang": does nothing until `land` or `drop`.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.faults: list[Any] = []
        #: For every put, when there is no other fault.
        self.always: Any = None
        self.hanging: dict[str, tuple[bytes, Deferred[None]]] = {}
        #: What may be in memory at most, seen in a put.
        self.most_at_once = 0

    def put(
        self, key: str, make_body: Callable[[], bytes], metadata: Mapping[str, str]
    ) -> Deferred[None]:
        self.puts.append(key)
        self.metadata = metadata
        fault = self.faults.pop(0) if self.faults else self.always
        if isinstance(fault, Exception):
            return fail(fault)
        body = make_body()
        if fault == "hang":
            done: Deferred[None] = Deferred()
            assert key not in self.hanging, "uploaded twice at the same time"
            self.hanging[key] = (body, done)
            self.most_at_once = max(self.most_at_once, len(self.hanging))
            return done
        self.store(key, body)
        if fault is not None:
            return fail(fault[1])
        return succeed(None)

    def store(self, key: str, body: bytes) -> None:
        assert self.objects.setdefault(key, body) == body, f"{key} is not what it was"

    def land(self, key: str | None = None) -> None:
        """A hanging put succeeds."""
        key = key or next(iter(self.hanging))
        body, done = self.hanging.pop(key)
        self.store(key, body)
        done.callback(None)

    def drop(self, key: str | None = None, error: Exception | None = None) -> None:
        """A hanging put fails."""
        _, done = self.hanging.pop(key or next(iter(self.hanging)))
        done.errback(error or transient())

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for key in self.objects for line in self.objects[key].splitlines()]

    def lines(self) -> Counter[str]:
        return Counter(event.get("line", event.get("raw")) for event in self.events())


class World:
    """One machine: its files outlive `crash`. The tail is `write`, `complete`, `close` …"""

    def __init__(self, directory: str, settings: ArchiveSettings) -> None:
        os.makedirs(directory)
        self.directory = directory
        self.settings = settings
        self.clock = Clock()
        self.bucket = Bucket()
        self.said: list[tuple[str, str, str | None]] = []
        self.checked: list[str] = []
        self.disk_error: OSError | None = None
        self.streams: dict[str, Stream] = {}
        self.archive: Archive | None = None

    def boot(self, uploader: Any = None) -> Archive:
        """The agent starts, from what is on disk."""
        file = CheckpointFile(self.directory)
        restored = file.load() or Checkpoint()

        def write(data: bytes) -> None:
            if self.disk_error is not None:
                raise self.disk_error
            file.write(data)

        self.ledgers = {path: state.ledger for path, state in restored.paths.items()}
        self.checkpoint = CheckpointWriter(self.clock, write, self.snapshot)
        self.spool = Spool(os.path.join(self.directory, "spool"), 1 << 20)
        self.archive = Archive(
            self.clock,
            now=lambda: MOMENT + self.clock.seconds(),
            settings=self.settings,
            machine_id=MACHINE,
            parser_for=parser_for,
            spool=self.spool,
            ledgers=self.ledgers,
            checkpoint=self.checkpoint,
            metadata=lambda: {"host": "test"},
            say=self.say,
            counted=restored.counted,
            check=lambda stream: self.checked.append(stream.path),
            random=Random(self.clock.seconds()).random,
        )
        self.archive.uploader = self.bucket if uploader is None else uploader
        for state in restored.streams:
            self.open(os.path.basename(state.path), state)
        self.archive.start()
        return self.archive

    def say(self, *words: Any) -> None:
        self.said.append(words)

    def snapshot(self) -> Checkpoint:
        assert self.archive is not None
        return Checkpoint(
            streams=tuple(stream.state() for stream in self.streams.values()),
            paths={path: PathState(ledger=ledger) for path, ledger in self.ledgers.items()},
            counted=self.archive.counted,
        )

    def open(self, name: str, state: StreamState | None = None) -> Stream:
        path = os.path.join(self.directory, name)
        fd = os.open(path, os.O_RDONLY | os.O_CREAT)
        status = os.fstat(fd)
        stream = Stream(
            state.id if state else f"{len(self.streams):012x}",
            path,
            Source(fd, head=os.pread(fd, 256, 0)),
            self.ledgers.setdefault(path, Ledger()),
            device=status.st_dev,
            inode=status.st_ino,
        )
        stream.archive = Cursor(stream, 0)
        if state is not None:
            assert state.archive is not None
            stream.archived = state.archive
            stream.batches.extend(state.batches)
            stream.archive.position = state.batches[-1].end if state.batches else state.archive
        # What the link does with them is of no interest here.
        stream.end = stream.live_settled = status.st_size
        self.streams[name] = stream
        assert self.archive is not None
        self.archive.opened(stream)
        return stream

    def write(self, name: str, data: bytes) -> None:
        with open(os.path.join(self.directory, name), "ab") as file:
            file.write(data)
        stream = self.streams[name]
        stream.end = stream.live_settled = stream.source.size()
        assert self.archive is not None
        self.archive.more(stream)

    def complete(self, name: str) -> None:
        stream = self.streams[name]
        stream.complete = True
        assert self.archive is not None
        self.archive.more(stream)

    def close(self, name: str) -> None:
        stream = self.streams.pop(name)
        assert self.archive is not None
        self.archive.closed(stream)
        stream.source.close()

    def crash(self) -> None:
        """SIGKILL: nothing of the process is left; what was on its way may arrive or not."""
        for stream in self.streams.values():
            stream.source.close()
        self.streams = {}
        for call in tuple(self.clock.getDelayedCalls()):
            call.cancel()
        self.bucket.hanging.clear()
        self.archive = None

    def halt(self) -> None:
        """SIGTERM."""
        assert self.archive is not None
        stopped = self.archive.stop()
        self.clock.advance(1)
        assert stopped.called
        done = Deferred.fromCoroutine(self.checkpoint.stop())
        assert done.called
        assert self.clock.getDelayedCalls() == [], self.clock.getDelayedCalls()
        self.crash()

    def run(self, seconds: float, step: float = 0.25) -> None:
        for _ in range(int(seconds / step)):
            self.turn()
            self.clock.advance(step)
        self.turn()

    def turn(self) -> None:
        """What is due now, and what that makes due."""
        for _ in range(1000):
            due = [
                call
                for call in self.clock.getDelayedCalls()
                if call.getTime() <= self.clock.seconds()
            ]
            if not due:
                return
            self.clock.advance(0)
        raise AssertionError("it never comes to rest")

    def ledger(self, name: str) -> Ledger:
        return self.ledgers[os.path.join(self.directory, name)]
