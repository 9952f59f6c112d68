"""Strict JSON text → values: the careful reader behind the fast one.

In: the bytes of one message, of any content. Out: plain values, each member of the outermost
object also as it was spelled; or ProtocolError. Nothing else may escape, nothing here recurses
before the limits were checked, and numbers become what a double holds, as in both peers.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, NoReturn

from jetcamer.protocol.errors import ProtocolError, excerpt

__all__ = ["MAX_DEPTH", "MAX_MESSAGE", "Member", "check_limits", "compact", "members", "parse"]

#: Bytes in the longest message.
MAX_MESSAGE = 1 << 20
#: Objects and arrays that may be open at once, the envelope's own braces counted.
MAX_DEPTH = 64

# Integers of at most this many digits stay integers; the rest are doubles at once. It keeps
# thousands of digits away from int(), which refuses them with a ValueError of its own.
_EXACT_DIGITS = 17
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_DENSE = re.compile(rf'(?:[^ \t\n\r"]++|{_STRING})++', re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*+")
_ROUND = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Member(NamedTuple):
    value: Any
    #: The value's text as it came, white space between its tokens included.
    text: str


def check_limits(data: bytes) -> None:
    """Raise ``too_large`` or ``too_deep``; cheap for a message with few brackets."""
    if len(data) > MAX_MESSAGE:
        raise ProtocolError("too_large", f"more than {MAX_MESSAGE} bytes")
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return
    if _depth(data) > MAX_DEPTH:
        raise ProtocolError("too_deep", f"nested more than {MAX_DEPTH} deep")


def parse(data: bytes) -> Any:
    """The one JSON value `data` is; a member that is there twice, anywhere, is refused."""
    check_limits(data)
    try:
        return _DECODER.decode(_text(data))
    except json.JSONDecodeError as error:
        words, at = error.msg, error.pos
    raise _not_json(words, at)


def members(data: bytes) -> dict[str, Member]:
    """The members of the one object `data` is, in the order they came.

    As strict as `parse`, but `data` must have passed `check_limits`: it is not done twice.
    """
    text = _text(data)
    try:
        return _members(text)
    except json.JSONDecodeError as error:
        words, at = error.msg, error.pos
    raise _not_json(words, at)


def compact(text: str) -> str:
    """JSON text without the white space between its tokens, each token as it was spelled."""
    return "".join(_DENSE.findall(text))


def _members(text: str) -> dict[str, Member]:
    at = _skip(text, 0)
    if not text.startswith("{", at):
        _DECODER.decode(text)
        raise ProtocolError("wrong_type", "a message is an object")
    found: dict[str, Member] = {}
    at = _skip(text, at + 1)
    more = not text.startswith("}", at)
    while more:
        if not text.startswith('"', at):
            raise json.JSONDecodeError("Expecting a member's name", text, at)
        name, at = _DECODER.raw_decode(text, at)
        if name in found:
            raise _twice(name)
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        start = _skip(text, at + 1)
        value, end = _DECODER.raw_decode(text, start)
        found[name] = Member(value, text[start:end])
        at = _skip(text, end)
        more = text.startswith(",", at)
        if more:
            at = _skip(text, at + 1)
    if not text.startswith("}", at):
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    at = _skip(text, at + 1)
    if at != len(text):
        raise json.JSONDecodeError("Extra data", text, at)
    return found


def _depth(data: bytes) -> int:
    """How deep the brackets outside strings nest; counted no further than just over the limit."""
    # Without escaped quotes, every second piece between quotes is outside strings.
    text = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(text.split(b'"')[::2]).translate(_ROUND, _NO_BRACKETS)
    depth = 0
    while brackets and depth <= MAX_DEPTH:
        # Takes the innermost level away.
        left = brackets.replace(b"()", b"")
        if len(left) == len(brackets):  # not balanced: no JSON, but not to recurse into either
            return depth + brackets.count(b"(")
        brackets = left
        depth += 1
    return depth


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        at = error.start
    raise ProtocolError("invalid_json", f"not UTF-8 at byte {at}")


def _not_json(words: str, at: int) -> ProtocolError:
    return ProtocolError("invalid_json", f"not JSON: {words} at character {at}")


def _twice(name: str) -> ProtocolError:
    return ProtocolError("duplicate_member", "there more than once", excerpt(name))


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _twice(name)
            seen.add(name)
    return found


def _integer(digits: str) -> int | float:
    if len(digits) > _EXACT_DIGITS or digits == "-0":
        return float(digits)
    return int(digits)


def _constant(name: str) -> NoReturn:
    raise ProtocolError("invalid_json", f"not JSON: {name} is not a JSON number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_constant=_constant, strict=True
)
