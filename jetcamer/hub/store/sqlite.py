"""The hub's database in SQLite.

In and out: as `Store` says. Facts wait in memory and are written every half second as one
transaction; a write that fails is taken back whole and tried again (`engine.py`). All of SQLite
happens in one thread of its own, and nothing here waits for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from jetcamer.hub.records import (
    AgentRecord,
    APITokenRecord,
    AuditRecord,
    CommandRecord,
    CommandState,
    JoinTokenRecord,
    LogRecord,
    MetricsSeries,
    RefusalRecord,
    SecretRecord,
    SessionRecord,
)
from jetcamer.hub.store import agents, audit, commands, logs, metrics, tokens
from jetcamer.hub.store.engine import Engine
from jetcamer.hub.store.facts import MAX_METRICS, Facts, change
from jetcamer.hub.store.interface import PAGE_BYTES, Page, StoreHealth
from jetcamer.hub.store.migrations import MIGRATIONS, Migration
from jetcamer.hub.store.retention import Retention

__all__ = ["Retention", "SQLiteStore"]

_log = Logger()

#: The least time between two lines in the log about facts that were given up.
SAY_SECONDS = 60.0


class SQLiteStore:
    """
    :param path: of the database file; made where there is none.
    :param now_ms: the wall clock; called in the database's thread too.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        path: str,
        *,
        now_ms: Callable[[], int],
        retention: Retention,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._now_ms = now_ms
        self._retention = retention
        self._facts = Facts()
        self._metrics = self._facts.metrics
        self._engine = Engine(
            reactor,
            path,
            self._facts,
            now_ms=now_ms,
            retention=retention,
            migrations=migrations,
        )
        self._session_id = 0
        self._said_lost = -SAY_SECONDS

    # The service.

    def open(self) -> Deferred[None]:
        def opened(session_id: int) -> None:
            self._session_id = session_id

        return self._engine.open().addCallback(opened)

    @property
    def was_killed(self) -> bool:
        return self._engine.was_killed

    def close(self) -> Deferred[None]:
        return self._engine.close()

    def flush(self) -> Deferred[None]:
        return self._engine.flush()

    def health(self) -> StoreHealth:
        return self._engine.health()

    def upkeep(self) -> Deferred[None]:
        """Do now what is done every few minutes; fires when it is over."""
        return self._engine.upkeep()

    # Facts.

    def session_started(self, agent: AgentRecord, peer: str, started_ms: int) -> int:
        self._session_id += 1
        self._change(
            "session starts", agents.start_session, self._session_id, agent, peer, started_ms
        )
        return self._session_id

    def session_ended(
        self, session_id: int, ended_ms: int, ending: str, messages: int, refused: int
    ) -> None:
        self._change(
            "session ends", agents.end_session, session_id, ended_ms, ending, messages, refused
        )

    def sessions_counted(self, sessions: Sequence[tuple[int, int, int]]) -> None:
        self._change("session counters", agents.count_sessions, sessions)

    def add_metrics(
        self,
        agent_id: str,
        received_ms: int,
        cpu_percent: float | None,
        mem_percent: float | None,
        disk_usage: float | None,
    ) -> None:
        waiting = self._metrics
        waiting.append((agent_id, received_ms, cpu_percent, mem_percent, disk_usage))
        if len(waiting) > MAX_METRICS:
            self._facts.drop_metrics()
            self._say_lost()

    def add_log(
        self,
        agent_id: str,
        received_ms: int,
        ts: int,
        level: str,
        message: str,
        source: str | None,
        event: str | None,
    ) -> None:
        if not self._facts.add_log((agent_id, received_ms, ts, level, message, source, event)):
            self._say_lost()

    def add_refusal(self, refusal: RefusalRecord) -> None:
        if not self._facts.add_refusal(refusal):
            self._say_lost()

    def put_command(self, command: CommandRecord) -> None:
        self._change("states of commands", commands.put, command)

    def seen(self, agents: Sequence[tuple[str, int, int]]) -> None:
        self._facts.seen(agents)

    def audit(self, who: str, action: str, subject: str, details: Mapping[str, object]) -> None:
        text = audit.canonical_details(details)
        self._change("audit entries", audit.append, self._now_ms(), who, action, subject, text)

    def _change(self, kind: str, function: Callable[..., None], *arguments: Any) -> None:
        if not self._facts.add_change(change(kind, function, *arguments)):
            self._say_lost()

    def _say_lost(self) -> None:
        now = monotonic()
        if now - self._said_lost >= SAY_SECONDS:
            self._said_lost = now
            dropped = self._facts.dropped_kinds
            _log.warn(
                "[hub] the database does not keep up: {lost} facts given up so far, of these "
                "{kinds}",
                lost=self._engine.lost,
                kinds=", ".join(f"{dropped[kind]} {kind}" for kind in sorted(dropped)),
            )

    # Questions.

    def agents(self) -> Deferred[list[AgentRecord]]:
        return self._engine.ask(agents.all_agents)

    def secrets(self) -> Deferred[list[SecretRecord]]:
        return self._engine.look_up(agents.secrets, self._now_ms())

    def metrics(
        self, agent_id: str, from_ms: int, to_ms: int, points: int
    ) -> Deferred[MetricsSeries]:
        def read(connection: sqlite3.Connection) -> MetricsSeries:
            return metrics.read(
                connection,
                self._engine.numbers.find(agent_id),
                from_ms,
                to_ms,
                points,
                now_ms=self._now_ms(),
                retention=self._retention,
            )

        return self._engine.ask(read)

    def logs(
        self,
        agent_id: str,
        *,
        from_ms: int | None = None,
        to_ms: int | None = None,
        levels: Sequence[str] = (),
        source: str | None = None,
        contains: str | None = None,
        limit: int = 100,
        before: int | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Deferred[Page[LogRecord, int]]:
        def read(connection: sqlite3.Connection) -> Page[LogRecord, int]:
            return logs.read(
                connection,
                self._engine.numbers,
                agent_id,
                from_ms=from_ms,
                to_ms=to_ms,
                levels=levels,
                source=source,
                contains=contains,
                limit=limit,
                before=before,
                max_bytes=max_bytes,
            )

        return self._engine.ask(read)

    def sessions(
        self, agent_id: str, *, limit: int = 100, before: int | None = None
    ) -> Deferred[list[SessionRecord]]:
        def read(connection: sqlite3.Connection) -> list[SessionRecord]:
            return agents.sessions(connection, self._engine.numbers, agent_id, limit, before)

        return self._engine.ask(read)

    def commands(
        self,
        agent_id: str | None,
        *,
        limit: int = 100,
        before: str | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Deferred[Page[CommandRecord, str]]:
        return self._engine.ask(commands.page, agent_id, limit, before, max_bytes)

    def command(self, command_id: str) -> Deferred[CommandRecord | None]:
        return self._engine.ask(commands.one, command_id)

    def unfinished_commands(self) -> Deferred[list[CommandRecord]]:
        return self._engine.ask(commands.unfinished)

    def batch(
        self,
        batch_id: str,
        *,
        limit: int = 1_000,
        after: str | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Deferred[Page[CommandRecord, str]]:
        return self._engine.ask(commands.batch, batch_id, limit, after, max_bytes)

    def batch_states(self, batch_id: str) -> Deferred[dict[CommandState, int]]:
        return self._engine.ask(commands.batch_states, batch_id)

    def refusals(
        self,
        *,
        agent_id: str | None = None,
        address: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Deferred[list[RefusalRecord]]:
        return self._engine.ask(logs.refusals, agent_id, address, limit, before)

    def own_refusals(self, since_ms: int) -> Deferred[list[RefusalRecord]]:
        return self._engine.ask(logs.own_refusals, since_ms)

    def audit_entries(
        self, *, limit: int = 100, before: int | None = None, max_bytes: int = PAGE_BYTES
    ) -> Deferred[Page[AuditRecord, int]]:
        return self._engine.ask(audit.entries, limit, before, max_bytes)

    def verify_audit(self) -> Deferred[tuple[int, int | None]]:
        return self._engine.verify_audit()

    def api_tokens(self) -> Deferred[list[APITokenRecord]]:
        return self._engine.look_up(tokens.api_tokens, self._now_ms())

    def join_tokens(self) -> Deferred[list[JoinTokenRecord]]:
        return self._engine.look_up(tokens.join_tokens, self._now_ms())

    def join_token(self, digest: bytes) -> Deferred[JoinTokenRecord | None]:
        return self._engine.look_up(tokens.join_token, digest, self._now_ms())

    # Changes that somebody waits for.

    def add_agent(self, agent: AgentRecord, secret: SecretRecord | None) -> Deferred[None]:
        return self._engine.alter(agents.add, agent, secret)

    def replace_secrets(self, agent_id: str, secrets: Sequence[SecretRecord]) -> Deferred[None]:
        return self._engine.alter(agents.replace_secrets, agent_id, secrets)

    def revoke_agent(self, agent_id: str, revoked_ms: int | None) -> Deferred[None]:
        return self._engine.alter(agents.revoke, agent_id, revoked_ms)

    def put_api_token(self, token: APITokenRecord) -> Deferred[None]:
        return self._engine.alter(tokens.put_api_token, token)

    def delete_api_token(self, token_id: str) -> Deferred[bool]:
        return self._engine.alter(tokens.delete_api_token, token_id)

    def put_join_token(self, token: JoinTokenRecord) -> Deferred[None]:
        return self._engine.alter(tokens.put_join_token, token)

    def delete_join_token(self, token_id: str) -> Deferred[bool]:
        return self._engine.alter(tokens.delete_join_token, token_id)

    def use_join_token(self, digest: bytes, now_ms: int) -> Deferred[JoinTokenRecord | None]:
        return self._engine.alter(tokens.use_join_token, digest, now_ms)

    def backup(self, path: str) -> Deferred[int]:
        return self._engine.backup(path)
