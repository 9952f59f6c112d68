"""What the tests of commands share: scripts that report on themselves, and waiting for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.support.case import ProcessCase


async def until(condition: Callable[[], bool]) -> None:
    """Let the reactor run until `condition`; trial's own timeout ends what never comes."""
    while not condition():
        await deferLater(reactor, 0.01)


def alive(pid: int) -> bool:
    """Does the process run? One that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class ProcessTestCase(ProcessCase):
    """Ends what a test leaves behind, and holds that no zombie is among it."""

    timeout = 20

    async def setUp(self) -> None:
        await super().setUp()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        # Other tests of the same run may keep a child for all of them.
        self._others = psutil.Process().children()

    def children(self) -> list[psutil.Process]:
        """The children that this test started."""
        return [child for child in psutil.Process().children() if child not in self._others]

    def tearDown(self) -> None:
        for pid in self.pids():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.assertEqual(self.children(), [])

    def script(self, text: str) -> list[str]:
        """An argument vector for the shell. `mark NAME` writes the pid of the last job."""
        return ["sh", "-c", f'mark() {{ echo "$2" > "{self.folder}/$1"; }}\n{text}']

    def marked(self, name: str) -> int:
        return int((self.folder / name).read_text())

    def has_marked(self, *names: str) -> bool:
        paths = [self.folder / name for name in names]
        return all(path.exists() and path.read_text().endswith("\n") for path in paths)

    def pids(self) -> list[int]:
        return [int(path.read_text() or 0) for path in self.folder.iterdir()]
