"""A batch of facts, written: within a transaction that the caller holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

from jetcamer.hub.store import agents, logs, metrics
from jetcamer.hub.store.facts import Batch
from jetcamer.hub.store.numbers import Numbers


def is_trouble(problem: BaseException) -> bool:
    """Whether the database or its disk failed, so that to try again later makes sense: what is
    wrong is not the facts."""
    if isinstance(problem, sqlite3.OperationalError | sqlite3.InternalError | MemoryError):
        return True
    return type(problem) is sqlite3.DatabaseError


def write(connection: sqlite3.Connection, numbers: Numbers, batch: Batch) -> None:
    for step in _steps(connection, numbers, batch):
        step()


def _steps(
    connection: sqlite3.Connection, numbers: Numbers, batch: Batch
) -> Iterator[Callable[[], None]]:
    for change in batch.changes:
        yield partial(change.function, connection, numbers, *change.arguments)
    if batch.seen:
        yield partial(agents.seen, connection, batch.seen)
    if batch.metrics:
        yield partial(metrics.insert, connection, numbers, batch.metrics)
    if batch.logs:
        yield partial(logs.insert, connection, numbers, batch.logs)
    if batch.refusals:
        yield partial(logs.insert_refusals, connection, batch.refusals)


def write_one_by_one(connection: sqlite3.Connection, numbers: Numbers, batch: Batch) -> int:
    """Write all facts but those that no database would take; returns how many those are.

    :raises: what `is_trouble` says is some.
    """
    refused = 0
    for single in _singles(batch):
        connection.execute("SAVEPOINT fact")
        try:
            write(connection, numbers, single)
        except Exception as problem:
            if is_trouble(problem):
                raise
            with suppress(sqlite3.OperationalError):
                connection.execute("ROLLBACK TO fact")
            numbers.forget()
            refused += 1
        connection.execute("RELEASE fact")
    return refused


def _singles(batch: Batch) -> Iterator[Batch]:
    for name in ("changes", "metrics", "logs", "refusals"):
        for fact in getattr(batch, name):
            single = Batch()
            getattr(single, name).append(fact)
            yield single
    for agent_id, values in batch.seen.items():
        single = Batch()
        single.seen[agent_id] = values
        yield single
