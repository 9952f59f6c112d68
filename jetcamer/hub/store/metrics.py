"""Metrics on disk: appended, rolled up, read.

In: rows as they came, of all agents mixed. Out: series. Rows are appended to `metrics_recent`
(sequential, cheap), and moved on many at a time, sorted by agent: packed into `metrics_raw`, added
to the one-minute and the one-hour roll-up. A row is in `metrics_recent` or has been moved, and both
in one transaction: so every row counts once, whenever it came and whatever was interrupted. Reads
look at both places.
"""

from __future__ import annotations

import sqlite3
import struct
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from math import floor
from operator import itemgetter

from jetcamer.hub.records import MetricsPoint, MetricsSeries, Reading, Resolution
from jetcamer.hub.store.database import transaction
from jetcamer.hub.store.facts import MetricsFact
from jetcamer.hub.store.numbers import Numbers
from jetcamer.hub.store.retention import Retention

MINUTE = 60_000
HOUR = 3_600_000

#: Rows that one slice reads, moves or deletes: 5 to 20 ms each.
_READ_ROWS = 5_000
_MOVE_ROWS = 2_000
_DELETE_ROWS = 10_000

#: Rows that one statement inserts. Each statement gives up the interpreter's lock and waits for it:
#: with one for each row, the thread of the store and that of the reactor would take turns.
_INSERT_ROWS = 100

_ABSENT = -(2**31)
_MAX_PERCENT = 2_000_000.0

#: ts, cpu, mem, disk
_Row = tuple[int, int | None, int | None, int | None]
_time = itemgetter(0)

_NAMES = ("cpu", "mem", "disk")


def _upsert(table: str) -> str:
    """Add a summary to the row of its span."""
    sets = ", ".join(
        f"{name}_n = {name}_n + excluded.{name}_n, "
        f"{name}_sum = coalesce({name}_sum + excluded.{name}_sum, {name}_sum, "
        f"excluded.{name}_sum), "
        f"{name}_min = coalesce(min({name}_min, excluded.{name}_min), {name}_min, "
        f"excluded.{name}_min), "
        f"{name}_max = coalesce(max({name}_max, excluded.{name}_max), {name}_max, "
        f"excluded.{name}_max)"
        for name in _NAMES
    )
    values = ", ".join("?" * 15)
    return (
        f"INSERT INTO {table} VALUES ({values}) "  # noqa: S608
        f"ON CONFLICT (agent, span) DO UPDATE SET n = n + excluded.n, {sets}"
    )


_ADD_MINUTE = _upsert("metrics_minute")
_ADD_HOUR = _upsert("metrics_hour")


def _select(table: str) -> str:
    """Spans of a roll-up, merged, with what has not been moved yet."""
    columns = ", ".join(f"{n}_n, {n}_sum, {n}_min, {n}_max" for n in _NAMES)
    recent = ", ".join(f"{n} IS NOT NULL, {n}, {n}, {n}" for n in _NAMES)
    merged = ", ".join(f"sum({n}_n), sum({n}_sum), min({n}_min), max({n}_max)" for n in _NAMES)
    return f"""
        SELECT (span - :origin) / :width AS bucket, sum(n), {merged} FROM (
            SELECT span, n, {columns} FROM {table}
                WHERE agent = :agent AND span BETWEEN :first AND :last
            UNION ALL
            SELECT ts / :unit, 1, {recent} FROM metrics_recent
                WHERE agent = :agent AND ts / :unit BETWEEN :first AND :last
                AND (id > :merged OR agent > :done)
        ) GROUP BY bucket ORDER BY bucket"""  # noqa: S608


_SELECT_MINUTES = _select("metrics_minute")
_SELECT_HOURS = _select("metrics_hour")


_INTO_RECENT = "INSERT INTO metrics_recent (agent, ts, cpu, mem, disk) VALUES "
_ROW = "(?, ?, ?, ?, ?)"
_INSERT = _INTO_RECENT + _ROW
_INSERT_MANY = _INTO_RECENT + ", ".join([_ROW] * _INSERT_ROWS)


def insert(connection: sqlite3.Connection, numbers: Numbers, facts: Sequence[MetricsFact]) -> None:
    number, other = numbers.of, thousandths
    rows = [
        (
            number(agent),
            ts,
            # `thousandths` without the call, for what is usual.
            int(cpu * 1000 + 0.5) if cpu is not None and 0 <= cpu <= 100 else other(cpu),
            int(mem * 1000 + 0.5) if mem is not None and 0 <= mem <= 100 else other(mem),
            int(disk * 1000 + 0.5) if disk is not None and 0 <= disk <= 100 else other(disk),
        )
        for agent, ts, cpu, mem, disk in facts
    ]
    whole = len(rows) - len(rows) % _INSERT_ROWS
    for start in range(0, whole, _INSERT_ROWS):
        values = [*chain.from_iterable(rows[start : start + _INSERT_ROWS])]
        connection.execute(_INSERT_MANY, values)
    connection.executemany(_INSERT, rows[whole:])


