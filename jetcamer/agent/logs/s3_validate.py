"""What ``/internal/s3-validate`` answers: a child asks S3, and the agent adds what it knows itself.

In: an `S3Question`. Out: `Findings` within 5 s whatever the network does, and the answer's members
made of them. botocore is never imported here, but in the child (`jetcamer.agent.logs.s3_check`).
Must never let a secret out: the child gets it through its standard input.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from jetcamer.agent.logs.s3_check import Findings, Keys, Line, Question
from jetcamer.agent.logs.s3_client import S3Access

#: Seconds after which the child is ended. The answer has to be there within 5 s.
CHECK_SECONDS = 4.5

#: What the child gets of the agent's environment, through its standard input.
_PREFIXES = ("AWS_", "BOTO")
_VARIABLES = {"HOME", "PATH", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE"}
_PROXIES = {"all_proxy", "http_proxy", "https_proxy", "no_proxy"}

#: Bytes of the child's output that are looked at.
_MAX_OUTPUT = 65_536


class S3Question(msgspec.Struct, frozen=True):
    """All that ``/internal/s3-validate`` has to know of the agent."""

    access: S3Access
    #: None where the machine has none.
    machine_id: str | None
    #: ``stored-credentials``, … as `CredentialFinder.credentials_type` says.
    credentials_type: str
    environ: Mapping[str, str]
    #: What the archive's last upload failed with; None when it did not.
    last_error: str | None = None
    #: Whether an upload has succeeded, and none failed since.
    uploads_work: bool = False
    #: Why nothing is archived, whatever S3 says.
    not_archived: str | None = None

    def __repr__(self) -> str:
        return f"S3Question({self.access!r}, machine_id={self.machine_id!r}, <hidden>)"


def verdict(question: S3Question, findings: Findings) -> dict[str, Any]:
    """The answer's members, of what S3 said and what the agent has seen itself."""
    errors, warnings = list(findings.errors), list(findings.warnings)
    exists = findings.bucket_exists
    if findings.code == "AccessDenied" and question.uploads_work:
        warnings += [f"uploads work, but {words}" for words in errors]
        errors = []
    if question.uploads_work and not errors and findings.code != "NoSuchBucket":
        exists = True
    if question.last_error is not None and question.last_error not in errors:
        errors.append(f"the archive does not get on: {question.last_error}")
    if question.not_archived is not None:
        warnings.append(f"nothing is archived: {question.not_archived}")
    answer: dict[str, Any] = {"valid": not errors}
    if errors:
        answer["errors"] = errors
    if warnings:
        answer["warnings"] = warnings
    if findings.region is not None:
        answer["region"] = findings.region
    answer["bucketExists"] = exists
    if question.machine_id is not None:
        answer["machineId"] = question.machine_id
    answer["credentialsType"] = question.credentials_type
    return answer


class S3Check:
    """Runs the child, one for everybody who asks the same meanwhile."""

    def __init__(
        self, reactor: Any, *, seconds: float = CHECK_SECONDS, python: str = sys.executable
    ) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._python = python
        self._children: set[_Child] = set()
        self._idle: list[Deferred[None]] = []

    def ask(self, question: S3Question) -> Deferred[Findings]:
        """Fires within the given seconds, and never fails. When all who wait have cancelled,
        the child is ended."""
        for child in self._children:
            if child.question == question and not child.over:
                return child.wait()
        child = _Child(self._reactor, self._seconds, question, self._gone)
        self._children.add(child)
        answer = child.wait()
        child.start(self._python)
        return answer

    def when_idle(self) -> Deferred[None]:
        """Fires when no child is left, also none that was ended."""
        waiter: Deferred[None] = Deferred()
        self._idle.append(waiter)
        self._tell_idle()
        return waiter

    def _gone(self, child: _Child) -> None:
        self._children.discard(child)
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self._children:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)


