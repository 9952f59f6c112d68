"""Bytes to lines to text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.lines import MAX_LINE, Block, clean, split, text


def block(data: bytes, start: int = 0) -> Block:
    return Block(start, start + len(data), data)


class SplitTests(SynchronousTestCase):
    def test_lines(self) -> None:
        self.assertEqual(split(block(b"one\ntwo\n\nfour\n")), [b"one", b"two", b"", b"four"])

    def test_the_last_line_may_lack_its_line_feed(self) -> None:
        self.assertEqual(split(block(b"one\ntwo")), [b"one", b"two"])

    def test_one_carriage_return_before_the_line_feed_goes(self) -> None:
        self.assertEqual(split(block(b"one\r\ntwo\r\r\nth\rree\n")), [b"one", b"two\r", b"th\rree"])

    def test_nul_and_control_characters_stay(self) -> None:
        self.assertEqual(split(block(b"a\0b\x1b\n")), [b"a\0b\x1b"])

    def test_a_line_of_the_greatest_length_is_whole(self) -> None:
        line = b"x" * MAX_LINE
        self.assertEqual(split(block(line + b"\n")), [line])

    def test_a_longer_one_is_cut_among_others(self) -> None:
        long = b"x" * (MAX_LINE + 10)
        first, cut, last = split(block(b"one\n" + long + b"\ntwo\n"))
        self.assertEqual((first, last), (b"one", b"two"))
        self.assertTrue(cut.startswith(b"x" * MAX_LINE))
        mark = cut[MAX_LINE:].decode()
        self.assertEqual(mark, f"… [line cut: {MAX_LINE + 11} bytes]")

    def test_so_is_one_of_which_only_the_beginning_is_held(self) -> None:
        held = Block(7, 7 + 123456, b"x" * (MAX_LINE + 4))
        (cut,) = split(held)
        self.assertEqual(cut, b"x" * MAX_LINE + "… [line cut: 123456 bytes]".encode())
        self.assertEqual(held.lines, 1)

    def test_it_is_cut_between_characters(self) -> None:
        for before in range(4):
            line = b"x" * (MAX_LINE - before) + "😀é".encode() * 3
            cut = clean(line, len(line))
            self.assertNotIn("\ufffd", text(cut))

    def test_but_not_where_there_are_none(self) -> None:
        cut = clean(b"\x80" * (MAX_LINE + 20), 5)
        self.assertGreaterEqual(len(cut), MAX_LINE - 3)

    def test_no_bytes_no_lines(self) -> None:
        self.assertEqual((split(block(b"")), block(b"").lines), ([], 0))

    @given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line)), st.booleans())
    def test_as_many_as_counted(self, lines: list[bytes], whole: bool) -> None:
        data = b"".join(line + b"\n" for line in lines)
        if not whole:
            data = data[:-1]
        found = split(block(data))
        self.assertEqual(len(found), block(data).lines)
        if whole:
            self.assertEqual(found, [line.removesuffix(b"\r") for line in lines])


class TextTests(SynchronousTestCase):
    def test_what_is_no_utf8_is_replaced(self) -> None:
        self.assertEqual(text(b"a\xffb"), "a\ufffdb")

    @given(st.binary())
    def test_never_fails(self, data: bytes) -> None:
        text(data).encode()
