"""One agent's conversation: what is acted upon, and what ends it."""

from __future__ import annotations

import hashlib
import hmac

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub import fleet
from jetcamer.hub.fleet import Agent, Fleet
from jetcamer.hub.records import AgentRecord, RefusalRecord
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import Policy, RateLimit
from jetcamer.protocol.envelope import AuthPayload, CommandResultPayload, LogPayload, MetricsPayload
from jetcamer.protocol.errors import ProtocolError
from jetcamer.protocol.replay import ReplayGuard
from tests.hub.doubles import NOW, SECRETS, FakeConnection, RecordingListener, SealingAgent, keys


class SessionTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.keys = keys()
        self.listener = RecordingListener()
        self.agent = SealingAgent()
        self.connection, self.session = self.connect()

    def connect(self) -> tuple[FakeConnection, AgentSession]:
        connection = FakeConnection()
        session = AgentSession(connection, self.keys, self.listener, lambda: self.now)
        return connection, session

    def refused(self, data: bytes, code: int, reason: str) -> None:
        """`data` closes the connection with that; nothing it says is acted upon, then or later."""
        self.listener.events.clear()
        self.session.message_received(data)
        self.assertEqual(self.connection.closed, (code, reason))
        self.assertEqual(self.listener.events, [("refused", reason)])
        self.session.message_received(self.agent.auth())
        self.session.message_received(self.agent.metrics())
        self.assertEqual(self.listener.events, [("refused", reason)])


class AcceptedTests(SessionTestCase):
    def test_every_kind(self) -> None:
        """Each kind of message reaches the listener with its payload as a value."""
        agent = self.agent
        for message in (
            agent.auth(),
            agent.metrics(),
            agent.seal("heartbeat", {"status": "alive"}),
            agent.seal("log", {"level": "warn", "message": "<&>\u2028é"}),
            agent.result("ping", "pong", "some-nonce"),
        ):
            self.session.message_received(message)
        self.assertEqual(
            self.listener.names(),
            ["authenticated", "metrics", "heartbeat", "log", "command_result"],
        )
        self.assertEqual(self.listener.of("authenticated"), [AuthPayload("web-01", "5.0.0")])
        self.assertEqual(self.listener.of("metrics"), [MetricsPayload(25.5, 45.2, 60.1)])
        self.assertEqual(self.listener.of("log"), [LogPayload("warn", "<&>\u2028é")])
        self.assertEqual(
            self.listener.of("command_result"),
            [CommandResultPayload("ping", "pong", "", "some-nonce")],
        )
        self.assertIsNone(self.connection.closed)
        self.assertEqual((self.session.verified, self.session.refused), (5, 0))
        self.assertEqual(self.session.last_seen_ms, NOW)
        self.assertTrue(self.session.open)

    def test_go_dialect(self) -> None:
        """What a Go agent sends verifies: it escapes the ampersand, and leaves `error` out."""
        self.session.message_received(self.agent.auth())
        signed = (
            b'{"type":"command_result","agentId":"agent-1","ts":%d,"nonce":"n-1","payload":'
            b'{"command":"get_status","result":"CGroup: sh -c a \\u0026\\u0026 b \\u003cc\\u003e"}}'
        ) % NOW
        signature = hmac.new(SECRETS["agent-1"].encode(), signed, hashlib.sha256).hexdigest()
        message = signed[:-1] + b',"signature":"' + signature.encode() + b'"}'
        self.session.message_received(message)
        self.assertEqual(
            self.listener.of("command_result"),
            [CommandResultPayload("get_status", "CGroup: sh -c a && b <c>")],
        )
        self.assertIsNone(self.connection.closed)

    def test_second_auth(self) -> None:
        """An agent may say anew who it is; it stays who it is."""
        self.session.message_received(self.agent.auth())
        self.session.message_received(
            self.agent.seal("auth", {"hostname": "renamed", "version": "5.0.1"})
        )
        self.assertEqual(self.session.auth, AuthPayload("renamed", "5.0.1"))
        self.assertEqual(self.listener.names(), ["authenticated"] * 2)

    def test_unknown_type(self) -> None:
        """A type nobody knows is counted and passed over, as the servers in the field do."""
        self.session.message_received(self.agent.auth())
        self.session.message_received(self.agent.seal("telemetry", {}))
        self.session.message_received(self.agent.seal("command", {"command": "ping"}))
        self.session.message_received(self.agent.metrics())
        self.assertEqual(self.listener.names(), ["authenticated", "refused", "refused", "metrics"])
        self.assertEqual(self.listener.of("refused"), ["unknown_type"] * 2)
        self.assertIsNone(self.connection.closed)

    def test_odd_payload(self) -> None:
        """A verified message with a payload that makes no sense costs itself only."""
        self.session.message_received(self.agent.auth())
        self.session.message_received(self.agent.seal("metrics", {"cpuPercent": "hot"}))
        self.assertEqual(self.listener.of("refused"), ["invalid_payload"])
        self.assertIsNone(self.connection.closed)
        self.assertEqual(self.session.refused, 1)


