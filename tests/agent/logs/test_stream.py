"""Whole lines from a file, for each taker at its own pace."""

from __future__ import annotations

import errno
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs import stream as module
from jetcamer.agent.logs.checkpoint import Batch
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.lines import MAX_LINE, Block, split
from jetcamer.agent.logs.stream import BLOCK_SIZE, HEAD_SIZE, Cursor, Source, Stream, digest


class StreamCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.stream = self.make(Source(self.fd, head=b""))
        self.addCleanup(self.close)

    def close(self) -> None:
        self.stream.source.close()

    def make(self, source: Source, **more: Any) -> Stream:
        return Stream("id", self.path, source, Ledger(), device=1, inode=2, **more)

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)

    def take(self, size: int = BLOCK_SIZE) -> bytes | None:
        block = self.stream.live.take(size)
        return None if block is None else block.data

    def all(self, cursor: Cursor, size: int = BLOCK_SIZE) -> list[bytes]:
        lines: list[bytes] = []
        while (block := cursor.take(size)) is not None:
            lines += split(block)
        return lines


class CursorTests(StreamCase):
    def test_whole_lines(self) -> None:
        self.write(b"one\ntwo\nthr")
        self.assertEqual(self.take(), b"one\ntwo\n")
        self.assertIsNone(self.take())
        self.write(b"ee\n")
        self.assertEqual(self.stream.live.take(), Block(8, 14, b"three\n"))

    def test_the_last_line_counts_once_the_stream_is_complete(self) -> None:
        self.write(b"one\ntwo")
        self.assertEqual(self.take(), b"one\n")
        self.stream.complete = True
        self.assertEqual(self.take(), b"two")
        self.assertIsNone(self.take())

    def test_each_cursor_has_its_own_place(self) -> None:
        self.write(b"one\ntwo\n")
        other = Cursor(self.stream, 4)
        self.assertEqual(self.take(4), b"one\n")
        self.assertEqual(self.all(other), [b"two"])
        self.assertEqual(self.take(), b"two\n")

    def test_a_line_longer_than_asked_for_comes_whole(self) -> None:
        self.write(b"0123456789\nshort\n")
        self.assertEqual(self.take(4), b"0123456789\n")
        self.assertEqual(self.take(8), b"short\n")

    def test_it_waits_for_its_end(self) -> None:
        self.write(b"0123456789")
        self.assertIsNone(self.take(4))
        self.write(b"ab\n")
        self.assertEqual(self.take(4), b"0123456789ab\n")

    def test_or_comes_when_the_stream_is_complete(self) -> None:
        self.write(b"0123456789")
        self.stream.complete = True
        self.assertEqual(self.take(4), b"0123456789")

    def test_an_overlong_line_is_not_held(self) -> None:
        size = 3 * BLOCK_SIZE
        self.write(b"x" * size + b"\nnext\n")
        block = self.stream.live.take()
        assert block is not None
        self.assertEqual((block.start, block.end, block.lines), (0, size + 1, 1))
        self.assertEqual(len(block.data), MAX_LINE + 4)
        self.assertEqual(self.take(), b"next\n")

    def test_it_is_searched_in_turns(self) -> None:
        self.patch(module, "SEARCH_SIZE", 2 * BLOCK_SIZE)
        self.write(b"x" * (5 * BLOCK_SIZE))
        self.assertEqual(self.take(), b"")
        self.assertEqual(self.take(), b"")
        self.assertIsNone(self.take())
        self.write(b"\nnext\n")
        block = self.stream.live.take()
        assert block is not None
        self.assertEqual(block.end, 5 * BLOCK_SIZE + 1)
        self.assertEqual(self.take(), b"next\n")

    def test_an_overlong_last_line(self) -> None:
        self.write(b"x" * (2 * BLOCK_SIZE + 7))
        self.assertIsNone(self.take())
        self.stream.complete = True
        block = self.stream.live.take()
        assert block is not None
        self.assertEqual((block.end, block.lines), (2 * BLOCK_SIZE + 7, 1))

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.integers(0, 40)), st.sampled_from([1, 2, 7, 64]), st.booleans(), st.booleans()
    )
    def test_any_size_gives_the_same_lines(
        self, sizes: list[int], size: int, partial: bool, complete: bool
    ) -> None:
        lines = [b"x" * length for length in sizes]
        data = b"".join(line + b"\n" for line in lines) + b"part" * partial
        os.ftruncate(self.fd, 0)
        self.stream.source.head = b""
        self.stream.stale = False
        self.write(data)
        self.stream.complete = complete
        cursor = Cursor(self.stream, 0)
        found: list[bytes] = []
        while (block := cursor.take(size)) is not None:
            self.assertEqual(self.stream.block(block.start, block.end), block)
            found += split(block)
        self.assertEqual(found, lines + [b"part"] * (partial and complete))


