"""Each message counts once, whatever the clock does and however many there are."""

from __future__ import annotations

import random
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.protocol import ProtocolError, ReplayGuard

NOW = 1_731_819_422_000
WINDOW = 300_000


class Replays(SynchronousTestCase):
    def refused(self, guard: ReplayGuard, ts: int, nonce: str, now: int, code: str) -> None:
        with self.assertRaises(ProtocolError) as caught:
            guard.check(ts, nonce, now)
        self.assertEqual(caught.exception.code, code)
        member = "nonce" if code == "replayed_nonce" else "ts"
        self.assertEqual(caught.exception.member, member)

    def test_a_nonce_counts_once(self) -> None:
        guard = ReplayGuard()
        guard.check(NOW, "a", NOW)
        guard.check(NOW, "b", NOW)
        self.refused(guard, NOW, "a", NOW, "replayed_nonce")
        self.refused(guard, NOW + 1, "a", NOW + 1, "replayed_nonce")
        self.refused(guard, NOW, "b", NOW + WINDOW, "replayed_nonce")
        self.refused(guard, NOW, "a", NOW + WINDOW + 1, "invalid_timestamp")

    def test_window(self) -> None:
        guard = ReplayGuard()
        guard.check(NOW - WINDOW, "a", NOW)
        guard.check(NOW + WINDOW, "b", NOW)
        self.refused(guard, NOW - WINDOW - 1, "c", NOW, "invalid_timestamp")
        self.refused(guard, NOW + WINDOW + 1, "c", NOW, "invalid_timestamp")
        guard.check(NOW, "c", NOW)  # what was refused was not remembered

    def test_remembered_to_the_last_millisecond(self) -> None:
        guard = ReplayGuard()
        guard.check(NOW, "a", NOW)
        guard.check(NOW + WINDOW, "b", NOW + WINDOW)
        self.refused(guard, NOW, "a", NOW + WINDOW, "replayed_nonce")
        guard.check(NOW, "late", NOW + WINDOW)

    def test_words_say_how_far_off_and_which_way(self) -> None:
        for ts, words in (
            (NOW - 400_000, "ts: 400 s behind this clock"),
            (NOW + 3_600_000, "ts: 3600 s ahead of this clock"),
        ):
            with self.assertRaises(ProtocolError) as caught:
                ReplayGuard().check(ts, "a", NOW)
            self.assertEqual(str(caught.exception), words)

    def test_what_is_past_the_window_is_forgotten(self) -> None:
        guard = ReplayGuard()
        for step in range(100_000):
            guard.check(NOW + step * 1000, f"n{step}", NOW + step * 1000)
        self.assertLessEqual(len(guard), WINDOW // 1000 + 1)

    def test_with_too_many_the_oldest_are_forgotten_and_stay_refused(self) -> None:
        guard = ReplayGuard(limit=3)
        for step, nonce in enumerate("abcde"):
            guard.check(NOW + step, nonce, NOW)
        self.assertEqual(len(guard), 3)
        for step, nonce in enumerate("ab"):
            self.refused(guard, NOW + step, nonce, NOW, "invalid_timestamp")
        for step, nonce in enumerate("cde", 2):
            self.refused(guard, NOW + step, nonce, NOW, "replayed_nonce")
        self.refused(guard, NOW + 1, "late", NOW, "invalid_timestamp")
        guard.check(NOW + 2, "not so late", NOW)

    def test_more_than_the_limit_in_one_millisecond(self) -> None:
        guard = ReplayGuard(limit=1)
        guard.check(NOW, "a", NOW)
        self.refused(guard, NOW, "a", NOW, "replayed_nonce")
        guard.check(NOW, "b", NOW)
        for nonce in "abc":
            with self.assertRaises(ProtocolError):
                guard.check(NOW, nonce, NOW)

    def test_a_clock_that_goes_back_opens_no_hole(self) -> None:
        guard = ReplayGuard()
        guard.check(NOW, "a", NOW)
        later = NOW + WINDOW + 1
        guard.check(later, "b", later)  # and now "a" is forgotten
        self.refused(guard, NOW, "a", NOW, "invalid_timestamp")
        self.refused(guard, NOW, "c", NOW, "invalid_timestamp")
        guard.check(NOW + 1, "d", NOW)
        self.refused(guard, later, "b", later, "replayed_nonce")

    def test_no_message_counts_twice(self) -> None:
        """Any traffic, out of order, with a clock that jumps and very little room."""
        total = 0
        for seed in range(100):
            draw = random.Random(seed)
            guard = ReplayGuard(window_ms=50, limit=draw.randint(1, 8))
            now, sent, counted = NOW, [(NOW, "first")], set()
            for step in range(300):
                now += draw.choice([0, 1, 1, 5, 60, -1, -30, -100])
                if draw.getrandbits(1):
                    sent.append((now + draw.randint(-55, 55), f"n{step}"))
                ts, nonce = message = draw.choice(sent[-20:])
                try:
                    guard.check(ts, nonce, now)
                except ProtocolError:
                    continue
                self.assertNotIn(message, counted, f"seed {seed}")
                counted.add(message)
                self.assertLessEqual(len(guard), 8)
            total += len(counted)
        self.assertGreater(total, 500)

    def test_memory_is_bounded(self) -> None:
        guard = ReplayGuard()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for step in range(20_000):
            guard.check(NOW + step, f"8b1a1f5e-52b6-4a29-9a57-{step:012}", NOW + step)
        self.assertEqual(len(guard), 8192)
        self.assertLess(tracemalloc.get_traced_memory()[0], 8192 * 250)

    def test_nonsense(self) -> None:
        self.assertRaises(ValueError, ReplayGuard, -1)
        self.assertRaises(ValueError, ReplayGuard, 1, 0)
