"""Time that a step of the system's clock cannot stop.

Twisted's reactors count delayed calls in wall-clock time. On a machine whose clock is set back an
hour after boot, as chrony does on a fresh cloud instance, every timer would then stand still for
an hour: no heartbeat, no reconnect.
"""

from __future__ import annotations

import time
from typing import Any


def use_monotonic_time(reactor: Any) -> None:
    """Make `reactor` count time monotonically. To be called before anything is scheduled.

    ``reactor.seconds()`` is then no time of day any more; who needs one takes ``time.time``.
    """
    reactor.seconds = time.monotonic


def wall_clock_ms() -> int:
    """Unix milliseconds now. The reactor's own time need not be the time of day."""
    return time.time_ns() // 1_000_000
