"""Bytes of a log file → lines → text.

In: a `Block` of whole lines. Out: the lines, none longer than `MAX_LINE` and its mark. Pure; never
fails, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

#: What takes a line apart; None where it is of no known format.
Parser = Callable[[str], Mapping[str, Any] | None]

#: Bytes of a line that are kept; of a longer one the beginning, with a mark.
MAX_LINE = 1 << 16


class Block(NamedTuple):
    """Whole lines of one stream, as they stand there, from offset `start` to offset `end`.

    `data` is shorter than that where a single line is too long to be held: then it is the line's
    beginning, of at least `MAX_LINE` bytes. The last line of a stream may lack its line feed.
    """

    start: int
    end: int
    data: bytes

    @property
    def lines(self) -> int:
        """How many lines these are."""
        if len(self.data) < self.end - self.start:
            return 1
        return self.data.count(b"\n") + (not self.data.endswith(b"\n") and self.data != b"")


def split(block: Block) -> list[bytes]:
    """The lines without their ends (a line feed, and a carriage return before it)."""
    data = block.data
    if len(data) < block.end - block.start:
        return [clean(data, block.end - block.start)]
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if b"\r" in data or len(data) > MAX_LINE:
        lines = [clean(line, len(line) + 1) for line in lines]
    return lines


def clean(line: bytes, length: int) -> bytes:
    """A line as it stands in the file, which has `length` bytes there, made fit to be told: of a
    too long one the beginning, cut between characters, and the mark."""
    if len(line) <= MAX_LINE:
        return line.removesuffix(b"\r")
    end = MAX_LINE
    # A UTF-8 character has at most three bytes after its first.
    while end > MAX_LINE - 3 and line[end : end + 1] and line[end] & 0xC0 == 0x80:
        end -= 1
    return line[:end] + f"… [line cut: {length} bytes]".encode()


def text(line: bytes) -> str:
    """What is no UTF-8 is replaced; NUL and other control characters stay."""
    return line.decode("utf-8", "replace")
