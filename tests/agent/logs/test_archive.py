from __future__ import annotations

import errno
import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs import planner
from jetcamer.agent.logs.archive import Archive, ArchiveSettings
from jetcamer.agent.logs.archive_errors import ArchiveOff, SpoolFull
from jetcamer.agent.logs.checkpoint import CheckpointFile
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.lines import MAX_LINE
from jetcamer.agent.logs.objects import POSTED_PATH, rendered_size
from jetcamer.agent.logs.s3_errors import UploadError
from jetcamer.agent.logs.stream import BLOCK_SIZE, Source
from tests.agent.logs.archive_world import (
    MACHINE,
    World,
    environment,
    refused,
    too_large,
    transient,
    without_syncing,
)
from tests.support.logs import LogsMixin

SETTINGS = ArchiveSettings(max_batch=3, flush_interval=10.0, max_planned=8)


def lines(first: int, last: int) -> bytes:
    return b"".join(b"GET %d\n" % number for number in range(first, last))


class ArchiveCase(LogsMixin, SynchronousTestCase):
    settings = SETTINGS

    def setUp(self) -> None:
        without_syncing(self)
        self.world = World(self.mktemp(), self.settings)
        self.bucket = self.world.bucket
        self.clock = self.world.clock
        self.addCleanup(self.halt)

    def halt(self) -> None:
        if self.world.archive is not None:
            self.world.halt()

    @property
    def archive(self) -> Archive:
        assert self.world.archive is not None
        return self.world.archive

    def start(self, *names: str) -> None:
        self.world.boot()
        for name in names:
            self.world.open(name)

    def status(self, *names: str) -> tuple[Any, ...]:
        status = self.archive.status()
        return tuple(status[name] for name in names)

    def assertStored(self, first: int, last: int, times: int = 1) -> None:
        wanted = Counter({f"GET {number}": times for number in range(first, last)})
        self.assertEqual(self.bucket.lines(), wanted)

    def on_disk(self) -> Ledger:
        checkpoint = CheckpointFile(self.world.directory).load()
        assert checkpoint is not None
        return next(iter(checkpoint.paths.values())).ledger


class PlanningTests(ArchiveCase):
    def test_full_batches_at_once_and_the_rest_when_its_oldest_line_has_waited(self) -> None:
        self.start("a.log")
        self.world.write("a.log", lines(0, 7))
        self.world.run(2)
        self.assertStored(0, 6)
        self.clock.advance(7)
        self.world.write("a.log", lines(7, 8))
        self.world.run(0.5)
        self.assertStored(0, 6)
        self.world.run(2)
        self.assertStored(0, 8)
        start = len(lines(0, 3))
        self.assertEqual(
            list(self.bucket.objects),
            [
                f"{MACHINE}/2026-11-23/040506-000000000000-0-{start}.ndjson",
                f"{MACHINE}/2026-11-23/040506-000000000000-{start}-{start * 2}.ndjson",
                f"{MACHINE}/2026-11-23/040516-000000000000-{start * 2}-{start * 2 + 12}.ndjson",
            ],
        )
        self.assertEqual(self.bucket.metadata, {"host": "test"})

    def test_members_are_the_parsers_else_raw_and_source(self) -> None:
        self.start("a.log")
        self.world.write("a.log", b"GET 1\noops \xff\r\n\n")
        self.world.run(2)
        self.assertEqual(
            self.bucket.events(),
            [
                {"line": "GET 1"},
                {"raw": "oops \ufffd", "source": "a.log"},
                {"raw": "", "source": "a.log"},
            ],
        )
        ledger = self.world.ledger("a.log")
        self.assertEqual((ledger.archived, ledger.unmatched), (3, 2))

    def test_a_line_without_its_end_waits_until_the_stream_is_complete(self) -> None:
        self.start("a.log")
        self.world.write("a.log", b"GET 0\nGET 1")
        self.world.run(12)
        self.assertStored(0, 1)
        self.world.complete("a.log")
        self.world.run(2)
        self.assertStored(0, 2)
        self.assertTrue(self.world.streams["a.log"].settled)

    def test_what_is_complete_is_sealed_at_once(self) -> None:
        self.start("a.log")
        self.world.write("a.log", lines(0, 4))
        self.world.complete("a.log")
        self.world.run(2)
        self.assertStored(0, 4)

    def test_bytes_of_a_batch_are_bounded(self) -> None:
        for limit, wanted in ((24, [4, 1, 1, 1]), (23, [3, 2, 1, 1]), (1, [1] * 7)):
            self.world = World(self.mktemp(), ArchiveSettings(max_batch=100, max_bytes=limit))
            self.bucket, self.clock = self.world.bucket, self.world.clock
            self.start("a.log")
            content = b"GET 1\nGET 2\nGET 3\nGET 4\nGET 5\nGET " + b"x" * 40 + b"\nG\n"
            self.world.write("a.log", content)
            self.world.complete("a.log")
            self.world.run(2)
            found = [len(body.splitlines()) for body in self.bucket.objects.values()]
            self.assertEqual(found, wanted)
            self.world.halt()

    def test_overlong_lines_are_batches_of_their_own(self) -> None:
        self.start("a.log")
        sizes = (BLOCK_SIZE + 1, BLOCK_SIZE * 4 + 1, planner.TURN_SIZE * 9)
        for number, size in enumerate(sizes):
            self.world.write("a.log", b"GET %d\n" % number + b"GET " + b"x" * size + b"\n")
        self.world.write("a.log", lines(3, 4))
        self.world.complete("a.log")
        self.world.run(3)
        self.assertEqual([len(body.splitlines()) for body in self.bucket.objects.values()], [1] * 7)
        found = self.bucket.lines()
        self.assertEqual(self.world.ledger("a.log").archived, 7)
        for size in sizes:
            cut = f"GET {'x' * (MAX_LINE - 4)}… [line cut: {size + 5} bytes]"
            self.assertEqual(found[cut], 1)

    def test_planning_pauses_at_the_limit_and_what_is_behind_it_is_not_lost(self) -> None:
        self.start("a.log", "b.log")
        self.archive.uploader = None
        self.world.write("a.log", lines(0, 100))
        self.world.write("b.log", lines(0, 100))
        self.world.run(30)
        self.assertEqual(
            self.status("state", "lastError", "planned"), ("waiting", "no credentials", 8)
        )
        self.assertEqual(self.bucket.puts, [])
        self.archive.uploader = self.bucket
        self.world.run(60)
        self.assertStored(0, 100, times=2)
        self.assertEqual(self.status("state", "lastError", "planned"), ("on", None, 0))

    def test_one_stream_does_not_wait_for_another(self) -> None:
        self.start("a.log", "b.log")
        line = b"GET " + b"x" * 99 + b"\n"
        self.world.settings = SETTINGS
        self.world.write("a.log", line * 20_000)
        self.world.write("b.log", lines(0, 3))
        self.bucket.always = "hang"
        self.world.run(2)
        while self.bucket.hanging:
            self.bucket.land()
            self.world.run(1.25)
            if any(b"GET 0" in body for body in self.bucket.objects.values()):
                break
        self.assertLess(len(self.bucket.objects), 3 * SETTINGS.max_planned)
        self.bucket.always = None
        while self.bucket.hanging:
            self.bucket.land()

    def test_a_backlog_does_not_hold_up_the_reactor(self) -> None:
        self.world.settings = ArchiveSettings(max_batch=1000, max_planned=1000)
        self.start("a.log")
        self.archive.uploader = None
        stream = self.world.streams["a.log"]
        positions = [0]

        def turn() -> None:
            assert stream.archive is not None
            original_turn()
            positions.append(stream.archive.position)

        original_turn = self.archive._planner._turn
        self.world.turn()
        self.patch(self.archive._planner, "_turn", turn)
        self.world.write("a.log", (b"GET " + b"x" * 95 + b"\n") * 50_000)
        self.world.turn()
        self.assertEqual(positions[-1], stream.end)
        for before, after in pairwise(positions):
            self.assertLessEqual(after - before, planner.TURN_SIZE + BLOCK_SIZE)
        self.assertGreater(len(positions), 4)
        self.assertEqual(self.status("planned"), (50,))

    def test_an_idle_archive_does_nothing(self) -> None:
        self.start("a.log", "b.log")
        self.world.write("a.log", lines(0, 4))
        self.world.run(15)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1, "the look at what is unreadable")


