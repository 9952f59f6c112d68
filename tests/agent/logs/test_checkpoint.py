from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from unittest import mock

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.checkpoint import (
    Batch,
    Checkpoint,
    CheckpointFile,
    CheckpointWriter,
    Head,
    Known,
    PathState,
    StreamState,
)
from jetcamer.agent.logs.ledger import Ledger
from tests.support.logs import LogsMixin

FULL = Checkpoint(
    patterns=("/var/log/*.log",),
    streams=(
        StreamState(
            id="aabbccddeeff",
            path="/var/log/a.log",
            device=1,
            inode=2**63,
            head=Head(3, "00"),
            size=10,
            live=5,
            archive=4,
            batches=(Batch(4, 10, 2, "m/d/k"),),
            rotated=True,
        ),
    ),
    paths={
        "/var/log/a.log": PathState(
            known=(Known(7, Head(1, "ff")),), start=3, ledger=Ledger(archived=2)
        )
    },
)


class FileTests(LogsMixin, SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        self.file = CheckpointFile(self.directory)

    def test_written_and_loaded(self) -> None:
        self.assertIsNone(self.file.load())
        self.file.write(msgspec.json.encode(FULL))
        self.assertEqual(self.file.load(), FULL)
        self.assertEqual(stat.S_IMODE(os.stat(self.file.path).st_mode), 0o600)
        self.assertEqual(os.listdir(self.directory), ["logs.checkpoint.json"])

    def test_what_cannot_be_understood_is_kept_aside(self) -> None:
        for data in (b"", b"{", b"[" * 100_000, b'{"version": 99}', b'{"streams": [{}]}', b"\xff"):
            logs = self.capture_logs()
            self.file.write(data)
            self.assertIsNone(self.file.load())
            with open(self.file.path + ".bad", "rb") as bad:
                self.assertEqual(bad.read(), data)
            self.assertFalse(os.path.exists(self.file.path))
            self.assertLogged(logs, f"[logs] {self.file.path}: cannot be used")

    def test_what_cannot_be_read_stays(self) -> None:
        os.mkdir(self.file.path)
        self.assertRaises(OSError, self.file.load)
        self.assertEqual(os.listdir(self.directory), ["logs.checkpoint.json"])

    def test_a_write_that_fails_leaves_the_old_one(self) -> None:
        self.file.write(msgspec.json.encode(FULL))
        for function in ("os.fdatasync", "os.replace"):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with mock.patch(function, side_effect=error), self.assertRaises(OSError):
                self.file.write(b"new")
            self.assertEqual(self.file.load(), FULL)
            self.assertEqual(os.listdir(self.directory), ["logs.checkpoint.json"])

    def test_synced_before_it_gets_its_name_and_the_directory_after(self) -> None:
        calls: list[str] = []

        def note(name: str) -> Callable[..., object]:
            function = getattr(os, name)

            def noted(*args: object) -> object:
                calls.append(name)
                return function(*args)

            return noted

        names = ("fdatasync", "replace", "fsync")
        with mock.patch.multiple("os", **{name: note(name) for name in names}):
            self.file.write(b"{}")
        self.assertEqual(calls, list(names))


class WriterTests(LogsMixin, SynchronousTestCase):
    """Against a disk that takes as long as the test wants."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.written: list[Checkpoint] = []
        self.position = 0
        self.error: OSError | None = None
        self.held: list[tuple[Callable[[], None], Deferred[None]]] | None = None
        self.writer = CheckpointWriter(self.clock, self.write, self.snapshot, run=self.run_)

    def snapshot(self) -> Checkpoint:
        return Checkpoint(patterns=(str(self.position),))

    def write(self, data: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(msgspec.json.decode(data, type=Checkpoint))

    def run_(self, function: Callable[[], None]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if self.held is None:
            self.go(function, done)
        else:
            self.held.append((function, done))
        return done

    def go(self, function: Callable[[], None], done: Deferred[None]) -> None:
        try:
            function()
        except OSError:
            done.errback()
        else:
            done.callback(None)

    def release(self) -> None:
        assert self.held
        self.go(*self.held.pop(0))

    def positions(self) -> list[int]:
        return [int(checkpoint.patterns[0]) for checkpoint in self.written]

    def stop(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.writer.stop()))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_most_once_an_interval_and_never_without_a_change(self) -> None:
        for _ in range(100):
            self.position += 1
            self.writer.touch()
            self.clock.advance(0.125)
        self.assertEqual(len(self.written), 13)
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.positions()[-1], 100)
        self.assertEqual(len(self.written), 14)
        self.stop()
        self.assertEqual(len(self.written), 14)

    def test_written_means_a_snapshot_taken_after_the_call(self) -> None:
        self.held = []
        self.position = 1
        self.writer.touch()
        self.clock.advance(0)
        self.position = 2
        waiter = self.writer.written()
        self.release()
        self.assertEqual(self.positions(), [1])
        self.assertNoResult(waiter)
        self.clock.advance(1)
        self.assertNoResult(waiter)
        self.release()
        self.successResultOf(waiter)
        self.assertEqual(self.positions(), [1, 2])
        self.stop()

    def test_a_failed_write_is_told_once_and_tried_with_the_next_change(self) -> None:
        logs = self.capture_logs()
        self.error = OSError(errno.ENOSPC, "No space left on device")
        for _ in range(3):
            waiter = self.writer.written()
            self.clock.advance(1)
            self.failureResultOf(waiter, OSError)
        self.assertEqual(
            self.writer.last_error, "positions cannot be kept: No space left on device"
        )
        self.assertEqual(len([line for line in logs.lines if "cannot be kept" in line]), 1)
        self.error = None
        waiter = self.writer.written()
        self.clock.advance(1)
        self.successResultOf(waiter)
        self.assertIsNone(self.writer.last_error)
        self.assertLogged(logs, "[logs] the positions can be kept again")
        self.stop()

    def test_who_asks_during_a_write_that_fails_is_served_by_the_next(self) -> None:
        self.held = []
        self.error = OSError(errno.EIO, "I/O error")
        first = self.writer.written()
        self.clock.advance(0)
        second = self.writer.written()
        self.release()
        self.failureResultOf(first, OSError)
        self.assertNoResult(second)
        self.error = None
        self.clock.advance(1)
        self.release()
        self.successResultOf(second)
        self.stop()

    def test_who_was_cancelled_is_left_out(self) -> None:
        self.held = []
        first, second = self.writer.written(), self.writer.written()
        self.clock.advance(0)
        first.cancel()
        third = self.writer.written()
        third.cancel()
        self.release()
        self.successResultOf(second)
        for waiter in (first, third):
            self.failureResultOf(waiter)
        self.held = None
        self.stop()

    def test_a_snapshot_that_raises_fails_who_waits_and_nothing_hangs(self) -> None:
        waiter = self.writer.written()
        with mock.patch.object(self.writer, "_snapshot", side_effect=KeyError("x")):
            self.clock.advance(0)
        self.failureResultOf(waiter, KeyError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        waiter = self.writer.written()
        self.clock.advance(1)
        self.successResultOf(waiter)
        self.stop()

    def test_stop_writes_what_changed_and_serves_who_waits(self) -> None:
        self.writer.touch()
        self.clock.advance(0)
        self.position = 5
        waiter = self.writer.written()
        self.stop()
        self.assertEqual(self.positions(), [0, 5])
        self.successResultOf(waiter)
        self.failureResultOf(self.writer.written(), OSError)
        self.writer.touch()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_waits_for_the_write_under_way(self) -> None:
        self.held = []
        self.writer.touch()
        self.clock.advance(0)
        self.position = 5
        self.writer.touch()
        stopped = Deferred.fromCoroutine(self.writer.stop())
        self.release()
        self.assertNoResult(stopped)
        self.release()
        self.successResultOf(stopped)
        self.assertEqual(self.positions(), [0, 5])

    def test_stop_does_not_hang_where_nothing_can_be_written(self) -> None:
        self.error = OSError(errno.EROFS, "Read-only file system")
        waiter = self.writer.written()
        self.stop()
        self.failureResultOf(waiter, OSError)
