"""Small files that somebody else may be replacing at this moment.

In: a path. Out: the whole content with the status of the very file it was read from, so that a
later ``stat`` tells whether anything changed. Must never block (a FIFO is refused, not waited
for) and never read without bound.
"""

from __future__ import annotations

import errno
import os
import stat

#: What changes when a file's content, owner or mode does.
Signature = tuple[int, int, int, int]


def signature(status: os.stat_result) -> Signature:
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def read_whole(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """The content of a regular file of at most `limit` bytes. Raises ``OSError`` alone."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        chunks = []
        size = 0
        while chunk := file.read(limit + 1 - size):
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise OSError(errno.EFBIG, f"Larger than {limit} bytes")
    return b"".join(chunks), status


def sync_directory(directory: str) -> None:
    """Until this has returned, a name that was made in `directory` may be gone after the machine
    lost its power. Raises ``OSError``."""
    fd = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot, and need not
            raise
    finally:
        os.close(fd)
