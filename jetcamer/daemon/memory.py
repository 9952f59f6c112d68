"""A daemon's memory, once it has started.

Starting makes some 250,000 objects that live as long as the process, and leaves gaps where the
rest was. The garbage collector would walk through all of the former (26 ms, at some moment of its
own), and the C library keeps the latter.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Any

#: Seconds after the start by which a daemon has imported and built what it needs.
SETTLED_AFTER = 3.0


def settle_when_started(reactor: Any) -> None:
    """Tidy up once, some seconds after `reactor` begins to run."""
    reactor.callWhenRunning(reactor.callLater, SETTLED_AFTER, settle)


def settle() -> None:
    """Exempt what is alive now from garbage collection, and give back what is free."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
    if trim is not None:
        trim(0)
