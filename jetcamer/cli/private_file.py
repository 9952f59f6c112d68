"""A file with a secret in it, replaced whole or not at all.

In: a path, then its new content. Out: the content it had, and a file that none but its owner and,
where that was so before, the service's group may read. Whether it can be written is known before
the content is.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
from types import TracebackType

from jetcamer.daemon.files import read_whole, sync_directory

__all__ = ["SERVICE_USER", "PrivateFile", "owner_and_mode"]

#: Who runs the agent under the systemd unit that comes with it.
SERVICE_USER = "jetcamer"
#: Room that is asked for beforehand, beyond the size of the old content.
_MORE = 8192


class PrivateFile:
    """``with PrivateFile(path, limit) as file``: in it, `before` is the content or None, and
    `replace` may be called once. Raises ``OSError`` where the file cannot be read or written, is
    longer than `limit` or not a regular one."""

    def __init__(self, path: str, limit: int) -> None:
        self.before: bytes | None = None
        self._path = path
        self._limit = limit
        self._directory = os.path.dirname(path) or "."
        self._temporary = f"{path}.{os.urandom(8).hex()}"
        self._fd = -1

    def __enter__(self) -> PrivateFile:
        status = None
        try:
            self.before, status = read_whole(self._path, self._limit)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._directory, 0o755)
        if status is not None and not os.access(self._path, os.W_OK, effective_ids=True):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        self._fd = os.open(
            self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        try:
            os.posix_fallocate(self._fd, 0, len(self.before or b"") + _MORE)
            uid, gid, mode = _wanted(status)
            os.fchown(self._fd, uid, gid)
            os.fchmod(self._fd, mode)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._discard()

    def replace(self, content: bytes) -> os.stat_result:
        """The status of the new file."""
        with open(self._fd, "wb", closefd=False) as file:
            file.truncate(0)
            file.write(content)
            file.flush()
            os.fsync(self._fd)
        status = os.fstat(self._fd)
        os.replace(self._temporary, self._path)
        with contextlib.suppress(OSError):  # it is there; only a power cut now could undo it
            sync_directory(self._directory)
        return status

    def _discard(self) -> None:
        os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)


def owner_and_mode(status: os.stat_result) -> str:
    """In words: ``owner jetcamer, mode 0600``."""
    mode = stat.S_IMODE(status.st_mode)
    words = f"owner {_name_of_user(status.st_uid)}"
    if mode & 0o070:
        words += f", group {_name_of_group(status.st_gid)}"
    return f"{words}, mode {mode:04o}"


def _wanted(status: os.stat_result | None) -> tuple[int, int, int]:
    """Owner, group and mode. 0600, and the owner that was; but a service that does not run as
    root must go on reading a file of root's: then it is 0640 for the service's group."""
    service = _service() if os.geteuid() == 0 else None
    if status is None:
        uid, gid = service or (-1, -1)
        return uid, gid, 0o600
    uid, gid = status.st_uid, status.st_gid
    if uid == 0 and gid != 0 and status.st_mode & stat.S_IRGRP:
        return uid, gid, 0o640
    if uid == 0 and service is not None:
        return uid, service[1], 0o640
    return uid, gid, 0o600


def _service() -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def _name_of_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _name_of_group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
