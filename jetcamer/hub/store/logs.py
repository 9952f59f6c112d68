"""Agents' log entries and refusals on disk. Functions for the database's thread."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Sequence

from jetcamer.hub.records import LogRecord, RefusalRecord
from jetcamer.hub.store.facts import LogFact
from jetcamer.hub.store.numbers import Numbers

#: Entries that one question looks through for a text or a source. LIKE over this many takes some
#: 30 ms; a full-text index would cost every entry ten times its share of that, asked for or not.
LOOK_THROUGH = 50_000

_LAST = 2**62


def insert(connection: sqlite3.Connection, numbers: Numbers, facts: Sequence[LogFact]) -> None:
    connection.executemany(
        "INSERT INTO logs (agent, received_ms, ts, level, message, source, event) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(numbers.of(agent_id), *rest) for agent_id, *rest in facts],
    )


def read(
    connection: sqlite3.Connection,
    numbers: Numbers,
    agent_id: str,
    *,
    from_ms: int | None,
    to_ms: int | None,
    levels: Sequence[str],
    source: str | None,
    contains: str | None,
    limit: int,
    before: int | None,
) -> list[LogRecord]:
    """By the time they were received, the newest first."""
    where = ["agent = ?", "received_ms BETWEEN ? AND ?"]
    arguments: list[object] = [
        numbers.find(agent_id),
        0 if from_ms is None else from_ms,
        _LAST if to_ms is None else to_ms,
    ]
    if before is not None:
        # Where it is gone, all that is older is gone too.
        where.append("(received_ms, id) < ((SELECT received_ms FROM logs WHERE id = ?), ?)")
        arguments += [before, before]
    filters: list[str] = []
    wanted: list[object] = []
    if source is not None:
        filters.append("source = ?")
        wanted.append(source)
    if contains is not None:
        filters.append(r"message LIKE ? ESCAPE '\'")
        wanted.append(like_pattern(contains))

    def of_level(level: str | None) -> list[tuple[object, ...]]:
        conditions = where if level is None else [*where, "level = ?"]
        inner = (
            "SELECT id, ts, received_ms, level, message, source, event FROM logs "  # noqa: S608
            f"WHERE {' AND '.join(conditions)} ORDER BY received_ms DESC, id DESC LIMIT ?"
        )
        values = arguments if level is None else [*arguments, level]
        if not filters:
            return connection.execute(inner, (*values, limit)).fetchall()
        return connection.execute(
            f"SELECT * FROM ({inner}) WHERE {' AND '.join(filters)} "  # noqa: S608
            "ORDER BY received_ms DESC, id DESC LIMIT ?",
            (*values, LOOK_THROUGH, *wanted, limit),
        ).fetchall()

    rows: list[tuple[object, ...]] = []
    for level in dict.fromkeys(levels) if levels else (None,):
        rows.extend(of_level(level))
    newest = heapq.nlargest(limit, rows, key=lambda row: (row[2], row[0]))
    return [_record(agent_id, *row) for row in newest]  # type: ignore[arg-type]


def _record(
    agent_id: str,
    log_id: int,
    ts: int,
    received_ms: int,
    level: str,
    message: str,
    source: str | None,
    event: str | None,
) -> LogRecord:
    return LogRecord(
        log_id=log_id,
        agent_id=agent_id,
        ts=ts,
        received_ms=received_ms,
        level=level,
        message=message,
        source=source,
        event=event,
    )


def like_pattern(text: str) -> str:
    """For LIKE with ``\\`` as the escape: what contains `text`, taken literally."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return f"%{text}%"


# Refusals.


def insert_refusals(connection: sqlite3.Connection, refusals: Sequence[RefusalRecord]) -> None:
    connection.executemany(
        "INSERT INTO refusals (ts_ms, agent_id, address, reason, words) VALUES (?, ?, ?, ?, ?)",
        [(r.ts_ms, r.agent_id, r.address, r.reason, r.words) for r in refusals],
    )


def refusals(
    connection: sqlite3.Connection,
    agent_id: str | None,
    address: str | None,
    limit: int,
    before: int | None,
) -> list[RefusalRecord]:
    where, arguments = ["id < ?"], [_LAST if before is None else before]
    values: list[object] = [*arguments]
    for column, value in (("agent_id", agent_id), ("address", address)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    rows = connection.execute(
        "SELECT id, ts_ms, agent_id, address, reason, words FROM refusals "  # noqa: S608
        f"WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?",
        (*values, limit),
    )
    return [
        RefusalRecord(
            refusal_id=row[0],
            ts_ms=row[1],
            agent_id=row[2],
            address=row[3],
            reason=row[4],
            words=row[5],
        )
        for row in rows
    ]
