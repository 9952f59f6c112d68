"""Values → the JSON text that both ends hash.

In: plain Python values. Out: compact UTF-8 JSON in one of two dialects, those of the programs in
the field. `canonical` writes what ``JSON.stringify`` would (so that a Node server which parses a
message and writes it anew gets the same bytes); `canonical_go` writes what Go's
``encoding/json`` would for a value it had parsed. Neither ever writes text that is not JSON.
See docs/protocol.md, Signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from json.encoder import encode_basestring
from math import isfinite
from typing import Any, TypeAlias

import msgspec

from jetcamer.protocol.errors import ProtocolError
from jetcamer.protocol.parsing import MAX_DEPTH

__all__ = ["JSONValue", "canonical", "canonical_go", "combine_surrogates", "replace_surrogates"]

JSONValue: TypeAlias = (
    bool | int | float | str | list[Any] | tuple[Any, ...] | dict[str, Any] | None
)

_SAFE = 1 << 53  # up to here an integer and the double beside it print the same digits
_LAST_INDEX = (1 << 32) - 2  # ECMAScript's last array index
_INDEX = re.compile("(?:0|[1-9][0-9]{0,9})", re.ASCII)
_LONE = re.compile("[\ud800-\udfff]")


class _Dialect(msgspec.Struct, frozen=True):
    quote: Callable[[str], str]
    number: Callable[[float], str]
    in_order: Callable[[dict[str, Any]], Iterable[str]]


def canonical(value: JSONValue) -> bytes:
    """`value` as ``JSON.stringify`` writes it: ``JSON.stringify(JSON.parse(T))`` equals T.

    A number that is not finite becomes ``null``, an integer beyond 2**53 what a double prints.
    Keys that are array indices come first, ascending. Two halves of a surrogate pair become the
    character, a lone half ``\\udXXX``. Raises ProtocolError ``not_json`` for a value or key of
    another type, ``too_deep`` for more than 64 levels (or a value that contains itself).
    """
    text = _write(value, _NODE, MAX_DEPTH)
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    text = _write(_rewrite(value, combine_surrogates), _NODE, MAX_DEPTH)
    return text.encode("utf-8", "backslashreplace")  # which can only meet lone surrogates


def canonical_go(value: JSONValue, *, before_1_22: bool = False) -> bytes:
    r"""`value` as Go's ``encoding/json`` writes a ``map[string]any`` that it has parsed.

    Keys sorted by their UTF-8 bytes; ``<``, ``>``, ``&``, U+2028 and U+2029 escaped; lone
    surrogates U+FFFD; ``-0`` kept. Go wrote backspace and form feed as ``\u0008`` and ``\u000c``
    `before_1_22`, and as ``\b`` and ``\f`` since. Raises ProtocolError as `canonical` does, and
    ``not_json`` for a number that is not finite, which Go can neither read nor write.
    """
    dialect = _GO_BEFORE_1_22 if before_1_22 else _GO
    text = _write(value, dialect, MAX_DEPTH)
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    return _write(_rewrite(value, replace_surrogates), dialect, MAX_DEPTH).encode()


def combine_surrogates(text: str) -> str:
    """`text` with every high and low surrogate that stand together made one character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def replace_surrogates(text: str) -> str:
    """`text` with pairs of surrogates combined and lone ones replaced by U+FFFD."""
    return _LONE.sub("\ufffd", combine_surrogates(text))


def _write(value: Any, dialect: _Dialect, room: int) -> str:
    kind = type(value)
    if kind is str:
        return dialect.quote(value)
    if kind is float:
        return dialect.number(value)
    if kind is int:
        return repr(value) if -_SAFE <= value <= _SAFE else dialect.number(_double(value))
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is dict:
        if not room:
            raise _too_deep()
        quote = dialect.quote
        parts = [
            quote(key) + ":" + _write(value[key], dialect, room - 1)
            for key in dialect.in_order(value)
        ]
        return "{" + ",".join(parts) + "}"
    if kind is list or kind is tuple:
        if not room:
            raise _too_deep()
        return "[" + ",".join([_write(item, dialect, room - 1) for item in value]) + "]"
    return _write(_plain(value), dialect, room)


def _too_deep() -> ProtocolError:
    return ProtocolError("too_deep", f"nested more than {MAX_DEPTH} deep")


def _plain(value: object) -> JSONValue:
    """The built-in value behind one of a derived type, such as a StrEnum's member."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise ProtocolError("not_json", f"a value of type {type(value).__name__}")


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _decimal(value: float) -> str:
    """ECMAScript's Number::toString of a finite number; "-0" for negative zero."""
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    mantissa, _, exponent = text.partition("e")
    power = int(exponent)
    if power >= 21 or power <= -7:
        return f"{mantissa}e{power:+d}"
    sign = "-" if mantissa.startswith("-") else ""
    digits = mantissa.removeprefix("-").replace(".", "")
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{digits}"
    return f"{sign}{digits}{'0' * (power + 1 - len(digits))}"


def _node_number(value: float) -> str:
    if not isfinite(value):
        return "null"
    return _decimal(value) if value else "0"


def _go_number(value: float) -> str:
    if not isfinite(value):
        raise ProtocolError("not_json", "a number that is not finite")
    return _decimal(value)


def _node_order(value: dict[str, Any]) -> Iterable[str]:
    indices = []
    for key in value:
        if not isinstance(key, str):
            raise _not_a_key(key)
        if key[:1] <= "9" and _INDEX.fullmatch(key) and int(key) <= _LAST_INDEX:
            indices.append(key)
    if not indices:
        return value
    indices.sort(key=int)
    first = set(indices)
    return [*indices, *(key for key in value if key not in first)]


def _go_order(value: dict[str, Any]) -> Iterable[str]:
    for key in value:
        if not isinstance(key, str):
            raise _not_a_key(key)
    # Code points sort as their UTF-8 bytes do, lone surrogates aside, and those get replaced.
    return sorted(value)


def _not_a_key(key: object) -> ProtocolError:
    return ProtocolError("not_json", f"a key of type {type(key).__name__}")


def _go_quote(specials: re.Pattern[str], escapes: dict[str, str]) -> Callable[[str], str]:
    def quote(text: str) -> str:
        return '"' + specials.sub(lambda match: escapes[match[0]], text) + '"'

    return quote


_GO_SPECIALS = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029]')
_GO_OLD_ESCAPES = {
    **{chr(code): f"\\u{code:04x}" for code in (*range(0x20), *b"<>&", 0x2028, 0x2029)},
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_GO_ESCAPES = _GO_OLD_ESCAPES | {"\b": "\\b", "\f": "\\f"}

_NODE = _Dialect(encode_basestring, _node_number, _node_order)
_GO = _Dialect(_go_quote(_GO_SPECIALS, _GO_ESCAPES), _go_number, _go_order)
_GO_BEFORE_1_22 = _Dialect(_go_quote(_GO_SPECIALS, _GO_OLD_ESCAPES), _go_number, _go_order)


def _rewrite(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every text in it changed; of keys that become one, the last value stays."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _rewrite(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rewrite(item, change) for item in value]
    return value
