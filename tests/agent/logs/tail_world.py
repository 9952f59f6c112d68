"""A tail with real files under it, and takers that read all there is."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.checkpoint import Batch, Checkpoint
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.lines import split
from jetcamer.agent.logs.registry import TailSettings
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.stream import Stream
from jetcamer.agent.logs.tail import Tail
from tests.support.logs import LogsMixin


class Watches:
    """A watcher whose events the test makes."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}
        self.asked = 0
        self.error: OSError | None = None
        self.before: Callable[[], None] = lambda: None

    def watch(self, fd: int, changed: Callable[[], None]) -> None:
        os.fstat(fd)
        self.asked += 1
        if self.error is not None:
            raise self.error
        assert fd not in self.watched
        self.before()
        self.watched[fd] = changed

    def ignore(self, fd: int) -> None:
        os.fstat(fd)  # it is open still
        self.watched.pop(fd, None)

    def stop(self) -> None:
        self.watched.clear()

    def fire(self) -> None:
        """Something happened to every file."""
        watched, self.watched = self.watched, {}
        for changed in watched.values():
            changed()


class Reader:
    """The live taker: takes every line at once."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = defaultdict(list)
        self.by_stream: dict[str, list[str]] = defaultdict(list)
        self.calls: list[tuple[str, str]] = []
        self.paths: dict[str, str] = {}

    def opened(self, stream: Stream) -> None:
        self.calls.append(("opened", stream.id))
        self.paths[stream.id] = stream.path
        self.read(stream)

    def more(self, stream: Stream) -> None:
        self.calls.append(("more", stream.id))
        self.read(stream)

    def closed(self, stream: Stream) -> None:
        self.calls.append(("closed", stream.id))

    def read(self, stream: Stream) -> None:
        while (block := stream.live.take()) is not None:
            lines = [line.decode() for line in split(block)]
            self.lines[stream.path] += lines
            self.by_stream[stream.id] += lines
        stream.live_settled = stream.live.position

    def all(self) -> list[str]:
        return [line for lines in self.lines.values() for line in lines]


class Uploader:
    """The archive: plans batches of up to `lines` lines, and uploads when it is told to."""

    def __init__(self, lines: int = 3) -> None:
        self.objects: dict[str, list[str]] = {}
        self.streams: dict[str, Stream] = {}
        self.paused = False
        self.planning = True
        #: Keys that are on disk; None: it does not mind.
        self.saved: set[str] | None = None

    def opened(self, stream: Stream) -> None:
        self.streams[stream.id] = stream
        self.more(stream)

    def more(self, stream: Stream) -> None:
        assert stream.archive is not None
        while self.planning and (block := stream.archive.take(64)) is not None:
            if block.data:
                key = f"{stream.id}-{block.start}-{block.end}"
                stream.batches.append(Batch(block.start, block.end, block.lines, key))
        self.upload(stream)

    def closed(self, stream: Stream) -> None:
        del self.streams[stream.id]
        for batch in stream.batches:
            stream.ledger.given_up += batch.lines

    def upload(self, stream: Stream, batches: int = 1 << 30) -> None:
        while stream.batches and not self.paused and batches:
            batch = stream.batches[0]
            if self.saved is not None and batch.key not in self.saved:
                break
            block = stream.block(batch.start, batch.end)
            if block is None:
                break
            before = self.objects.get(batch.key)
            self.objects[batch.key] = [line.decode() for line in split(block)]
            assert before in (None, self.objects[batch.key])
            stream.batches.popleft()
            stream.archived = batch.end
            stream.ledger.archived += batch.lines
            batches -= 1

    def go_on(self) -> None:
        self.paused = False
        for stream in tuple(self.streams.values()):
            self.upload(stream)

    def all(self) -> list[str]:
        return [line for lines in self.objects.values() for line in lines]


class LogFiles:
    """What happens to the files of `folder`."""

    folder: str

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def write(self, name: str, text: str) -> None:
        with open(self.path(name), "a") as file:
            file.write(text)

    def rename(self, old: str, new: str) -> None:
        os.rename(self.path(old), self.path(new))

    def remove(self, name: str) -> None:
        os.unlink(self.path(name))

    def copy_and_truncate(self, name: str, copy: str) -> None:
        with open(self.path(name), "rb") as file, open(self.path(copy), "wb") as target:
            target.write(file.read())
        os.truncate(self.path(name), 0)


class TailCase(LogFiles, LogsMixin, SynchronousTestCase):
    """`self.tail` follows `*.log` in `self.folder`."""

    archive = False
    pattern = "*.log"
    limit = 1 << 20

    def setUp(self) -> None:
        self.logged = self.capture_logs()
        self.fresh()
        self.addCleanup(self.end)

    def fresh(self) -> None:
        self.clock = Clock()
        self.time = 0.0
        self.folder = os.path.realpath(self.mktemp())
        os.mkdir(self.folder)
        self.spool_folder = os.path.realpath(self.mktemp())
        self.reader = Reader()
        self.uploader = Uploader()
        self.watches = Watches()
        self.changes = 0
        #: What the server was told.
        self.told: list[tuple[str, str, str | None]] = []
        self.settings = TailSettings()
        self.stored: Checkpoint | None = None
        self.ledgers: dict[str, Ledger] = {}
        self.tail: Any = None

    def end(self) -> None:
        if self.tail is not None:
            self.tail.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for place in (self.folder, self.spool_folder):
            self.assertEqual([path for path in open_files() if path.startswith(place)], [])

    def start(self, *patterns: str, defaults: bool = True, **more: Any) -> None:
        self.spool = Spool(self.spool_folder, self.limit)
        takers: Sequence[Any] = [self.reader, self.uploader] if self.archive else [self.reader]
        self.tail = Tail(
            self.clock,
            [self.path(pattern) for pattern in patterns or (self.pattern,)],
            takers=takers,
            archive=self.archive,
            ledgers=self.ledgers,
            restored=self.stored,
            changed=self._changed,
            spool=self.spool,
            watcher=self.watches,
            defaults=defaults,
            say=lambda *words: self.told.append(words),
            settings=self.settings,
            now=self.now,
            **more,
        )
        self.tail.start()

    def _changed(self) -> None:
        self.changes += 1

    def now(self) -> float:
        import time

        return time.time() + self.time

    def store(self) -> None:
        """What a checkpoint does, by way of its text."""
        streams, paths = self.tail.state()
        checkpoint = Checkpoint(patterns=self.tail.patterns, streams=streams, paths=paths)
        self.stored = msgspec.json.decode(msgspec.json.encode(checkpoint), type=Checkpoint)
        if self.uploader.saved is not None:
            self.uploader.saved |= {batch.key for one in streams for batch in one.batches}

    def die(self) -> None:
        """The agent is gone, as by SIGKILL; what the last checkpoint says stays."""
        self.tail.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.tail = None
        self.uploader.streams.clear()
        self.ledgers = {}

    def restart(self, *patterns: str) -> None:
        self.store()
        self.die()
        self.start(*patterns)

    def wait(self, seconds: float = 0.25) -> None:
        while seconds > 0:
            self.clock.advance(min(0.25, seconds))
            seconds -= 0.25

    def age(self, *names: str, seconds: float = 3600) -> None:
        """The files have not been written for so long."""
        for name in names:
            status = os.stat(self.path(name))
            os.utime(self.path(name), (status.st_atime, status.st_mtime - seconds))

    def read(self, name: str = "a.log") -> list[str]:
        return self.reader.lines[self.path(name)]

    def missed(self, name: str = "a.log") -> int:
        return self.ledgers[self.path(name)].missed_bytes

    def said(self, *words: str) -> list[str]:
        return [line for line in self.words() if all(word in line for word in words)]

    def words(self) -> list[str]:
        """What was logged, but for what is followed."""
        return [line for line in self.logged.lines if not line.startswith("[logs] following ")]


def open_files() -> list[str]:
    """The paths behind this process's file descriptors."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found