class PlanOnDiskTests(ArchiveCase):
    def test_nothing_is_uploaded_before_its_plan_is_on_disk(self) -> None:
        self.start("a.log")
        self.world.write("a.log", lines(0, 3))
        self.world.run(2)
        seen = []

        def put(key: str, *args: object) -> Any:
            checkpoint = CheckpointFile(self.world.directory).load()
            assert checkpoint is not None
            seen.append(key in {batch.key for batch in checkpoint.streams[0].batches})
            return original(key, *args)

        original = self.bucket.put
        with mock.patch.object(self.bucket, "put", put):
            self.world.write("a.log", lines(3, 10))
            self.world.run(20)
        self.assertEqual(seen, [True, True, True])

    def test_nothing_is_uploaded_while_the_disk_cannot_be_written(self) -> None:
        self.start("a.log")
        self.world.disk_error = OSError(errno.EROFS, "Read-only file system")
        self.world.write("a.log", lines(0, 7))
        self.world.run(30)
        self.assertEqual(self.bucket.puts, [])
        self.assertEqual(
            self.status("state", "lastError"),
            ("backing off", "positions cannot be kept: Read-only file system"),
        )
        self.world.disk_error = None
        self.world.run(61)
        self.assertStored(0, 7)
        self.assertEqual(self.status("state", "lastError"), ("on", None))
        self.assertEqual(len(self.bucket.puts), 3)

    def test_after_a_crash_the_same_objects_are_made_again(self) -> None:
        self.bucket.always = "hang"
        self.start("a.log")
        self.world.write("a.log", lines(0, 20))
        self.world.run(15)
        planned = list(self.bucket.puts)
        self.assertEqual(len(planned), 4)
        for key, (body, _) in self.bucket.hanging.items():
            self.bucket.store(key, body)  # the answer comes too late
        self.world.crash()
        self.bucket.puts = []
        self.world.settings = ArchiveSettings(max_batch=7)
        self.world.boot()
        self.assertEqual(self.status("planned", "uploading"), (7, 4))
        self.bucket.always = None
        while self.bucket.hanging:
            self.bucket.land()
        self.world.run(30)
        self.assertEqual(self.bucket.puts[:4], planned)
        self.assertStored(0, 20)
        self.assertEqual(self.world.ledger("a.log").archived, 20)

    def test_stop_seals_nothing_and_a_restart_goes_on(self) -> None:
        self.start("a.log")
        self.world.write("a.log", lines(0, 5))
        self.world.run(2)
        self.world.halt()
        self.assertStored(0, 3)
        self.world.boot()
        self.world.run(12)
        self.assertStored(0, 5)
        self.assertEqual(self.world.ledger("a.log").archived, 5)

    def test_stop_waits_a_second_for_what_is_under_way(self) -> None:
        self.bucket.always = "hang"
        self.start("a.log")
        self.world.write("a.log", lines(0, 20))
        self.world.run(2)
        stopped = self.archive.stop()
        self.bucket.land()
        self.assertEqual(len(self.bucket.hanging), 3, "nothing more is begun")
        self.assertNoResult(stopped)
        for _ in range(3):
            self.bucket.land()
        self.successResultOf(stopped)
        self.world.halt()
        self.assertEqual(self.on_disk().archived, 12)

    def test_what_is_cut_short_at_the_end_is_not_worth_a_word(self) -> None:
        logs = self.capture_logs()
        self.bucket.always = "hang"
        self.start("a.log")
        self.world.write("a.log", lines(0, 20))
        self.world.run(2)
        self.archive.stop()
        self.clock.advance(1)
        while self.bucket.hanging:
            self.bucket.drop(error=CancelledError("the uploader is stopped"))
        self.assertEqual(logs.lines, [])

    def test_stop_does_not_wait_for_what_hangs(self) -> None:
        self.bucket.always = "hang"
        self.start("a.log")
        self.world.write("a.log", lines(0, 20))
        self.world.run(2)
        stopped = self.archive.stop()
        self.clock.advance(0.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.bucket.land()
        self.assertEqual(self.world.ledger("a.log").archived, 3, "consistent however late")


class OrderTests(ArchiveCase):
    def test_positions_and_ledger_move_only_in_order(self) -> None:
        self.bucket.always = "hang"
        self.start("a.log")
        self.world.write("a.log", lines(0, 12))
        self.world.run(2)
        stream, ledger = self.world.streams["a.log"], self.world.ledger("a.log")
        first, *others = self.bucket.hanging
        for key in reversed(others):
            self.bucket.land(key)
        self.world.run(2)
        self.assertEqual((stream.archived, ledger.archived, len(stream.batches)), (0, 0, 4))
        self.assertEqual(self.on_disk().archived, 0)
        self.bucket.land(first)
        self.assertEqual((stream.archived, ledger.archived), (stream.end, 12))
        self.assertEqual(len(stream.batches), 0)
        self.world.run(2)
        self.assertEqual(self.on_disk().archived, 12)

    def test_uploads_at_the_same_time_are_bounded_in_number_and_bytes(self) -> None:
        size = len(lines(0, 3))
        need = size + rendered_size(size, 3)
        for limit, wanted in ((1 << 20, 4), (need * 3, 3), (need * 2, 2), (5, 1)):
            self.world = World(
                self.mktemp(),
                ArchiveSettings(max_batch=3, max_in_flight_bytes=limit),
            )
            self.bucket, self.clock = self.world.bucket, self.world.clock
            self.bucket.always = "hang"
            self.start("a.log")
            self.world.write("a.log", lines(0, 9) * 10)
            self.world.run(2)
            while self.bucket.hanging:
                self.bucket.land()
                self.world.run(1)
            self.assertEqual(self.bucket.most_at_once, wanted)
            self.assertEqual(self.world.ledger("a.log").archived, 90)
            self.world.halt()


class MemoryTests(ArchiveCase):
    settings = ArchiveSettings(max_batch=50_000)

    def test_whatever_the_lines_are_uploads_take_less_than_8_mib(self) -> None:
        self.bucket.always = "hang"
        for number, line in enumerate((b"\0" * 60_000, b"\xff" * 60_000, b"GET " + b"x" * 80, b"")):
            name = f"{number}.log"
            self.start(name)
            data = (line + b"\n") * min((5 << 19) // (len(line) + 1), 60_000)
            tracemalloc.start()
            try:
                self.world.write(name, data)
                self.world.run(2)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertGreater(len(self.bucket.hanging), 0)
            self.assertLess(peak, 8 << 20)
            self.world.crash()


class FailureTests(ArchiveCase):
    def tries(self) -> list[float]:
        """When each put was made, from now on."""
        times: list[float] = []
        original = self.bucket.put

        def put(*args: Any) -> Any:
            times.append(self.clock.seconds())
            return original(*args)

        self.patch(self.bucket, "put", put)
        return times

    def test_backs_off_as_a_whole_and_probes_with_one(self) -> None:
        logs = self.capture_logs()
        self.start("a.log")
        times = self.tries()
        self.bucket.always = transient()
        self.world.write("a.log", lines(0, 30))
        self.world.run(300)
        self.assertEqual(self.status("state", "lastError"), ("backing off", "S3 has trouble"))
        waits = [after - before for before, after in pairwise(times)]
        self.assertEqual(len(times), len(set(times)), "never two at once")
        for wait, ceiling in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60), strict=False):
            self.assertGreaterEqual(wait, ceiling / 2)
            self.assertLessEqual(wait, ceiling + 0.5)
        self.assertEqual(len([line for line in logs.lines if "S3 has trouble" in line]), 1)
        self.bucket.always = "hang"
        self.world.run(61)
        self.assertEqual(len(self.bucket.hanging), 1, "a probe")
        self.bucket.always = None
        self.bucket.land()
        self.world.run(3)
        self.assertLogged(logs, "[s3] uploads succeed again after 3")
        self.world.run(15)
        self.assertStored(0, 30)
        self.assertEqual(self.status("state", "lastError"), ("on", None))

    def test_of_several_that_fail_together_one_counts(self) -> None:
        self.bucket.always = "hang"
        self.start("a.log")
        self.world.write("a.log", lines(0, 30))
        self.world.run(2)
        self.assertEqual(len(self.bucket.hanging), 4)
        for _ in range(4):
            self.bucket.drop()
        (retry,) = self.status("nextRetrySeconds")
        self.assertLessEqual(retry, 1.0)
        self.world.run(1.5)
        self.assertEqual(len(self.bucket.hanging), 1)
        self.bucket.always = None
        self.bucket.land()

    def test_the_success_of_what_was_begun_before_ends_nothing(self) -> None:
        self.bucket.always = "hang"
        self.start("a.log")
        self.world.write("a.log", lines(0, 30))
        self.world.run(2)
        self.bucket.drop(error=transient(retry_after=30.0))
        self.bucket.land()
        self.assertEqual(self.status("state", "nextRetrySeconds"), ("backing off", 30.0))
        self.world.run(20)
        self.assertEqual(len(self.bucket.hanging), 2)
        self.bucket.always = None
        while self.bucket.hanging:
            self.bucket.land()

    def test_retry_after_is_honoured_up_to_ten_minutes(self) -> None:
        for asked, waited in ((90.0, 90.0), (86400.0, 600.0)):
            self.world = World(self.mktemp(), SETTINGS)
            self.bucket, self.clock = self.world.bucket, self.world.clock
            self.start("a.log")
            times = self.tries()
            self.bucket.faults = [transient(retry_after=asked)]
            self.world.write("a.log", lines(0, 3))
            self.world.run(waited + 5, step=0.5)
            self.assertEqual(len(times), 2)
            self.assertAlmostEqual(times[1] - times[0], waited, delta=0.5)
            self.world.halt()

    def test_words_are_logged_when_they_change_and_every_ten_minutes(self) -> None:
        logs = self.capture_logs()
        self.start("a.log")
        self.bucket.always = environment("no such bucket")
        self.world.write("a.log", lines(0, 3))
        self.world.run(1300, step=1)
        self.bucket.always = environment("access denied")
        self.world.run(100, step=1)
        said = [line for line in logs.lines if line.startswith("[s3]")]
        self.assertEqual([line[5:9] for line in said], ["no s", "no s", "no s", "acce"])
        self.assertEqual(self.bucket.objects, {})
        self.bucket.always = None
        self.world.run(70, step=1)
        self.assertStored(0, 3)
        self.assertIn("3 lines waited", logs.lines[-1])

    def test_other_credentials_are_tried_at_once(self) -> None:
        self.start("a.log")
        self.bucket.always = environment()
        self.world.write("a.log", lines(0, 30))
        self.world.run(100)
        self.assertEqual(self.status("state"), ("backing off",))
        self.assertGreater(self.status("nextRetrySeconds")[0], 5)
        self.bucket.always = None
        self.archive.uploader = self.bucket
        self.world.run(2)
        self.assertEqual(self.status("state", "lastError"), ("on", None))
        self.world.run(15)
        self.assertStored(0, 30)

    def test_what_is_under_way_with_the_old_credentials_goes_on(self) -> None:
        self.bucket.always = "hang"
        self.start("a.log")
        self.world.write("a.log", lines(0, 12))
        self.world.run(2)
        self.archive.uploader = None
        self.bucket.land()
        self.bucket.drop(error=CancelledError())  # the old uploader was stopped
        self.bucket.drop()
        self.bucket.land()
        self.assertEqual(self.status("state"), ("waiting",))
        self.assertEqual(self.world.ledger("a.log").archived, 3)
        self.bucket.always = None
        self.archive.uploader = self.bucket
        self.world.run(5)
        self.assertStored(0, 12)

    def test_an_uploader_that_was_stopped_is_not_asked_all_the_time(self) -> None:
        self.start("a.log")
        self.bucket.always = CancelledError()
        self.world.write("a.log", lines(0, 3))
        self.world.run(60)
        self.assertLess(len(self.bucket.puts), 10)
        self.assertEqual(self.status("state"), ("backing off",))

    def test_what_is_no_upload_error_is_logged_once_and_tried_again(self) -> None:
        self.start("a.log")
        self.bucket.always = ZeroDivisionError("secret")
        self.world.write("a.log", lines(0, 3))
        self.world.run(30)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.status("lastError"), ("the upload failed: ZeroDivisionError",))
        self.bucket.always = None
        self.world.run(61)
        self.assertStored(0, 3)

    def test_an_answer_that_is_lost_doubles_nothing(self) -> None:
        self.start("a.log")
        self.bucket.faults = [("lose", transient())] * 3
        self.world.write("a.log", lines(0, 12))
        self.world.run(30)
        self.assertStored(0, 12)
        self.assertEqual(self.world.ledger("a.log").archived, 12)

    def test_what_is_refused_while_others_are_accepted_is_put_aside(self) -> None:
        logs = self.capture_logs()
        self.start("a.log")
        self.dislike(b'"GET 4"', refused("malformed"))
        self.world.write("a.log", lines(0, 18))
        self.world.run(60)
        (key,) = set(self.bucket.puts) - set(self.bucket.objects)
        self.assertLess(self.bucket.puts.count(key), 6)
        ledger = self.world.ledger("a.log")
        self.assertEqual((ledger.archived, ledger.rejected, ledger.given_up), (15, 3, 0))
        self.assertEqual(self.world.streams["a.log"].archived, self.world.streams["a.log"].end)
        self.assertEqual(self.status("asideObjects", "state"), (1, "on"))
        path = os.path.join(self.world.directory, "a.log")
        words = "3 lines are not archived, but put aside in the spool: malformed"
        self.assertEqual(self.world.said, [("warn", words, path)])
        self.assertLogged(logs, f"[logs] {path}: {words}")
        (name,) = os.listdir(os.path.join(self.world.directory, "spool", "rejected"))
        with open(os.path.join(self.world.directory, "spool", "rejected", name), "rb") as file:
            self.assertEqual(file.read(), b'{"line":"GET 3"}\n{"line":"GET 4"}\n{"line":"GET 5"}\n')

    def test_what_cannot_be_put_aside_is_given_up(self) -> None:
        self.start("a.log")
        self.world.spool.limit = 0
        self.bucket.faults = [too_large()] * 3
        self.world.write("a.log", lines(0, 3))
        self.world.run(60)
        ledger = self.world.ledger("a.log")
        self.assertEqual((ledger.archived, ledger.rejected, ledger.given_up), (0, 0, 3))
        self.assertEqual(
            self.world.said[0][:2], ("warn", "3 lines are not archived, but lost: EntityTooLarge")
        )
        self.world.write("a.log", lines(3, 6))
        self.world.run(60)
        self.assertStored(3, 6)

    def test_where_everything_is_too_large_it_slows_down(self) -> None:
        self.start("a.log")
        self.bucket.always = too_large()
        self.world.write("a.log", lines(0, 300))
        self.world.run(600, step=1)
        self.assertLess(self.world.ledger("a.log").rejected, 60)

    def test_an_s3_that_refuses_everything_is_waited_for(self) -> None:
        """Full, or in want of something else that each object lacks."""
        self.start("a.log", "b.log")
        self.world.write("a.log", lines(0, 6))
        self.world.run(2)
        self.bucket.always = refused()
        self.world.write("a.log", lines(6, 300))
        self.world.write("b.log", lines(300, 305))
        self.world.run(4 * 3600, step=5)
        self.assertEqual(self.status("state", "asideObjects"), ("backing off", 0))
        self.bucket.always = None
        self.world.run(120)
        self.assertStored(0, 305)

    def test_one_that_fails_again_and_again_holds_up_nothing_and_is_put_aside(self) -> None:
        logs = self.capture_logs()
        for error in (transient("HTTP 500"), environment("HTTP 403"), ZeroDivisionError()):
            self.world = World(self.mktemp(), SETTINGS)
            self.bucket, self.clock = self.world.bucket, self.world.clock
            self.start("a.log", "b.log")
            self.dislike(b'"GET 4"', error)
            times = []
            for second in range(0, 3750, 6):
                self.world.write("b.log", lines(1000 + second, 1006 + second))
                self.world.run(6, step=6)
                if second == 60:
                    self.world.write("a.log", lines(3, 6))
                if not self.world.said:
                    waited = self.status("state", "nextRetrySeconds")
                    times.append(waited != ("on", None))
            self.assertLess(sum(times), 5, "the others do not wait for it")
            ledger = self.world.ledger("a.log")
            self.assertEqual((ledger.rejected, ledger.given_up), (3, 0))
            self.assertGreater(self.world.ledger("b.log").archived, 3730)
            self.assertLess(len(self.bucket.puts) - len(self.bucket.objects), 100)
            self.assertEqual(self.status("lastError"), (None,))
            self.world.halt()
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(len([line for line in logs.lines if "HTTP 500, but others" in line]), 1)

    def test_one_that_fails_is_put_aside_also_where_all_others_wait_for_it(self) -> None:
        self.start("a.log")
        self.dislike(b'"GET 4"', environment("a filter"))
        self.world.write("a.log", lines(0, 100))
        self.world.run(10)
        self.assertEqual(self.status("planned", "state"), (SETTINGS.max_planned - 1, "on"))
        self.assertEqual(self.status("lastError"), ("a filter",))
        self.world.run(4000, step=5)
        ledger = self.world.ledger("a.log")
        self.assertEqual((ledger.archived, ledger.rejected), (97, 3))

    def test_an_outage_of_hours_puts_nothing_aside(self) -> None:
        self.start("a.log")
        self.world.write("a.log", lines(0, 12))
        self.world.run(2)
        for fault in (transient(), environment(), None):
            self.bucket.faults = [fault] * 3 + [None] * 2 + [fault] * 5
            self.bucket.always = fault
            self.world.write("a.log", lines(12, 24))
            self.world.run(3 * 3600, step=5)
        self.assertEqual(self.world.ledger("a.log"), Ledger(archived=48))

    def dislike(self, content: bytes, error: Exception) -> None:
        """S3 fails with `error` for an object that holds `content`."""
        original = self.bucket.put

        def put(key: str, make_body: Callable[[], bytes], metadata: Mapping[str, str]) -> Any:
            if content in make_body():
                self.bucket.faults.insert(0, error)
            return original(key, make_body, metadata)

        self.patch(self.bucket, "put", put)

    def test_putting_aside_that_breaks_is_tried_again(self) -> None:
        self.start("a.log")
        self.bucket.faults = [too_large()] * 4
        self.world.write("a.log", lines(0, 3))
        with mock.patch.object(self.world.spool, "put_aside", side_effect=ZeroDivisionError):
            self.world.run(30)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.world.ledger("a.log"), Ledger())
        self.world.run(90)
        self.assertEqual(self.world.ledger("a.log"), Ledger(rejected=3))

    def test_an_end_that_breaks_is_not_uploaded_again(self) -> None:
        self.start("a.log")
        self.bucket.faults = [too_large()] * 3
        self.world.write("a.log", lines(0, 3))
        with mock.patch.object(self.world, "say", side_effect=ZeroDivisionError):
            self.archive._say = self.world.say
            self.world.run(90)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.world.run(90)
        self.assertEqual(self.world.ledger("a.log"), Ledger(rejected=3))
        self.assertEqual(len(self.bucket.puts), 3)

    def test_a_parser_that_fails_holds_nothing_up(self) -> None:
        def parse(line: str) -> None:
            raise KeyError(line)

        self.start("a.log")
        self.archive.parser_for = lambda path: parse
        self.world.write("a.log", lines(0, 3))
        self.world.run(2)
        self.assertStored(0, 3)
        self.assertEqual(self.world.ledger("a.log").unmatched, 3)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)


