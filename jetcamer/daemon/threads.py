"""Blocking work in a thread that nobody waits for.

In: a function. Out: a Deferred in the reactor's thread. Twisted's own thread pool is joined at the
end of the process, which a disk or a network that hangs would then hold up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

T = TypeVar("T")


def run_in_thread(reactor: Any, function: Callable[[], T], *, name: str = "worker") -> Deferred[T]:
    """Call `function` in a daemon thread of its own; here, if the system gives none.

    :param reactor: IReactorFromThreads.
    """
    done: Deferred[T] = Deferred()

    def work() -> None:
        try:
            result = function()
        except BaseException:
            reactor.callFromThread(done.errback, Failure())
        else:
            reactor.callFromThread(done.callback, result)

    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError:
        return maybeDeferred(function)
    return done
