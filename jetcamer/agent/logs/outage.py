"""How long to wait while S3 does not take what it is given, and what to say about it.

In: failures and successes. Out: the moment of the next try, and few log lines: one for each cause,
one every ten minutes while it lasts, and one when it is over.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

log = Logger()

#: Seconds. No wait is longer, unless S3 asks for it.
MAX_DELAY = 60.0

#: The longest wait S3 may ask for.
MAX_RETRY_AFTER = 600.0

#: Seconds between two log lines of the same words.
SAY_INTERVAL = 600.0


def back_off(attempt: int, random: Callable[[], float]) -> float:
    """Seconds to wait after the `attempt`-th failure in a row: drawn from the upper half of 1, 2,
    4 … 60."""
    ceiling = MAX_DELAY if attempt > 6 else float(1 << (attempt - 1))
    return ceiling * (1 - random() / 2)


class Outage:
    """From the first failure to the next success.

    `round` tells apart what was begun before a failure and after it: of several uploads that fail
    together only one counts, and the success of one that was begun earlier ends nothing.
    """

    def __init__(self, clock: IReactorTime, random: Callable[[], float]) -> None:
        self.round = 0
        #: When to try again, by the clock; None: now.
        self.until: float | None = None
        #: Why the last upload failed, while the outage lasts.
        self.words: str | None = None
        self._clock = clock
        self._random = random
        self._attempt = 0
        self._since = 0.0
        self._said: str | None = None
        self._said_at = 0.0

    @property
    def lasts(self) -> bool:
        return self._attempt > 0

    def failed(self, began: int, words: str, retry_after: float | None, waiting: int) -> None:
        """:param began: the `round` in which the upload was begun.
        :param waiting: lines that wait, to be said."""
        now = self._clock.seconds()
        self.words = words
        if began == self.round or not self._attempt:
            self.round += 1
            self._attempt += 1
            if self._attempt == 1:
                self._since = now
            self.until = now + back_off(self._attempt, self._random)
        if retry_after is not None:
            until = now + min(retry_after, MAX_RETRY_AFTER)
            self.until = until if self.until is None else max(self.until, until)
        if words != self._said or now - self._said_at >= SAY_INTERVAL:
            self._said, self._said_at = words, now
            log.warn(
                "[s3] {why}; {lines} lines wait, tried again in {delay} s",
                why=words,
                lines=waiting,
                delay=round((self.until or now) - now, 1),
            )

    def succeeded(self, began: int, waiting: int) -> None:
        if began != self.round or not self._attempt:
            return
        log.info(
            "[s3] uploads succeed again after {delay} s; {lines} lines waited",
            delay=round(self._clock.seconds() - self._since),
            lines=waiting,
        )
        self._attempt = 0
        self.words = self._said = self.until = None

    def retry_now(self) -> None:
        """Do not wait any longer; what is under way counts no more."""
        self.until = None
        self.round += 1
