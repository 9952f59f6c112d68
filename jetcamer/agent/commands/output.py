"""What a child process prints: both its outputs in one pipe, in order.

In: the read end of a pipe. Out: its beginning as text that takes at most `OUTPUT_LIMIT` bytes, and
how many more there were. However much a program prints, it neither fills the memory nor keeps the
reactor busy.
"""

from __future__ import annotations

import codecs
import os
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.net.timers import Timer

#: Bytes of output that are kept, and of UTF-8 that its text takes.
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
        self._pause = Timer(reactor)
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
        if self._pause.running:
            self._pause.stop()
            self._go_on()

    def close(self) -> None:
        """Take what is in the pipe, then read no more. Harmless when closed."""
        if not self.is_open:
            return
        self._pause.stop()
        if self._fd >= 0:
            self._reactor.removeReader(self)
            self._drain()
            os.close(self._fd)
        self.is_open = False
        self._on_closed()

    def text(self) -> tuple[str, int]:
        """What was kept, with a note if there was more, and how many bytes were cut."""
        cut = self._total - len(self._kept)
        text = self._decoded(len(self._kept), final=cut == 0)
        if len(text.encode()) > OUTPUT_LIMIT:  # each bad byte has become three
            ends = range(len(self._kept) + 1)
            end = bisect_right(ends, OUTPUT_LIMIT, key=lambda n: len(self._decoded(n).encode())) - 1
            text = self._decoded(end)
            cut = self._total - end
        return (f"{text}\n[{cut} more bytes were cut]" if cut else text), cut

    def _decoded(self, end: int, final: bool = False) -> str:
        """The first `end` bytes, without half a character at their end unless it is `final`."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return decoder.decode(bytes(self._kept[:end]), final)

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
            self._pause.start(_PAUSE, self._go_on)
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
        self._reactor.addReader(self)
