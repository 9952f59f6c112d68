"""What the daemons print: lines for a person or the journal, or JSON for machines.

In: events of `twisted.logger`. Out: one line an event (a traceback follows its line). On standard
output a line begins with its own text, ``[ws] …``, because the journal adds time and host; a file
gets the time and the level first, because nothing else adds them. Never raises.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, TextIO, cast

from twisted.application.service import IServiceCollection, MultiService
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    formatTime,
)
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.daemon.visible import visible, visible_json, visible_lines

#: The values of ``--log-format``.
FORMATS = ("text", "json")

#: sd-daemon(3): the number that the journal reads in front of a line.
_PRIORITY = {
    LogLevel.debug: "<7>",
    LogLevel.info: "<6>",
    LogLevel.warn: "<4>",
    LogLevel.error: "<3>",
    LogLevel.critical: "<2>",
}

#: What Twisted says of ports, beside the lines of ours.
_OF_A_PORT = re.compile(r".+ starting on \S+|\(\w+ Port \S+ Closed\)")


@implementer(ILogObserver)
class LineObserver:
    """Writes events of level `info` and above to a text stream, one at a time, and flushes."""

    def __init__(self, stream: IO[str], style: str) -> None:
        """:param style: ``text``, ``journal``, ``file`` or ``json``"""
        self._stream = stream
        self._format = {
            "text": _plain,
            "journal": _journal,
            "file": _dated,
            "json": _json,
        }[style]

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.debug or _is_of_a_port(event):
            return
        text = self._format(event)
        if not text:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except UnicodeEncodeError:
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self._stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # The reader of our output is gone. There is nobody left to tell.
            return


def _is_of_a_port(event: LogEvent) -> bool:
    if event.get("log_namespace") != "log_legacy":
        return False
    return _OF_A_PORT.fullmatch(str(event.get("log_text"))) is not None


def _level(event: LogEvent) -> str:
    return cast(str, getattr(event.get("log_level"), "name", "info"))


def _plain(event: LogEvent) -> str:
    text = visible(formatEvent(event))
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        text += "\n" + visible_lines(failure.getTraceback().rstrip("\n"))
    return text


def _journal(event: LogEvent) -> str:
    mark = _PRIORITY.get(event.get("log_level", LogLevel.info), "<6>")
    return "\n".join(mark + line for line in _plain(event).split("\n"))


def _dated(event: LogEvent) -> str:
    text = _plain(event)
    return text and f"{formatTime(event.get('log_time'))} {_level(event):<5} {text}"


def _json(event: LogEvent) -> str:
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    record: dict[str, object] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": _level(event),
        "logger": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        record["exception"] = failure.getTraceback()
    if not record["message"] and not failure:
        return ""
    return visible_json(json.dumps(record, ensure_ascii=False))


def observer_for(
    twistd: Mapping[str, object], log_format: str, environ: Mapping[str, str], stdout: TextIO
) -> LineObserver | None:
    """The observer that ``twistd``'s own options and ours ask for together.

    None where the operator chose one of twistd's own (``--syslog``, ``--logger``).
    """
    if twistd.get("syslog") or twistd.get("logger"):
        return None
    name = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    if name != "-":
        from twisted.python.logfile import LogFile

        file = cast("IO[str]", LogFile.fromFullPath(str(name)))
        return LineObserver(file, "json" if log_format == "json" else "file")
    if log_format == "json":
        return LineObserver(stdout, "json")
    return LineObserver(stdout, "journal" if _is_journal(stdout, environ) else "text")


def _is_journal(stdout: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stdout` leads to the journal: systemd names its device and inode for this test."""
    try:
        status = os.fstat(stdout.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class DaemonService(MultiService):
    """The top service of a daemon, which brings its own log observer to ``twistd``.

    A plugin's service never meets its application but in this hook; ``twistd`` asks the
    application for an observer right after it.
    """

    observer: LineObserver | None = None

    def setServiceParent(self, parent: IServiceCollection) -> None:
        super().setServiceParent(parent)
        if self.observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)


def fail_start(words: str) -> SystemExit:
    """One line on the real standard error: why the daemon cannot start. Raise what it returns."""
    stream = sys.__stderr__ or sys.stderr
    stream.write(words.rstrip("\n") + "\n")
    stream.flush()
    return SystemExit(1)


def in_words(error: OSError | ValueError) -> str:
    """What went wrong, for a person: without the number of the error, the file's name first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def fail_later(reactor: Any, words: str) -> None:
    """The same for a daemon whose reactor runs already: one line, an end in order, status 1."""
    fail_start(words)
    # The first that is done at the interpreter's end, after everything that `twistd` does.
    atexit.register(os._exit, 1)
    reactor.stop()
