"""What the hub remembers, as values: one for each kind of row in its store.

Times are Unix milliseconds, by the hub's clock unless a member says otherwise. Nothing here does
anything, and no value holds a secret in clear.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["viewer", "operator", "admin"]

#: From the weakest to the strongest: each may do what those before it may.
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")

CommandState = Literal["queued", "sent", "done", "failed", "timeout", "expired", "lost"]

Resolution = Literal["raw", "1m", "1h"]


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One agent that is known, whether it is here or not."""

    agent_id: str
    created_ms: int
    #: It has no secret of its own: it came with the shared one of the legacy mode.
    legacy: bool = False
    revoked_ms: int | None = None
    #: What it last said of itself, and from where; "" before its first session.
    hostname: str = ""
    version: str = ""
    capabilities: tuple[str, ...] = ()
    address: str = ""
    last_seen_ms: int | None = None
    #: No message with a `ts` up to this one may count any more (`ReplayGuard`).
    replay_floor_ms: int | None = None


class SecretRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One of an agent's secrets, encrypted (`hub/vault.py`)."""

    agent_id: str
    sealed: bytes
    created_ms: int
    #: When it stops being valid; None: until it is replaced.
    expires_ms: int | None = None

    def __repr__(self) -> str:
        return f"<SecretRecord of {self.agent_id}>"


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    session_id: int
    agent_id: str
    peer: str
    hostname: str
    version: str
    started_ms: int
    #: None while it lasts.
    ended_ms: int | None = None
    #: How it ended, in words for a person.
    ending: str | None = None
    #: Messages that verified, and messages refused.
    messages: int = 0
    refused: int = 0


class Reading(msgspec.Struct, frozen=True):
    """One percentage over a span of time."""

    avg: float
    min: float
    max: float


class MetricsPoint(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The readings of one span, or one message's where the resolution is raw."""

    #: Where the span begins, by the hub's clock.
    ts: int
    #: Messages in it.
    count: int
    cpu_percent: Reading | None = None
    mem_percent: Reading | None = None
    disk_usage: Reading | None = None


class MetricsSeries(msgspec.Struct, frozen=True, kw_only=True):
    resolution: Resolution
    #: Milliseconds that one point covers; 0 for raw.
    step_ms: int
    points: tuple[MetricsPoint, ...]


class LogRecord(msgspec.Struct, frozen=True, kw_only=True):
    log_id: int
    agent_id: str
    #: By the agent's clock, as signed.
    ts: int
    received_ms: int
    level: str
    message: str
    source: str | None = None
    #: The JSON text of the payload's `event`, where there was one.
    event: str | None = None


class CommandRecord(msgspec.Struct, frozen=True, kw_only=True):
    #: Random, URL-safe.
    command_id: str
    agent_id: str
    command: str
    args: dict[str, str]
    #: Who asked: the name of an API token.
    who: str
    state: CommandState
    created_ms: int
    sent_ms: int | None = None
    ended_ms: int | None = None
    #: Until when a queued one waits for its agent.
    expires_ms: int | None = None
    result: str | None = None
    error: str | None = None
    #: The JSON text of `details`, where there was any.
    details: str | None = None
    #: The id of the command for many agents that it is a part of.
    batch_id: str | None = None
    #: How long its agent has for an answer, from when it is sent.
    timeout_seconds: float = 30.0


class RefusalRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Why a message or a connection was not accepted."""

    ts_ms: int
    #: As claimed: nothing proves it. None where nobody said.
    agent_id: str | None
    #: The IP address, without the port.
    address: str
    #: The machine name, as the peer was told: ``invalid_signature``.
    reason: str
    #: For a person: which check failed, and what came closest.
    words: str
    #: Whether it says how the agent is: it was signed by it, or came from where it was last, and
    #: is about more than one message.
    own: bool = False
    #: How far the agent's clock was ahead, where it was refused for its time.
    skew_ms: int | None = None
    refusal_id: int = 0


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the audit trail, chained to the one before by `hash`."""

    audit_id: int
    ts_ms: int
    who: str
    #: Dotted: ``agent.add``, ``agent.rotate``, ``command.send``, ``token.create``.
    action: str
    subject: str
    #: JSON text of an object; never a secret.
    details: str
    #: SHA-256, hexadecimal, of the entry before and of this one.
    previous: str
    hash: str


class APITokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    token_id: str
    name: str
    role: Role
    #: SHA-256 of the token; the token itself is kept nowhere.
    digest: bytes
    created_ms: int
    expires_ms: int | None = None
    last_used_ms: int | None = None


class JoinTokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    token_id: str
    digest: bytes
    who: str
    created_ms: int
    expires_ms: int
    uses_left: int
