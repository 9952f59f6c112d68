"""Agents, their secrets and their sessions on disk. Functions for the database's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from jetcamer.hub.records import AgentRecord, SecretRecord, SessionRecord
from jetcamer.hub.store.interface import ConflictError, StoreError
from jetcamer.hub.store.numbers import Numbers

#: How a session ended that a hub which was killed left open.
RESTARTED = "the hub was restarted"

_INSERT = "INSERT INTO agents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_DESCRIBE = (
    _INSERT
    + """ ON CONFLICT (agent_id) DO UPDATE SET legacy = excluded.legacy,
    hostname = excluded.hostname, version = excluded.version,
    capabilities = excluded.capabilities, address = excluded.address,
    last_seen_ms = coalesce(excluded.last_seen_ms, last_seen_ms)"""
)


def _values(agent: AgentRecord) -> tuple[object, ...]:
    return (
        agent.agent_id,
        agent.created_ms,
        agent.legacy,
        agent.revoked_ms,
        agent.hostname,
        agent.version,
        msgspec.json.encode(agent.capabilities).decode(),
        agent.address,
        agent.last_seen_ms,
        agent.replay_floor_ms,
    )


def all_agents(connection: sqlite3.Connection) -> list[AgentRecord]:
    return [
        AgentRecord(
            agent_id=row[0],
            created_ms=row[1],
            legacy=bool(row[2]),
            revoked_ms=row[3],
            hostname=row[4],
            version=row[5],
            capabilities=msgspec.json.decode(row[6], type=tuple[str, ...]),
            address=row[7],
            last_seen_ms=row[8],
            replay_floor_ms=row[9],
        )
        for row in connection.execute("SELECT * FROM agents ORDER BY agent_id")
    ]


def add(connection: sqlite3.Connection, agent: AgentRecord, secret: SecretRecord | None) -> None:
    try:
        connection.execute(_INSERT, _values(agent))
    except sqlite3.IntegrityError:
        raise ConflictError(f"the agent {agent.agent_id!r} is known already") from None
    if secret is not None:
        _insert_secret(connection, agent.agent_id, secret)


def seen(connection: sqlite3.Connection, agents: Mapping[str, tuple[int, int]]) -> None:
    connection.executemany(
        "UPDATE agents SET last_seen_ms = ?, replay_floor_ms = ? WHERE agent_id = ?",
        [(last_seen, floor, agent_id) for agent_id, (last_seen, floor) in agents.items()],
    )


def revoke(connection: sqlite3.Connection, agent_id: str, revoked_ms: int | None) -> None:
    update = "UPDATE agents SET revoked_ms = ? WHERE agent_id = ?"
    _exactly_one(connection.execute(update, (revoked_ms, agent_id)), agent_id)
    if revoked_ms is not None:
        connection.execute("DELETE FROM secrets WHERE agent_id = ?", (agent_id,))


def _exactly_one(cursor: sqlite3.Cursor, agent_id: str) -> None:
    if cursor.rowcount != 1:
        raise StoreError(f"there is no agent {agent_id!r}")


# Secrets.


def secrets(connection: sqlite3.Connection, now_ms: int) -> list[SecretRecord]:
    rows = connection.execute(
        "SELECT agent_id, sealed, created_ms, expires_ms FROM secrets "
        "WHERE expires_ms IS NULL OR expires_ms > ? ORDER BY created_ms DESC, id DESC",
        (now_ms,),
    )
    return [
        SecretRecord(agent_id=row[0], sealed=row[1], created_ms=row[2], expires_ms=row[3])
        for row in rows
    ]


def replace_secrets(
    connection: sqlite3.Connection, agent_id: str, new: Sequence[SecretRecord]
) -> None:
    known = connection.execute("SELECT 1 FROM agents WHERE agent_id = ?", (agent_id,))
    if known.fetchone() is None:
        raise StoreError(f"there is no agent {agent_id!r}")
    connection.execute("DELETE FROM secrets WHERE agent_id = ?", (agent_id,))
    for secret in new:
        _insert_secret(connection, agent_id, secret)


def _insert_secret(connection: sqlite3.Connection, agent_id: str, secret: SecretRecord) -> None:
    connection.execute(
        "INSERT INTO secrets (agent_id, sealed, created_ms, expires_ms) VALUES (?, ?, ?, ?)",
        (agent_id, secret.sealed, secret.created_ms, secret.expires_ms),
    )


# Sessions.


def last_session_id(connection: sqlite3.Connection) -> int:
    """The highest ever used."""
    query = "SELECT seq FROM sqlite_sequence WHERE name = 'sessions'"
    row = connection.execute(query).fetchone()
    return 0 if row is None else int(row[0])


def end_open_sessions(connection: sqlite3.Connection) -> None:
    """Those that a hub which was killed left open end when their agent was last heard."""
    connection.execute(
        """UPDATE sessions SET ending = ?, ended_ms = max(started_ms, coalesce((
            SELECT last_seen_ms FROM agents JOIN numbers USING (agent_id)
            WHERE numbers.number = sessions.agent), 0))
        WHERE ended_ms IS NULL""",
        (RESTARTED,),
    )


def start_session(
    connection: sqlite3.Connection,
    numbers: Numbers,
    session_id: int,
    agent: AgentRecord,
    peer: str,
    started_ms: int,
) -> None:
    connection.execute(_DESCRIBE, _values(agent))
    connection.execute(
        "INSERT INTO sessions (id, agent, peer, hostname, version, started_ms) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (session_id, numbers.of(agent.agent_id), peer, agent.hostname, agent.version, started_ms),
    )


def count_sessions(
    connection: sqlite3.Connection, _numbers: Numbers, sessions: Sequence[tuple[int, int, int]]
) -> None:
    connection.executemany(
        "UPDATE sessions SET messages = ?, refused = ? WHERE id = ? AND ended_ms IS NULL",
        [(messages, refused, session_id) for session_id, messages, refused in sessions],
    )


def end_session(
    connection: sqlite3.Connection,
    _numbers: Numbers,
    session_id: int,
    ended_ms: int,
    ending: str,
    messages: int,
    refused: int,
) -> None:
    connection.execute(
        "UPDATE sessions SET ended_ms = ?, ending = ?, messages = ?, refused = ? WHERE id = ?",
        (ended_ms, ending, messages, refused, session_id),
    )


def sessions(
    connection: sqlite3.Connection,
    numbers: Numbers,
    agent_id: str,
    limit: int,
    before: int | None,
) -> list[SessionRecord]:
    rows = connection.execute(
        "SELECT id, peer, hostname, version, started_ms, ended_ms, ending, messages, refused "
        "FROM sessions WHERE agent = ? AND id < ? ORDER BY id DESC LIMIT ?",
        (numbers.find(agent_id), 2**62 if before is None else before, limit),
    )
    return [
        SessionRecord(
            session_id=row[0],
            agent_id=agent_id,
            peer=row[1],
            hostname=row[2],
            version=row[3],
            started_ms=row[4],
            ended_ms=row[5],
            ending=row[6],
            messages=row[7],
            refused=row[8],
        )
        for row in rows
    ]
