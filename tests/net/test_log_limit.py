"""Lines that strangers can cause are bounded, and what was left out is said."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.net.log_limit import LogLimit


class LogLimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.5)
        self.rest: list[int] = []
        self.limit = LogLimit(self.clock, self.rest.append, most=3, seconds=2.0)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def admitted(self, times: int) -> int:
        return [self.limit.admits() for _ in range(times)].count(True)

    def test_few(self) -> None:
        """As long as nothing is left out there is no timer."""
        for _ in range(5):
            self.assertEqual(self.admitted(3), 3)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.clock.advance(2)
        self.assertEqual(self.rest, [])

    def test_many(self) -> None:
        for _ in range(3):
            self.rest.clear()
            self.assertEqual(self.admitted(2), 2)
            self.clock.advance(1)
            self.assertEqual(self.admitted(10), 1)
            self.assertEqual(self.rest, [])
            self.clock.advance(1)
            self.assertEqual(self.rest, [9])

    def test_for_long(self) -> None:
        """Neither more lines nor fewer, and none uncounted, whatever the time."""
        admitted = 0
        for _ in range(100):
            admitted += self.admitted(7)
            self.clock.advance(0.25)
        self.clock.advance(2)
        self.assertEqual(admitted + sum(self.rest), 700)
        self.assertLessEqual(admitted, 3 * 13)
        self.assertGreaterEqual(admitted, 3 * 12)

    def test_stop(self) -> None:
        self.limit.stop()
        self.assertEqual(self.admitted(5), 3)
        self.limit.stop()
        self.assertEqual(self.rest, [2])
        self.limit.stop()
        self.assertEqual(self.rest, [2])
