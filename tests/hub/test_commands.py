"""Commands: sent at most once, waited for, queued for who is away, remembered step by step."""

from __future__ import annotations

import json
from itertools import count
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub import batches, command_log, command_queue
from jetcamer.hub import commands as commands_module
from jetcamer.hub.bus.local import Event, LocalBus
from jetcamer.hub.commands import Commands, NotRunningError, TooManyCommandsError
from jetcamer.hub.records import CommandRecord
from jetcamer.hub.registry import (
    AgentRegistry,
    CommandError,
    CommandRefusedError,
    NotConnectedError,
)
from jetcamer.hub.session import AgentSession
from jetcamer.hub.store.interface import StoreError
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

    def restart(self) -> None:
        """A hub in its place, with what the store holds; no agent is connected."""
        self.commands.stop()
        self.registry = AgentRegistry(self.clock, RecordingListener())
        self.commands = self.new_commands()

    def answer(self, command: str, result: str = "pong", error: str = "") -> None:
        self.agent.now = self.now_ms()
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
        self.assertEqual(json.loads(self.events[0].data)["args"], {"a": "1"})
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

    def test_late(self) -> None:
        """An answer after the deadline changes no state, but it is kept, and told."""
        self.connect()
        record = self.successResultOf(self.timed_out())
        self.answer("ping", "it did work")
        late = self.store.saved[record.command_id]
        self.assertEqual((late.state, late.result, late.details), (
            "timeout", "it did work", '{"n":[1]}'
        ))  # fmt: skip
        self.assertEqual(
            late.error,
            "no answer to ping from agent-1 within 5 s; the answer came after 7.0 s",
        )
        self.assertEqual(json.loads(self.events[-1].data)["result"], "it did work")
        self.assertEqual(self.commands.counts, {"timeout": 1})
        self.answer("ping", "again")
        self.assertEqual(self.store.saved[record.command_id].result, "it did work")

    def test_late_failure(self) -> None:
        self.connect()
        record = self.successResultOf(self.timed_out())
        self.answer("ping", "", "no such thing")
        self.assertEqual(self.store.saved[record.command_id].error, "no such thing")

    def test_late_bounded(self) -> None:
        """What nobody has answered is held up to a number and a size."""
        self.connect()
        self.patch(command_log, "MAX_OVERDUE", 2)
        records = [self.successResultOf(self.timed_out()) for _ in range(3)]
        self.patch(command_log, "MAX_OVERDUE_BYTES", 900)
        records.append(self.successResultOf(self.timed_out()))
        for _ in records:
            self.answer("ping", "late")
        kept = [self.store.saved[record.command_id].result for record in records]
        self.assertEqual(kept, [None, None, None, "late"])

    def timed_out(self) -> Deferred[CommandRecord]:
        done = self.send(timeout=5.0)
        self.clock.advance(7)
        return done

    def test_cancelled(self) -> None:
        """Who asked has gone; the command goes on, and its end is written down."""
        self.connect()
        done = self.send()
        done.addErrback(lambda _: None)
        done.cancel()
        self.answer("ping")
        (record,) = self.store.saved.values()
        self.assertEqual((record.state, record.result), ("done", "pong"))

    def test_not_running(self) -> None:
        """Nothing is sent or queued before the hub knows what it holds, nor after it has
        stopped."""
        self.connect()
        self.commands.stop()
        fresh = Commands(
            self.clock,
            registry=self.registry,
            store=self.store,
            bus=self.bus,
            now_ms=self.now_ms,
        )
        for commands in (self.commands, fresh):
            for queue_seconds in (None, 60.0):
                sending = commands.send(
                    "agent-1", "ping", {}, who="alice", queue_seconds=queue_seconds
                )
                self.failureResultOf(sending, NotRunningError)
        self.assertEqual((self.sent(), self.store.saved), ([], {}))

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
        self.patch(command_queue, "MAX_QUEUED_EACH", 3)
        self.patch(command_queue, "MAX_QUEUED", 4)
        for _ in range(3):
            self.successResultOf(self.send(queue_seconds=60))
        self.failureResultOf(self.send(queue_seconds=60), TooManyCommandsError)
        self.successResultOf(self.send(n=2, queue_seconds=60))
        self.failureResultOf(self.send(n=2, queue_seconds=60), TooManyCommandsError)

    def test_bounded_in_bytes(self) -> None:
        """A hundred thousand characters weigh more than a few; what has ended weighs nothing."""
        for _ in range(41):
            self.successResultOf(self.big(queue_seconds=60))
        self.failureResultOf(self.big(queue_seconds=60), TooManyCommandsError)
        self.clock.advance(60)
        self.successResultOf(self.big(queue_seconds=60))

    def big(self, **more: Any) -> Deferred[CommandRecord]:
        return self.commands.send("agent-1", "x", {"a": "y" * 100_000}, who="alice", **more)

    def test_expired_while_the_hub_was_away(self) -> None:
        record = self.successResultOf(self.send(queue_seconds=60))
        self.commands.stop()
        self.clock.advance(2 * 86_400)
        self.restart()
        self.assertEqual(self.store.saved[record.command_id].state, "expired")
        self.connect()
        self.assertEqual(self.sent(), [])

    def test_expired_a_moment_ago(self) -> None:
        """Between two looks at the clock."""
        record = self.successResultOf(self.send(queue_seconds=0.5))
        self.clock.advance(0.6)
        self.connect()
        self.assertEqual(self.sent(), [])
        self.assertEqual(self.store.states(record.command_id), ["queued", "expired"])
        record = self.successResultOf(self.away_again_and_queued())
        self.connect()
        self.clock.advance(0.3)
        self.store.flushes[0].callback(None)
        self.assertEqual(self.sent(), [])
        self.assertEqual(self.store.saved[record.command_id].state, "expired")

    def away_again_and_queued(self) -> Deferred[CommandRecord]:
        self.session.connection_lost("reset")
        self.store.flushes = []
        return self.send(queue_seconds=0.2)

    def test_its_own_deadline_survives(self) -> None:
        record = self.successResultOf(self.send(queue_seconds=60, timeout=600.0))
        self.restart()
        self.connect()
        self.clock.advance(599)
        self.assertEqual(self.store.saved[record.command_id].state, "sent")
        self.clock.advance(1)
        self.assertEqual(self.store.saved[record.command_id].state, "timeout")

    def test_revoked(self) -> None:
        """Nothing waits for an agent that will not be let in; also not what was on its way."""
        record = self.successResultOf(self.send(queue_seconds=60))
        self.store.flushes = []
        self.connect()
        self.commands.agent_revoked("agent-1")
        self.store.flushes[0].callback(None)
        ended = self.store.saved[record.command_id]
        self.assertEqual((ended.state, ended.error), ("failed", "the agent was revoked"))
        self.assertEqual((self.sent(), self.commands.queued("agent-1")), ([], 0))

    def test_another_connection_meanwhile(self) -> None:
        """The agent comes back while its command is being written: it is sent once, over the new
        connection."""
        self.successResultOf(self.send(queue_seconds=60))
        self.store.flushes = []
        self.connect()
        before = self.connection
        self.connect()
        (flush,) = self.store.flushes
        flush.callback(None)
        self.assertEqual((before.sent, self.sent()), ([], ["ping"]))

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
        """What cannot be written as sent is not sent; it waits until it can. Who asks directly is
        served all the same."""
        for command in ("one", "two"):
            record = self.successResultOf(self.send(command, queue_seconds=60))
        self.store.broken = True
        self.connect()
        self.assertEqual(self.sent(), [])
        self.send("direct")
        self.assertEqual(self.sent(), ["direct"])
        for _ in range(10):
            self.clock.advance(1)
        self.assertEqual(self.sent(), ["direct"])
        # Trying again fills no memory with facts that cannot be written either.
        self.assertLess(len(self.store.of("put_command")), 7)
        self.store.broken = False
        self.clock.advance(1)
        self.assertEqual(self.sent(), ["direct", "one"])
        self.answer("one")
        self.answer("two")
        self.assertEqual(self.store.saved[record.command_id].state, "done")

    def test_killed_with_a_full_disk(self) -> None:
        """What waits in memory is lost with the hub, and the disk still says queued: the next hub
        is the first to send it."""
        sent = []
        for _ in range(2):
            self.successResultOf(self.send(queue_seconds=3600))
            on_disk = dict(self.store.saved)
            self.store.broken = True
            self.connect()
            sent.extend(self.sent())
            self.store.broken, self.store.saved = False, on_disk
            self.restart()
            self.connect()
            sent.extend(self.sent())
            self.answer("ping")
            self.session.connection_lost("reset")
            self.assertEqual(sent, ["ping"])
            sent.clear()

    def test_a_disk_that_breaks_otherwise(self) -> None:
        """Not even an error of another kind stops the looking."""
        self.successResultOf(self.send(queue_seconds=60))
        self.store.broken = True
        self.connect()
        self.patch(self.store, "flush", lambda: fail(RuntimeError("odd")))
        self.clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.patch(self.store, "flush", lambda: succeed(None))
        self.clock.advance(1)
        self.assertEqual(self.sent(), ["ping"])

    def test_stopped_while_it_is_written(self) -> None:
        """Not sent, so the next hub sends it."""
        record = self.successResultOf(self.send(queue_seconds=60))
        self.store.flushes = []
        self.connect()
        self.commands.stop()
        self.assertEqual(self.store.saved[record.command_id].state, "queued")
        self.store.flushes[0].callback(None)
        self.assertEqual((self.sent(), self.store.states(record.command_id)[2:]), ([], ["queued"]))
        self.store.flushes = None
        self.restart()
        self.connect()
        self.assertEqual(self.sent(), ["ping"])

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
        """Finished ones, the oldest first; never one that goes on."""
        self.patch(batches, "KEPT_BATCHES", 2)
        self.connect()
        running = self.many(1)
        first, _, third = self.many(), self.many(5), self.many()
        self.assertIsNone(self.commands.progress(first))
        self.assertIsNotNone(self.commands.progress(third))
        self.assertEqual(self.progress(running), (1, 0, 0, 1, False))
        self.answer("ping")
        self.assertEqual(self.progress(running), (1, 1, 0, 0, True))
        self.assertIsNotNone(self.commands.progress(third))

    def of_batch(self, batch_id: str) -> list[CommandRecord]:
        return [record for record in self.store.saved.values() if record.batch_id == batch_id]

    def test_written_down_first(self) -> None:
        """Each member is in the store before the first is sent: a hub that dies loses none, and
        what it left is never sent."""
        self.connect()
        batch_id = self.many(1, 1, 1, 1, 1, 1, concurrency=1)
        kinds = [args[0].state for name, args in self.store.facts if name == "put_command"]
        self.assertEqual(kinds, ["queued"] * 6 + ["sent"])
        self.answer("ping")
        self.registry = AgentRegistry(self.clock, RecordingListener())
        left, self.commands = self.commands, self.new_commands()
        states = [record.state for record in self.of_batch(batch_id)]
        self.assertEqual(states, ["done", *["lost"] * 5])
        self.connect()
        self.assertEqual(self.sent(), [])
        left.stop()

    def test_stopped(self) -> None:
        """Those whose turn has not come are said to have failed, and not left open."""
        self.connect()
        batch_id = self.many(1, 1, 1, concurrency=1, queue_seconds=60)
        self.commands.stop()
        self.session.connection_lost("closed by the hub: 1012")
        ended = [(record.state, record.error) for record in self.of_batch(batch_id)]
        self.assertEqual([state for state, _ in ended], ["lost", "failed", "failed"])
        self.assertEqual(ended[1][1], "the hub stopped before this was sent")
        self.assertEqual(self.progress(batch_id), (3, 0, 3, 0, True))
        self.assertEqual(self.progress(self.many(*[1] * 150)), (150, 0, 150, 0, True))

    def test_very_many(self) -> None:
        """A hundred at a time; between them others get the reactor."""
        turns: list[tuple[int, int]] = []
        later = self.clock.callLater

        def call_later(delay: float, function: Any, *arguments: Any) -> Any:
            turns.append((len(self.store.saved), sum(self.commands.counts.values())))
            return later(delay, function, *arguments)

        self.patch(self.clock, "callLater", call_later)
        batch_id = self.many(*[5] * 300)
        self.clock.advance(0)
        self.assertEqual(turns, [(100, 0), (200, 0), (300, 100), (300, 200), (300, 300)])
        self.assertEqual(self.progress(batch_id), (300, 0, 300, 0, True))

    def test_stopped_while_it_is_written_down(self) -> None:
        """Also those that were not written down yet are said to have failed."""
        batch_id = self.many(*[5] * 300)
        self.commands.stop()
        self.clock.advance(0)
        states = {record.state for record in self.of_batch(batch_id)}
        self.assertEqual((states, len(self.of_batch(batch_id))), ({"failed"}, 300))
        self.assertEqual(self.progress(batch_id), (300, 0, 300, 0, True))

    def test_too_many(self) -> None:
        self.patch(commands_module, "MAX_LEFT", 3)
        self.assertRaises(TooManyCommandsError, self.many, 1, 2, 3, 4)
        self.assertEqual(self.store.saved, {})


