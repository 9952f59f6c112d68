"""A verified message reaches store and bus; a refusal reaches whoever may ask for it."""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub import ingest
from jetcamer.hub.bus import local
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
        self.offenders: list[tuple[str | None, bool]] = []
        self.pardoned: list[str] = []
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

    def offended(self, address: str, agent_id: str | None = None, *, retired: bool = False) -> None:
        self.offences.append(address)
        self.offenders.append((agent_id, retired))

    def pardon(self, address: str) -> None:
        self.pardoned.append(address)

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
        """A session is written down once, and told again only where something has changed."""
        session = self.connect()
        session.message_received(self.agent.auth())
        self.assertEqual(len(self.store.of("session_started")), 1)
        self.assertEqual(len(self.events), 1)
        payload = {"hostname": "web-02", "version": "5.0.0"}
        session.message_received(self.agent.seal("auth", payload))
        self.assertEqual([data["hostname"] for _, data in self.told()], ["web-01", "web-02"])
        session.connection_lost("gone")
        self.connect()
        self.connect()
        states = [data["state"] for _, data in self.told()[2:]]
        self.assertEqual(states, ["offline", "online", "replaced", "online"])

    def test_boasting(self) -> None:
        """However much an agent says of itself, little is kept, written down and told."""
        session = self.connect()
        session.connection_lost("gone")
        self.store.facts.clear()
        self.events.clear()
        payload = {
            "hostname": "h" * 200_000,
            "version": "v" * 200_000,
            "capabilities": ["c" * 1000] * 400,
        }
        session = AgentSession(FakeConnection(), self.fleet, self.registry, lambda: self.now)
        session.message_received(self.agent.seal("auth", payload))
        agent = self.fleet.get("agent-1")
        ((record, *_),) = self.store.of("session_started")
        for kept in (agent, record, session.auth):
            self.assertEqual((kept.hostname, kept.version), ("h" * 255, "v" * 255))
            self.assertEqual(kept.capabilities, ("c" * 64,) * 64)
        self.assertEqual(self.told()[0][1]["hostname"], "h" * 255)
        self.assertEqual(self.extra.of("authenticated")[-1].hostname, "h" * 255)

    def test_what_events_weigh(self) -> None:
        """The bus keeps what it can bear, whatever stands in its events."""
        self.patch(local, "KEPT_BYTES", 20_000)
        for n in range(100):
            payload = {"hostname": f"{n:03}" + "\x01" * 250, "version": "5"}
            session = AgentSession(FakeConnection(), self.fleet, self.registry, lambda: self.now)
            session.message_received(self.agent.seal("auth", payload))
        text = sum(len(event.data) for event in self.events[-len(self.bus._kept) :])
        self.assertLess(text, 20_000)

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
        self.assertEqual(self.offenders, [("agent-1", False), ("agent-9", False)])
        self.fleet.revoke("agent-2", NOW)
        self.agent = SealingAgent("agent-2")
        self.connect()
        self.assertEqual(self.offenders[2:], [("agent-2", True)])
        self.assertEqual(self.refusals.of_agent("agent-2")[0].words, "agent-2 was revoked")
        self.events.pop()
        kinds = [kind for kind, _ in self.told()]
        self.assertEqual(kinds, ["refusal"] * 3)
        self.assertEqual(self.told()[1][1]["agentId"], "agent-9")

    def test_garbage(self) -> None:
        """Who sends it without having said who he is is counted like who tries; an agent that is
        in is not."""
        for message in (b"garbage", b'{"type":"auth"}'):
            stranger = AgentSession(FakeConnection(), self.fleet, self.registry, lambda: self.now)
            stranger.message_received(message)
        stranger = AgentSession(FakeConnection(), self.fleet, self.registry, lambda: self.now)
        stranger.binary_received()
        stranger = AgentSession(FakeConnection(), self.fleet, self.registry, lambda: self.now)
        stranger.auth_overdue()
        early = AgentSession(FakeConnection(), self.fleet, self.registry, lambda: self.now)
        early.message_received(self.agent.metrics())
        self.assertEqual(
            list(self.refusals.counts.items()),
            [("invalid_json", 2), ("not_text", 1), ("auth_timeout", 1), ("auth_required", 1)],
        )
        # Who is slow may be on a bad line, with others.
        self.assertEqual(len(self.offences), 4)
        self.assertEqual(self.pardoned, [])
        for wrong in (lambda s: s.message_received(b"garbage"), lambda s: s.binary_received()):
            wrong(self.connect())
        self.assertEqual(len(self.offences), 4)
        self.assertEqual(self.pardoned, ["192.0.2.7"] * 2)

    def refuse(self, number: int, address: str = "192.0.2.7") -> None:
        for _ in range(number):
            connection = FakeConnection(f"{address}:1")
            AgentSession(connection, self.fleet, self.registry, lambda: self.now).message_received(
                b"garbage"
            )

    def test_refusals_written_down(self) -> None:
        """So many of one address, and in all, in a second; all are counted."""
        self.refuse(500)
        self.assertEqual(len(self.store.of("add_refusal")), ingest.MAX_REFUSALS_OF_ADDRESS)
        self.refuse(1, "192.0.2.8")
        self.assertEqual(len(self.store.of("add_refusal")), ingest.MAX_REFUSALS_OF_ADDRESS + 1)
        for n in range(200):
            self.refuse(1, f"198.51.100.{n}")
        self.assertEqual(len(self.store.of("add_refusal")), ingest.MAX_REFUSALS)
        self.assertEqual(self.refusals.counts["invalid_json"], 701)
        self.clock.advance(1)
        self.refuse(1)
        self.assertEqual(len(self.store.of("add_refusal")), ingest.MAX_REFUSALS + 1)

    def test_a_clock_that_was_wrong(self) -> None:
        """What an agent is refused for now counts, not what it was refused for before."""
        self.agent.now = NOW - 400_000
        self.connect()
        agent = self.fleet.get("agent-1")
        self.assertEqual(agent.state(NOW)[0], "clock_wrong")
        self.agent = SealingAgent("agent-1", SECRETS["agent-2"])
        self.connect()
        self.assertEqual(agent.state(NOW)[0], "refused")

    def test_who_it_is_said_of(self) -> None:
        """A stranger does not change what is shown of an agent; what he sent is listed."""
        session = self.connect()
        session.message_received(self.agent.seal("telemetry", {}))
        agent = self.fleet.get("agent-1")
        self.say_from("192.0.2.7", self.agent.metrics())
        session.connection_lost("gone")
        self.assertEqual(agent.state(NOW)[0], "offline")
        self.say_from("192.0.2.9", SealingAgent("agent-1", "guessed").auth())
        self.assertEqual(agent.state(NOW)[0], "offline")
        self.assertIsNone(agent.last_refusal)
        self.assertEqual(
            [refusal.reason for refusal in self.refusals.of_agent("agent-1")],
            ["invalid_signature", "auth_required", "unknown_type"],
        )
        self.say_from("192.0.2.9", self.agent.metrics())
        self.assertEqual(
            agent.state(NOW), ("refused", "refused, from 192.0.2.9: began with metrics")
        )

    def say_from(self, address: str, message: bytes) -> None:
        connection = FakeConnection(f"{address}:1")
        session = AgentSession(connection, self.fleet, self.registry, lambda: self.now)
        session.message_received(message)

    def test_counters(self) -> None:
        """Once a minute: what sessions have counted, where they have counted any more."""
        self.ingest.start()
        self.agent = SealingAgent("agent-2")
        self.connect()
        self.agent = SealingAgent()
        session = self.connect()
        session.message_received(self.agent.metrics())
        session.message_received(self.agent.seal("telemetry", {}))
        for _ in range(60):
            self.clock.advance(1)
        self.assertEqual(
            sorted(row for (rows,) in self.store.of("sessions_counted") for row in rows),
            [(1, 1, 0), (2, 3, 1)],
        )
        self.store.facts.clear()
        session.message_received(self.agent.metrics())
        for _ in range(120):
            self.clock.advance(1)
        self.assertEqual(self.store.of("sessions_counted"), [([(2, 4, 1)],)])
        self.ingest.stop()

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