def thousandths(percent: float | None) -> int | None:
    """As it is stored. Not a number is no reading; nonsense is cut to what fits."""
    if percent is None or percent != percent:  # noqa: PLR0124
        return None
    if -_MAX_PERCENT < percent < _MAX_PERCENT:
        return floor(percent * 1000 + 0.5)
    return round(_MAX_PERCENT * 1000) if percent > 0 else -round(_MAX_PERCENT * 1000)


# The move from `metrics_recent`.


def recent_rows(connection: sqlite3.Connection) -> int:
    """About how many rows wait to be moved."""
    # Two questions: one with both would look at every row.
    first, last = connection.execute(
        "SELECT (SELECT min(id) FROM metrics_recent), (SELECT max(id) FROM metrics_recent)"
    ).fetchone()
    return 0 if first is None else int(last - first + 1)


def merge(connection: sqlite3.Connection) -> Iterator[None]:
    """Move all rows there are now, in slices. One that was interrupted is finished first."""
    last_id, done = _state(connection)
    if last_id == 0:
        last_id = connection.execute("SELECT max(id) FROM metrics_recent").fetchone()[0] or 0
        if last_id == 0:
            return
        with transaction(connection):
            connection.execute("INSERT INTO metrics_merge VALUES (?, 0)", (last_id,))
    # Flat: many small objects at once would give the garbage collector, which stops all threads,
    # much to look at.
    pending: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
    first = connection.execute("SELECT min(id) FROM metrics_recent").fetchone()[0] or last_id
    for start in range(first, last_id + 1, _READ_ROWS):
        rows = connection.execute(
            "SELECT agent, ts, coalesce(cpu, ?1), coalesce(mem, ?1), coalesce(disk, ?1) "
            "FROM metrics_recent WHERE id BETWEEN ?2 AND ?3 AND agent > ?4 ORDER BY id",
            (_ABSENT, start, min(start + _READ_ROWS - 1, last_id), done),
        )
        for agent, *row in rows:
            pending[agent].extend(row)
        yield
    agents = sorted(pending, reverse=True)
    while agents:
        slice_: list[tuple[int, list[_Row]]] = []
        count = 0
        while agents and count < _MOVE_ROWS:
            agent = agents.pop()
            slice_.append((agent, _rows(pending.pop(agent))))
            count += len(slice_[-1][1])
        with transaction(connection):
            _move(connection, slice_)
            connection.execute("UPDATE metrics_merge SET agent = ?", (slice_[-1][0],))
        yield
    yield from _delete_moved(connection, last_id)


def _rows(flat: array[int]) -> list[_Row]:
    columns: list[Sequence[int | None]] = [flat[1::4], flat[2::4], flat[3::4]]
    for number, column in enumerate(columns):
        if _ABSENT in column:
            columns[number] = [None if value == _ABSENT else value for value in column]
    return list(zip(flat[::4], *columns, strict=True))


def _state(connection: sqlite3.Connection) -> tuple[int, int]:
    """Rows up to that id of agents up to that number have been moved and are not deleted yet."""
    row = connection.execute("SELECT last_id, agent FROM metrics_merge").fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def _delete_moved(connection: sqlite3.Connection, last_id: int) -> Iterator[None]:
    # The last row goes last, together with the note: so no new row gets the id of a moved one.
    first = connection.execute("SELECT min(id) FROM metrics_recent").fetchone()[0] or last_id
    for until in range(first + _DELETE_ROWS, last_id, _DELETE_ROWS):
        with transaction(connection):
            connection.execute("DELETE FROM metrics_recent WHERE id < ?", (until,))
        yield
    with transaction(connection):
        connection.execute("DELETE FROM metrics_recent WHERE id <= ?", (last_id,))
        connection.execute("DELETE FROM metrics_merge")
    yield


