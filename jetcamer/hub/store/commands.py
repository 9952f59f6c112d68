"""Commands on disk. Functions for the database's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from operator import attrgetter

import msgspec

from jetcamer.hub.records import CommandRecord, CommandState
from jetcamer.hub.store import paging
from jetcamer.hub.store.interface import Page
from jetcamer.hub.store.numbers import Numbers

_COLUMNS = (
    "command_id, agent_id, command, args, who, state, created_ms, sent_ms, ended_ms, expires_ms, "
    "result, error, details, batch_id, timeout_seconds"
)

_PUT = (
    f"INSERT INTO commands ({_COLUMNS}) VALUES ({', '.join('?' * 15)}) "  # noqa: S608
    "ON CONFLICT (command_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", "))
)

_SELECT = f"SELECT {_COLUMNS} FROM commands"  # noqa: S608


def put(connection: sqlite3.Connection, _numbers: Numbers, command: CommandRecord) -> None:
    connection.execute(
        _PUT,
        (
            command.command_id,
            command.agent_id,
            command.command,
            msgspec.json.encode(command.args).decode(),
            command.who,
            command.state,
            command.created_ms,
            command.sent_ms,
            command.ended_ms,
            command.expires_ms,
            command.result,
            command.error,
            command.details,
            command.batch_id,
            command.timeout_seconds,
        ),
    )


def _records(rows: sqlite3.Cursor) -> Iterator[CommandRecord]:
    for row in rows:
        yield CommandRecord(
            command_id=row[0],
            agent_id=row[1],
            command=row[2],
            args=msgspec.json.decode(row[3], type=dict[str, str]),
            who=row[4],
            state=row[5],
            created_ms=row[6],
            sent_ms=row[7],
            ended_ms=row[8],
            expires_ms=row[9],
            result=row[10],
            error=row[11],
            details=row[12],
            batch_id=row[13],
            timeout_seconds=row[14],
        )


#: The place of the command with this id, in the order of all.
_PLACE = "(SELECT created_ms, rowid FROM commands WHERE command_id = ?)"


def page(
    connection: sqlite3.Connection,
    agent_id: str | None,
    limit: int,
    before: str | None,
    max_bytes: int,
) -> Page[CommandRecord, str]:
    where, values = ["1"], []
    if agent_id is not None:
        where.append("agent_id = ?")
        values.append(agent_id)
    if before is not None:
        where.append(f"(created_ms, rowid) < {_PLACE}")
        values.append(before)
    query = f"{_SELECT} WHERE {' AND '.join(where)} ORDER BY created_ms DESC, rowid DESC"
    return _page(connection.execute(query, values), limit, max_bytes)


def batch(
    connection: sqlite3.Connection, batch_id: str, limit: int, after: str | None, max_bytes: int
) -> Page[CommandRecord, str]:
    where, values = "batch_id = ?", [batch_id]
    if after is not None:
        where += f" AND (created_ms, rowid) > {_PLACE}"
        values.append(after)
    query = f"{_SELECT} WHERE {where} ORDER BY created_ms, rowid"
    return _page(connection.execute(query, values), limit, max_bytes)


def _page(cursor: sqlite3.Cursor, limit: int, max_bytes: int) -> Page[CommandRecord, str]:
    with closing(cursor):
        return paging.page(_records(cursor), limit, max_bytes, attrgetter("command_id"))


def batch_states(connection: sqlite3.Connection, batch_id: str) -> dict[CommandState, int]:
    query = "SELECT state, count(*) FROM commands WHERE batch_id = ? GROUP BY state"
    return dict(connection.execute(query, (batch_id,)).fetchall())


def one(connection: sqlite3.Connection, command_id: str) -> CommandRecord | None:
    query = f"{_SELECT} WHERE command_id = ?"
    return next(_records(connection.execute(query, (command_id,))), None)


def unfinished(connection: sqlite3.Connection) -> list[CommandRecord]:
    query = f"{_SELECT} WHERE state IN ('queued', 'sent') ORDER BY created_ms, rowid"
    return list(_records(connection.execute(query)))