STEPS = (
    "queue queue queue many direct connect connect leave answer answer"
    " break mend mend slow on on write time kill stop"
)


class Disk(RecordingStore):
    """A store whose facts wait in memory until a write takes them to the disk."""

    def __init__(self, on_disk: dict[str, CommandRecord]) -> None:
        super().__init__()
        self.on_disk = on_disk
        self.waiting: list[CommandRecord] = []
        self.slow: list[Deferred[None]] = []
        self.is_slow = False

    def put_command(self, command: CommandRecord) -> None:
        self.waiting.append(command)

    def flush(self) -> Deferred[None]:
        if self.is_slow:
            self.slow.append(Deferred())
            return self.slow[-1]
        if self.broken:
            return fail(StoreError("the disk is full"))
        self.write()
        return succeed(None)

    def write(self) -> None:
        if not self.broken:
            self.on_disk.update((command.command_id, command) for command in self.waiting)
            self.waiting.clear()

    def go_on(self) -> None:
        """What was slow is over, well or not."""
        slow, self.slow, self.is_slow = self.slow, [], False
        for done in slow:
            if self.broken:
                done.errback(StoreError("the disk is full"))
            else:
                self.write()
                done.callback(None)

    def unfinished_commands(self) -> Deferred[list[CommandRecord]]:
        commands = self.on_disk.values()
        return succeed([each for each in commands if each.state in ("queued", "sent")])


