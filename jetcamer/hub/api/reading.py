"""Queries and bodies → the values of `questions.py`.

In: requests of anybody who may ask. Out: values, or `HTTPError` 400 that names the member at fault
and quotes nothing, for a body may hold a secret.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from twisted.web.http import Request

from jetcamer.net.http import HTTPError, json_text, read_json, read_query

T = TypeVar("T", bound=msgspec.Struct)

_MISSING = re.compile("Object missing required field `([^`]*)`")
_UNKNOWN = re.compile("Object contains unknown field `([^`]*)`", re.DOTALL)
_GOT = re.compile(", got `[^`]*`")
_TYPE = re.compile("`([^`]*)`")
_NAMES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}


def query_as(request: Request, kind: type[T]) -> T:
    """The query of `request`; raises `HTTPError` 400."""
    given = read_query(request)
    try:
        value = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        fault = str(error)
    else:
        # To msgspec the word null is None. To this API it is a word like any other.
        for field in msgspec.structs.fields(kind):
            if field.encode_name in given and getattr(value, field.name) is None:
                raise HTTPError(400, f"{field.encode_name}: null is not a value of it")
        return value
    raise HTTPError(400, fault_words(fault))


def body_as(request: Request, kind: type[T]) -> T:
    """The body of `request`; none at all is an empty object. Raises `HTTPError` 400."""
    content: Any = request.content
    empty = not content.read(1)
    content.seek(0)
    given = {} if empty else read_json(request)
    try:
        if not empty and _holds_half_a_pair(given):
            raise HTTPError(400, "a string holds half a surrogate pair")
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        fault = str(error)
    raise HTTPError(400, fault_words(fault))


def fault_words(fault: str) -> str:
    """msgspec's words, such as "Expected `str`, got `int` - at `$.level`", for a person:
    "level: expected a string"."""
    words, _, path = fault.rpartition(" - at `")
    if not words:
        words, path = fault, ""
    member = path.rstrip("`").removeprefix("$").removeprefix(".").replace("[...]", "")
    missing = _MISSING.fullmatch(words)
    unknown = _UNKNOWN.fullmatch(words)
    if missing is not None or unknown is not None:
        match = missing or unknown
        assert match is not None
        name = match[1] if match[1].isprintable() and len(match[1]) <= 40 else "a name"
        member = f"{member}.{name}" if member else name
        return f"{member}: {'missing' if missing else 'not known here'}"
    if words.startswith("Expected"):
        words = _TYPE.sub(_type_words, _GOT.sub("", words))
        words = words[0].lower() + words[1:]
    else:
        # What it would quote is the caller's.
        words = "not one of the values it may have"
    return f"{member or 'the body'}: {words}"


def _type_words(match: re.Match[str]) -> str:
    return " or ".join(sorted(_NAMES.get(name, name) for name in match[1].split(" | ")))


def _holds_half_a_pair(value: object) -> bool:
    try:
        return b"\\ud" in json_text(value) and not _is_text(value)
    except RecursionError:
        return True


def _is_text(value: object) -> bool:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, dict):
        return all(_is_text(name) and _is_text(item) for name, item in value.items())
    if isinstance(value, list):
        return all(_is_text(item) for item in value)
    return True
