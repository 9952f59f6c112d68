"""Timers that can be stopped at any moment: one that fires once, and one that repeats.

In: a clock and a function. Out: its calls. A delayed call must not be cancelled when it is over,
and a plain ``LoopingCall`` whose function raises once never runs again and says nothing; these
see to both.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()


class Timer:
    """One delayed call at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._call: IDelayedCall | None = None

    @property
    def running(self) -> bool:
        return self._call is not None and bool(self._call.active())

    @property
    def remaining(self) -> float | None:
        """Seconds until the call; None when the timer does not run."""
        if self._call is None or not self._call.active():
            return None
        return self._call.getTime() - self._clock.seconds()

    def start(self, seconds: float, action: Callable[..., object], *args: object) -> None:
        """Call `action` once, later; a call that is already waiting is replaced."""
        self.stop()
        self._call = self._clock.callLater(seconds, action, *args)

    def stop(self) -> None:
        """Harmless when it does not run."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()


class RepeatingTimer:
    """Calls ``body()`` every ``interval`` seconds, without drift, until it is stopped.

    After a stall the body runs once, not once for each interval that was missed.
    ``name`` begins the log line for a body that raised. Stopping a stopped timer is harmless.
    """

    def __init__(
        self, clock: IReactorTime, interval: float, body: Callable[[], object], *, name: str
    ) -> None:
        self.interval = interval
        self._body = body
        self._name = name
        self._loop = LoopingCall(self._run)
        self._loop.clock = clock

    @property
    def running(self) -> bool:
        return self._loop.running

    def start(self, now: bool = False) -> None:
        """Start the timer; the first call comes after one interval, or at once if `now`."""
        if not self._loop.running:
            self._loop.start(self.interval, now=now)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def _run(self) -> None:
        try:
            self._body()
        except Exception:
            log.failure("{name} failed; it goes on", name=self._name)


def at_most(clock: IReactorTime, seconds: float, awaited: Deferred[None]) -> Deferred[bool]:
    """Fires with True when `awaited` does, or with False after `seconds`; `awaited` goes on. If
    it fails that is logged."""
    over: Deferred[bool] = Deferred()
    timer = Timer(clock)
    timer.start(seconds, over.callback, False)

    def fired(result: object) -> None:
        if isinstance(result, Failure):
            log.failure("what was waited for failed", result)
        if timer.running:
            timer.stop()
            over.callback(True)

    awaited.addBoth(fired)
    return over
