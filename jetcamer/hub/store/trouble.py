"""A disk that does not take what it is given: told once, tried again later and later.

In: writes that failed, and the first that did not. Out: how long to wait, and two lines in the
log. For the database's thread, but that others may read `words`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from twisted.logger import Logger

_log = Logger()

#: After a write that failed: the first wait, doubled up to the longest.
RETRY_SECONDS = 0.5
MAX_RETRY_SECONDS = 10.0


class Trouble:
    """
    :param back: calls its argument in the reactor's thread.
    """

    def __init__(self, back: Callable[[Callable[[], None]], None]) -> None:
        #: What is wrong, for a person; None: nothing.
        self.words: str | None = None
        self._back = back
        self._failures = 0
        self._since = 0.0

    def failed(self, words: str) -> float:
        """A write failed; returns the seconds until the next try."""
        if self.words is None:
            self._failures, self._since = 0, monotonic()
            self._back(lambda: _log.error("[hub] {words}; facts wait in memory", words=words))
        self.words = words
        wait: float = min(RETRY_SECONDS * 2**self._failures, MAX_RETRY_SECONDS)
        self._failures = min(self._failures + 1, 10)
        return wait

    def over(self, lost: int) -> None:
        """A write succeeded; `lost` facts were given up since the start."""
        if self.words is None:
            return
        self.words = None
        seconds = monotonic() - self._since
        self._back(
            lambda: _log.info(
                "[hub] the database can be written again, after {seconds:.0f} s; "
                "{lost} facts given up so far",
                seconds=seconds,
                lost=lost,
            )
        )
