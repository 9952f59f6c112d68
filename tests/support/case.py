"""What every test that starts a process needs."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase


class ProcessCase(TestCase):
    timeout = 60

    async def setUp(self) -> None:
        # The reactor must run before there is a child: one that is reaped while trial starts the
        # reactor anew leaves the next test without a SIGCHLD handler.
        await deferLater(reactor, 0)
