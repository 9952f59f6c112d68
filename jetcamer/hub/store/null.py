"""The hub without a database: what it must know to work at all, in memory, until it stops.

In and out: as `Store` says. Agents, secrets and tokens are kept; commands, refusals and the audit
trail up to limits, of number and of memory; sessions, metrics and logs are not kept.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import dropwhile, islice
from operator import attrgetter

import msgspec
from twisted.internet.defer import Deferred, fail, succeed

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
from jetcamer.hub.store import audit
from jetcamer.hub.store.interface import (
    PAGE_BYTES,
    ConflictError,
    Page,
    StoreError,
    StoreHealth,
)
from jetcamer.hub.store.paging import page, weight

MAX_COMMANDS = 5_000
MAX_REFUSALS = 5_000
MAX_AUDIT = 5_000
#: Of memory, for the commands and for the audit trail each.
MAX_BYTES = 32 * 1024 * 1024


class NullStore:
    def __init__(self, *, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._session_id = 0
        self._refusal_id = 0
        self._audit_id = 0
        self._agents: dict[str, AgentRecord] = {}
        self._secrets: dict[str, tuple[SecretRecord, ...]] = {}
        self._commands: OrderedDict[str, CommandRecord] = OrderedDict()
        self._refusals: deque[RefusalRecord] = deque(maxlen=MAX_REFUSALS)
        self._audit: deque[AuditRecord] = deque()
        self._command_bytes = 0
        self._audit_bytes = 0
        self._api_tokens: dict[str, APITokenRecord] = {}
        self._join_tokens: dict[str, JoinTokenRecord] = {}

    # The service.

    #: What a run without a disk leaves behind is nothing, whichever way it ended.
    was_killed = False

    def open(self) -> Deferred[None]:
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)

    def flush(self) -> Deferred[None]:
        return succeed(None)

    def health(self) -> StoreHealth:
        return StoreHealth(ok=True)

    # Facts.

    def session_started(self, agent: AgentRecord, peer: str, started_ms: int) -> int:
        known = self._agents.get(agent.agent_id, agent)
        seen = known.last_seen_ms if agent.last_seen_ms is None else agent.last_seen_ms
        self._agents[agent.agent_id] = msgspec.structs.replace(
            agent,
            created_ms=known.created_ms,
            revoked_ms=known.revoked_ms,
            replay_floor_ms=known.replay_floor_ms,
            last_seen_ms=seen,
        )
        self._session_id += 1
        return self._session_id

    def session_ended(
        self, session_id: int, ended_ms: int, ending: str, messages: int, refused: int
    ) -> None:
        pass

    def sessions_counted(self, sessions: Sequence[tuple[int, int, int]]) -> None:
        pass

    def add_metrics(
        self,
        agent_id: str,
        received_ms: int,
        cpu_percent: float | None,
        mem_percent: float | None,
        disk_usage: float | None,
    ) -> None:
        pass

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
        pass

    def add_refusal(self, refusal: RefusalRecord) -> None:
        self._refusal_id += 1
        self._refusals.append(msgspec.structs.replace(refusal, refusal_id=self._refusal_id))

    def put_command(self, command: CommandRecord) -> None:
        before = self._commands.get(command.command_id)
        self._command_bytes += weight(command) - (0 if before is None else weight(before))
        self._commands[command.command_id] = command
        while len(self._commands) > MAX_COMMANDS or (
            self._command_bytes > MAX_BYTES and len(self._commands) > 1
        ):
            # The oldest that is over; where none is, the oldest.
            unfinished = ("queued", "sent")
            over = (each for each in self._commands.values() if each.state not in unfinished)
            oldest = next(over, None) or next(iter(self._commands.values()))
            del self._commands[oldest.command_id]
            self._command_bytes -= weight(oldest)

    def seen(self, agents: Sequence[tuple[str, int, int]]) -> None:
        for agent_id, last_seen, floor in agents:
            known = self._agents.get(agent_id)
            if known is not None:
                self._agents[agent_id] = msgspec.structs.replace(
                    known, last_seen_ms=last_seen, replay_floor_ms=floor
                )

    def audit(self, who: str, action: str, subject: str, details: Mapping[str, object]) -> None:
        previous = self._audit[-1].hash if self._audit else audit.ORIGIN
        self._audit_id += 1
        text = audit.canonical_details(details)
        entry = audit.chain(self._audit_id, self._now_ms(), who, action, subject, text, previous)
        self._audit.append(entry)
        self._audit_bytes += weight(entry)
        while len(self._audit) > MAX_AUDIT or (
            self._audit_bytes > MAX_BYTES and len(self._audit) > 1
        ):
            self._audit_bytes -= weight(self._audit.popleft())

    # Questions.

    def agents(self) -> Deferred[list[AgentRecord]]:
        return succeed([self._agents[agent_id] for agent_id in sorted(self._agents)])

    def secrets(self) -> Deferred[list[SecretRecord]]:
        now = self._now_ms()
        valid = [
            secret
            for secrets in self._secrets.values()
            for secret in reversed(secrets)
            if secret.expires_ms is None or secret.expires_ms > now
        ]
        return succeed(sorted(valid, key=lambda secret: -secret.created_ms))

    def add_agent(self, agent: AgentRecord, secret: SecretRecord | None) -> Deferred[None]:
        if agent.agent_id in self._agents:
            return fail(ConflictError(f"the agent {agent.agent_id!r} is known already"))
        self._agents[agent.agent_id] = agent
        if secret is not None:
            self._secrets[agent.agent_id] = (secret,)
        return succeed(None)

    def replace_secrets(self, agent_id: str, secrets: Sequence[SecretRecord]) -> Deferred[None]:
        if agent_id not in self._agents:
            return fail(StoreError(f"there is no agent {agent_id!r}"))
        self._secrets[agent_id] = tuple(secrets)
        return succeed(None)

    def revoke_agent(self, agent_id: str, revoked_ms: int | None) -> Deferred[None]:
        known = self._agents.get(agent_id)
        if known is None:
            return fail(StoreError(f"there is no agent {agent_id!r}"))
        self._agents[agent_id] = msgspec.structs.replace(known, revoked_ms=revoked_ms)
        if revoked_ms is not None:
            self._secrets.pop(agent_id, None)
        return succeed(None)

    def metrics(
        self, agent_id: str, from_ms: int, to_ms: int, points: int
    ) -> Deferred[MetricsSeries]:
        return succeed(MetricsSeries(resolution="raw", step_ms=0, points=()))

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
        return succeed(Page())

    def sessions(
        self, agent_id: str, *, limit: int = 100, before: int | None = None
    ) -> Deferred[list[SessionRecord]]:
        return succeed([])

    def commands(
        self,
        agent_id: str | None,
        *,
        limit: int = 100,
        before: str | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Deferred[Page[CommandRecord, str]]:
        found: Iterable[CommandRecord] = reversed(self._by_time())
        if before is not None:
            found = _beyond(found, before)
        matching = (each for each in found if agent_id in (None, each.agent_id))
        return succeed(page(matching, limit, max_bytes, _COMMAND_ID))

    def command(self, command_id: str) -> Deferred[CommandRecord | None]:
        return succeed(self._commands.get(command_id))

    def unfinished_commands(self) -> Deferred[list[CommandRecord]]:
        found = self._by_time()
        return succeed([each for each in found if each.state in ("queued", "sent")])

    def batch(
        self,
        batch_id: str,
        *,
        limit: int = 1_000,
        after: str | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> Deferred[Page[CommandRecord, str]]:
        found: Iterable[CommandRecord] = self._by_time()
        if after is not None:
            found = _beyond(found, after)
        matching = (each for each in found if each.batch_id == batch_id)
        return succeed(page(matching, limit, max_bytes, _COMMAND_ID))

    def batch_states(self, batch_id: str) -> Deferred[dict[CommandState, int]]:
        found = self._commands.values()
        return succeed(dict(Counter(each.state for each in found if each.batch_id == batch_id)))

    def _by_time(self) -> list[CommandRecord]:
        """Those made in the same millisecond in the order they came."""
        return sorted(self._commands.values(), key=attrgetter("created_ms"))

    def refusals(
        self,
        *,
        agent_id: str | None = None,
        address: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> Deferred[list[RefusalRecord]]:
        matching = (
            each
            for each in reversed(self._refusals)
            if agent_id in (None, each.agent_id)
            and address in (None, each.address)
            and (before is None or each.refusal_id < before)
        )
        return succeed(list(islice(matching, limit)))

    def own_refusals(self, since_ms: int) -> Deferred[list[RefusalRecord]]:
        return succeed([])

    def audit_entries(
        self, *, limit: int = 100, before: int | None = None, max_bytes: int = PAGE_BYTES
    ) -> Deferred[Page[AuditRecord, int]]:
        older = (e for e in reversed(self._audit) if before is None or e.audit_id < before)
        return succeed(page(older, limit, max_bytes, attrgetter("audit_id")))

    def verify_audit(self) -> Deferred[tuple[int, int | None]]:
        verified, previous = 0, self._audit[0].previous if self._audit else audit.ORIGIN
        for entry in self._audit:
            if not audit.is_right(entry, entry.audit_id, previous):
                return succeed((verified, entry.audit_id))
            verified, previous = verified + 1, entry.hash
        return succeed((verified, None))

    def api_tokens(self) -> Deferred[list[APITokenRecord]]:
        self._forget_tokens()
        tokens = reversed(self._api_tokens.values())
        return succeed(sorted(tokens, key=lambda token: -token.created_ms))

    def put_api_token(self, token: APITokenRecord) -> Deferred[None]:
        self._forget_tokens()
        self._api_tokens[token.token_id] = token
        return succeed(None)

    def delete_api_token(self, token_id: str) -> Deferred[bool]:
        return succeed(self._api_tokens.pop(token_id, None) is not None)

    def join_tokens(self) -> Deferred[list[JoinTokenRecord]]:
        self._forget_tokens()
        tokens = reversed(self._join_tokens.values())
        return succeed(sorted(tokens, key=lambda token: -token.created_ms))

    def join_token(self, digest: bytes) -> Deferred[JoinTokenRecord | None]:
        return succeed(self._valid_join_token(digest, self._now_ms()))

    def put_join_token(self, token: JoinTokenRecord) -> Deferred[None]:
        self._forget_tokens()
        self._join_tokens[token.token_id] = token
        return succeed(None)

    def delete_join_token(self, token_id: str) -> Deferred[bool]:
        return succeed(self._join_tokens.pop(token_id, None) is not None)

    def use_join_token(self, digest: bytes, now_ms: int) -> Deferred[JoinTokenRecord | None]:
        token = self._valid_join_token(digest, now_ms)
        if token is None:
            return succeed(None)
        used = msgspec.structs.replace(token, uses_left=token.uses_left - 1)
        self._join_tokens[token.token_id] = used
        return succeed(used)

    def _valid_join_token(self, digest: bytes, now_ms: int) -> JoinTokenRecord | None:
        for token in self._join_tokens.values():
            if token.digest == digest and _is_valid(token, now_ms):
                return token
        return None

    def _forget_tokens(self) -> None:
        """Those that are not valid any more."""
        now = self._now_ms()
        for api_token in [*self._api_tokens.values()]:
            if api_token.expires_ms is not None and api_token.expires_ms <= now:
                del self._api_tokens[api_token.token_id]
        for join_token in [*self._join_tokens.values()]:
            if not _is_valid(join_token, now):
                del self._join_tokens[join_token.token_id]

    def backup(self, path: str) -> Deferred[int]:
        return fail(StoreError("there is no database to back up: the store is off"))


_COMMAND_ID: Callable[[CommandRecord], str] = attrgetter("command_id")


def _beyond(commands: Iterable[CommandRecord], command_id: str) -> Iterable[CommandRecord]:
    """Those after the one with this id; none where it is gone."""
    return islice(dropwhile(lambda each: each.command_id != command_id, commands), 1, None)


def _is_valid(token: JoinTokenRecord, now_ms: int) -> bool:
    return token.uses_left > 0 and token.expires_ms > now_ms
