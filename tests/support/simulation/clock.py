"""Simulated time for thousands of timers, and processes that can die with theirs.

In: `callLater`. Out: the calls, in order of time, when `Time.advance_to` says so. Twisted's `Clock`
sorts its whole list at each `callLater`; here it is a heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()


class _Call(DelayedCall):
    owner: Process | None

    @property
    def is_due(self) -> bool:
        """It will be made: its process may have died since."""
        return bool(self.active()) and (self.owner is None or self.owner.alive)


@implementer(IReactorTime)
class Time:
    """The time of a whole simulation, in seconds from its beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, _Call]] = []
        self._order = count()

    def seconds(self) -> float:
        return self.now

    def callLater(
        self, delay: float, function: Callable[..., object], *args: object, **kwargs: object
    ) -> DelayedCall:
        return self.call_later(None, delay, function, args, kwargs)

    def call_later(
        self,
        owner: Process | None,
        delay: float,
        function: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> DelayedCall:
        if delay < 0:
            raise ValueError(f"a delay of {delay} s")
        call = _Call(self.now + delay, function, args, kwargs, _cancelled, self._push, self.seconds)
        call.owner = owner
        self._push(call)
        return call

    def getDelayedCalls(self) -> list[_Call]:
        """Those that are yet to come."""
        return list({id(call): call for _, _, call in self._heap if call.is_due}.values())

    def calls_of(self, owner: Process) -> list[_Call]:
        return [call for call in self.getDelayedCalls() if call.owner is owner]

    def advance_to(self, moment: float) -> None:
        """Make every call due until then. One that raises is logged, as a reactor does."""
        heap = self._heap
        while heap and heap[0][0] <= moment:
            due, _, call = heapq.heappop(heap)
            if call.cancelled or call.called or call.time != due:
                continue  # or it was reset, and is in the heap again
            if call.owner is not None and not call.owner.alive:
                continue
            if call.delayed_time:
                call.activate_delay()
                self._push(call)
                continue
            self.now = due
            call.called = 1
            try:
                call.func(*call.args, **call.kw)
            except Exception:
                log.failure("a delayed call failed")
        self.now = moment

    def _push(self, call: _Call) -> None:
        heapq.heappush(self._heap, (call.time, next(self._order), call))


def _cancelled(call: DelayedCall) -> None:
    """The heap drops it when its time comes."""


@implementer(IReactorTime)
class Process:
    """One process's view of the time: when it is killed, none of its calls is made any more."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.alive = True

    def seconds(self) -> float:
        return self.time.now

    def callLater(
        self, delay: float, function: Callable[..., object], *args: object, **kwargs: object
    ) -> DelayedCall:
        if not self.alive:
            raise AssertionError("a dead process set a timer")
        return self.time.call_later(self, delay, function, args, kwargs)

    def getDelayedCalls(self) -> list[DelayedCall]:
        return self.time.calls_of(self)

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        self.callLater(0, function, *args)

    def kill(self) -> None:
        """SIGKILL: nothing of it runs on."""
        self.alive = False
