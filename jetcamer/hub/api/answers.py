"""What the API says, as values: one for each shape of answer. Times are Unix milliseconds.

The OpenAPI document is made of these, so the comments below are for its readers too. None of them
holds a secret but those whose names say that they are new.
"""

from __future__ import annotations

import msgspec

from jetcamer.hub.fleet import State
from jetcamer.hub.records import CommandState, MetricsPoint, Resolution, Role

#: Any JSON value, given on as the text it was stored as.
JSON = msgspec.Raw
NULL = msgspec.Raw(b"null")


class _Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An object of camelCase members."""


class _Secret(_Answer, frozen=True):
    """One that holds something its repr must not show."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Error(_Answer, frozen=True):
    """Why a request was refused, in one line."""

    error: str


class Readiness(_Answer, frozen=True):
    """Whether the hub takes agents."""

    ready: bool
    why: str | msgspec.UnsetType = msgspec.UNSET


class StoreStatus(_Answer, frozen=True):
    """How the database is."""

    ok: bool
    words: str | None
    lag_seconds: float
    waiting: int
    lost: int
    size: int


class Status(_Answer, frozen=True):
    """How the hub is."""

    version: str
    started_at: int
    ready: bool
    why: str | None
    draining: bool
    connections: int
    agents_online: int
    agents_known: int
    messages: int
    refusals: dict[str, int]
    #: Addresses whose agents are not let in for a while.
    banned_addresses: int
    store: StoreStatus
    reactor_lag_seconds: float


class LatestMetrics(_Answer, frozen=True):
    """An agent's latest metrics, in percent."""

    cpu_percent: float | None
    mem_percent: float | None
    disk_usage: float | None
    ts: int


class Agent(_Answer, frozen=True):
    """One agent that is known, whether it is here or not."""

    agent_id: str
    state: State
    words: str
    hostname: str
    version: str
    capabilities: tuple[str, ...]
    address: str
    connected_at: int | None
    last_seen: int | None
    clock_skew_ms: int | None
    legacy: bool
    created_at: int
    #: Until when an old secret is valid beside the new one; null: there is no old one.
    old_secret_until: int | None
    #: Whether the last message of its connection was signed with an old one; null: it is not here,
    #: or there is no old one.
    old_secret_used: bool | None
    metrics: LatestMetrics | None


class Refusal(_Answer, frozen=True):
    """Why a message or a connection was not accepted. The agent's id is only claimed."""

    ts: int
    agent_id: str | None
    address: str
    reason: str
    words: str


class AgentDetails(Agent, frozen=True):
    """One agent, and what stands out about it."""

    last_refusal: Refusal | None
    queued_commands: int


class Agents(_Answer, frozen=True):
    """A page of agents, by id; `next` is the `after` of the page that follows."""

    agents: tuple[Agent, ...]
    next: str | None


class NewAgentConfig(_Secret, frozen=True):
    """The members that go into the agent's configuration file."""

    ws_api_url: str
    ws_secret: str
    instance_id: str


class NewAgent(_Secret, frozen=True):
    """An agent that was added; its secret is not shown again."""

    agent_id: str
    secret: str
    ws_api_url: str
    config: NewAgentConfig


class NewSecret(_Secret, frozen=True):
    """An agent's new secret, which is not shown again."""

    agent_id: str
    secret: str
    old_valid_until: int
    config: NewAgentConfig


class JoinedAgent(_Secret, frozen=True):
    """What a machine that has joined needs; its secret is not shown again."""

    agent_id: str
    secret: str
    ws_api_url: str


class Revoked(_Answer, frozen=True):
    """The agent's messages are not accepted any more."""

    agent_id: str
    revoked: bool


class Series(_Answer, frozen=True):
    """An agent's metrics over a range of time."""

    agent_id: str
    resolution: Resolution
    step_ms: int
    from_ms: int = msgspec.field(name="from")
    to_ms: int = msgspec.field(name="to")
    points: tuple[MetricsPoint, ...]


class Log(_Answer, frozen=True):
    """One log message; `event` is whatever the agent sent beside it."""

    id: int
    ts: int
    received_at: int
    level: str
    message: str
    source: str | None
    event: JSON


