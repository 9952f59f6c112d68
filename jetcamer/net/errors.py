"""How a connection fails, in words for a person.

In: what went wrong, and text of a peer's. Out: one line. It never holds a secret, and never a
character that could write a second line into a log.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["ConnectFailed", "Kind", "Phase", "printable"]

Kind = Literal[
    "dns", "refused", "unreachable", "timeout", "tls", "http", "proxy", "protocol", "closed"
]
Phase = Literal["name lookup", "TCP connect", "proxy CONNECT", "TLS handshake", "WebSocket upgrade"]


class ConnectFailed(Exception):
    """No WebSocket came of an attempt; ``str()`` is the cause in one line.

    :ivar kind: what sort of failure it was.
    :ivar phase: how far the attempt had come, where that is known.
    :ivar retry_after: seconds the server asked us to stay away, 0 to a day.
    """

    def __init__(
        self,
        words: str,
        *,
        kind: Kind,
        phase: Phase | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(words)
        self.kind = kind
        self.phase = phase
        self.retry_after = retry_after


def printable(text: str | bytes, limit: int = 80) -> str:
    """A peer's text, fit for one log line: at most `limit` characters, none that moves a cursor."""
    if isinstance(text, bytes):
        text = text[: limit + 1].decode("latin-1")
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in short)
