"""How programs in other languages write a JSON number or string: what they sign by mistake.

In: a number as it was spelled, or a string. Out: its JSON text in the style of another language's
usual library. Only for finding out what went wrong: what we sign is in canonical.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from math import isfinite
from typing import NamedTuple

from jetcamer.protocol.canonical import canonical, canonical_go

__all__ = ["Style", "number_styles", "string_styles"]


class Style(NamedTuple):
    """What a person calls it, "" for the usual one; and how it writes a value."""

    words: str
    apply: Callable[[str], str]


def number_styles(text: str) -> list[Style]:
    """Those that make a difference to the JSON text `text`, the unchanged one first."""
    styles = [Style("", str)]
    if re.search("[0-9]", text):
        styles += _ALL_NUMBERS
    return styles


def string_styles(text: str) -> list[Style]:
    """Those that make a difference to the JSON text `text`, that of JSON.stringify first."""
    styles = [Style("", _raw)]
    if not text.isascii() or "\\u" in text:
        styles.append(Style("characters outside ASCII escaped (\\u00e9)", json.dumps))
        styles.append(Style("characters outside ASCII escaped (\\u00E9)", _upper_ascii))
    if re.search("[<>&'+`\u2028\u2029]|\\\\u", text):
        styles.append(Style("'<', '>', '&' and U+2028 escaped (\\u003c)", _go))
        styles.append(Style("'<', '>', '&', \"'\" and '+' escaped (\\u003C)", _dotnet))
    if "/" in text:
        styles.append(Style("'/' escaped (\\/)", _slash(_raw)))
        styles.append(Style("'/' and characters outside ASCII escaped", _slash(json.dumps)))
    return styles


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


_ALL_NUMBERS = (
    Style("numbers as JavaScript writes them (1e-7, 20)", _javascript),
    Style("numbers as Python writes them (1e-07, 20.0)", _python),
    Style("whole numbers with a fraction (20.0)", _fraction),
    Style("numbers as Java writes them (1.0E-7, 20.0)", _java),
    Style("numbers as Java writes them, whole ones with a fraction (20.0)", _java_fraction),
    Style("numbers as .NET writes them (1E-07)", _dotnet_number),
    Style("numbers as Go writes them (-0)", _go_number),
)

# Strings.

_GO_SPECIAL = re.compile("[<>&\u2028\u2029]")
_DOTNET_SPECIAL = re.compile("[<>&'+`\x7f-\U0010ffff]")


def _raw(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _go(text: str) -> str:
    return _GO_SPECIAL.sub(lambda match: f"\\u{ord(match[0]):04x}", _raw(text))


def _upper_ascii(text: str) -> str:
    return re.sub(r"\\u[0-9a-f]{4}", lambda match: "\\u" + match[0][2:].upper(), json.dumps(text))


def _dotnet(text: str) -> str:
    quoted = _upper_ascii(text)
    return _DOTNET_SPECIAL.sub(lambda match: f"\\u{ord(match[0]):04X}", quoted)


def _slash(quote: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: quote(text).replace("/", "\\/")
