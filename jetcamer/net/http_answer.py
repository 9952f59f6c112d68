"""What a handler of a JSON site gives back, and what it reads.

In: JSON bodies and queries of anybody. Out: values, answers and refusals as bytes. A refusal never
quotes a body, which may hold a secret.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from twisted.web.http import Request, datetimeToString


class Answer(msgspec.Struct, frozen=True):
    """What a handler gives that is not simply a JSON value with status 200."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class HTTPError(Exception):
    """Refuse the request. `words` go to the peer as ``{"error": words}``: no secret in them."""

    def __init__(self, status: int, words: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(words)
        self.answer = Answer(json_text({"error": words}), status, headers=headers)


def reason_phrase(status: int) -> bytes:
    """What stands behind `status` in the status line. Twisted does not know them all."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""


def json_text(value: object) -> bytes:
    """One line of compact JSON. A lone surrogate comes out as its escape."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_json(request: Request) -> Any:
    """The body of `request`. Raises `HTTPError` 400 unless it is one JSON text in UTF-8 without
    duplicate members, NaN or Infinity."""
    content: Any = request.content
    try:
        return json.loads(
            content.read().decode("utf-8"),
            object_pairs_hook=_members,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        # The parser's own words may quote the body, and the body may hold a secret.
        raise HTTPError(400, "invalid JSON payload") from None


def read_query(request: Request) -> dict[str, str]:
    """The parameters behind the ``?``. Raises `HTTPError` 400 for one that comes twice or is not
    UTF-8."""
    _, _, text = request.uri.partition(b"?")
    found: dict[str, str] = {}
    for part in text.split(b"&"):
        if not part:
            continue
        raw_name, _, raw_value = part.partition(b"=")
        try:
            name, value = _plain(raw_name), _plain(raw_value)
        except UnicodeDecodeError:
            raise HTTPError(400, "the query is not UTF-8") from None
        if name in found:
            raise HTTPError(400, f"{_shown(name)}: given more than once")
        found[name] = value
    return found


def header_lines(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Every header of `answer`, by name and value."""
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Date": datetimeToString().decode(),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **dict(answer.headers),
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _plain(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8")


def _shown(name: str) -> str:
    """A name that a peer chose, fit for one line."""
    text = "".join(character if character.isprintable() else "?" for character in name)
    return text if len(text) <= 40 else text[:40] + "…"
