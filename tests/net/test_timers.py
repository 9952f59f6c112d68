"""Timer and RepeatingTimer on a clock."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.net.timers import RepeatingTimer, Timer


class TimerTests(SynchronousTestCase):
    def test_fires_once_and_is_harmless_to_stop_at_any_moment(self) -> None:
        clock = Clock()
        timer = Timer(clock)
        seen: list[object] = []

        def action(word: str) -> None:
            timer.stop()
            seen.append((word, timer.running, timer.remaining))

        timer.stop()
        self.assertEqual((timer.running, timer.remaining), (False, None))
        timer.start(5, action, "replaced")
        timer.start(10, action, "fired")
        clock.advance(6)
        self.assertEqual((timer.running, timer.remaining), (True, 4))
        clock.advance(4)
        timer.stop()
        self.assertEqual(seen, [("fired", False, None)])
        timer.start(1, action, "stopped")
        timer.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_can_be_started_by_its_own_action(self) -> None:
        clock = Clock()
        timer = Timer(clock)
        timer.start(1, timer.start, 2, lambda: None)
        clock.advance(1)
        self.assertEqual((timer.running, timer.remaining), (True, 2))
        clock.advance(2)
        self.assertEqual((timer.running, timer.remaining), (False, None))


class RepeatingTimerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []

    def timer(self, body: object = None) -> RepeatingTimer:
        def note() -> None:
            self.calls.append(self.clock.seconds())

        return RepeatingTimer(self.clock, 5.0, body or note, name="tick")  # type: ignore[arg-type]

    def test_first_call_comes_after_one_interval(self) -> None:
        timer = self.timer()
        timer.start()
        self.clock.advance(4.9)
        self.assertEqual(self.calls, [])
        self.clock.advance(0.1)
        self.assertEqual(self.calls, [5.0])
        timer.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_start_now_calls_at_once(self) -> None:
        timer = self.timer()
        timer.start(now=True)
        self.assertEqual(self.calls, [0.0])
        timer.stop()

    def test_late_calls_do_not_shift_the_following(self) -> None:
        timer = self.timer()
        timer.start()
        self.clock.advance(5.7)  # the reactor was busy
        self.clock.advance(4.3)
        self.assertEqual(self.calls, [5.7, 10.0])
        timer.stop()

    def test_a_stall_is_not_made_up_for(self) -> None:
        timer = self.timer()
        timer.start()
        self.clock.advance(31)
        self.assertEqual(len(self.calls), 1)
        self.clock.advance(4)
        self.assertEqual(self.calls, [31.0, 35.0])
        timer.stop()

    def test_survives_its_body(self) -> None:
        count = []

        def body() -> None:
            count.append(1)
            raise RuntimeError("boom")

        timer = self.timer(body)
        timer.start()
        self.clock.pump([5, 5, 5])
        self.assertEqual(len(count), 3)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)
        timer.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_and_start_twice_are_harmless(self) -> None:
        timer = self.timer()
        timer.stop()
        timer.start()
        timer.start()
        self.assertTrue(timer.running)
        self.clock.advance(5)
        self.assertEqual(self.calls, [5.0])
        timer.stop()
        timer.stop()
        self.assertFalse(timer.running)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_body_may_stop_it(self) -> None:
        def body() -> None:
            timer.stop()

        timer = self.timer(body)
        timer.start()
        self.clock.advance(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])
