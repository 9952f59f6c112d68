"""What the command lines of both daemons have in common.

In: the words after ``twistd jetcamer`` or ``twistd jetcamer-hub``. Out: options that are right,
and the reactor made ready for a daemon.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar, cast

from twisted.python import usage

from jetcamer import __version__
from jetcamer.daemon.logging import FORMATS


class DaemonOptions(usage.Options):
    #: What ``--version`` calls it.
    title: ClassVar[str]

    optParameters: ClassVar[Any] = (
        ("log-format", None, "text", "What is printed: text for people, json for machines."),
    )

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"{self.title} {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        if self["log-format"] not in FORMATS:
            raise usage.UsageError("--log-format: one of " + ", ".join(FORMATS))


def ready_reactor() -> Any:
    """The process's reactor, with the time, the signals and the memory of a daemon."""
    from twisted.internet import reactor as global_reactor

    from jetcamer.daemon.clock import use_monotonic_time
    from jetcamer.daemon.memory import settle_when_started
    from jetcamer.daemon.signals import stop_on_sigterm

    reactor = cast(Any, global_reactor)
    use_monotonic_time(reactor)
    stop_on_sigterm(reactor)
    settle_when_started(reactor)
    return reactor
