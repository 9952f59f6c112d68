"""What a peer says, made fit to be shown.

In: any text. Out: the same with every character written out that could forge a line, drive a
terminal or turn the direction of writing.
"""

from __future__ import annotations

#: Control characters (C0, DEL, C1), line and paragraph separators, and the marks that turn the
#: direction of writing (UAX #9).
_CODES = (
    *range(0x20),
    *range(0x7F, 0xA0),
    0x061C,
    0x200E,
    0x200F,
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)

_VISIBLE = {code: ascii(chr(code))[1:-1] for code in _CODES}
_VISIBLE_BUT_LINES = {code: text for code, text in _VISIBLE.items() if code != ord("\n")}
#: In the text of a JSON document these stand in strings only; JSON itself escapes the others.
_IN_JSON = {code: f"\\u{code:04x}" for code in _CODES if code >= 0x7F}


def visible(text: str) -> str:
    """`text` on one line."""
    return text.translate(_VISIBLE)


def visible_lines(text: str) -> str:
    """`text`, whose line feeds stay."""
    return text.translate(_VISIBLE_BUT_LINES)


def visible_json(document: str) -> str:
    """The same JSON document."""
    return document.translate(_IN_JSON)
