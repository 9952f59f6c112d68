"""Records and agents → the values of `answers.py`, and pages of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from jetcamer.hub import fleet, records
from jetcamer.hub.api import answers

if TYPE_CHECKING:
    from jetcamer.hub.session import AgentSession

R = TypeVar("R")


def agent_members(
    agent: fleet.Agent, now_ms: int, old_secret_until: int | None
) -> dict[str, object]:
    """The arguments of `answers.Agent`."""
    here = agent.session
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
        "old_secret_until": old_secret_until,
        "old_secret_used": None
        if here is None or old_secret_until is None
        else here.uses_old_secret,
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


def session(record: records.SessionRecord, here: AgentSession | None) -> answers.Session:
    """:param here: the agent's open one, which counts; the record has the counts when it ends."""
    if here is not None and record.ended_ms is None and here.record_id == record.session_id:
        record = replace(record, messages=here.verified, refused=here.refused)
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
        details=_checked_json(record.details),
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


def _checked_json(text: str) -> msgspec.Raw:
    """One that somebody may have changed in the database; what is none is a string."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(text.encode("utf-8", "replace").decode()))
    return _json(text)


def _json(text: str | None) -> msgspec.Raw:
    return answers.NULL if not text else msgspec.Raw(text.encode("utf-8", "replace"))
