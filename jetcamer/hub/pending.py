"""The commands of one connection that have yet to be answered.

In: nonces of commands as they are sent, results as they come. Out: to which command a result
belongs. Never holds more than `MAX_ABANDONED` commands that nobody waits for.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from jetcamer.protocol.envelope import CommandResultPayload

#: Commands of one agent that nobody waits for any more but whose answers may still come.
MAX_ABANDONED = 64


class _Waiting:
    """A command that was sent, and who waits for its answer."""

    __slots__ = ("command", "deadline", "done")

    def __init__(
        self, command: str, done: Deferred[CommandResultPayload], deadline: IDelayedCall
    ) -> None:
        self.command = command
        self.deadline = deadline
        #: None once nobody waits: the answer of a peer that answers in order still counts.
        self.done: Deferred[CommandResultPayload] | None = done

    def take(self) -> Deferred[CommandResultPayload] | None:
        done, self.done = self.done, None
        if self.deadline.active():
            self.deadline.cancel()
        return done


class PendingCommands:
    """In the order in which they were sent."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: dict[str, _Waiting] = {}

    def add(
        self, nonce: str, command: str, timeout: float, overdue: Exception
    ) -> Deferred[CommandResultPayload]:
        """Wait for the answer of a command just sent; fails with `overdue` after `timeout` seconds.

        Cancelling it ends the waiting.
        """
        done: Deferred[CommandResultPayload] = Deferred(lambda _: self._abandon(nonce, None))
        deadline = self._clock.callLater(timeout, self._abandon, nonce, overdue)
        self._waiting[nonce] = _Waiting(command, done, deadline)
        return done

    def answered(self, payload: CommandResultPayload) -> Deferred[CommandResultPayload] | None:
        """Who waits for `payload`; to be fired by the caller.

        A peer that names no `inReplyTo` answers in the order it was asked.
        """
        nonce = payload.in_reply_to
        if nonce is None:
            for candidate, waiting in self._waiting.items():
                if waiting.command == payload.command:
                    nonce = candidate
                    break
            else:
                return None
        found = self._waiting.pop(nonce, None)
        return found.take() if found is not None else None

    def give_up(self, error: Exception) -> None:
        """The connection is gone: fail all that wait."""
        everything, self._waiting = self._waiting, {}
        for waiting in everything.values():
            done = waiting.take()
            if done is not None:
                done.errback(error)

    def _abandon(self, nonce: str, error: Exception | None) -> None:
        waiting = self._waiting.get(nonce)
        done = waiting.take() if waiting is not None else None
        abandoned = [nonce for nonce, waiting in self._waiting.items() if waiting.done is None]
        for old in abandoned[: max(0, len(abandoned) - MAX_ABANDONED)]:
            del self._waiting[old]
        if done is not None and error is not None:
            done.errback(error)
