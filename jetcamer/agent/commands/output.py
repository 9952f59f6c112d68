"""What a child process prints: both its outputs in one pipe, in order.

In: the read end of a pipe. Out: the first `OUTPUT_LIMIT` bytes as text, and how many more there
were. However much a program prints, it neither fills the memory nor keeps the reactor busy.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

#: Bytes of output that are kept.
OUTPUT_LIMIT = 65_536

#: Bytes that are read as fast as they come; beyond, a read every `_PAUSE` seconds, so that
#: ``yes`` cannot keep the agent busy until its deadline.
_UNHURRIED = 16 << 20
_PAUSE = 0.01

_READ_SIZE = 65_536
_DRAIN_READS = 4


@implementer(IReadDescriptor)
class OutputReader:
    """The read end of a pipe: keeps the first `OUTPUT_LIMIT` bytes and counts the rest."""

    def __init__(self, reactor: Any, on_closed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._on_closed = on_closed
        self._fd = -1
        self._kept = bytearray()
        self._total = 0
        self._hurried = False
        self._resume: IDelayedCall | None = None
        self.is_open = True  # from the start: the process may end before `open` is called

    def open(self, fd: int) -> None:
        self._fd = fd
        if not self.is_open:
            os.close(fd)
            return
        os.set_blocking(fd, False)
        self._reactor.addReader(self)

    def hurry(self) -> None:
        """The program has ended: read what is left without pausing."""
        self._hurried = True
        if self._resume is not None:
            self._resume.cancel()
            self._go_on()

    def close(self) -> None:
        """Take what is in the pipe, then read no more. Harmless when closed."""
        if not self.is_open:
            return
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._fd >= 0:
            self._reactor.removeReader(self)
            self._drain()
            os.close(self._fd)
        self.is_open = False
        self._on_closed()

    def text(self) -> tuple[str, int]:
        """What was kept, with a note if there was more, and how many bytes were cut."""
        cut = self._total - len(self._kept)
        # The limit may have cut a character in two: then its first half is left out as well.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text = decoder.decode(bytes(self._kept), final=cut == 0)
        return (f"{text}\n[{cut} more bytes were cut]" if cut else text), cut

    def fileno(self) -> int:
        return self._fd if self.is_open else -1

    def logPrefix(self) -> str:
        return "command"

    def doRead(self) -> Any:
        try:
            if not self._read():
                return CONNECTION_DONE
        except BlockingIOError:
            return None
        if self._total > _UNHURRIED and not self._hurried:
            self._reactor.removeReader(self)
            self._resume = self._reactor.callLater(_PAUSE, self._go_on)
        return None

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            for _ in range(_DRAIN_READS):  # whoever still writes must not keep us here
                if not self._read():
                    break

    def _read(self) -> bool:
        """False at the end of the output.

        :raises BlockingIOError: there is nothing to read at the moment.
        """
        data = os.read(self._fd, _READ_SIZE)
        self._total += len(data)
        self._kept += data[: OUTPUT_LIMIT - len(self._kept)]
        return bool(data)

    def _go_on(self) -> None:
        self._resume = None
        self._reactor.addReader(self)
