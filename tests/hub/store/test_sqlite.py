"""What only the database in SQLite does: history, files, copies, failures."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.records import RefusalRecord
from jetcamer.hub.store import engine, facts, logs
from jetcamer.hub.store.agents import RESTARTED
from jetcamer.hub.store.interface import StoreError
from jetcamer.hub.store.retention import Retention
from tests.hub.store.support import NOW, SQLiteCase, agent_record, command_record
from tests.support.logs import LogsMixin


def mode(path):
    return os.stat(path).st_mode & 0o777


class FactsTest(SynchronousTestCase):
    def test_what_could_not_be_written_comes_first_again(self):
        waiting = facts.Facts()
        for text in ("a", "b"):
            waiting.add_log(("web-1", NOW, NOW, "info", text, None, None))
            waiting.seen([(text, 1, 1), ("both", 1, 1)])
        batch = waiting.take()
        self.assertEqual(len(waiting), 0)
        waiting.add_log(("web-1", NOW, NOW, "info", "c", None, None))
        waiting.seen([("both", 2, 2)])
        waiting.put_back(batch)
        again = waiting.take()
        self.assertEqual([log[4] for log in again.logs], ["a", "b", "c"])
        self.assertEqual(again.seen, {"a": (1, 1), "b": (1, 1), "both": (2, 2)})


class HistoryTest(SQLiteCase):
    async def setUp(self):
        super().setUp()
        self.store = await self.opened()

    def add_log(self, number, level="info", message=None, source=None):
        text = f"number {number}" if message is None else message
        self.store.add_log("web-1", NOW + number, NOW - 7, level, text, source, None)

    async def messages(self, **filters):
        return [each.message for each in await self.store.logs("web-1", **filters)]

    async def test_logs_come_newest_first_in_pages(self):
        for number in (0, 2, 1, 3):
            self.add_log(number)
        await self.store.flush()
        page = await self.store.logs("web-1", limit=2)
        self.assertEqual([each.message for each in page], ["number 3", "number 2"])
        self.assertEqual((page[0].ts, page[0].received_ms), (NOW - 7, NOW + 3))
        rest = await self.messages(before=page[-1].log_id)
        self.assertEqual(rest, ["number 1", "number 0"])
        self.assertEqual(await self.messages(before=10**9), [])

    async def test_logs_are_filtered(self):
        for number in range(6):
            self.add_log(number, level=("info", "warn", "error")[number % 3], source=f"s{number}")
        await self.store.flush()
        found = await self.messages(levels=("error", "warn", "error"), limit=3)
        self.assertEqual(found, ["number 5", "number 4", "number 2"])
        self.assertEqual(await self.messages(source="s3"), ["number 3"])
        found = await self.messages(from_ms=NOW + 1, to_ms=NOW + 2)
        self.assertEqual(found, ["number 2", "number 1"])

    async def test_a_text_is_looked_for_as_it_stands(self):
        for number, text in enumerate(("100% full", "100 x full", "a_b", "aXb", "c:\\d")):
            self.add_log(number, message=text)
        await self.store.flush()
        self.assertEqual(await self.messages(contains="0% F"), ["100% full"])
        self.assertEqual(await self.messages(contains="a_b"), ["a_b"])
        self.assertEqual(await self.messages(contains="c:\\d"), ["c:\\d"])

    async def test_a_text_is_looked_for_so_far_back_and_no_further(self):
        self.patch(logs, "LOOK_THROUGH", 3)
        for number in range(5):
            self.add_log(number)
        await self.store.flush()
        found = await self.messages(contains="number")
        self.assertEqual(found, ["number 4", "number 3", "number 2"])

    async def test_metrics_are_there_after_a_flush(self):
        self.store.add_metrics("web-1", NOW - 10, 1.5, None, 2.0)
        await self.store.flush()
        series = await self.store.metrics("web-1", NOW - 1000, NOW, 10)
        self.assertEqual([(p.ts, p.cpu_percent.avg) for p in series.points], [(NOW - 10, 1.5)])
        await self.store.upkeep()
        self.assertEqual(await self.store.metrics("web-1", NOW - 1000, NOW, 10), series)

    async def test_sessions_that_a_crash_left_open_are_ended(self):
        first = self.store.session_started(agent_record(), "p:1", NOW)
        self.store.session_ended(first, NOW + 1, "it left", 7, 1)
        second = self.store.session_started(agent_record(), "p:2", NOW + 2)
        self.store.seen([("web-1", NOW + 9, 0)])
        await self.store.close()
        self.store = await self.opened()
        newest, oldest = await self.store.sessions("web-1")
        self.assertEqual((newest.ending, newest.ended_ms), (RESTARTED, NOW + 9))
        self.assertEqual((oldest.ending, oldest.ended_ms), ("it left", NOW + 1))
        self.assertEqual((oldest.messages, oldest.refused), (7, 1))
        third = self.store.session_started(agent_record(), "p:3", NOW + 10)
        self.assertEqual((first, second, third), (1, 2, 3))
        page = await self.store.sessions("web-1", before=3, limit=1)
        self.assertEqual([each.session_id for each in page], [2])

    async def test_retention_keeps_what_is_unfinished(self):
        day = 86_400_000
        ended = self.store.session_started(agent_record(), "p:1", NOW)
        self.store.session_ended(ended, NOW, "it left", 0, 0)
        self.store.session_started(agent_record(), "p:2", NOW)
        self.store.put_command(command_record("c1", state="done"))
        self.store.put_command(command_record("c2", state="queued"))
        self.add_log(0)
        self.store.add_refusal(
            RefusalRecord(ts_ms=NOW, agent_id=None, address="a", reason="r", words="w")
        )
        self.now = NOW + 400 * day
        await self.store.upkeep()
        self.assertEqual([each.session_id for each in await self.store.sessions("web-1")], [2])
        self.assertEqual([c.command_id for c in await self.store.commands(None)], ["c2"])
        self.assertEqual((await self.messages(), await self.store.refusals()), ([], []))

    async def test_the_audit_trail_refuses_changes_and_shows_what_was_changed(self):
        for number in range(4):
            self.store.audit("alice", "agent.add", f"web-{number}", {})
        await self.store.close()
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        for statement in (
            "UPDATE audit SET who = 'bob'",
            "DELETE FROM audit WHERE id = 4",
            "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE id = 2",
        ):
            with self.assertRaises(sqlite3.IntegrityError):
                connection.execute(statement)
        connection.execute("DROP TRIGGER audit_is_not_deleted")
        connection.execute("DELETE FROM audit WHERE id = 4")
        self.assertEqual(await self.verified(), (3, 4))
        connection.execute("DROP TRIGGER audit_is_not_changed")
        connection.execute("UPDATE audit SET who = 'bob' WHERE id = 2")
        self.assertEqual(await self.verified(), (1, 2))

    async def verified(self):
        store = await self.opened()
        answer = await store.verify_audit()
        await store.close()
        return answer


class FilesTest(SQLiteCase):
    async def test_the_files_are_private(self):
        store = await self.opened()
        store.put_command(command_record("c1"))
        await store.flush()
        self.assertEqual(mode(os.path.dirname(self.path)), 0o700)
        for name in ("", "-wal", "-shm", ".lock"):
            self.assertEqual(mode(self.path + name), 0o600)

    async def test_a_second_hub_is_refused(self):
        await self.opened()
        with self.assertRaisesRegex(StoreError, "in use by another hub"):
            await self.make().open()

    async def test_what_is_no_database_is_refused(self):
        os.makedirs(os.path.dirname(self.path))
        with open(self.path, "w") as file:
            file.write("something else" * 1000)
        with self.assertRaisesRegex(StoreError, "not a database"):
            await self.make().open()

    async def test_an_older_database_is_brought_up_to_date_after_a_copy(self):
        store = await self.opened()
        await store.add_agent(agent_record(), None)
        await store.close()
        more = ("CREATE TABLE one (a)",), ("ALTER TABLE one ADD COLUMN b",)
        store = await self.opened(migrations=(*engine.MIGRATIONS, *more))
        self.assertEqual(await store.agents(), [agent_record()])
        await store.close()
        copy = f"{self.path}.v1.20251123T064000Z.bak"
        self.assertEqual(mode(copy), 0o600)
        for path, version, columns in ((copy, 1, 0), (self.path, 3, 2)):
            connection = sqlite3.connect(path)
            self.addCleanup(connection.close)
            self.assertEqual(connection.execute("PRAGMA user_version").fetchone(), (version,))
            found = connection.execute("PRAGMA table_info (one)").fetchall()
            self.assertEqual(len(found), columns)
            self.assertEqual(
                connection.execute("SELECT agent_id FROM agents").fetchall(), [("web-1",)]
            )

    async def test_a_migration_that_fails_changes_nothing(self):
        store = await self.opened()
        await store.close()
        broken = (*engine.MIGRATIONS, ("CREATE TABLE one (a)", "nonsense"))
        with self.assertRaisesRegex(StoreError, "cannot be opened"):
            await self.make(migrations=broken).open()
        await self.opened()

    async def test_a_newer_database_is_refused(self):
        newer = (*engine.MIGRATIONS, ("CREATE TABLE one (a)",))
        await (await self.opened(migrations=newer)).close()
        with self.assertRaisesRegex(StoreError, "version 2 and this program knows 1"):
            await self.make().open()

    async def test_a_backup_is_whole_while_facts_keep_coming(self):
        self.patch(engine, "FLUSH_SECONDS", 0.0)
        store = await self.opened()
        for number in range(20_000):
            store.add_log("web-1", NOW, NOW, "info", f"{number} " * 20, None, None)
        await store.flush()
        path = self.mktemp()
        copied = store.backup(path)
        while not copied.called:
            store.add_metrics("web-1", NOW, 1.0, 1.0, 1.0)
            await deferLater(reactor, 0, lambda: None)
        size = await copied
        self.assertEqual((mode(path), os.stat(path).st_size), (0o600, size))
        connection = sqlite3.connect(path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        self.assertEqual(connection.execute("SELECT count(*) FROM logs").fetchone(), (20_000,))
        with self.assertRaisesRegex(StoreError, "File exists"):
            await store.backup(path)

    async def test_after_it_is_closed_questions_fail(self):
        store = await self.opened()
        await store.close()
        await store.close()
        with self.assertRaisesRegex(StoreError, "closed"):
            await store.agents()


class TroubleTest(SQLiteCase, LogsMixin):
    def mounted(self, size):
        """A file system of its own with so much room."""
        if os.geteuid() != 0:
            raise SkipTest("only root can mount a small disk")
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", folder]
        if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            raise SkipTest("a small disk cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", folder], check=False)
        return folder

    async def test_a_full_disk_is_reported_and_nothing_is_lost_or_half_written(self):
        captured = self.capture_logs()
        folder = self.mounted("2m")
        self.path = f"{folder}/hub.sqlite3"
        store = await self.opened()
        ballast = f"{folder}/ballast"
        with open(ballast, "wb", buffering=0) as file, self.assertRaises(OSError):
            while True:
                file.write(b"x" * 4096)
        given = 0
        for _ in range(3):
            for _ in range(3_000):
                store.add_log("web-1", NOW, NOW, "info", f"{given:0200}", None, None)
                store.add_metrics("web-1", NOW - given, 1.0, 1.0, 1.0)
                given += 1
            with self.assertRaisesRegex(StoreError, "full"):
                await store.flush()
        health = store.health()
        self.assertEqual((health.ok, health.waiting, health.lost), (False, 2 * given, 0))
        self.assertIn("SQLITE_FULL", health.words)
        self.assertEqual(await store.logs("web-1"), [])
        with self.assertRaises(StoreError):
            await store.add_agent(agent_record(), None)
        os.unlink(ballast)
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
        while not store.health().ok:
            await deferLater(reactor, 0.05, lambda: None)
        await store.flush()
        self.assertEqual(len(await store.logs("web-1", limit=10**6)), given)
        (point,) = (await store.metrics("web-1", 0, NOW, 1)).points
        self.assertEqual(point.count, given)
        told = [line for line in captured.lines if "cannot be written" in line]
        self.assertEqual(len(told), 1)
        self.assertLogged(captured, "[hub] the database can be written again")
        await store.close()

    async def test_beyond_the_limits_the_oldest_go_and_are_counted(self):
        captured = self.capture_logs()
        self.patch(facts, "MAX_LOG_BYTES", 64_000)
        self.patch(facts, "MAX_REFUSALS", 10)
        store = self.make()
        for number in range(1_000):
            store.add_log("web-1", NOW, NOW, "info", str(number), None, None)
            store.add_refusal(
                RefusalRecord(ts_ms=number, agent_id=None, address="a", reason="r", words="w")
            )
        waiting, lost = store.health().waiting, store.health().lost
        self.assertEqual(waiting + lost, 2_000)
        self.assertLess(waiting, 200)
        told = [line for line in captured.lines if "does not keep up" in line]
        self.assertEqual(len(told), 1)
        await store.open()
        await store.flush()
        self.assertEqual((await store.logs("web-1", limit=1))[0].message, "999")

    async def test_a_fact_that_no_database_takes_does_not_stop_the_others(self):
        captured = self.capture_logs()
        store = await self.opened()
        store.add_log("web-1", NOW, NOW, "info", "half a pair: \ud800", None, None)
        store.add_log("web-1", NOW, 2**70, "info", "too large", None, None)
        store.add_log("web-1", NOW, NOW, "info", "good", None, None)
        store.add_metrics("web-1", NOW, float("inf"), float("nan"), 1.0)
        await store.flush()
        self.assertEqual([each.message for each in await store.logs("web-1")], ["good"])
        self.assertEqual((store.health().ok, store.health().lost), (True, 2))
        self.assertEqual(len((await store.metrics("web-1", 0, NOW, 5)).points), 1)
        self.assertLogged(captured, "[hub] 2 facts are not fit for the database")

    async def test_a_disk_that_hangs_does_not_hold_the_reactor(self):
        store = await self.opened()
        hung, goes_on = threading.Event(), threading.Event()
        self.addCleanup(goes_on.set)

        def hang(_connection, _numbers):
            hung.set()
            goes_on.wait(30)

        store._change(hang)
        flushed = store.flush()
        while not hung.is_set():
            await deferLater(reactor, 0.01, lambda: None)
        for number in range(100):
            store.add_metrics("web-1", NOW + number, 1.0, 1.0, 1.0)
            await deferLater(reactor, 0, lambda: None)
        self.assertFalse(flushed.called)
        self.assertEqual(store.health().waiting, 101)
        goes_on.set()
        await flushed
        await store.flush()
        self.assertEqual(store.health().waiting, 0)

    async def test_the_reactor_turns_while_upkeep_is_long(self):
        """Nothing that the reactor's thread calls waits for the database's thread."""
        begun, may_end = threading.Event(), threading.Event()

        def long_upkeep(*_: object) -> Iterator[None]:
            begun.set()
            may_end.wait(20)
            yield

        self.patch(engine, "upkeep", long_upkeep)
        store = await self.opened()
        over: list[object] = []
        done = store.upkeep().addBoth(over.append)
        while not begun.is_set():
            await deferLater(reactor, 0, lambda: None)
        store.add_metrics("web-1", NOW, 1.0, 2.0, 3.0)
        store.session_started(agent_record(), "p:1", NOW)
        self.assertGreater(store.health().waiting, 0)
        flushed = store.flush().addBoth(over.append)
        for _ in range(10):
            await deferLater(reactor, 0, lambda: None)
        self.assertEqual(over, [])
        may_end.set()
        await flushed
        await done

    async def test_the_file_stays_below_its_limit(self):
        limit = 1_000_000
        store = await self.opened(retention=Retention(max_bytes=limit))
        for number in range(6_000):
            store.add_log("web-1", NOW, NOW, "info", f"{number:0500}", None, None)
        await store.flush()
        await store.upkeep()
        self.assertLessEqual(os.stat(self.path).st_size, limit)
        left = await store.logs("web-1", limit=10_000)
        self.assertEqual(left[0].message, f"{5_999:0500}")
        self.assertLess(len(left), 3_000)
        await store.close()
        self.assertLessEqual(os.stat(self.path).st_size, limit)
