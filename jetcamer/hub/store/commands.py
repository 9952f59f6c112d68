"""Commands on disk. Functions for the database's thread."""

from __future__ import annotations

import sqlite3

import msgspec

from jetcamer.hub.records import CommandRecord
from jetcamer.hub.store.numbers import Numbers

_COLUMNS = (
    "command_id, agent_id, command, args, who, state, created_ms, sent_ms, ended_ms, expires_ms, "
    "result, error, details, batch_id"
)

_PUT = (
    f"INSERT INTO commands ({_COLUMNS}) VALUES ({', '.join('?' * 14)}) "  # noqa: S608
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
        ),
    )


def _records(cursor: sqlite3.Cursor) -> list[CommandRecord]:
    return [
        CommandRecord(
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
        )
        for row in cursor
    ]


def page(
    connection: sqlite3.Connection, agent_id: str | None, limit: int, before_ms: int | None
) -> list[CommandRecord]:
    where = "" if agent_id is None else "agent_id = ?2 AND "
    query = f"{_SELECT} WHERE {where} created_ms < ?1 ORDER BY created_ms DESC, rowid DESC LIMIT ?3"
    before = 2**62 if before_ms is None else before_ms
    return _records(connection.execute(query, (before, agent_id, limit)))


def one(connection: sqlite3.Connection, command_id: str) -> CommandRecord | None:
    found = _records(connection.execute(f"{_SELECT} WHERE command_id = ?", (command_id,)))
    return found[0] if found else None


def unfinished(connection: sqlite3.Connection) -> list[CommandRecord]:
    query = f"{_SELECT} WHERE state IN ('queued', 'sent') ORDER BY created_ms, rowid"
    return _records(connection.execute(query))


def batch(connection: sqlite3.Connection, batch_id: str) -> list[CommandRecord]:
    query = f"{_SELECT} WHERE batch_id = ? ORDER BY created_ms, rowid"
    return _records(connection.execute(query, (batch_id,)))
