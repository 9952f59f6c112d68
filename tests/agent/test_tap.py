"""The command line of ``twistd jetcamer``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.config import DEFAULT_PATH
from jetcamer.agent.tap import Options


class HelpTests(SynchronousTestCase):
    def test_names_the_files_and_fits_a_terminal(self) -> None:
        lines = Options().getUsage(width=100).splitlines()
        option = " ".join(line.strip() for line in lines).partition("--config=")[2]
        self.assertIn(f"else JETCAMER_AGENT_CONFIG, else {DEFAULT_PATH}", option)
        self.assertLessEqual(max(map(len, lines)), 100)
