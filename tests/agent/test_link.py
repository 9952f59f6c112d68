"""The link's state machine, on a clock, with the network in the test's hand."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.link import AgentLink
from jetcamer.agent.link_machine import CLOSE_DEADLINE, INPUTS, TABLE
from jetcamer.agent.reconnect import ReconnectPolicy
from jetcamer.agent.session import Session, SessionSettings
from jetcamer.net.websocket import Disconnected
from jetcamer.protocol.replay import ReplayGuard
from jetcamer.protocol.signing import SigningKey
from tests.support.doubles import (
    SECRET,
    FakeConnection,
    FakeDispatcher,
    FakeNetwork,
    FakeSampler,
    credentials,
    lost,
)
from tests.support.logs import LogsMixin

STATES = {"waiting", "connecting", "online", "backing off", "closing", "stopped"}


class LinkFixture(LogsMixin, SynchronousTestCase):
    def setUp(self) -> None:
        self.make()
        self.logs = self.capture_logs()

    def make(self, jitter: float = 0.0) -> None:
        self.clock = Clock()
        self.network = FakeNetwork()
        self.dispatcher = FakeDispatcher()
        guard = ReplayGuard()
        now = lambda: 1_731_819_422.0 + self.clock.seconds()  # noqa: E731

        def make_session(connection: Any, used: Any, on_disconnected: Any) -> Session:
            return Session(
                connection,
                SigningKey(used.secret),
                used.agent_id,
                settings=SessionSettings("host", "5.0.0", ()),
                queue=self.link.queue,
                guard=guard,
                sampler=FakeSampler(),
                dispatcher=self.dispatcher,
                counters=self.link.counters,
                clock=self.clock,
                now=now,
                on_disconnected=on_disconnected,
            )

        self.link = AgentLink(
            self.clock,
            now=now,
            dial=self.network.dial,
            make_session=make_session,
            policy=ReconnectPolicy(jitter, Random(1).random),
        )

    def start(self) -> None:
        self.link.startService()
        self.link.set_credentials(credentials())

    def online(self) -> FakeConnection:
        self.start()
        return self.network.accept()

    def lose(self, connection: FakeConnection, *args: Any, **kwargs: Any) -> None:
        connection.session.disconnected(lost(*args, **kwargs))  # type: ignore[attr-defined]

    def stop(self) -> Deferred[None]:
        stopped = self.link.stopService()
        connection = self.link.connection
        if connection is not None:
            connection.session.disconnected(lost("closed"))  # type: ignore[attr-defined]
        self.successResultOf(stopped)
        self.assertEqual(self.link.state, "stopped")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return stopped

    def assert_status(self, **expected: Any) -> None:
        status = self.link.status()
        self.assertEqual({name: status[name] for name in expected}, expected)


class StateTests(LinkFixture):
    def test_every_row_names_known_states_and_inputs(self) -> None:
        names = {input_.__name__ for input_ in INPUTS}
        for state, rows in TABLE.items():
            self.assertIn(state.replace("moving", "closing"), STATES)
            self.assertLessEqual(set(rows), names)
            for following, _ in rows.values():
                self.assertIn(following, TABLE)

    def test_stopped_then_waiting_for_what_is_missing(self) -> None:
        self.assert_status(state="stopped", started=False, hasContext=False)
        self.link.startService()
        self.assert_status(state="waiting", canStart=False)
        self.assertNotIn("missing", self.link.status())  # it has not looked yet
        self.link.set_credentials(credentials(secret=None))
        self.assert_status(state="waiting", missing="secret", canStart=False)
        self.link.set_credentials(credentials(url=None))
        self.assert_status(
            state="waiting", missing="apiURL", hasSecret=True, hasClient=False, apiURL=""
        )
        self.assertLogged(self.logs, "[ws] not started: missing apiURL")
        self.assertEqual(self.network.attempts, [])
        self.stop()

    def test_connecting_then_online(self) -> None:
        self.start()
        self.assertLogged(self.logs, "[ws] connecting to wss://hub.example/agent")
        self.assert_status(state="connecting", started=True, hasConnection=False, canStart=True)
        connection = self.network.accept()
        self.assertLogged(self.logs, "[ws] ✓ connected successfully")
        self.assertEqual(connection.types(), ["auth"])
        self.assert_status(
            state="online",
            hasConnection=True,
            apiURL="wss://hub.example/agent",
            agentID="agent-1",
            connectedSince="2024-11-17T04:57:02Z",
            nextRetrySeconds=None,
        )
        self.assertNotIn("missing", self.link.status())
        self.stop()

    def test_credentials_given_before_the_start(self) -> None:
        self.link.set_credentials(credentials())
        self.assertEqual(self.network.attempts, [])
        self.link.startService()
        self.assert_status(state="connecting")
        self.stop()

    def test_the_query_of_a_url_is_nobodys_business(self) -> None:
        self.link.startService()
        self.link.set_credentials(credentials(url="wss://hub.example/agent?token=hidden"))
        self.assert_status(apiURL="wss://hub.example/agent")
        self.assertEqual(self.network.attempts[0][0].url, "wss://hub.example/agent?token=hidden")
        self.assertNotIn("hidden", "\n".join(self.logs.lines))
        self.stop()

    def test_no_connection_from_the_first_close_frame_on(self) -> None:
        connection = self.online()
        self.assert_status(state="online", hasConnection=True)
        connection.session.closing()  # type: ignore[attr-defined]
        self.assert_status(state="online", hasConnection=False)
        self.stop()

    def test_the_secret_is_nowhere_in_the_status(self) -> None:
        self.online()
        self.assertNotIn(SECRET, repr(self.link.status()))
        self.stop()
        self.assertNotIn(SECRET, "\n".join(self.logs.lines))

    def test_backing_off_grows_and_shows(self) -> None:
        self.start()
        for attempt, ceiling in enumerate([2, 4, 8, 16, 32, 60, 60], start=1):
            self.network.refuse("connection refused")
            self.assert_status(
                state="backing off",
                attempt=attempt,
                nextRetrySeconds=float(ceiling),
                lastError="connection refused",
            )
            self.clock.advance(ceiling - 0.01)
            self.assertEqual(len(self.network.attempts), attempt)
            self.clock.advance(0.01)
            self.assert_status(state="connecting", nextRetrySeconds=None)
        self.assertLogged(self.logs, "[ws] connection failed: connection refused")
        self.stop()

    def test_a_server_that_accepts_and_closes_keeps_the_agent_backing_off(self) -> None:
        self.start()
        for ceiling in [2, 4, 8, 16, 32, 60, 60]:
            self.lose(self.network.accept(), "closed by the server: 1008 unknown_agent")
            self.assert_status(nextRetrySeconds=float(ceiling))
            self.clock.advance(ceiling)
        self.assertLogged(
            self.logs, "[ws] connection failed: closed by the server: 1008 unknown_agent"
        )
        self.assert_status(lastError="closed by the server: 1008 unknown_agent")
        self.stop()

    def test_a_server_that_limits_messages_is_heeded_and_not_trampled(self) -> None:
        heard = []
        self.link.on_rate_limited(lambda: heard.append(self.link.state))
        self.start()
        for ceiling in [2, 4, 8, 16, 32, 60, 60]:
            self.lose(self.network.accept(), code=1008, reason="rate_limited: words")
            self.assert_status(state="backing off", nextRetrySeconds=float(ceiling))
            self.clock.advance(ceiling)
        self.assertEqual(heard, ["backing off"] * 7)
        for code, reason in [(1008, "revoked"), (1013, "rate_limited"), (None, "")]:
            self.lose(self.network.accept(), code=code, reason=reason)
            self.clock.advance(60)
        ours = Disconnected(1008, "rate_limited", by_peer=False, clean=True, words="closed by us")
        self.network.accept().session.disconnected(ours)  # type: ignore[attr-defined]
        self.assertEqual(len(heard), 7)
        self.stop()

    def test_the_count_begins_again_after_60_s_undisturbed(self) -> None:
        self.start()
        for ceiling in (2, 4, 8):
            self.network.refuse()
            self.clock.advance(ceiling)
        connection = self.network.accept()
        self.clock.advance(59.9)
        self.assert_status(attempt=3)
        self.lose(connection)
        self.assert_status(attempt=4, nextRetrySeconds=16.0)
        self.clock.advance(16)
        connection = self.network.accept()
        self.clock.advance(60)
        self.assert_status(attempt=0)
        self.lose(connection)
        self.assert_status(attempt=1, nextRetrySeconds=2.0)
        self.stop()

    def test_a_server_that_asks_for_patience(self) -> None:
        self.start()
        self.network.refuse("HTTP 503", retry_after=120.0)
        self.assert_status(nextRetrySeconds=120.0)
        self.clock.advance(120)
        self.lose(self.network.accept(), code=1013, reason="")
        self.assert_status(nextRetrySeconds=60.0)
        self.clock.advance(60)
        self.lose(self.network.accept(), code=1013, reason="300")
        self.assert_status(nextRetrySeconds=300.0)
        self.clock.advance(300)
        self.lose(self.network.accept(), code=1013, reason="9" * 400)
        self.assert_status(nextRetrySeconds=600.0)
        self.stop()

    def test_an_exception_of_the_dial_is_a_failed_attempt(self) -> None:
        def explode(*args: Any) -> Any:
            raise ValueError("wsCaFile: no such file")

        self.link._core.dial = explode
        self.start()
        self.assert_status(state="backing off", lastError="ValueError: wsCaFile: no such file")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.stop()

    def test_a_session_that_cannot_start_is_aborted_and_tried_again(self) -> None:
        self.start()
        _, make, result = self.network.attempts[-1]
        connection = FakeConnection()
        session = make(connection)
        session.start = lambda: 1 / 0
        result.callback(session)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(connection.aborted)
        session.disconnected(lost("aborted"))
        self.assert_status(state="backing off")
        self.stop()


class CredentialsChangeTests(LinkFixture):
    def test_the_same_credentials_change_nothing(self) -> None:
        connection = self.online()
        self.link.set_credentials(credentials())
        self.assertIsNone(connection.closed)
        self.stop()

    def test_a_new_secret_re_keys_the_link_without_a_restart(self) -> None:
        old = self.online()
        self.link.set_credentials(credentials(secret="another secret"))
        self.assertEqual(old.closed, (1000, "credentials changed"))
        self.assert_status(state="closing", hasConnection=False)
        self.lose(old, "closed")
        self.assert_status(state="connecting", attempt=0)
        new = self.network.accept()
        self.assertEqual([e.type for e in new.messages("another secret")], ["auth"])
        self.assertEqual(self.link.counters.failures, 0)
        self.stop()

    def test_a_new_url_moves_the_link_from_any_state(self) -> None:
        self.start()
        self.network.refuse()
        self.link.set_credentials(credentials(url="wss://b.example/agent"))
        self.assert_status(state="connecting", apiURL="wss://b.example/agent", attempt=0)
        self.link.set_credentials(credentials(url="wss://c.example/agent"))
        self.assertEqual(self.network.cancelled, 1)
        self.assertEqual(
            [used.url for used, _, _ in self.network.attempts],
            ["wss://hub.example/agent", "wss://b.example/agent", "wss://c.example/agent"],
        )
        self.network.accept()
        self.assert_status(state="online")
        self.stop()

    def test_changed_again_while_the_old_connection_closes(self) -> None:
        old = self.online()
        self.link.set_credentials(credentials(secret="second"))
        self.link.set_credentials(credentials(secret="third"))
        self.lose(old)
        self.assertEqual([used.secret for used, _, _ in self.network.attempts], [SECRET, "third"])
        self.stop()

    def test_credentials_taken_away(self) -> None:
        old = self.online()
        self.link.set_credentials(credentials(secret=None))
        self.assertEqual(old.closed, (1000, "credentials changed"))
        self.lose(old)
        self.assert_status(state="waiting", missing="secret", hasSecret=False)
        self.link.set_credentials(credentials())
        self.assert_status(state="connecting")
        self.network.refuse()
        self.link.set_credentials(credentials(secret=None))
        self.assert_status(state="waiting")
        self.stop()

    def test_an_old_connection_that_will_not_close_is_dropped(self) -> None:
        old = self.online()
        self.link.set_credentials(credentials(secret="second"))
        self.clock.advance(CLOSE_DEADLINE)
        self.assertTrue(old.aborted)
        self.lose(old)
        self.assert_status(state="connecting")
        self.stop()


class StopTests(LinkFixture):
    def test_from_each_state(self) -> None:
        self.link.startService()
        self.stop()
        self.make()
        self.start()
        self.stop()
        self.assertEqual(self.network.cancelled, 1)
        self.make()
        self.start()
        self.network.refuse()
        self.stop()

    def test_never_started(self) -> None:
        self.successResultOf(self.link.stopService())

    def test_online_closes_with_1000_and_waits_for_the_end(self) -> None:
        connection = self.online()
        stopped = self.link.stopService()
        self.assertEqual(connection.closed, (1000, "agent stopping"))
        self.assertNoResult(stopped)
        self.assert_status(state="closing")
        self.lose(connection)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.network.attempts), 1)

    def test_a_peer_that_does_not_answer_has_2_s(self) -> None:
        connection = self.online()
        stopped = self.link.stopService()
        self.clock.advance(CLOSE_DEADLINE - 0.01)
        self.assertFalse(connection.aborted)
        self.clock.advance(0.01)
        self.assertTrue(connection.aborted)
        self.lose(connection)
        self.successResultOf(stopped)

    def test_while_moving(self) -> None:
        connection = self.online()
        self.link.set_credentials(credentials(secret="second"))
        stopped = self.link.stopService()
        self.lose(connection)
        self.successResultOf(stopped)
        self.assertEqual(len(self.network.attempts), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_twice_and_start_again(self) -> None:
        connection = self.online()
        first, second = self.link.stopService(), self.link.stopService()
        self.lose(connection)
        self.successResultOf(first)
        self.successResultOf(second)
        self.link.startService()
        self.assert_status(state="connecting")
        self.stop()

    def test_started_again_while_it_closes(self) -> None:
        connection = self.online()
        stopped = self.link.stopService()
        self.link.startService()
        self.lose(connection)
        self.successResultOf(stopped)
        self.assert_status(state="connecting")
        self.stop()


class SendLogTests(LinkFixture):
    def test_now_or_when_the_link_is_back(self) -> None:
        self.assertTrue(self.link.send_log("info", "before", "app"))
        connection = self.online()
        self.link.send_log("warn", "after")
        payloads = [bytes(e.payload) for e in connection.messages() if e.type == "log"]
        self.assertEqual(
            payloads,
            [
                b'{"level":"info","message":"before","source":"app"}',
                b'{"level":"warn","message":"after"}',
            ],
        )
        self.stop()

    def test_bytes_that_are_not_utf_8_are_replaced(self) -> None:
        connection = self.online()
        self.link.send_log("info", b"caf\xe9 \xff ok")
        self.assertIn("caf\ufffd \ufffd ok".encode(), connection.sent[-1])
        self.stop()

    def test_no_room(self) -> None:
        self.assertFalse(self.link.send_log("info", "x" * (2 << 20)))
        self.assertEqual(self.link.counters.dropped["log"], 1)


class ServerTimeTests(LinkFixture):
    def test_outlives_the_connection(self) -> None:
        self.assertIsNone(self.link.server_time)
        connection = self.online()
        self.assertIsNone(self.link.server_time)
        connection.session.server_time = (1000.0, self.clock.seconds())  # type: ignore[attr-defined]
        self.clock.advance(4)
        self.assertEqual(self.link.server_time, (1000.0, 4.0))
        self.lose(connection)
        self.clock.advance(6)
        self.assertEqual(self.link.server_time, (1000.0, 10.0))
        self.stop()


class ManyConnectionsTests(LinkFixture):
    @settings(deadline=None, derandomize=True, max_examples=150, database=None)
    @given(st.lists(st.sampled_from("arlckmw"), max_size=60))
    def test_whatever_happens_there_is_one_link_and_one_set_of_timers(self, steps: list) -> None:
        """a: accept, r: refuse, l: lose, c: change secret, k: take it away, m: move, w: wait."""
        self.make(jitter=0.5)
        self.start()
        open_now: list[FakeConnection] = []
        for number, step in enumerate(steps):
            state = self.link.state
            self.assertIn(state, STATES)
            if step == "a" and state == "connecting":
                open_now.append(self.network.accept())
            elif step == "r" and state == "connecting":
                self.network.refuse()
            elif step == "l" and open_now:
                self.lose(open_now.pop())
            elif step == "c":
                self.link.set_credentials(credentials(secret=f"secret {number}"))
            elif step == "k":
                self.link.set_credentials(credentials(secret=None))
            elif step == "m":
                self.link.set_credentials(credentials(url=f"wss://{number}.example/agent"))
            elif step == "w":
                self.clock.advance(61)
            self.assertLessEqual(len(open_now), 1)
            self.assertEqual(self.link.connection, open_now[0] if open_now else None)
            # Per connection: metrics, heartbeat, and the 60 s or the 2 s; else a retry at most.
            self.assertLessEqual(len(self.clock.getDelayedCalls()), 4 if open_now else 1)
        for connection in open_now:
            sent = [key for key in connection.sent if b'"type":"auth"' in key]
            self.assertEqual(len(sent), 1)
        self.stop()
