"""Metrics on disk, against a plain model of them."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.store import metrics
from jetcamer.hub.store.migrations import MIGRATIONS
from jetcamer.hub.store.numbers import Numbers
from jetcamer.hub.store.retention import Retention
from jetcamer.hub.store.upkeep import upkeep, used_bytes

HOUR, MINUTE, DAY = 3_600_000, 60_000, 86_400_000
#: Half an hour into an hour.
BASE = 490_000 * HOUR + HOUR // 2

NAMES = ("cpu_percent", "mem_percent", "disk_usage")


def database():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    return connection, Numbers(connection)


def finish(work, steps=None):
    for number, _ in enumerate(work):
        if steps is not None and number >= steps:
            work.close()
            return


def expected(rows, ts):
    """What a point of these rows says: (ts, count, readings)."""
    readings = []
    for column in (1, 2, 3):
        values = [row[column] for row in rows if row[column] is not None]
        if values:
            readings.append((round(sum(values) / len(values), 6), min(values), max(values)))
        else:
            readings.append(None)
    return ts, len(rows), readings


def said(point):
    readings = []
    for name in NAMES:
        reading = getattr(point, name)
        readings.append(reading and (round(reading.avg, 6), reading.min, reading.max))
    return point.ts, point.count, readings


reading = st.none() | st.integers(0, 100_000).map(lambda value: value / 1000)
moment = st.one_of(
    st.integers(BASE - 3 * HOUR, BASE),
    st.integers(BASE - 3 * DAY, BASE),
    st.integers(BASE - 40 * DAY, BASE).map(lambda ts: ts // MINUTE * MINUTE),
)
row = st.tuples(moment, reading, reading, reading)
step = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2), st.lists(row, min_size=1, max_size=12)),
    st.tuples(st.just("merge"), st.just(0), st.just(None)),
    # Stopped in the middle, as by a crash.
    st.tuples(st.just("merge"), st.just(0), st.integers(0, 6)),
    st.tuples(st.just("upkeep"), st.just(0), st.just(None)),
)
query = st.tuples(
    st.integers(0, 2),
    st.one_of(st.integers(0, 3 * HOUR), st.integers(0, 3 * DAY), st.integers(0, 40 * DAY)),
    st.one_of(st.integers(0, 600), st.integers(0, 40 * DAY)),
    st.one_of(st.integers(1, 10), st.integers(1, 5_000)),
)


class RollUpTest(SynchronousTestCase):
    @settings(deadline=None, derandomize=True, max_examples=60, database=None)
    @given(st.lists(step, max_size=12), st.lists(query, min_size=1, max_size=4))
    def test_a_query_says_what_the_rows_say(self, steps, queries):
        self.patch(metrics, "_MOVE_ROWS", 4)
        self.patch(metrics, "_DELETE_ROWS", 5)
        connection, numbers = database()
        self.addCleanup(connection.close)
        retention = Retention(minute_seconds=10 * 86_400)
        model = defaultdict(list)
        for what, agent, argument in steps:
            if what == "add":
                metrics.insert(connection, numbers, [(f"a{agent}", *each) for each in argument])
                model[agent].extend(argument)
            elif what == "merge":
                finish(metrics.merge(connection), argument)
            else:
                finish(upkeep(connection, retention, BASE))
        for agent, back, length, points in queries:
            from_ms = BASE - back
            to_ms = min(BASE, from_ms + length)
            series = metrics.read(
                connection,
                numbers.find(f"a{agent}"),
                from_ms,
                to_ms,
                points,
                now_ms=BASE,
                retention=retention,
            )
            self.check(series, model[agent], from_ms, to_ms, points)

    def test_a_move_that_was_interrupted_counts_nothing_twice(self):
        self.patch(metrics, "_MOVE_ROWS", 4)
        self.patch(metrics, "_DELETE_ROWS", 5)
        rows = [(BASE - 1_000 * n, float(n), None, 1.0) for n in range(6)]
        for steps in range(12):
            connection, numbers = database()
            self.addCleanup(connection.close)
            for agent in ("a0", "a1", "a2"):
                metrics.insert(connection, numbers, [(agent, *each) for each in rows])
            for _ in range(2):
                finish(metrics.merge(connection), steps)
                for agent in ("a0", "a1", "a2"):
                    for span, points in ((10_000, 3), (HOUR, 5), (20 * DAY, 5)):
                        arguments = numbers.find(agent), BASE - span, BASE, points
                        series = metrics.read(
                            connection, *arguments, now_ms=BASE, retention=Retention()
                        )
                        self.check(series, rows, *arguments[1:])

    def check(self, series, rows, from_ms, to_ms, points):
        self.assertLessEqual(len(series.points), points)
        times = [point.ts for point in series.points]
        self.assertEqual(times, sorted(times))
        unit = {"raw": 1, "1m": MINUTE, "1h": HOUR}[series.resolution]
        rows = [each for each in rows if from_ms // unit <= each[0] // unit <= to_ms // unit]
        if series.step_ms == 0:
            wanted = [expected([each], each[0]) for each in rows]
            self.assertCountEqual(map(said, series.points), wanted)
            return
        self.assertEqual(series.step_ms % unit, 0)
        origin = from_ms // unit * unit if points == 1 else 0
        if points == 1 and unit == 1 and series.points:
            origin = series.points[0].ts
        spans = defaultdict(list)
        for each in rows:
            spans[(each[0] - origin) // series.step_ms * series.step_ms + origin].append(each)
        wanted = [expected(part, ts) for ts, part in sorted(spans.items())]
        self.assertEqual(list(map(said, series.points)), wanted)


class ResolutionTest(SynchronousTestCase):
    def setUp(self):
        self.connection, self.numbers = database()
        self.addCleanup(self.connection.close)
        facts = [("a", BASE - 5_000 * n, 1.0, None, 2.0) for n in range(2_000)]
        metrics.insert(self.connection, self.numbers, facts)

    def read(self, length, points, back=0, now=BASE):
        return metrics.read(
            self.connection,
            self.numbers.find("a"),
            BASE - back - length,
            BASE - back,
            points,
            now_ms=now,
            retention=Retention(),
        )

    def form(self, *arguments, **named):
        series = self.read(*arguments, **named)
        return series.resolution, series.step_ms, len(series.points)

    def test_few_messages_come_as_they_are(self):
        self.assertEqual(self.form(60_000, 20), ("raw", 0, 13))

    def test_messages_are_merged_where_there_are_too_many(self):
        self.assertEqual(self.form(HOUR, 300), ("raw", 13_000, 278))

    def test_minutes_are_used_where_a_point_is_longer_than_one(self):
        self.assertEqual(self.form(2 * HOUR, 100), ("1m", 2 * MINUTE, 61))

    def test_minutes_are_used_where_there_are_no_messages_any_more(self):
        self.assertEqual(self.form(HOUR, 300, back=2 * DAY)[:2], ("1m", MINUTE))

    def test_hours_are_used_for_long_ranges_and_for_old_ones(self):
        self.assertEqual(self.form(20 * DAY, 100)[:2], ("1h", 5 * HOUR))
        self.assertEqual(self.form(HOUR, 300, back=31 * DAY)[:2], ("1h", HOUR))

    def test_retention_removes_the_messages_and_keeps_the_roll_up(self):
        self.assertEqual(sum(p.count for p in self.read(3 * HOUR, 100).points), 2_000)
        finish(upkeep(self.connection, Retention(), BASE + 2 * DAY))
        count = "SELECT count(*) FROM metrics_raw"
        self.assertEqual(self.connection.execute(count).fetchone(), (0,))
        later = self.read(3 * HOUR, 100, now=BASE + 2 * DAY)
        self.assertEqual(sum(p.count for p in later.points), 2_000)
        finish(upkeep(self.connection, Retention(), BASE + 40 * DAY))
        count = "SELECT (SELECT count(*) FROM metrics_minute), (SELECT sum(n) FROM metrics_hour)"
        self.assertEqual(self.connection.execute(count).fetchone(), (0, 2_000))
        finish(upkeep(self.connection, Retention(), BASE + 800 * DAY))
        self.assertEqual(self.connection.execute(count).fetchone(), (0, None))

    def test_what_the_size_cap_took_is_answered_from_the_roll_ups(self):
        finish(metrics.merge(self.connection))
        size = used_bytes(self.connection)
        finish(upkeep(self.connection, Retention(max_bytes=size), BASE))
        self.assertLess(used_bytes(self.connection), size)
        self.assertEqual(self.form(2 * HOUR, 4_000)[0], "1m")
        self.assertEqual(sum(p.count for p in self.read(3 * HOUR, 4_000).points), 2_000)
        finish(upkeep(self.connection, Retention(max_bytes=1), BASE))
        self.assertEqual(self.read(3 * HOUR, 4_000).points, ())

    def test_a_range_without_an_end_ends_in_an_hour(self):
        finish(metrics.merge(self.connection))
        arguments = self.connection, self.numbers.find("a")
        far = 2**53 - 1
        now = {"now_ms": BASE, "retention": Retention()}
        until_then = metrics.read(*arguments, BASE - 2 * HOUR, BASE + HOUR, 300, **now)
        self.assertEqual(metrics.read(*arguments, BASE - 2 * HOUR, far, 300, **now), until_then)
        self.assertEqual(metrics.read(*arguments, far, far, 300, **now).points, ())
        # The messages are kept for ever: even then only hours are looked up that there are.
        now["retention"] = Retention(raw_seconds=2**53)
        steps = []
        self.connection.set_progress_handler(lambda: steps.append(1), 1_000)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        series = metrics.read(*arguments, 0, far, 5_000, **now)
        self.assertEqual((series.resolution, len(series.points)), ("raw", 2_000))
        self.assertLess(tracemalloc.get_traced_memory()[1], 8_000_000)
        self.assertLess(len(steps), 100)

    def test_readings_are_stored_in_thousandths_within_bounds(self):
        values = (None, 0.0, 43.2, 99.9996, -0.5, float("nan"), float("inf"), -1e300, 1e300)
        stored = [metrics.thousandths(value) for value in values]
        most = 2_000_000_000
        self.assertEqual(stored, [None, 0, 43_200, 100_000, -500, None, most, -most, most])