def _move(connection: sqlite3.Connection, agents: Sequence[tuple[int, list[_Row]]]) -> None:
    raw: list[tuple[object, ...]] = []
    minutes: list[tuple[object, ...]] = []
    hours: list[tuple[object, ...]] = []
    for agent, rows in agents:
        rows.sort(key=_time)
        for hour, part in _spans(rows, HOUR):
            columns = tuple(zip(*part, strict=True))
            raw.append((hour, agent, len(part), _pack(columns, hour * HOUR)))
            hours.append((agent, hour, *_summary(columns)))
        for minute, part in _spans(rows, MINUTE):
            minutes.append((agent, minute, *_summary(tuple(zip(*part, strict=True)))))
    connection.executemany(
        "INSERT INTO metrics_raw (hour, agent, n, rows) VALUES (?, ?, ?, ?)", raw
    )
    connection.executemany(_ADD_MINUTE, minutes)
    connection.executemany(_ADD_HOUR, hours)


def _spans(rows: list[_Row], unit: int) -> Iterator[tuple[int, list[_Row]]]:
    start = 0
    while start < len(rows):
        span = rows[start][0] // unit
        if rows[-1][0] // unit == span:
            yield span, rows[start:]
            return
        end = bisect_left(rows, (span + 1) * unit, lo=start, key=_time)
        yield span, rows[start:end]
        start = end


def _summary(columns: tuple[tuple[int | None, ...], ...]) -> tuple[int | None, ...]:
    """n, then (n, sum, least, most) of each reading."""
    ts, cpu, mem, disk = columns
    return (len(ts), *_column(cpu), *_column(mem), *_column(disk))


def _column(values: tuple[int | None, ...]) -> tuple[int | None, ...]:
    present = values
    if None in values:
        present = tuple(value for value in values if value is not None)
        if not present:
            return (0, None, None, None)
    return (len(present), sum(present), min(present), max(present))  # type: ignore[arg-type,type-var]


def _pack(columns: tuple[tuple[int | None, ...], ...], start: int) -> bytes:
    ts, *readings = columns
    n = len(ts)
    values = [each - start for each in ts if each is not None]
    for column in readings:
        if None in column:
            values.extend(_ABSENT if value is None else value for value in column)
        else:
            values.extend(column)  # type: ignore[arg-type]
    return struct.pack(f"<{n}I{3 * n}i", *values)


def _unpack(blob: bytes, n: int, start: int) -> list[_Row]:
    values: list[int | None] = [
        None if value == _ABSENT else value
        for value in struct.unpack_from(f"<{3 * n}i", blob, 4 * n)
    ]
    offsets: tuple[int, ...] = struct.unpack_from(f"<{n}I", blob)
    ts = [start + offset for offset in offsets]
    return list(zip(ts, values[:n], values[n : 2 * n], values[2 * n :], strict=True))


def raise_floor(connection: sqlite3.Connection, resolution: str, span: int) -> None:
    """Spans before this one are not whole any more: "raw" (hours) or "minute"."""
    connection.execute(
        "INSERT INTO metrics_floors VALUES (?, ?) ON CONFLICT (resolution) DO UPDATE "
        "SET span = max(span, excluded.span)",
        (resolution, span),
    )


# Reading.


def read(
    connection: sqlite3.Connection,
    agent: int | None,
    from_ms: int,
    to_ms: int,
    points: int,
    *,
    now_ms: int,
    retention: Retention,
) -> MetricsSeries:
    """Points that begin from `from_ms` to `to_ms`, both in it, but no later than in an hour.
    Roll-ups count by whole spans: all of the minute or the hour that `from_ms` is in."""
    from_ms, points = max(from_ms, 0), max(points, 1)
    if from_ms > now_ms + HOUR:
        return MetricsSeries(resolution="raw", step_ms=0, points=())
    to_ms = max(min(to_ms, now_ms + HOUR), from_ms)
    step = -(-(to_ms - from_ms + 1) // points)
    age = (now_ms - from_ms) / 1000
    floors = dict(connection.execute("SELECT resolution, span FROM metrics_floors").fetchall())
    has_raw = age <= retention.raw_seconds and from_ms >= floors.get("raw", 0) * HOUR
    has_minutes = age <= retention.minute_seconds and from_ms >= floors.get("minute", 0) * MINUTE
    if has_raw and (step < MINUTE or _estimate(connection, agent, from_ms, to_ms) <= points):
        rows = _raw(connection, agent, from_ms, to_ms)
        if len(rows) <= points:
            singles = tuple(_point(row[0], _summary(tuple((v,) for v in row))) for row in rows)
            return MetricsSeries(resolution="raw", step_ms=0, points=singles)
        if step < MINUTE:
            return _merge_raw(rows, from_ms, to_ms, points)
    if has_minutes and (step < HOUR or retention.hour_seconds <= retention.minute_seconds):
        return _rolled_up(connection, agent, from_ms, to_ms, points, MINUTE)
    return _rolled_up(connection, agent, from_ms, to_ms, points, HOUR)


def _grid(first: int, last: int, points: int) -> tuple[int, int]:
    """(origin, width) of buckets that cover `first` to `last` with at most `points` of them,
    aligned to multiples of the width where there may be more than one."""
    length = last - first + 1
    if length <= points:
        return 0, 1
    if points == 1:
        return first, length
    return 0, -(-length // (points - 1))


def _merge_raw(rows: list[_Row], from_ms: int, to_ms: int, points: int) -> MetricsSeries:
    unit = 1000 if to_ms // 1000 - from_ms // 1000 + 1 > points else 1
    origin, width = _grid(from_ms // unit, to_ms // unit, points)
    origin, width = origin * unit, width * unit
    merged: defaultdict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        merged[(row[0] - origin) // width].append(row)
    return MetricsSeries(
        resolution="raw",
        step_ms=width,
        points=tuple(
            _point(origin + bucket * width, _summary(tuple(zip(*part, strict=True))))
            for bucket, part in sorted(merged.items())
        ),
    )


def _rolled_up(
    connection: sqlite3.Connection,
    agent: int | None,
    from_ms: int,
    to_ms: int,
    points: int,
    unit: int,
) -> MetricsSeries:
    first, last = from_ms // unit, to_ms // unit
    origin, width = _grid(first, last, points)
    merged, done = _state(connection)
    rows = connection.execute(
        _SELECT_MINUTES if unit == MINUTE else _SELECT_HOURS,
        {
            "agent": agent,
            "first": first,
            "last": last,
            "origin": origin,
            "width": width,
            "unit": unit,
            "merged": merged,
            "done": done,
        },
    )
    resolution: Resolution = "1m" if unit == MINUTE else "1h"
    return MetricsSeries(
        resolution=resolution,
        step_ms=width * unit,
        points=tuple(_point((origin + row[0] * width) * unit, row[1:]) for row in rows),
    )


#: The hours from ?1 to ?2 that there may be, each looked up in the index: a range would read the
#: rows of all agents in it.
_HOURS = """hour IN (
    WITH RECURSIVE hours (each) AS (
        SELECT max(?1, (SELECT min(hour) FROM metrics_raw))
        UNION ALL
        SELECT each + 1 FROM hours WHERE each < min(?2, (SELECT max(hour) FROM metrics_raw))
    ) SELECT each FROM hours WHERE each <= ?2) AND agent = ?3"""

_RECENT = "FROM metrics_recent WHERE agent = ? AND ts BETWEEN ? AND ? AND (id > ? OR agent > ?)"


def _estimate(connection: sqlite3.Connection, agent: int | None, from_ms: int, to_ms: int) -> int:
    """At least as many as there are raw rows in the range."""
    query = f"SELECT coalesce(sum(n), 0) FROM metrics_raw WHERE {_HOURS}"  # noqa: S608
    moved = connection.execute(query, (from_ms // HOUR, to_ms // HOUR, agent)).fetchone()[0]
    arguments = (agent, from_ms, to_ms, *_state(connection))
    waiting = connection.execute(f"SELECT count(*) {_RECENT}", arguments).fetchone()[0]
    return int(moved + waiting)


def _raw(connection: sqlite3.Connection, agent: int | None, from_ms: int, to_ms: int) -> list[_Row]:
    query = f"SELECT hour, n, rows FROM metrics_raw WHERE {_HOURS}"  # noqa: S608
    rows: list[_Row] = []
    for hour, n, blob in connection.execute(query, (from_ms // HOUR, to_ms // HOUR, agent)):
        rows.extend(r for r in _unpack(blob, n, hour * HOUR) if from_ms <= r[0] <= to_ms)
    arguments = (agent, from_ms, to_ms, *_state(connection))
    rows.extend(connection.execute(f"SELECT ts, cpu, mem, disk {_RECENT}", arguments))
    rows.sort(key=_time)
    return rows


def _point(ts: int, values: Sequence[int | None]) -> MetricsPoint:
    return MetricsPoint(
        ts=ts,
        count=values[0] or 0,
        cpu_percent=_reading(*values[1:5]),
        mem_percent=_reading(*values[5:9]),
        disk_usage=_reading(*values[9:13]),
    )


def _reading(
    n: int | None, total: int | None, least: int | None, most: int | None
) -> Reading | None:
    if not n or total is None or least is None or most is None:
        return None
    return Reading(avg=total / n / 1000, min=least / 1000, max=most / 1000)
