"""A `Store` that is a few lists, and fails when it is told to."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail, succeed

from jetcamer.hub.records import (
    AgentRecord,
    APITokenRecord,
    AuditRecord,
    CommandRecord,
    JoinTokenRecord,
    LogRecord,
    MetricsSeries,
    RefusalRecord,
    SecretRecord,
    SessionRecord,
)
from jetcamer.hub.store.interface import ConflictError, Page, StoreError, StoreHealth


class MemoryStore:
    """Answers at once. Lists are kept oldest first and given newest first."""

    def __init__(self) -> None:
        self.failing: StoreError | None = None
        self.state = StoreHealth(ok=True, lag=0.25, waiting=3, lost=1, size=4096)
        self.agent_records: list[AgentRecord] = []
        self.secret_records: list[SecretRecord] = []
        self.log_records: list[LogRecord] = []
        self.session_records: list[SessionRecord] = []
        self.command_records: dict[str, CommandRecord] = {}
        self.refusal_records: list[RefusalRecord] = []
        self.audit_records: list[AuditRecord] = []
        self.tokens: dict[str, APITokenRecord] = {}
        self.join: dict[str, JoinTokenRecord] = {}
        self.series = MetricsSeries(resolution="raw", step_ms=0, points=())
        #: (name, arguments) of the questions that tests look at.
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.token_writes = 0
        self.flushes = 0
        #: An answer that the test gives itself.
        self.pending: Deferred[Any] | None = None
        #: A page of log messages that is shorter than what there is.
        self.ended_early: Page[LogRecord, int] | None = None

    def _answer(self, value: Any) -> Deferred[Any]:
        if self.failing is not None:
            return fail(self.failing)
        if self.pending is not None:
            return self.pending
        return succeed(value)

    def health(self) -> StoreHealth:
        return self.state

    def flush(self) -> Deferred[None]:
        self.flushes += 1
        return self._answer(None)

    def audit(self, who: str, action: str, subject: str, details: Mapping[str, object]) -> None:
        previous = self.audit_records[-1].hash if self.audit_records else "0" * 64
        text = json.dumps(details)
        self.audit_records.append(
            AuditRecord(
                audit_id=len(self.audit_records) + 1,
                ts_ms=1,
                who=who,
                action=action,
                subject=subject,
                details=text,
                previous=previous,
                hash=hashlib.sha256((previous + text).encode()).hexdigest(),
            )
        )

    def audited(self) -> list[tuple[str, str, str]]:
        return [(entry.who, entry.action, entry.subject) for entry in self.audit_records]

    def put_command(self, command: CommandRecord) -> None:
        self.command_records[command.command_id] = command

    def agents(self) -> Deferred[list[AgentRecord]]:
        return self._answer(self.agent_records)

    def secrets(self) -> Deferred[list[SecretRecord]]:
        return self._answer(self.secret_records)

    def add_agent(self, agent: AgentRecord, secret: SecretRecord | None) -> Deferred[None]:
        if any(known.agent_id == agent.agent_id for known in self.agent_records):
            return fail(ConflictError("known"))
        self.agent_records.append(agent)
        if secret is not None:
            self.secret_records.append(secret)
        return self._answer(None)

    def replace_secrets(self, agent_id: str, secrets: Sequence[SecretRecord]) -> Deferred[None]:
        others = [each for each in self.secret_records if each.agent_id != agent_id]
        self.secret_records = [*others, *secrets]
        return self._answer(None)

    def revoke_agent(self, agent_id: str, revoked_ms: int | None) -> Deferred[None]:
        return self._answer(None)

    def metrics(
        self, agent_id: str, from_ms: int, to_ms: int, points: int
    ) -> Deferred[MetricsSeries]:
        self.asked.append(
            ("metrics", {"agent": agent_id, "from": from_ms, "to": to_ms, "points": points})
        )
        return self._answer(self.series)

    def logs(self, agent_id: str, **filters: Any) -> Deferred[Page[LogRecord, int]]:
        self.asked.append(("logs", filters))
        rows = [row for row in self.log_records if row.agent_id == agent_id]
        paged = _paged(rows, filters, "log_id")
        return self._answer(paged if self.ended_early is None else self.ended_early)

    def sessions(self, agent_id: str, **page: Any) -> Deferred[list[SessionRecord]]:
        rows = [row for row in self.session_records if row.agent_id == agent_id]
        return self._answer(_page(rows, page, "session_id"))

    def commands(
        self, agent_id: str | None, *, limit: int = 100, before: str | None = None
    ) -> Deferred[Page[CommandRecord, str]]:
        rows = [
            row
            for row in reversed(self.command_records.values())
            if agent_id in (None, row.agent_id)
        ]
        return self._answer(_following(rows, limit, before))

    def command(self, command_id: str) -> Deferred[CommandRecord | None]:
        return self._answer(self.command_records.get(command_id))

    def batch(
        self, batch_id: str, *, limit: int = 1000, after: str | None = None
    ) -> Deferred[Page[CommandRecord, str]]:
        rows = [row for row in self.command_records.values() if row.batch_id == batch_id]
        return self._answer(_following(rows, limit, after))

    def batch_states(self, batch_id: str) -> Deferred[dict[str, int]]:
        rows = [row for row in self.command_records.values() if row.batch_id == batch_id]
        return self._answer(dict(Counter(row.state for row in rows)))

    def refusals(
        self, *, agent_id: str | None = None, address: str | None = None, **page: Any
    ) -> Deferred[list[RefusalRecord]]:
        rows = [
            row
            for row in self.refusal_records
            if agent_id in (None, row.agent_id) and address in (None, row.address)
        ]
        return self._answer(_page(rows, page, "refusal_id"))

    def audit_entries(self, **page: Any) -> Deferred[Page[AuditRecord, int]]:
        return self._answer(_paged(self.audit_records, page, "audit_id"))

    def verify_audit(self) -> Deferred[tuple[int, int | None]]:
        return self._answer((len(self.audit_records), None))

    def api_tokens(self) -> Deferred[list[APITokenRecord]]:
        return self._answer([*self.tokens.values()])

    def put_api_token(self, token: APITokenRecord) -> Deferred[None]:
        self.token_writes += 1
        if self.failing is None:
            self.tokens[token.token_id] = token
        return self._answer(None)

    def delete_api_token(self, token_id: str) -> Deferred[bool]:
        if self.failing is None:
            self.tokens.pop(token_id, None)
        return self._answer(True)

    def join_tokens(self) -> Deferred[list[JoinTokenRecord]]:
        return self._answer([*self.join.values()])

    def join_token(self, digest: bytes) -> Deferred[JoinTokenRecord | None]:
        found = (token for token in self.join.values() if token.digest == digest)
        return self._answer(next(found, None))

    def put_join_token(self, token: JoinTokenRecord) -> Deferred[None]:
        self.join[token.token_id] = token
        return self._answer(None)

    def delete_join_token(self, token_id: str) -> Deferred[bool]:
        return self._answer(self.join.pop(token_id, None) is not None)

    def use_join_token(self, digest: bytes, now_ms: int) -> Deferred[JoinTokenRecord | None]:
        for token_id, token in self.join.items():
            if token.digest == digest and token.uses_left and token.expires_ms > now_ms:
                self.join[token_id] = replace(token, uses_left=token.uses_left - 1)
                return self._answer(token)
        return self._answer(None)

    def backup(self, path: str) -> Deferred[int]:
        self.asked.append(("backup", {"path": path}))
        return self._answer(12_345)


def _page(rows: Sequence[Any], page: Mapping[str, Any], row_id: str) -> list[Any]:
    before = page.get("before")
    found = [row for row in reversed(rows) if before is None or getattr(row, row_id) < before]
    return found[: page.get("limit", 100)]


def _paged(rows: Sequence[Any], page: Mapping[str, Any], row_id: str) -> Page[Any, int]:
    limit = page.get("limit", 100)
    found = _page(rows, {**page, "limit": limit + 1}, row_id)
    return Page(found[:limit], getattr(found[limit - 1], row_id) if len(found) > limit else None)


def _following(
    rows: Sequence[CommandRecord], limit: int, seen: str | None
) -> Page[CommandRecord, str]:
    ids = [row.command_id for row in rows]
    begin = 0 if seen is None else ids.index(seen) + 1 if seen in ids else len(ids)
    end = begin + limit
    return Page(rows[begin:end], ids[end - 1] if end < len(ids) else None)
