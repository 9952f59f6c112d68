"""What keeps the database small: retention, the size cap, the file shrunk.

In: what to keep. Out: slices of work, each a transaction of its own of some 20 ms. Never touches
what is open or unfinished, nor agents, valid tokens and the audit trail.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from time import monotonic

from jetcamer.hub.store import metrics, tokens
from jetcamer.hub.store.database import transaction
from jetcamer.hub.store.retention import Retention

#: Seconds that a slice over many agents takes.
_SLICE = 0.02
_SPANS = 2_000
#: Free pages that are left alone: those of moved metrics are filled again by the next ones.
_SPARE_PAGES = 4_096
_SHRINK_PAGES = 256

_IDS = "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {where} LIMIT {rows})"


def upkeep(connection: sqlite3.Connection, retention: Retention, now_ms: int) -> Iterator[None]:
    yield from metrics.merge(connection)
    yield from _expire(connection, retention, now_ms)
    yield from _cap(connection, retention.max_bytes)
    yield from _shrink(connection, retention.max_bytes)


def _delete(
    connection: sqlite3.Connection, table: str, where: str, value: int, rows: int = 2_000
) -> Iterator[None]:
    """Delete rows while there are any, in slices; yields after each that deleted something."""
    yield from _while_any(connection, _IDS.format(table=table, where=where, rows=rows), value)


def _while_any(connection: sqlite3.Connection, statement: str, value: int) -> Iterator[None]:
    while True:
        with transaction(connection):
            deleted = connection.execute(statement, (value,)).rowcount
        if deleted == 0:
            return
        yield


def _expire(connection: sqlite3.Connection, keep: Retention, now_ms: int) -> Iterator[None]:
    def before(seconds: int) -> int:
        return now_ms - seconds * 1000

    yield from _delete(
        connection, "metrics_raw", "hour < ?", before(keep.raw_seconds) // metrics.HOUR, 500
    )
    minutes = before(keep.minute_seconds) // metrics.MINUTE
    yield from _delete_spans(connection, "metrics_minute", minutes)
    yield from _delete_spans(connection, "metrics_hour", before(keep.hour_seconds) // metrics.HOUR)
    yield from _delete_logs(connection, before(keep.log_seconds))
    yield from _delete(connection, "refusals", "ts_ms < ?", before(keep.refusal_seconds))
    sessions = before(keep.session_seconds)
    yield from _delete(connection, "sessions", "ended_ms < ?", sessions)
    yield from _delete_commands(connection, before(keep.command_seconds))
    with transaction(connection):
        connection.execute("DELETE FROM secrets WHERE expires_ms <= ?", (now_ms,))
        tokens.delete_ended(connection, now_ms)
    yield


def _delete_logs(connection: sqlite3.Connection, cutoff: int) -> Iterator[None]:
    # In the order they came, as they lie in the file: that is the order of their times too,
    # unless the clock was set.
    yield from _while_any(
        connection,
        "DELETE FROM logs WHERE id IN (SELECT id FROM logs ORDER BY id LIMIT 2000) "
        "AND received_ms < ?",
        cutoff,
    )
    # What lies behind entries of a clock that was ahead; mostly nothing, and one look into the
    # index for each agent says so.
    oldest = "SELECT received_ms FROM logs WHERE agent = ? ORDER BY received_ms LIMIT 1"
    until = monotonic() + _SLICE
    for (number,) in connection.execute("SELECT number FROM numbers").fetchall():
        first = connection.execute(oldest, (number,)).fetchone()
        if first is not None and first[0] < cutoff:
            yield from _while_any(
                connection,
                "DELETE FROM logs WHERE id IN (SELECT id FROM logs "  # noqa: S608
                f"WHERE agent = {number} AND received_ms < ? ORDER BY received_ms LIMIT 2000)",
                cutoff,
            )
        if monotonic() > until:
            yield
            until = monotonic() + _SLICE


def _delete_commands(connection: sqlite3.Connection, cutoff: int) -> Iterator[None]:
    where = "created_ms < ? AND state NOT IN ('queued', 'sent')"
    ids = f"SELECT rowid FROM commands WHERE {where} ORDER BY created_ms LIMIT 1000"  # noqa: S608
    yield from _while_any(connection, f"DELETE FROM commands WHERE rowid IN ({ids})", cutoff)  # noqa: S608


def _delete_spans(connection: sqlite3.Connection, table: str, cutoff: int) -> Iterator[None]:
    """Delete an agent's spans before `cutoff`, agent by agent."""
    oldest = f"SELECT min(span) FROM {table} WHERE agent = ?"  # noqa: S608
    delete = f"DELETE FROM {table} WHERE agent = ? AND span < ?"  # noqa: S608
    numbers = [row[0] for row in connection.execute("SELECT number FROM numbers")]
    until = monotonic() + _SLICE
    for number in numbers:
        while True:
            first = connection.execute(oldest, (number,)).fetchone()[0]
            if first is None or first >= cutoff:
                break
            with transaction(connection):
                connection.execute(delete, (number, min(cutoff, first + _SPANS)))
            yield
            until = monotonic() + _SLICE
        if monotonic() > until:
            yield
            until = monotonic() + _SLICE


