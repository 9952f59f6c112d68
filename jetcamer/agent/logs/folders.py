"""What lies in the folders of the logs, looked at no more often than it changes.

In: paths. Out: names, and files as they are by now. Opens files only to read their first bytes;
keeps none open. Must never take what cannot be looked at for what is not there, but where only
rights are missing, which is said.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

from twisted.logger import Logger

from jetcamer.agent.logs.discovery import (
    SETTLED,
    RefusedError,
    folder_signature,
    is_rotated_name,
    open_log,
)
from jetcamer.agent.logs.rotation import GONE, File, Key, describe

log = Logger()


class _Listing(NamedTuple):
    signature: tuple[int, ...] | None
    #: The turn it was made in; None: it is good for as long as the signature stays.
    turn: int | None
    #: Sorted.
    names: list[str]
    #: Names by inode; made when they are asked for.
    inodes: dict[int, list[str]]


class Folders:
    """A folder that has just changed is listed once in a turn, any other when it changed; a file
    that has not just changed is opened again when its size or its time of change is another.

    :param now: Unix seconds, which the file system's are compared with.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._turn = 0
        self._listings: dict[str, _Listing] = {}
        self._files: dict[Key, File] = {}
        #: What was used between the last two calls of `forget_unused`.
        self._used_listings: dict[str, _Listing] = {}
        self._used_files: dict[Key, File] = {}
        self._said: set[str] = set()

    def new_turn(self) -> None:
        """Time may have passed."""
        self._turn += 1

    def forget_unused(self) -> None:
        """To be called now and then: what was not asked for since the last call takes memory."""
        self._listings, self._used_listings = self._used_listings, {}
        self._files, self._used_files = self._used_files, {}

    def signature(self, folder: str) -> tuple[int, ...] | None:
        """It stays the same for as long as nothing in the folder is made, renamed or deleted;
        None where that cannot be told, as it has just changed."""
        signature = folder_signature(folder)
        return signature if signature and self._is_settled(signature[-1]) else None

    def siblings(self, path: str, real: str | None = None) -> list[File]:
        """The files beside `path`, and beside the place `real` that it leads to, that look like
        rotated ones of it, oldest first. Raises ``OSError``."""
        found: dict[Key, File] = {}
        for place in (path, real):
            for name in () if place is None else self._rotated(place):
                file = self._examine(name)
                if file is not None:
                    found.setdefault(file.key, file)
        return sorted(found.values(), key=lambda file: file.mtime)

    def with_inode(self, folder: str, inode: int) -> Iterator[File]:
        """The files in a folder that have this number. Raises ``OSError``."""
        listing = self._list(folder)
        if listing.names and not listing.inodes:
            with os.scandir(folder or ".") as entries:
                for entry in entries:
                    listing.inodes.setdefault(entry.inode(), []).append(entry.path)
        for path in listing.inodes.get(inode, ()):
            file = self._examine(path)
            if file is not None:
                yield file

    def _rotated(self, path: str) -> Iterator[str]:
        folder, name = os.path.split(path)
        stem = os.path.splitext(name)[0]
        names = self._list(folder).names
        for index in range(bisect_left(names, stem), len(names)):
            other = names[index]
            if not other.startswith(stem):
                break
            if is_rotated_name(name, other):
                yield os.path.join(folder, other)

    def _list(self, folder: str) -> _Listing:
        # Before the listing: what changes after it is then seen as a change.
        signature = folder_signature(folder)
        known = self._used_listings.get(folder) or self._listings.get(folder)
        if known is None or known.signature != signature or known.turn not in (None, self._turn):
            try:
                names = sorted(os.listdir(folder or "."))
            except OSError as error:
                self._cannot(folder, "listed", error)
                names = []
            settled = signature is not None and self._is_settled(signature[-1])
            known = _Listing(signature, None if settled else self._turn, names, {})
        self._used_listings[folder] = known
        return known

    def _examine(self, path: str) -> File | None:
        try:
            status = os.stat(path)
            key = status.st_dev, status.st_ino
            known = self._used_files.get(key) or self._files.get(key)
            if known is not None and known.is_as(status):
                known = known._replace(path=path)
            else:
                fd, status = open_log(path)
                try:
                    known = describe(path, fd, status)
                finally:
                    os.close(fd)
        except RefusedError:
            return None
        except OSError as error:
            self._cannot(path, "read", error)
            return None
        if self._is_settled(known.mtime):
            self._used_files[known.key] = known
        return known

    def _is_settled(self, mtime: int) -> bool:
        return mtime < (self._now() - SETTLED) * 1e9

    def _cannot(self, path: str, what: str, error: OSError) -> None:
        """Raises the error, unless the file is not there, or not for us."""
        if error.errno in GONE:
            return
        if not isinstance(error, PermissionError):
            raise error
        folder = path if what == "listed" else os.path.dirname(path)
        if folder not in self._said:
            self._said.add(folder)
            log.warn(
                "[logs] {path}: cannot be {what}: {why}; lines that were rotated away there"
                " before they were read are lost",
                path=path,
                what=what,
                why=error.strerror or str(error),
            )
