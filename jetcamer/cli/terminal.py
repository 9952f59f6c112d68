"""Lines for a person, fitted to what they are written to.

In: a text stream and the environment. Out: lines that fit the terminal, coloured only where
that is wanted, in characters the stream's encoding has. What a peer said is made visible first: it
can neither forge a line nor drive the terminal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TextIO

from jetcamer.daemon.visible import visible

__all__ = ["STYLES", "UNBROKEN", "Terminal", "visible"]

#: SGR parameters (ECMA-48, 8.3.117).
STYLES = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "strong": "1"}

#: A space at which a line is not broken.
UNBROKEN = "\u00a0"

#: A word and the spaces before it: where a line may be broken.
_WORD = re.compile(" *[^ ]+| +")

#: Spaces before a break, and the end of colours that may stand between.
_SPACES_AT_END = re.compile(r" +((?:\x1b\[\d*m)*\n)")

_WIDTH_UNKNOWN = 100
_WIDTH_LEAST = 20


class Terminal:
    """Writes lines to `stream`.

    :param environ: read for NO_COLOR (no-color.org), TERM and COLUMNS.
    """

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._environ = environ
        self.is_tty = stream.isatty()
        self.colour = (
            self.is_tty and not environ.get("NO_COLOR") and environ.get("TERM", "") != "dumb"
        )
        self.unicode = self._can_write("█░·✓→…")

    @property
    def width(self) -> int:
        """Columns, asked anew each time: a terminal can be resized."""
        if not self.is_tty:
            return _WIDTH_UNKNOWN
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        if not columns:
            words = self._environ.get("COLUMNS", "")
            columns = int(words) if words.isdecimal() else 80
        return max(_WIDTH_LEAST, columns)

    def line(self, *parts: str | tuple[str, str], indent: int = 0) -> None:
        """Write one line: parts of plain text, or of (text, style).

        What is wider than a terminal goes on below, indented, broken between words.
        Raises OSError when it cannot be written: BrokenPipeError when nobody reads any more.
        """
        width = self.width if self.is_tty else None
        indent = min(indent, width // 4) if width else indent
        written: list[str] = []
        used = 0
        for part in parts:
            text, style = part if isinstance(part, tuple) else (part, "")
            coloured = self.colour and bool(style)
            written.append(f"\x1b[{STYLES[style]}m" if coloured else "")
            for word in _WORD.findall(visible(text)):
                if width is not None and used + len(word.rstrip()) > width and used > indent:
                    written.append("\n" + " " * indent)
                    used = indent
                    word = word.lstrip(" ")  # noqa: PLW2901
                written.append(word)
                used += len(word)
            written.append("\x1b[0m" if coloured else "")
        line = _SPACES_AT_END.sub(r"\1", "".join(written)).rstrip().replace(UNBROKEN, " ")
        self._stream.write(line + "\n")
        self._stream.flush()

    def mark(self, preferred: str, plain: str) -> str:
        """`preferred` where the stream can write it, else `plain`."""
        return preferred if self.unicode else plain

    def bar(self, percent: float, width: int) -> str:
        """`percent` of `width` characters filled; nothing where the width is none."""
        filled = round(max(0.0, min(100.0, percent)) / 100 * width)
        return self.mark("█", "#") * filled + self.mark("░", "-") * (width - filled)

    def _can_write(self, text: str) -> bool:
        try:
            text.encode(self._stream.encoding or "ascii")
        except (UnicodeError, LookupError):
            return False
        return True
