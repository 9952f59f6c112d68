"""The head of an HTTP/1 answer, read by a client that has no use for a body.

In: the bytes received so far, in whatever pieces they came. Out: status, reason and headers, once
they are whole. It never reads more than 16 KiB, and gives up at the first byte that is not HTTP.
"""

from __future__ import annotations

import msgspec

from jetcamer.net.errors import printable

MAX_HEAD = 16 * 1024


class ResponseHead(msgspec.Struct, frozen=True):
    """Status line and headers. Names are lower case; repeated ones are joined with commas."""

    status: int
    reason: str
    headers: dict[str, str]

    @property
    def status_line(self) -> str:
        """``404 Not Found``, fit for a log."""
        return printable(f"{self.status} {self.reason}".strip())


class HeadReader:
    """Collects bytes until the empty line; what follows it is left in `rest`."""

    def __init__(self) -> None:
        self.raw = b""
        self.rest = b""

    def feed(self, data: bytes) -> ResponseHead | None:
        """The head, if it is whole now.

        :raises ValueError: the answer is not HTTP, or is too long; one line in words.
        """
        searched = max(0, len(self.raw) - 3)
        self.raw += data
        if self.raw[:2] == b"\x15\x03":  # an alert record (RFC 8446 §5.1)
            raise ValueError("it answered in TLS where plain HTTP was expected")
        if self.raw[:5] != b"HTTP/"[: len(self.raw)]:
            raise ValueError(f"it sent {printable(self.raw, 40)!r} where HTTP was expected")
        end = self.raw.find(b"\r\n\r\n", searched, MAX_HEAD)
        if end < 0:
            if len(self.raw) >= MAX_HEAD:
                raise ValueError(f"the head of its answer is longer than {MAX_HEAD} bytes")
            return None
        self.rest = self.raw[end + 4 :]
        self.raw = self.raw[: end + 4]
        return _parse(self.raw[:end].decode("latin-1"))


def _parse(text: str) -> ResponseHead:
    status_line, *lines = text.split("\r\n")
    _, _, rest = status_line.partition(" ")
    status, _, reason = rest.strip().partition(" ")
    if len(status) != 3 or not (status.isascii() and status.isdigit()):
        raise ValueError(f"it sent {printable(status_line, 40)!r} where a status was expected")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        key = name.strip().lower()
        if colon and key:
            value = value.strip()
            headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return ResponseHead(int(status), reason.strip(), headers)


def http_date(text: str | None) -> float | None:
    """Unix seconds of an HTTP date (RFC 9110 §5.6.7); None where there is none to be read."""
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
