"""How the hub says it is: whether it should get agents, and how late its reactor is."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.status import HubStatus
from jetcamer.hub.store.interface import StoreHealth


class Parts:
    """What a `HubStatus` asks; itself the gateway."""

    connections = 3
    handshakes = 5
    handshakes_refused: Mapping[int, int] = {}
    draining = False
    health = StoreHealth(ok=True)

    @property
    def gateway(self) -> Parts:
        return self

    def agents_online(self) -> int:
        return 2

    def agents_known(self) -> int:
        return 4

    def store_health(self) -> StoreHealth:
        return self.health

    def messages(self) -> Mapping[str, int]:
        return {"auth": 2, "metrics": 7}

    def refused(self) -> Mapping[str, int]:
        return {}


class StatusTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.parts = Parts()
        self.status = HubStatus(self.clock, self.parts, started_ms=7)

    def test_ready(self) -> None:
        self.assertEqual((self.status.ready, self.status.why_not), (False, "starting"))
        self.status.start()
        self.assertEqual((self.status.ready, self.status.why_not), (True, None))
        self.parts.draining = True
        self.assertEqual(self.status.why_not, "draining")
        self.status.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_disk(self) -> None:
        """One that fails, and one that hangs and so never says that it fails."""
        self.status.start()
        for health, why_not in (
            (StoreHealth(ok=False, words="the disk is full"), "the store fails: the disk is full"),
            (StoreHealth(ok=True, lag=4.9, waiting=1), None),
            (StoreHealth(ok=True, lag=7.2, waiting=1), "the disk does not keep up: 7 s behind"),
        ):
            self.parts.health = health
            self.assertEqual(self.status.why_not, why_not)
        self.status.stop()

    def test_reactor_lag(self) -> None:
        """The worst of the last seconds."""
        self.status.start()
        self.clock.advance(0.5)
        self.assertEqual(self.status.reactor_lag, 0.0)
        self.clock.advance(2.5)
        self.assertAlmostEqual(self.status.reactor_lag, 2.0)
        for _ in range(21):
            self.clock.advance(0.5)
        self.assertEqual(self.status.reactor_lag, 0.0)
        self.status.stop()

    def test_figures(self) -> None:
        self.assertEqual((self.status.messages, self.status.agents_online), (9, 2))
        self.assertEqual((self.status.agents_known, self.status.connections), (4, 3))
