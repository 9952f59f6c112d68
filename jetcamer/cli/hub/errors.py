"""The one exception that ends a command with status 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HubError(Exception):
    """What was asked could not be done; str() is one line for a person, made visible.

    :param status: the HTTP status the hub answered with; None where it did not answer.
    :param answer: the JSON object that came with it.
    :param retry_after: seconds the hub asks to wait before the next attempt.
    """

    def __init__(
        self,
        words: str,
        *,
        status: int | None = None,
        answer: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(words)
        self.status = status
        self.answer = answer or {}
        self.retry_after = retry_after

    @property
    def passes(self) -> bool:
        """Whether the same request may succeed later, with nothing changed here."""
        return self.status is None or self.status in (408, 429) or self.status >= 500
