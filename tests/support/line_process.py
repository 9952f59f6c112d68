"""A child process that says what happens in lines, and waits of a test for one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

T = TypeVar("T")

#: Seconds a child may take to say what a test waits for. A deadline, never a measure.
DEADLINE = 20.0


class LineNotSeen(AssertionError):
    """The child did not say what the test waited for; str() shows what it said instead."""


class _Wait(Generic[T]):
    def __init__(self, matches: Callable[[T], object], done: Deferred[T]) -> None:
        self.matches = matches
        self.done = done
        self.deadline: IDelayedCall | None = None

    def end(self) -> Deferred[T]:
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        return self.done


class LineProcess(ProcessProtocol, Generic[T]):
    """A running child. Its lines, parsed by `parse`, are kept in `events`.

    Use: ``peer = SomeProcess(reactor); await peer.start(); test.addCleanup(peer.stop)``.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.events: list[T] = []
        self.stderr = ""
        self.exit_code: int | None = None
        self._buffer = b""
        self._waits: list[_Wait[T]] = []
        self._ended: Deferred[None] = Deferred()
        self._over = False

    # What a kind of child fills in

    def parse(self, line: str) -> T:
        """An event of one line of standard output."""
        raise AssertionError("a kind of child says how its lines are read")

    def spawn(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str] | None = None,
        cwd: str | None = None,
        terminal: tuple[int, int, str] | bool = False,
    ) -> None:
        """Start the child with our environment and `environ` over it.

        :param terminal: give it a terminal: its master, slave and name, or True for a new one.
        """
        self._reactor.spawnProcess(
            self,
            argv[0],
            args=list(argv),
            env={**os.environ, **(environ or {})},
            path=cwd,
            usePTY=terminal,
        )

    # What a test uses

    @property
    def pid(self) -> int:
        return int(self.transport.pid)

    def wait_for(
        self, matches: Callable[[T], object], *, since: int = 0, timeout: float = DEADLINE
    ) -> Deferred[T]:
        """Fires with the first event from `events[since]` on that `matches`, past or to come.

        Fails with `LineNotSeen` after `timeout` seconds, or when the child ends first.
        """
        for event in self.events[since:]:
            if matches(event):
                return succeed(event)
        if self._over:
            return fail(LineNotSeen(self._report("the child has ended")))
        wait: _Wait[T] = _Wait(matches, Deferred(lambda _: self._waits.remove(wait)))
        wait.deadline = self._reactor.callLater(timeout, self._expire, wait, timeout)
        self._waits.append(wait)
        return wait.done

    def write_line(self, text: str) -> None:
        self.transport.write(text.encode("utf-8") + b"\n")

    def signal(self, name: str) -> None:
        """Send a signal by its short name: ``STOP``, ``CONT``, ``TERM`` …"""
        os.kill(self.pid, getattr(signal, f"SIG{name}"))

    def stop(self) -> Deferred[None]:
        """Kill the child, if it still runs; fires when it is gone."""
        try:
            if not self._over and self.transport is not None:
                self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass
        return self.when_ended() if self.transport is not None else succeed(None)

    def when_ended(self) -> Deferred[None]:
        """Fires when the child is gone; its `exit_code` is set then."""
        waiter: Deferred[None] = Deferred()
        self._ended.addCallback(waiter.callback)
        return waiter

    # ProcessProtocol

    def outReceived(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            event = self.parse(line.decode("utf-8", "replace").rstrip("\r"))
            self.events.append(event)
            for wait in [wait for wait in self._waits if wait.matches(event)]:
                if wait in self._waits:
                    self._waits.remove(wait)
                    wait.end().callback(event)

    def errReceived(self, data: bytes) -> None:
        self.stderr += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        self._over = True
        self.exit_code = getattr(reason.value, "exitCode", None)
        waits, self._waits = self._waits, []
        for wait in waits:
            wait.end().errback(LineNotSeen(self._report("the child has ended")))
        self._ended.callback(None)

    def _expire(self, wait: _Wait[T], timeout: float) -> None:
        self._waits.remove(wait)
        wait.done.errback(LineNotSeen(self._report(f"not within {timeout:g} s")))

    def _report(self, words: str) -> str:
        said = "\n".join(f"  {event!r}"[:400] for event in self.events[-12:])
        return f"{words}; its last lines:\n{said}\nstandard error:\n{self.stderr[-2000:]}"
