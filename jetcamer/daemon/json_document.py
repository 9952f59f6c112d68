"""JSON that a person wrote, read so strictly that no slip of the hand passes in silence.

In: bytes. Out: the object they hold, or one error with the place and the reason. Refused beside
bad syntax: a member given twice, NaN and Infinity, bytes that are no UTF-8, text that no system
call takes.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

# What Python's parser says, for a person who does not know it. Newer versions say a little more.
_FAULTS = {
    "Expecting value": "expected a value",
    "Expecting property name enclosed in double quotes": "expected a name in double quotes",
    "Illegal trailing comma before end of object": "expected another member after the comma",
    "Illegal trailing comma before end of array": "expected another value after the comma",
    "Expecting ':' delimiter": "expected a colon after the member's name",
    "Expecting ',' delimiter": "expected a comma, or the end of the object or array",
    "Extra data": "expected nothing more after the end of the document",
    "Unterminated string starting": "a string that begins here has no end",
    "Invalid control character": "a line break, tab or control character inside a string",
    "Invalid \\escape": r"a backslash that begins no escape; write \\ for a backslash",
    "Invalid \\escape: ": r"a backslash that begins no escape; write \\ for a backslash",
    "Invalid \\uXXXX escape": r"\u needs four hexadecimal digits after it",
}


class DocumentError(ValueError):
    """`words` say what is wrong, `member` where, if that is a member and not a place."""

    def __init__(self, member: str | None, words: str) -> None:
        super().__init__(words)
        self.member = member
        self.words = words


def parse(data: bytes) -> dict[str, Any]:
    """A byte order mark in front, as Windows editors leave one, is skipped.

    Raises :class:`DocumentError`.
    """
    text = data.removeprefix(codecs.BOM_UTF8)
    try:
        document = json.loads(
            text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        place = error.start + 1 + len(data) - len(text)
        words = f"not UTF-8 text: byte {place} is out of place"
        raise DocumentError(None, words) from None
    except json.JSONDecodeError as error:
        fault = _FAULTS.get(error.msg.removesuffix(" at"), error.msg.lower())
        words = f"not valid JSON: line {error.lineno} column {error.colno}: {fault}"
        if not text.strip():
            words = "is empty; expected a JSON object, {} at least"
        raise DocumentError(None, words) from None
    except DocumentError:
        raise
    except RecursionError:
        raise DocumentError(None, "not valid JSON: nested too deeply") from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise DocumentError(None, "holds a number that is too long") from None
    if not isinstance(document, dict):
        raise DocumentError(None, f"expected an object, got {excerpt(document)}")
    return document


def check_text(value: Any) -> None:
    """Raises ``ValueError`` for text that a system call or a UTF-8 message cannot carry."""
    try:
        text = _leaves(value)
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\0" in text:
        raise ValueError("holds a NUL character")


def excerpt(value: Any) -> str:
    """A JSON value as a short piece of one line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        return "an array"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def kind(value: Any) -> str:
    """What a JSON value is, without a word of what it says."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, str) else "null" if value is None else "a number"


def quoted(name: str) -> str:
    """A member's name as it stands where it is a plain word, else as JSON, cut short."""
    return name if re.fullmatch(r"[\w.$-]{1,64}", name, re.ASCII) else excerpt(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DocumentError(quoted(twice), "appears more than once")
    return members


def _no_constant(word: str) -> None:
    raise DocumentError(None, f"not valid JSON: {word}")


def _leaves(value: Any) -> str:
    """All the text in a JSON value, run together, each piece on a line of its own."""
    if isinstance(value, dict):
        return "\n".join(key + "\n" + _leaves(item) for key, item in value.items())
    if isinstance(value, list):
        return "\n".join(map(_leaves, value))
    return value if isinstance(value, str) else ""
