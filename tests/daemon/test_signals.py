"""SIGTERM at every moment of a daemon's life: each time it ends in order, with status 0."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.forks import run_forked

#: A daemon that sends itself SIGTERM when the test says, and prints that it stopped in order.
DAEMON = """
import os, signal, sys
from twisted.internet import reactor
from jetcamer.daemon.signals import stop_on_sigterm
def term(): os.kill(os.getpid(), signal.SIGTERM)
stop_on_sigterm(reactor)
reactor.addSystemEventTrigger("before", "shutdown", print, "stopped in order")
{when}
reactor.run()
if reactor._exitSignal: # what twistd does
    signal.signal(reactor._exitSignal, signal.SIG_DFL)
    os.kill(os.getpid(), reactor._exitSignal)
"""


#: Each moment, and what makes it come to pass.
MOMENTS = {
    "before the reactor runs": "term()",
    **{
        f"{phase} the reactor's start": f'reactor.addSystemEventTrigger("{phase}", "startup", term)'
        for phase in ("before", "during", "after")
    },
    "while it runs": "reactor.callLater(0, term)",
    "twice": (
        'reactor.callLater(0, term); reactor.addSystemEventTrigger("during", "shutdown", term)'
    ),
    "of a child before its exec, which is no daemon, and then": (
        "child = os.fork()\n"
        "if not child: term(); os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM\n"
        "term()"
    ),
}


class StopOnSigtermTests(SynchronousTestCase):
    def test_at_every_moment(self) -> None:
        programs = [DAEMON.format(when=when) for when in MOMENTS.values()]
        loaded = ("twisted.internet.epollreactor", "jetcamer.daemon.signals")
        for moment, ended in zip(MOMENTS, run_forked(self.mktemp(), loaded, programs), strict=True):
            self.assertEqual(
                (ended.status, ended.out), (0, "stopped in order\n"), f"{moment}: {ended.err}"
            )
