"""Programs the suite needs beside Python: found, or the test is skipped and says why."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from unittest import SkipTest

#: The checkout, or the unpacked source distribution, that holds these tests.
ROOT = Path(__file__).resolve().parents[2]

#: Where `make test` puts the npm packages of the Node peers.
NODE_PEERS = ROOT / "tests" / "support" / "node"


class MissingTool(Exception):
    """A program is missing on a machine that promised to have everything (``CI=true``)."""


def require_program(name: str) -> str:
    """The absolute path of `name`; skips the test where it is not installed."""
    path = shutil.which(name)
    if path is None:
        return _missing(f"the program {name} is not installed")
    return path


def require_npm_package(name: str) -> Path:
    """The folder of an installed npm package of the Node peers; skips the test without it."""
    path = NODE_PEERS / "node_modules" / name
    if not path.is_dir():
        _missing(f"the npm package {name} is not installed (make node-peers)")
    return path


def _missing(words: str) -> str:
    if os.environ.get("CI") == "true":
        raise MissingTool(words)
    raise SkipTest(words)
