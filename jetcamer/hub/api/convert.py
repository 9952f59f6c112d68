"""Records and agents → the values of `answers.py`, and pages of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from jetcamer.hub import fleet, records
from jetcamer.hub.api import answers

R = TypeVar("R")


def agent_members(agent: fleet.Agent, now_ms: int) -> dict[str, object]:
    """The arguments of `answers.Agent`."""
    state, words = agent.state(now_ms)
    reading = agent.metrics
    return {
        "agent_id": agent.agent_id,
        "state": state,
        "words": words,
        "hostname": agent.hostname,
        "version": agent.version,
        "capabilities": agent.capabilities,
        "address": agent.address,
        "connected_at": agent.connected_ms,
        "last_seen": agent.last_seen_ms,
        "clock_skew_ms": agent.skew_ms,
        "legacy": agent.legacy,
        "created_at": agent.created_ms,
        "metrics": None
        if reading is None
        else answers.LatestMetrics(
            cpu_percent=reading.cpu_percent,
            mem_percent=reading.mem_percent,
            disk_usage=reading.disk_usage,
            ts=agent.metrics_ms or 0,
        ),
    }


def refusal(record: records.RefusalRecord) -> answers.Refusal:
    return answers.Refusal(
        ts=record.ts_ms,
        agent_id=record.agent_id,
        address=record.address,
        reason=record.reason,
        words=record.words,
    )


def log(record: records.LogRecord) -> answers.Log:
    return answers.Log(
        id=record.log_id,
        ts=record.ts,
        received_at=record.received_ms,
        level=record.level,
        message=record.message,
        source=record.source,
        event=_json(record.event),
    )


def session(record: records.SessionRecord) -> answers.Session:
    return answers.Session(
        id=record.session_id,
        peer=record.peer,
        hostname=record.hostname,
        version=record.version,
        started_at=record.started_ms,
        ended_at=record.ended_ms,
        ending=record.ending,
        messages=record.messages,
        refused=record.refused,
    )


def command(record: records.CommandRecord) -> answers.Command:
    took = (
        None
        if record.sent_ms is None or record.ended_ms is None
        else max(0, record.ended_ms - record.sent_ms)
    )
    return answers.Command(
        id=record.command_id,
        agent_id=record.agent_id,
        command=record.command,
        args=record.args,
        who=record.who,
        state=record.state,
        created_at=record.created_ms,
        sent_at=record.sent_ms,
        ended_at=record.ended_ms,
        milliseconds=took,
        expires_at=record.expires_ms,
        result=record.result,
        error=record.error,
        details=_json(record.details),
        batch_id=record.batch_id,
    )


def token(record: records.APITokenRecord) -> answers.Token:
    return answers.Token(
        id=record.token_id,
        name=record.name,
        role=record.role,
        created_at=record.created_ms,
        expires_at=record.expires_ms,
        last_used=record.last_used_ms,
    )


def join_token(record: records.JoinTokenRecord) -> answers.JoinToken:
    return answers.JoinToken(
        id=record.token_id,
        who=record.who,
        created_at=record.created_ms,
        expires_at=record.expires_ms,
        uses_left=record.uses_left,
    )


def audit_entry(record: records.AuditRecord) -> answers.AuditEntry:
    return answers.AuditEntry(
        id=record.audit_id,
        ts=record.ts_ms,
        who=record.who,
        action=record.action,
        subject=record.subject,
        details=_json(record.details),
        previous=record.previous,
        hash=record.hash,
    )


def page(
    rows: Sequence[R], limit: int, row_id: Callable[[R], int]
) -> tuple[Sequence[R], int | None]:
    """The rows to show, and the cursor of the page that follows. `rows` are one more than `limit`
    where there is more."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], row_id(rows[limit - 1])


def page_by_time(
    rows: Sequence[R], limit: int, time_of: Callable[[R], int]
) -> tuple[Sequence[R], int | None]:
    """The same where the cursor is a time, which several rows may share: they stay together."""
    if len(rows) <= limit:
        return rows, None
    beyond = time_of(rows[limit])
    shown = [row for row in rows[:limit] if time_of(row) > beyond] or rows[:limit]
    return shown, time_of(shown[-1])


def _json(text: str | None) -> msgspec.Raw:
    return answers.NULL if not text else msgspec.Raw(text.encode("utf-8", "replace"))
