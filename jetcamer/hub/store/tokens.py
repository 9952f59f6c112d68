"""API tokens and join tokens on disk, by their digests. Functions for the database's thread."""

from __future__ import annotations

import sqlite3

from jetcamer.hub.records import APITokenRecord, JoinTokenRecord


def api_tokens(connection: sqlite3.Connection, now_ms: int) -> list[APITokenRecord]:
    rows = connection.execute(
        "SELECT * FROM api_tokens WHERE expires_ms IS NULL OR expires_ms > ? "
        "ORDER BY created_ms DESC, rowid DESC",
        (now_ms,),
    )
    return [
        APITokenRecord(
            token_id=row[0],
            name=row[1],
            role=row[2],
            digest=row[3],
            created_ms=row[4],
            expires_ms=row[5],
            last_used_ms=row[6],
        )
        for row in rows
    ]


def put_api_token(connection: sqlite3.Connection, token: APITokenRecord) -> None:
    connection.execute(
        "INSERT INTO api_tokens VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (token_id) DO UPDATE SET "
        "name = excluded.name, role = excluded.role, digest = excluded.digest, "
        "expires_ms = excluded.expires_ms, last_used_ms = excluded.last_used_ms",
        (
            token.token_id,
            token.name,
            token.role,
            token.digest,
            token.created_ms,
            token.expires_ms,
            token.last_used_ms,
        ),
    )


def delete_api_token(connection: sqlite3.Connection, token_id: str) -> bool:
    delete = "DELETE FROM api_tokens WHERE token_id = ?"
    return connection.execute(delete, (token_id,)).rowcount == 1


def _join_tokens(cursor: sqlite3.Cursor) -> list[JoinTokenRecord]:
    return [
        JoinTokenRecord(
            token_id=row[0],
            digest=row[1],
            who=row[2],
            created_ms=row[3],
            expires_ms=row[4],
            uses_left=row[5],
        )
        for row in cursor.fetchall()
    ]


#: Its argument is the time now.
_VALID = "uses_left > 0 AND expires_ms > ?"


def join_tokens(connection: sqlite3.Connection, now_ms: int) -> list[JoinTokenRecord]:
    query = f"SELECT * FROM join_tokens WHERE {_VALID} ORDER BY created_ms DESC, rowid DESC"  # noqa: S608
    return _join_tokens(connection.execute(query, (now_ms,)))


def join_token(
    connection: sqlite3.Connection, digest: bytes, now_ms: int
) -> JoinTokenRecord | None:
    query = f"SELECT * FROM join_tokens WHERE digest = ? AND {_VALID}"  # noqa: S608
    found = _join_tokens(connection.execute(query, (digest, now_ms)))
    return found[0] if found else None


def put_join_token(connection: sqlite3.Connection, token: JoinTokenRecord) -> None:
    connection.execute(
        "INSERT INTO join_tokens VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (token_id) DO UPDATE SET "
        "digest = excluded.digest, expires_ms = excluded.expires_ms, "
        "uses_left = excluded.uses_left",
        (
            token.token_id,
            token.digest,
            token.who,
            token.created_ms,
            token.expires_ms,
            token.uses_left,
        ),
    )


def delete_join_token(connection: sqlite3.Connection, token_id: str) -> bool:
    delete = "DELETE FROM join_tokens WHERE token_id = ?"
    return connection.execute(delete, (token_id,)).rowcount == 1


def use_join_token(
    connection: sqlite3.Connection, digest: bytes, now_ms: int
) -> JoinTokenRecord | None:
    """The token as it is after this use."""
    used = _join_tokens(
        connection.execute(
            "UPDATE join_tokens SET uses_left = uses_left - 1 "  # noqa: S608
            f"WHERE digest = ? AND {_VALID} RETURNING *",
            (digest, now_ms),
        )
    )
    return used[0] if used else None


def delete_ended(connection: sqlite3.Connection, now_ms: int) -> None:
    """Those that are not valid any more."""
    connection.execute("DELETE FROM api_tokens WHERE expires_ms <= ?", (now_ms,))
    connection.execute(f"DELETE FROM join_tokens WHERE NOT ({_VALID})", (now_ms,))  # noqa: S608
