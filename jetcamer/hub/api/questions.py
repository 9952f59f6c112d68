"""What the API is asked, as values: the query or the body of each operation, with its bounds.

Reading happens in `reading.py`; the OpenAPI document is made of these.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from jetcamer.hub.fleet import State
from jetcamer.hub.records import Role

#: Unix milliseconds, and ids of rows: what a double and the database can hold.
Milliseconds = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
RowId = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Text = Annotated[str, Meta(max_length=1024)]
AgentId = Annotated[str, Meta(min_length=1, max_length=256)]
CommandName = Annotated[str, Meta(min_length=1, max_length=256)]
Args = dict[str, str]
#: Seconds.
Timeout = Annotated[float, Meta(gt=0, le=3600)]
QueueTime = Annotated[float, Meta(gt=0, le=30 * 86_400)]
#: Secrets as an operator may bring them.
Secret = Annotated[str, Meta(min_length=1, max_length=1024)]

DAY = 86_400.0


class _Question(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """An object of camelCase members, with no others."""


class Nothing(_Question, frozen=True):
    """No parameter at all."""


class AgentsQuery(_Question, frozen=True):
    state: State | None = None
    #: A part of the id or of the host name, in any case.
    search: Text | None = None
    limit: Limit = 100
    after: Text | None = None


class SeriesQuery(_Question, frozen=True):
    from_ms: Milliseconds | None = msgspec.field(name="from", default=None)
    to_ms: Milliseconds | None = msgspec.field(name="to", default=None)
    points: Annotated[int, Meta(ge=1, le=5000)] = 300


class LogsQuery(_Question, frozen=True):
    #: One or more, with commas between.
    level: Text | None = None
    source: Text | None = None
    contains: Text | None = None
    from_ms: Milliseconds | None = msgspec.field(name="from", default=None)
    to_ms: Milliseconds | None = msgspec.field(name="to", default=None)
    limit: Limit = 100
    before: RowId | None = None


class PageQuery(_Question, frozen=True):
    limit: Limit = 100
    before: RowId | None = None


class RefusalsQuery(_Question, frozen=True):
    address: Text | None = None
    agent_id: Text | None = None
    limit: Limit = 100
    before: RowId | None = None


class CommandsQuery(_Question, frozen=True):
    limit: Limit = 100
    before: Text | None = None


class BatchQuery(_Question, frozen=True):
    commands: bool = False
    #: Of the commands, where they are asked for.
    limit: Limit = 1000
    after: Text | None = None


class EventsQuery(_Question, frozen=True):
    #: With commas between; all where it is not given.
    kinds: Text | None = None
    agents: Annotated[str, Meta(max_length=65_536)] | None = None
    last_event_id: Text | None = None


class CommandBody(_Question, frozen=True):
    command: CommandName
    args: Args = {}
    timeout_seconds: Timeout = 30.0
    #: Hold it for an agent that is away, for so long.
    queue: bool = False
    queue_seconds: QueueTime = DAY


class ManyBody(_Question, frozen=True):
    #: Ids, or all that are here.
    agents: Annotated[list[AgentId], Meta(min_length=1, max_length=10_000)] | Literal["online"]
    command: CommandName
    args: Args = {}
    timeout_seconds: Timeout = 30.0
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 50
    queue: bool = False
    queue_seconds: QueueTime = DAY


class _SecretQuestion(_Question, frozen=True):
    secret: Secret | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class NewAgentBody(_SecretQuestion, frozen=True, kw_only=True):
    agent_id: AgentId


class RotateBody(_SecretQuestion, frozen=True):
    #: How long the old secret stays valid.
    grace_seconds: Annotated[float, Meta(ge=0, le=30 * 86_400)] = DAY


class RestoreBody(_SecretQuestion, frozen=True):
    pass


class NewTokenBody(_Question, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Role
    expires_seconds: Annotated[float, Meta(gt=0, le=10 * 365 * 86_400)] | None = None


class NewJoinTokenBody(_Question, frozen=True):
    expires_seconds: Annotated[float, Meta(gt=0, le=30 * 86_400)] = 3600.0
    uses: Annotated[int, Meta(ge=1, le=100_000)] = 1


class JoinBody(_Question, frozen=True):
    agent_id: AgentId


class FieldCommandBody(msgspec.Struct, frozen=True, kw_only=True):
    """As the hub before this one took it: it ignores what it does not know."""

    command: Annotated[str, Meta(max_length=256)] | None = None
    args: Args | None = None
