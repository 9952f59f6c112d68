"""Who may speak to the hub: agents come, change their secret, and go.

In: what an operator or a joining machine asks for. Out: secrets, each shown once; the store, the
fleet in memory and the audit trail changed alike. The store is changed first: where it fails, its
error goes to the caller and the fleet stays as it was. A revocation alone holds at once, whatever
the disk does. No secret and no token may reach a log line, an error or the audit trail.
"""

from __future__ import annotations

import itertools
import secrets as randomness
from collections.abc import Callable, Sequence
from hashlib import sha256
from math import isfinite

import msgspec
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from jetcamer.hub.enrolment_rules import EnrolmentError, check_agent_id, check_secret
from jetcamer.hub.fleet import Agent, Fleet, after_kill
from jetcamer.hub.records import AgentRecord, JoinTokenRecord, SecretRecord
from jetcamer.hub.store.interface import ConflictError, Store, StoreError
from jetcamer.hub.vault import Vault, VaultError
from jetcamer.protocol.close_codes import POLICY_VIOLATION

__all__ = ["Enrolment", "EnrolmentError"]

log = Logger()

#: Secrets that one agent may have at once.
MAX_SECRETS = 3
MAX_GRACE_SECONDS = 365 * 86_400.0
MAX_TOKEN_SECONDS = 365 * 86_400.0
MAX_TOKEN_USES = 100_000
#: In front of each join token: scanners for leaked secrets know it by that, and no command line
#: takes it for an option.
_TOKEN_PREFIX = "jcj_"  # noqa: S105 - not a token


