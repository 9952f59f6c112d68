"""Two machines with one id, and one machine whose connection breaks: which is which."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.clones import Machine, Replacements
from tests.hub.doubles import NOW

A = Machine("192.0.2.1", "web")
B = Machine("192.0.2.7", "web")
MINUTE = 60_000


class ReplacementsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.of_one = Replacements()
        self.now = NOW

    def replace(self, *newer: Machine, older: Machine = A, every: int = 45_000) -> list[bool]:
        """Each takes the place of the one before; whether it looks like a clone after each."""
        shown = []
        for machine in newer:
            self.now += every
            self.of_one.add(self.now, older, machine)
            shown.append(self.of_one.is_clone(self.now))
            older = machine
        return shown

    def test_two_that_wait_for_each_other(self) -> None:
        """As slowly as agents come back: it is seen with the third, and stays."""
        shown = self.replace(*[B, A] * 40)
        self.assertEqual(shown, [False] * 2 + [True] * 78)
        self.assertTrue(self.of_one.is_clone(self.now + 5 * MINUTE - 1))
        self.assertFalse(self.of_one.is_clone(self.now + 5 * MINUTE))

    def test_two_that_look_alike(self) -> None:
        """Behind one address, with one host name: they come back again and again."""
        shown = self.replace(*[A] * 80)
        self.assertEqual(shown, [False] * 3 + [True] * 77)

    def test_as_agents_wait(self) -> None:
        """Through their whole back-off, whatever it comes to: seen soon, and for good."""
        for machines, seed in (((A, B), 1), ((A, A), 2), ((A, B), 3), ((A, A), 4)):
            waits = random.Random(seed)
            of_one, due, attempts = Replacements(), [0.0, 0.5], [0, 0]
            present, since, seen_at, dark = None, 0.0, None, 0
            while min(due) < 3600:
                who = due.index(min(due))
                now = due[who]
                if present is not None:
                    was = of_one.is_clone(int(now * 1000))
                    dark += seen_at is not None and not was
                    of_one.add(int(now * 1000), machines[present], machines[who])
                    if seen_at is None and of_one.is_clone(int(now * 1000)):
                        seen_at = now
                    attempts[present] = 0 if now - since >= 60 else attempts[present] + 1
                    wait = waits.uniform(0.5, 1) * min(60, 2 ** attempts[present])
                    due[present] = now + wait
                present, since, due[who] = who, now, float("inf")
            self.assertLess(seen_at, 60)
            self.assertEqual(dark, 0)

    def test_many_at_once(self) -> None:
        """More than five a minute, whoever they are."""
        crowd = [Machine(f"198.51.100.{n}", "web") for n in range(6)]
        self.assertEqual(self.replace(*crowd, every=10_000), [False] * 5 + [True])

    def test_one_whose_connection_breaks(self) -> None:
        self.assertNotIn(True, self.replace(*[A] * 60, every=3 * MINUTE))

    def test_one_that_moves(self) -> None:
        """To another network, and home again."""
        self.assertEqual(self.replace(B, A), [False] * 2)
        self.assertNotIn(True, self.replace(*[B, A] * 10, every=11 * MINUTE))

    def test_it_goes_on(self) -> None:
        """Once seen, it is one while the other comes, however slowly; not while one that is left
        alone loses its connection."""
        self.replace(*[B, A] * 2)
        others = [Machine(f"198.51.100.{n}", "web") for n in range(5)]
        shown = self.replace(*others, every=4 * MINUTE)
        self.assertEqual(shown, [True] * 5)
        shown = self.replace(*[others[-1]] * 3, older=others[-1], every=4 * MINUTE)
        self.assertEqual(shown, [True, False, False])

    def test_words(self) -> None:
        begin = "two machines connect with this id"
        for older, newer, words in (
            (None, None, ""),
            (A, A, f"{begin}, both from 192.0.2.1"),
            (A, Machine("192.0.2.1", "db\x1b"), f"{begin}: db\\x1b and web, from 192.0.2.1"),
            (A, B, f"{begin}: 192.0.2.1 and 192.0.2.7"),
            # The same whoever came last, and where one of them has lost its connection since.
            (B, A, f"{begin}: 192.0.2.1 and 192.0.2.7"),
            (A, A, f"{begin}: 192.0.2.1 and 192.0.2.7"),
        ):
            if older is not None and newer is not None:
                self.of_one.add(NOW, older, newer)
            self.assertEqual(self.of_one.words, words)

    def test_bounded(self) -> None:
        self.replace(*[B, A] * 500, every=1)
        self.assertLessEqual(len(self.of_one._latest), 16)
