"""The agent's own warnings and errors, sent to the server as ``log`` messages.

In: events of `twisted.logger`. Out: `AgentLink.send_log`. Not forwarded: what others log in the
same process, what is logged while it sends, and what is said of a message from the server (an
event with ``local_only``), so that neither it nor a server that echoes can feed it. No more than
a few messages a minute are sent, the rest being counted.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

#: The `source` member of what is forwarded.
SOURCE = "jetcamer-agent"

#: Messages that may be forwarded in one minute.
PER_MINUTE = 30

_LEVELS = {LogLevel.warn: "warn", LogLevel.error: "error", LogLevel.critical: "error"}


@implementer(ILogObserver)
class OwnLogForwarder:
    """An observer to add to the global publisher while the agent runs.

    :param send: `AgentLink.send_log`.
    :param seconds: a clock's ``seconds``.
    """

    def __init__(
        self, send: Callable[[str, str, str | None], object], seconds: Callable[[], float]
    ) -> None:
        self._send = send
        self._seconds = seconds
        self._sending = False
        self._minute = seconds()
        self._count = 0
        self._suppressed = 0

    def __call__(self, event: LogEvent) -> None:
        level = _LEVELS.get(event.get("log_level", LogLevel.info))
        own = event.get("log_namespace", "").startswith("jetcamer.")
        if level is None or not own or event.get("local_only") or self._sending:
            return
        self._sending = True
        try:
            if self._admit():
                self._send(level, _words(event), SOURCE)
        finally:
            self._sending = False

    def _admit(self) -> bool:
        now = self._seconds()
        if now - self._minute >= 60:
            suppressed, self._suppressed = self._suppressed, 0
            self._minute, self._count = now, 0
            if suppressed:
                self._send("warn", f"… and {suppressed:,} messages more", SOURCE)
        self._count += 1
        if self._count > PER_MINUTE:
            self._suppressed += 1
            return False
        return True


def _words(event: LogEvent) -> str:
    words = formatEvent(event)
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        # The traceback stays in the journal: its lines are for the machine's own people.
        words = f"{words}: {type(failure.value).__name__}: {failure.getErrorMessage()}".lstrip(": ")
    return words