def _encode(question: S3Question) -> bytes:
    """The `Question` for the child, as it reads it."""
    access, stored = question.access, question.access.stored
    environment = {
        name: value
        for name, value in question.environ.items()
        if name.startswith(_PREFIXES) or name in _VARIABLES or name.lower() in _PROXIES
    }
    asked = Question(
        bucket=access.bucket,
        region=access.region,
        endpoint=access.endpoint,
        stored=None if stored is None else Keys(stored.access_key_id, stored.secret_access_key),
        prefix=f"{question.machine_id}/" if question.machine_id else "",
        environment={name: value for name, value in environment.items() if _is_text(name + value)},
    )
    return msgspec.json.encode(asked)


def _is_text(value: str) -> bool:
    """A variable may hold bytes that are not; botocore could do nothing with them."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Child(ProcessProtocol):
    """One running check, and all who wait for it."""

    def __init__(
        self,
        reactor: Any,
        seconds: float,
        question: S3Question,
        gone: Callable[[_Child], None],
    ) -> None:
        self.question = question
        self.over = False
        self.pid = 0
        self._reactor = reactor
        self._seconds = seconds
        self._gone = gone
        self._waiters: list[Deferred[Findings]] = []
        self._output = b""
        self._exited = False
        self._deadline: Any = None

    def wait(self) -> Deferred[Findings]:
        waiter: Deferred[Findings] = Deferred(self._leave)
        self._waiters.append(waiter)
        return waiter

    def start(self, python: str) -> None:
        self._deadline = self._reactor.callLater(self._seconds, self._too_late)
        environment = {
            "LANG": "C.UTF-8",
            "PATH": os.environ.get("PATH", os.defpath),
            # What we can import it can, however this process came to its modules.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        argv = [python, "-P", "-m", "jetcamer.agent.logs.s3_check"]
        try:
            question = _encode(self.question)
            with open(os.devnull, "wb") as nowhere:
                transport = self._reactor.spawnProcess(
                    self,
                    python,
                    argv,
                    environment,
                    path="/",
                    childFDs={0: "w", 1: "r", 2: nowhere.fileno()},
                )
        except (OSError, ValueError) as error:
            # A ValueError carries what it could not encode.
            words = error.strerror if isinstance(error, OSError) else "a setting is not UTF-8 text"
            self._finish(self._failed(f"the check cannot be started: {words}"))
            self._gone(self)
            return
        transport.write(question)
        transport.closeStdin()

    # ProcessProtocol

    def makeConnection(self, transport: Any) -> None:
        self.pid = transport.pid
        super().makeConnection(transport)

    def outReceived(self, data: bytes) -> None:
        if len(self._output) < _MAX_OUTPUT:
            self._output += data

    def processExited(self, reason: Failure) -> None:
        self._exited = True

    def processEnded(self, reason: Failure) -> None:
        self._exited = True
        findings = self._last().findings
        if findings is None:
            status = getattr(reason.value, "exitCode", None)
            number = getattr(reason.value, "signal", None)
            how = f"exit status {status}" if number is None else f"signal {number}"
            findings = self._failed(f"the check itself ended without a result ({how})")
        self._finish(findings)
        self._gone(self)

    def _last(self) -> Line:
        """The newest whole line that the child has printed."""
        lines = self._output.split(b"\n")[:-1]
        with suppress(ValueError, IndexError):
            return msgspec.json.decode(lines[-1], type=Line)
        return Line()

    def _too_late(self) -> None:
        last = self._last()
        waiting = last.waiting or "the check did not begin"
        words = f"{waiting} within {self._seconds:g} s"
        self._finish(last.findings or self._failed(words))
        self._kill()

    def _failed(self, words: str) -> Findings:
        return Findings(errors=(words,), region=self.question.access.region_name)

    def _leave(self, waiter: Deferred[Findings]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if not self._waiters and not self.over:
            self._finish(Findings())
            self._kill()

    def _finish(self, findings: Findings) -> None:
        if self.over:
            return
        self.over = True
        if self._deadline.active():
            self._deadline.cancel()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(findings)

    def _kill(self) -> None:
        """The child, and what it may have started to hand it credentials."""
        if not self._exited:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self.transport is not None:
            self.transport.loseConnection()