class AtMostOnceTests(CommandsTestCase):
    """Whatever happens, in whatever order, no agent gets a command twice."""

    def begin(self, on_disk: dict[str, CommandRecord]) -> None:
        self.store = Disk(on_disk)
        self.registry = AgentRegistry(self.clock, RecordingListener())
        self.commands = self.new_commands()

    def kill(self) -> None:
        """What waits in memory is gone with the hub, and so are its connections."""
        self.commands._timer.stop()
        self.session.connection_lost("killed")
        self.store.put_command = lambda command: None
        self.store.slow.clear()
        self.begin(self.store.on_disk)

    def stop(self) -> None:
        self.commands.stop()
        self.session.connection_lost("closed by the hub: 1012")
        self.store.go_on()
        self.store.write()
        self.begin(self.store.on_disk)

    def step(self, draw: Random) -> None:
        match draw.choice(STEPS.split()):
            case "queue":
                number = str(next(self.numbers))
                self.asked(self.send(number, queue_seconds=draw.choice((1, 30, 600))))
            case "many":
                number = str(next(self.numbers))
                queue_seconds = draw.choice((None, 60))
                # One agent more than once: each is a command of its own, counted together.
                self.commands.send_many(
                    ["agent-1", "agent-2"], number, {}, who="a", queue_seconds=queue_seconds
                )
            case "direct":
                self.asked(self.send(str(next(self.numbers)), timeout=5.0))
            case "connect":
                self.clock.advance(0.1)  # an agent's messages are never older than its last
                self.connect()
                self.connections.append(self.connection)
            case "leave":
                self.session.connection_lost("reset")
            case "answer":
                for command in self.sent()[-1:]:
                    self.answer(command)
            case "break":
                self.store.broken = True
            case "mend":
                self.store.broken = False
            case "slow":
                self.store.is_slow = True
            case "on":
                self.store.go_on()
            case "write":
                self.store.write()
            case "time":
                self.clock.advance(draw.choice((0.5, 1, 1, 5, 40)))
            case "kill":
                self.kill()
            case "stop":
                self.stop()

    def asked(self, sending: Deferred[CommandRecord]) -> None:
        sending.addErrback(lambda failure: failure.trap(CommandError) and None)

    def test_at_most_once(self) -> None:
        in_all = 0
        for seed in range(70):
            draw = Random(seed)
            self.numbers = count(1)
            self.fleet = keys({f"agent-{n}": f"secret {n}" for n in range(1, 3)})
            self.commands.stop()
            self.begin({})
            self.connect()
            self.connections = [self.connection]
            for _ in range(80):
                self.step(draw)
            self.store.broken = False
            self.store.go_on()
            self.connect()
            self.connections.append(self.connection)
            for _ in range(40):
                self.clock.advance(1)
                for command in self.sent()[-1:]:
                    self.answer(command)
            sent = [
                payload.command
                for connection in self.connections
                for _, payload in connection.commands("secret 1")
            ]
            self.assertEqual(len(sent), len(set(sent)), f"seed {seed}: {sorted(sent)}")
            in_all += len(sent)
            # And nothing is forgotten: what waits for nobody has ended.
            self.store.write()
            left = [
                each
                for each in self.store.on_disk.values()
                if each.agent_id == "agent-1" and each.state in ("queued", "sent")
            ]
            self.assertEqual(left, [], f"seed {seed}")
        self.assertGreater(in_all, 700)
