"""What the service manager is told: sd_notify(3), over the socket that it names.

In: the environment the process was started with. Out: single datagrams (``READY=1``,
``STATUS=…``, ``WATCHDOG=1``, ``STOPPING=1``). Without ``NOTIFY_SOCKET`` nothing is sent. Nothing
here may ever block the reactor or raise: the manager's absence is no reason to stop.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger()

#: What the manager put into the environment for this process, and not for its children.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

#: A status line is for one line of ``systemctl status``.
MAX_STATUS = 1024


class Notifier:
    """Speaks for this process. Every method is harmless where no manager listens.

    Making one takes the manager's variables out of `environ`, so that a command started later
    cannot speak in the daemon's name; with ``os.environ`` that holds for every child.
    """

    #: How often, in seconds, ``watchdog()`` is to be called; None: the manager does not ask for it.
    watchdog_interval: float | None

    def __init__(self, environ: MutableMapping[str, str], pid: int | None = None) -> None:
        """:param pid: the process the watchdog must be meant for; the current one if left out"""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._failing = False
        self.watchdog_interval = (
            None
            if self._address is None
            else _watchdog_interval(environ, os.getpid() if pid is None else pid)
        )
        for name in VARIABLES:
            environ.pop(name, None)

    def ready(self, status: str | None = None) -> None:
        """Start-up is over. Sent once, with the first status line if there is one."""
        self._send("READY=1" if status is None else f"READY=1\n{_status(status)}")

    def status(self, text: str) -> None:
        """Show `text` as one line in ``systemctl status``. No secret may be in it."""
        self._send(_status(text))

    def stopping(self) -> None:
        """Shutting down has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Still alive; to be said at least every two ``watchdog_interval``."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Give the socket back. A later call to another method opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._address is None:
            return
        try:
            if self._socket is None:
                self._socket = socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                )
            self._socket.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError as error:
            # Once for a row of failures: the watchdog alone would say it twice a minute.
            if not self._failing:
                self._failing = True
                log.warn("service manager cannot be notified: {error}", error=str(error))
        else:
            self._failing = False


class WatchdogService(Service):
    """Feeds the manager's watchdog from the reactor for as long as the service runs.

    A reactor that hangs stops feeding, and the manager restarts the process. Does nothing where
    no watchdog is asked for.
    """

    name = "watchdog"

    def __init__(self, notifier: Notifier, clock: IReactorTime) -> None:
        self._notifier = notifier
        # The body never raises, so the loop cannot die of it.
        self._loop = LoopingCall(notifier.watchdog)
        self._loop.clock = clock

    def startService(self) -> None:
        super().startService()
        if self._notifier.watchdog_interval is not None and not self._loop.running:
            self._loop.start(self._notifier.watchdog_interval)

    def stopService(self) -> None:
        if self._loop.running:
            self._loop.stop()
        super().stopService()


def _address(value: str) -> str | None:
    """The socket's address: a path, or an abstract name, which is written with ``@``."""
    if value.startswith("/"):
        return value
    if value.startswith("@") and len(value) > 1:
        return "\0" + value[1:]
    if value:
        log.warn("NOTIFY_SOCKET is neither a path nor an abstract name: ignored")
    return None


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Half of what the manager allows, in seconds (sd_watchdog_enabled(3))."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if re.fullmatch(r"0*[1-9][0-9]{0,19}", microseconds, re.ASCII) is None:
        return None
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(microseconds) / 2_000_000


def _status(text: str) -> str:
    """One assignment: a line break in `text` would begin another."""
    return "STATUS=" + " ".join(text[:MAX_STATUS].splitlines())
