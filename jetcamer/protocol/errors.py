"""The one error of the language: what was wrong with a message, for a program and for a person."""

from __future__ import annotations

__all__ = ["ProtocolError", "excerpt"]

_EXCERPT = 40


class ProtocolError(ValueError):
    """A message, or a value meant for one, that the protocol does not allow.

    ``code`` is for programs and does not change: ``invalid_json``, ``too_large``, ``too_deep``,
    ``duplicate_member``, ``unknown_member``, ``missing_member``, ``wrong_type``,
    ``invalid_value``, ``invalid_signature``, ``invalid_timestamp``, ``replayed_nonce`` and
    ``not_json`` come from this package; users of it add their own, such as ``wrong_agent``.
    ``member`` is the dotted name of the member at fault (``payload.level``), or None.
    ``str(error)`` is one line for a person. It holds no secret and no value a peer sent: of a
    peer's text at most the shortened name of a member.
    """

    def __init__(self, code: str, words: str, member: str | None = None) -> None:
        super().__init__(code, words, member)
        self.code = code
        self.words = words
        self.member = member

    def __str__(self) -> str:
        return self.words if self.member is None else f"{self.member}: {self.words}"


def excerpt(name: str) -> str:
    """A peer's text made fit for a log line: printable ASCII, at most 40 characters."""
    plain = ascii(name[: _EXCERPT + 1])[1:-1]
    return plain if len(plain) <= _EXCERPT else plain[: _EXCERPT - 3] + "..."
