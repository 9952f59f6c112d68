"""What goes on in the database's thread: facts written, questions answered, upkeep, copies.

In: `Facts`, and functions that take a connection. Out: a Deferred for each function. Facts are
written every half second as one transaction; a write that fails is taken back whole, told once,
and tried again later and later. Nothing that the reactor's thread calls here waits for a disk.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.hub.store import agents, audit, metrics, runs
from jetcamer.hub.store.database import Database, copy, open_database, transaction, words_of
from jetcamer.hub.store.facts import Batch, Facts
from jetcamer.hub.store.interface import StoreError, StoreHealth
from jetcamer.hub.store.migrations import MIGRATIONS, Migration
from jetcamer.hub.store.numbers import Numbers
from jetcamer.hub.store.retention import Retention
from jetcamer.hub.store.trouble import MAX_RETRY_SECONDS, Trouble
from jetcamer.hub.store.upkeep import upkeep
from jetcamer.hub.store.worker import Stopped, Worker
from jetcamer.hub.store.writing import is_trouble, write, write_one_by_one

_log = Logger()
_T = TypeVar("_T")
_P = ParamSpec("_P")

FLUSH_SECONDS = 0.5
#: Recent metrics are moved when there are so many, or the first has waited so long.
MERGE_ROWS = 100_000
UPKEEP_SECONDS = 300.0


class Engine:
    """
    :param now_ms: the wall clock; called in the database's thread.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        path: str,
        facts: Facts,
        *,
        now_ms: Callable[[], int],
        retention: Retention,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._path = path
        self._facts = facts
        self._now_ms = now_ms
        self._retention = retention
        self._migrations = migrations
        self._worker = Worker(reactor, due=self._due, failed=self._upkeep_failed)
        # From here on: of the database's thread, but that `health` reads some.
        self._database: Database | None = None
        self._numbers: Numbers | None = None
        self._copying = False
        self._next_flush = 0.0
        self._next_upkeep = 0.0
        self._next_merge = 0.0
        self._upkeep_running = False
        self._upkeep_told = False
        # Those who wait for the next pass, and for the one that runs.
        self._upkeep_waiters: list[Deferred[None]] = []
        self._upkeep_served: list[Deferred[None]] = []
        self._verifying: list[Deferred[Any]] = []
        self._trouble = Trouble(self._worker.back)
        self._clean_at = monotonic()
        # What was given before is on disk.
        self._all_written_at = 0.0
        self._writing = 0
        self._refused = 0
        self._size = 0
        #: Whether the run before this one did not end in order. Once it is open.
        self.was_killed = False

    # In the reactor's thread.

    def open(self) -> Deferred[int]:
        """Fires with the highest session id ever used."""
        return Deferred.fromCoroutine(self._opened())

    async def _opened(self) -> int:
        self._worker.start()
        try:
            return await self._worker.call(self._open)
        except BaseException:
            await self._worker.stop(lambda: None)
            raise

    def close(self) -> Deferred[None]:
        """Write what waits, once, and close."""
        closed = self._worker.stop(self._close)
        closed.addErrback(lambda failure: failure.trap(Stopped) and None)
        return closed

    def ask(
        self,
        function: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *arguments: _P.args,
        **named: _P.kwargs,
    ) -> Deferred[_T]:
        """Have `function` called with the connection. Facts given before are written first."""
        asked = monotonic()

        def answer() -> _T:
            # Of many who ask at once, one has them written for all.
            if self._facts and asked >= self._all_written_at:
                self._flush_if_well()
            return function(self._connection, *arguments, **named)

        return self._call(answer)

    def look_up(
        self,
        function: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *arguments: _P.args,
        **named: _P.kwargs,
    ) -> Deferred[_T]:
        """The same for what no fact changes: nothing is written first."""
        return self._call(lambda: function(self._connection, *arguments, **named))

    def alter(
        self,
        function: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *arguments: _P.args,
        **named: _P.kwargs,
    ) -> Deferred[_T]:
        """The same, in a transaction, after the changes given before."""

        def change() -> _T:
            if self._facts.changes:
                self._flush_if_well()
            with transaction(self._connection) as connection:
                return function(connection, *arguments, **named)

        return self._call(change)

    def flush(self) -> Deferred[None]:
        return self._call(self._flush_all)

    def upkeep(self) -> Deferred[None]:
        """Do what is done every few minutes; fires when it is over."""
        done: Deferred[None] = Deferred()

        def start() -> None:
            self._flush_all()
            self._upkeep_waiters.append(done)
            self._start_upkeep_if_due()

        return self._call(start).addCallback(lambda _: done)

    def verify_audit(self) -> Deferred[tuple[int, int | None]]:
        done: Deferred[tuple[int, int | None]] = Deferred()

        def start(connection: sqlite3.Connection) -> None:
            self._verifying.append(done)
            self._worker.in_background(self._verify(connection, done))

        return self.ask(start).addCallback(lambda _: done)

    def backup(self, path: str) -> Deferred[int]:
        return self._call(lambda: self._backup(path))

    def health(self) -> StoreHealth:
        waiting = len(self._facts) + self._writing
        trouble = self._trouble.words
        return StoreHealth(
            ok=trouble is None,
            words=trouble,
            lag=max(0.0, monotonic() - self._clean_at) if waiting else 0.0,
            waiting=waiting,
            lost=self.lost,
            size=self._size,
        )

    @property
    def lost(self) -> int:
        """Facts given up since the start."""
        return self._facts.dropped + self._refused

    def _call(self, function: Callable[[], _T]) -> Deferred[_T]:
        return self._worker.call(function).addErrback(_as_store_error)

    # In the database's thread.

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError("the database is closed")
        return self._database.connection

    @property
    def numbers(self) -> Numbers:
        assert self._numbers is not None
        return self._numbers

    def _open(self) -> int:
        database = open_database(self._path, self._now_ms, self._migrations)
        try:
            with transaction(database.connection):
                self.was_killed = runs.begin(database.connection, self._now_ms())
                agents.end_open_sessions(database.connection)
            session_id = agents.last_session_id(database.connection)
        except sqlite3.Error as problem:
            database.close()
            words = f"the database {self._path} cannot be written: {words_of(problem)}"
            raise StoreError(words) from None
        self._database, self._numbers = database, Numbers(database.connection)
        self._clean_at = monotonic()
        self._next_upkeep = self._clean_at + UPKEEP_SECONDS
        self._measure()
        return session_id

    def _close(self) -> None:
        if self._database is None:
            return
        try:
            self._flush_all()
            with suppress(sqlite3.Error), transaction(self._database.connection):
                runs.end(self._database.connection, self._now_ms())
        except StoreError as problem:
            self._tell("[hub] {lost} facts are lost: {words}", len(self._facts), str(problem))
            self._refused += len(self._facts)
            while self._facts.take():
                pass
        for waiter in [*self._upkeep_waiters, *self._upkeep_served, *self._verifying]:
            self._worker.back(waiter.errback, Failure(StoreError("the database is closed")))
        self._database.close()
        self._database = None

    def _tell(self, text: str, lost: int, words: str) -> None:
        self._worker.back(lambda: _log.error(text, lost=lost, words=words))

    def _measure(self) -> None:
        size = 0
        file = os.path.realpath(self._path)
        for name in (file, f"{file}-wal"):
            with suppress(OSError):
                size += os.stat(name).st_size
        self._size = size

    # Writing.

    def _due(self) -> float:
        if self._database is None:
            return FLUSH_SECONDS
        now = monotonic()
        if now >= self._next_flush:
            with suppress(StoreError):
                self._flush()
            self._start_upkeep_if_due()
        return max(0.0, self._next_flush - monotonic())

    def _flush_if_well(self) -> None:
        if self._trouble.words is None:
            with suppress(StoreError):
                self._flush_all()

    def _flush_all(self) -> None:
        """All that waits now.

        :raises StoreError: a write failed; its facts wait on.
        """
        for _ in range(self._facts.batches()):
            self._flush()

    def _flush(self) -> None:
        started = monotonic()
        whole = self._facts.batches() == 1
        batch = self._facts.take()
        if not batch:
            self._clean_at = self._all_written_at = started
            self._next_flush = started + FLUSH_SECONDS
            return
        self._writing = len(batch)
        try:
            self._write(batch)
        except BaseException as problem:
            self.numbers.forget()
            self._facts.put_back(batch)
            raise self._failed(problem) from None
        finally:
            self._writing = 0
        self._clean_at = started
        if whole:
            self._all_written_at = started
        self._next_flush = started + (FLUSH_SECONDS if self._facts.batches() == 1 else 0)
        self._measure()
        self._trouble.over(self.lost)

    def _write(self, batch: Batch) -> None:
        connection = self._connection
        try:
            with transaction(connection):
                write(connection, self.numbers, batch)
        except Exception as problem:
            if is_trouble(problem):
                raise
        else:
            return
        # Some fact is at fault: all others are written.
        self.numbers.forget()
        with transaction(connection):
            refused = write_one_by_one(connection, self.numbers, batch)
        self._refused += refused
        self._tell("[hub] {lost} facts are not fit for the database{words}", refused, "")

    def _failed(self, problem: BaseException) -> StoreError:
        words = f"the database {self._path} cannot be written: {words_of(problem)}"
        self._next_flush = monotonic() + self._trouble.failed(words)
        return StoreError(words)

    # Long work, in slices.

    def _start_upkeep_if_due(self) -> None:
        now = monotonic()
        if self._upkeep_running or self._copying:
            return
        if self._upkeep_waiters or now >= self._next_upkeep:
            self._upkeep_running = True
            self._upkeep_served, self._upkeep_waiters = self._upkeep_waiters, []
            work = upkeep(self._connection, self._retention, self._now_ms())
            self._worker.in_background(self._upkeep(work))
        elif self._trouble.words is None and now >= self._next_merge:
            many = False
            with suppress(sqlite3.Error):
                many = metrics.recent_rows(self._connection) >= MERGE_ROWS
            if many:
                self._upkeep_running = True
                self._worker.in_background(self._upkeep(metrics.merge(self._connection)))

    def _upkeep(self, work: Iterator[None]) -> Iterator[None]:
        going = True
        while going:
            # Without an fsync of its own: the next facts' covers it, and until then a power failure
            # takes back a move from one table to another, as a whole.
            self._connection.execute("PRAGMA synchronous = NORMAL")
            try:
                going = next(work, work) is None
            finally:
                self._connection.execute("PRAGMA synchronous = FULL")
            yield
        self._upkeep_told = False
        self._measure()
        self._upkeep_over(None)

    def _upkeep_over(self, result: Failure | None) -> None:
        self._upkeep_running = False
        if monotonic() >= self._next_upkeep or self._upkeep_served:
            self._next_upkeep = monotonic() + UPKEEP_SECONDS
        served, self._upkeep_served = self._upkeep_served, []
        for waiter in served:
            self._worker.back(waiter.callback, result)

    def _upkeep_failed(self, problem: BaseException) -> None:
        if not self._upkeep_told:
            self._upkeep_told = True
            self._tell("[hub] the database cannot be kept up: {words}", 0, words_of(problem))
        self._next_merge = monotonic() + MAX_RETRY_SECONDS
        words = f"the database cannot be kept up: {words_of(problem)}"
        self._upkeep_over(Failure(StoreError(words)))

    def _verify(
        self, connection: sqlite3.Connection, done: Deferred[tuple[int, int | None]]
    ) -> Iterator[None]:
        result: object = None
        try:
            for part in audit.verify(connection):
                result = part
                yield
        except sqlite3.Error as problem:
            result = Failure(StoreError(words_of(problem)))
        self._verifying.remove(done)
        self._worker.back(done.callback, result)

    def _backup(self, path: str) -> int:
        if self._copying:
            raise StoreError("another backup is being written")
        self._flush_if_well()
        self._copying = True
        try:
            return copy(self._connection, path, self._between_pages)
        finally:
            self._copying = False

    def _between_pages(self) -> None:
        if self._worker.stopping:
            raise StoreError("the hub is stopping")
        self._worker.give_turn()


def _as_store_error(failure: Failure) -> Failure:
    if failure.check(Stopped):
        return Failure(StoreError("the database is closed"))
    problem = failure.value
    if isinstance(problem, sqlite3.Error | OSError):
        return Failure(StoreError(f"the database cannot do that: {words_of(problem)}"))
    return failure
