"""The numbers that stand for agents in tables with many rows.

In: an agent's id. Out: its number, for ever the same. For the database's thread only.
"""

from __future__ import annotations

import sqlite3


class Numbers:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, int] = {}

    def of(self, agent_id: str) -> int:
        """The number of an agent, which gets one where it has none: within a transaction."""
        number = self._known.get(agent_id) or self.find(agent_id)
        if number is None:
            insert = "INSERT INTO numbers (agent_id) VALUES (?)"
            number = self._connection.execute(insert, (agent_id,)).lastrowid
            assert number is not None
            self._known[agent_id] = number
        return number

    def find(self, agent_id: str) -> int | None:
        number = self._known.get(agent_id)
        if number is None:
            query = "SELECT number FROM numbers WHERE agent_id = ?"
            row = self._connection.execute(query, (agent_id,)).fetchone()
            if row is None:
                return None
            number = self._known[agent_id] = int(row[0])
        return number

    def forget(self) -> None:
        """After a transaction that was taken back."""
        self._known.clear()
