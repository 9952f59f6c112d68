"""``jetcamer doctor``: why the agent does not work on this machine, and what to do.

In: the agent's configuration and environment. Out: rows of findings, as text or JSON, and an exit
status: 0 all is well, 1 warnings only, 2 something failed (or the command line was wrong). It
changes nothing, never authenticates to the server, shows no secret, and ends in time.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from typing import Any

from twisted.internet.defer import Deferred

from jetcamer.agent.config import DEFAULT_PATH
from jetcamer.cli.doctor.examination import TIMEOUT, Examination, diagnose
from jetcamer.cli.doctor.report import Check, Report
from jetcamer.net.resolver import ThreadedResolver

__all__ = ["Check", "Report", "add_arguments", "diagnose", "run"]

#: What a shell reports of a program that was interrupted.
_INTERRUPTED = 128 + 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help=f"else JETCAMER_AGENT_CONFIG, else {DEFAULT_PATH}"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT,
        metavar="S",
        help="seconds for all checks together (%(default)g)",
    )
    parser.epilog = (
        "Exit status: 0 all is well, 1 warnings only, 2 something failed. The server is connected "
        "to and told nothing, so that a running agent keeps its place there."
    )


def run(args: argparse.Namespace) -> int:
    """Examine this machine, print the report, return the exit status."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    # Twisted's own would make us wait for a name server that does not answer.
    reactor.installNameResolver(ThreadedResolver(reactor))
    status = _INTERRUPTED

    async def examine() -> None:
        nonlocal status
        try:
            examination = Examination(reactor, os.environ, args.config, args.timeout)
            report = await examination.run()
            sys.stdout.write((report.as_json() if args.json else report.as_text()) + "\n")
            sys.stdout.flush()
            status = report.exit_status
        except Exception:
            status = 2
            traceback.print_exc()
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(examine()))
    reactor.run()
    return status


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 600")
    return seconds
