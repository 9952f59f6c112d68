"""Commands: sent at most once, waited for, queued for who is away, remembered step by step."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub import commands as commands_module
from jetcamer.hub.bus.local import Event, LocalBus
from jetcamer.hub.commands import Commands, TooManyCommandsError
from jetcamer.hub.records import CommandRecord
from jetcamer.hub.registry import AgentRegistry, CommandRefusedError, NotConnectedError
from jetcamer.hub.session import AgentSession
from tests.hub.doubles import NOW, FakeConnection, RecordingListener, SealingAgent, keys
from tests.hub.stores import RecordingStore


class CommandsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = RecordingStore()
        self.bus = LocalBus("e")
        self.events: list[Event] = []
        self.bus.subscribe(self.events.append)
        self.fleet = keys({f"agent-{n}": f"secret {n}" for n in range(1, 9)})
        self.registry = AgentRegistry(self.clock, RecordingListener())
        self.commands = self.new_commands()
        self.agent = SealingAgent("agent-1", "secret 1")
        self.connection: FakeConnection
        self.session: AgentSession

    def tearDown(self) -> None:
        self.commands.stop()
        self.assertEqual(self.flushLoggedErrors(), [])

    def now_ms(self) -> int:
        return NOW + round(self.clock.seconds() * 1000)

    def new_commands(self) -> Commands:
        commands = Commands(
            self.clock,
            registry=self.registry,
            store=self.store,
            bus=self.bus,
            now_ms=self.now_ms,
        )
        self.successResultOf(Deferred.fromCoroutine(commands.start()))
        return commands

    def connect(self, n: int = 1) -> None:
        self.connection = FakeConnection()
        self.session = AgentSession(self.connection, self.fleet, self.registry, self.now_ms)
        self.agent = SealingAgent(f"agent-{n}", f"secret {n}")
        self.agent.now = self.now_ms()
        self.session.message_received(self.agent.auth())
        self.commands.agent_arrived(f"agent-{n}")

    def send(self, command: str = "ping", n: int = 1, **more: Any) -> Deferred[CommandRecord]:
        return self.commands.send(f"agent-{n}", command, {"a": "1"}, who="alice", **more)

    def sent(self) -> list[str]:
        secret = f"secret {self.agent.agent_id[-1]}"
        return [payload.command for _, payload in self.connection.commands(secret)]

    def answer(self, command: str, result: str = "pong", error: str = "") -> None:
        payload = {"command": command, "result": result, "error": error, "details": {"n": [1]}}
        self.session.message_received(self.agent.seal("command_result", payload))


class SendTests(CommandsTestCase):
    def test_done(self) -> None:
        self.connect()
        took: list[float] = []
        self.commands.on_answer = took.append
        done = self.send()
        self.assertNoResult(done)
        self.clock.advance(0.25)
        self.agent.now = self.now_ms()
        self.answer("ping")
        record = self.successResultOf(done)
        self.assertEqual(
            (record.state, record.result, record.error, record.details, record.who),
            ("done", "pong", None, '{"n":[1]}', "alice"),
        )
        self.assertEqual((record.created_ms, record.ended_ms), (NOW, NOW + 250))
        self.assertEqual(self.store.states(record.command_id), ["sent", "done"])
        self.assertEqual([event.kind for event in self.events], ["command", "command"])
        self.assertEqual((took, self.commands.counts), ([0.25], {"done": 1}))

    def test_failed(self) -> None:
        self.connect()
        done = self.send("reboot")
        self.answer("reboot", "unknown_command", "command not recognized")
        record = self.successResultOf(done)
        self.assertEqual((record.state, record.error), ("failed", "command not recognized"))

    def test_timeout(self) -> None:
        self.connect()
        done = self.send(timeout=5.0)
        self.clock.advance(5)
        record = self.successResultOf(done)
        self.assertEqual((record.state, record.ended_ms), ("timeout", NOW + 5000))

    def test_lost(self) -> None:
        self.connect()
        done = self.send()
        self.session.connection_lost("reset")
        self.assertEqual(self.successResultOf(done).state, "lost")

    def test_away(self) -> None:
        self.failureResultOf(self.send(), NotConnectedError)
        self.assertEqual(self.store.saved, {})

    def test_cannot_be_sent(self) -> None:
        self.connect()
        done = self.commands.send("agent-1", "echo", {"a": "x" * (1 << 20)}, who="alice")
        self.failureResultOf(done, CommandRefusedError)
        self.assertEqual(self.store.saved, {})


class QueueTests(CommandsTestCase):
    def test_waits_for_its_agent(self) -> None:
        record = self.successResultOf(self.send(queue_seconds=60))
        self.assertEqual((record.state, record.expires_ms), ("queued", NOW + 60_000))
        self.assertEqual(self.commands.queued("agent-1"), 1)
        self.connect()
        self.assertEqual(self.sent(), ["ping"])
        self.answer("ping")
        self.assertEqual(self.store.states(record.command_id), ["queued", "sent", "sent", "done"])
        self.assertEqual(self.commands.queued("agent-1"), 0)

    def test_on_disk_before_it_is_sent(self) -> None:
        """A crash after sending must find it written as sent."""
        self.successResultOf(self.send(queue_seconds=60))
        self.store.flushes = []
        self.connect()
        self.assertEqual(self.sent(), [])
        self.store.flushes[0].callback(None)
        self.assertEqual(self.sent(), ["ping"])

    def test_left_again_meanwhile(self) -> None:
        """Not sent, so it still waits."""
        record = self.successResultOf(self.send(queue_seconds=60))
        self.store.flushes = []
        self.connect()
        self.session.connection_lost("reset")
        self.store.flushes[0].callback(None)
        self.assertEqual(self.store.states(record.command_id), ["queued", "sent", "queued"])
        self.store.flushes = None
        self.connect()
        self.assertEqual(self.sent(), ["ping"])

    def test_expired_meanwhile(self) -> None:
        record = self.successResultOf(self.send(queue_seconds=60))
        self.store.flushes = []
        self.connect()
        self.clock.advance(61)
        self.store.flushes[0].callback(None)
        self.assertEqual(self.sent(), [])
        self.assertEqual(self.store.saved[record.command_id].state, "expired")

    def test_in_order(self) -> None:
        """One after the other, and before what is queued later."""
        for command in ("one", "two"):
            self.successResultOf(self.send(command, queue_seconds=60))
        self.connect()
        self.successResultOf(self.send("three", queue_seconds=60))
        for n, command in enumerate(("one", "two", "three"), 1):
            self.assertEqual(len(self.sent()), n)
            self.answer(command)
        self.assertEqual(self.sent(), ["one", "two", "three"])

    def test_here_and_idle(self) -> None:
        """With nothing in the queue, an agent that is here is asked at once, and waited for."""
        self.connect()
        done = self.send(queue_seconds=60)
        self.assertNoResult(done)
        self.answer("ping")
        self.assertEqual(self.successResultOf(done).state, "done")

    def test_never_twice(self) -> None:
        """One whose answer was lost with the connection is not sent again."""
        record = self.successResultOf(self.send(queue_seconds=60))
        self.connect()
        self.session.connection_lost("reset")
        self.assertEqual(self.store.saved[record.command_id].state, "lost")
        self.connect()
        self.assertEqual(self.sent(), [])

    def test_expired(self) -> None:
        record = self.successResultOf(self.send(queue_seconds=60))
        self.clock.advance(61)
        self.assertEqual(self.store.saved[record.command_id].state, "expired")
        self.assertEqual(self.commands.queued("agent-1"), 0)
        self.connect()
        self.assertEqual(self.sent(), [])

    def test_bounded(self) -> None:
        self.patch(commands_module, "MAX_QUEUED_EACH", 3)
        self.patch(commands_module, "MAX_QUEUED", 4)
        for _ in range(3):
            self.successResultOf(self.send(queue_seconds=60))
        self.failureResultOf(self.send(queue_seconds=60), TooManyCommandsError)
        self.successResultOf(self.send(n=2, queue_seconds=60))
        self.failureResultOf(self.send(n=2, queue_seconds=60), TooManyCommandsError)

    def test_restart(self) -> None:
        """Queued ones are taken up; of those that were sent nobody knows, and they are not
        repeated."""
        self.connect(2)
        self.send(n=2, timeout=1000)
        record = self.successResultOf(self.send(queue_seconds=60))
        (sent_id,) = [key for key, saved in self.store.saved.items() if saved.state == "sent"]
        self.commands.stop()
        self.registry = AgentRegistry(self.clock, RecordingListener())
        self.commands = self.new_commands()
        self.assertEqual(self.store.saved[sent_id].state, "lost")
        self.connect(1)
        self.assertEqual(self.sent(), ["ping"])
        self.answer("ping")
        self.assertEqual(self.store.saved[record.command_id].state, "done")

    def test_full_disk(self) -> None:
        """A store that cannot write does not keep a command from its agent."""
        self.store.broken = True
        self.successResultOf(self.send(queue_seconds=60))
        self.connect()
        self.assertEqual(self.sent(), ["ping"])
        self.answer("ping")

    def test_stopped(self) -> None:
        self.successResultOf(self.send(queue_seconds=60))
        self.commands.stop()
        self.connect()
        self.assertEqual(self.sent(), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ManyTests(CommandsTestCase):
    def many(self, *numbers: int, **more: Any) -> str:
        agents = [f"agent-{n}" for n in numbers]
        return self.commands.send_many(agents, "ping", {}, who="alice", **more)

    def progress(self, batch_id: str) -> tuple[int, int, int, int, bool]:
        progress = self.commands.progress(batch_id)
        return (progress.total, progress.done, progress.failed, progress.waiting, progress.finished)

    def test_a_few_at_a_time(self) -> None:
        sessions = []
        for n in (1, 2, 3):
            self.connect(n)
            sessions.append((self.connection, self.session, self.agent))
        batch_id = self.many(1, 2, 3, 4, concurrency=2)
        self.assertEqual([len(connection.sent) for connection, *_ in sessions], [1, 1, 0])
        self.assertEqual(self.progress(batch_id), (4, 0, 0, 4, False))
        for _, session, agent in sessions[:2]:
            session.message_received(agent.result("ping", "pong"))
        # The fourth is away: that is a failure, and remembered as one.
        self.assertEqual(self.progress(batch_id), (4, 2, 1, 1, False))
        _, session, agent = sessions[2]
        session.message_received(agent.result("ping", "pong"))
        self.assertEqual(self.progress(batch_id), (4, 3, 1, 0, True))
        states = sorted(c.state for c in self.store.saved.values() if c.batch_id == batch_id)
        self.assertEqual(states, ["done", "done", "done", "failed"])

    def test_queued(self) -> None:
        """Counted when it ends, not when it is queued."""
        batch_id = self.many(1, 2, queue_seconds=60)
        self.assertEqual(self.progress(batch_id), (2, 0, 0, 2, False))
        self.connect(1)
        self.answer("ping")
        self.assertEqual(self.progress(batch_id), (2, 1, 0, 1, False))
        self.clock.advance(61)
        self.assertEqual(self.progress(batch_id), (2, 1, 1, 0, True))

    def test_nobody(self) -> None:
        self.assertEqual(self.progress(self.many()), (0, 0, 0, 0, True))
        self.assertIsNone(self.commands.progress("unheard of"))

    def test_forgotten(self) -> None:
        self.patch(commands_module, "_KEPT_BATCHES", 2)
        first, _, third = self.many(), self.many(), self.many()
        self.assertIsNone(self.commands.progress(first))
        self.assertIsNotNone(self.commands.progress(third))