class GoneTests(ArchiveCase):
    def plan(self, hang: int = 0) -> None:
        """Twelve lines in four batches, none of them confirmed; some under way."""
        self.start("a.log")
        if hang:
            self.bucket.always = "hang"
            self.world.settings = SETTINGS
        else:
            self.archive.uploader = None
        self.world.write("a.log", lines(0, 12))
        self.world.run(2)
        self.assertEqual(len(self.bucket.hanging), hang)

    def truncate(self) -> None:
        os.truncate(os.path.join(self.world.directory, "a.log"), 0)

    def test_content_that_is_gone_waits_for_the_tail_which_closes_the_stream(self) -> None:
        logs = self.capture_logs()
        self.plan()
        self.truncate()
        self.archive.uploader = self.bucket
        self.world.run(30)
        self.assertEqual(self.bucket.puts, [])
        self.assertTrue(self.world.checked)
        self.assertLess(len(self.world.checked), 10)
        ledger, path = self.world.ledger("a.log"), self.world.streams["a.log"].path
        self.world.close("a.log")
        self.assertEqual((ledger.archived, ledger.given_up), (0, 12))
        words = "12 lines are not archived and lost: the file is gone"
        self.assertEqual(self.world.said, [("warn", words, path)])
        self.assertLogged(logs, f"[logs] {path}: {words}")
        self.world.run(30)
        self.assertEqual((self.bucket.puts, self.status("planned")), ([], (0,)))

    def test_content_that_is_found_elsewhere_is_uploaded_from_there(self) -> None:
        self.plan()
        self.truncate()
        self.archive.uploader = self.bucket
        self.world.run(5)
        copy = os.path.join(self.world.directory, "a.log.1")
        with open(copy, "wb") as file:
            file.write(lines(0, 12))
        stream = self.world.streams["a.log"]
        assert stream.stale
        stream.source.close()
        stream.source.fd = os.open(copy, os.O_RDONLY)
        stream.stale = False
        self.archive.more(stream)
        self.world.run(2)
        self.assertStored(0, 12)

    def test_a_disk_that_fails_is_tried_again(self) -> None:
        self.plan()
        self.archive.uploader = self.bucket
        error = OSError(errno.EIO, "Input/output error")
        with mock.patch("os.pread", side_effect=error):
            self.world.write("a.log", lines(12, 15))
            self.world.run(30)
        self.world.run(15)
        self.assertStored(0, 15)
        self.assertEqual(self.world.ledger("a.log").archived, 15)

    def test_a_file_that_is_shorter_than_it_was_is_tried_again(self) -> None:
        self.start("a.log")
        self.archive.uploader = None
        content = b"".join(b"GET %0100d\n" % number for number in range(120))
        self.world.write("a.log", content)
        self.world.run(2)
        path = os.path.join(self.world.directory, "a.log")
        os.truncate(path, 1000)
        self.archive.uploader = self.bucket
        self.world.run(5)
        self.assertEqual(self.world.ledger("a.log").archived, 9)
        with open(path, "ab") as file:
            file.write(content[1000:])
        self.world.run(15)
        self.assertEqual(self.bucket.lines().total(), 24, "all that was planned")
        self.archive.more(self.world.streams["a.log"])
        self.world.run(60)
        self.assertEqual(self.bucket.lines().total(), 120)

    def shrink(self, size: int) -> None:
        """The file is deleted, and the spool has room for its beginning only."""
        stream = self.world.streams["a.log"]
        path = os.path.join(self.world.directory, "kept")
        with open(path, "wb") as file:
            file.write(stream.source.read(0, size))
        stream.move(Source(os.open(path, os.O_RDONLY)))
        stream.end = stream.live_settled = size

    def test_lines_in_no_batch_that_are_lost_with_their_file_are_not_planned(self) -> None:
        for complete in (False, True):
            self.world = World(self.mktemp(), SETTINGS)
            self.bucket, self.clock = self.world.bucket, self.world.clock
            self.start("a.log")
            self.world.write("a.log", lines(0, 5))
            self.world.run(2)
            self.shrink(len(lines(0, 4)))
            if complete:
                self.world.complete("a.log")
            self.world.run(30)
            self.assertStored(0, 4)
            self.assertEqual(self.world.ledger("a.log"), Ledger(archived=4))
            self.assertEqual(self.world.streams["a.log"].archived, len(lines(0, 4)))
            self.world.halt()

    def test_what_is_under_way_when_the_stream_is_closed_may_yet_succeed(self) -> None:
        self.plan(hang=4)
        ledger = self.world.ledger("a.log")
        second, first = list(self.bucket.hanging)[1::-1]
        self.bucket.land(second)
        self.world.close("a.log")
        self.assertEqual((ledger.archived, ledger.given_up), (3, 9))
        self.bucket.land(first)
        self.assertEqual((ledger.archived, ledger.given_up), (6, 6))
        self.bucket.drop()
        self.bucket.drop(error=too_large())
        self.bucket.always = None
        self.world.run(120)
        self.assertEqual((ledger.archived, ledger.given_up), (6, 6))
        self.assertEqual(len(self.bucket.puts), 4)
        self.assertEqual(self.archive._uploads._unreadable, [], "nobody tries it again")
        self.assertEqual(self.on_disk(), ledger)

    def test_a_stream_that_is_closed_before_its_plan_is_on_disk(self) -> None:
        self.start("a.log")
        self.world.run(2)
        self.world.disk_error = OSError(errno.EROFS, "Read-only file system")
        self.world.write("a.log", lines(0, 3))
        self.world.turn()
        ledger = self.world.ledger("a.log")
        self.world.close("a.log")
        self.world.disk_error = None
        self.world.run(10)
        self.assertEqual((self.bucket.puts, ledger.given_up), ([], 3))
        self.assertEqual(self.archive._uploads._unreadable, [], "nobody tries it again")

    def test_a_stream_that_is_closed_while_its_plan_is_being_written(self) -> None:
        self.start("a.log")
        self.world.run(2)
        self.world.checkpoint.touch()
        self.world.turn()
        self.world.write("a.log", lines(0, 3))
        self.world.turn()
        ledger = self.world.ledger("a.log")
        self.assertEqual(self.status("planned"), (1,))
        self.world.close("a.log")
        self.world.run(10)
        self.assertEqual((self.bucket.puts, ledger.given_up), ([], 3))
        self.assertEqual(self.archive._uploads._unreadable, [], "nobody tries it again")

    def test_a_stream_that_is_done_is_closed_in_silence(self) -> None:
        self.start("a.log")
        self.world.write("a.log", lines(0, 3))
        self.world.run(2)
        self.world.close("a.log")
        self.assertEqual(self.world.said, [])


