"""A verified message reaches store and bus; a refusal reaches whoever may ask for it."""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.bus.local import Event, LocalBus
from jetcamer.hub.fleet import Fleet, after_kill
from jetcamer.hub.ingest import Ingest
from jetcamer.hub.records import AgentRecord
from jetcamer.hub.refusals import Refusals
from jetcamer.hub.registry import AgentRegistry
from jetcamer.hub.session import AgentSession
from tests.hub.doubles import NOW, SECRETS, FakeConnection, RecordingListener, SealingAgent, keys
from tests.hub.stores import RecordingStore


class IngestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.now = NOW
        self.store = RecordingStore()
        self.bus = LocalBus("e")
        self.events: list[Event] = []
        self.bus.subscribe(self.events.append)
        self.offences: list[str] = []
        self.arrived: list[str] = []
        self.fleet = keys()
        self.refusals = Refusals(self.clock, self.fleet)
        self.extra = RecordingListener()
        self.ingest = Ingest(
            self.clock,
            fleet=self.fleet,
            store=self.store,
            bus=self.bus,
            refusals=self.refusals,
            offenders=self,
            now_ms=lambda: self.now,
            extra=self.extra,
        )
        self.ingest.commands = self
        self.registry = AgentRegistry(self.clock, self.ingest)
        self.agent = SealingAgent()

    def offended(self, address: str) -> None:
        self.offences.append(address)

    def agent_arrived(self, agent_id: str) -> None:
        self.arrived.append(agent_id)

    def connect(self) -> AgentSession:
        session = AgentSession(FakeConnection(), self.fleet, self.registry, lambda: self.now)
        session.message_received(self.agent.auth())
        return session

    def told(self) -> list[tuple[str, dict]]:
        return [(event.kind, json.loads(event.data)) for event in self.events]

    def test_a_session(self) -> None:
        session = self.connect()
        ((record, peer, started),) = self.store.of("session_started")
        self.assertEqual((record.agent_id, record.hostname), ("agent-1", "web-01"))
        self.assertEqual((peer, started), ("192.0.2.7:50000", NOW))
        # At once: a crash may come before the first regular writing.
        self.assertEqual(self.store.of("seen"), [([("agent-1", NOW, NOW)],)])
        self.assertEqual(self.arrived, ["agent-1"])
        self.now += 5000
        session.connection_lost("closed by the agent: 1000")
        self.assertEqual(
            self.store.of("session_ended"), [(1, NOW + 5000, "closed by the agent: 1000", 1, 0)]
        )
        self.assertEqual(self.store.of("seen")[1:], [([("agent-1", NOW, NOW)],)])
        self.assertEqual(
            self.told(),
            [
                (
                    "agent",
                    {
                        "agentId": "agent-1",
                        "ts": NOW,
                        "state": "online",
                        "address": "192.0.2.7",
                        "hostname": "web-01",
                        "version": "5.0.0",
                    },
                ),
                (
                    "agent",
                    {
                        "agentId": "agent-1",
                        "ts": NOW + 5000,
                        "state": "offline",
                        "address": "192.0.2.7",
                        "words": "closed by the agent: 1000",
                    },
                ),
            ],
        )
        self.assertEqual(self.extra.names(), ["authenticated", "disconnected"])

    def test_replaced(self) -> None:
        """The older session ends, with its reason; the agent is not away for a moment."""
        old = self.connect()
        self.connect()
        old.connection_lost("closed by the hub: 1000 replaced_by_new_connection")
        states = [data["state"] for _, data in self.told()]
        self.assertEqual(states, ["online", "replaced", "online"])
        ((_, _, words, *_),) = self.store.of("session_ended")
        self.assertEqual(words, "replaced by a newer connection")

    def test_second_auth(self) -> None:
        """A session is written down once."""
        session = self.connect()
        session.message_received(self.agent.auth())
        self.assertEqual(len(self.store.of("session_started")), 1)

    def test_metrics(self) -> None:
        session = self.connect()
        self.now += 40
        session.message_received(self.agent.metrics())
        self.assertEqual(self.store.of("add_metrics"), [("agent-1", NOW + 40, 25.5, 45.2, 60.1)])
        self.assertEqual(
            self.told()[1],
            (
                "metrics",
                {
                    "agentId": "agent-1",
                    "ts": NOW + 40,
                    "cpuPercent": 25.5,
                    "memPercent": 45.2,
                    "diskUsage": 60.1,
                },
            ),
        )
        self.assertEqual(self.ingest.messages["metrics"], 1)

    def test_log(self) -> None:
        """With the time that was signed, and the event that our agent adds."""
        session = self.connect()
        event = {"path": "/é", "status": 200}
        payload = {"level": "info", "message": "GET /é", "source": "/var/log/a", "event": event}
        session.message_received(self.agent.seal("log", payload, ts=NOW - 1000))
        session.message_received(self.agent.seal("log", {"level": "warn", "message": "x"}))
        with_event, plain = self.store.of("add_log")
        self.assertEqual(
            with_event[:6], ("agent-1", NOW, NOW - 1000, "info", "GET /é", "/var/log/a")
        )
        self.assertEqual(json.loads(with_event[6]), event)
        self.assertEqual(plain, ("agent-1", NOW, NOW, "warn", "x", None, None))
        (_, first), (_, second) = self.told()[1:]
        self.assertEqual((first["event"], first["ts"]), (event, NOW - 1000))
        self.assertIsNone(second["event"])

    def test_odd_log(self) -> None:
        """An event that is none, and a text that no store can hold as it came."""
        session = self.connect()
        for event in (7, "text", None, [1]):
            payload = {"level": "info", "message": "x", "event": event}
            session.message_received(self.agent.seal("log", payload))
        text = rb'{"level":"info","message":"\ud800","event":{"a":"\udfff"}}'
        key = self.agent.key
        session.message_received(key.seal("log", "agent-1", text, ts=NOW, nonce="n-1"))
        logs = self.store.of("add_log")
        self.assertEqual([log[6] for log in logs], [None] * 5)
        self.assertEqual(logs[4][4], "\N{REPLACEMENT CHARACTER}")
        self.assertEqual(session.refused, 0)

    def test_heartbeat_and_result(self) -> None:
        session = self.connect()
        session.message_received(self.agent.seal("heartbeat", {"status": "alive"}))
        session.message_received(self.agent.result("ping", "pong"))
        self.assertEqual(
            self.ingest.messages,
            {"auth": 1, "metrics": 0, "heartbeat": 1, "log": 0, "command_result": 1},
        )
        self.assertEqual(self.extra.names()[1:], ["heartbeat", "command_result"])

    def test_refused(self) -> None:
        self.agent = SealingAgent("agent-1", SECRETS["agent-2"])
        self.connect()
        self.agent = SealingAgent("agent-9", "whoever this is")
        self.connect()
        self.agent = SealingAgent()
        self.agent.now = NOW - 400_000
        self.connect()
        first, second, third = (refusal for (refusal,) in self.store.of("add_refusal"))
        self.assertEqual(
            [first.reason, second.reason, third.reason],
            ["invalid_signature", "unknown_agent", "invalid_timestamp"],
        )
        self.assertEqual(self.refusals.of_agent("agent-1"), [third, first])
        self.assertIs(self.fleet.get("agent-1").last_refusal, third)
        # A wrong clock is nobody's try.
        self.assertEqual(self.offences, ["192.0.2.7"] * 2)
        kinds = [kind for kind, _ in self.told()]
        self.assertEqual(kinds, ["refusal"] * 3)
        self.assertEqual(self.told()[1][1]["agentId"], "agent-9")

    def test_written_down(self) -> None:
        """Once a second: who was heard since, and up to which of its messages."""
        self.ingest.start()
        session = self.connect()
        self.clock.advance(1)
        self.assertEqual(self.store.of("seen")[1:], [([("agent-1", NOW, NOW)],)])
        self.now += 1000
        self.clock.advance(1)  # once more: what came in that millisecond, but after the writing
        self.now += 1000
        self.clock.advance(1)
        self.assertEqual(len(self.store.of("seen")), 3)
        self.agent.now = self.now
        session.message_received(self.agent.metrics())
        self.clock.advance(1)
        self.assertEqual(
            self.store.of("seen")[3:],
            [([("agent-1", self.now, self.now)],)],
        )
        self.ingest.stop()
        self.assertEqual(self.store.of("seen")[4:], [([("agent-1", self.now, self.now)],)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_replayed_after_a_kill(self) -> None:
        """What came in the last second, and was never written down, does not count again."""
        self.ingest.start()
        self.agent.now = NOW - 40_000  # as far as it may be off
        session = self.connect()
        self.clock.advance(1)
        self.now += 5900
        metrics = self.agent.metrics(ts=NOW - 40_000 + 5900)
        session.message_received(metrics)
        ((_, last_seen, floor),) = self.store.of("seen")[-1][0]
        written = AgentRecord(
            agent_id="agent-1", created_ms=NOW, last_seen_ms=last_seen, replay_floor_ms=floor
        )
        after = Fleet()
        after.add(after_kill(written, NOW + 8000), [(SECRETS["agent-1"], None)])
        for ts, code in ((None, 1008), (NOW - 40_000 + 8001, None)):
            connection = FakeConnection()
            again = AgentSession(connection, after, self.extra, lambda: NOW + 8001)
            again.message_received(metrics if ts is None else self.agent.auth(ts=ts))
            self.assertEqual(connection.closed and connection.closed[0], code)
        self.ingest.stop()
