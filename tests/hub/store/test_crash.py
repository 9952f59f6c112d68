"""A hub that is killed at any moment: what a flush confirmed is there, nothing is broken."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.store import agents, audit
from jetcamer.hub.store.agents import RESTARTED
from jetcamer.hub.store.database import open_database, transaction
from jetcamer.hub.store.numbers import Numbers
from tests.hub.store import ingesting
from tests.hub.store.support import NOW
from tests.support.tools import ROOT


class CrashTest(SynchronousTestCase):
    def test_killed_again_and_again_under_load(self):
        os.mkdir(self.mktemp())
        path = os.path.join(os.path.abspath(self.mktemp()), "hub.sqlite3")
        for turn, flushes in enumerate((3, 12)):
            self.check(path, turn, self.run_and_kill(path, flushes))

    def run_and_kill(self, path, flushes):
        """The last round that was said to be on disk, before it was killed after so many."""
        program = [sys.executable, "-m", ingesting.__name__, path]
        with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            lines = [child.stdout.readline() for _ in range(flushes)]
            child.send_signal(signal.SIGKILL)
            rest, _ = child.communicate()
        # Its last line may be cut off.
        return [int(line) for line in (*lines, *rest.splitlines(True)) if line.endswith("\n")][-1]

    def check(self, path, turn, confirmed):
        database = open_database(path, lambda: NOW)
        try:
            connection = database.connection
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            for query in ("SELECT message FROM logs", "SELECT subject FROM audit"):
                kept = [int(row[0]) for row in connection.execute(query)]
                # Of this turn: it begins at the last 0.
                first = len(kept) - kept[::-1].index(0) - 1
                self.assertGreaterEqual(kept[-1], confirmed)
                self.assertEqual(kept[first:], [*range(0, kept[-1] + 1, ingesting.AGENTS)])
            whole = (
                "SELECT (SELECT count(*) FROM metrics_recent WHERE NOT EXISTS (SELECT 1 FROM "
                "metrics_merge m WHERE metrics_recent.id <= m.last_id "
                "AND metrics_recent.agent <= m.agent)) + "
                "(SELECT coalesce(sum(n), 0) FROM metrics_raw), (SELECT count(*) FROM logs), "
                "(SELECT coalesce(sum(n), 0) FROM metrics_raw), "
                "(SELECT coalesce(sum(n), 0) FROM metrics_minute), "
                "(SELECT coalesce(sum(n), 0) FROM metrics_hour)"
            )
            rows, logs, raw, minutes, hours = connection.execute(whole).fetchone()
            # Every row once; a flush may fall between facts that were given together.
            slack = ingesting.AGENTS * (turn + 1)
            self.assertLessEqual(abs(rows - logs * ingesting.AGENTS), slack)
            self.assertEqual((minutes, hours), (raw, raw))
            *_, (verified, wrong) = audit.verify(connection)
            self.assertIsNone(wrong)
            self.assertLessEqual(abs(verified - logs), turn + 1)
            with transaction(connection):
                agents.end_open_sessions(connection)
            sessions = agents.sessions(connection, Numbers(connection), "agent-0", 100, None)
            self.assertEqual([each.ending for each in sessions], [RESTARTED] * (turn + 1))
        except sqlite3.Error as problem:
            self.fail(f"the database is broken: {problem}")
        finally:
            database.close()
