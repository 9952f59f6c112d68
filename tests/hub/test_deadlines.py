"""One timer for many deadlines."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.deadlines import Deadlines


class Thing:
    """Remembers when it was looked at; `then` is what it says each time, in seconds from then."""

    def __init__(self, clock: Clock, *then: float) -> None:
        self.slot: int | None = None
        self.clock = clock
        self.then = list(then)
        self.seen: list[float] = []

    def deadline_reached(self, now: int) -> float | None:
        self.seen.append(self.clock.seconds())
        return now + self.then.pop(0) if self.then else None


class DeadlinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.25)
        self.deadlines = Deadlines(self.clock)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.25] * int(seconds * 4))

    def test_next_whole_second(self) -> None:
        """Never early, and less than a second late."""
        things = [Thing(self.clock) for _ in range(4)]
        for thing, when in zip(things, (100.25, 101.0, 101.25, 103.5), strict=True):
            self.deadlines.watch(thing, when)
        self.advance(5)
        self.assertEqual([thing.seen for thing in things], [[101.0], [101.0], [102.0], [104.0]])

    def test_again(self) -> None:
        """What recurs does not drift."""
        thing = Thing(self.clock, 2, 2, 2)
        self.deadlines.watch(thing, 102.0)
        self.clock.pump([0.4] * 30)
        self.assertEqual([int(when) for when in thing.seen], [102, 104, 106, 108])

    def test_moved_and_forgotten(self) -> None:
        first, second = Thing(self.clock), Thing(self.clock)
        self.deadlines.watch(first, 102.0)
        self.deadlines.watch(second, 102.0)
        self.deadlines.watch(first, 104.0)
        self.deadlines.forget(second)
        self.deadlines.forget(second)
        self.advance(5)
        self.assertEqual((first.seen, second.seen), ([104.0], []))

    def test_no_timer_without_need(self) -> None:
        thing = Thing(self.clock)
        self.deadlines.watch(thing, 150.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadlines.forget(thing)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.advance(30)
        self.deadlines.watch(thing, 131.0)
        self.assertEqual(self.deadlines.now, 130)
        self.advance(2)
        self.assertEqual(thing.seen, [131.0])

    def test_one_ends_another(self) -> None:
        """Things forget and watch one another while they are looked at."""
        deadlines = self.deadlines

        class Ends(Thing):
            def deadline_reached(self, now: int) -> float | None:
                for other in everybody:
                    if other is not self:
                        deadlines.forget(other)
                deadlines.watch(later, now + 1)
                return super().deadline_reached(now)

        later = Thing(self.clock)
        everybody = [Ends(self.clock) for _ in range(3)]
        for each in everybody:
            deadlines.watch(each, 101.0)
        self.advance(3)
        self.assertEqual(sum(len(each.seen) for each in everybody), 1)
        self.assertEqual(later.seen, [102.0])

    def test_one_fails(self) -> None:
        """The others are looked at all the same."""

        class Fails(Thing):
            def deadline_reached(self, now: int) -> float | None:
                raise RuntimeError("a fault")

        good = [Thing(self.clock, 1) for _ in range(3)]
        for each in [*good, Fails(self.clock)]:
            self.deadlines.watch(each, 101.0)
        self.advance(3)
        self.assertEqual([each.seen for each in good], [[101.0, 102.0]] * 3)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_long_pause(self) -> None:
        """A machine that slept catches up, each thing once."""
        thing = Thing(self.clock, 1)
        self.deadlines.watch(thing, 101.0)
        self.clock.advance(1000)
        self.assertEqual(thing.seen, [1100.25])
        self.advance(2)
        self.assertEqual(len(thing.seen), 2)
