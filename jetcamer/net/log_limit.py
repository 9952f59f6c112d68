"""So many log lines in a time and no more; how many were left out is said once it is over.

In: that there is something to say. Out: whether to say it, and later a count of what was not. What
a stranger can make happen without end must not fill a disk with lines.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class LogLimit:
    """At most `most` lines in `seconds`.

    :param say_rest: called with the number that was left out, at the end of the time in which
        they were, or by `stop`.
    """

    __slots__ = ("_clock", "_left_out", "_most", "_said", "_say_rest", "_seconds", "_since",
                 "_timer")  # fmt: skip

    def __init__(
        self,
        clock: IReactorTime,
        say_rest: Callable[[int], None],
        *,
        most: int = 10,
        seconds: float = 1.0,
    ) -> None:
        self._clock = clock
        self._say_rest = say_rest
        self._most = most
        self._seconds = seconds
        self._since = float("-inf")
        self._said = self._left_out = 0
        #: Runs only while something was left out.
        self._timer: IDelayedCall | None = None

    def admits(self) -> bool:
        """Whether to say the line at hand; if not, it has been counted."""
        now = self._clock.seconds()
        if now - self._since >= self._seconds and self._timer is None:
            self._since, self._said = now, 0
        if self._said < self._most:
            self._said += 1
            return True
        self._left_out += 1
        if self._timer is None:
            self._timer = self._clock.callLater(self._since + self._seconds - now, self._tell)
        return False

    def stop(self) -> None:
        """Say at once what is still to be said; no timer is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()

    def _tell(self) -> None:
        self._timer = None
        left_out, self._left_out = self._left_out, 0
        self._since = float("-inf")
        self._say_rest(left_out)
