"""The streams of the last checkpoint, found again.

In: their states, and what lies in their folders. Out: the same streams, read on from where they
are by now; or the count of what is lost.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from jetcamer.agent.logs import restore
from jetcamer.agent.logs.checkpoint import StreamState
from jetcamer.agent.logs.discovery import is_rotated_name
from jetcamer.agent.logs.opening import Opener
from jetcamer.agent.logs.registry import Registry
from jetcamer.agent.logs.rotation import MIN_HEAD, File, find_renamed, reopen


class Restorer:
    """`waiting` are the streams whose files were not found yet."""

    def __init__(self, registry: Registry, opener: Opener, waiting: Sequence[StreamState]) -> None:
        self._registry = registry
        self._opener = opener
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
                file = find_renamed(state)
            except OSError as error:
                unreadable[state.path] = error
                self.waiting.append(state)
                continue
            if file is None or file.size < state.size or not self._go_on(state, file):
                rest.append((state, file))
        for state, file in rest:
            history = self._registry.history(state.path)
            copy = history.find_copy(
                state.path,
                state.head,
                seen=state.size,
                least=restore.first_needed(state),
                besides=self._registry.keys,
            )
            if copy is not None and self._go_on(state, copy, is_copy=True):
                continue
            # The machine may have lost its power before the file's last bytes were on disk.
            if file is not None and state.head.size >= MIN_HEAD and self._go_on(state, file):
                continue
            if not self._opener.open_spooled(state, history):
                why = "the file was taken away while the agent was not running"
                restore.give_up(history.ledger, state)
                self._registry.lose(
                    history.ledger, state.path, state.size - restore.slowest(state), why
                )
                self._registry.changed()
        for path in {state.path for state in waiting}.difference(unreadable):
            current = self._registry.current.get(path)
            head = b"" if current is None else current.stream.source.head or b""
            # One that was empty shows nothing of having been written, copied and truncated.
            if current is None or any(not one.size for one in waiting if one.path == path):
                self._opener.adopt(path, self._registry.history(path), also=head)
        return unreadable

    def _go_on(self, state: StreamState, file: File, *, is_copy: bool = False) -> bool:
        """Follow a stream's file as before. False where that cannot be."""
        if file.key in self._registry.keys:
            return False
        opened = reopen(file)
        if opened is None:
            return False
        fd, file = opened
        path, current = state.path, self._registry.current
        name = os.path.basename(path)
        is_found = file.path in self._opener.found and file.path not in current
        if is_found and not is_copy and not is_rotated_name(name, os.path.basename(file.path)):
            path = file.path  # which it was renamed to
        history = self._registry.history(path)
        history.wanted = path in self._opener.found
        rotated = is_copy or file.path != path or not history.wanted
        self._registry.lose(
            history.ledger,
            path,
            state.size - max(file.size, restore.slowest(state)),
            "the file is shorter than it was",
        )
        self._opener.open(file, fd, history, path=path, rotated=rotated, state=state)
        return True
