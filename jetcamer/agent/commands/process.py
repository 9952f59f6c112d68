"""Child processes: one program, its output, its end.

In: an argument vector. Out: what it printed and how it ended. Never a shell, never a thread, never
a zombie, and nothing of the agent's own environment but `KEPT_VARIABLES`.

Each program leads a session and process group of its own, so that ending it ends what it started;
a daemon that left the group on purpose is let live. Twisted cannot ask for a session, so
the program is started by setsid(1), which replaces itself: the pid is the program's, and the
group's number.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.commands.interfaces import CommandOutcome
from jetcamer.agent.commands.output import OutputReader
from jetcamer.net.timers import Timer

log = Logger()

#: What a child gets of the agent's environment, beside ``LANG=C.UTF-8``.
KEPT_VARIABLES = ("PATH", "HOME")

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Seconds from SIGTERM to SIGKILL.
KILL_AFTER = 2.0

#: Seconds after SIGKILL at which a process that cannot be killed is left alone.
ABANDON_AFTER = 0.5

#: Seconds that output may stay open after the program has ended: a child of it holds it.
OUTPUT_GRACE = 0.25

_POLL = 0.05


class SpawnError(Exception):
    """The program was not started; the text says why, in one line."""


class ProcessResult(msgspec.Struct, frozen=True):
    """How a program ended and what it printed."""

    output: str
    truncated_bytes: int
    duration: float
    """Seconds."""
    exit_status: int | None
    signal: str | None
    """For example ``SIGKILL``. Both are None for a process that could not be ended."""

    def outcome(self) -> CommandOutcome:
        """As the answer to a command: an error unless the exit status is 0."""
        details: dict[str, Any] = {}
        if self.exit_status is not None:
            details["exitStatus"] = self.exit_status
            error = f"exit status {self.exit_status}" if self.exit_status else ""
        elif self.signal is not None:
            details["signal"] = self.signal
            error = f"ended by {self.signal}"
        else:
            error = "the process could not be ended"
        if self.truncated_bytes:
            details["truncatedBytes"] = self.truncated_bytes
        details["durationMs"] = round(self.duration * 1000)
        return CommandOutcome(result=self.output, error=error, details=details)


class ProcessRunner:
    """Runs programs: standard input empty, both outputs in one, in ``/``.

    :param reactor: provides IReactorProcess, IReactorTime and IReactorFDSet.
    :param environ: the agent's environment; see `KEPT_VARIABLES`.
    """

    def __init__(self, reactor: Any, environ: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._environment = {name: environ[name] for name in KEPT_VARIABLES if name in environ}
        self._environment.setdefault("PATH", DEFAULT_PATH)
        self._environment["LANG"] = "C.UTF-8"

    async def run(
        self, argv: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> ProcessResult:
        """Run `argv`, with variables of `environment` added, until it has ended.

        Cancelling sends SIGTERM to the process group, and SIGKILL `KILL_AFTER` seconds later or
        when cancelled again; the result comes all the same, once the group is gone.

        :raises SpawnError: names the program.
        """
        program = self._find(argv[0])
        process = _Process(self._reactor)
        process.start(
            [self._find("setsid"), program, *argv[1:]],
            {**self._environment, **(environment or {})},
            program,
        )
        while not process.over:
            try:
                await process.when_over()
            except CancelledError:
                process.end()
        return process.result()

    def _find(self, program: str) -> str:
        path = self._environment["PATH"]
        found = shutil.which(program, path=path)
        if found is not None and os.path.isabs(found):
            return found
        if os.path.isabs(program):
            if os.path.exists(program):
                raise SpawnError(f"{program} may not be executed")
            raise SpawnError(f"{program} does not exist")
        raise SpawnError(f"the program {program} is not in {path}")


class _Process(ProcessProtocol):
    """One running program, from its start until it is over."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._output = OutputReader(reactor, self._check)
        self._started = reactor.seconds()
        self._pid = 0
        self._program = ""
        self._ended: Any = None  # what Twisted says of the exit: exitCode and signal
        self._signals: list[int] = []
        self._timer = Timer(reactor)
        self._poll = Timer(reactor)
        self._waiter: Deferred[None] | None = None
        self._duration = 0.0
        self.over = False

    def start(self, argv: list[str], environment: Mapping[str, str], program: str) -> None:
        """:raises SpawnError: the system refused."""
        self._program = program
        try:
            with open(os.devnull, "rb") as nothing:
                read, write = os.pipe()
                try:
                    self._reactor.spawnProcess(
                        self,
                        argv[0],
                        [os.fsencode(item) for item in argv],
                        {os.fsencode(name): os.fsencode(environment[name]) for name in environment},
                        path="/",
                        childFDs={0: nothing.fileno(), 1: write, 2: write},
                    )
                except BaseException:
                    os.close(read)
                    raise
                finally:
                    os.close(write)
        except OSError as error:
            raise SpawnError(f"{program} cannot be started: {error.strerror}") from error
        self._output.open(read)

    def makeConnection(self, transport: Any) -> None:
        # Known this early because the exit may be reported before spawnProcess returns.
        self._pid = transport.pid
        super().makeConnection(transport)

    def when_over(self) -> Deferred[None]:
        self._waiter = Deferred()
        return self._waiter

    def end(self) -> None:
        """SIGTERM to the group the first time, SIGKILL the second."""
        if not self._signals:
            self._send(signal.SIGTERM)
            self._timer.start(KILL_AFTER, self.end)
            self._poll.start(_POLL, self._look)
        elif signal.SIGKILL not in self._signals:
            self._send(signal.SIGKILL)
            self._timer.start(ABANDON_AFTER, self._look_last)

    def processEnded(self, reason: Failure) -> None:
        self._ended = reason.value
        if not self._signals:
            self._timer.start(OUTPUT_GRACE, self._output.close)
        self._output.hurry()
        self._check()

    def result(self) -> ProcessResult:
        status = getattr(self._ended, "exitCode", None)
        number = getattr(self._ended, "signal", None)
        text, truncated = self._output.text()
        return ProcessResult(
            output=text,
            truncated_bytes=truncated,
            duration=self._duration,
            exit_status=status if number is None else None,
            signal=None if number is None else _signal_name(number),
        )

    def _check(self) -> None:
        """Is there anything left to wait for?"""
        if self.over or self._ended is None:
            return
        if self._signals:
            if self._group_lives():
                return
        elif self._output.is_open:
            return
        self._finish()

    def _finish(self) -> None:
        self.over = True
        self._duration = self._reactor.seconds() - self._started
        self._output.close()
        self._timer.stop()
        self._poll.stop()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _look(self) -> None:
        """Nobody says when the last of a group ends."""
        self._poll.start(_POLL, self._look)
        self._check()

    def _look_last(self) -> None:
        """On a busy machine the news of the exit may be waiting behind this very call."""
        self._timer.start(_POLL, self._abandon)

    def _abandon(self) -> None:
        if self._ended is None:
            log.warn(
                "[ws] {program} (process {pid}) could not be ended",
                program=self._program,
                pid=self._pid,
            )
        self._finish()

    def _group_lives(self) -> bool:
        if self._ended is None:
            return True
        # Were there a process of that number, it would be a stranger's: ours is reaped, and
        # the number goes to nobody else while the group has a member.
        return not _exists(os.kill, self._pid) and _has_running_member(self._pid)

    def _send(self, number: int) -> None:
        self._signals.append(number)
        if not self._group_lives():
            return
        try:
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:
                if self._ended is None:  # it has not come to make its group yet
                    os.kill(self._pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            log.warn("[ws] no permission to end {program}", program=self._program)


def _exists(kill: Any, number: int) -> bool:
    try:
        kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _has_running_member(group: int) -> bool:
    """Zombies do not count: whoever adopted them may never reap them (a container's init)."""
    if not _exists(os.killpg, group):
        return False
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it ended meanwhile
            if os.getpgid(int(name)) == group:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                    state = stat.read().rpartition(")")[2].split()[0]
                if state not in "ZX":
                    return True
    return False


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