class PostedTests(ArchiveCase):
    BODY = b'{"raw":"GET 1"}\n{"raw":"GET 2"}\n'

    def posted(self) -> Ledger:
        return self.world.ledgers.get(POSTED_PATH, Ledger())

    def submit(self, body: bytes, lines: int) -> Deferred[int]:
        stored = self.successResultOf(self.archive.submit(body, lines))
        return cast("Deferred[int]", stored.uploaded)

    def spooled(self) -> list[str]:
        return list(self.world.spool.objects(1000))

    def test_uploaded_counted_and_removed(self) -> None:
        self.start()
        done = self.submit(self.BODY, 2)
        self.assertEqual(self.successResultOf(done), 2)
        (key,) = self.bucket.objects
        self.assertRegex(key, rf"^{MACHINE}/2026-11-23/040506-batch-[0-9a-f]{{12}}\.ndjson$")
        self.assertEqual(self.bucket.objects[key], self.BODY)
        self.assertEqual(len(self.spooled()), 1, "until it is counted on disk")
        self.world.run(2)
        self.assertEqual((self.spooled(), self.world.spool.used), ([], 0))
        self.assertEqual(self.posted(), Ledger(archived=2))

    def test_it_is_on_disk_before_it_is_uploaded(self) -> None:
        self.bucket.always = "hang"
        self.start()
        done = self.submit(self.BODY, 2)
        self.assertEqual(len(self.spooled()), 1)
        self.assertNoResult(done)
        self.world.crash()
        self.bucket.always = None
        self.world.boot()
        self.world.run(2)
        self.assertEqual(list(self.bucket.objects.values()), [self.BODY])
        self.assertEqual((self.posted().archived, self.spooled()), (2, []))

    def test_what_was_uploaded_before_a_crash_is_counted_once(self) -> None:
        self.start()
        self.world.run(2)
        self.submit(self.BODY, 2)
        self.world.crash()
        self.world.boot()
        self.world.run(2)
        self.assertEqual(len(self.bucket.puts), 2)
        self.assertEqual((self.posted().archived, self.spooled()), (2, []))
        self.world.halt()
        self.world.boot()
        self.world.run(2)
        self.assertEqual((len(self.bucket.puts), self.posted().archived), (2, 2))

    def test_the_last_one_is_removed_at_stop(self) -> None:
        self.start()
        self.world.run(2)
        self.submit(self.BODY, 2)
        self.world.halt()
        self.assertEqual(self.spooled(), [])

    def test_who_gave_up_waiting_changes_nothing(self) -> None:
        self.bucket.always = "hang"
        self.start()
        done = self.submit(self.BODY, 2)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.bucket.land()
        self.world.run(2)
        self.assertEqual((self.posted().archived, self.spooled()), (2, []))

    def test_the_same_events_in_the_same_second_are_two_objects(self) -> None:
        self.start()
        told = [self.successResultOf(self.submit(self.BODY, 2)) for _ in range(2)]
        self.assertEqual(told, [2, 2])
        self.assertEqual(len(self.bucket.events()), 4)
        self.world.run(2)
        self.assertEqual((self.posted().archived, self.spooled()), (4, []))

    def test_killed_when_it_is_counted_and_not_removed_it_is_counted_once(self) -> None:
        self.start()
        error = OSError(errno.EIO, "Input/output error")
        with mock.patch.object(self.world.spool, "remove_object", side_effect=error):
            for _ in range(2):
                self.submit(self.BODY, 2)
                self.world.run(2)
        self.assertEqual((self.on_disk().archived, len(self.spooled())), (4, 2))
        self.world.crash()
        self.world.boot()
        self.world.run(2)
        self.assertEqual((self.posted().archived, len(self.bucket.puts)), (4, 2))
        self.assertEqual((self.spooled(), self.archive.counted), ([], ()))

    def test_a_full_spool_takes_nothing(self) -> None:
        self.start()
        self.world.spool.limit = 0
        failure = self.failureResultOf(self.archive.submit(self.BODY, 2), SpoolFull)
        self.assertIn("spoolMaxBytes", str(failure.value))
        self.assertEqual((self.spooled(), self.bucket.puts), ([], []))
        self.world.spool.limit = 1 << 20
        self.assertEqual(self.successResultOf(self.submit(self.BODY, 2)), 2)

    def test_without_credentials_it_waits(self) -> None:
        self.start()
        self.archive.uploader = None
        done = self.submit(self.BODY, 2)
        self.world.run(5)
        self.assertNoResult(done)
        self.assertEqual(self.status("spoolBytes"), (4096,))
        self.archive.uploader = self.bucket
        self.assertEqual(self.successResultOf(done), 2)

    def test_stop_tells_who_waits(self) -> None:
        self.bucket.always = "hang"
        self.start()
        done = self.submit(self.BODY, 2)
        self.world.halt()
        self.failureResultOf(done, ArchiveOff)
        self.assertEqual(len(self.spooled()), 1)

    def test_a_disk_that_takes_its_time(self) -> None:
        for cancelled, stopped in ((False, False), (True, False), (False, True), (True, True)):
            with self.subTest(cancelled=cancelled, stopped=stopped):
                self.world.boot()
                waiting: list[Any] = []

                def run(function: Callable[[], None], waiting: list[Any] = waiting) -> Any:
                    done: Deferred[None] = Deferred()
                    waiting.append((function, done))
                    return done

                self.archive._posted._run = run
                stored = self.archive.submit(self.BODY, 2)
                self.assertNoResult(stored)
                if cancelled:
                    stored.cancel()
                    self.failureResultOf(stored, CancelledError)
                if stopped:
                    self.archive.stop()
                ((function, done),) = waiting
                function()
                done.callback(None)
                if stopped:
                    self.world.crash()
                if not cancelled:
                    uploaded = self.successResultOf(stored).uploaded
                    if stopped:
                        self.failureResultOf(uploaded, ArchiveOff)
                    else:
                        self.assertEqual(self.successResultOf(uploaded), 2)
        self.world.boot()
        self.world.run(2)
        self.assertEqual(self.posted().archived, 8)

    def test_a_disk_that_is_full_late_is_told(self) -> None:
        self.start()
        disk: Deferred[None] = Deferred()
        self.archive._posted._run = lambda function: disk
        stored = self.archive.submit(self.BODY, 2)
        self.world.run(10)
        self.assertNoResult(stored)
        disk.callback(None)
        self.failureResultOf(stored, SpoolFull)
        self.assertEqual(self.archive._posted._known, {})

    def test_stopped_it_takes_nothing(self) -> None:
        self.start()
        self.archive.stop()
        self.failureResultOf(self.archive.submit(self.BODY, 2), ArchiveOff)

    def test_too_large_three_times_is_put_aside(self) -> None:
        self.bucket.faults = [too_large("too large")] * 3
        self.start()
        done = self.submit(self.BODY, 2)
        self.world.run(30)
        self.assertEqual(str(self.failureResultOf(done, UploadError).value), "too large")
        self.assertEqual((self.posted(), self.spooled()), (Ledger(rejected=2), []))
        self.assertEqual(self.status("asideObjects"), (1,))
        self.assertEqual(
            self.world.said,
            [("warn", "2 POSTed events are put aside in the spool: too large", POSTED_PATH)],
        )

    def test_what_cannot_be_put_aside_is_given_up(self) -> None:
        self.bucket.faults = [too_large("too large")] * 3
        self.start()
        done = self.submit(self.BODY, 2)
        with open(os.path.join(self.world.directory, "spool", "rejected"), "w"):
            pass
        self.world.run(30)
        self.failureResultOf(done, UploadError)
        self.assertEqual((self.posted(), self.spooled()), (Ledger(given_up=2), []))

    def test_counted_once_however_long_the_disk_could_not_be_written(self) -> None:
        self.start()
        self.world.disk_error = OSError(errno.EROFS, "Read-only file system")
        self.submit(self.BODY, 2)
        self.world.run(5)
        self.world.disk_error = None
        self.submit(self.BODY + self.BODY, 4)
        self.assertEqual(len(self.spooled()), 2)
        self.world.turn()
        self.world.crash()
        self.world.boot()
        self.world.run(2)
        self.assertEqual((self.posted(), self.spooled()), (Ledger(archived=6), []))

    def test_taken_away_by_somebody_else(self) -> None:
        self.start()
        self.archive.uploader = None
        done = self.submit(self.BODY, 2)
        os.unlink(os.path.join(self.world.directory, "spool", "objects", self.spooled()[0]))
        self.archive.uploader = self.bucket
        self.failureResultOf(done, UploadError)
        self.assertEqual(self.posted(), Ledger(given_up=2))

    def test_many_are_known_by_and_by(self) -> None:
        self.start()
        self.archive.uploader = None
        for number in range(50):
            done = self.submit(b'{"raw":"GET %d"}\n' % number, 1)
            done.cancel()
            self.failureResultOf(done, CancelledError)
            self.assertLessEqual(len(self.archive._posted._known), SETTINGS.max_planned)
        self.archive.uploader = self.bucket
        self.world.run(5)
        self.assertStored(0, 50)
        self.archive.uploader = None
        for number in range(50, 100):
            self.submit(b'{"raw":"GET %d"}\n' % number, 1)
        self.world.crash()
        self.world.boot()
        self.assertLessEqual(len(self.archive._posted._known), SETTINGS.max_planned)
        self.world.run(5)
        self.assertStored(0, 100)
        self.assertEqual((self.posted().archived, self.spooled()), (100, []))


