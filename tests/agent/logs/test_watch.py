"""Real inotify, on the real reactor."""

from __future__ import annotations

import os
import struct
import sys
from typing import Any

import twisted.internet
from twisted.internet import inotify, reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.registry import TailSettings
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.tail import Tail
from jetcamer.agent.logs.watch import OVERFLOW, FileWatcher
from tests.agent.logs.tail_world import Reader


class WatchCase(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.watcher = FileWatcher(reactor)
        self.addCleanup(self.watcher.stop)
        self.changed: list[str] = []
        self.waiting: Deferred[None] | None = None

    def open(self) -> int:
        self.path = self.mktemp()
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, fd)
        return fd

    def watch(self, fd: int, name: str = "a") -> None:
        def changed() -> None:
            self.changed.append(name)
            if self.waiting is not None:
                waiting, self.waiting = self.waiting, None
                reactor.callLater(0, waiting.callback, None)

        self.watcher.watch(fd, changed)

    async def event(self) -> None:
        self.waiting = Deferred()
        await self.waiting


class FileWatcherTests(WatchCase):
    async def test_a_write(self) -> None:
        fd = self.open()
        self.watch(fd)
        os.write(fd, b"x")
        await self.event()
        self.assertEqual(self.changed, ["a"])

    async def test_the_name_does_not_matter(self) -> None:
        fd = self.open()
        os.rename(self.path, self.path + ".1")
        with open(self.path, "w") as other:
            self.watch(fd)
            other.write("x")
        os.write(fd, b"x")
        await self.event()
        self.assertEqual(self.changed, ["a"])

    async def test_a_new_name(self) -> None:
        self.watch(self.open())
        os.rename(self.path, self.path + ".1")
        await self.event()

    async def test_no_name_any_more(self) -> None:
        self.watch(self.open())
        os.unlink(self.path)
        await self.event()

    async def test_another_file_in_its_place(self) -> None:
        self.watch(self.open())
        with open(self.path + ".new", "w"):
            pass
        os.rename(self.path + ".new", self.path)
        await self.event()

    async def test_once(self) -> None:
        fd = self.open()
        self.watch(fd)
        other = self.open()
        self.watch(other, "b")
        for _ in range(100):
            os.write(fd, b"x")
        await self.event()
        os.write(fd, b"x")
        os.write(other, b"x")
        await self.event()
        self.assertEqual(self.changed, ["a", "b"])
        self.watch(fd)
        os.write(fd, b"x")
        await self.event()

    async def test_ignored(self) -> None:
        fd = self.open()
        other = self.open()
        self.watch(fd)
        self.watch(other, "b")
        self.watcher.ignore(fd)
        self.watcher.ignore(fd)
        os.write(fd, b"x")
        os.write(other, b"x")
        await self.event()
        self.assertEqual(self.changed, ["b"])

    async def test_a_call_that_raises(self) -> None:
        fd = self.open()

        def changed() -> None:
            self.watch(fd)
            raise RuntimeError("no")

        self.watcher.watch(fd, changed)
        os.write(fd, b"x")
        await deferLater(reactor, 0)
        while not self.flushLoggedErrors(RuntimeError):
            await deferLater(reactor, 0)
        os.write(fd, b"x")
        await self.event()
        self.assertEqual(self.changed, ["a"])

    async def test_events_that_were_lost(self) -> None:
        """More events than the kernel keeps: everyone has to look."""
        with open("/proc/sys/fs/inotify/max_queued_events") as file:
            most = int(file.read())
        if most > 100_000:
            self.skipTest("the queue is too long")
        first, second, third = self.open(), self.open(), self.open()
        for number, fd in enumerate((first, second, third)):
            self.watch(fd, str(number))
        for _ in range(most // 2 + 2):
            os.write(first, b"x")
            os.write(second, b"x")
        while len(self.changed) < 3:
            await self.event()
        self.assertEqual(sorted(self.changed), ["0", "1", "2"])

    def test_what_lost_events_look_like(self) -> None:
        self.watch(self.open())
        event = struct.pack("=LLLL", OVERFLOW, inotify.IN_Q_OVERFLOW, 0, 0)
        self.watcher._notifier._doRead(event)
        self.assertEqual(self.changed, ["a"])

    async def test_inotify_gives_up(self) -> None:
        fd, other = self.open(), self.open()
        self.watch(fd)
        self.watch(other, "b")
        notifier = self.watcher._notifier
        event = struct.pack("=LLLL", 1, inotify.IN_DELETE_SELF, 0, 0)
        notifier._doRead(event)
        self.assertEqual(self.changed, ["a", "b"])
        self.watch(fd)
        notifier.connectionLost(Failure(ConnectionDone()))  # once more, late
        os.write(fd, b"x")
        await self.event()

    def test_stopped(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        fd = self.open()
        self.watch(fd)
        self.watcher.stop()
        self.watcher.stop()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before + 1)
        self.assertEqual(self.changed, [])
        self.assertNotIn("INotify", repr(reactor.getReaders()))


class NotToBeHadTests(WatchCase):
    def test_too_many_watches(self) -> None:
        def add(*args: Any) -> int:
            raise inotify.INotifyError("Failed to add watch")

        self.watch(self.open())
        self.patch(self.watcher._notifier._inotify, "add", add)
        error = self.assertRaises(OSError, self.watch, self.open())
        self.assertIn("fs.inotify", error.strerror)

    def test_too_many_instances(self) -> None:
        def init() -> int:
            raise inotify.INotifyError("INotify initialization error.")

        self.patch(inotify.INotify._inotify, "init", init)
        self.assertRaises(OSError, self.watch, self.open())

    def test_no_inotify(self) -> None:
        name = "twisted.internet.inotify"
        self.addCleanup(sys.modules.__setitem__, name, sys.modules[name])
        sys.modules[name] = None  # type: ignore[assignment]
        self.addCleanup(setattr, twisted.internet, "inotify", inotify)
        del twisted.internet.inotify
        self.assertRaises(OSError, self.watch, self.open())


class TailTests(WatchCase):
    async def test_an_idle_file_wakes(self) -> None:
        """All of it together, and as fast as it may be."""
        path = os.path.realpath(self.mktemp())
        with open(path, "w") as file:
            ledgers: dict[str, Ledger] = {}
            reader = Reader()
            tail = Tail(
                reactor,
                [path],
                takers=[reader],
                archive=False,
                ledgers=ledgers,
                restored=None,
                changed=lambda: None,
                spool=Spool(self.mktemp(), 0),
                watcher=self.watcher,
                defaults=False,
                settings=TailSettings(active_interval=0.01, idle_after=0.02, scan_interval=1000),
            )
            tail.start()
            self.addCleanup(tail.stop)
            for number in range(3):
                while not self.watcher._changed:
                    await deferLater(reactor, 0.01)
                file.write(f"{number}\n")
                file.flush()
                while len(reader.lines[path]) == number:
                    await deferLater(reactor, 0.01)
        self.assertEqual(reader.lines[path], ["0", "1", "2"])
