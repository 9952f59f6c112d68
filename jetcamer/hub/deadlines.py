"""One timer for the deadlines of all connections, to the second.

In: things that want to be looked at when a time has come. Out: one call of each, then. Thousands
of connections with several deadlines each would cost a delayed call for every one of them, and
another for every message that moves it; here moving a deadline is a `set` operation and being
heard of is none at all. It never looks early, and as a rule less than a second late.
"""

from __future__ import annotations

from math import ceil, floor
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

_log = Logger()


class Watched(Protocol):
    #: For `Deadlines` alone: the second in which it is looked at; None when it is not watched.
    slot: int | None

    def deadline_reached(self, now: int) -> float | None:
        """The time asked for has come; returns the next one, None for no other.

        :param now: the clock's whole seconds, so that what recurs does not drift.
        """


class Deadlines:
    """The timer runs while anything is watched, and at no other time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._slots: dict[int, set[Watched]] = {}
        self._timer: IDelayedCall | None = None
        #: The clock's whole seconds while anything is watched: for stamping what happens often.
        self.now = floor(clock.seconds())

    def watch(self, watched: Watched, when: float) -> None:
        """Look at it when the clock says `when`, and at no time it asked for before."""
        self.forget(watched)
        slot = watched.slot = ceil(when)
        self._slots.setdefault(slot, set()).add(watched)
        if self._timer is None:
            self.now = floor(self._clock.seconds())
            self._start()

    def forget(self, watched: Watched) -> None:
        if watched.slot is None:
            return
        waiting = self._slots[watched.slot]
        waiting.discard(watched)
        if not waiting:
            del self._slots[watched.slot]
        watched.slot = None
        if not self._slots and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        now = self._clock.seconds()
        self._timer = self._clock.callLater(floor(now) + 1 - now, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.now = floor(self._clock.seconds())
        for slot in sorted(slot for slot in self._slots if slot <= now):
            # One that is looked at may end others, so each is taken out by itself.
            while waiting := self._slots.get(slot):
                watched = next(iter(waiting))
                self.forget(watched)
                try:
                    when = watched.deadline_reached(now)
                except Exception:
                    _log.failure("[hub] a deadline could not be handled")
                    when = None
                if when is not None:
                    self.watch(watched, max(when, slot + 1))
        if self._slots and self._timer is None:
            self._start()
