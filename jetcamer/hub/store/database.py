"""The database file: opened, brought up to date, copied.

In: a path. Out: a connection to a database of this program's version, for one thread. Never
changes a database of a newer version, and never changes an older one without a copy of it first.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from jetcamer.hub.store.interface import StoreError
from jetcamer.hub.store.migrations import MIGRATIONS, Migration

#: Pages of a copy that are read in one step, after which others get a turn.
COPY_PAGES = 256

#: `synchronous=FULL`: what is committed survives a power failure too, for the price of one fsync a
#: transaction, two transactions a second.
_PRAGMAS = (
    "PRAGMA busy_timeout = 2000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = OFF",
    "PRAGMA cache_size = -32768",
    "PRAGMA wal_autocheckpoint = 1000",
    "PRAGMA journal_size_limit = 16777216",
)


def words_of(problem: BaseException) -> str:
    """One line for a person about a database that failed."""
    name = getattr(problem, "sqlite_errorname", None)
    text = " ".join(str(problem).split()) or type(problem).__name__
    return f"{text} ({name})" if name else text


class Database:
    """A connection and the lock that keeps other hubs out."""

    def __init__(self, connection: sqlite3.Connection, lock: int) -> None:
        self.connection = connection
        self._lock = lock

    def close(self) -> None:
        try:
            self.connection.close()
        finally:
            os.close(self._lock)


def open_database(
    path: str, now_ms: Callable[[], int], migrations: Sequence[Migration] = MIGRATIONS
) -> Database:
    """Open the database at `path`, made where there is none (0600, its folder 0700).

    :raises StoreError: in one line.
    """
    try:
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        # Of the file itself: by whatever links it is reached, it has one lock.
        lock = _lock(os.path.realpath(path), path)
    except OSError as problem:
        raise StoreError(f"the database {path} cannot be opened: {problem.strerror}") from None
    connection: sqlite3.Connection | None = None
    try:
        _make_private(path)
        connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        # Takes effect in a database without tables only.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        migrate(connection, path, now_ms, migrations)
    except BaseException as problem:
        if connection is not None:
            connection.close()
        os.close(lock)
        if isinstance(problem, sqlite3.Error):
            words = words_of(problem)
            raise StoreError(f"the database {path} cannot be opened: {words}") from None
        if isinstance(problem, OSError):
            raise StoreError(f"the database {path} cannot be opened: {problem.strerror}") from None
        raise
    return Database(connection, lock)


def _lock(file: str, path: str) -> int:
    """Held until it is closed, or the process is gone."""
    lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StoreError(f"the database {path} is in use by another hub") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _make_private(path: str) -> None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_mode & 0o077:
            os.fchmod(file, 0o600)
    finally:
        os.close(file)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All of it is written, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have ended the transaction already.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(
    connection: sqlite3.Connection,
    path: str,
    now_ms: Callable[[], int],
    migrations: Sequence[Migration] = MIGRATIONS,
) -> None:
    version, newest = version_of(connection), len(migrations)
    if version > newest:
        raise StoreError(
            f"the database {path} is of version {version} and this program knows {newest}: "
            "start the newer program, or go back to a backup"
        )
    if version == newest:
        return
    before = None
    if version > 0:
        at = datetime.fromtimestamp(now_ms() / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
        before = f"{path}.v{version}.{at}.bak"
        copy(connection, before)
    try:
        for number in range(version, newest):
            with transaction(connection):
                for statement in migrations[number]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number + 1}")
    except BaseException:
        # A copy of what was not changed is none too many: the next try makes it again.
        if before is not None and version_of(connection) == version:
            with suppress(OSError):
                os.unlink(before)
        raise


def copy(
    connection: sqlite3.Connection, path: str, between: Callable[[], None] | None = None
) -> int:
    """Write a consistent copy of the database to `path`, mode 0600; returns its size.

    :param between: called every `COPY_PAGES` pages; may write to the database.
    :raises StoreError: the file exists, or cannot be written. Nothing is left behind then.
    """
    part = f"{path}.part"
    try:
        # Takes the name at once; the copy replaces it when it is whole.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as problem:
        raise StoreError(f"the backup {path} cannot be written: {problem.strerror}") from None
    try:
        with suppress(FileNotFoundError):
            os.unlink(part)
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        target = sqlite3.connect(part)
        try:
            connection.backup(
                target,
                pages=COPY_PAGES,
                progress=None if between is None else lambda *_: between(),
                sleep=0.01,
            )
        finally:
            target.close()
        os.replace(part, path)
        return os.stat(path).st_size
    except BaseException as problem:
        for name in (part, path):
            with suppress(OSError):
                os.unlink(name)
        if isinstance(problem, sqlite3.Error | OSError):
            words = words_of(problem)
            raise StoreError(f"the backup {path} cannot be written: {words}") from None
        raise
