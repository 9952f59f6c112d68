"""Which log files there are.

In: patterns of paths. Out: the paths that exist, and files opened with care. Must never open what
is no regular file: a FIFO would wait for a writer, a device may do anything.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import translate

#: Where Apache and nginx write, as Debian and Red Hat install them.
DEFAULT_LOG_PATHS = (
    "/var/log/apache2/*access*.log",
    "/var/log/httpd/*access*.log",
    "/var/log/nginx/*access*.log",
)

#: What rotation leaves behind compressed: read long ago, and no text any more.
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".Z", ".zip")

#: Seconds that a folder must have been unchanged before its time of change is relied on: some
#: file systems keep whole seconds only, or even ones.
SETTLED = 2.5

#: Looks after which every folder is listed again, whatever its time of change says.
FULL_LOOK = 6

_MAGIC = re.compile(r"[*?\[]")
#: What rotation adds to a name: `.1`, `-20240501`, `.2024-05-01T12:00`, `-20240501.1`, `.old`.
_ROTATION = r"[.-]\d[\dTZ_.:-]*"
_SUFFIX = re.compile(rf"(?:{_ROTATION}|\.old|\.bak)")
_SUFFIXED = re.compile(rf"(.+?)(?:{_ROTATION}|\.old|\.bak)")
_INFIX = re.compile(_ROTATION)


class RefusedError(Exception):
    """This is no file to read lines from; the text says what it is."""


class Discovery:
    """Finds what a set of patterns names, again and again.

    A folder is listed again only when it changed. `*`, `?` and `[…]` match within a name and not
    a leading dot; `**` is any number of folders.

    :param now: Unix seconds, which the file system's are compared with.
    """

    def __init__(self, patterns: Iterable[str], *, now: Callable[[], float] = time.time) -> None:
        self.patterns = tuple(dict.fromkeys(patterns))
        #: Folders that cannot be listed: the reason.
        self.unlisted: dict[str, str] = {}
        #: Names that are not UTF-8, made printable.
        self.misnamed: list[str] = []
        self._now = now
        self._found = [_Expansion(pattern) for pattern in self.patterns]
        self._looks = 0
        self._paths: dict[str, str] = {}
        self._steady = False
        #: Paths that may come to name another file without a change of the listed folders.
        self._loose: set[str] = set()

    def look(self) -> dict[str, str]:
        """Paths to patterns, in order; of what exists, and may be anything. Not those of
        compressed files, nor of rotated ones whose log is found too (``access.log.1`` beside
        ``access.log``)."""
        self._looks += 1
        again = self._looks % FULL_LOOK == 0
        changed = [one.look(self._now, again) for one in self._found]
        self._steady = not any(changed)
        if not self._steady:
            self._merge()
        return self._paths

    def is_steady(self, path: str) -> bool:
        """Whether a found path names the same file as at the look before, as its folder tells."""
        return self._steady and path not in self._loose

    def _merge(self) -> None:
        self.unlisted, self.misnamed = {}, []
        found: dict[str, str] = {}
        for expansion in self._found:
            self.unlisted.update(expansion.unlisted)
            for path in expansion.paths:
                if not path.isascii() and _is_misnamed(path):
                    self.misnamed.append(printable(path))
                elif not path.endswith(COMPRESSED):
                    found.setdefault(path, expansion.pattern)
        self._paths = {path: found[path] for path in found if log_of(path) not in found}
        self._loose = {
            path for path, pattern in found.items() if path == pattern or os.path.islink(path)
        }


class _Expansion:
    """What one pattern names, and the state of the folders that were listed to find it."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.paths: list[str] = []
        self.unlisted: dict[str, str] = {}
        self._match = _MAGIC.search(pattern)
        self._folders: dict[str, tuple[int, ...] | None] = {}
        self._settled = False

    def look(self, now: Callable[[], float], again: bool) -> bool:
        """Whether it may name something else than before."""
        if self._match is None:
            before = self.paths
            self.paths = [self.pattern] if _is_there(self.pattern) else []
            return self.paths != before
        if self._settled and not again:
            folders = self._folders.items()
            if all(folder_signature(folder) == signature for folder, signature in folders):
                return False
        self._folders, self.unlisted = {}, {}
        start = self._match.start()
        top = self.pattern.rfind("/", 0, start) + 1
        self.paths = sorted(self._walk(self.pattern[:top], self.pattern[top:].split("/")))
        newest = max((known[2] for known in self._folders.values() if known), default=0)
        self._settled = not self.unlisted and newest < (now() - SETTLED) * 1e9
        return True

    def _walk(self, folder: str, parts: list[str]) -> Iterator[str]:
        """:param folder: ends with a slash, or is empty."""
        part, rest = parts[0], parts[1:]
        if part == "**" and rest:
            yield from self._walk(folder, rest)
            for name in self._names(folder):
                if not name.startswith(".") and _is_folder(folder + name):
                    yield from self._walk(f"{folder}{name}/", parts)
        elif _MAGIC.search(part) is None:
            if rest:
                yield from self._walk(f"{folder}{part}/", rest)
            else:
                self._folders[folder] = folder_signature(folder)
                if _is_there(folder + part):
                    yield folder + part
        else:
            matches = re.compile(translate(part)).match
            hidden = part.startswith(".")
            for name in self._names(folder):
                if matches(name) and (hidden or not name.startswith(".")):
                    if rest:
                        yield from self._walk(f"{folder}{name}/", rest)
                    else:
                        yield folder + name

    def _names(self, folder: str) -> list[str]:
        # Before the listing: what changes after it is then seen as a change.
        self._folders[folder] = folder_signature(folder)
        try:
            return os.listdir(folder or ".")
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.unlisted[folder.rstrip("/") or "/"] = error.strerror or str(error)
            return []


def find(patterns: Sequence[str]) -> list[str]:
    """The paths that exist."""
    return list(Discovery(patterns).look())


def open_log(path: str) -> tuple[int, os.stat_result]:
    """A file descriptor for reading. Raises `RefusedError`, or ``OSError``."""
    _check(os.stat(path))
    # It may be another by now: nothing here waits, nor becomes our terminal.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        _check(status)
    except BaseException:
        os.close(fd)
        raise
    return fd, status


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"is no regular file but {_kind(status.st_mode)}")


def _kind(mode: int) -> str:
    for is_kind, words in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_kind(mode):
            return words
    return "a device"


def is_rotated_name(log: str, name: str) -> bool:
    """Whether `name` is what a rotation may have made of the log file name `log`."""
    if len(name) <= len(log) or name.endswith(COMPRESSED):
        return False
    if name.startswith(log):
        return _SUFFIX.fullmatch(name, len(log)) is not None
    stem, extension = os.path.splitext(log)
    if not extension or not name.startswith(stem) or not name.endswith(extension):
        return False
    return _INFIX.fullmatch(name, len(stem), len(name) - len(extension)) is not None


def log_of(path: str) -> str | None:
    """The path that this one, by its end, is a rotated one of; None where it does not look so."""
    folder, _, name = path.rpartition("/")
    match = _SUFFIXED.fullmatch(name)
    return None if match is None else f"{folder}/{match[1]}"


def printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _is_misnamed(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_there(path: str) -> bool:
    """Also where that cannot be known: who opens it is told why."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _is_folder(path: str) -> bool:
    """A symbolic link to one is not followed by ``**``: it may lead back."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def folder_signature(folder: str) -> tuple[int, ...] | None:
    """Another one when something in the folder was made, renamed or deleted; ends with the time
    of change, in nanoseconds. None where there is none."""
    try:
        status = os.stat(folder or ".")
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns
