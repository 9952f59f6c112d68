"""``jetcamer version``: the version, and nothing around it, for scripts."""

from __future__ import annotations

import argparse
import sys

from jetcamer import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(args: argparse.Namespace) -> int:
    sys.stdout.write(f"{__version__}\n")
    return 0
