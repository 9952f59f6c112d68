"""The opening handshake of a WebSocket, the server's half: the bytes of a request → yes or no.

In: one whole request head (RFC 6455, 4.2.1; RFC 9112). Out: what the hub needs of it, or with
which status it is refused, and the bytes of either answer. It is strict where a proxy and we could
otherwise read two different requests out of one text: a line that is no header field, a field
folded over lines or one that may be there only once. No extension and no subprotocol is ever agreed
to, and nothing that the peer wrote is sent back but the hash of its key.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from hashlib import sha1
from http import HTTPStatus
from math import ceil
from time import time
from typing import NamedTuple

#: What ends a request head.
END = b"\r\n\r\n"

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"

_TCHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_FIELD = rf"{_TCHAR}++:[\t -~\x80-\xff]*+\r\n"
_REQUEST_LINE = re.compile(rf"({_TCHAR}++) ([!-~]++) HTTP/([0-9]\.[0-9])\r\n")
_FIELDS = re.compile(rf"(?:{_FIELD})*+\r\n")
#: For what `_FIELDS` has matched.
_LINE = re.compile(r"([^:]++):(.*)\r\n")
_AUTHORITY = re.compile(r"\A(?:https?|wss?)://[^/?#]*", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]*\]|[^\[\]:/?#@ \t]*)(?::[0-9]{1,5})?")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")

#: Fields that are read, and whether they may be there more than once.
_READ = {
    "host": False,
    "upgrade": True,
    "connection": True,
    "sec-websocket-key": False,
    "sec-websocket-version": False,
    "x-forwarded-for": True,
}


class Upgrade(NamedTuple):
    """A request for a WebSocket that is well formed."""

    #: As it was spelled, without the query.
    path: str
    key: str
    #: `X-Forwarded-For`, every field of it joined; "" where there was none.
    forwarded_for: str


class Refusal(NamedTuple):
    """Why there is no WebSocket: a status, words for the log, and fields for the answer."""

    status: int
    words: str
    fields: Sequence[tuple[str, str]] = ()


def try_later(status: int, words: str, seconds: float) -> Refusal:
    """A refusal that says when to come again."""
    return Refusal(status, words, (("Retry-After", str(max(1, ceil(seconds)))),))


def read_request(head: bytes) -> Upgrade | Refusal:
    """What the request asks for. `head` ends with `END`, and nothing comes after that."""
    text = head.decode("latin-1")
    line = _REQUEST_LINE.match(text)
    if line is None:
        return Refusal(400, "the request line is malformed")
    method, target, version = line.groups()
    if method != "GET":
        return Refusal(405, "the method is not GET", (("Allow", "GET"),))
    if version != "1.1":
        return Refusal(505, "the version is not HTTP/1.1")
    fields = _read_fields(text, line.end())
    return fields if isinstance(fields, Refusal) else _judge(target, fields)


def _read_fields(text: str, at: int) -> dict[str, str] | Refusal:
    """The fields by their names in lower case; several of one name that is read joined."""
    if _FIELDS.fullmatch(text, at) is None:
        return Refusal(400, "a header line is malformed")
    lines = [(name.lower(), value.strip(" \t")) for name, value in _LINE.findall(text, at)]
    found = dict(lines)
    if len(found) == len(lines):
        return found
    for name, may_repeat in _READ.items():
        values = [value for each, value in lines if each == name]
        if len(values) > 1 and not may_repeat:
            return Refusal(400, f"{name} is there more than once")
        if values:
            found[name] = ", ".join(values)
    return found


def _judge(target: str, fields: dict[str, str]) -> Upgrade | Refusal:
    origin_form = target if target.startswith("/") else _AUTHORITY.sub("", target, count=1)
    path, _, _ = origin_form.partition("?")
    if "#" in target:
        return Refusal(400, "the target has a fragment")
    host = fields.get("host")
    if host is None or not _HOST.fullmatch(host):
        return Refusal(400, "host is missing or malformed")
    upgrade = fields.get("upgrade")
    if upgrade is None:
        return _upgrade_required("upgrade is missing")
    if not _has_token(upgrade, "websocket"):
        return Refusal(400, "upgrade does not name websocket")
    if not _has_token(fields.get("connection", ""), "upgrade"):
        return Refusal(400, "connection does not name upgrade")
    version = fields.get("sec-websocket-version", "")
    if version != _VERSION:
        if version.isascii() and version.isdigit():
            return _upgrade_required("the version of the protocol is not 13")
        return Refusal(400, "sec-websocket-version is missing or malformed")
    key = fields.get("sec-websocket-key", "")
    if not _KEY.fullmatch(key):
        return Refusal(400, "sec-websocket-key is missing or malformed")
    return Upgrade(path, key, fields.get("x-forwarded-for", ""))


def _has_token(value: str, token: str) -> bool:
    value = value.lower()
    return value == token or token in [each.strip() for each in value.split(",")]


def _upgrade_required(words: str) -> Refusal:
    return Refusal(426, words, (("Upgrade", "websocket"), ("Sec-WebSocket-Version", _VERSION)))


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def accepting(key: str) -> bytes:
    """The answer that opens the WebSocket. Agents compare their clock with its `Date`."""
    accept = b64encode(sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Server: JetCamer\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        f"Date: {_date(int(time()))}\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n"
        "\r\n"
    ).encode()


def refusing(refusal: Refusal) -> bytes:
    """The answer that ends the connection."""
    status = HTTPStatus(refusal.status)
    fields = "".join(f"{name}: {value}\r\n" for name, value in refusal.fields)
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{fields}"
        "Connection: close\r\nContent-Length: 0\r\n\r\n"
    ).encode()
