"""A hub that is killed at any moment: at most the last second is lost, nothing is broken."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

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
        drawn = random.Random(4)
        for turn in range(3):
            given, killed = self.run_and_kill(path, drawn.uniform(0.1, 1.2))
            old = [start for at, start in given if at <= killed - 1.0]
            self.check(path, turn, old)

    def run_and_kill(self, path, seconds):
        """What was given and when, after `seconds` of work; when it was killed."""
        program = [sys.executable, "-m", ingesting.__name__, path]
        child = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        lines = [child.stdout.readline()]
        # Most draws reach past one second of work, so that something must have been kept.
        end = float(lines[0].split()[0]) + 0.6 + seconds
        while time.monotonic() < end:
            lines.append(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        rest, _ = child.communicate()
        lines += rest.splitlines()
        pairs = [line.split() for line in lines if line.count(" ") == 1]
        return [(float(at), int(start)) for at, start in pairs], killed

    def check(self, path, turn, old):
        database = open_database(path, lambda: NOW)
        try:
            connection = database.connection
            self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            for query in ("SELECT message FROM logs", "SELECT subject FROM audit"):
                kept = [int(row[0]) for row in connection.execute(query)]
                # Of this turn: it begins at the last 0.
                first = len(kept) - kept[::-1].index(0) - 1
                self.assertEqual(kept[first:][: len(old)], old)
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
