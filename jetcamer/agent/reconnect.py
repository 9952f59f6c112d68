"""How long to wait before the next attempt. Pure arithmetic: no clock, no I/O.

The ceilings are the ones of the agents in the field: 2, 4, 8, 16, 32, 60, 60 … seconds. The wait
itself is drawn below its ceiling, so that a fleet cut off together does not come back together.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random as _random

#: No wait is longer, unless the server asks for it.
MAX_DELAY = 60.0

#: The longest wait a server may ask for, in seconds.
MAX_RETRY_AFTER = 600.0

#: A link that has been open this long without a disturbance begins again at the first ceiling.
UNDISTURBED = 60.0


class ReconnectPolicy:
    """Counts failed attempts in a row and says how long to wait after each.

    :param jitter: the spread, 0 to 0.5: each wait is drawn from [1 - jitter, 1] of its ceiling.
    :param random: returns a number in [0, 1).
    """

    def __init__(self, jitter: float = 0.5, random: Callable[[], float] = _random) -> None:
        self.attempt = 0
        self._jitter = jitter
        self._random = random

    @property
    def ceiling(self) -> float:
        """Seconds: ``min(60, 2 ** attempt)``, which does not overflow however long it goes on."""
        return MAX_DELAY if self.attempt >= 6 else float(2**self.attempt)

    def failed(self, retry_after: float | None = None) -> float:
        """Count a failure; the seconds to wait, at least `retry_after` where the server gave it."""
        self.attempt += 1
        delay = self.ceiling * (1 - self._jitter * self._random())
        if retry_after is not None:
            delay = max(delay, min(retry_after, MAX_RETRY_AFTER))
        return delay

    def reset(self) -> None:
        self.attempt = 0
