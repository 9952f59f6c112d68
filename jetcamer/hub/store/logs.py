"""Agents' log entries and refusals on disk. Functions for the database's thread."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Sequence
from contextlib import ExitStack, closing
from operator import attrgetter

from jetcamer.hub.records import LogRecord, RefusalRecord
from jetcamer.hub.store import paging
from jetcamer.hub.store.facts import LogFact
from jetcamer.hub.store.interface import Page
from jetcamer.hub.store.numbers import Numbers

#: Entries of each level that one question looks through for a text or a source. LIKE over this
#: many takes some 30 ms; a full-text index would cost every entry ten times its share of that,
#: asked for or not.
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
    max_bytes: int,
) -> Page[LogRecord, int]:
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
    chosen: Sequence[str | None] = tuple(dict.fromkeys(levels)) or (None,)
    last: tuple[int, int] | None = None
    if source is not None or contains is not None:
        last = _last_looked_at(connection, where, arguments, chosen)
    if last is not None:
        where.append("(received_ms, id) >= (?, ?)")
        arguments += last
    if source is not None:
        where.append("source = ?")
        arguments.append(source)
    if contains is not None:
        where.append(r"message LIKE ? ESCAPE '\'")
        arguments.append(like_pattern(contains))
    with ExitStack() as open_:
        # Read as they are merged: no further than the page goes.
        found = [
            open_.enter_context(closing(_of_level(connection, _COLUMNS, where, arguments, level)))
            for level in chosen
        ]
        rows = heapq.merge(*found, key=lambda row: (row[2], row[0]), reverse=True)
        records = (_record(agent_id, *row) for row in rows)
        end = None if last is None else last[1]
        return paging.page(records, limit, max_bytes, attrgetter("log_id"), end)


_COLUMNS = "id, ts, received_ms, level, message, source, event"


def _of_level(
    connection: sqlite3.Connection,
    columns: str,
    where: Sequence[str],
    arguments: Sequence[object],
    level: str | None,
    limit: str = "",
) -> sqlite3.Cursor:
    conditions, values = " AND ".join(where), [*arguments]
    if level is not None:
        conditions += " AND level = ?"
        values.append(level)
    order = f"ORDER BY received_ms DESC, id DESC {limit}"
    query = f"SELECT {columns} FROM logs WHERE {conditions} {order}"  # noqa: S608
    return connection.execute(query, values)


def _last_looked_at(
    connection: sqlite3.Connection,
    where: Sequence[str],
    arguments: Sequence[object],
    levels: Sequence[str | None],
) -> tuple[int, int] | None:
    """(received, id) of the oldest entry that is looked at, so that there are `LOOK_THROUGH` of
    each level at most; None: all are. Read from the index alone."""
    ends = []
    for level in levels:
        limit = f"LIMIT 1 OFFSET {LOOK_THROUGH - 1}"
        cursor = _of_level(connection, "received_ms, id", where, arguments, level, limit)
        ends += cursor.fetchall()
    return max(ends, default=None)


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


_REFUSAL = "r.id, r.ts_ms, r.agent_id, r.address, r.reason, r.words, r.own, r.skew_ms"


def insert_refusals(connection: sqlite3.Connection, refusals: Sequence[RefusalRecord]) -> None:
    connection.executemany(
        "INSERT INTO refusals (ts_ms, agent_id, address, reason, words, own, skew_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(r.ts_ms, r.agent_id, r.address, r.reason, r.words, r.own, r.skew_ms) for r in refusals],
    )


def refusals(
    connection: sqlite3.Connection,
    agent_id: str | None,
    address: str | None,
    limit: int,
    before: int | None,
) -> list[RefusalRecord]:
    where, arguments = ["r.id < ?"], [_LAST if before is None else before]
    values: list[object] = [*arguments]
    for column, value in (("agent_id", agent_id), ("address", address)):
        if value is not None:
            where.append(f"r.{column} = ?")
            values.append(value)
    rows = connection.execute(
        f"SELECT {_REFUSAL} FROM refusals r "  # noqa: S608
        f"WHERE {' AND '.join(where)} ORDER BY r.id DESC LIMIT ?",
        (*values, limit),
    )
    return [_refusal(*row) for row in rows]


def own_refusals(connection: sqlite3.Connection, since_ms: int) -> list[RefusalRecord]:
    """One look into an index for each agent, however many refusals there are."""
    rows = connection.execute(
        f"""SELECT {_REFUSAL} FROM agents a JOIN refusals r ON r.id = (
            SELECT max(id) FROM refusals WHERE own AND agent_id = a.agent_id)
        WHERE a.revoked_ms IS NULL AND r.ts_ms >= max(?, coalesce(a.last_seen_ms, 0))""",  # noqa: S608
        (since_ms,),
    )
    return [_refusal(*row) for row in rows]


def _refusal(
    refusal_id: int,
    ts_ms: int,
    agent_id: str | None,
    address: str,
    reason: str,
    words: str,
    own: int,
    skew_ms: int | None,
) -> RefusalRecord:
    return RefusalRecord(
        refusal_id=refusal_id,
        ts_ms=ts_ms,
        agent_id=agent_id,
        address=address,
        reason=reason,
        words=words,
        own=bool(own),
        skew_ms=skew_ms,
    )
