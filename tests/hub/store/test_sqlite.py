"""What only the database in SQLite does: history, files, copies, failures."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from unittest import SkipTest

import msgspec
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.records import RefusalRecord
from jetcamer.hub.store import commands, engine, facts, logs, tokens, trouble, writing
from jetcamer.hub.store.agents import RESTARTED
from jetcamer.hub.store.interface import StoreError
from jetcamer.hub.store.retention import Retention
from tests.hub.store.support import (
    NOW,
    SQLiteCase,
    agent_record,
    api_token,
    command_record,
    join_token,
)
from tests.hub.store.test_behaviour import refusal
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

    async def test_one_search_looks_so_far_back_and_the_next_goes_on(self):
        self.patch(logs, "LOOK_THROUGH", 3)
        for number in range(8):
            text = "needle" if number in (0, 6) else "hay"
            self.add_log(number, level="info" if number % 2 else "warn", message=text)
        for levels, pages in (((), [1, 0, 1]), (("warn", "info"), [1, 1])):
            before, found = None, []
            for number, expected in enumerate(pages):
                page = await self.store.logs(
                    "web-1", contains="needle", levels=levels, before=before
                )
                self.assertEqual(len(page), expected)
                self.assertEqual(page.next is None, number == len(pages) - 1)
                before, found = page.next, [*found, *page]
            self.assertEqual([each.received_ms - NOW for each in found], [6, 0])

    async def test_a_search_that_finds_enough_goes_on_after_that(self):
        self.patch(logs, "LOOK_THROUGH", 5)
        for number in range(8):
            self.add_log(number, source="s")
        seen, before = [], None
        for _ in range(4):
            page = await self.store.logs("web-1", source="s", limit=2, before=before)
            seen, before = [*seen, *(each.message for each in page)], page.next
        self.assertEqual(seen, [f"number {number}" for number in range(7, -1, -1)])
        self.assertIsNone(before)

    async def test_a_page_of_logs_ends_where_it_grows_too_large(self):
        for number in range(5):
            self.add_log(number, level="info" if number % 2 else "warn", message="x" * 10_000)
        for levels in ((), ("info", "warn")):
            page = await self.store.logs("web-1", levels=levels, max_bytes=25_000)
            self.assertEqual([each.received_ms - NOW for each in page], [4, 3])
            page = await self.store.logs("web-1", levels=levels, max_bytes=1, before=page.next)
            self.assertEqual([each.received_ms - NOW for each in page], [2])
            page = await self.store.logs("web-1", levels=levels, before=page.next)
            self.assertEqual((len(page), page.next), (2, None))

    async def test_an_answer_counts_what_was_given_before_the_question(self):
        self.patch(engine, "FLUSH_SECONDS", 3600.0)
        self.patch(facts, "MAX_BATCH", 2)
        # From now on nothing is written by itself.
        await self.store.flush()
        for number in range(5):
            self.add_log(number)
        self.assertEqual(len(await self.messages()), 5)
        refused = RefusalRecord(ts_ms=NOW, agent_id=None, address="a", reason="r", words="w")
        self.store.add_refusal(refused)
        self.assertEqual(len(await self.store.refusals()), 1)
        self.store.add_metrics("web-1", NOW - 10, 1.5, None, 2.0)
        self.assertEqual(len((await self.store.metrics("web-1", 0, NOW, 10)).points), 1)

    async def test_of_many_who_ask_at_once_one_has_the_facts_written_for_all(self):
        self.patch(engine, "FLUSH_SECONDS", 3600.0)
        await self.store.flush()
        written = []

        def note(connection, numbers, batch):
            written.append(len(batch.logs))
            writing.write(connection, numbers, batch)
            # Others keep coming: these were not there when anybody asked.
            self.add_log(9)

        self.patch(engine, "write", note)
        release = self.hold()
        answers = []
        for number in range(3):
            self.add_log(number)
            answers.append(self.store.logs("web-1"))
        release()
        self.assertEqual([len(await each) for each in answers], [3, 3, 3])
        self.assertEqual(written, [3])

    async def test_a_question_waits_for_all_that_was_given_not_for_a_part(self):
        self.patch(engine, "FLUSH_SECONDS", 0.0)
        self.patch(facts, "MAX_BATCH", 2)
        # From now on it is always time for the next flush.
        await self.store.flush()
        release = self.hold()
        for number in range(5):
            self.add_log(number)
        asked = self.store.logs("web-1")
        release()
        self.assertEqual(len(await asked), 5)

    def hold(self):
        """Keep the database's thread busy; returns what lets it go on."""
        begun, goes_on = threading.Event(), threading.Event()
        self.addCleanup(goes_on.set)
        self.store._engine.look_up(lambda _: (begun.set(), goes_on.wait(30)))
        begun.wait(30)
        return goes_on.set

    async def test_metrics_are_there_after_a_flush(self):
        self.store.add_metrics("web-1", NOW - 10, 1.5, None, 2.0)
        await self.store.flush()
        series = await self.store.metrics("web-1", NOW - 1000, NOW, 10)
        self.assertEqual([(p.ts, p.cpu_percent.avg) for p in series.points], [(NOW - 10, 1.5)])
        await self.store.upkeep()
        self.assertEqual(await self.store.metrics("web-1", NOW - 1000, NOW, 10), series)

    async def test_why_agents_are_away(self):
        """The last refusal of each that is its own, with what it says of the clock; nothing from
        before it was last heard, nor for one that was revoked."""
        for agent_id in ("web-1", "web-2", "web-3", "web-4"):
            await self.store.add_agent(agent_record(agent_id, last_seen_ms=NOW + 10), None)
        await self.store.revoke_agent("web-4", NOW)
        clock = refusal(12, own=True, skew_ms=-412_000)
        for each in (
            refusal(11, own=True),
            clock,
            refusal(13),
            refusal(9, agent_id="web-2", own=True),
            refusal(14, agent_id="web-4", own=True),
            refusal(15, agent_id="nobody", own=True),
        ):
            self.store.add_refusal(each)
        found = await self.store.own_refusals(NOW)
        self.assertEqual(await self.store.own_refusals(NOW + 12), found)
        self.assertEqual([msgspec.structs.replace(each, refusal_id=0) for each in found], [clock])
        self.assertEqual(await self.store.own_refusals(NOW + 13), [])
        stored = await self.store.refusals(agent_id="web-1")
        self.assertEqual(msgspec.structs.replace(stored[1], refusal_id=0), clock)
        plan = await self.store._engine.ask(
            lambda connection: connection.execute(
                "EXPLAIN QUERY PLAN SELECT max(id) FROM refusals WHERE own AND agent_id = 'a'"
            ).fetchall()
        )
        self.assertIn("refusals_own", plan[0][3])

    async def test_sessions_that_a_crash_left_open_are_ended(self):
        first = self.store.session_started(agent_record(), "p:1", NOW)
        self.store.session_ended(first, NOW + 1, "it left", 7, 1)
        second = self.store.session_started(agent_record(), "p:2", NOW + 2)
        self.store.sessions_counted([(first, 9, 9), (second, 5, 2)])
        self.store.seen([("web-1", NOW + 9, 0)])
        await self.store.close()
        self.store = await self.opened()
        newest, oldest = await self.store.sessions("web-1")
        self.assertEqual((newest.ending, newest.ended_ms), (RESTARTED, NOW + 9))
        self.assertEqual((newest.messages, newest.refused), (5, 2))
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

    async def test_a_clock_that_was_ahead_stops_no_retention(self):
        day = 86_400_000
        ahead = NOW + 300 * day
        refused = {"agent_id": None, "address": "a", "reason": "r", "words": "w"}
        for number in range(2_100):
            self.store.add_log(f"agent-{number % 3}", ahead, NOW, "info", "ahead", None, None)
            self.store.add_refusal(RefusalRecord(ts_ms=ahead, **refused))
        self.add_log(0, message="old")
        self.add_log(200 * day, message="young")
        for at in (NOW, NOW + 200 * day):
            self.store.add_refusal(RefusalRecord(ts_ms=at, **refused))
        self.now = NOW + 200 * day
        await self.store.upkeep()
        self.assertEqual(await self.messages(), ["young"])
        self.assertEqual(len(await self.store.logs("agent-0", limit=1_000)), 700)
        left = await self.store.refusals(limit=5_000)
        self.assertEqual((len(left), left[0].ts_ms), (2_101, NOW + 200 * day))

    async def test_upkeep_deletes_tokens_that_ended(self):
        for name, expires, uses in (("used", 9, 0), ("old", 5, 1), ("good", 6, 1)):
            token = join_token(name, uses=uses, expires_ms=NOW + expires)
            await self.store.put_join_token(token)
        for name, expires in (("old", NOW + 5), ("good", NOW + 6), ("for ever", None)):
            await self.store.put_api_token(api_token(name, expires_ms=expires))
        self.now = NOW + 5
        await self.store.upkeep()
        await self.store.close()
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        for table, left in (("join_tokens", ["good"]), ("api_tokens", ["for ever", "good"])):
            found = connection.execute(f"SELECT token_id FROM {table} ORDER BY token_id")
            self.assertEqual([row[0] for row in found], left)

    async def test_what_is_asked_often_is_found_by_an_index(self):
        await self.store.close()
        connection = sqlite3.connect(self.path)
        self.addCleanup(connection.close)
        asked = []

        class Connection:
            """Notes what is asked, in place of the connection."""

            def execute(self, query, values):
                asked.append((query, values))
                return connection.execute(query, values)

        tokens.join_token(Connection(), b"d", NOW)
        tokens.use_join_token(Connection(), b"d", NOW)
        commands.page(Connection(), "web-1", 10, "c1", 1)
        commands.page(Connection(), None, 10, "c1", 1)
        commands.batch(Connection(), "b1", 10, "c1", 1)
        commands.batch_states(Connection(), "b1")
        connection.rollback()
        self.assertEqual(len(asked), 6)
        for query, values in asked:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
            plan = " | ".join(row[3] for row in rows)
            self.assertNotIn("SCAN", plan, query)
            if "ORDER" in query:
                self.assertNotIn("USE TEMP B-TREE", plan, query)

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
        connection.execute("UPDATE audit SET who = CAST(x'ff' AS TEXT) WHERE id = 1")
        self.assertEqual(await self.verified(), (0, 1))
        store = await self.opened()
        entries = await store.audit_entries()
        self.assertEqual([each.who for each in entries], ["alice", "bob", r"\xff"])

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

    async def test_a_second_hub_is_refused_by_another_path_too(self):
        await self.opened()
        folder, link = os.path.dirname(self.path), os.path.abspath(self.mktemp())
        os.symlink(os.path.abspath(folder), link)
        os.symlink(os.path.abspath(self.path), f"{link}/other.sqlite3")
        for path in (f"{link}/hub.sqlite3", f"{folder}/other.sqlite3"):
            with self.assertRaisesRegex(StoreError, "in use by another hub"):
                await self.make(path).open()

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
        # Twice in one second, as where it is started again and again; and no copies are left.
        for _ in range(2):
            with self.assertRaisesRegex(StoreError, "cannot be opened: near"):
                await self.make(migrations=broken).open()
        left = [name for name in os.listdir(os.path.dirname(self.path)) if "bak" in name]
        self.assertEqual(left, [])
        await self.opened()

    async def test_a_newer_database_is_refused(self):
        newer = (*engine.MIGRATIONS, ("CREATE TABLE one (a)",))
        await (await self.opened(migrations=newer)).close()
        with self.assertRaisesRegex(StoreError, "version 2 and this program knows 1"):
            await self.make().open()

    async def test_a_backup_is_whole_while_facts_keep_coming(self):
        store = await self.opened()
        for number in range(20_000):
            store.add_log("web-1", NOW, NOW, "info", f"{number} " * 20, None, None)
        await store.flush()
        self.patch(engine, "FLUSH_SECONDS", 0.0)
        await store.flush()
        path = self.mktemp()
        copied = store.backup(path)
        while not copied.called:
            # No more at a time than is written at once.
            if store.health().waiting == 0:
                store.add_metrics("web-1", NOW, 1.0, 1.0, 1.0)
            await deferLater(reactor, 0.001, lambda: None)
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
        self.patch(trouble, "MAX_RETRY_SECONDS", 0.1)
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
        self.assertEqual(len(await store.logs("web-1", limit=10**6, max_bytes=2**40)), given)
        (point,) = (await store.metrics("web-1", 0, NOW, 1)).points
        self.assertEqual(point.count, given)
        told = [line for line in captured.lines if "cannot be written" in line]
        self.assertEqual(len(told), 1)
        self.assertLogged(captured, "[hub] the database can be written again")
        await store.close()

    async def test_changes_take_so_much_memory_and_no_more(self):
        captured = self.capture_logs()
        self.patch(facts, "MAX_CHANGE_BYTES", 200_000)
        store = self.make()
        store.session_started(agent_record(), "p:1", NOW)
        for number in range(100):
            result = "x" * (10_000 if number != 50 else 1_000_000)
            store.put_command(command_record(f"c{number}", state="done", result=result))
        (told,) = [line for line in captured.lines if "does not keep up" in line]
        self.assertIn("of these 1 session starts, 1 states of commands", told)
        store.audit("alice", "agent.add", "web-1", {})
        waiting, lost = store.health().waiting, store.health().lost
        self.assertEqual(waiting + lost, 102)
        self.assertLessEqual(waiting, 20)
        await store.open()
        # What was written makes room; what waits for the disk again takes it.
        await store.flush()
        self.assertEqual(len(await store.commands(None)), waiting - 1)
        store.put_command(command_record("last", result="x" * 150_000))
        self.assertEqual(store.health().lost, lost)
        await store.flush()
        self.assertEqual(await store.verify_audit(), (1, None))

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

        store._change("tests", hang)
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
