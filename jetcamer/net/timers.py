"""A repeating timer that cannot die of its own body.

In: a clock and a function. Out: calls at whole multiples of the interval. A plain
``LoopingCall`` whose function raises once never runs again and says nothing; this one logs
the failure and goes on. It never runs the body twice to catch up after a stall.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger()


class RepeatingTimer:
    """Calls ``body()`` every ``interval`` seconds, without drift, until it is stopped.

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
