"""The one interface to the hub's database.

In: facts to remember, without waiting; questions. Out: a Deferred for each answer. Facts reach
the disk together, within a second, in the order they came. An implementation never blocks the
reactor and never raises for a disk that fails: it says so in `health`, keeps what it can in memory
and counts what it cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
from twisted.internet.defer import Deferred

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

R = TypeVar("R")
C = TypeVar("C")

#: Bytes of memory that the rows of one page take, where nothing else is asked for.
PAGE_BYTES = 4 * 1024 * 1024


class StoreError(Exception):
    """The database cannot do what it was asked; str() is one line for a person."""


class ConflictError(StoreError):
    """What was to be made is there already."""


class Page(list[R], Generic[R, C]):
    """Rows, and the cursor that the page after them is asked with.

    A page ends early where its rows would take more than `max_bytes` of memory, and where enough
    was looked through: so it may have fewer rows than asked for, even none, and only `next` says
    whether there may be more. Of rows that are too large one comes all the same, alone.
    """

    __slots__ = ("next",)

    def __init__(self, rows: Iterable[R] = (), following: C | None = None) -> None:
        super().__init__(rows)
        #: None: there is nothing more.
        self.next = following


class StoreHealth(msgspec.Struct, frozen=True, kw_only=True):
    #: Whether the last write succeeded.
    ok: bool
    #: What is wrong, in words for a person; None while `ok`.
    words: str | None = None
    #: Seconds that the oldest fact not yet on disk has waited.
    lag: float = 0.0
    #: Facts that wait, facts given up since the start.
    waiting: int = 0
    lost: int = 0
    #: Bytes on disk; 0 where there is no file.
    size: int = 0


class Audit(Protocol):
    """Where everything an operator changes is written down."""

    def audit(self, who: str, action: str, subject: str, details: Mapping[str, object]) -> None:
        """Add an entry to the audit trail. `details` hold no secret."""


class Store(Audit, Protocol):
    # The service.

    def open(self) -> Deferred[None]:
        """Open and migrate. Fails with `StoreError`."""

    @property
    def was_killed(self) -> bool:
        """Whether the run before this one did not end in order, so that what came in its last
        second may be missing. Once it is open."""

    def close(self) -> Deferred[None]:
        """Write all that waits and close."""

    def flush(self) -> Deferred[None]:
        """Fires when everything given so far is on disk, or has been counted as lost. Fails with
        `StoreError` when the write fails: the facts wait on, and are tried again."""

    def health(self) -> StoreHealth: ...

    # Facts. These return at once.

    def session_started(self, agent: AgentRecord, peer: str, started_ms: int) -> int:
        """Remember a session, and its agent as `agent` says; returns the session's new id."""

    def session_ended(
        self, session_id: int, ended_ms: int, ending: str, messages: int, refused: int
    ) -> None: ...

    def sessions_counted(self, sessions: Sequence[tuple[int, int, int]]) -> None:
        """(session id, messages, refused) of sessions that last."""

    def add_metrics(
        self,
        agent_id: str,
        received_ms: int,
        cpu_percent: float | None,
        mem_percent: float | None,
        disk_usage: float | None,
    ) -> None: ...

    def add_log(
        self,
        agent_id: str,
        received_ms: int,
        ts: int,
        level: str,
        message: str,
        source: str | None,
        event: str | None,
    ) -> None: ...

    def add_refusal(self, refusal: RefusalRecord) -> None: ...

    def put_command(self, command: CommandRecord) -> None:
        """Insert, or replace the one with this id."""

    def seen(self, agents: Sequence[tuple[str, int, int]]) -> None:
        """(agent id, last seen, replay floor), of agents that were heard since the last call."""

    # Questions, and changes that somebody waits for. They fail with `StoreError`. Lists come
    # newest first; `before` is the id that the last page ended with, or its `next`. An answer
    # counts what was given before the question, unless the disk is in trouble.

    def agents(self) -> Deferred[list[AgentRecord]]: ...

    def secrets(self) -> Deferred[list[SecretRecord]]:
        """Those still valid, newest first."""

    def add_agent(self, agent: AgentRecord, secret: SecretRecord | None) -> Deferred[None]:
        """Fails with `ConflictError` where the id is known. One that was revoked is known."""

    def replace_secrets(self, agent_id: str, secrets: Sequence[SecretRecord]) -> Deferred[None]:
        """These, and no others, are the agent's secrets from now on."""

    def revoke_agent(self, agent_id: str, revoked_ms: int | None) -> Deferred[None]:
        """Set `revoked_ms` and forget the agent's secrets; None takes a revocation back."""

    def metrics(
        self, agent_id: str, from_ms: int, to_ms: int, points: int
    ) -> Deferred[MetricsSeries]:
        """At most `points` points, in order of time, from the finest resolution that the range
        still has and that the number allows; readings are merged where it does not divide."""

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
        """By the time they were received. With `source` or `contains`, one call looks through so
        many entries and no more: the page's `next` goes on from there."""

    def sessions(
        self, agent_id: str, *, limit: int = 100, before: int | None = None
    ) -> Deferred[list[SessionRecord]]: ...

    def commands(
        self,
        agent_id: str | None,
        *,
        limit: int = 100,
        before: str | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Deferred[Page[CommandRecord, str]]:
        """By the time they were made, in a strict order; None: of all agents. `before` is the
        command id of the last one seen; where that is gone, nothing comes."""

    def command(self, command_id: str) -> Deferred[CommandRecord | None]: ...

    def unfinished_commands(self) -> Deferred[list[CommandRecord]]:
        """Those in the states ``queued`` and ``sent``, oldest first."""

    def batch(
        self,
        batch_id: str,
        *,
        limit: int = 1_000,
        after: str | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Deferred[Page[CommandRecord, str]]:
        """Those of a command for many agents, oldest first; `after` is the command id of the last
        one seen."""

    def batch_states(self, batch_id: str) -> Deferred[dict[CommandState, int]]:
        """How many of its commands are in which state; empty for one that is not known."""

    def refusals(
        self,
        *,
        agent_id: str | None = None,
        address: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Deferred[list[RefusalRecord]]: ...

    def own_refusals(self, since_ms: int) -> Deferred[list[RefusalRecord]]:
        """The last of each agent that is its own (`RefusalRecord.own`), where it came then or
        later, and the agent was not heard since."""

    def audit_entries(
        self, *, limit: int = 100, before: int | None = None, max_bytes: int = PAGE_BYTES
    ) -> Deferred[Page[AuditRecord, int]]: ...

    def verify_audit(self) -> Deferred[tuple[int, int | None]]:
        """(entries that are right, the id of the first that is not or None)."""

    def api_tokens(self) -> Deferred[list[APITokenRecord]]:
        """Those still valid; the others are deleted in time."""

    def put_api_token(self, token: APITokenRecord) -> Deferred[None]: ...

    def delete_api_token(self, token_id: str) -> Deferred[bool]: ...

    def join_tokens(self) -> Deferred[list[JoinTokenRecord]]:
        """Those still valid; the others are deleted in time."""

    def join_token(self, digest: bytes) -> Deferred[JoinTokenRecord | None]:
        """The token of this digest, where it is valid. Takes no use; cheap, however many there
        are."""

    def put_join_token(self, token: JoinTokenRecord) -> Deferred[None]: ...

    def delete_join_token(self, token_id: str) -> Deferred[bool]: ...

    def use_join_token(self, digest: bytes, now_ms: int) -> Deferred[JoinTokenRecord | None]:
        """Take one use of a token that is valid; None where there is none. Atomic."""

    def backup(self, path: str) -> Deferred[int]:
        """A consistent copy at `path`, which must not exist, mode 0600; fires with its size."""