FAULTS = st.sampled_from(
    [
        *("none", "none", "transient", "lose", "hang", "hang"),
        *("refused", "too large", "environment", "retry after"),
    ]
)
#: What happens, and how many seconds later the next thing does.
WRITES = st.one_of(
    st.tuples(st.just("write"), st.sampled_from("ab"), st.integers(1, 25)),
    st.tuples(st.just("write"), st.sampled_from("ab"), st.integers(1, 25)),
    st.tuples(st.just("half a line"), st.sampled_from("ab")),
    st.tuples(st.just("long line"), st.sampled_from("ab"), st.integers(1, 3)),
    st.tuples(st.just("post"), st.integers(1, 4)),
)
TROUBLES = st.one_of(
    st.tuples(st.just("faults"), st.lists(FAULTS, min_size=1, max_size=6)),
    st.tuples(st.just("faults"), st.lists(FAULTS, min_size=1, max_size=6)),
    st.tuples(st.just("land"), st.integers(0, 3)),
    st.tuples(st.just("drop"), st.integers(0, 3)),
    st.tuples(st.just("crash"), st.booleans()),
    st.tuples(st.just("restart")),
    st.tuples(st.just("disk"), st.sampled_from([True, True, False])),
    st.tuples(st.just("credentials"), st.sampled_from([True, True, False])),
)
STEPS = st.lists(
    st.tuples(WRITES, TROUBLES, st.sampled_from([0.25, 1.0, 1.0, 5.0, 30.0])),
    min_size=5,
    max_size=20,
)


