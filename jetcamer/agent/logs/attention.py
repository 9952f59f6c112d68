"""When each followed file is looked at.

In: files. Out: calls of a look, four times a second for a busy file, now and then for one that
was rotated away, and none at all for an idle one: a watch wakes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.agent.logs.registry import Followed, TailSettings
from jetcamer.agent.logs.watch import Watcher
from jetcamer.net.timers import RepeatingTimer

log = Logger()


class Attention:
    """
    :param look: says whether the file has changed; must not raise.
    :param turn: called before files are looked at.
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: TailSettings,
        watcher: Watcher | None,
        look: Callable[[Followed], bool],
        turn: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._watcher = watcher
        self._look = look
        self._turn = turn
        self._active: dict[Followed, Any] = {}
        self._polled: dict[Followed, Any] = {}
        self._idle: dict[Followed, int] = {}
        self._fast = RepeatingTimer(
            clock, settings.active_interval, self._look_at_active, name="[logs] look"
        )
        self._slow = RepeatingTimer(
            clock, settings.poll_interval, self._look_at_polled, name="[logs] poll"
        )
        self._said = False

    def follow(self, followed: Followed) -> None:
        """Look at it often, until it is idle."""
        self.drop(followed)
        self._active[followed] = None
        self._fast.start()

    def poll(self, followed: Followed) -> None:
        """Look at it now and then."""
        self.drop(followed)
        self._polled[followed] = None
        self._slow.start()

    def drop(self, followed: Followed) -> None:
        """Look at it no more; to be called before its file is closed."""
        fd = self._idle.pop(followed, None)
        if fd is not None and self._watcher is not None:
            self._watcher.ignore(fd)
        self._active.pop(followed, None)
        self._polled.pop(followed, None)

    def wake(self, followed: Followed) -> None:
        """It has changed: look at it now, and often from now on."""
        if followed in self._idle:
            followed.changed_at = self._clock.seconds()
            self.follow(followed)
            self._turn()
            self._look(followed)

    def is_idle(self, followed: Followed) -> bool:
        return followed in self._idle

    def stop(self) -> None:
        for followed in (*self._active, *self._polled, *self._idle):
            self.drop(followed)
        self._fast.stop()
        self._slow.stop()

    def _look_at_active(self) -> None:
        self._turn()
        over = self._clock.seconds() - self._settings.idle_after
        for followed in tuple(self._active):
            if followed not in self._active:
                continue  # a look at another had to do with it
            if not self._look(followed) and followed.changed_at <= over:
                self._rest(followed)
        if not self._active:
            self._fast.stop()

    def _look_at_polled(self) -> None:
        self._turn()
        for followed in tuple(self._polled):
            if (
                followed in self._polled
                and self._look(followed)
                and followed in self._polled
                and followed.stream.rotated_at is None
            ):
                self.follow(followed)
        if not self._polled:
            self._slow.stop()

    def _rest(self, followed: Followed) -> None:
        if followed not in self._active:
            return  # the look found it rotated away, or gone
        if not self._watch(followed):
            self.poll(followed)
            return
        # What was written before the watch was there woke nobody.
        if self._look(followed) and followed in self._idle:
            self.follow(followed)

    def _watch(self, followed: Followed) -> bool:
        if self._watcher is None:
            return False
        fd = followed.stream.source.fd
        try:
            self._watcher.watch(fd, partial(self.wake, followed))
        except OSError as error:
            if not self._said:
                self._said = True
                log.info(
                    "[logs] idle files are looked at every {interval} s, as they cannot be"
                    " watched: {why}",
                    interval=self._settings.poll_interval,
                    why=error.strerror or str(error),
                )
            return False
        del self._active[followed]
        self._idle[followed] = fd
        return True