class Logs(_Answer, frozen=True):
    """A page, newest first; `next` is the `before` of the page that follows. A search ends a page
    where it has looked through enough: it may be empty, and still have a `next`."""

    logs: tuple[Log, ...]
    next: int | None


class Session(_Answer, frozen=True):
    """One connection of an agent, and how it ended."""

    id: int
    peer: str
    hostname: str
    version: str
    started_at: int
    ended_at: int | None
    ending: str | None
    messages: int
    refused: int


class Sessions(_Answer, frozen=True):
    """A page, newest first; `next` is the `before` of the page that follows."""

    sessions: tuple[Session, ...]
    next: int | None


class Ban(_Answer, frozen=True):
    """An address that sent what no agent of ours sends: new connections from it are refused. An
    IPv6 address stands for its network of 64 bits."""

    address: str
    seconds_left: float
    #: Since it last kept quiet.
    offences: int


class Bans(_Answer, frozen=True):
    """Every address that is banned now, the longest first."""

    bans: tuple[Ban, ...]


class LiftedBan(_Answer, frozen=True):
    """The address may come again at once."""

    address: str
    lifted: bool


class Refusals(_Answer, frozen=True):
    """A page, newest first; `next` is the `before` of the page that follows."""

    refusals: tuple[Refusal, ...]
    next: int | None


class Command(_Answer, frozen=True):
    """A command for one agent, and what became of it."""

    id: str
    agent_id: str
    command: str
    args: dict[str, str]
    who: str
    state: CommandState
    created_at: int
    sent_at: int | None
    ended_at: int | None
    milliseconds: int | None
    expires_at: int | None
    result: str | None
    error: str | None
    details: JSON
    batch_id: str | None


class CommandFailure(_Answer, frozen=True):
    """A command that was sent and has no answer."""

    error: str
    command: Command


class Commands(_Answer, frozen=True):
    """A page, newest first; `next` is the `before` of the page that follows."""

    commands: tuple[Command, ...]
    next: str | None


class Batch(_Answer, frozen=True):
    """How far a command for many agents is. Where its commands were asked for, a page of them,
    oldest first; `next` is the `after` of the page that follows."""

    batch_id: str
    total: int
    done: int
    failed: int
    waiting: int
    finished: bool
    commands: tuple[Command, ...] | msgspec.UnsetType = msgspec.UNSET
    next: str | msgspec.UnsetType | None = msgspec.UNSET


class AuditEntry(_Answer, frozen=True):
    """One change, chained to the one before by its hash."""

    id: int
    ts: int
    who: str
    action: str
    subject: str
    details: JSON
    previous: str
    hash: str


class AuditTrail(_Answer, frozen=True):
    """A page, newest first; `next` is the `before` of the page that follows."""

    entries: tuple[AuditEntry, ...]
    next: int | None


class Verification(_Answer, frozen=True):
    """How many entries of the audit trail are as they were written."""

    verified: int
    first_wrong: int | None


class Token(_Answer, frozen=True):
    """An API token, without the token itself."""

    id: str
    name: str
    role: Role
    created_at: int
    expires_at: int | None
    last_used: int | None


class Tokens(_Answer, frozen=True):
    tokens: tuple[Token, ...]


class NewToken(Token, _Secret, frozen=True):
    """A token that was made; it is not shown again."""

    token: str


class JoinToken(_Answer, frozen=True):
    """A token that machines may join with, without the token itself."""

    id: str
    who: str
    created_at: int
    expires_at: int
    uses_left: int


class JoinTokens(_Answer, frozen=True):
    tokens: tuple[JoinToken, ...]


class NewJoinToken(_Secret, frozen=True):
    """A token that was made; it is not shown again."""

    id: str
    token: str
    expires_at: int
    uses_left: int


class Deleted(_Answer, frozen=True):
    id: str
    deleted: bool


class BackupMade(_Answer, frozen=True):
    """Where the copy of the database is, on the hub's machine, and its bytes."""

    path: str
    size: int
