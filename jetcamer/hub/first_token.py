"""The first admin token, shown once to whoever starts the hub.

In: the token. Out: a line on standard output, or a file where nobody would see that, or a journal
would keep it for more people to read.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import TextIO

from twisted.logger import Logger

log = Logger()


def show_token(state_dir: str, token: str) -> None:
    """Raises OSError where it can be neither printed nor written into `state_dir`."""
    stream = sys.__stdout__
    if stream is not None and _is_read(stream):
        with suppress(OSError):  # else who was to read it has gone
            stream.write(f"An admin token, shown this once: {token}\n")
            stream.flush()
            return
    path = os.path.join(state_dir, "new-admin-token")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    log.info("[hub] an admin token is in {path}: take it, and delete the file", path=path)


def _is_read(stream: TextIO) -> bool:
    """Whether `stream` is a terminal, a pipe or a file, and neither a journal nor nothing."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stream.isatty() or stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
