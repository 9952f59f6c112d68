"""`jetcamer hub …`: a fleet from the shell, over the hub's HTTP API and nothing else.

In: words, the API's answers. Out: tables for people or, with `--json`, JSON; exit status 0 for
done, 1 for not (why is one line on standard error), 2 for words it does not understand. It has
no reactor: it asks, waits, prints.
"""

from __future__ import annotations

import argparse
import os
import sys

from jetcamer.cli.hub import (
    access,
    agents,
    bans,
    commands,
    enrolment,
    events,
    logs,
    metrics,
    operations,
    refusals,
    send,
    top,
)
from jetcamer.cli.hub.arguments import Parser, add_common
from jetcamer.cli.hub.client import HubClient
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.output import Output
from jetcamer.cli.hub.settings import settings_from

__all__ = ["add_arguments", "run"]

#: In the order of `jetcamer hub --help`: what is looked at, what is done, what is administered.
_SUBJECTS = (
    operations.add_status,
    agents.add_commands,
    metrics.add_commands,
    logs.add_commands,
    commands.add_commands,
    refusals.add_commands,
    bans.add_commands,
    events.add_commands,
    top.add_commands,
    send.add_commands,
    enrolment.add_commands,
    access.add_commands,
    operations.add_commands,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser)
    parser.epilog = (
        "Exit status: 0 done, 1 not done, 2 wrong words. The token is never given on the command "
        "line, where others could read it."
    )
    subparsers = parser.add_subparsers(
        dest="hub_command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for add in _SUBJECTS:
        add(subparsers)


def run(args: argparse.Namespace) -> int:
    """Do what `args` say and return the exit status. Raises SystemExit(2) for wrong words,
    KeyboardInterrupt, BrokenPipeError."""
    output = Output(sys.stdout, sys.stderr, os.environ, as_json=getattr(args, "json", False))
    try:
        client = HubClient(settings_from(args, os.environ))
        try:
            return int(args.handler(Context(client, output, sys.stdin), args))
        finally:
            client.close()
    except HubError as error:
        output.note(f"{args.parser.prog}: {error}")
        return 1