# The size cap.


def _figure(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def used_bytes(connection: sqlite3.Connection) -> int:
    """Of the file, without the pages that are free."""
    pages = _figure(connection, "page_count") - _figure(connection, "freelist_count")
    return pages * _figure(connection, "page_size")


def _cap(connection: sqlite3.Connection, max_bytes: int) -> Iterator[None]:
    if max_bytes <= 0 or used_bytes(connection) <= max_bytes * 0.95:
        return
    # Somewhat further, so that it is not at the limit again at once.
    target = max_bytes * 0.9
    for deleting in (
        _oldest_raw(connection),
        _delete(connection, "logs", "id >= ? ORDER BY id", 0, 1_000),
        _delete(connection, "refusals", "id >= ? ORDER BY id", 0, 1_000),
        _oldest_spans(connection, "metrics_minute", 60),
        _delete_commands(connection, 2**62),
        _delete(connection, "sessions", "ended_ms >= ? ORDER BY ended_ms", 0, 1_000),
        _oldest_spans(connection, "metrics_hour", 24),
    ):
        for _ in deleting:
            if used_bytes(connection) <= target:
                return
            yield


def _oldest_raw(connection: sqlite3.Connection) -> Iterator[None]:
    """Delete the oldest hours, part by part."""
    while True:
        hour = connection.execute("SELECT min(hour) FROM metrics_raw").fetchone()[0]
        if hour is None:
            return
        with transaction(connection):
            metrics.raise_floor(connection, "raw", hour + 1)
        yield from _delete(connection, "metrics_raw", "hour = ?", hour, 200)


def _oldest_spans(connection: sqlite3.Connection, table: str, step: int) -> Iterator[None]:
    """Delete the oldest spans of all agents, `step` at a time."""
    while True:
        # Agent by agent: each is a look at the index, where one for all would read every row.
        query = f"""SELECT min(oldest) FROM (SELECT (
            SELECT min(span) FROM {table} WHERE agent = number) AS oldest FROM numbers)"""  # noqa: S608
        oldest = connection.execute(query).fetchone()[0]
        if oldest is None:
            return
        if table == "metrics_minute":
            with transaction(connection):
                metrics.raise_floor(connection, "minute", oldest + step)
        yield from _delete_spans(connection, table, oldest + step)


def _shrink(connection: sqlite3.Connection, max_bytes: int) -> Iterator[None]:
    """Give free pages back to the file system, but for some."""
    page_size = _figure(connection, "page_size")
    shrunk = False
    while True:
        free, pages = _figure(connection, "freelist_count"), _figure(connection, "page_count")
        spare = max(_SPARE_PAGES, pages // 10)
        if 0 < max_bytes < pages * page_size:
            spare = 0
        if free <= spare:
            break
        # Not `execute`: it would take one step of the statement, which frees one page.
        number = min(_SHRINK_PAGES, free - spare)
        connection.executescript(f"PRAGMA incremental_vacuum({number})")
        if _figure(connection, "freelist_count") >= free:
            break
        shrunk = True
        yield
    if shrunk:
        # The file itself becomes shorter when the log is written back to it.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
