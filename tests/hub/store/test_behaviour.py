"""What every implementation of `Store` does: one suite, run against each."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from jetcamer.hub.records import RefusalRecord, SecretRecord
from jetcamer.hub.store import null
from jetcamer.hub.store.interface import ConflictError, StoreError
from jetcamer.hub.store.null import NullStore
from tests.hub.store.support import (
    NOW,
    SQLiteCase,
    agent_record,
    api_token,
    command_record,
    join_token,
)


def secret(agent_id="web-1", sealed=b"sealed", created_ms=NOW, expires_ms=None):
    return SecretRecord(
        agent_id=agent_id, sealed=sealed, created_ms=created_ms, expires_ms=expires_ms
    )


def refusal(number, agent_id="web-1", address="192.0.2.1", **members):
    return RefusalRecord(
        ts_ms=NOW + number,
        agent_id=agent_id,
        address=address,
        reason="invalid_signature",
        words=f"number {number}",
        **members,
    )


def ids(commands):
    return [each.command_id for each in commands]


class StoreBehaviour:
    """Mixed into a TestCase that makes `self.store` with `self.now` as its wall clock."""

    async def test_an_agent_is_known_with_all_its_members(self):
        agent = agent_record(
            legacy=True, hostname="h", version="1", capabilities=("a", "b"), address="192.0.2.1"
        )
        await self.store.add_agent(agent, secret())
        self.assertEqual(await self.store.agents(), [agent])
        self.assertEqual(await self.store.secrets(), [secret()])

    async def test_an_agent_is_added_once_even_when_it_was_revoked(self):
        await self.store.add_agent(agent_record(), secret())
        await self.store.revoke_agent("web-1", NOW)
        with self.assertRaises(ConflictError):
            await self.store.add_agent(agent_record(), secret())
        self.assertEqual(await self.store.secrets(), [])

    async def test_revoking_forgets_the_secrets_and_can_be_taken_back(self):
        await self.store.add_agent(agent_record(), secret())
        await self.store.revoke_agent("web-1", NOW)
        self.assertEqual((await self.store.agents())[0].revoked_ms, NOW)
        self.assertEqual(await self.store.secrets(), [])
        await self.store.revoke_agent("web-1", None)
        self.assertIsNone((await self.store.agents())[0].revoked_ms)

    async def test_what_is_asked_of_an_unknown_agent_fails(self):
        with self.assertRaises(StoreError):
            await self.store.revoke_agent("nobody", NOW)
        with self.assertRaises(StoreError):
            await self.store.replace_secrets("nobody", [secret("nobody")])

    async def test_secrets_come_newest_first_without_those_that_expired(self):
        await self.store.add_agent(agent_record(), secret())
        old = secret(sealed=b"old", created_ms=NOW - 5, expires_ms=NOW + 1)
        gone = secret(sealed=b"gone", created_ms=NOW - 9, expires_ms=NOW)
        new = secret(sealed=b"new")
        await self.store.replace_secrets("web-1", [gone, old, new])
        self.assertEqual(await self.store.secrets(), [new, old])

    async def test_a_session_describes_its_agent(self):
        await self.store.add_agent(agent_record(), secret())
        first = self.store.session_started(
            agent_record(created_ms=5, hostname="h", version="2", last_seen_ms=NOW), "p:1", NOW
        )
        second = self.store.session_started(agent_record("web-2", legacy=True), "p:2", NOW)
        self.store.session_ended(first, NOW + 1, "it left", 7, 1)
        self.assertGreater(second, first)
        expected = agent_record(hostname="h", version="2", last_seen_ms=NOW)
        self.assertEqual(await self.store.agents(), [expected, agent_record("web-2", legacy=True)])

    async def test_a_session_takes_no_revocation_back(self):
        await self.store.add_agent(agent_record(), None)
        await self.store.revoke_agent("web-1", NOW)
        self.store.session_started(agent_record(), "p:1", NOW)
        self.assertEqual((await self.store.agents())[0].revoked_ms, NOW)

    async def test_the_last_replay_floor_counts(self):
        await self.store.add_agent(agent_record(), None)
        self.store.seen([("web-1", NOW, 100), ("unknown", NOW, 1)])
        await self.store.flush()
        self.store.seen([("web-1", NOW + 5, 90)])
        await self.store.flush()
        (agent,) = await self.store.agents()
        self.assertEqual((agent.last_seen_ms, agent.replay_floor_ms), (NOW + 5, 90))

    async def test_a_command_is_replaced_by_its_next_state(self):
        self.store.put_command(command_record("c1", state="queued", args={"a": "é"}))
        done = command_record("c1", state="done", ended_ms=NOW + 3, result="pong", details="{}")
        self.store.put_command(done)
        self.assertEqual(await self.store.command("c1"), done)
        self.assertIsNone(await self.store.command("c2"))

    async def test_commands_come_newest_first_in_pages(self):
        for number in range(5):
            agent_id = "web-1" if number != 3 else "web-2"
            self.store.put_command(
                command_record(f"c{number}", created_ms=NOW + number, agent_id=agent_id)
            )
        page = await self.store.commands(None, limit=2)
        self.assertEqual((ids(page), page.next), (["c4", "c3"], "c3"))
        page = await self.store.commands("web-1", limit=2, before="c4")
        self.assertEqual((ids(page), page.next), (["c2", "c1"], "c1"))
        page = await self.store.commands("web-1", limit=2, before="c1")
        self.assertEqual((ids(page), page.next), (["c0"], None))
        self.assertEqual(await self.store.commands(None, before="gone"), [])

    async def test_commands_of_the_same_millisecond_come_once_each(self):
        for number in range(7):
            self.store.put_command(command_record(f"c{number}", batch_id="b1"))
        # Its next state changes nothing about its place.
        self.store.put_command(command_record("c3", batch_id="b1", state="done"))
        expected = [f"c{number}" for number in range(7)]
        seen, before = [], None
        while len(seen) < 7:
            page = await self.store.commands("web-1", limit=3, before=before)
            seen, before = [*seen, *ids(page)], page.next
        self.assertEqual((seen, before), (expected[::-1], None))
        seen, after = [], None
        while len(seen) < 7:
            page = await self.store.batch("b1", limit=3, after=after)
            seen, after = [*seen, *ids(page)], page.next
        self.assertEqual((seen, after), (expected, None))

    async def test_a_page_of_commands_ends_where_it_grows_too_large(self):
        for number in range(4):
            self.store.put_command(
                command_record(f"c{number}", state="done", result="x" * 10_000, batch_id="b1")
            )
        for asked in (
            self.store.commands(None, max_bytes=25_000),
            self.store.batch("b1", max_bytes=25_000),
        ):
            page = await asked
            self.assertEqual((len(page), page.next), (2, page[-1].command_id))
        page = await self.store.commands(None, max_bytes=1)
        self.assertEqual((ids(page), page.next), (["c3"], "c3"))
        page = await self.store.batch("b1", after="c2", max_bytes=1)
        self.assertEqual((ids(page), page.next), (["c3"], None))

    async def test_the_states_of_a_batch_are_counted(self):
        for number, state in enumerate(("sent", "done", "done", "queued")):
            self.store.put_command(command_record(f"c{number}", state=state, batch_id="b1"))
        self.store.put_command(command_record("other", state="done"))
        states = await self.store.batch_states("b1")
        self.assertEqual(states, {"sent": 1, "done": 2, "queued": 1})
        self.assertEqual(await self.store.batch_states("b2"), {})

    async def test_how_long_a_command_has_is_remembered(self):
        queued = command_record("c1", state="queued", timeout_seconds=0.25)
        self.store.put_command(queued)
        self.store.put_command(command_record("c2", state="queued"))
        found = await self.store.unfinished_commands()
        self.assertEqual([each.timeout_seconds for each in found], [0.25, 30.0])

    async def test_unfinished_commands_and_batches_come_oldest_first(self):
        for number, state in enumerate(("sent", "done", "queued", "lost")):
            batch_id = "b1" if number else None
            self.store.put_command(
                command_record(
                    f"c{number}", created_ms=NOW + number, state=state, batch_id=batch_id
                )
            )
        unfinished = await self.store.unfinished_commands()
        self.assertEqual([each.command_id for each in unfinished], ["c0", "c2"])
        batch = await self.store.batch("b1")
        self.assertEqual([each.command_id for each in batch], ["c1", "c2", "c3"])

    async def test_refusals_are_found_by_agent_and_by_address(self):
        for number in range(4):
            self.store.add_refusal(refusal(number))
        self.store.add_refusal(refusal(4, agent_id=None, address="192.0.2.2"))
        newest = await self.store.refusals(limit=2)
        self.assertEqual([each.ts_ms for each in newest], [NOW + 4, NOW + 3])
        older = await self.store.refusals(agent_id="web-1", before=newest[-1].refusal_id)
        self.assertEqual([each.ts_ms for each in older], [NOW + 2, NOW + 1, NOW])
        (other,) = await self.store.refusals(address="192.0.2.2")
        self.assertIsNone(other.agent_id)

    async def test_audit_entries_are_chained_in_the_order_given(self):
        for number in range(5):
            self.store.audit("alice", "agent.add", f"web-{number}", {"b": 1, "a": "é"})
        entries = await self.store.audit_entries(limit=3)
        self.assertEqual([each.subject for each in entries], ["web-4", "web-3", "web-2"])
        self.assertEqual(entries[0].previous, entries[1].hash)
        self.assertEqual(entries[0].details, r'{"a":"\u00e9","b":1}')
        older = await self.store.audit_entries(before=entries.next)
        self.assertIsNone(older.next)
        short = await self.store.audit_entries(max_bytes=1)
        self.assertEqual((len(short), short.next), (1, entries[0].audit_id))
        self.assertEqual([each.subject for each in older], ["web-1", "web-0"])
        self.assertEqual(await self.store.verify_audit(), (5, None))

    async def test_a_join_token_gives_its_uses_and_no_more(self):
        await self.store.put_join_token(join_token(uses=2))
        digest = join_token().digest
        used = [await self.store.use_join_token(digest, NOW) for _ in range(3)]
        self.assertEqual([each and each.uses_left for each in used], [1, 0, None])
        self.assertIsNone(await self.store.use_join_token(b"another", NOW))

    async def test_a_join_token_is_used_before_it_expires_only(self):
        await self.store.put_join_token(join_token(expires_ms=NOW + 10))
        self.assertIsNone(await self.store.use_join_token(join_token().digest, NOW + 10))
        self.assertIsNotNone(await self.store.use_join_token(join_token().digest, NOW + 9))

    async def test_a_join_token_is_found_by_its_digest_and_keeps_its_uses(self):
        await self.store.put_join_token(join_token("j1"))
        await self.store.put_join_token(join_token("j2"))
        digest = join_token("j2").digest
        for _ in range(2):
            self.assertEqual(await self.store.join_token(digest), join_token("j2"))
        self.assertIsNone(await self.store.join_token(b"another"))
        await self.store.use_join_token(digest, NOW)
        self.assertIsNone(await self.store.join_token(digest))
        self.now = NOW + 1000
        self.assertIsNone(await self.store.join_token(join_token("j1").digest))

    async def test_tokens_that_ended_are_not_listed(self):
        await self.store.put_join_token(join_token("used"))
        await self.store.use_join_token(join_token("used").digest, NOW)
        await self.store.put_join_token(join_token("old", expires_ms=NOW + 5))
        await self.store.put_join_token(join_token("good", expires_ms=NOW + 6))
        await self.store.put_api_token(api_token("old", expires_ms=NOW + 5))
        await self.store.put_api_token(api_token("good", expires_ms=NOW + 6))
        self.now = NOW + 5
        self.assertEqual([each.token_id for each in await self.store.join_tokens()], ["good"])
        self.assertEqual([each.token_id for each in await self.store.api_tokens()], ["good"])

    async def test_tokens_are_listed_newest_first_and_deleted(self):
        await self.store.put_api_token(api_token("t1", created_ms=NOW - 1))
        await self.store.put_api_token(api_token("t2"))
        await self.store.put_api_token(api_token("t2", last_used_ms=NOW))
        expected = [api_token("t2", last_used_ms=NOW), api_token("t1", created_ms=NOW - 1)]
        self.assertEqual(await self.store.api_tokens(), expected)
        self.assertTrue(await self.store.delete_api_token("t1"))
        self.assertFalse(await self.store.delete_api_token("t1"))
        await self.store.put_join_token(join_token())
        self.assertEqual(await self.store.join_tokens(), [join_token()])
        self.assertTrue(await self.store.delete_join_token("j1"))
        self.assertFalse(await self.store.delete_join_token("j1"))

    async def test_an_agent_nobody_knows_has_no_history(self):
        self.assertEqual((await self.store.metrics("x", 0, NOW, 10)).points, ())
        self.assertEqual(await self.store.logs("x", contains="a"), [])
        self.assertEqual(await self.store.sessions("x"), [])

    async def test_it_is_well(self):
        self.store.put_command(command_record("c1"))
        await self.store.flush()
        health = self.store.health()
        self.assertEqual((health.ok, health.words, health.waiting), (True, None, 0))


class SQLiteStoreTest(StoreBehaviour, SQLiteCase):
    async def setUp(self):
        super().setUp()
        self.store = await self.opened()


class NullStoreTest(StoreBehaviour, TestCase):
    def setUp(self):
        self.now = NOW
        self.store = NullStore(now_ms=lambda: self.now)

    async def test_commands_are_bounded_and_those_that_wait_stay(self):
        self.patch(null, "MAX_COMMANDS", 3)
        for number, state in enumerate(("queued", "done", "sent", "sent", "done")):
            self.store.put_command(command_record(f"c{number}", state=state))
        left = [each.command_id for each in await self.store.unfinished_commands()]
        self.assertEqual(left, ["c0", "c2", "c3"])

    async def test_commands_and_audit_entries_take_so_much_memory_and_no_more(self):
        self.patch(null, "MAX_BYTES", 50_000)
        for number in range(20):
            self.store.put_command(command_record(f"c{number}"))
            self.store.put_command(command_record(f"c{number}", state="done", result="x" * 10_000))
            self.store.audit("alice", "command.send", "x" * 10_000, {})
        self.assertEqual(ids(await self.store.commands(None)), ["c19", "c18", "c17", "c16"])
        entries = await self.store.audit_entries()
        self.assertEqual([each.audit_id for each in entries], [20, 19, 18, 17])
        self.assertEqual(await self.store.verify_audit(), (4, None))
        self.store.put_command(command_record("large", state="done", result="x" * 100_000))
        self.assertEqual(ids(await self.store.commands(None)), ["large"])

    async def test_a_backup_is_refused(self):
        with self.assertRaises(StoreError):
            await self.store.backup(self.mktemp())
