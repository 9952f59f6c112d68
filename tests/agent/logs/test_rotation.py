"""Which files are known, and which are copies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.rotation import MAX_KNOWN, File, PathHistory
from jetcamer.agent.logs.stream import HEAD_SIZE, digest


def file(content: bytes, inode: int = 7) -> File:
    return File("a.log.1", (1, inode), len(content), 0, content[:HEAD_SIZE])


class KnownTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.history = PathHistory(Ledger())

    def knows(self, before: bytes, now: bytes, inode: int = 7) -> bool:
        self.history.remember(7, digest(before[:HEAD_SIZE]))
        return self.history.knows(file(now, inode))

    def test_the_same(self) -> None:
        self.assertTrue(self.knows(b"x" * 300, b"x" * 300))
        self.assertTrue(self.knows(b"short", b"short"))

    def test_grown(self) -> None:
        self.assertTrue(self.knows(b"x" * 64, b"x" * 65))

    def test_a_short_one_was_known_as_a_whole(self) -> None:
        self.assertFalse(self.knows(b"short", b"shorter"))

    def test_another_inode(self) -> None:
        self.assertFalse(self.knows(b"x" * 300, b"x" * 300, inode=8))

    def test_another_head(self) -> None:
        self.assertFalse(self.knows(b"x" * 300, b"y" * 300))

    def test_an_empty_one_is_nothing_to_be_known_by(self) -> None:
        self.assertFalse(self.knows(b"", b""))

    def test_only_the_newest_are_remembered(self) -> None:
        for inode in range(MAX_KNOWN + 2):
            self.history.remember(inode, digest(b"x"))
        self.history.remember(2, digest(b"y"))
        self.assertEqual(len(self.history.known), MAX_KNOWN)
        self.assertEqual(list(self.history.known)[-1], 2)
        again = PathHistory(Ledger(), self.history.state())
        self.assertEqual(again.known, self.history.known)


class CopyTests(SynchronousTestCase):
    def test_by_many_bytes(self) -> None:
        self.assertTrue(file(b"x" * 64).is_like(b"x" * 100))
        self.assertTrue(file(b"x" * 100).is_like(b"x" * 64))
        self.assertFalse(file(b"x" * 63).is_like(b"x" * 100))
        self.assertFalse(file(b"x" * 99 + b"y").is_like(b"x" * 100))

    def test_by_all_of_a_short_head(self) -> None:
        self.assertTrue(file(b"short and more").is_like(b"short"))
        self.assertFalse(file(b"shor").is_like(b"short"))

    def test_never_by_nothing(self) -> None:
        self.assertFalse(file(b"x").is_like(b""))
