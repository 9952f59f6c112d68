"""`jetcamer hub` as a process: what it imports, how it ends, and a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from typing import Any

from twisted.internet import reactor

from tests.cli_hub.answers import agent
from tests.cli_hub.fake_hub import TOKEN, FakeHub, event
from tests.support.case import ProcessCase
from tests.support.line_process import LineProcess
from tests.support.tools import ROOT

JETCAMER_HUB = [sys.executable, "-m", "jetcamer.cli", "hub"]


class HubShell(LineProcess[str]):
    def parse(self, line: str) -> str:
        return line


class HubProcessTests(ProcessCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.hub = FakeHub()
        self.addCleanup(self.hub.stop)
        self.environ = {
            **os.environ,
            "JETCAMER_HUB_URL": self.hub.url,
            "JETCAMER_HUB_TOKEN": TOKEN,
            "PYTHONIOENCODING": "utf-8",
            "TERM": "xterm",
            "NO_COLOR": "",
        }
        self.hub.answer("GET", "/api/agents", {"agents": [agent()], "next": None})

    def ran(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=ROOT,
            env=self.environ,
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def shell(self, *words: str, terminal: Any = False) -> HubShell:
        shell = HubShell(reactor)
        self.addCleanup(shell.stop)
        shell.spawn([*JETCAMER_HUB, *words], self.environ, str(ROOT), terminal)
        return shell

    def test_json(self) -> None:
        """JSON needs neither rich nor a reactor nor msgspec: it comes at once."""
        code = (
            "import sys; from jetcamer.cli import main; status = main(sys.argv[1:])\n"
            "heavy = {'rich', 'twisted', 'msgspec', 'zope', 'autobahn', 'dataclasses'}\n"
            "print(status, sorted(heavy & set(sys.modules)), file=sys.stderr)"
        )
        done = self.ran(sys.executable, "-c", code, "hub", "agents", "--json")
        self.assertEqual(done.stderr, "0 []\n")
        self.assertEqual(json.loads(done.stdout)["agents"][0]["agentId"], "web-01")

    def test_table(self) -> None:
        done = self.ran(*JETCAMER_HUB, "agents")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"\AAGENT .*\nweb-01 +online ")

    def test_broken_pipe(self) -> None:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as closed:
            for words in (("agents",), ("agents", "--json"), ("show", "x")):
                self.hub.answer("GET", "/api/agents/x", agent("x"))
                done = self.ran(*JETCAMER_HUB, *words, stdout=closed)
                self.assertEqual((done.returncode, done.stderr), (141, ""))

    def test_streams_that_are_closed_or_full(self) -> None:
        """One line, or none where nobody would see it; never a traceback."""
        config = os.path.abspath(os.path.join(self.mktemp(), "agent.config.json"))
        os.makedirs(os.path.dirname(config))
        for words, redirection, status, said in (
            (("hub", "agent", "revoke", "a"), "<&-", 2, "nobody can be asked here"),
            (("join", "http://127.0.0.1:1/", "-", "--config", config), "<&-", 1, "no join token"),
            (("hub", "agents", "--json"), ">/dev/full", 1, "cannot be written: No space left"),
            (("hub", "agents"), ">/dev/full", 1, "cannot be written: No space left"),
            (("hub", "show", "nobody"), "2>&-", 1, ""),
            (("hub", "agents", "--json"), ">/dev/full 2>&-", 1, ""),
        ):
            with self.subTest(words=words, redirection=redirection):
                command = shlex.join([sys.executable, "-m", "jetcamer.cli", *words])
                done = self.ran("sh", "-c", f"{command} {redirection}")
                self.assertEqual(done.returncode, status, done.stderr)
                self.assertIn(said, done.stderr)
                self.assertNotIn("Traceback", done.stderr)
        self.assertEqual([request.method for request in self.hub.requests], ["GET"] * 4)

    async def test_ctrl_c(self) -> None:
        """Ctrl-C ends what would go on for ever: 130, and no traceback."""
        self.hub.stream(event("1", "agent", agentId="web-01", ts=1, state="online"))
        shell = self.shell("events")
        await shell.wait_for(lambda line: "web-01" in line)
        os.kill(shell.pid, signal.SIGINT)
        await shell.when_ended()
        self.assertEqual(shell.exit_code, 130)
        self.assertNotIn("Traceback", shell.stderr)

    async def test_top(self) -> None:
        """On a real terminal: a screen of its own, keys, and everything as it was afterwards."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        name = os.ttyname(slave)
        before = termios.tcgetattr(slave)
        keep = os.dup(master)
        self.addCleanup(os.close, keep)
        self.hub.stream(event("1", "metrics", agentId="web-01", cpuPercent=77.0))
        self.hub.answer("GET", "/api/events", {"error": "draining"}, 503)
        shell = self.shell("top", terminal=(master, slave, name))
        await shell.wait_for(lambda line: "77.0%" in line)
        shell.transport.write(b"n")
        await shell.wait_for(lambda line: "by name" in line)
        shell.transport.write(b"q")
        await shell.when_ended()
        self.assertEqual(shell.exit_code, 0, shell.events)
        text = "\n".join(shell.events)
        self.assertIn("\x1b[?1049h", text)
        self.assertTrue(re.search("web-01", text))
        self.assertEqual(termios.tcgetattr(keep)[3], before[3])
