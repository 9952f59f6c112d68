"""One conversation, on a clock, with the other end in the test's hand."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.send_queue import MAX_PAYLOAD, Counters, SendQueue
from jetcamer.agent.session import Session, SessionSettings
from jetcamer.net.websocket import Disconnected
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.envelope import CommandResultPayload, decode_payload
from jetcamer.protocol.replay import ReplayGuard
from jetcamer.protocol.signing import SigningKey
from tests.support.doubles import (
    AGENT_ID,
    SECRET,
    FakeConnection,
    FakeDispatcher,
    FakeSampler,
    lost,
)
from tests.support.logs import LogsMixin

NOW = 1_731_819_422.5


class SessionTests(LogsMixin, SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.queue = SendQueue(self.counters)
        self.guard = ReplayGuard()
        self.dispatcher = FakeDispatcher()
        self.sampler = FakeSampler()
        self.ended: list[Disconnected] = []
        self.nonces = 0
        self.logs = self.capture_logs()
        self.connection, self.session = self.connect()

    def connect(self) -> tuple[FakeConnection, Session]:
        connection = FakeConnection()
        return connection, self.connect_over(connection)

    def connect_over(self, connection: FakeConnection) -> Session:
        return Session(
            connection,  # type: ignore[arg-type]
            SigningKey(SECRET),
            AGENT_ID,
            settings=SessionSettings("server-01", "5.0.0", ("inReplyTo",), 5.0, 30.0),
            queue=self.queue,
            guard=self.guard,
            sampler=self.sampler,
            dispatcher=self.dispatcher,
            counters=self.counters,
            clock=self.clock,
            now=lambda: NOW + self.clock.seconds(),
            on_disconnected=self.ended.append,
        )

    def command(
        self,
        payload: dict[str, Any] | None = None,
        *,
        type_: str = "command",
        secret: str = SECRET,
        agent_id: str = AGENT_ID,
        ts: int | None = None,
        nonce: str | None = None,
    ) -> bytes:
        self.nonces += 1
        text = canonical({"command": "ping", "args": {}} if payload is None else payload)
        return SigningKey(secret).seal(
            type_,
            agent_id,
            text,
            ts=int((NOW + self.clock.seconds()) * 1000) if ts is None else ts,
            nonce=nonce or f"nonce-{self.nonces}",
        )

    def end(self) -> None:
        self.session.disconnected(lost())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_is_sent_before_auth_and_auth_says_who_it_is(self) -> None:
        self.queue.log_message("info", "said while the link was down", None)
        self.assertEqual(self.connection.sent, [])
        self.session.start()
        auth, log = self.connection.messages()
        self.assertEqual((auth.type, auth.agent_id), ("auth", AGENT_ID))
        self.assertEqual(auth.ts, int(NOW * 1000))
        self.assertEqual(
            bytes(auth.payload),
            b'{"hostname":"server-01","version":"5.0.0","capabilities":["inReplyTo"]}',
        )
        self.assertEqual(log.type, "log")
        self.assertLogged(self.logs, "[ws] sending auth message")
        self.assertLogged(self.logs, "[ws] ✓ auth message sent successfully")
        self.end()

    def test_metrics_every_5_s_and_heartbeats_every_30_s_after_auth(self) -> None:
        self.session.start()
        self.clock.advance(4.9)
        self.assertEqual(self.connection.types(), ["auth"])
        self.clock.pump([0.1] + [5] * 11)
        sent = self.connection.messages()
        self.assertEqual([e.type for e in sent].count("metrics"), 12)
        self.assertEqual([e.type for e in sent].count("heartbeat"), 2)
        self.assertEqual(
            [e.ts for e in sent if e.type == "metrics"],
            [int(NOW * 1000) + 5000 * n for n in range(1, 13)],
        )
        self.assertEqual(
            [bytes(e.payload) for e in sent if e.type == "heartbeat"], [b'{"status":"alive"}'] * 2
        )
        self.assertLogged(self.logs, "[ws] metrics sent: cpu=1.00% mem=50.25% disk=60.00%")
        self.assertLogged(self.logs, "[ws] heartbeat sent")
        self.end()

    def test_integral_readings_are_sent_as_javascript_writes_them(self) -> None:
        self.session.start()
        self.clock.advance(5)
        self.assertEqual(
            bytes(self.connection.messages()[-1].payload),
            b'{"cpuPercent":1,"memPercent":50.25,"diskUsage":60}',
        )
        self.end()

    def test_a_sampler_that_raises_does_not_end_the_metrics(self) -> None:
        self.session.start()
        self.sampler.failing = True
        self.clock.advance(5)
        self.sampler.failing = False
        self.clock.advance(5)
        self.assertEqual(self.connection.types(), ["auth", "metrics"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.end()

    def test_no_reading_no_message(self) -> None:
        self.sampler.sample = dict  # type: ignore[assignment,method-assign]
        self.session.start()
        self.clock.advance(5)
        self.assertEqual(self.connection.types(), ["auth"])
        self.end()

    def test_timers_die_with_the_connection(self) -> None:
        self.session.start()
        self.clock.advance(5)
        self.end()
        self.clock.advance(60)
        self.assertEqual(self.connection.types(), ["auth", "metrics"])
        self.assertEqual([reason.words for reason in self.ended], ["connection lost"])

    def test_a_command_runs_and_its_result_is_sent(self) -> None:
        self.session.start()
        self.session.message_received(self.command({"command": "ping", "args": {"a": "b"}}))
        command, args, nonce, done = self.dispatcher.submitted[0]
        self.assertEqual((command, args, nonce), ("ping", {"a": "b"}, "nonce-1"))
        done.callback({"command": "ping", "result": "pong", "error": "", "inReplyTo": nonce})
        result = self.connection.messages()[-1]
        self.assertEqual(result.type, "command_result")
        payload = decode_payload(result, CommandResultPayload)
        self.assertEqual((payload.result, payload.in_reply_to), ("pong", "nonce-1"))
        self.assertEqual(self.counters.received["command"], 1)
        self.assertLogged(self.logs, "[ws] received message: type=command")
        self.end()

    def test_the_servers_clock_is_told_by_its_date_and_by_what_it_signs(self) -> None:
        self.assertIsNone(self.session.server_time)
        self.connection.server_date = NOW - 3
        self.session = self.connect_over(self.connection)
        self.assertEqual(self.session.server_time, (NOW - 3, 0.0))
        self.session.start()
        self.clock.advance(2)
        self.session.message_received(self.command(ts=int(NOW * 1000) + 7000))
        self.assertEqual(self.session.server_time, (NOW + 7, 2.0))
        self.session.message_received(self.command(ts=int(NOW * 1000) + 900_000))
        self.session.message_received(self.command(secret="not the secret"))
        self.assertEqual(self.session.server_time, (NOW + 7, 2.0))
        self.end()

    def test_args_may_be_missing(self) -> None:
        self.session.start()
        self.session.message_received(self.command({"command": "ping"}))
        self.assertEqual(self.dispatcher.submitted[0][1], {})
        self.end()

    def assert_refused(self, data: bytes, code: str) -> None:
        submitted, refused = len(self.dispatcher.submitted), self.counters.refused[code]
        self.session.message_received(data)
        self.assertEqual(len(self.dispatcher.submitted), submitted)
        self.assertEqual(self.counters.refused[code], refused + 1, dict(self.counters.refused))
        self.assertLogged(self.logs, f"[ws] message refused: {code}")

    def test_an_unverified_command_is_dropped_counted_and_said(self) -> None:
        self.session.start()
        self.assert_refused(self.command(secret="not the secret"), "invalid_signature")
        self.assertNotIn(SECRET, "\n".join(self.logs.lines))
        self.end()

    def test_a_command_for_another_agent(self) -> None:
        self.session.start()
        self.assert_refused(self.command(agent_id="agent-2"), "wrong_agent")
        self.end()

    def test_a_command_of_another_time(self) -> None:
        self.session.start()
        self.assert_refused(self.command(ts=int(NOW * 1000) - 300_001), "invalid_timestamp")
        self.session.message_received(self.command(ts=int(NOW * 1000) - 299_000))
        self.session.message_received(self.command(ts=int(NOW * 1000) + 299_000))
        self.assertEqual(len(self.dispatcher.submitted), 2)
        self.end()

    def test_the_same_nonce_never_runs_twice_whatever_connection_it_comes_on(self) -> None:
        self.session.start()
        data = self.command(nonce="once")
        self.session.message_received(data)
        self.session.message_received(data)
        self.end()
        self.connection, self.session = self.connect()
        self.session.start()
        self.session.message_received(data)
        self.assertEqual(len(self.dispatcher.submitted), 1)
        self.assertEqual(self.counters.refused["replayed_nonce"], 2)
        self.end()

    def test_types_a_server_does_not_send(self) -> None:
        self.session.start()
        self.assert_refused(self.command({"status": "alive"}, type_="heartbeat"), "unexpected_type")
        self.end()

    def test_malformed_messages(self) -> None:
        self.session.start()
        for data in (b"", b"hello", b"[]", b"\xff\xfe", b"{}", b'{"type":1}'):
            self.session.message_received(data)
        self.assertEqual(sum(self.counters.refused.values()), 6)
        self.assert_refused(self.command({"command": 1}), "wrong_type")
        self.assertEqual(self.connection.types(), ["auth"])
        self.end()

    def test_a_result_outlives_the_connection_its_command_came_on(self) -> None:
        self.session.start()
        self.session.message_received(self.command(nonce="slow"))
        self.end()
        self.dispatcher.submitted[0][3].callback(
            {"command": "ping", "result": "pong", "error": "", "inReplyTo": "slow"}
        )
        self.connection, self.session = self.connect()
        self.session.start()
        self.assertEqual(self.connection.types(), ["auth", "command_result"])
        self.end()

    def test_a_slow_server_gets_fewer_metrics_but_every_result(self) -> None:
        self.queue = SendQueue(self.counters, limit=2500)
        self.connection, self.session = self.connect()
        self.session.start()
        self.assertIs(self.connection.producer, self.queue.producer)
        self.connection.producer.pauseProducing()
        self.session.message_received(self.command(nonce="n"))
        self.dispatcher.submitted[0][3].callback(
            {"command": "ping", "result": "x" * 200, "error": "", "inReplyTo": "n"}
        )
        for _ in range(100):
            self.clock.advance(5)
        self.assertEqual(self.connection.types(), ["auth"])
        self.assertLessEqual(self.queue.size, 2500)
        self.assertGreater(self.counters.dropped["metrics"], 80)
        self.assertGreater(self.counters.dropped["heartbeat"], 0)
        self.connection.producer.resumeProducing()
        types = self.connection.types()
        self.assertEqual(types[:2], ["auth", "command_result"])
        metrics = [e for e in self.connection.messages() if e.type == "metrics"]
        kept = [int((NOW + 500 - 5 * n) * 1000) for n in reversed(range(len(metrics)))]
        self.assertEqual([e.ts for e in metrics], kept, "the newest, as of when they were taken")
        self.assertGreater(len(metrics), 2)
        self.assertEqual(self.counters.sent["metrics"], len(metrics))
        self.assertLogged(self.logs, "[ws] dropping messages")
        self.assertLogged(self.logs, "[ws] the server keeps up again")
        self.end()

    def test_what_comes_after_a_close_frame_waits_for_the_next_session(self) -> None:
        self.session.start()
        self.assertTrue(self.session.is_open)
        self.session.message_received(self.command(nonce="late"))
        self.session.closing()
        self.assertFalse(self.session.is_open)
        self.clock.advance(60)
        self.dispatcher.submitted[0][3].callback(
            {"command": "ping", "result": "pong", "error": "", "inReplyTo": "late"}
        )
        self.queue.log_message("info", "later", None)
        self.assertEqual(self.connection.types(), ["auth"])
        self.assertEqual(self.counters.sent["command_result"], 0)
        self.end()
        self.connection, self.session = self.connect()
        self.session.start()
        self.assertEqual(self.connection.types(), ["auth", "command_result", "log"])
        self.end()

    def test_a_session_that_is_ending_runs_no_command(self) -> None:
        self.session.start()
        self.connection.producer.pauseProducing()
        self.queue.command_result({"command": "ping", "result": "pong", "error": ""})
        self.session.finish("credentials changed")
        self.assert_refused(self.command(), "closing")
        self.end()

    def test_what_cannot_be_sealed_is_counted_and_the_session_goes_on(self) -> None:
        self.session.start()
        self.assertFalse(self.queue.log_message("info", "x" * (MAX_PAYLOAD + 1), None))
        self.assertTrue(self.queue.log_message("info", "x" * (MAX_PAYLOAD - 100), None))
        self.assertEqual(self.connection.types(), ["auth", "log"])
        self.assertEqual(self.counters.dropped["log"], 1)
        self.connection.send = lambda data: 1 / 0  # type: ignore[assignment,method-assign]
        self.queue.log_message("info", "not written", None)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.counters.dropped["log"], 2)
        self.end()

    def test_metrics_of_a_moment_that_is_over_are_counted_without_a_warning(self) -> None:
        self.session.start()
        self.connection.producer.pauseProducing()
        self.clock.advance(5)
        self.end()
        self.assertEqual(self.counters.dropped["metrics"], 1)
        self.assertEqual([line for line in self.logs.lines if "dropping" in line], [])

    def test_finish_flushes_then_closes_with_1000(self) -> None:
        self.session.start()
        self.connection.producer.pauseProducing()
        self.queue.command_result({"command": "ping", "result": "pong", "error": ""})
        self.session.finish("agent stopping")
        self.assertIsNone(self.connection.closed)
        self.connection.producer.resumeProducing()
        self.assertEqual(self.connection.types(), ["auth", "command_result"])
        self.assertEqual(self.connection.closed, (1000, "agent stopping"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.end()

    def test_lost_while_finishing(self) -> None:
        self.session.start()
        self.connection.producer.pauseProducing()
        self.queue.command_result({"command": "ping", "result": "pong", "error": ""})
        self.session.finish("agent stopping")
        self.end()
        self.queue.open(lambda outgoing: None)
        self.assertIsNone(self.connection.closed)


class CommandResultTests(LogsMixin, SynchronousTestCase):
    """Results that cannot be sent as they are become errors that say why."""

    def setUp(self) -> None:
        self.counters = Counters()
        self.queue = SendQueue(self.counters, limit=1 << 20)
        self.written: list[Any] = []

    def result(self, result: Any, **more: Any) -> dict[str, Any]:
        return {"command": "c", "result": result, "error": "", "inReplyTo": "n", **more}

    def only_error(self) -> str:
        self.queue.open(self.written.append)
        (outgoing,) = self.written
        self.assertIn(b'"inReplyTo":"n"', outgoing.payload)
        return outgoing.payload.decode()

    def test_not_json(self) -> None:
        self.queue.command_result(self.result("x", details={"a": object()}))
        self.assertIn("the result cannot be sent", self.only_error())

    def test_too_large(self) -> None:
        self.queue.command_result(self.result("x" * (MAX_PAYLOAD + 1)))
        self.assertIn("the result is too large", self.only_error())

    def test_no_room(self) -> None:
        for _ in range(3):
            self.queue.command_result(self.result("x" * 500_000))
        self.queue.open(self.written.append)
        self.assertIn("no room for the result", self.written[-1].payload.decode())
        self.assertEqual(len(self.written), 3)

    def test_no_room_even_for_the_error_is_counted(self) -> None:
        logs = self.capture_logs()
        self.queue = SendQueue(self.counters, limit=10)
        self.queue.command_result(self.result("x"))
        self.assertEqual(self.counters.dropped["command_result"], 1)
        self.assertLogged(logs, "[ws] dropping messages")
