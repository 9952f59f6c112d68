"""SIGTERM is how a service manager says "stop", and stopping on request is a success.

``twistd`` ends itself with the signal that stopped it, so that its status would say "killed".
"""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.error import ReactorNotRunning


def stop_on_sigterm(reactor: Any) -> None:
    """From now on SIGTERM stops `reactor` in order, or as soon as it runs; the status is 0 then."""
    process = os.getpid()

    def stop() -> None:
        try:
            reactor.stop()
        except ReactorNotRunning:
            return  # it is stopping already

    def received(*_: object) -> None:
        if os.getpid() == process:
            reactor.callFromThread(stop)
        else:
            # A child between fork and exec. It is no daemon, and ends as any process would.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    # Until the reactor runs; what it then installs itself is its method of this name. In between
    # there is no moment without one of them.
    signal.signal(signal.SIGTERM, received)
    reactor.sigTerm = received