class Enrolment:
    """Changes are made one after the other. What the store fails with goes to the caller.

    :param close_session: takes an agent id, a close code and a reason.
    :param on_revoked: told which agent is not accepted any more.
    :param legacy_secret: the shared secret of the legacy mode, so that an agent which is given one
        of its own may use both for a while.
    """

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        vault: Vault,
        *,
        now_ms: Callable[[], int],
        close_session: Callable[[str, int, str], None],
        on_revoked: Callable[[str], None] = lambda _agent_id: None,
        legacy_secret: str | None = None,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._vault = vault
        self._now_ms = now_ms
        self._close_session = close_session
        self._on_revoked = on_revoked
        #: Agents whose revocation is not on disk yet; and whether that is being tried.
        self._unwritten: set[str] = set()
        self._writing = False
        self._legacy_secret = legacy_secret
        self._turn = DeferredLock()
        #: Those of agents one of whose secrets will expire; newest first.
        self._expiring: dict[str, list[SecretRecord]] = {}

    async def load(self) -> None:
        """Fill the fleet from the store. Raises VaultError where no secret can be opened, or the
        key is missing that they were sealed with; where there are none, it is made.

        One that cannot be opened beside others that can is logged and left out.
        """
        now = self._now_ms()
        found: dict[str, list[SecretRecord]] = {}
        for secret in await self._store.secrets():
            found.setdefault(secret.agent_id, []).append(secret)
        self._vault.ensure_key(secrets_exist=bool(found))
        if found and not any(map(self._opens, itertools.chain(*found.values()))):
            self._vault.open(next(iter(found.values()))[0].sealed)
        for agent in await self._store.agents():
            records = _valid(found.get(agent.agent_id, ()), now)
            clear = [] if agent.revoked_ms is not None else self._in_clear(records)
            # A legacy one may have been given a secret of its own since.
            legacy = agent.legacy and not clear
            known = msgspec.structs.replace(agent, legacy=legacy)
            self._fleet.add(after_kill(known, now) if self._store.was_killed else known, clear)
            self._remember_expiry(agent.agent_id, records)

    def tick(self) -> None:
        """Take secrets whose time is over from the fleet. To be called once a minute; the store
        forgets them by itself. What a failing disk has not taken is tried again."""
        if self._unwritten and not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write_revocations()).addErrback(
                lambda failure: log.failure("[hub] a revocation cannot be written", failure)
            )
        now = self._now_ms()
        for agent_id, known in [*self._expiring.items()]:
            valid = _valid(known, now)
            if len(valid) < len(known):
                self._fleet.set_secrets(agent_id, self._in_clear(valid))
                self._remember_expiry(agent_id, valid)
                log.info("[hub] agent {agent}: its old secret is no longer valid", agent=agent_id)

    async def add(self, agent_id: str, *, who: str, secret: str | None = None) -> str:
        """Make an agent known; its secret. Raises EnrolmentError ``invalid`` or ``exists``."""
        check_agent_id(agent_id)
        check_secret(secret)
        async with self._turn:
            clear = await self._add(agent_id, secret)
            self._store.audit(who, "agent.add", agent_id, {"secretGiven": secret is not None})
        return clear

    async def rotate(
        self,
        agent_id: str,
        *,
        who: str,
        grace_seconds: float = 86_400,
        secret: str | None = None,
    ) -> tuple[str, int]:
        """Give an agent a new secret; it, and until when (ms) the one before is valid beside it.

        The old one leaves with the first `tick` after that. Of several old ones two stay. Raises
        EnrolmentError ``invalid`` or ``unknown``.
        """
        if not (isfinite(grace_seconds) and 0 <= grace_seconds <= MAX_GRACE_SECONDS):
            raise EnrolmentError("invalid", "the grace is not a number of seconds up to a year")
        check_secret(secret)
        async with self._turn:
            agent = self._known(agent_id)
            if agent.revoked_ms is not None:
                raise EnrolmentError("unknown", "the agent was revoked")
            until = self._now_ms() + round(grace_seconds * 1000)
            clear = await self._replace_secret(agent, secret, until)
            self._store.audit(
                who,
                "agent.rotate",
                agent_id,
                {"oldValidUntil": until, "secretGiven": secret is not None},
            )
        return clear, until

    def old_secret_until(self, agent_id: str) -> int | None:
        """Until when (ms) a secret that was replaced is valid beside the new one; None: none is."""
        now = self._now_ms()
        ends = [each.expires_ms for each in self._expiring.get(agent_id, ())]
        return max((end for end in ends if end is not None and end > now), default=None)

    async def revoke(self, agent_id: str, *, who: str) -> None:
        """Accept nothing more of an agent, from now on. Raises EnrolmentError ``unknown``.

        It holds at once. Where it fails with `StoreError`, it holds as long as this hub runs, and
        is tried again once a minute.
        """
        agent = self._fleet.get(agent_id)
        if agent is not None:
            self._block(agent, who)  # without waiting for anybody's turn
        async with self._turn:
            agent = self._known(agent_id)
            if agent.revoked_ms is None or agent.keys:  # what had its turn before changed that
                self._block(agent, who)
            if agent_id in self._unwritten:
                await self._store.revoke_agent(agent_id, agent.revoked_ms)
                self._unwritten.discard(agent_id)

    def _block(self, agent: Agent, who: str) -> None:
        agent_id = agent.agent_id
        if agent.revoked_ms is None:
            self._fleet.revoke(agent_id, self._now_ms())
            self._unwritten.add(agent_id)
            self._store.audit(who, "agent.revoke", agent_id, {})
        agent.keys = ()
        self._expiring.pop(agent_id, None)
        self._close_session(agent_id, POLICY_VIOLATION, "revoked")
        self._on_revoked(agent_id)

    async def _write_revocations(self) -> None:
        try:
            async with self._turn:
                for agent_id in [*self._unwritten]:
                    agent = self._known(agent_id)
                    await self._store.revoke_agent(agent_id, agent.revoked_ms)
                    self._unwritten.discard(agent_id)
        except StoreError as error:
            log.warn("[hub] a revocation is not on disk yet: {error}", error=error)
        finally:
            self._writing = False

    async def restore(self, agent_id: str, *, who: str, secret: str | None = None) -> str:
        """Take a revocation back; the agent's new secret, for it has lost the old ones.

        Raises EnrolmentError ``invalid``, ``unknown``, or ``exists`` for one not revoked.
        """
        check_secret(secret)
        async with self._turn:
            agent = self._known(agent_id)
            if agent.revoked_ms is None:
                raise EnrolmentError("exists", "the agent was not revoked")
            # Where the second of these fails, it has no secret of its own.
            await self._store.revoke_agent(agent_id, None)
            self._unwritten.discard(agent_id)
            self._fleet.revoke(agent_id, None)
            clear = await self._replace_secret(agent, secret, self._now_ms())
            self._store.audit(who, "agent.restore", agent_id, {"secretGiven": secret is not None})
        return clear

    async def create_join_token(
        self, *, who: str, expires_seconds: float, uses: int
    ) -> tuple[str, JoinTokenRecord]:
        """A token that as many machines as `uses` may join with, and what is remembered of it.

        Raises EnrolmentError ``invalid``.
        """
        if not (isfinite(expires_seconds) and 1 <= expires_seconds <= MAX_TOKEN_SECONDS):
            raise EnrolmentError("invalid", "a token lasts from 1 second to a year")
        if not 1 <= uses <= MAX_TOKEN_USES:
            raise EnrolmentError("invalid", f"a token has from 1 to {MAX_TOKEN_USES} uses")
        token = _TOKEN_PREFIX + randomness.token_urlsafe(32)
        now = self._now_ms()
        record = JoinTokenRecord(
            token_id=randomness.token_hex(6),
            digest=_digest(token),
            who=who,
            created_ms=now,
            expires_ms=now + round(expires_seconds * 1000),
            uses_left=uses,
        )
        await self._store.put_join_token(record)
        self._store.audit(
            who,
            "join-token.create",
            record.token_id,
            {"expiresAt": record.expires_ms, "uses": uses},
        )
        return token, record

    async def join(self, token: str, agent_id: str, *, address: str) -> str:
        """Make the agent known whose machine showed `token`; its secret.

        Raises EnrolmentError ``token``, ``invalid`` or ``exists``. Only a token that is valid finds
        out about the last two, and does not lose a use by them; a store that fails after the token
        was taken costs one.
        """
        digest = _digest(token)
        async with self._turn:
            now = self._now_ms()
            if await self._store.join_token(digest) is None:
                raise _no_token()
            check_agent_id(agent_id)
            self._check_new(agent_id)
            used = await self._store.use_join_token(digest, now)
            if used is None:
                raise _no_token()
            clear = await self._add(agent_id, None)
            self._store.audit(
                f"join token {used.token_id}",
                "agent.join",
                agent_id,
                {"address": address, "tokenId": used.token_id, "tokenOf": used.who},
            )
        return clear

    async def _add(self, agent_id: str, secret: str | None) -> str:
        self._check_new(agent_id)
        clear = _new_secret() if secret is None else secret
        now = self._now_ms()
        agent = AgentRecord(agent_id=agent_id, created_ms=now)
        try:
            await self._store.add_agent(agent, self._sealed(agent_id, clear, now))
        except ConflictError:
            raise _exists() from None
        if self._fleet.get(agent_id) is None:
            self._fleet.add(agent, [(clear, None)])
        else:  # it has come meanwhile, with the shared secret: what is known of it stays
            self._fleet.set_secrets(agent_id, [(clear, None)])
        return clear

    async def _replace_secret(self, agent: Agent, secret: str | None, until: int) -> str:
        """A new secret for an agent; those it has are valid up to `until` at most."""
        agent_id = agent.agent_id
        clear = _new_secret() if secret is None else secret
        now = self._now_ms()
        known = [each for each in await self._store.secrets() if each.agent_id == agent_id]
        if agent.legacy and self._legacy_secret is not None and not known:
            known = [self._sealed(agent_id, self._legacy_secret, agent.created_ms)]
        known.sort(key=lambda each: each.created_ms, reverse=True)
        # The newest it stays, whatever the clock says.
        created = max(now, known[0].created_ms + 1) if known else now
        kept = [
            msgspec.structs.replace(
                each, expires_ms=until if each.expires_ms is None else min(each.expires_ms, until)
            )
            for each in known[: MAX_SECRETS - 1]
        ]
        valid = [self._sealed(agent_id, clear, created), *_valid(kept, now)]
        in_clear = self._in_clear(valid)
        await self._store.replace_secrets(agent_id, valid)
        self._fleet.set_secrets(agent_id, in_clear)
        self._remember_expiry(agent_id, valid)
        return clear

    def _check_new(self, agent_id: str) -> None:
        agent = self._fleet.get(agent_id)
        if agent is not None:
            raise _exists() if agent.revoked_ms is None else _exists("known, and revoked")

    def _known(self, agent_id: str) -> Agent:
        agent = self._fleet.get(agent_id)
        if agent is None:
            raise EnrolmentError("unknown", "no agent with this id is known")
        return agent

    def _sealed(self, agent_id: str, secret: str, now: int) -> SecretRecord:
        return SecretRecord(agent_id=agent_id, sealed=self._vault.seal(secret), created_ms=now)

    def _opens(self, record: SecretRecord) -> bool:
        try:
            self._vault.open(record.sealed)
        except VaultError:
            return False
        return True

    def _in_clear(self, records: Sequence[SecretRecord]) -> list[tuple[str, int | None]]:
        """Without those that were sealed with a key that is lost."""
        clear = []
        for record in records:
            try:
                clear.append((self._vault.open(record.sealed), record.expires_ms))
            except VaultError as error:
                log.error(
                    "[hub] agent {agent}: a secret of it cannot be used: {error}",
                    agent=record.agent_id,
                    error=str(error),
                )
        return clear

    def _remember_expiry(self, agent_id: str, records: list[SecretRecord]) -> None:
        if any(record.expires_ms is not None for record in records):
            self._expiring[agent_id] = records
        else:
            self._expiring.pop(agent_id, None)


def _valid(records: Sequence[SecretRecord], now: int) -> list[SecretRecord]:
    return [record for record in records if record.expires_ms is None or record.expires_ms > now]


def _new_secret() -> str:
    return randomness.token_urlsafe(32)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "replace")).digest()


def _exists(words: str = "known") -> EnrolmentError:
    return EnrolmentError("exists", f"an agent with this id is {words} already")


def _no_token() -> EnrolmentError:
    return EnrolmentError("token", "the join token is not valid: unknown, used up or expired")
