"""The streams of the last checkpoint, found again.

In: their states, and what lies in their folders. Out: the same streams, read on from where they
are by now; or the count of what is lost.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from jetcamer.agent.logs import positions
from jetcamer.agent.logs.checkpoint import StreamState
from jetcamer.agent.logs.discovery import RefusedError, open_log
from jetcamer.agent.logs.folders import Folders
from jetcamer.agent.logs.opening import Opener
from jetcamer.agent.logs.registry import Registry
from jetcamer.agent.logs.rotation import MIN_HEAD, File, describe, is_rotated_path, reopen


class Restorer:
    """`waiting` are the streams whose files were not found yet."""

    def __init__(
        self,
        registry: Registry,
        opener: Opener,
        folders: Folders,
        waiting: Sequence[StreamState],
    ) -> None:
        self._registry = registry
        self._opener = opener
        self._folders = folders
        self.waiting = list(waiting)

    def restore(self) -> dict[str, OSError]:
        """Find the files of the streams that wait: first those that are the same file, so that
        none of them is taken for a copy of another. Gives the paths whose files are there and
        cannot be read; their streams wait on."""
        waiting, self.waiting = self.waiting, []
        unreadable: dict[str, OSError] = {}
        rest: list[tuple[StreamState, File | None]] = []
        for state in waiting:
            try:
                file = self._find_renamed(state)
                if file is None or file.size < state.size or not self._go_on(state, file):
                    rest.append((state, file))
            except OSError as error:
                unreadable[state.path] = error
                self.waiting.append(state)
        for state, file in rest:
            try:
                self._find_rest(state, file)
            except OSError as error:
                unreadable[state.path] = error
                self.waiting.append(state)
        for path in {state.path for state in waiting}.difference(unreadable):
            current = self._registry.current.get(path)
            head = b"" if current is None else current.stream.source.head or b""
            # One that was empty shows nothing of having been written, copied and truncated.
            if current is None or any(not one.size for one in waiting if one.path == path):
                self._opener.adopt(path, self._registry.history(path), also=head)
        return unreadable

    def _find_rest(self, state: StreamState, file: File | None) -> None:
        """Go on with what there is of a stream whose file is gone, or `file` but shorter than it
        was."""
        history = self._registry.history(state.path)
        if history.real is None:
            history.real = state.real
        copy = history.find_copy(
            self._folders.siblings(state.path, state.real),
            state.head,
            seen=state.size,
            least=positions.first_needed(state),
            besides=self._registry.keys,
        )
        if copy is not None and self._go_on(state, copy, is_copy=True):
            return
        # The machine may have lost its power before the file's last bytes were on disk.
        if file is not None and state.head.size >= MIN_HEAD and self._go_on(state, file):
            return
        if not self._opener.open_spooled(state, history):
            why = "the file was taken away while the agent was not running"
            ledger, lost = history.ledger, state.size - positions.slowest(state)
            self._registry.give_up(ledger, state.path, positions.planned_lines(state), why)
            self._registry.lose(ledger, state.path, lost, why)
            self._registry.changed()

    def _go_on(self, state: StreamState, file: File, *, is_copy: bool = False) -> bool:
        """Follow a stream's file as before. False where that cannot be."""
        if file.key in self._registry.keys:
            return False
        opened = reopen(file)
        if opened is None:
            return False
        fd, file = opened
        path, current = state.path, self._registry.current
        is_found = file.path in self._opener.found and file.path not in current
        if is_found and not is_copy and not is_rotated_path(path, state.real, file.path):
            path = file.path  # which it was renamed to
        history = self._registry.history(path)
        if history.real is None and path == state.path:
            history.real = state.real
        history.wanted = path in self._opener.found
        rotated = is_copy or file.path != path or not history.wanted
        self._registry.lose(
            history.ledger,
            path,
            state.size - max(file.size, positions.slowest(state)),
            "the file is shorter than it was",
        )
        self._opener.open(file, fd, history, path=path, rotated=rotated, state=state)
        return True

    def _find_renamed(self, state: StreamState) -> File | None:
        """The file of a stream as it was at the last checkpoint: at its path, or elsewhere in the
        same folder. Raises ``OSError`` where it lies at its path and cannot be read."""
        try:
            status = os.stat(state.path)
        except (FileNotFoundError, NotADirectoryError):
            pass
        else:
            if status.st_ino == state.inode:
                try:
                    file = _examine(state.path)
                except RefusedError:
                    return None
                if _is_of(state, file):
                    return file
        for place in (state.path, state.real):
            if place is None:
                continue
            for file in self._folders.with_inode(os.path.dirname(place), state.inode):
                if file.path == state.path or not _is_of(state, file):
                    continue
                # Few bytes show nothing where the inode may have been given to any other file.
                if (
                    state.head.size >= MIN_HEAD
                    or file.path == state.real
                    or is_rotated_path(state.path, state.real, file.path)
                ):
                    return file
        return None


def _examine(path: str) -> File:
    """Raises `RefusedError` or ``OSError``."""
    fd, status = open_log(path)
    try:
        return describe(path, fd, status)
    finally:
        os.close(fd)


def _is_of(state: StreamState, file: File) -> bool:
    if file.key[1] != state.inode or not file.has(state.head):
        return False
    # The number of a device may be another after the machine was started anew.
    return file.key[0] == state.device or state.head.size >= MIN_HEAD
