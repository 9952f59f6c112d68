"""Agents come, change their secret and go, in the store and in the fleet alike."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from cryptography.fernet import Fernet
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.enrolment import Enrolment, EnrolmentError
from jetcamer.hub.fleet import Fleet
from jetcamer.hub.records import AgentRecord, JoinTokenRecord, SecretRecord
from jetcamer.hub.store.interface import ConflictError, StoreError
from jetcamer.hub.vault import Vault, VaultError
from jetcamer.protocol import SigningKey

NOW = 1_731_819_422_000
DAY = 86_400_000
GIVEN = "given-by-an-operator-0123"
SHARED = "shared-by-the-old-fleet-0123"


class MemoryStore:
    """As much of a `Store` as enrolment calls. `failing` names the method that fails next."""

    was_killed = False

    def __init__(self, case: EnrolmentTests) -> None:
        self.case = case
        self.failing: str | None = None
        self.calls: list[str] = []
        self.pending: Deferred[None] | None = None
        self.agent_rows: dict[str, AgentRecord] = {}
        self.secret_rows: list[SecretRecord] = []
        self.tokens: dict[bytes, JoinTokenRecord] = {}
        self.trail: list[tuple[str, str, str, Mapping[str, object]]] = []

    def audit(self, who: str, action: str, subject: str, details: Mapping[str, object]) -> None:
        self.trail.append((who, action, subject, details))

    def answer(self, name: str, value: Any = None) -> Deferred[Any]:
        self.calls.append(name)
        return succeed(value)

    def fails(self, name: str) -> bool:
        return self.failing == name

    def agents(self) -> Deferred[list[AgentRecord]]:
        return self.answer("agents", [*self.agent_rows.values()])

    def secrets(self) -> Deferred[list[SecretRecord]]:
        valid = [
            row
            for row in self.secret_rows
            if row.expires_ms is None or row.expires_ms > self.case.now
        ]
        return self.answer("secrets", sorted(valid, key=lambda row: -row.created_ms))

    def add_agent(self, agent: AgentRecord, secret: SecretRecord | None) -> Deferred[None]:
        if self.fails("add_agent"):
            return fail(StoreError("the disk is full"))
        if agent.agent_id in self.agent_rows:
            return fail(ConflictError("there already"))
        self.agent_rows[agent.agent_id] = agent
        if secret is not None:
            self.secret_rows.append(secret)
        if self.pending is not None:
            return self.pending
        return self.answer("add_agent")

    def replace_secrets(self, agent_id: str, secrets: Sequence[SecretRecord]) -> Deferred[None]:
        if self.fails("replace_secrets"):
            return fail(StoreError("the disk is full"))
        self.secret_rows = [row for row in self.secret_rows if row.agent_id != agent_id]
        self.secret_rows.extend(secrets)
        return self.answer("replace_secrets")

    def revoke_agent(self, agent_id: str, revoked_ms: int | None) -> Deferred[None]:
        if self.fails("revoke_agent"):
            return fail(StoreError("the disk is full"))
        row = self.agent_rows[agent_id]
        self.agent_rows[agent_id] = msgspec.structs.replace(row, revoked_ms=revoked_ms)
        if revoked_ms is not None:
            self.secret_rows = [row for row in self.secret_rows if row.agent_id != agent_id]
        return self.answer("revoke_agent")

    def join_token(self, digest: bytes) -> Deferred[JoinTokenRecord | None]:
        token = self.tokens.get(digest)
        valid = token is not None and token.uses_left > 0 and token.expires_ms > self.case.now
        return self.answer("join_token", token if valid else None)

    def put_join_token(self, token: JoinTokenRecord) -> Deferred[None]:
        if self.fails("put_join_token"):
            return fail(StoreError("the disk is full"))
        self.tokens[token.digest] = token
        return self.answer("put_join_token")

    def use_join_token(self, digest: bytes, now_ms: int) -> Deferred[JoinTokenRecord | None]:
        token = self.tokens.get(digest)
        if token is None or token.uses_left < 1 or token.expires_ms <= now_ms:
            return self.answer("use_join_token")
        token = msgspec.structs.replace(token, uses_left=token.uses_left - 1)
        self.tokens[digest] = token
        return self.answer("use_join_token", token)


class EnrolmentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.key = Fernet.generate_key()
        self.store = MemoryStore(self)
        self.closed: list[tuple[str, int, str]] = []
        self.revoked: list[str] = []
        self.start()

    def start(self, legacy_secret: str | None = None) -> None:
        """A hub that begins with this store."""
        self.fleet = Fleet(legacy_secret=legacy_secret)
        self.enrolment = Enrolment(
            self.store,  # type: ignore[arg-type]
            self.fleet,
            Vault(self.key),
            now_ms=lambda: self.now,
            close_session=lambda *arguments: self.closed.append(arguments),
            on_revoked=self.revoked.append,
            legacy_secret=legacy_secret,
        )
        self.run_now(self.enrolment.load())

    def restart(self) -> None:
        self.start()

    def run_now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def refused(self, kind: str, coroutine: Coroutine[Any, Any, Any]) -> str:
        failure = self.failureResultOf(Deferred.fromCoroutine(coroutine), EnrolmentError)
        self.assertEqual(failure.value.kind, kind)
        self.assertNotIn("\n", str(failure.value))
        return str(failure.value)

    def fails(self, method: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.store.failing = method
        self.failureResultOf(Deferred.fromCoroutine(coroutine), StoreError)
        self.store.failing = None

    def accepted(self, agent_id: str) -> set[str]:
        """The signatures of "x" that the fleet would take from this agent now."""
        agent = self.fleet.find(agent_id)
        return set() if agent is None else {key.sign(b"x") for key in agent.keys}

    def signatures(self, *secrets: str) -> set[str]:
        return {SigningKey(secret).sign(b"x") for secret in secrets}

    def no_secret_is_written(self, *secrets: str) -> None:
        written = repr(self.store.trail) + repr(self.store.agent_rows)
        written += repr(self.store.secret_rows) + repr(self.store.tokens)
        written += repr([row.sealed for row in self.store.secret_rows])
        for secret in secrets:
            self.assertNotIn(secret, written)

    def test_an_agent_is_added(self) -> None:
        secret = self.run_now(self.enrolment.add("server-01", who="alice"))
        self.assertGreaterEqual(len(secret), 43)
        self.assertEqual(self.accepted("server-01"), self.signatures(secret))
        self.assertEqual(
            self.store.trail, [("alice", "agent.add", "server-01", {"secretGiven": False})]
        )
        self.no_secret_is_written(secret)
        other = self.run_now(self.enrolment.add("server-02", who="alice"))
        self.assertNotEqual(secret, other)
        self.restart()
        self.assertEqual(self.accepted("server-01"), self.signatures(secret))
        self.assertEqual(self.accepted("server-02"), self.signatures(other))
        self.assertEqual(self.accepted("server-03"), set())

    def test_a_given_secret(self) -> None:
        self.assertEqual(self.run_now(self.enrolment.add("a", who="alice", secret=GIVEN)), GIVEN)
        self.assertEqual(self.accepted("a"), self.signatures(GIVEN))
        self.assertEqual(self.store.trail[0][3], {"secretGiven": True})
        self.no_secret_is_written(GIVEN)

    def test_secrets_that_are_none(self) -> None:
        for secret in ("", "x" * 15, "x" * 1025, GIVEN + "\n", " " + GIVEN, GIVEN + "\ud800",
                       GIVEN + "\0"):  # fmt: skip
            words = self.refused("invalid", self.enrolment.add("a", who="alice", secret=secret))
            self.assertNotIn(GIVEN, words)
        self.assertIsNone(self.fleet.get("a"))
        for secret in ("x" * 16, "é" * 16, "x" * 1024):
            self.run_now(self.enrolment.add(f"a{len(secret)}{secret[0]}", who="a", secret=secret))

    def test_ids_that_are_none(self) -> None:
        for agent_id in ("", "x" * 129, "a b", "a/b", "a,b", "a\nb", "a\0", "a\u2028b", "a\xa0b",
                         "\ud800", ".", ".."):  # fmt: skip
            self.refused("invalid", self.enrolment.add(agent_id, who="alice"))
        for agent_id in ("x" * 128, "é", "a.b", "...", "i-0123", "a%b?c#d"):
            self.run_now(self.enrolment.add(agent_id, who="alice"))

    def test_an_id_is_given_once(self) -> None:
        secret = self.run_now(self.enrolment.add("a", who="alice"))
        self.refused("exists", self.enrolment.add("a", who="bob"))
        self.assertEqual(self.accepted("a"), self.signatures(secret))
        self.store.agent_rows["b"] = AgentRecord(agent_id="b", created_ms=1)
        self.refused("exists", self.enrolment.add("b", who="bob"))  # only the store knew
        self.assertEqual(len(self.store.trail), 1)

    def test_while_rotating_both_secrets_are_valid(self) -> None:
        old = self.run_now(self.enrolment.add("a", who="alice"))
        self.now += 1000
        new, until = self.run_now(self.enrolment.rotate("a", who="bob"))
        self.assertEqual(until, self.now + DAY)
        self.assertEqual(self.accepted("a"), self.signatures(old, new))
        self.assertEqual(self.fleet.get("a").keys[0].sign(b"x"), SigningKey(new).sign(b"x"))
        self.no_secret_is_written(old, new)
        self.assertEqual(
            self.store.trail[-1],
            ("bob", "agent.rotate", "a", {"oldValidUntil": until, "secretGiven": False}),
        )
        self.now = until - 1
        self.enrolment.tick()
        self.assertEqual(self.accepted("a"), self.signatures(old, new))
        self.restart()
        self.assertEqual(self.accepted("a"), self.signatures(old, new))
        self.now = until
        self.store.calls.clear()
        self.enrolment.tick()
        self.assertEqual(self.accepted("a"), self.signatures(new))
        keys = self.fleet.get("a").keys
        self.enrolment.tick()
        self.assertIs(self.fleet.get("a").keys, keys)
        self.assertEqual(self.store.calls, [])
        self.restart()
        self.assertEqual(self.accepted("a"), self.signatures(new))

    def test_without_a_grace_the_old_one_is_gone_at_once(self) -> None:
        self.run_now(self.enrolment.add("a", who="alice"))
        new, until = self.run_now(
            self.enrolment.rotate("a", who="alice", grace_seconds=0, secret=GIVEN)
        )
        self.assertEqual((new, until), (GIVEN, NOW))
        self.assertEqual(self.accepted("a"), self.signatures(GIVEN))
        self.assertEqual(len(self.store.secret_rows), 1)

    def test_rotating_often_keeps_two_old_ones_and_no_longer_than_before(self) -> None:
        made = [self.run_now(self.enrolment.add("a", who="alice"))]
        for grace in (3600, 7200, 60, 7200):
            made.append(
                self.run_now(self.enrolment.rotate("a", who="alice", grace_seconds=grace))[0]
            )
        self.assertEqual(self.accepted("a"), self.signatures(*made[-3:]))
        self.assertEqual(
            [row.expires_ms for row in self.store.secret_rows],
            [None, NOW + 7_200_000, NOW + 60_000],
        )
        made_at = [row.created_ms for row in self.store.secret_rows]
        self.assertEqual(made_at, [NOW + 4, NOW + 3, NOW + 2])  # newest first, whatever the clock
        self.restart()
        self.assertEqual(self.accepted("a"), self.signatures(*made[-3:]))
        self.now += 60_000
        self.enrolment.tick()
        self.assertEqual(self.accepted("a"), self.signatures(*made[-2:]))
        self.now = NOW + 7_200_000
        self.enrolment.tick()
        self.assertEqual(self.accepted("a"), self.signatures(made[-1]))

    def test_rotating_what_cannot_be(self) -> None:
        self.refused("unknown", self.enrolment.rotate("a", who="alice"))
        old = self.run_now(self.enrolment.add("a", who="alice"))
        for grace in (-1, float("nan"), float("inf"), 365 * 86_400 + 1):
            self.refused("invalid", self.enrolment.rotate("a", who="alice", grace_seconds=grace))
        self.refused("invalid", self.enrolment.rotate("a", who="alice", secret="short"))
        self.assertEqual(self.accepted("a"), self.signatures(old))
        self.run_now(self.enrolment.revoke("a", who="alice"))
        self.refused("unknown", self.enrolment.rotate("a", who="alice"))

    def test_an_agent_of_the_old_fleet_gets_a_secret_of_its_own(self) -> None:
        row = AgentRecord(agent_id="old-1", created_ms=NOW - DAY, legacy=True)
        self.store.agent_rows["old-1"] = row
        self.start(SHARED)
        self.assertEqual(self.accepted("old-1"), self.signatures(SHARED))
        self.refused("exists", self.enrolment.add("old-1", who="alice"))
        new, until = self.run_now(self.enrolment.rotate("old-1", who="alice"))
        self.assertFalse(self.fleet.get("old-1").legacy)
        self.assertEqual(self.accepted("old-1"), self.signatures(SHARED, new))
        self.start(SHARED)
        self.assertFalse(self.fleet.get("old-1").legacy)
        self.assertEqual(self.accepted("old-1"), self.signatures(SHARED, new))
        self.now = until
        self.enrolment.tick()
        self.assertEqual(self.accepted("old-1"), self.signatures(new))

    def test_revoking(self) -> None:
        self.run_now(self.enrolment.add("a", who="alice"))
        self.run_now(self.enrolment.rotate("a", who="alice"))
        self.run_now(self.enrolment.revoke("a", who="bob"))
        self.assertEqual(self.closed, [("a", 1008, "revoked")])
        self.assertEqual(self.accepted("a"), set())
        self.assertEqual(self.fleet.get("a").revoked_ms, NOW)
        self.assertEqual(self.store.trail[-1], ("bob", "agent.revoke", "a", {}))
        self.now += 2 * DAY
        self.enrolment.tick()
        self.assertEqual(self.fleet.get("a").keys, ())
        entries = len(self.store.trail)
        self.run_now(self.enrolment.revoke("a", who="bob"))  # again does no harm
        self.assertEqual(len(self.store.trail), entries)
        self.assertEqual(self.fleet.get("a").revoked_ms, NOW)
        self.refused("exists", self.enrolment.add("a", who="alice"))
        self.refused("unknown", self.enrolment.revoke("b", who="alice"))
        self.restart()
        self.assertEqual(self.accepted("a"), set())

    def test_a_revocation_is_taken_back(self) -> None:
        old = self.run_now(self.enrolment.add("a", who="alice"))
        self.refused("exists", self.enrolment.restore("a", who="alice"))
        self.refused("unknown", self.enrolment.restore("b", who="alice"))
        self.run_now(self.enrolment.revoke("a", who="alice"))
        new = self.run_now(self.enrolment.restore("a", who="bob"))
        self.assertNotEqual(new, old)
        self.assertEqual(self.accepted("a"), self.signatures(new))
        self.assertEqual(
            self.store.trail[-1], ("bob", "agent.restore", "a", {"secretGiven": False})
        )
        self.restart()
        self.assertEqual(self.accepted("a"), self.signatures(new))

    def test_where_the_store_fails_the_fleet_stays_as_it_was(self) -> None:
        self.fails("add_agent", self.enrolment.add("a", who="alice"))
        self.assertIsNone(self.fleet.get("a"))
        secret = self.run_now(self.enrolment.add("a", who="alice"))
        entries = len(self.store.trail)
        self.fails("replace_secrets", self.enrolment.rotate("a", who="alice"))
        self.assertEqual(self.accepted("a"), self.signatures(secret))
        self.fails(
            "put_join_token",
            self.enrolment.create_join_token(who="alice", expires_seconds=60, uses=1),
        )
        self.assertEqual(len(self.store.trail), entries)
        self.run_now(self.enrolment.revoke("a", who="alice"))
        self.fails("replace_secrets", self.enrolment.restore("a", who="alice"))
        self.assertEqual(self.accepted("a"), set())
        self.restart()
        self.assertEqual(self.accepted("a"), set())
        new, _ = self.run_now(self.enrolment.rotate("a", who="alice"))
        self.assertEqual(self.accepted("a"), self.signatures(new))

    def test_a_revocation_holds_whatever_the_disk_does(self) -> None:
        self.run_now(self.enrolment.add("a", who="alice"))
        self.store.failing = "revoke_agent"
        revoking = Deferred.fromCoroutine(self.enrolment.revoke("a", who="bob"))
        self.failureResultOf(revoking, StoreError)
        self.assertEqual(self.closed, [("a", 1008, "revoked")])
        self.assertEqual(self.revoked, ["a"])
        self.assertEqual(self.accepted("a"), set())
        self.assertEqual(self.store.trail[-1], ("bob", "agent.revoke", "a", {}))
        self.enrolment.tick()
        self.assertIsNone(self.store.agent_rows["a"].revoked_ms)
        self.store.failing = None
        self.now += 60_000
        self.enrolment.tick()
        self.assertEqual(self.store.agent_rows["a"].revoked_ms, NOW)
        self.store.calls.clear()
        self.enrolment.tick()
        self.run_now(self.enrolment.revoke("a", who="bob"))
        self.assertEqual(self.store.calls, [])
        self.assertEqual(len(self.store.trail), 2)

    def test_a_revocation_waits_for_nobody(self) -> None:
        """Neither for its own turn, behind a disk that hangs; and what was under way does not take
        it back."""
        self.run_now(self.enrolment.add("a", who="alice"))
        disk: Deferred[None] = Deferred()

        def replace(agent_id: str, secrets: Sequence[SecretRecord]) -> Deferred[None]:
            self.store.secret_rows = [*secrets]
            return disk

        self.patch(self.store, "replace_secrets", replace)
        rotating = Deferred.fromCoroutine(self.enrolment.rotate("a", who="alice"))
        revoking = Deferred.fromCoroutine(self.enrolment.revoke("a", who="bob"))
        self.assertNoResult(revoking)
        self.assertEqual((self.closed, self.accepted("a")), ([("a", 1008, "revoked")], set()))
        disk.callback(None)
        self.successResultOf(rotating)
        self.successResultOf(revoking)
        self.assertEqual((self.accepted("a"), self.fleet.get("a").keys), (set(), ()))
        self.assertEqual(self.store.secret_rows, [])
        self.assertEqual(self.store.agent_rows["a"].revoked_ms, NOW)
        self.now += 2 * DAY
        self.enrolment.tick()
        self.assertEqual(self.fleet.get("a").keys, ())

    def test_one_that_came_with_the_shared_secret_meanwhile(self) -> None:
        """Of what is in memory about it, the messages seen among it, nothing is lost."""
        self.start(SHARED)
        self.store.pending = Deferred()
        adding = Deferred.fromCoroutine(self.enrolment.add("a", who="alice"))
        stranger = self.fleet.find("a", NOW)
        known = self.fleet.admit(stranger)
        known.replay.check(NOW, "n-1", NOW)
        self.store.pending.callback(None)
        secret = self.successResultOf(adding)
        self.assertIs(self.fleet.get("a"), known)
        self.assertEqual(self.accepted("a"), self.signatures(secret))
        self.assertFalse(known.legacy)

    def test_changes_wait_for_each_other(self) -> None:
        self.store.pending = Deferred()
        adding = Deferred.fromCoroutine(self.enrolment.add("a", who="alice"))
        rotating = Deferred.fromCoroutine(self.enrolment.rotate("a", who="alice"))
        self.assertNoResult(adding)
        self.assertNoResult(rotating)
        self.store.pending.callback(None)
        old, (new, _) = self.successResultOf(adding), self.successResultOf(rotating)
        self.assertEqual(self.accepted("a"), self.signatures(old, new))

    def test_joining(self) -> None:
        token, record = self.run_now(
            self.enrolment.create_join_token(who="alice", expires_seconds=3600, uses=2)
        )
        self.assertEqual(record.expires_ms, NOW + 3_600_000)
        self.assertEqual(record.digest, sha256(token.encode()).digest())
        self.assertEqual(
            self.store.trail,
            [("alice", "join-token.create", record.token_id,
              {"expiresAt": record.expires_ms, "uses": 2})],
        )  # fmt: skip
        first = self.run_now(self.enrolment.join(token, "a", address="192.0.2.1"))
        self.assertEqual(self.accepted("a"), self.signatures(first))
        self.assertEqual(
            self.store.trail[-1],
            (f"join token {record.token_id}", "agent.join", "a",
             {"address": "192.0.2.1", "tokenId": record.token_id, "tokenOf": "alice"}),
        )  # fmt: skip
        self.refused("exists", self.enrolment.join(token, "a", address="192.0.2.1"))
        self.refused("invalid", self.enrolment.join(token, "a b", address="192.0.2.1"))
        second = self.run_now(self.enrolment.join(token, "b", address="192.0.2.1"))
        for agent_id in ("c", "a", "a b"):
            self.refused("token", self.enrolment.join(token, agent_id, address="192.0.2.1"))
        self.no_secret_is_written(token, first, second)

    def test_tokens_that_are_not_valid(self) -> None:
        self.run_now(self.enrolment.add("a", who="alice"))
        token, _ = self.run_now(
            self.enrolment.create_join_token(who="alice", expires_seconds=60, uses=1)
        )
        for wrong in ("", token[:-1], token + "x", "jcj_", "é\ud800"):
            for agent_id in ("a", "b", "not an id"):  # nothing is learnt without a token
                self.refused("token", self.enrolment.join(wrong, agent_id, address="::1"))
        self.now += 60_000
        self.refused("token", self.enrolment.join(token, "b", address="::1"))
        self.assertIsNone(self.fleet.get("b"))

    def test_a_token_used_elsewhere_in_the_meantime(self) -> None:
        token, _ = self.run_now(
            self.enrolment.create_join_token(who="alice", expires_seconds=60, uses=1)
        )
        self.patch(self.store, "use_join_token", lambda digest, now_ms: succeed(None))
        self.refused("token", self.enrolment.join(token, "b", address="::1"))
        self.assertIsNone(self.fleet.get("b"))

    def test_two_join_with_one_use_at_the_same_time(self) -> None:
        token, _ = self.run_now(
            self.enrolment.create_join_token(who="alice", expires_seconds=60, uses=1)
        )
        self.store.pending = Deferred()
        first = Deferred.fromCoroutine(self.enrolment.join(token, "a", address="::1"))
        second = Deferred.fromCoroutine(self.enrolment.join(token, "b", address="::1"))
        self.store.pending.callback(None)
        self.successResultOf(first)
        self.assertEqual(self.failureResultOf(second, EnrolmentError).value.kind, "token")

    def test_tokens_that_cannot_be(self) -> None:
        for seconds, uses in ((0, 1), (-5, 1), (float("nan"), 1), (1e12, 1), (60, 0), (60, 10**6)):
            self.refused(
                "invalid",
                self.enrolment.create_join_token(who="a", expires_seconds=seconds, uses=uses),
            )
        self.assertEqual(self.store.tokens, {})

    def test_with_another_key_the_hub_does_not_start(self) -> None:
        secret = self.run_now(self.enrolment.add("a", who="alice"))
        key, self.key = self.key, Fernet.generate_key()
        self.fleet = Fleet()
        enrolment = Enrolment(
            self.store,  # type: ignore[arg-type]
            self.fleet,
            Vault(self.key, "/var/lib/hub.key"),
            now_ms=lambda: self.now,
            close_session=lambda *arguments: None,
        )
        failure = self.failureResultOf(Deferred.fromCoroutine(enrolment.load()), VaultError)
        self.assertIn("/var/lib/hub.key is not the key", str(failure.value))
        # One beside others: said, and left out.
        self.store.secret_rows.append(
            SecretRecord(agent_id="b", sealed=Vault(self.key).seal(GIVEN), created_ms=NOW)
        )
        self.store.agent_rows["b"] = AgentRecord(agent_id="b", created_ms=NOW)
        self.key = key
        self.restart()
        self.assertEqual(self.accepted("a"), self.signatures(secret))
        self.assertEqual(self.accepted("b"), set())
