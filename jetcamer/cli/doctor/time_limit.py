"""How long an examination may take, and each of its steps."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")

#: A step that begins when the time is nearly up still gets this much. Seconds.
LEAST = 0.2


class TimeLimit:
    """`seconds` for all steps together, from now on."""

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._end = clock.seconds() + seconds

    def share(self, seconds: float) -> float:
        """The seconds that a step gets which wants `seconds`."""
        return max(LEAST, min(seconds, self._end - self._clock.seconds()))

    async def within(self, seconds: float, awaited: Deferred[T]) -> T:
        """The result of `awaited`, which is cancelled after its share of `seconds`.

        :raises TimeoutError: with words, when it was.
        """
        share = self.share(seconds)
        late = False

        def cancel() -> None:
            nonlocal late
            late = True
            awaited.cancel()

        timer = self._clock.callLater(share, cancel)
        try:
            return await awaited
        except Exception:
            if late:  # not everything that is cancelled fails with CancelledError
                raise TimeoutError(f"no answer within {share:.3g} s") from None
            raise
        finally:
            if timer.active():
                timer.cancel()
