"""How programs in other languages write a JSON number or string: what they sign by mistake.

In: a number as it was spelled, or JSON text with its strings as `json.dumps(ensure_ascii=False)`
quotes them. Out: the same in the style of another language's usual library. Only for finding out
what went wrong: what we sign is in canonical.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from math import isfinite
from typing import NamedTuple

from jetcamer.protocol.canonical import canonical, canonical_go

__all__ = ["ALL_NUMBERS", "FEW", "Style", "Writer", "writers"]


class Style(NamedTuple):
    """What a person calls it, "" for the usual one; and how it writes a value."""

    words: str
    apply: Callable[[str], str]


class Writer(NamedTuple):
    """A way to write strings, and the numbers and spaces that go with it in some language."""

    strings: Style
    #: Beside the unchanged style.
    numbers: tuple[Style, ...] = ()
    #: A space after ':' and ',' is usual there.
    spaced: bool = False


def writers(text: str) -> list[Writer]:
    """Those whose strings make a difference to the JSON text `text`, the usual one first.

    `strings` is applied to the whole of a JSON text, whose numbers hold no '+'.
    """
    found = [Writer(Style("", str), ALL_NUMBERS, spaced=True)]
    if not text.isascii() or "\\u" in text:
        found.append(Writer(_ASCII, (_PYTHON, _FRACTION), spaced=True))
        found.append(Writer(_UPPER_ASCII))
    if re.search("[<>&'+`=\u2028\u2029]|\\\\u", text):
        found.append(Writer(_HTML, (_GO,)))
        found.append(Writer(_GSON, (_JAVA, _JAVA_FRACTION)))
        found.append(Writer(_DOTNET_STRINGS, (_DOTNET,)))
    if "/" in text:
        found.append(Writer(_SLASH, (_PYTHON, _FRACTION)))
        found.append(Writer(_SLASH_ASCII, (_PYTHON, _FRACTION)))
    return found


# Numbers.


def _integer(text: str) -> bool:
    return text.lstrip("-").isdigit()


def _javascript(text: str) -> str:
    return canonical(float(text)).decode()


def _python(text: str) -> str:
    return text if _integer(text) else repr(float(text))


def _fraction(text: str) -> str:
    return repr(float(text))


def _java(text: str) -> str:
    value = float(text)
    if _integer(text) or not isfinite(value):
        return text
    return _java_double(value)


def _java_fraction(text: str) -> str:
    value = float(text)
    return _java_double(value) if isfinite(value) else text


def _java_double(value: float) -> str:
    """As ``Double.toString``."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    sign, digits, _ = Decimal(repr(value)).normalize().as_tuple()
    rest = "".join(map(str, digits[1:])) or "0"
    power = Decimal(repr(value)).adjusted()
    return f"{'-' if sign else ''}{digits[0]}.{rest}E{power}"


def _dotnet_number(text: str) -> str:
    return text if _integer(text) else repr(float(text)).removesuffix(".0").upper()


def _go_number(text: str) -> str:
    return canonical_go(float(text)).decode() if isfinite(float(text)) else text


_PYTHON = Style("numbers as Python writes them (1e-07, 20.0)", _python)
_FRACTION = Style("whole numbers with a fraction (20.0)", _fraction)
_JAVA = Style("numbers as Java writes them (1.0E-7, 20.0)", _java)
_JAVA_FRACTION = Style(
    "numbers as Java writes them, whole ones with a fraction (20.0)", _java_fraction
)
_DOTNET = Style("numbers as .NET writes them (1E-07)", _dotnet_number)
_GO = Style("numbers as Go writes them (-0)", _go_number)

ALL_NUMBERS = (
    Style("numbers as JavaScript writes them (1e-7, 20)", _javascript),
    _PYTHON,
    _FRACTION,
    _JAVA,
    _JAVA_FRACTION,
    _DOTNET,
    _GO,
)

# Strings.

#: Different characters that are escaped by going over the text once for each of them.
FEW = 64

_LINES = "\u2028\u2029"

#: Control characters, which every style escapes, that two cases of digits write differently.
_CONTROLS = [(f"\\u00{code:02x}", f"\\u00{code:02X}") for code in range(0x20) if code & 15 > 9]


def _escape(text: str, specials: str, *, non_ascii: bool, upper: bool = False) -> str:
    form = "\\u{:04X}" if upper else "\\u{:04x}"
    table = {}
    for character in set(text):
        if character in specials or (non_ascii and character > "~"):
            table[ord(character)] = "".join(map(form.format, _halves(ord(character))))
    if len(table) <= FEW:
        # `translate` takes each character by itself, once there is one to change.
        for code, escaped in table.items():
            text = text.replace(chr(code), escaped)
    else:
        text = text.translate(table)
    if upper and "\\u00" in text:
        for lower_case, upper_case in _CONTROLS:
            text = text.replace(lower_case, upper_case)
    return text


def _halves(code: int) -> tuple[int, ...]:
    """In UTF-16."""
    if code < 0x10000:
        return (code,)
    return 0xD7C0 + (code >> 10), 0xDC00 | code & 0x3FF


def _ascii(text: str) -> str:
    return _escape(text, "", non_ascii=True)


def _upper_ascii(text: str) -> str:
    return _escape(text, "", non_ascii=True, upper=True)


def _html(text: str) -> str:
    return _escape(text, "<>&" + _LINES, non_ascii=False)


def _gson(text: str) -> str:
    return _escape(text, "<>&='" + _LINES, non_ascii=False)


def _dotnet(text: str) -> str:
    return _escape(text, "<>&'+`", non_ascii=True, upper=True)


def _slash(text: str) -> str:
    return text.replace("/", "\\/")


_ASCII = Style("characters outside ASCII escaped (\\u00e9)", _ascii)
_UPPER_ASCII = Style("characters outside ASCII escaped (\\u00E9)", _upper_ascii)
_HTML = Style("'<', '>', '&' and U+2028 escaped (\\u003c)", _html)
_GSON = Style("'<', '>', '&', '=' and \"'\" escaped (\\u003d)", _gson)
_DOTNET_STRINGS = Style("'<', '>', '&', \"'\" and '+' escaped (\\u003C)", _dotnet)
_SLASH = Style("'/' escaped (\\/)", _slash)
_SLASH_ASCII = Style("'/' and characters outside ASCII escaped", lambda text: _slash(_ascii(text)))
