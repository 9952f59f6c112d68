"""Events: told in order, as text, to those who want them, and again to those who come back."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.bus import local
from jetcamer.hub.bus.local import Event, LocalBus
from jetcamer.protocol.envelope import MetricsPayload


class BusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bus = LocalBus("e")
        self.heard: list[Event] = []
        self.bus.subscribe(lambda event: None)

    def publish(self, n: int, kind: str = "metrics", agent: str | None = "a") -> None:
        self.bus.publish(kind, agent, n, {"n": n})

    def since(self, event_id: str) -> list[Event]:
        return [*self.bus.since(event_id)]

    def numbers(self) -> list[int]:
        return [json.loads(event.data)["n"] for event in self.heard]

    def test_told(self) -> None:
        self.bus.subscribe(self.heard.append)
        self.bus.publish("metrics", "web-1", 7, MetricsPayload(1.5, None, 3.0))
        (event,) = self.heard
        self.assertEqual((event.event_id, event.kind, event.agent_id), ("e-1", "metrics", "web-1"))
        self.assertEqual(
            json.loads(event.data),
            {"agentId": "web-1", "ts": 7, "cpuPercent": 1.5, "memPercent": None, "diskUsage": 3.0},
        )

    def test_nothing_to_say(self) -> None:
        self.bus.subscribe(self.heard.append)
        self.bus.publish("agent", None, 7, {})
        self.assertEqual(json.loads(self.heard[0].data), {"agentId": None, "ts": 7})

    def test_only_what_is_wanted(self) -> None:
        self.bus.subscribe(self.heard.append, kinds=["log"], agent_ids=["a"])
        self.publish(1)
        self.publish(2, "log", "b")
        self.publish(3, "log", "a")
        self.assertEqual(self.numbers(), [3])

    def test_unsubscribed(self) -> None:
        """Also from within: nobody else misses anything by it."""
        ends = []

        def once(event: Event) -> None:
            ends[0]()

        ends.append(self.bus.subscribe(once))
        self.bus.subscribe(self.heard.append)
        self.publish(1)
        self.publish(2)
        ends[0]()
        self.assertEqual(self.numbers(), [1, 2])

    def test_a_subscriber_that_fails(self) -> None:
        def fail(event: Event) -> None:
            raise RuntimeError("no")

        self.bus.subscribe(fail)
        self.bus.subscribe(self.heard.append)
        self.publish(1)
        self.assertEqual(self.numbers(), [1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_since(self) -> None:
        start = self.bus.last_event_id
        for n in range(5):
            self.publish(n)
        missed = self.since("e-3")
        self.assertEqual([event.event_id for event in missed], ["e-4", "e-5"])
        self.assertEqual(self.since("e-5"), [])
        self.assertEqual(len(self.since(start)), 5)

    def test_since_is_made_as_it_is_taken(self) -> None:
        """Not all at once; what is forgotten meanwhile is still told."""
        self.patch(local, "KEPT_EVENTS", 10)
        made: list[int] = []

        encode = LocalBus._event

        def counting(bus: LocalBus, kept: object) -> Event:
            made.append(kept.number)
            return encode(bus, kept)

        self.bus = LocalBus("e")
        start = self.bus.last_event_id
        for n in range(10):
            self.publish(n, "log")
        self.patch(LocalBus, "_event", counting)
        missed = self.bus.since(start)
        self.assertEqual(made, [])
        self.assertEqual(next(missed).event_id, "e-1")
        self.assertEqual(made, [1])
        for n in range(20):
            self.publish(n, "log")
        self.assertEqual([event.event_id for event in missed], [f"e-{n}" for n in range(2, 11)])

    def test_weight(self) -> None:
        """In memory or as text, whichever is more."""
        self.assertGreater(local.weight_of("a" * 1000), 1000)
        self.assertGreater(local.weight_of("\x01" * 1000), 6000)
        self.assertGreater(local.weight_of("a" * 1000 + "\U0001f600"), 4000)
        self.assertGreater(local.weight_of("\ud800" * 1000), 2000)
        self.assertEqual(local.weight_of("", None), 0)

    def test_since_what_nobody_knows(self) -> None:
        """Another run's, one from the future, and what is no id at all."""
        self.publish(1)
        for event_id in ("f-1", "e-2", "", "e-", "e--1", "e-x", "1", "e-" + "9" * 5000, "e-²"):
            self.assertIsNone(self.bus.since(event_id), event_id)

    def test_metrics_nobody_asks_for(self) -> None:
        """They are not kept, and who comes back after them is told that he missed something."""
        self.now = 4
        self.bus = LocalBus("e", now_ms=lambda: self.now)
        self.publish(1, "log")
        self.publish(2)
        self.assertIsNone(self.bus.since("e-1"))
        self.publish(3, "log")
        self.assertEqual([event.event_id for event in self.since("e-2")], ["e-3"])
        end = self.bus.subscribe(self.heard.append)
        self.publish(4)
        end()
        self.publish(5)
        self.assertEqual(len(self.since("e-3")), 2)
        self.publish(4 + local.METRICS_KEPT_MS + 1)
        self.assertIsNone(self.bus.since("e-5"))

    def test_an_agents_clock_keeps_nothing(self) -> None:
        """A log message from a year ahead, heard by somebody, says nothing of when he left."""
        self.now = 1
        self.bus = LocalBus("e", now_ms=lambda: self.now)
        end = self.bus.subscribe(self.heard.append)
        self.publish(365 * 86_400_000, "log")
        self.publish(0, "log")
        end()
        self.publish(1 + local.METRICS_KEPT_MS)
        self.assertEqual(len(self.since("e-2")), 1)
        self.publish(1 + local.METRICS_KEPT_MS + 1)
        self.assertIsNone(self.bus.since("e-2"))

    def test_forgotten(self) -> None:
        """What is kept is bounded, in number and in size; the gap is known."""
        self.patch(local, "KEPT_EVENTS", 10)
        for n in range(25):
            self.publish(n)
        self.assertIsNone(self.bus.since("e-14"))
        self.assertEqual(len(self.since("e-15")), 10)
        self.bus.publish("log", "a", 0, {"n": 0}, text=local.KEPT_BYTES)
        self.assertEqual(self.since("e-26"), [])
        self.assertIsNone(self.bus.since("e-25"))
        self.publish(1)
        self.assertEqual(len(self.since("e-26")), 1)
