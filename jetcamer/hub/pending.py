"""The commands of one connection that have yet to be answered.

In: nonces of commands as they are sent, results as they come. Out: to which command a result
belongs. Never holds more than `MAX_ABANDONED` commands that nobody waits for, and none of them for
long: an answer that was lost must not be taken for the next one for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from jetcamer.protocol.envelope import CommandResultPayload
from jetcamer.protocol.errors import ProtocolError
from jetcamer.protocol.parsing import parse

#: Commands of one agent that nobody waits for any more but whose answers may still come.
MAX_ABANDONED = 64
#: For how long after their deadline. Seconds.
LATE_SECONDS = 60.0

#: Who hears an answer.
Receiver = Callable[[CommandResultPayload], object]


class _Waiting:
    """A command that was sent, and who waits for its answer."""

    __slots__ = ("command", "deadline", "done", "late", "until")

    def __init__(
        self,
        command: str,
        done: Deferred[CommandResultPayload],
        deadline: IDelayedCall,
        until: float,
        late: Receiver | None,
    ) -> None:
        self.command = command
        self.deadline = deadline
        #: When it is forgotten, on the reactor's clock.
        self.until = until
        #: Hears an answer that comes after the deadline.
        self.late = late
        #: None once nobody waits: the answer of a peer that answers in order still counts.
        self.done: Deferred[CommandResultPayload] | None = done

    def take(self) -> Deferred[CommandResultPayload] | None:
        done, self.done = self.done, None
        if self.deadline.active():
            self.deadline.cancel()
        return done


class PendingCommands:
    """In the order in which they were sent.

    :param unreadable: makes the error of a command whose answer cannot be read.
    """

    def __init__(self, clock: IReactorTime, unreadable: Callable[[str], Exception]) -> None:
        self._clock = clock
        self._unreadable = unreadable
        self._waiting: dict[str, _Waiting] = {}

    def add(
        self,
        nonce: str,
        command: str,
        timeout: float,
        overdue: Exception,
        late: Receiver | None = None,
    ) -> Deferred[CommandResultPayload]:
        """Wait for the answer of a command just sent; fails with `overdue` after `timeout` seconds.

        Cancelling it ends the waiting.

        :param late: is given an answer that comes after that all the same.
        """
        self._forget()
        done: Deferred[CommandResultPayload] = Deferred(lambda _: self._abandon(nonce, None))
        deadline = self._clock.callLater(timeout, self._abandon, nonce, overdue)
        until = self._clock.seconds() + timeout + LATE_SECONDS
        self._waiting[nonce] = _Waiting(command, done, deadline, until, late)
        return done

    def answered(self, payload: CommandResultPayload) -> Receiver | None:
        """Who waits for `payload`; to be called by the caller.

        A peer that names no `inReplyTo` answers in the order it was asked.
        """
        found = self._take(payload.command, payload.in_reply_to)
        if found is None:
            return None
        done = found.take()
        return found.late if done is None else done.callback

    def unreadable(self, payload: bytes) -> None:
        """An answer came that is none: the command that it can be seen to belong to is over."""
        try:
            answer = parse(bytes(payload))
        except ProtocolError:
            return
        if not isinstance(answer, dict):
            return
        nonce = answer.get("inReplyTo")
        found = self._take(answer.get("command"), nonce if isinstance(nonce, str) else None)
        done = None if found is None else found.take()
        if found is not None and done is not None:
            done.errback(self._unreadable(found.command))

    def _take(self, command: object, nonce: str | None) -> _Waiting | None:
        """Whose answer this is; it waits no more."""
        self._forget()
        if nonce is None:
            for candidate, waiting in self._waiting.items():
                if waiting.command == command:
                    nonce = candidate
                    break
            else:
                return None
        return self._waiting.pop(nonce, None)

    def _forget(self) -> None:
        """Those whose answers would have come by now."""
        now = self._clock.seconds()
        for nonce in [
            nonce
            for nonce, waiting in self._waiting.items()
            if waiting.done is None and waiting.until <= now
        ]:
            del self._waiting[nonce]

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
        if waiting is not None and error is None:
            waiting.late = None  # nobody wants to know
        abandoned = [nonce for nonce, waiting in self._waiting.items() if waiting.done is None]
        for old in abandoned[: max(0, len(abandoned) - MAX_ABANDONED)]:
            del self._waiting[old]
        if done is not None and error is not None:
            done.errback(error)