class RefusedTests(SessionTestCase):
    def test_not_json(self) -> None:
        """Text that is no message closes with what the servers in the field send."""
        self.refused(b"hello", 1003, "invalid_json")

    def test_every_byte(self) -> None:
        """No single byte of garbage is an exception."""
        for byte in range(256):
            connection, session = self.connect()
            session.message_received(bytes([byte]))
            self.assertEqual(connection.closed, (1003, "invalid_json"))

    def test_binary(self) -> None:
        self.session.binary_received()
        self.assertEqual(self.connection.closed, (1003, "not_text"))
        self.assertEqual(self.listener.of("refused"), ["not_text"])

    def test_unknown_agent(self) -> None:
        stranger = SealingAgent("agent-3", "whatever")
        self.refused(stranger.auth(), 1008, "unknown_agent")

    def test_wrong_key(self) -> None:
        """The right name with another's key is nobody."""
        impostor = SealingAgent("agent-1", SECRETS["agent-2"])
        self.refused(impostor.auth(), 1008, "invalid_signature")

    def test_changed(self) -> None:
        """A message changed on its way, on a session that was good."""
        self.session.message_received(self.agent.auth())
        changed = self.agent.metrics().replace(b"25.5", b"25.6")
        self.refused(changed, 1008, "invalid_signature")

    def test_short_signature(self) -> None:
        message = self.agent.auth()
        self.refused(message[:-4] + b'"}', 1008, "invalid_signature")

    def test_clock_behind(self) -> None:
        """An agent whose clock is wrong is told by how much, and is shown as that."""
        self.session.message_received(self.agent.auth(ts=NOW - 412_000))
        words = "412 s behind this clock"
        self.assertEqual(self.connection.closed, (1008, f"invalid_timestamp: {words}"))
        (refusal,) = self.listener.refusals
        self.assertEqual((refusal.reason, refusal.words), ("invalid_timestamp", f"ts: {words}"))
        self.assertEqual((refusal.own, refusal.skew_ms), (True, -412_000))
        agent = self.keys.get("agent-1")
        agent.address = "192.0.2.7"
        agent.was_refused(refusal)
        self.assertEqual(agent.state(NOW), ("clock_wrong", "clock wrong by 412 s (behind)"))
        # A recording of it may be sent from anywhere.
        agent.address = "192.0.2.1"
        self.assertEqual(
            agent.state(NOW), ("clock_wrong", "clock wrong by 412 s (behind), from 192.0.2.7")
        )
        _, session = self.connect()
        session.message_received(self.agent.auth())
        self.assertIsNone(agent.skew_ms)

    def test_clock_ahead(self) -> None:
        self.session.message_received(self.agent.auth(ts=NOW + 300_001))
        words = "invalid_timestamp: 300 s ahead of this clock"
        self.assertEqual(self.connection.closed, (1008, words))
        self.assertEqual(self.listener.refusals[0].skew_ms, 300_001)

    def test_clock_set_back(self) -> None:
        """Within what is let through, but behind what is remembered: said in words that help."""
        agent = self.keys.get("agent-1")
        agent.address = "192.0.2.7"
        agent.replay = ReplayGuard(floor=NOW)
        self.session.message_received(self.agent.auth(ts=NOW - 119_500))
        words = "its clock was set back by about 120 s: accepted again in about 120 s"
        self.assertEqual(self.connection.closed, (1008, f"invalid_timestamp: {words}"))
        (refusal,) = self.listener.refusals
        agent.was_refused(refusal)
        self.assertEqual(agent.state(NOW), ("clock_wrong", words))

    def test_a_forger_sets_no_clock(self) -> None:
        """What is not signed by the agent says nothing of its clock."""
        impostor = SealingAgent("agent-1", SECRETS["agent-2"])
        self.refused(impostor.auth(ts=NOW - 412_000), 1008, "invalid_signature")
        self.assertIsNone(self.listener.refusals[0].skew_ms)

    def test_whose_refusal_it_is(self) -> None:
        """What only claims to come from an agent says nothing of it, unless it comes from where
        the agent was; nor does anything while it is here."""
        agent = self.keys.get("agent-1")
        impostor = SealingAgent("agent-1", SECRETS["agent-2"])
        unknown_form = self.agent.auth()[:-1] + b',"more":1}'
        for address, online, message, own in (
            ("", False, impostor.auth(), True),
            ("192.0.2.7", False, impostor.auth(), True),
            ("192.0.2.1", False, impostor.auth(), False),
            ("192.0.2.7", False, unknown_form, True),
            ("192.0.2.1", False, unknown_form, False),
            ("192.0.2.1", False, self.agent.metrics(), True),
            ("192.0.2.1", False, self.agent.auth(ts=NOW - 400_000), True),
            ("192.0.2.1", False, self.agent.seal("auth", {"hostname": 7}), True),
            ("192.0.2.7", True, impostor.auth(), False),
            ("192.0.2.7", True, self.agent.auth(ts=NOW - 400_000), False),
            ("192.0.2.7", True, self.agent.metrics(), False),
        ):
            agent.address = address
            _, agent.session = self.connect() if online else (None, None)
            _, session = self.connect()
            session.message_received(message)
            refusal = self.listener.refusals[-1]
            self.assertEqual((refusal.agent_id, refusal.own), ("agent-1", own), (address, message))

    def test_odd_messages_are_not_the_agents_state(self) -> None:
        self.session.message_received(self.agent.auth())
        self.session.message_received(self.agent.seal("telemetry", {}))
        self.session.message_received(self.agent.seal("metrics", {"cpuPercent": "hot"}))
        self.assertEqual([refusal.own for refusal in self.listener.refusals], [False] * 2)
        self.session.binary_received()
        self.assertTrue(self.listener.refusals[-1].own)

    def test_ts_beyond_all_bounds(self) -> None:
        message = self.agent.auth().replace(b'"ts":%d' % NOW, b'"ts":%d' % 10**30)
        self.session.message_received(message)
        self.assertEqual(self.connection.closed, (1008, "invalid_timestamp"))

    def test_edge_of_the_window(self) -> None:
        self.session.message_received(self.agent.auth(ts=NOW - 300_000))
        self.assertEqual(self.listener.names(), ["authenticated"])

    def test_replay_on_the_same_connection(self) -> None:
        self.session.message_received(self.agent.auth())
        metrics = self.agent.metrics()
        self.session.message_received(metrics)
        self.refused(metrics, 1008, "replayed_nonce")

    def test_replay_on_another_connection(self) -> None:
        """A recorded `auth` opens no second session."""
        auth = self.agent.auth()
        self.session.message_received(auth)
        self.connection, self.session = self.connect()
        self.refused(auth, 1008, "replayed_nonce")

    def test_who_and_whence(self) -> None:
        """A refusal says who it claimed to be, from where, and which check failed."""
        self.session = AgentSession(
            self.connection,
            self.keys,
            self.listener,
            lambda: self.now,
            Policy(explain=lambda data, agent: f"{agent.agent_id} signed {len(data)} bytes"),
        )
        impostor = SealingAgent("agent-1", SECRETS["agent-2"])
        message = impostor.auth()
        self.session.message_received(message)
        self.assertEqual(
            self.listener.refusals,
            [
                RefusalRecord(
                    ts_ms=NOW,
                    agent_id="agent-1",
                    address="192.0.2.7",
                    reason="invalid_signature",
                    words="signature: does not match the message: agent-1 signed"
                    f" {len(message)} bytes",
                    own=True,
                )
            ],
        )

    def test_rate(self) -> None:
        """A burst, then so many a second; over all of an agent's connections."""
        policy = Policy(RateLimit(per_second=10, burst=5))

        def session() -> AgentSession:
            return AgentSession(self.connection, self.keys, self.listener, lambda: self.now, policy)

        self.session = session()
        self.session.message_received(self.agent.auth())
        for _ in range(4):
            self.session.message_received(self.agent.metrics())
        self.assertIsNone(self.connection.closed)
        self.now += 100
        self.session.message_received(self.agent.metrics(ts=self.now))
        self.assertIsNone(self.connection.closed)
        self.refused(self.agent.metrics(ts=self.now), 1008, "rate_limited")
        self.connection = FakeConnection()
        self.session = session()
        self.refused(self.agent.auth(ts=self.now), 1008, "rate_limited")
        # Time passes: no more than the burst comes together.
        self.now += 3_600_000
        self.connection = FakeConnection()
        self.session = session()
        self.agent.now = self.now
        self.session.message_received(self.agent.auth())
        for _ in range(4):
            self.session.message_received(self.agent.metrics())
        self.assertIsNone(self.connection.closed)
        self.refused(self.agent.metrics(), 1008, "rate_limited")

    def test_long_messages_count_more(self) -> None:
        policy = Policy(RateLimit(per_second=10, burst=100))
        self.session = AgentSession(
            self.connection, self.keys, self.listener, lambda: self.now, policy
        )
        self.session.message_received(self.agent.auth())
        long = "x" * 404_000
        self.session.message_received(self.agent.seal("log", {"level": "info", "message": long}))
        self.assertIsNone(self.connection.closed)
        self.refused(self.agent.metrics(), 1008, "rate_limited")

    def test_our_clock_is_set_back(self) -> None:
        """It lets nobody in that should not, and keeps nobody out."""
        self.session.message_received(self.agent.auth())
        self.now -= 60_000
        self.session.message_received(self.agent.metrics())
        self.assertIsNone(self.connection.closed)

    def test_who_it_was_in_a_message_that_is_none(self) -> None:
        """A signature in another form, a member too many: it is still known who claimed it."""
        explained: list[bytes] = []

        def explain(data: bytes, agent: Agent) -> str:
            explained.append(data)
            return "in capitals"

        good = self.agent.auth()
        for data, reason in (
            (good[:-66] + good[-66:-2].upper() + good[-2:], "invalid_signature"),
            (good[:-1] + b',"more":1}', "invalid_json"),
        ):
            connection = FakeConnection()
            session = AgentSession(
                connection, self.keys, self.listener, lambda: self.now, Policy(explain=explain)
            )
            session.message_received(data)
            refusal = self.listener.refusals[-1]
            self.assertEqual((refusal.agent_id, refusal.reason), ("agent-1", reason))
        self.assertEqual(len(explained), 1)
        for data in (b'{"agentId":"\\ud800"}', b'{"agentId":7}', b"[" * 100_000, b'{"agentId":""}'):
            _, session = self.connect()
            session.message_received(data)
            self.assertIsNone(self.listener.refusals[-1].agent_id)

    def test_clock_of_a_stranger_with_the_shared_secret(self) -> None:
        """It is known from then on, for an operator to see why it does not come."""
        self.keys = Fleet(legacy_secret="shared by all")
        self.connection, self.session = self.connect()
        self.session.message_received(SealingAgent("old-7", "shared by all").auth(ts=NOW - 400_000))
        self.assertIsNotNone(self.keys.get("old-7"))
        (refusal,) = self.listener.refusals
        self.assertEqual((refusal.own, refusal.skew_ms), (True, -400_000))

    def test_names_that_are_none(self) -> None:
        """Who knows the shared secret may not choose a name that no agent may have."""
        self.keys = Fleet(legacy_secret="shared by all")
        for name in ("a b", "a/b", "..", "a\x1bb", "x" * 129):
            self.connection, self.session = self.connect()
            self.session.message_received(SealingAgent(name, "shared by all").auth())
            self.assertEqual(self.connection.closed, (1008, "unknown_agent"))
            words = self.listener.refusals[-1].words
            self.assertIn("no agent can be known as ", words)
            self.assertIn(": an agent's id is 1 to 128 printable characters", words)
        self.assertEqual(len(self.keys), 0)

    def test_strangers_are_counted_apart(self) -> None:
        """However many agents have secrets of their own, those without are let in."""
        self.patch(fleet, "_MOST_LEGACY", 2)
        self.keys = Fleet(legacy_secret="shared by all")
        for n in range(5):
            record = AgentRecord(agent_id=f"own-{n}", created_ms=NOW)
            self.keys.add(record, [("a secret", None)])
        for name, closed in (("old-1", None), ("old-2", None), ("old-3", (1008, "unknown_agent"))):
            self.connection, self.session = self.connect()
            self.session.message_received(SealingAgent(name, "shared by all").auth())
            self.assertEqual(self.connection.closed, closed)
        self.keys.set_secrets("old-1", [("its own", None)])
        self.connection, self.session = self.connect()
        self.session.message_received(SealingAgent("old-3", "shared by all").auth())
        self.assertIsNone(self.connection.closed)
        self.connection, self.session = self.connect()
        self.session.message_received(SealingAgent("old-4", "shared by all").auth())
        self.assertEqual(self.connection.closed, (1008, "unknown_agent"))

    def test_changed_agent(self) -> None:
        """Not even with the right key."""
        self.session.message_received(self.agent.auth())
        self.refused(self.agent.metrics(agent_id="agent-2"), 1008, "wrong_agent")

    def test_other_agent(self) -> None:
        """Nor another agent with its own."""
        self.session.message_received(self.agent.auth())
        self.refused(SealingAgent("agent-2").metrics(), 1008, "invalid_signature")

    def test_before_auth(self) -> None:
        """A first message that is not `auth`, whatever its signature."""
        self.refused(self.agent.metrics(), 1008, "auth_required")
        self.assertIsNone(self.session.agent_id)

    def test_odd_auth(self) -> None:
        """An `auth` that does not say who it is."""
        self.refused(self.agent.seal("auth", {"hostname": 7}), 1003, "invalid_json")

    def test_overdue(self) -> None:
        self.session.auth_overdue()
        self.assertEqual(self.connection.closed, (1008, "auth_timeout"))
        self.assertEqual(self.listener.of("refused"), ["auth_timeout"])

    def test_not_overdue(self) -> None:
        self.session.message_received(self.agent.auth())
        self.session.auth_overdue()
        self.assertIsNone(self.connection.closed)


