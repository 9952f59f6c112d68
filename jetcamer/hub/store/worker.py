"""The database's thread: one, of its own, for as long as the store is open.

In: jobs from the reactor's thread. Out: a Deferred for each, fired in the reactor's thread. Between
jobs it gives the store its turns: what is due is done first, then one job, then one slice of
background work. The reactor's own pool is not used: name lookups share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

_T = TypeVar("_T")

_Job = tuple[Callable[[], Any], "Deferred[Any]"]


class Stopped(Exception):
    """The thread takes no more jobs."""


class Worker:
    """
    :param due: called at every turn; does what is due and returns the seconds until the next time.
    :param failed: called when a slice of background work raised.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        *,
        due: Callable[[], float],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._reactor = reactor
        self._due = due
        self._failed = failed
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        self._background: list[Iterator[object]] = []
        self._running = False
        self._accepts = False
        self._last: _Job | None = None

    # In the reactor's thread.

    def start(self) -> None:
        self._running = self._accepts = True
        Thread(target=self._run, name="jetcamer-store", daemon=True).start()

    def call(self, function: Callable[[], _T]) -> Deferred[_T]:
        """Have `function` called in the thread; what it returns or raises comes back."""
        result: Deferred[_T] = Deferred()
        if self._accepts:
            self._jobs.put((function, result))
        else:
            result.errback(Failure(Stopped()))
        return result

    def stop(self, function: Callable[[], _T]) -> Deferred[_T]:
        """The last job: after those that wait."""

        def last() -> _T:
            self._running = False
            return function()

        done: Deferred[_T] = Deferred()
        if self._accepts:
            self._accepts = False
            self._last = (last, done)
            self._jobs.put(self._last)
        else:
            done.errback(Failure(Stopped()))
        return done

    # In the database's thread.

    @property
    def stopping(self) -> bool:
        """Known once the reactor's thread has said so; jobs before the last may still come."""
        return not self._accepts

    def in_background(self, work: Iterator[object]) -> None:
        """Have the steps of `work` done one at a time, between other things."""
        self._background.append(work)

    def give_turn(self) -> None:
        """What is due and one job, in the middle of a long one. Not the last job."""
        self._due()
        self._one_job(0, nested=True)

    def back(self, function: Callable[..., object], *arguments: object) -> None:
        """Call `function` in the reactor's thread."""
        self._reactor.callFromThread(function, *arguments)

    def _run(self) -> None:
        while self._running:
            wait = self._due()
            self._one_job(0 if self._background else wait)
            if self._background and self._running:
                self._one_slice()

    def _one_job(self, wait: float, *, nested: bool = False) -> None:
        try:
            job = self._jobs.get(timeout=wait) if wait > 0 else self._jobs.get_nowait()
        except Empty:
            return
        if nested and job is self._last:
            self._jobs.put(job)
            return
        function, result = job
        try:
            value = function()
        except BaseException:
            self.back(result.errback, Failure())
        else:
            self.back(result.callback, value)

    def _one_slice(self) -> None:
        work = self._background.pop(0)
        try:
            next(work)
        except StopIteration:
            return
        except BaseException as problem:
            self._failed(problem)
            return
        self._background.append(work)
