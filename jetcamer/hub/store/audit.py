"""The audit trail: a chain of entries, each with the hash of the one before.

In: what an operator did. Out: entries, and whether the chain is whole. What was changed or taken
out is found, unless the whole chain after it was computed anew; what was cut off at the end is
found as long as the database's own count (`sqlite_sequence`) was not set back with it. Who can
write the file can do both: only a hash noted elsewhere shows that. The database refuses to change
or delete entries.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from operator import attrgetter

from jetcamer.hub.records import AuditRecord
from jetcamer.hub.store import paging
from jetcamer.hub.store.interface import Page
from jetcamer.hub.store.numbers import Numbers

#: Before the first entry.
ORIGIN = "0" * 64

_VERIFY_ROWS = 2_000


def canonical_details(details: Mapping[str, object]) -> str:
    """JSON text with one form for one value; what JSON does not know becomes its str()."""
    return json.dumps(details, sort_keys=True, separators=(",", ":"), default=str)


def chain(
    audit_id: int, ts_ms: int, who: str, action: str, subject: str, details: str, previous: str
) -> AuditRecord:
    """The entry that follows the one whose hash is `previous`."""
    entry = {
        "action": action,
        "details": details,
        "id": audit_id,
        "subject": subject,
        "ts": ts_ms,
        "who": who,
    }
    digest = hashlib.sha256((previous + canonical_details(entry)).encode()).hexdigest()
    return AuditRecord(
        audit_id=audit_id,
        ts_ms=ts_ms,
        who=who,
        action=action,
        subject=subject,
        details=details,
        previous=previous,
        hash=digest,
    )


def is_right(entry: AuditRecord, audit_id: int, previous: str) -> bool:
    """Whether `entry` is the one with this number, after the one with this hash."""
    expected = chain(
        audit_id, entry.ts_ms, entry.who, entry.action, entry.subject, entry.details, previous
    )
    return entry == expected


def append(
    connection: sqlite3.Connection,
    _numbers: Numbers,
    ts_ms: int,
    who: str,
    action: str,
    subject: str,
    details: str,
) -> None:
    row = connection.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    last, previous = (0, ORIGIN) if row is None else row
    entry = chain(last + 1, ts_ms, who, action, subject, details, previous)
    connection.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (last + 1, ts_ms, who, action, subject, details, previous, entry.hash),
    )


@contextmanager
def _texts(connection: sqlite3.Connection, errors: str) -> Iterator[None]:
    """Within it, what is not UTF-8 is read in the way `errors` names, and does not fail."""
    before = connection.text_factory
    connection.text_factory = lambda data: data.decode("utf-8", errors)
    try:
        yield
    finally:
        connection.text_factory = before


def _records(rows: sqlite3.Cursor) -> Iterator[AuditRecord]:
    for row in rows:
        yield AuditRecord(
            audit_id=row[0],
            ts_ms=row[1],
            who=row[2],
            action=row[3],
            subject=row[4],
            details=row[5],
            previous=row[6],
            hash=row[7],
        )


def entries(
    connection: sqlite3.Connection, limit: int, before: int | None, max_bytes: int
) -> Page[AuditRecord, int]:
    query = "SELECT * FROM audit WHERE id < ? ORDER BY id DESC"
    found = connection.execute(query, (2**62 if before is None else before,))
    with closing(found), _texts(connection, "backslashreplace"):
        return paging.page(_records(found), limit, max_bytes, attrgetter("audit_id"))


def verify(connection: sqlite3.Connection) -> Iterator[tuple[int, int | None] | None]:
    """Yields None after each slice, at last what `Store.verify_audit` promises."""
    number, previous = 0, ORIGIN
    while True:
        query = "SELECT * FROM audit WHERE id > ? ORDER BY id LIMIT ?"
        # Each text that is not UTF-8 as another one: none is taken for the one it was.
        with _texts(connection, "surrogateescape"):
            part = [*_records(connection.execute(query, (number, _VERIFY_ROWS)))]
        for entry in part:
            if not is_right(entry, number + 1, previous):
                yield number, number + 1
                return
            number, previous = number + 1, entry.hash
        if not part:
            break
        yield None
    query = "SELECT seq FROM sqlite_sequence WHERE name = 'audit'"
    row = connection.execute(query).fetchone()
    cut_off = row is not None and row[0] > number
    yield number, number + 1 if cut_off else None
