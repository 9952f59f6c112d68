"""The rate of live lines: how it comes down and goes up again, and when the next one may go."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.pace import BURST, CATCHING_UP, FLOOR, REMEMBERED, Pace


class PaceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.use(200)

    def use(self, most: int) -> None:
        pace = self.pace = Pace(self.clock, most)
        pace.opened()
        self.addCleanup(lambda: (pace.stop(), self.assertEqual(self.clock.getDelayedCalls(), [])))

    def send(self, seconds: float, *, waited: bool = False, every: float = 0.0625) -> int:
        """Send all that may be sent for so long; the number of lines."""
        sent = 0
        for _ in range(round(seconds / every)):
            while self.pace.wait(waited=waited) <= 0:
                self.pace.sent()
                sent += 1
            self.clock.advance(every)
        return sent

    def refuse(self, times: int = 1) -> None:
        for _ in range(times):
            self.pace.refused()
            self.pace.opened()

    def minute(self, *, busy: bool = True) -> float:
        """The rate after a minute."""
        if busy:
            self.send(2)
            self.clock.advance(58)
        else:
            self.clock.advance(60)
        return round(self.pace.rate, 2)


class RateTests(PaceCase):
    def test_as_configured_a_seconds_worth_at_once(self) -> None:
        self.assertEqual(self.send(1), 200)
        self.assertEqual(self.send(1), 200)
        self.assertFalse(self.pace.limited)

    def test_never_more_than_a_burst_at_once(self) -> None:
        self.use(10_000)
        self.assertEqual(self.send(0.001, every=0.001), BURST)

    def test_once_refused_it_is_half_and_spread_over_the_second(self) -> None:
        self.assertTrue(self.pace.refused())
        self.assertTrue(self.pace.limited)
        self.assertEqual(self.send(0.25), 25)
        self.assertEqual(self.send(9.75), 975)

    def test_half_again_each_time_down_to_the_floor(self) -> None:
        rates = []
        for _ in range(7):
            changed = self.pace.refused()
            rates.append((self.pace.rate, changed))
        self.assertEqual(
            rates,
            [
                (100, True),
                (50, True),
                (25, True),
                (12.5, True),
                (6.25, True),
                (5, True),
                (5, False),
            ],
        )
        self.assertIn(self.send(10, every=0.2), (10 * FLOOR - 1, 10 * FLOOR))

    def test_half_of_what_was_sent_where_that_is_less_than_the_rate(self) -> None:
        for _ in range(80):
            for _ in range(6):
                self.assertEqual(self.pace.wait(waited=False), 0)
                self.pace.sent()
            self.clock.advance(0.1)
        self.pace.refused()
        self.assertEqual(round(self.pace.rate), 30)

    def test_what_was_sent_over_an_earlier_connection_does_not_count(self) -> None:
        self.pace.sent()
        self.clock.advance(600)
        self.refuse()
        self.pace.sent()
        self.refuse()
        self.assertEqual(self.pace.rate, 50)

    def test_a_moment_says_nothing_of_what_is_sent_in_a_second(self) -> None:
        for _ in range(3):
            self.pace.sent()
            self.clock.advance(0.25)
        self.pace.refused()
        self.assertEqual(self.pace.rate, 100)

    def test_what_is_configured_below_the_floor_stays(self) -> None:
        self.use(3)
        self.assertFalse(self.pace.refused())
        self.assertEqual((self.pace.rate, self.pace.limited), (3, False))

    def test_lines_that_waited_are_sent_slowly_after_the_first_burst(self) -> None:
        self.assertEqual(self.send(1.25, waited=True), BURST)
        self.assertEqual(self.send(10, waited=True), 10 * CATCHING_UP)
        self.assertGreater(self.send(1), 150)

    def test_another_connection_has_its_own_first_burst(self) -> None:
        self.send(3, waited=True)
        self.clock.advance(10)
        self.pace.opened()
        self.assertEqual(self.send(1.25, waited=True), BURST)


class GrowthTests(PaceCase):
    def test_a_tenth_a_minute_and_not_near_what_was_refused(self) -> None:
        self.refuse()
        rates = [self.minute() for _ in range(8)]
        self.assertEqual(rates, [110, 121, 133.1, 146.41, 161.05, 177.16, 177.16, 177.16])

    def test_once_that_is_forgotten_up_to_what_is_configured(self) -> None:
        self.refuse()
        self.clock.advance(REMEMBERED)
        rates = [self.minute() for _ in range(9)]
        self.assertEqual(rates[:3] + rates[-3:], [110, 121, 133.1, 194.87, 200, 200])
        self.assertFalse(self.pace.limited)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_where_no_line_had_to_wait(self) -> None:
        self.refuse()
        self.assertEqual([self.minute(busy=False) for _ in range(3)], [100, 100, 100])
        self.assertEqual(self.minute(), 110)

    def test_only_after_a_minute_undisturbed(self) -> None:
        self.refuse()
        for _ in range(5):
            self.send(2)
            self.clock.advance(57)
            self.pace.stop()
            self.clock.advance(600)
            self.assertEqual(self.pace.rate, 100)
            self.pace.opened()
        self.assertEqual(self.minute(), 110)

    def test_a_server_of_fifty_a_second_closes_seldom_and_takes_most_of_them(self) -> None:
        server = LeakyBucket(self.clock, per_second=50, burst=500)
        self.assertEqual(len(self.send_to(server, 60)), 2)
        closings = self.send_to(server, 7200)
        self.assertLess(len(closings), 5)
        self.assertGreater(server.taken, 7200 * 40)

    def send_to(self, server: LeakyBucket, seconds: int) -> list[int]:
        """Send 150 lines a second, or what may be sent; after how many seconds it was refused."""
        closings = []
        for quarter in range(seconds * 4):
            for _ in range(38):
                if self.pace.wait(waited=False) > 0:
                    break
                self.pace.sent()
                if not server.takes():
                    closings.append(quarter // 4)
                    self.pace.refused()
                    self.clock.advance(2)
                    self.pace.opened()
            self.clock.advance(0.25)
        return closings


class LeakyBucket:
    def __init__(self, clock: Clock, per_second: float, burst: int) -> None:
        self._clock = clock
        self._interval = 1 / per_second
        self._room = burst / per_second
        self._empty_at = 0.0
        self.taken = 0

    def takes(self) -> bool:
        now = self._clock.seconds()
        due = max(self._empty_at, now) + self._interval
        if due > now + self._room:
            return False
        self._empty_at = due
        self.taken += 1
        return True
