"""What the code under test logs, as the lines a person would read."""

from __future__ import annotations

from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase


class CapturedLogs:
    """An observer that remembers formatted lines, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.events.append(event)
        self.lines.append(formatEvent(event))


class LogsMixin(SynchronousTestCase):
    """`capture_logs` and `assertLogged` for a test case."""

    def capture_logs(self) -> CapturedLogs:
        captured = CapturedLogs()
        globalLogPublisher.addObserver(captured)
        self.addCleanup(globalLogPublisher.removeObserver, captured)
        return captured

    def assertLogged(self, captured: CapturedLogs, prefix: str) -> str:
        """Some line begins with `prefix`; returns it."""
        for line in captured.lines:
            if line.startswith(prefix):
                return line
        raise self.failureException(f"no line {prefix!r} in {captured.lines!r}")