class KeyTests(SessionTestCase):
    """Which of an agent's secrets is valid, also while it is connected."""

    def test_rotation(self) -> None:
        """Old and new are valid for a time; what a connection uses, its commands are signed
        with."""
        self.keys.set_secrets("agent-1", [("the new secret", None), (SECRETS["agent-1"], NOW)])
        self.session.message_received(self.agent.auth())
        self.session.send_command("ping", {})
        self.assertEqual(len(self.connection.commands()), 1)
        renewed = SealingAgent("agent-1", "the new secret")
        self.session.message_received(renewed.metrics())
        self.session.message_received(renewed.metrics())
        self.session.send_command("ping", {})
        sent = self.connection.sent[-1]
        self.assertEqual(renewed.key.open(sent).type, "command")
        self.assertIsNone(self.connection.closed)
        self.keys.set_secrets("agent-1", [("the new secret", None)])
        self.session.message_received(renewed.metrics())
        self.assertEqual(len(self.listener.of("metrics")), 3)
        self.refused(self.agent.metrics(), 1008, "invalid_signature")

    def test_revoked(self) -> None:
        self.session.message_received(self.agent.auth())
        self.keys.revoke("agent-1", NOW)
        self.refused(self.agent.metrics(), 1008, "unknown_agent")
        self.connection, self.session = self.connect()
        self.refused(self.agent.auth(), 1008, "unknown_agent")
        self.assertEqual(self.listener.refusals[-1].words, "agent-1 was revoked")
        self.assertEqual(self.keys.get("agent-1").state(NOW)[0], "revoked")

    def test_shared_secret(self) -> None:
        """Whoever knows it is who he says he is; he is known from then on, and marked."""
        self.keys = Fleet(legacy_secret="shared by all")
        self.connection, self.session = self.connect()
        self.refused(SealingAgent("old-7", "guessed").auth(), 1008, "invalid_signature")
        self.assertEqual(len(self.keys), 0)
        self.connection, self.session = self.connect()
        old = SealingAgent("old-7", "shared by all")
        auth = old.auth()
        self.session.message_received(auth)
        self.session.message_received(old.metrics())
        self.assertIsNone(self.connection.closed)
        self.assertTrue(self.keys.get("old-7").legacy)
        self.connection, self.session = self.connect()
        self.refused(auth, 1008, "replayed_nonce")

    def test_own_secret_before_the_shared_one(self) -> None:
        self.keys = Fleet(legacy_secret="shared by all")
        record = AgentRecord(agent_id="agent-1", created_ms=NOW)
        self.keys.add(record, [(SECRETS["agent-1"], None)])
        self.connection, self.session = self.connect()
        self.refused(SealingAgent("agent-1", "shared by all").auth(), 1008, "invalid_signature")


