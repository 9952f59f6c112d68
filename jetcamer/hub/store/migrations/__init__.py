"""The schema's history: migration N takes a database of version N - 1 to N.

A migration is a tuple of SQL statements that runs in one transaction. One that was released is
never changed: a new one is added.
"""

from __future__ import annotations

from jetcamer.hub.store.migrations import v0001_initial

Migration = tuple[str, ...]

MIGRATIONS: tuple[Migration, ...] = (v0001_initial.STATEMENTS,)
