"""Why was it refused? Kept for who asks, said once, bounded whatever a stranger sends."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub import refusals
from jetcamer.hub.fleet import Fleet
from jetcamer.hub.records import AgentRecord, RefusalRecord
from jetcamer.hub.refusals import Refusals
from tests.hub.doubles import NOW, SECRETS, SealingAgent, keys


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.fleet = keys()
        self.refusals = Refusals(self.clock, self.fleet)
        self.lines: list[str] = []
        observe = lambda event: self.lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def add(self, n: int = 0, agent: str | None = "agent-1", address: str = "192.0.2.1") -> None:
        self.refusals.add(
            RefusalRecord(
                ts_ms=NOW + n,
                agent_id=agent,
                address=address,
                reason="invalid_signature",
                words="signature: does not match",
            )
        )

    def test_kept(self) -> None:
        """The newest first, by who it was and by where it came from."""
        for n in range(25):
            self.add(n)
        self.add(100, agent=None, address="192.0.2.2")
        times = [refusal.ts_ms - NOW for refusal in self.refusals.of_agent("agent-1")]
        self.assertEqual(times, [*range(24, 4, -1)])
        self.assertEqual(len(self.refusals.of_address("192.0.2.1")), 20)
        self.assertEqual(len(self.refusals.of_address("192.0.2.2")), 1)
        self.assertEqual(self.refusals.of_agent("agent-2"), [])
        self.assertEqual(self.refusals.counts, {"invalid_signature": 26})
        times = [refusal.ts_ms - NOW for refusal in self.refusals.latest()]
        self.assertEqual(times, [100, *range(24, -1, -1)])

    def test_said_once(self) -> None:
        """A flood is one line, and a number a minute later."""
        for n in range(1000):
            self.add(n)
        self.assertEqual(
            self.lines,
            ["[hub] refused invalid_signature from 192.0.2.1 (agent-1): signature: does not match"],
        )
        self.clock.advance(60)
        self.add()
        self.assertEqual(len(self.lines), 2)
        self.assertIn("(and 999 more like it)", self.lines[1])
        self.add(agent="agent-2\n[hub] forged")
        self.assertIn(r"(agent-2\n[hub] forged)", self.lines[2])

    def test_bounded(self) -> None:
        self.patch(refusals, "KEPT_NAMES", 50)
        for n in range(200):
            self.add(n, agent=f"agent-{n}", address=f"192.0.2.{n}")
        self.assertEqual(self.refusals.of_agent("agent-149"), [])
        self.assertEqual(len(self.refusals.of_agent("agent-150")), 1)
        self.assertEqual(len(self.refusals._said), 50)
        for n in range(refusals.KEPT_LATEST):
            self.add(n)
        self.assertEqual(len(self.refusals.latest()), refusals.KEPT_LATEST)

    def test_explained(self) -> None:
        """With the agent's keys; only so often, for it costs time."""
        agent = self.fleet.get("agent-1")
        message = SealingAgent("agent-1", SECRETS["agent-2"]).auth()
        for _ in range(20):
            self.assertNotEqual(self.refusals.explain(message, agent), "")
        self.assertEqual(self.refusals.explain(message, agent), "")
        self.clock.advance(1)
        self.assertNotEqual(self.refusals.explain(message, agent), "")

    def test_with_which_secret(self) -> None:
        """One that is not valid any more, or was never this agent's own, is recognised."""
        fleet = Fleet(legacy_secret="shared by all of them")
        self.refusals = Refusals(self.clock, fleet)
        fleet.add(AgentRecord(agent_id="agent-1", created_ms=NOW), [(SECRETS["agent-1"], None)])
        fleet.set_secrets("agent-1", [("a new secret", None)])
        agent = fleet.get("agent-1")
        for secret, words in (
            (SECRETS["agent-1"], "a secret that it no longer has"),
            ("shared by all of them", "the shared secret"),
        ):
            message = SealingAgent("agent-1", secret).auth()
            self.assertIn(words, self.refusals.explain(message, agent))
