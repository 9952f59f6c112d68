"""Why messages and connections were not accepted: `refusals`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from jetcamer.cli.hub.arguments import Commands, add_agent, add_command, add_limit
from jetcamer.cli.hub.bans import tell_bans
from jetcamer.cli.hub.client import path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.output import Cell, Column
from jetcamer.cli.hub.words import ago, moment, text

_COLUMNS = (
    Column("TIME"),
    Column("AGO"),
    Column("AGENT", long=True),
    Column("ADDRESS", long=True),
    Column("REASON", long=True),
    Column("WHY", long=True),
)


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands,
        "refusals",
        refusals,
        "say why messages and connections were refused",
        "An agent's id is what the peer claimed: nothing proves it.",
    )
    add_agent(parser, optional=True)
    parser.add_argument("--address", metavar="A", help="only those from this IP address")
    add_limit(parser)


def refusals(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    output.expect_tables()
    listed = context.client.pages(
        path_of("refusals"),
        "refusals",
        query={"agentId": args.agent, "address": args.address},
        limit=args.limit,
    )
    if output.as_json:
        output.document(listed)
    else:
        rows = [_row(refusal, context.now_ms) for refusal in listed["refusals"]]
        output.table(_COLUMNS, rows, "nothing was refused")
        tell_bans(context)
    return 0


def _row(refusal: Mapping[str, Any], now_ms: int) -> Sequence[Cell]:
    return (
        moment(refusal.get("ts")),
        ago(refusal.get("ts"), now_ms),
        text(refusal.get("agentId")),
        text(refusal.get("address")),
        (text(refusal.get("reason")), "bad"),
        text(refusal.get("words")),
    )
