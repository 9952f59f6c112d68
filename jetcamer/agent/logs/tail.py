"""Which files are followed, and from where.

In: patterns, and what the last checkpoint says. Out: `Stream` objects for the takers, told of when
they are opened, have more, and are closed. Reads no line itself, only heads. Must never follow
a file twice, nor lose one for another's sake: an error concerns its file alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Mapping, Sequence

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.agent.logs import positions
from jetcamer.agent.logs.checkpoint import Checkpoint, PathState, StreamState
from jetcamer.agent.logs.discovery import Discovery, RefusedError, open_log
from jetcamer.agent.logs.folders import Folders
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.life import Life
from jetcamer.agent.logs.registry import EARLIER, Registry, Say, TailSettings, Taker, unheard
from jetcamer.agent.logs.restoring import Restorer
from jetcamer.agent.logs.rotation import (
    MIN_HEAD,
    File,
    Key,
    PathHistory,
    describe,
    is_rotated_path,
    real_path,
)
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.stream import Stream
from jetcamer.agent.logs.watch import Watcher
from jetcamer.daemon.limits import raise_file_limit
from jetcamer.net.timers import RepeatingTimer, Timer

__all__ = ["Tail", "TailSettings", "Taker"]

log = Logger()

#: `PathState.start` of what could not even be looked at: all that is there when it can be.
UNSEEN = -1

#: File descriptors that are left for other things than log files.
OTHER_FILES = 128

CURE = "; the agent's user has to be in the group that may, on Debian: adm"


class Tail:
    """See the module.

    :param takers: the archive's is one of them if, and only if, `archive` is set; it may come
        later, see `add_archive`.
    :param ledgers: by path; those of new paths are added.
    :param changed: called when `state` would differ for another reason than a taker's progress.
    :param defaults: nobody asked for these patterns: no word where they name nothing.
    :param say: told of what is lost.
    :param now: Unix seconds, which the file system's are compared with.
    """

    def __init__(
        self,
        clock: IReactorTime,
        patterns: Sequence[str],
        *,
        takers: Sequence[Taker],
        archive: bool,
        ledgers: dict[str, Ledger],
        restored: Checkpoint | None,
        changed: Callable[[], None],
        spool: Spool,
        watcher: Watcher | None,
        defaults: bool,
        say: Say = unheard,
        settings: TailSettings = TailSettings(),  # noqa: B008 - it is frozen
        now: Callable[[], float] = time.time,
    ) -> None:
        restored = restored or Checkpoint()
        self._paths = restored.paths
        self._changed = changed
        self._spool = spool
        self._watcher = watcher
        self._defaults = defaults
        self._max_files = settings.max_files
        self._registry = Registry(takers, ledgers, changed, say)
        self._folders = Folders(now)
        self._life = Life(
            clock,
            self._registry,
            spool,
            watcher,
            self._folders,
            settings,
            archive=archive,
            now=now,
            admit=self._admit_successor,
        )
        self._opener = self._life.opener
        self._restorer = Restorer(self._registry, self._opener, self._folders, restored.streams)
        self._discovery = Discovery(patterns, now=now)
        self._found: Mapping[str, str] = {}
        self._scanned = set(restored.patterns)
        self._timer = RepeatingTimer(clock, settings.scan_interval, self._scan, name="[logs] scan")
        #: Paths that are not read, and why.
        self.ignored: dict[str, str] = {}
        #: Files that are not followed because there are too many.
        self.refused = 0
        #: Paths and folders that could not be looked at so far.
        self._unseen: set[str] = set()
        #: Found files that are none of their own: paths to what lay there.
        self._skipped: dict[str, Key] = {}
        #: Found files that may become copies; they are looked at once more.
        self._young: set[str] = set()
        self._check_timer = Timer(clock)
        self._to_check: set[str] = set()

    @property
    def streams(self) -> Mapping[str, Stream]:
        """Those that are open, by their ids."""
        return self._registry.streams

    @property
    def patterns(self) -> tuple[str, ...]:
        """Those that were looked for; to be kept in the checkpoint."""
        return tuple(pattern for pattern in self._discovery.patterns if pattern in self._scanned)

    def start(self) -> None:
        """Open what there is; the takers hear of it before this returns."""
        self._opener.max_open = min(self._opener.max_open, raise_file_limit() - OTHER_FILES)
        paths, self._paths = self._paths, {}
        self._sweep(known_by=paths)
        for path, state in paths.items():
            if state.start == UNSEEN:
                self._unseen.add(path)
            else:
                ledger = self._registry.ledgers.setdefault(path, state.ledger)
                self._registry.histories[path] = PathHistory(ledger, state)
        self._scan()
        if not self._defaults:
            for pattern in set(self._discovery.patterns).difference(self._found.values()):
                log.warn("[logs] {pattern}: there is no such file yet", pattern=pattern)
        self._timer.start()

    def _sweep(self, known_by: Mapping[str, PathState]) -> None:
        """Empty the spool of the streams that are over. A checkpoint that names no path is none:
        then it is lost what was kept."""
        before = self._spool.used
        self._spool.sweep([state.id for state in self._restorer.waiting])
        size = before - self._spool.used
        if size and not known_by:
            why = "no checkpoint says what the rest of a deleted file in the spool belongs to"
            self._registry.lose(self._registry.history(EARLIER).ledger, EARLIER, size, why)
            self._changed()

    def stop(self) -> None:
        """Close every file; the takers are not told."""
        self._timer.stop()
        self._check_timer.stop()
        self._life.stop()
        if self._watcher is not None:
            self._watcher.stop()

    def add_archive(self, taker: Taker) -> None:
        """There is an archive from now on. It goes on where the last checkpoint left it, or
        begins with what the live taker has not read."""
        self._opener.archive = True
        for followed in self._registry.followed.values():
            stream = followed.stream
            gone = positions.resume_archive(stream, followed.parked)
            why = "they are no longer in the file"
            self._registry.give_up(stream.ledger, stream.path, gone, why)
            followed.parked = None
            followed.safe = followed.noted = min(stream.archived, stream.live_settled)
        self._registry.add_taker(taker)

    def check(self, stream: Stream) -> None:
        """A taker noticed that the content is not what it was: look, in a moment."""
        self._to_check.add(stream.id)
        self._check_timer.start(0, self._look_at_checked)

    def _look_at_checked(self) -> None:
        while self._to_check:
            followed = self._registry.followed.get(self._to_check.pop())
            if followed is not None:
                self._life.look_closer(followed)

    def state(self) -> tuple[tuple[StreamState, ...], dict[str, PathState]]:
        """For the checkpoint that is being written: of each two calls, the first one's is taken
        to be on disk."""
        states = []
        for followed in self._registry.followed.values():
            state = followed.stream.state()
            if (parked := followed.parked) is not None:
                state = msgspec.structs.replace(
                    state, archive=parked.archive, batches=parked.batches
                )
            states.append(state)
        self._registry.note()
        paths = {path: history.state() for path, history in self._registry.histories.items()}
        for path in self._unseen:
            paths.setdefault(path, PathState(start=UNSEEN))
        return (*states, *self._restorer.waiting), paths

    # Searching

    def _scan(self) -> None:
        self._folders.new_turn()
        self._folders.forget_unused()
        self._opener.begin_scan()
        try:
            self._search()
        finally:
            self._opener.end_scan()

    def _search(self) -> None:
        self._found = self._opener.found = self._discovery.look()
        unseen, self._unseen = self._unseen, set(self._discovery.unlisted)
        if self._scanned.issuperset(self._discovery.patterns):
            self._unseen &= unseen  # others were listed before
        ignored = dict.fromkeys(self._discovery.misnamed, "its name is not UTF-8")
        for folder, why in self._discovery.unlisted.items():
            ignored[folder] = f"cannot be listed: {why}{CURE}"
        unreadable = self._restorer.restore() if self._restorer.waiting else {}
        for path, error in unreadable.items():
            ignored[path] = _why(error)
        self._life.look_around()
        refused = 0
        for path in self._found:
            if path in unreadable:
                continue
            if self._discovery.is_steady(path) and self._life.is_followed(path, None):
                continue
            try:
                status = os.stat(path)
                if not self._life.is_followed(path, status):
                    self._adopt_before(path)
                    refused += not self._admit(path, status, unseen)
            except FileNotFoundError:
                continue
            except RefusedError as error:
                ignored[path] = str(error)
            except OSError as error:
                ignored[path] = _why(error)
                if path not in self._registry.histories and self._is_first_sight(path, unseen):
                    self._unseen.add(path)
        self._say(ignored, refused)
        if self._unseen != unseen or not self._scanned.issuperset(self._discovery.patterns):
            self._scanned.update(self._discovery.patterns)
            self._changed()
        self._registry.forget_gone(self._found)

    def _adopt_before(self, path: str) -> None:
        """A file has come back: maybe others came and went before it."""
        history = self._registry.histories.get(path)
        if history is not None and history.start is None and path not in self._skipped:
            self._opener.adopt(path, history)

    def _is_first_sight(self, path: str, unseen: Container[str]) -> bool:
        """Whether the file may have been there before we could see it."""
        folder = path
        while folder:
            if folder in unseen:
                return True
            folder = folder.rpartition("/")[0]
        return self._found.get(path) not in self._scanned

    def _admit(self, path: str, status: os.stat_result, unseen: Container[str] = ()) -> bool:
        """Follow what is at a found path, if it is another file than all that are followed.
        False where there are too many. Raises `RefusedError` or ``OSError``."""
        registry = self._registry
        key = status.st_dev, status.st_ino
        if key in registry.keys:
            self._life.at_other_path(registry.keys[key], path)
            return True
        if self._skipped.get(path) == key:
            return True
        if len(registry.current) >= self._max_files or self._opener.is_full:
            return False
        history = registry.histories.get(path)
        first_sight = history is None and self._is_first_sight(path, unseen)
        try:
            opened = self._open_own(path)
        except OSError:
            if first_sight:
                history = registry.history(path)
                history.start, history.start_of = status.st_size, status.st_ino
                self._changed()
            raise
        if opened is None:
            return True
        fd, file, beside = opened
        is_known = any(known.knows(file) for known in registry.histories.values())
        history = registry.history(path)
        start = history.begin(file)
        if is_known or first_sight:
            start = file.size
        history.remember_all(beside)
        history.wanted = True
        self._opener.open(file, fd, history, path=path, start=start)
        return True

    def _open_own(self, path: str) -> tuple[int, File, list[File]] | None:
        """A found file, open; and what lies beside it and was never looked at. None where it is
        not one to follow. Raises `RefusedError` or ``OSError``."""
        history = self._registry.histories.get(path)
        is_new = history is None or history.start is not None
        fd, status = open_log(path)
        try:
            file = describe(path, fd, status)
            if file.key not in self._registry.keys and self._is_own(file):
                beside = self._folders.siblings(path, real_path(path)) if is_new else []
                return fd, file, beside
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _admit_successor(self, path: str) -> None:
        """A file is no longer at its path; maybe another is."""
        history = self._registry.histories.get(path)
        if history is None or not history.wanted:
            return
        try:
            self._admit(path, os.stat(path))
        except (OSError, RefusedError):
            return  # the next scan says why

    def _is_own(self, file: File) -> bool:
        """Whether a found file is one to follow, and not a rotated one that was dealt with, or
        the copy of one that is followed."""
        folder = os.path.dirname(file.path)
        for path, history in self._registry.histories.items():
            if history.real is None and not file.path.startswith(path[: path.rfind(".")]):
                continue  # there may be many
            if folder not in (os.path.dirname(path), os.path.dirname(history.real or "")):
                continue
            if file.path in (path, history.real) or not is_rotated_path(
                path, history.real, file.path
            ):
                continue
            is_old = history.mtime is not None and file.mtime < history.mtime
            if not is_old and not history.knows(file):
                if path not in self._registry.current:
                    continue
                if file.size < MIN_HEAD:
                    if file.path in self._young:
                        continue
                    self._young.add(file.path)  # a copy that has just begun looks so
                    return False
                if not history.is_copy(file, self._registry.heads(history)):
                    continue
                self._changed()
            self._skipped[file.path] = file.key
            return False
        self._young.discard(file.path)
        return True

    def _say(self, ignored: dict[str, str], refused: int) -> None:
        for path, why in ignored.items():
            if self.ignored.get(path) != why:
                log.warn("[logs] {path}: {why}", path=path, why=why)
        for path in self.ignored.keys() - ignored.keys():
            if path in self._registry.current:
                log.info("[logs] {path}: can be read now", path=path)
        if refused > self.refused:
            followed = self._registry.followed if self._opener.is_full else self._registry.current
            log.warn(
                "[logs] {refused} files are not read: {count} are {what} already",
                refused=refused,
                count=len(followed),
                what="open" if self._opener.is_full else "followed",
            )
        self.ignored, self.refused = ignored, refused
        if len(self._skipped) > len(self._found):
            found = self._found
            self._skipped = {path: key for path, key in self._skipped.items() if path in found}


def _why(error: OSError) -> str:
    why = f"cannot be read: {error.strerror or error}"
    return why + CURE if isinstance(error, PermissionError) else why
