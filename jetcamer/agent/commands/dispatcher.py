"""Runs commands, a few at a time, each with a deadline.

In: the name, the arguments and the nonce of a command message that has been verified. Out: the
payload of its ``command_result``, always. It checks no signature and remembers no nonce: that a
nonce does not run twice is the business of the link's `ReplayGuard`, which outlives connections.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from jetcamer.agent.commands.interfaces import CommandOutcome, ICommand
from jetcamer.agent.commands.process import KILL_AFTER, SpawnError
from jetcamer.agent.commands.registry import CommandRegistry
from jetcamer.net.errors import printable
from jetcamer.net.timers import Timer
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.errors import ProtocolError

log = Logger()

#: Characters of a result and bytes of its details: a message is at most 1 MiB, and a control
#: character takes six bytes of it.
MAX_RESULT = 100_000
MAX_DETAILS = 262_144
MAX_ERROR = 1_000

#: Seconds from the second cancellation until a command is no longer waited for.
GIVE_UP_AFTER = 1.0

#: The same, and seconds from SIGTERM to SIGKILL, when the agent stops; it has little time.
STOP_GIVE_UP_AFTER = 0.25
STOP_KILL_AFTER = 0.5

STOPPING = "the agent is stopping"


class _Job:
    """One command, from its arrival to its answer."""

    def __init__(
        self, name: str, command: ICommand, args: Mapping[str, str], nonce: str, clock: IReactorTime
    ) -> None:
        self.name = name
        self.command = command
        self.args = dict(args)
        self.nonce = nonce
        self.answer: Deferred[dict[str, Any]] = Deferred()
        self.work: Deferred[CommandOutcome] | None = None
        self.timer = Timer(clock)
        self.started = 0.0
        self.cancelled_for = ""
        self.timed_out = False
        self.over = False


class CommandDispatcher:
    """See the module's text.

    :param timeout: seconds a command may run that does not say otherwise.
    """

    def __init__(
        self,
        clock: IReactorTime,
        registry: CommandRegistry,
        timeout: float = 30.0,
        max_running: int = 4,
        max_waiting: int = 32,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._timeout = timeout
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._running: set[_Job] = set()
        self._waiting: deque[_Job] = deque()
        self._stopping = False
        self._stopped: list[Deferred[None]] = []

    def submit(self, command: str, args: Mapping[str, str], nonce: str) -> Deferred[dict[str, Any]]:
        """Run `command`, at once or when it is its turn.

        :returns: fires with a whole ``command_result`` payload, and never fails.
        """
        found = self._registry.get(command)
        if found is None:
            log.warn("[ws] unknown command: {command}", command=printable(command, 64))
            unknown = CommandOutcome(result="unknown_command", error="command not recognized")
            return succeed(_payload(command[:256], unknown, nonce))
        if self._stopping:
            return succeed(_payload(command, CommandOutcome(error=STOPPING), nonce))
        job = _Job(command, found, args, nonce, self._clock)
        if len(self._running) < self._max_running:
            self._start(job)
        elif len(self._waiting) < self._max_waiting:
            self._waiting.append(job)
        else:
            log.warn("[ws] command refused: {command}: busy", command=command)
            return succeed(_payload(command, CommandOutcome(error="busy"), nonce))
        return job.answer

    def start(self) -> None:
        """Take commands again after `stop`."""
        self._stopping = False

    def stop(self) -> Deferred[None]:
        """Answer what waits, cancel what runs; fires when no command runs any more.

        That takes `STOP_KILL_AFTER` + `STOP_GIVE_UP_AFTER` seconds at the most.
        """
        self._stopping = True
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        while self._waiting:
            job = self._waiting.popleft()
            job.answer.callback(_payload(job.name, CommandOutcome(error=STOPPING), job.nonce))
        for job in list(self._running):
            self._cancel(job, STOPPING, STOP_KILL_AFTER)
        self._check_stopped()
        return stopped

    def _start(self, job: _Job) -> None:
        log.info("[ws] executing command: {command}", command=job.name)
        self._running.add(job)
        job.started = self._clock.seconds()
        timeout = getattr(job.command, "timeout_seconds", None) or self._timeout
        job.timer.start(timeout, self._expire, job, timeout)
        job.work = Deferred.fromCoroutine(_run(job.command, job.args))
        job.work.addErrback(self._failed, job)
        job.work.addCallback(self._finish, job)

    def _expire(self, job: _Job, timeout: float) -> None:
        job.timed_out = True
        self._cancel(job, f"timed out after {timeout:g} s", KILL_AFTER)

    def _cancel(self, job: _Job, why: str, patience: float) -> None:
        """Cancel, and again after `patience`: a process is then killed."""
        job.cancelled_for = job.cancelled_for or why
        job.timer.start(patience, self._insist, job)
        _cancel_work(job)

    def _insist(self, job: _Job) -> None:
        patience = STOP_GIVE_UP_AFTER if self._stopping else GIVE_UP_AFTER
        job.timer.start(patience, self._give_up, job)
        _cancel_work(job)

    def _give_up(self, job: _Job) -> None:
        log.warn("[ws] command {command} goes on although it was cancelled", command=job.name)
        self._finish(CommandOutcome(), job)

    def _failed(self, failure: Failure, job: _Job) -> CommandOutcome:
        if job.cancelled_for and failure.check(CancelledError):
            return CommandOutcome()
        if not failure.check(SpawnError):
            log.failure("[ws] command {command} failed", failure, command=job.name)
        return CommandOutcome(error=_error_words(failure))

    def _finish(self, outcome: CommandOutcome, job: _Job) -> None:
        if job.over:
            return
        job.over = True
        job.timer.stop()
        self._running.discard(job)
        if job.cancelled_for:
            details = {**(outcome.details or {}), **({"timedOut": True} if job.timed_out else {})}
            outcome = CommandOutcome(outcome.result, job.cancelled_for, details)
        words = outcome.error or (getattr(job.command, "shows_result", False) and outcome.result)
        log.info(
            "[ws] command result: {command}: {words} ({seconds:.3f} s)",
            command=job.name,
            words=printable(words or "ok", MAX_ERROR),
            seconds=self._clock.seconds() - job.started,
        )
        if self._waiting:
            self._start(self._waiting.popleft())
        job.answer.callback(_payload(job.name, outcome, job.nonce))
        self._check_stopped()

    def _check_stopped(self) -> None:
        if self._stopping and not self._running:
            stopped, self._stopped = self._stopped, []
            for waiter in stopped:
                waiter.callback(None)


async def _run(command: ICommand, args: Mapping[str, str]) -> CommandOutcome:
    """:raises TypeError: the command answered with something else than `ICommand` allows."""
    answer = command.run(args)
    if isinstance(answer, Awaitable):
        answer = await answer
    return _checked(CommandOutcome(result=answer) if isinstance(answer, str) else answer)


def _checked(outcome: object) -> CommandOutcome:
    """What may be sent: of the right types, in JSON, and of a size that fits a message."""
    if not isinstance(outcome, CommandOutcome):
        raise TypeError(f"the command returned {type(outcome).__name__}")
    if not isinstance(outcome.result, str) or not isinstance(outcome.error, str):
        raise TypeError("result and error must be text")
    details = outcome.details
    if details is not None:
        if not isinstance(details, dict):
            raise TypeError("details must be a dict")
        try:
            # As deep as it will be in the message, whose nesting has a limit.
            size = len(canonical({"payload": {"details": details}}))
        except ProtocolError as error:
            raise TypeError(f"details cannot be written as JSON: {error}") from None
        if size > MAX_DETAILS:
            raise ValueError(f"details take {size} bytes, more than {MAX_DETAILS}")
    return CommandOutcome(_cut(outcome.result, MAX_RESULT), _cut(outcome.error, MAX_ERROR), details)


def _payload(name: str, outcome: CommandOutcome, nonce: str) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "command": name,
        "result": outcome.result,
        "error": outcome.error,
    }
    if nonce:
        payload["inReplyTo"] = nonce
    if outcome.details:
        payload["details"] = outcome.details
    return payload


def _cancel_work(job: _Job) -> None:
    if job.work is not None:
        job.work.cancel()


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}\n[{len(text) - limit} more were cut]"


def _error_words(failure: Failure) -> str:
    error = failure.value
    first = next(iter(safe_str(error).splitlines()), "")
    if isinstance(error, SpawnError):
        return first
    name = type(error).__name__
    return _cut(f"{name}: {first}" if first else name, MAX_ERROR)
