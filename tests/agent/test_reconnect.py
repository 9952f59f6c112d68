"""The arithmetic of waiting."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.reconnect import ReconnectPolicy


class ReconnectPolicyTests(SynchronousTestCase):
    def waits(self, policy: ReconnectPolicy, count: int) -> list[float]:
        return [policy.failed() for _ in range(count)]

    def test_the_sequence_of_ceilings(self) -> None:
        policy = ReconnectPolicy(jitter=0.0)
        self.assertEqual(self.waits(policy, 8), [2, 4, 8, 16, 32, 60, 60, 60])

    def test_jitter_spreads_below_the_ceiling_after_the_cap(self) -> None:
        lowest = ReconnectPolicy(0.5, random=lambda: 0.999999999)
        highest = ReconnectPolicy(0.5, random=lambda: 0.0)
        for low, high, ceiling in zip(
            self.waits(lowest, 8),
            self.waits(highest, 8),
            [2, 4, 8, 16, 32, 60, 60, 60],
            strict=True,
        ):
            self.assertAlmostEqual(low, ceiling / 2, places=5)
            self.assertEqual(high, ceiling)

    def test_drawn_waits_fill_the_range(self) -> None:
        policy = ReconnectPolicy(0.5)
        self.waits(policy, 10)
        waits = self.waits(policy, 2000)
        self.assertTrue(all(30 <= wait <= 60 for wait in waits))
        self.assertLess(min(waits), 35)
        self.assertGreater(max(waits), 55)

    def test_a_smaller_spread(self) -> None:
        policy = ReconnectPolicy(0.1, random=lambda: 0.999999999)
        self.assertAlmostEqual(policy.failed(), 1.8, places=5)

    def test_thousands_of_attempts_do_not_overflow(self) -> None:
        policy = ReconnectPolicy(jitter=0.0)
        self.assertEqual(self.waits(policy, 5000)[-1], 60)
        self.assertEqual(policy.attempt, 5000)

    def test_reset_begins_again(self) -> None:
        policy = ReconnectPolicy(jitter=0.0)
        self.waits(policy, 4)
        policy.reset()
        self.assertEqual((policy.attempt, policy.failed()), (0, 2))

    def test_a_server_may_ask_for_more_but_not_for_less_nor_for_ever(self) -> None:
        policy = ReconnectPolicy(jitter=0.0)
        self.assertEqual(policy.failed(retry_after=120), 120)
        self.assertEqual(policy.failed(retry_after=1), 4)
        self.assertEqual(policy.failed(retry_after=86400), 600)
        self.assertEqual(policy.failed(retry_after=-5), 16)