class EveryLineTests(SynchronousTestCase):
    """Whatever happens, every line is in the bucket once, and the ledger says so."""

    def setUp(self) -> None:
        without_syncing(self)

    def step(self, kind: str, *args: Any, seconds: float = 0.0) -> None:
        world = self.world
        getattr(self, f"do_{kind.replace(' ', '_')}")(*args)
        self.check()
        world.clock.advance(seconds)
        self.check()

    def check(self) -> None:
        world = self.world
        world.turn()
        archive = world.archive
        assert archive is not None
        uploads = archive._uploads
        limits = world.settings
        self.assertLessEqual(uploads.in_flight, limits.max_uploads)
        if uploads.in_flight > 1:
            self.assertLessEqual(uploads.in_flight_bytes, limits.max_in_flight_bytes)
        batches = sum(len(stream.batches) for stream in world.streams.values())
        self.assertLessEqual(batches, limits.max_planned)
        self.assertEqual(archive.status()["planned"], batches)

    def put_line(self, name: str, text: str) -> bytes:
        self.number += 1
        line = f"{'GET' if self.number % 3 else 'PUT'} {name} {self.number} {text}"
        self.written[line] += 1
        return line.encode() + b"\n"

    def add(self, name: str, data: bytes) -> None:
        rest = self.rest.pop(name, b"")
        self.world.write(name, rest + data)

    def do_write(self, name: str, count: int) -> None:
        self.add(name, b"".join(self.put_line(name, "x" * (i % 7)) for i in range(count)))

    def do_half_a_line(self, name: str) -> None:
        line = self.put_line(name, "half")
        self.add(name, line[:5])
        self.rest[name] = line[5:]

    def do_long_line(self, name: str, size: int) -> None:
        self.add(name, self.put_line(name, "y" * (size * 30)))

    def do_post(self, count: int) -> None:
        archive = self.world.archive
        assert archive is not None
        body = b"".join(
            b'{"line":"%s"}\n' % self.put_line("post", "").rstrip(b"\n") for _ in range(count)
        )
        self.posted += count
        archive.submit(body, count).addCallback(lambda stored: stored.uploaded).addErrback(
            lambda failure: failure.trap(ArchiveOff, UploadError)
        )

    def do_faults(self, faults: list[str]) -> None:
        values = {
            "none": None,
            "transient": transient(),
            "lose": ("lose", transient()),
            "hang": "hang",
            "refused": refused(),
            "too large": too_large(),
            "environment": environment(),
            "retry after": transient(retry_after=20.0),
        }
        self.world.bucket.faults.extend(values[fault] for fault in faults)

    def hanging(self, number: int) -> str | None:
        keys = list(self.world.bucket.hanging)
        return keys[number % len(keys)] if keys else None

    def do_land(self, number: int) -> None:
        if key := self.hanging(number):
            self.world.bucket.land(key)

    def do_drop(self, number: int) -> None:
        if key := self.hanging(number):
            self.world.bucket.drop(key)

    def do_crash(self, arrives: bool) -> None:
        if arrives:
            for key, (body, _) in self.world.bucket.hanging.items():
                self.world.bucket.store(key, body)
        self.boot()

    def do_restart(self) -> None:
        self.world.disk_error = None
        self.world.halt()
        self.boot()

    def boot(self) -> None:
        self.world.crash()
        self.world.boot()
        for name in "ab":
            if name not in self.world.streams:  # not in a checkpoint yet
                self.world.open(name)

    def do_disk(self, works: bool) -> None:
        self.world.disk_error = None if works else OSError(errno.ENOSPC, "No space left on device")

    def do_credentials(self, there: bool) -> None:
        assert self.world.archive is not None
        self.world.archive.uploader = self.world.bucket if there else None

    @settings(
        max_examples=120,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        steps=STEPS,
        max_batch=st.integers(1, 9),
        max_planned=st.integers(1, 9),
        max_bytes=st.integers(20, 300),
        max_in_flight=st.integers(1000, 5000),
        hangs=st.booleans(),
    )
    def test_every_line_once(
        self,
        steps: list[tuple[tuple[Any, ...], tuple[Any, ...], float]],
        max_batch: int,
        max_planned: int,
        max_bytes: int,
        max_in_flight: int,
        hangs: bool,
    ) -> None:
        self.world = world = World(
            self.mktemp(),
            ArchiveSettings(
                max_batch=max_batch,
                max_planned=max_planned,
                max_bytes=max_bytes,
                max_in_flight_bytes=max_in_flight,
            ),
        )
        self.written: Counter[str] = Counter()
        self.rest: dict[str, bytes] = {}
        self.number = self.posted = 0
        world.bucket.always = "hang" if hangs else None
        self.boot()
        try:
            for write, trouble, seconds in steps:
                self.step(*write)
                self.step(*trouble, seconds=seconds)
            # All is well again.
            world.bucket.faults = []
            world.bucket.always = None
            self.step("disk", True)
            self.step("credentials", True)
            while world.bucket.hanging:
                self.step("land", 0)
            for name in "ab":
                self.add(name, b"")
                world.complete(name)
            world.run(1500, step=15)
        finally:
            world.halt()
        found = world.bucket.lines()
        aside = Counter(_put_aside(world))
        self.assertEqual(found + aside, self.written)
        ledgers = world.ledgers
        archived = sum(ledger.archived for ledger in ledgers.values())
        self.assertEqual(archived, found.total())
        self.assertEqual(sum(ledger.rejected for ledger in ledgers.values()), aside.total())
        self.assertEqual(sum(ledger.given_up for ledger in ledgers.values()), 0)
        posted = ledgers.get(POSTED_PATH, Ledger())
        self.assertEqual(posted.archived + posted.rejected, self.posted)
        unmatched = sum(line.startswith("PUT") and " post " not in line for line in found)
        self.assertEqual(sum(ledger.unmatched for ledger in ledgers.values()), unmatched)


def _put_aside(world: World) -> list[str]:
    found = []
    folder = os.path.join(world.directory, "spool", "rejected")
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name), "rb") as file:
            for line in file:
                event = json.loads(line)
                found.append(event.get("line", event.get("raw")))
    return found
