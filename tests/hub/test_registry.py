"""Who is here, and whose answer is whose."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.registry import (
    AgentRegistry,
    CommandRefusedError,
    CommandTimeoutError,
    DisconnectedError,
    NotConnectedError,
    UnreadableAnswerError,
)
from jetcamer.hub.session import AgentSession
from jetcamer.protocol.envelope import CommandResultPayload
from tests.hub.doubles import NOW, SECRETS, FakeConnection, RecordingListener, SealingAgent, keys


class RegistryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.listener = RecordingListener()
        self.registry = AgentRegistry(self.clock, self.listener)
        self.keys = keys()
        self.agent = SealingAgent()

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def connect(self, agent: SealingAgent | None = None) -> tuple[FakeConnection, AgentSession]:
        connection = FakeConnection()
        session = AgentSession(connection, self.keys, self.registry, lambda: NOW)
        session.message_received((agent or self.agent).auth())
        return connection, session


class PresenceTests(RegistryTestCase):
    def test_comes_and_goes(self) -> None:
        _, session = self.connect()
        agent = session.agent
        self.assertEqual(list(self.registry), [session])
        self.assertIs(agent.session, session)
        self.assertEqual((agent.connected_ms, agent.hostname), (NOW, "web-01"))
        session.connection_lost("closed by the agent: 1000")
        self.assertEqual(len(self.registry), 0)
        self.assertEqual((agent.session, agent.connected_ms), (None, None))
        self.assertEqual(self.listener.names(), ["authenticated", "disconnected"])

    def test_unauthenticated(self) -> None:
        """A connection is no agent."""
        session = AgentSession(FakeConnection(), self.keys, self.registry, lambda: NOW)
        session.message_received(self.agent.metrics())
        self.assertEqual(len(self.registry), 0)
        self.assertEqual(self.listener.names(), ["refused"])

    def test_newest_wins(self) -> None:
        """The older connection is told why it is closed."""
        old_connection, old = self.connect()
        connection, new = self.connect()
        self.assertEqual(old_connection.closed, (1000, "replaced_by_new_connection"))
        self.assertIsNone(connection.closed)
        self.assertEqual(list(self.registry), [new])
        # What still arrives from the older one is nobody's.
        old.message_received(self.agent.metrics())
        self.assertEqual(self.listener.of("metrics"), [])

    def test_late_close(self) -> None:
        """The end of the older connection does not take the newer one with it."""
        _, old = self.connect()
        _, new = self.connect()
        old.connection_lost("closed by the hub: 1000 replaced_by_new_connection")
        self.assertEqual(list(self.registry), [new])
        self.assertEqual(self.listener.of("disconnected"), ["replaced by a newer connection"])
        self.assertEqual(self.listener.names()[1:], ["disconnected", "authenticated"])
        new.connection_lost("gone")
        self.assertEqual(self.listener.of("disconnected")[1:], ["gone"])

    def test_an_impostor_replaces_nobody(self) -> None:
        """A session is replaced by one that authenticated, not by one that claims to."""
        connection, session = self.connect()
        impostor = SealingAgent("agent-1", SECRETS["agent-2"])
        self.connect(impostor)
        self.assertEqual(list(self.registry), [session])
        self.assertIsNone(connection.closed)

    def test_second_auth(self) -> None:
        """Nobody is replaced by itself, and its commands stay open."""
        connection, session = self.connect()
        done = self.registry.send_command("agent-1", "ping", {})
        session.message_received(self.agent.auth())
        self.assertIsNone(connection.closed)
        self.assertNoResult(done)
        session.message_received(self.agent.result("ping", "pong"))
        self.successResultOf(done)

    def test_clone(self) -> None:
        """Two machines with one id replace each other for ever; that is noticed, and shown."""
        peers = ["192.0.2.1:1", "192.0.2.7:2"]
        states = []
        for turn in range(5):
            connection = FakeConnection(peers[turn % 2])
            session = AgentSession(connection, self.keys, self.registry, lambda: NOW)
            session.message_received(self.agent.auth())
            states.append(session.agent.state(NOW))
        words = "two machines connect with this id: 192.0.2.1 and 192.0.2.7"
        self.assertEqual(states, [("online", "online")] * 3 + [("clone", words)] * 2)
        self.assertEqual(session.agent.state(NOW + 300_000)[0], "online")

    def test_clone_by_another_name(self) -> None:
        """Behind one address, by what they call themselves."""
        for turn in range(4):
            session = AgentSession(FakeConnection(), self.keys, self.registry, lambda: NOW)
            hostname = ("web-01", "web-02")[turn % 2]
            payload = {"hostname": hostname, "version": "5"}
            session.message_received(self.agent.seal("auth", payload))
        words = "two machines connect with this id: web-01 and web-02, from 192.0.2.7"
        self.assertEqual(session.agent.state(NOW), ("clone", words))

    def test_many_at_once(self) -> None:
        """A fleet that comes and goes is told one by one only so far, and then as a number."""
        lines: list[str] = []
        observe = lambda event: lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.keys = keys({f"agent-{n}": f"secret {n}" for n in range(70)})
        sessions = [self.connect(SealingAgent(f"agent-{n}", f"secret {n}"))[1] for n in range(70)]
        self.assertEqual(len(lines), 50)
        self.clock.advance(1)
        self.assertEqual(lines[50:], ["[hub] and 20 more agents authenticated"])
        for session in sessions:
            session.connection_lost("gone")
        self.registry.stop()
        self.assertEqual(lines[-1], "[hub] and 20 more agents disconnected")

    def test_close_session(self) -> None:
        connection, _ = self.connect()
        self.registry.close_session("agent-2", 1008, "revoked")
        self.registry.close_session("agent-1", 1008, "revoked")
        self.assertEqual(connection.closed, (1008, "revoked"))

    def test_agents_apart(self) -> None:
        connection, _ = self.connect()
        other, _ = self.connect(SealingAgent("agent-2"))
        self.assertEqual(len(self.registry), 2)
        done = self.registry.send_command("agent-2", "ping", {})
        self.assertEqual((len(connection.sent), len(other.sent)), (0, 1))
        done.cancel()
        self.failureResultOf(done, CancelledError)


class CommandTests(RegistryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.connection, self.session = self.connect()

    def ask(self, command: str = "ping", timeout: float = 30.0) -> Deferred[CommandResultPayload]:
        return self.registry.send_command("agent-1", command, {}, timeout)

    def nonce(self, index: int) -> str:
        return self.connection.commands()[index][0].nonce

    def answer(self, result: str, command: str = "ping", to: int | None = None) -> None:
        nonce = self.nonce(to) if to is not None else None
        self.session.message_received(self.agent.result(command, result, nonce))

    def test_answered(self) -> None:
        done = self.ask()
        self.assertNoResult(done)
        self.answer("pong", to=0)
        self.assertEqual(self.successResultOf(done).result, "pong")
        self.assertEqual(self.listener.names(), ["authenticated", "command_result"])

    def test_out_of_order(self) -> None:
        """`inReplyTo` finds the command, whatever came first."""
        first, second = self.ask(), self.ask()
        self.answer("two", to=1)
        self.assertNoResult(first)
        self.answer("one", to=0)
        self.assertEqual(self.successResultOf(first).result, "one")
        self.assertEqual(self.successResultOf(second).result, "two")

    def test_in_order(self) -> None:
        """A peer that lacks `inReplyTo` answers in the order it was asked."""
        first, second = self.ask(), self.ask()
        self.answer("one")
        self.answer("two")
        self.assertEqual(self.successResultOf(first).result, "one")
        self.assertEqual(self.successResultOf(second).result, "two")

    def test_in_order_by_name(self) -> None:
        """The answer to one command is not taken for that to another."""
        ping, version = self.ask("ping"), self.ask("get_version")
        self.answer("4.0.3", "get_version")
        self.assertNoResult(ping)
        self.assertEqual(self.successResultOf(version).result, "4.0.3")
        self.answer("pong", "ping")
        self.successResultOf(ping)

    def test_unasked(self) -> None:
        """An answer nobody waits for is still an event."""
        self.answer("pong")
        self.session.message_received(self.agent.result("ping", "pong", "no-such-nonce"))
        self.assertEqual(len(self.listener.of("command_result")), 2)
        self.assertIsNone(self.connection.closed)

    def test_answered_twice(self) -> None:
        done = self.ask()
        self.answer("pong", to=0)
        self.answer("pong again", to=0)
        self.assertEqual(self.successResultOf(done).result, "pong")

    def test_timeout(self) -> None:
        done = self.ask(timeout=5.0)
        self.clock.advance(4.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        error = self.failureResultOf(done, CommandTimeoutError).value
        self.assertEqual(str(error), "no answer to ping from agent-1 within 5 s")

    def test_late_answer(self) -> None:
        """After a timeout, the late answer of an orderly peer is not the next command's."""
        first = self.ask(timeout=5.0)
        self.clock.advance(5.0)
        self.failureResultOf(first, CommandTimeoutError)
        second = self.ask()
        self.answer("late")
        self.assertNoResult(second)
        self.answer("in time")
        self.assertEqual(self.successResultOf(second).result, "in time")

    def test_lost_answer(self) -> None:
        """One that never comes is given up: later ones are not taken for it for ever."""
        first = self.ask(timeout=5.0)
        self.clock.advance(5.0)
        self.failureResultOf(first, CommandTimeoutError)
        self.clock.advance(59.0)
        second = self.ask()
        self.clock.advance(1.0)
        self.answer("of the second")
        self.assertEqual(self.successResultOf(second).result, "of the second")
        self.assertEqual(len(self.session.pending._waiting), 0)

    def test_unreadable_answer(self) -> None:
        """It takes its command with it, and not the next one's place."""
        first, second, third = self.ask(), self.ask(), self.ask()
        for payload in ({}, {"command": "other", "result": 1}, {"command": "ping"}):
            self.session.message_received(self.agent.seal("command_result", payload))
        error = self.failureResultOf(first, UnreadableAnswerError).value
        self.assertEqual(str(error), "the answer to ping cannot be read")
        nonce = self.connection.commands()[2][0].nonce
        odd = {"inReplyTo": nonce, "command": 7}
        self.session.message_received(self.agent.seal("command_result", odd))
        self.failureResultOf(third, UnreadableAnswerError)
        self.answer("of the second")
        self.assertEqual(self.successResultOf(second).result, "of the second")
        self.session.message_received(self.agent.seal("command_result", {"command": "ping"}))

    def test_abandoned_are_bounded(self) -> None:
        """A peer that never answers costs no memory without end."""
        for _ in range(200):
            done = self.ask(timeout=1.0)
            self.clock.advance(1.0)
            self.failureResultOf(done, CommandTimeoutError)
        self.assertLessEqual(len(self.session.pending._waiting), 64)

    def test_cancelled(self) -> None:
        done = self.ask()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.answer("pong", to=0)

    def test_nobody(self) -> None:
        error = self.failureResultOf(
            self.registry.send_command("agent-9", "ping", {}), NotConnectedError
        ).value
        self.assertEqual(str(error), "agent-9 is not connected")

    def test_closing(self) -> None:
        self.session.close(1012, "service_restart")
        self.failureResultOf(self.ask(), NotConnectedError)

    def test_lost(self) -> None:
        """Who leaves answers no more."""
        done = self.ask()
        self.session.connection_lost("connection reset")
        error = self.failureResultOf(done, DisconnectedError).value
        self.assertEqual(str(error), "agent-1 left before it answered: connection reset")

    def test_replaced(self) -> None:
        done = self.ask()
        self.connect()
        self.failureResultOf(done, DisconnectedError)

    def test_too_large(self) -> None:
        done = self.registry.send_command("agent-1", "echo", {"text": "x" * (1 << 20)})
        self.failureResultOf(done, CommandRefusedError)

    def test_listener_fails(self) -> None:
        """Who waits for an answer gets it, even if the listener cannot stand it."""
        done = self.ask()
        self.listener.raises = RuntimeError("disk full")
        self.assertRaises(RuntimeError, self.answer, "pong", "ping", 0)
        self.successResultOf(done)

    def test_asked_from_a_callback(self) -> None:
        """A command sent because another failed is not failed with it."""
        again: list[Deferred[CommandResultPayload]] = []
        self.ask().addErrback(lambda _: again.append(self.ask()))
        self.session.connection_lost("gone")
        self.failureResultOf(again[0], NotConnectedError)
