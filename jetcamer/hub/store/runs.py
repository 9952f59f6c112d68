"""Each run of the hub, and whether it ended in order: what came last before a kill is not here."""

from __future__ import annotations

import sqlite3

#: Runs that are remembered.
_KEPT = 1_000


def begin(connection: sqlite3.Connection, now_ms: int) -> bool:
    """A run begins; returns whether the one before did not end in order."""
    last = connection.execute("SELECT ended_ms FROM runs ORDER BY id DESC LIMIT 1").fetchone()
    number = connection.execute("INSERT INTO runs (started_ms) VALUES (?)", (now_ms,)).lastrowid
    connection.execute("DELETE FROM runs WHERE id <= ?", ((number or 0) - _KEPT,))
    return last is not None and last[0] is None


def end(connection: sqlite3.Connection, now_ms: int) -> None:
    """Everything has been written."""
    connection.execute(
        "UPDATE runs SET ended_ms = ? WHERE id = (SELECT max(id) FROM runs)", (now_ms,)
    )
