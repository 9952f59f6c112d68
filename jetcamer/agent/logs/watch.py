"""Waking up when an idle file changes.

In: file descriptors. Out: one call for each that changed. Must never keep a watch on a file
descriptor that is being closed: `FileWatcher.ignore` comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()

#: The watch descriptor of "events were lost", as it is read: -1.
OVERFLOW = 0xFFFFFFFF


class Watcher(Protocol):
    def watch(self, fd: int, changed: Callable[[], None]) -> None:
        """Call `changed` once when the open file is written, renamed, deleted or given other
        rights; the watch is over then. Raises ``OSError`` where it cannot be watched."""

    def ignore(self, fd: int) -> None:
        """End a watch, if there is one."""

    def stop(self) -> None:
        """End them all."""


class FileWatcher:
    """By inotify, which is set up at the first use.

    A watch is on the open file, whatever its name is by then. It ends with its first event, so
    that a busy file causes one and not a thousand a second.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._notifier: Any = None
        self._changed: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, changed: Callable[[], None]) -> None:
        try:
            from twisted.internet import inotify
        except ImportError as error:
            raise OSError(0, f"inotify: {error}") from None
        mask = inotify.IN_MODIFY | inotify.IN_ATTRIB | inotify.IN_MOVE_SELF
        try:
            if self._notifier is None:
                self._notifier = _start(self._reactor, self._lost)
            self._notifier.watch(_place(fd), mask, callbacks=[partial(self._event, fd)])
        except inotify.INotifyError as error:
            raise OSError(0, f"inotify: {error}; see fs.inotify in sysctl") from None
        self._changed[fd] = changed

    def ignore(self, fd: int) -> None:
        if self._changed.pop(fd, None) is not None:
            self._notifier.ignore(_place(fd))

    def stop(self) -> None:
        self._changed.clear()
        notifier, self._notifier = self._notifier, None
        if notifier is not None:
            notifier.connectionLost(Failure(ConnectionDone()))

    def _event(self, fd: int, watch: object, path: object, mask: int) -> None:
        from twisted.internet.inotify import IN_DELETE_SELF

        if mask & IN_DELETE_SELF:
            return  # INotify removes the watch itself and gives up: then comes `_lost`
        changed = self._changed.get(fd)
        if changed is not None:
            self.ignore(fd)
            _call(changed)

    def _lost(self, over: bool) -> None:
        """Events were lost, or, if `over`, all is: whoever waits has to look."""
        waiting = dict(self._changed)
        if over:
            self._changed.clear()
            self._notifier = None
        for fd, changed in waiting.items():
            self.ignore(fd)
            _call(changed)


def _start(reactor: Any, lost: Callable[[bool], None]) -> Any:
    from twisted.internet import inotify

    class Notifier(inotify.INotify):
        def connectionLost(self, reason: Failure) -> None:
            if self._fd >= 0:  # else it comes twice, and the number may be another's by now
                super().connectionLost(reason)
                self._fd = -1
                lost(True)

    notifier = Notifier(reactor)
    # INotify skips an event that belongs to no watch, and this one is of that kind.
    notifier._watchpoints[OVERFLOW] = inotify._Watch(
        _place(notifier.fileno()), 0, callbacks=[lambda *event: lost(False)]
    )
    notifier.startReading()
    return notifier


def _place(fd: int) -> Any:
    from twisted.python.filepath import FilePath

    return FilePath(f"/proc/self/fd/{fd}")


def _call(changed: Callable[[], None]) -> None:
    try:
        changed()
    except Exception:
        log.failure("[logs] a changed file could not be looked at")
