"""Each message counts once, whatever the clock does and however many there are."""

from __future__ import annotations

import random
import tracemalloc

from hypothesis import event, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.protocol import ProtocolError, ReplayGuard
from tests.protocol.strategies import cases

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

    def test_with_too_many_the_lowest_are_forgotten_and_stay_refused(self) -> None:
        guard = ReplayGuard(limit=3)
        for step, nonce in enumerate("abcde"):
            guard.check(NOW + step * 1000, nonce, NOW)
        self.assertEqual(len(guard), 3)
        for step, nonce in enumerate("ab"):
            self.refused(guard, NOW + step * 1000, nonce, NOW, "invalid_timestamp")
        for step, nonce in enumerate("cde", 2):
            self.refused(guard, NOW + step * 1000, nonce, NOW, "replayed_nonce")
        self.refused(guard, NOW + 1000, "late", NOW, "invalid_timestamp")
        guard.check(NOW + 1001, "not so late", NOW)

    def test_a_burst_with_one_ts_counts_whole(self) -> None:
        guard = ReplayGuard(limit=3)
        guard.check(NOW - 1, "before", NOW)
        for step in range(47):
            guard.check(NOW, f"n{step}", NOW)
        self.assertEqual(len(guard), 48)
        guard.check(NOW, "that much it can hold", NOW)
        guard.check(NOW, "the last one", NOW)
        self.refused(guard, NOW, "too many", NOW, "invalid_timestamp")
        for step in range(47):
            with self.assertRaises(ProtocolError):
                guard.check(NOW, f"n{step}", NOW)
        guard.check(NOW + 101, "after", NOW)
        self.assertEqual(len(guard), 3)
        self.refused(guard, NOW, "n46", NOW, "invalid_timestamp")

    def test_a_clock_that_goes_back_opens_no_hole(self) -> None:
        guard = ReplayGuard(limit=1)
        guard.check(NOW, "a", NOW)
        later = NOW + WINDOW + 1
        guard.check(later, "b", later)  # and now "a" is forgotten
        self.refused(guard, NOW, "a", NOW, "invalid_timestamp")
        self.refused(guard, NOW, "c", NOW, "invalid_timestamp")
        guard.check(NOW + 1, "d", NOW)
        self.refused(guard, later, "b", later, "replayed_nonce")

    def test_a_peer_whose_clock_was_set_back_is_still_heard(self) -> None:
        """Back to before what is remembered, not to before what was forgotten."""
        guard = ReplayGuard(limit=8)
        for step in range(20):
            guard.check(NOW + step * 1000, f"ahead{step}", NOW)
        self.refused(guard, NOW + 11_000, "too far back", NOW, "invalid_timestamp")
        for step in range(900):
            now = NOW + 11_001 + step * 200
            guard.check(now, f"a{step}", now)
            guard.check(now, f"b{step}", now)  # of the same millisecond
            if now < NOW + 19_000:
                self.refused(guard, NOW + 19_000, "ahead19", now, "replayed_nonce")
            self.assertLessEqual(len(guard), 10)

    def test_what_comes_out_of_order_is_told_apart(self) -> None:
        guard = ReplayGuard(limit=64)
        draw = random.Random(1)
        messages = [(NOW + step * 30 - draw.randint(0, 900), f"n{step}") for step in range(2000)]
        for ts, nonce in messages:
            guard.check(ts, nonce, ts)
        for ts, nonce in messages:
            with self.assertRaises(ProtocolError):
                guard.check(ts, nonce, ts)

    def test_a_guard_that_follows_another_begins_at_its_high(self) -> None:
        first = ReplayGuard()
        self.assertIsNone(first.high)
        self.assertIsNone(first.floor)
        for ts in (NOW, NOW + 7, NOW + 3):
            first.check(ts, f"n{ts}", NOW)
        self.assertEqual(first.high, NOW + 7)
        self.assertIsNone(first.floor)
        second = ReplayGuard(floor=first.high)
        self.assertEqual((second.floor, second.high), (NOW + 7, NOW + 7))
        self.refused(second, NOW + 7, f"n{NOW + 7}", NOW, "invalid_timestamp")
        self.refused(second, NOW + 3, "new", NOW, "invalid_timestamp")
        second.check(NOW + 8, "n", NOW)
        self.assertEqual((second.floor, second.high), (NOW + 7, NOW + 8))

    @given(
        st.integers(1, 5),
        st.lists(
            st.tuples(
                st.sampled_from([0, 0, 1, 1, 30, 120, -1, -40, -150]),  # the clock's step
                st.sampled_from(["new", "new", "new", "again", "nonce again", "restart"]),
                st.sampled_from([0, 0, 0, 1, -1, -30, -90, 60, -400, 400]),  # ts less the clock
                st.integers(0, 30),  # which message is sent again
            ),
            max_size=120,
        ),
    )
    @cases(600)
    def test_against_a_plain_model(
        self, limit: int, steps: list[tuple[int, str, int, int]]
    ) -> None:
        """Nothing counts twice, and what is refused as too old is no newer than `limit` others."""
        window = 350
        guard = ReplayGuard(window, limit)
        now = NOW
        counted: list[tuple[int, str]] = []  # by all guards
        held: list[tuple[int, str]] = []  # by this one
        floor = NOW - 10**9  # that it began with
        for number, (step, what, skew, which) in enumerate(steps):
            now += step
            if what == "restart":
                if counted:
                    floor = max(ts for ts, _ in counted)
                    self.assertEqual(guard.high, floor)
                    guard, held = ReplayGuard(window, limit, floor), []
                continue
            message = (now + skew, f"n{number}")
            if what != "new" and counted:
                ts, nonce = counted[-1 - which % len(counted)]
                message = (ts if what == "again" else now + skew, nonce)
            try:
                guard.check(*message, now)
            except ProtocolError as error:
                event(error.code)
                if abs(message[0] - now) > window:
                    self.assertEqual(error.code, "invalid_timestamp")
                elif error.code == "replayed_nonce":
                    self.assertIn(message[1], [nonce for _, nonce in held])
                else:
                    as_new = [ts for ts, _ in held if ts >= message[0]]
                    self.assertTrue(message[0] <= floor or len(as_new) >= limit)
            else:
                self.assertLessEqual(abs(message[0] - now), window)
                self.assertNotIn(message, counted)
                counted.append(message)
                held.append(message)
            self.assertLessEqual(len(guard), limit * 16)

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
                self.assertLessEqual(len(guard), 8 * 16)
            total += len(counted)
        self.assertGreater(total, 500)

    def test_memory(self) -> None:
        """What a hub pays for each agent: one that sends every five seconds, and a busy one."""
        for gap, most, held in ((5000, 1500, 64), (1, 1500, 64)):
            nonces = [f"8b1a1f5e-52b6-4a29-9a57-{step:012}" for step in range(3000)]
            times = [NOW + gap * step for step in range(3000)]
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            guard = ReplayGuard()
            for ts, nonce in zip(times, nonces, strict=True):
                guard.check(ts, nonce, ts)
            self.assertLess(tracemalloc.get_traced_memory()[0], most)
            tracemalloc.stop()
            self.assertEqual(len(guard), held)

    def test_nonsense(self) -> None:
        self.assertRaises(ValueError, ReplayGuard, -1)
        self.assertRaises(ValueError, ReplayGuard, 1, 0)
