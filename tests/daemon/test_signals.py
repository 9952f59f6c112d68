"""SIGTERM at every moment of a daemon's life: each time it ends in order, with status 0."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

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


class StopOnSigtermTests(SynchronousTestCase):
    def assert_ends_in_order(self, when: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", DAEMON.format(when=when)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout), (0, "stopped in order\n"), done.stderr)

    def test_before_the_reactor_runs(self) -> None:
        self.assert_ends_in_order("term()")

    def test_while_the_reactor_starts(self) -> None:
        for phase in ("before", "during", "after"):
            self.assert_ends_in_order(f'reactor.addSystemEventTrigger("{phase}", "startup", term)')

    def test_while_it_runs(self) -> None:
        self.assert_ends_in_order("reactor.callLater(0, term)")

    def test_twice(self) -> None:
        self.assert_ends_in_order(
            'reactor.callLater(0, term); reactor.addSystemEventTrigger("during", "shutdown", term)'
        )

    def test_a_child_before_its_exec_is_no_daemon(self) -> None:
        self.assert_ends_in_order(
            "child = os.fork()\n"
            "if not child: term(); os._exit(7)\n"
            "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM\n"
            "term()"
        )