class TruncationTests(StreamCase):
    def test_other_content_is_not_given(self) -> None:
        self.write(b"one\ntwo\n")
        self.assertEqual(self.take(4), b"one\n")
        os.ftruncate(self.fd, 0)
        self.write(b"ONE\nTWO\nTHREE\n")
        self.assertIsNone(self.take())
        self.assertTrue(self.stream.stale)
        self.assertIsNone(self.stream.block(0, 4))

    def test_nor_after_it_was_stale_once(self) -> None:
        self.write(b"one\n")
        self.take()
        self.stream.stale = True
        self.write(b"two\n")
        self.assertIsNone(self.take())

    def test_the_head_grows_with_the_file(self) -> None:
        for _ in range(3):
            self.write(b"x" * 99 + b"\n")
            self.take()
        self.assertEqual(self.stream.source.head, (b"x" * 99 + b"\n") * 2 + b"x" * 56)
        self.assertEqual(self.stream.head.size, HEAD_SIZE)

    def test_a_complete_stream_that_is_stale_has_no_last_line(self) -> None:
        self.write(b"one\ntwo")
        self.take()
        self.stream.complete = True
        os.ftruncate(self.fd, 0)
        self.write(b"ONE\nTWO")
        self.assertIsNone(self.take(2))


class SourceTests(StreamCase):
    def test_a_base(self) -> None:
        self.write(b"two\nthree\n")
        self.stream = self.make(Source(self.fd, base=4), head=digest(b"one\n"), start=4)
        self.assertEqual(self.stream.source.size(), 14)
        self.assertEqual(self.all(self.stream.live), [b"two", b"three"])
        self.assertIsNone(self.stream.block(0, 4))
        self.assertEqual(self.stream.state().head, digest(b"one\n"))

    def test_a_closed_one_gives_no_bytes_of_another_file(self) -> None:
        source = self.stream.source
        self.write(b"one\n")
        source.close()
        self.assertEqual(os.open(self.path, os.O_RDONLY), self.fd)
        self.addCleanup(os.close, self.fd)
        error = self.assertRaises(OSError, self.stream.read, 0, 4)
        self.assertEqual(error.errno, errno.EBADF)
        source.close()
        os.fstat(self.fd)

    def test_moved(self) -> None:
        self.write(b"one\ntwo\n")
        self.take(4)
        other = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        os.write(other, b"two\nthree\n")
        self.stream.stale = True
        head = self.stream.head
        self.stream.move(Source(other, base=4))
        self.assertEqual(self.all(self.stream.live), [b"two", b"three"])
        self.assertEqual(self.stream.state().head, head)
        self.assertRaises(OSError, os.fstat, self.fd)


class StateTests(StreamCase):
    def test_what_is_kept(self) -> None:
        self.write(b"one\ntwo\nthree\n")
        self.stream.end = 14
        self.stream.live.take()
        self.stream.live_settled = 8
        state = self.stream.state()
        self.assertEqual((state.size, state.live, state.archive), (14, 8, None))
        self.assertEqual(state.head, digest(b"one\ntwo\nthree\n"))
        self.stream.archive = Cursor(self.stream, 8)
        self.stream.archived = 4
        self.stream.batches.append(Batch(4, 8, 1, "key"))
        state = self.stream.state()
        self.assertEqual((state.archive, state.batches), (4, (Batch(4, 8, 1, "key"),)))

    def test_settled(self) -> None:
        self.stream.end = 4
        self.assertFalse(self.stream.settled)
        self.stream.live_settled = 4
        self.assertTrue(self.stream.settled)
        self.stream.archive = Cursor(self.stream, 4)
        self.assertFalse(self.stream.settled)
        self.stream.archived = 4
        self.assertTrue(self.stream.settled)