class EndTests(SessionTestCase):
    def test_disconnected(self) -> None:
        self.session.message_received(self.agent.auth())
        self.session.connection_lost("gone")
        self.assertEqual(self.listener.of("disconnected"), ["gone"])
        self.assertFalse(self.session.open)

    def test_never_authenticated(self) -> None:
        """Whom nobody met, nobody misses."""
        self.session.connection_lost("gone")
        self.assertEqual(self.listener.events, [])

    def test_close_once(self) -> None:
        self.session.close(1012, "service_restart")
        self.session.close(1000, "again")
        self.assertEqual(self.connection.closed, (1012, "service_restart"))


class CommandTests(SessionTestCase):
    def test_sealed(self) -> None:
        """A command carries our signature, the agent's id, the time and a nonce of its own."""
        self.session.message_received(self.agent.auth())
        nonces = [self.session.send_command("restart", {"unit": "a & b"}) for _ in range(2)]
        commands = self.connection.commands()
        self.assertEqual([envelope.nonce for envelope, _ in commands], nonces)
        self.assertEqual(len(set(nonces)), 2)
        for envelope, payload in commands:
            self.assertEqual((envelope.type, envelope.agent_id), ("command", "agent-1"))
            self.assertEqual(envelope.ts, NOW)
            self.assertEqual((payload.command, payload.args), ("restart", {"unit": "a & b"}))

    def test_not_before_auth(self) -> None:
        self.assertRaises(ValueError, self.session.send_command, "ping", {})
        self.assertEqual(self.connection.sent, [])

    def test_not_while_closing(self) -> None:
        self.session.message_received(self.agent.auth())
        self.session.close(1000, "")
        self.assertRaises(ValueError, self.session.send_command, "ping", {})

    def test_too_large(self) -> None:
        self.session.message_received(self.agent.auth())
        args = {"text": "x" * (1 << 20)}
        error = self.assertRaises(ProtocolError, self.session.send_command, "echo", args)
        self.assertEqual(error.code, "too_large")
        self.assertEqual(self.connection.sent, [])
