"""What a TLS client offers in its first message, read before OpenSSL does.

In: the first bytes of a connection. Out: the application protocols the client offers (ALPN).
Python's `ssl` completes a handshake with a client that offers only protocols it does not know,
and does not say that there was an offer; RFC 7301 wants such a client refused.

It never decides more than that: whatever is not understood here is left to OpenSSL.
"""

from __future__ import annotations

#: A first message longer than this is not looked at. Bytes.
MAX_HELLO = 16 * 1024

#: Nor is one in more records than this: they would be put together anew for each byte that comes.
_MAX_RECORDS = 8

_HANDSHAKE_RECORD, _CLIENT_HELLO, _ALPN = 22, 1, 16


class Incomplete(Exception):
    """The first message is not all there yet."""


class OfferCheck:
    """Whether a client offers any of `protocols`, asked while its first message comes in."""

    __slots__ = ("_data", "_protocols")

    def __init__(self, protocols: frozenset[bytes]) -> None:
        self._protocols = protocols
        #: What has come of the message; None once it was understood, or never will be.
        self._data: bytes | None = b""

    def accepts(self, data: bytes) -> bool:
        """False: with `data` it is certain that it offers others only."""
        if self._data is None:
            return True
        self._data += data
        try:
            offered = offered_protocols(self._data)
        except Incomplete:
            if len(self._data) > MAX_HELLO:
                self._data = None
            return True
        self._data = None
        return offered is None or not self._protocols.isdisjoint(offered)


def offered_protocols(data: bytes) -> tuple[bytes, ...] | None:
    """The protocols offered; None where none are, or where `data` is no ClientHello.

    :raises Incomplete: `data` ends within the message.
    """
    body = _hello_body(data)
    try:
        return None if body is None else _alpn(body)
    except IndexError:
        return None  # lengths that lie: OpenSSL refuses it


def _hello_body(data: bytes) -> bytes | None:
    """The ClientHello (RFC 8446, 4.1.2) out of the records it came in."""
    message = b""
    for _ in range(_MAX_RECORDS):
        if data and data[0] != _HANDSHAKE_RECORD:
            return None
        if len(data) < 5:
            raise Incomplete
        end = 5 + int.from_bytes(data[3:5], "big")
        message += data[5:end]
        if message and message[0] != _CLIENT_HELLO:
            return None
        length = 4 + int.from_bytes(message[1:4], "big")
        if length > MAX_HELLO:
            return None
        if len(message) >= 4 and len(message) >= length:
            return message[4:length]
        if len(data) < end:
            raise Incomplete
        data = data[end:]
    return None


def _alpn(body: bytes) -> tuple[bytes, ...] | None:
    at = 2 + 32  # version, random
    at += 1 + body[at]  # session id
    at += 2 + _two(body, at)  # cipher suites
    at += 1 + body[at]  # compression methods
    if at == len(body):
        return None
    end = at + 2 + _two(body, at)
    at += 2
    while at < end:
        kind, length = _two(body, at), _two(body, at + 2)
        at += 4
        if kind == _ALPN:
            return tuple(_names(body[at + 2 : at + length]))
        at += length
    return None


def _names(listed: bytes) -> list[bytes]:
    names, at = [], 0
    while at < len(listed):
        names.append(listed[at + 1 : at + 1 + listed[at]])
        at += 1 + listed[at]
    return names


def _two(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
