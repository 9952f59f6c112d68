"""The command line of ``twistd jetcamer``."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.config import DEFAULT_PATH
from jetcamer.agent.tap import Options, makeService

#: Configurations of every bad kind, and what is said of them.
BAD = {
    b"{": "line 1",
    b"[]": "object",
    b"\xff": "UTF-8",
    b'{"metricsIntervalSeconds": "5"}': "metricsIntervalSeconds",
    b'{"commands": {"x": {"argv": []}}}': "commands.x",
    b'{"webListen": "0.0.0.0:9811"}': "webListen",
    b'{"wsApiUrl": "http://h/"}': "wsApiUrl",
    b'{"wsReconnectJitter": 0.6}': "wsReconnectJitter",
    b'{"wsCaFile": "/nonexistent"}': "wsCaFile",
}


class HelpTests(SynchronousTestCase):
    def test_names_the_files_and_fits_a_terminal(self) -> None:
        lines = Options().getUsage(width=100).splitlines()
        option = " ".join(line.strip() for line in lines).partition("--config=")[2]
        self.assertIn(f"else JETCAMER_AGENT_CONFIG, else {DEFAULT_PATH}", option)
        self.assertLessEqual(max(map(len, lines)), 100)


class RefusedStartTests(SynchronousTestCase):
    def test_configurations_of_every_bad_kind(self) -> None:
        """Status 1 and one line, before there is a reactor; `tests.integration.test_twistd` has
        one of them in a process of its own."""
        path = Path(self.mktemp()).absolute()
        self.patch(os, "environ", {})
        for content, word in BAD.items():
            with self.subTest(content=content):
                path.write_bytes(content)
                options = Options()
                options.parseOptions(["--config", str(path)])
                said = io.StringIO()
                self.patch(sys, "__stderr__", said)
                error = self.assertRaises(SystemExit, makeService, options, object())
                self.assertEqual(error.code, 1)
                (line,) = said.getvalue().splitlines()
                self.assertIn(str(path), line)
                self.assertIn(word, line)
