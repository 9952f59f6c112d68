"""What an agent's id and secret may be.

In: what an operator or a joining machine gives. Out: nothing, or `EnrolmentError`.
"""

from __future__ import annotations

from typing import Literal

#: Characters in the longest id that is given out. Longer ones are only known from the legacy mode.
MAX_AGENT_ID = 128
MIN_SECRET = 16
MAX_SECRET = 1024


class EnrolmentError(Exception):
    """str() is one line for a person, without a secret in it."""

    def __init__(self, kind: Literal["invalid", "exists", "unknown", "token"], words: str) -> None:
        super().__init__(words)
        self.kind = kind


def check_agent_id(agent_id: str) -> None:
    if (
        not 1 <= len(agent_id) <= MAX_AGENT_ID
        or not agent_id.isprintable()
        or any(character in agent_id for character in " /,")
        or agent_id in (".", "..")  # which a URL's path cannot carry
    ):
        raise EnrolmentError(
            "invalid",
            f"an agent's id is 1 to {MAX_AGENT_ID} printable characters, none of them a space,"
            " '/' or ','",
        )


def check_secret(secret: str | None) -> None:
    if secret is None:
        return
    if not MIN_SECRET <= len(secret) <= MAX_SECRET:
        raise EnrolmentError("invalid", f"a secret has {MIN_SECRET} to {MAX_SECRET} characters")
    if not secret.isprintable() or secret != secret.strip():
        raise EnrolmentError(
            "invalid", "the secret holds a line break or control character, or begins or ends blank"
        )
