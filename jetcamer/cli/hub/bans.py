"""Addresses that are not let in for a while: `bans`, `bans lift`."""

from __future__ import annotations

import argparse

from jetcamer.cli.hub.arguments import Commands, Parser, add_command
from jetcamer.cli.hub.client import path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.output import Column
from jetcamer.cli.hub.words import counted, span, text

_COLUMNS = (Column("ADDRESS"), Column("ENDS"), Column("OFFENCES", right=True))


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands,
        "bans",
        list_bans,
        "list the addresses that are banned for what they sent, or let one in again",
        "An IPv6 address stands for its network of 64 bits. Connections that are open stay.",
    )
    actions = parser.add_subparsers(dest="bans_command", metavar="ACTION", parser_class=Parser)
    add_command(actions, "list", list_bans, "list them; so does `bans`")
    lift = add_command(actions, "lift", lift_ban, "let an address in again at once")
    lift.add_argument("address", metavar="ADDRESS", help="as `bans` shows it")


def list_bans(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    output.expect_tables()
    answer = context.client.get(path_of("bans"))
    if output.as_json:
        output.document(answer)
        return 0
    rows = []
    for ban in answer.get("bans") or []:
        left = ban.get("secondsLeft")
        ends = f"in {span(max(1.0, left))}" if isinstance(left, int | float) else text(left)
        rows.append((text(ban.get("address")), ends, text(ban.get("offences"))))
    output.table(_COLUMNS, rows, "no address is banned")
    return 0


def lift_ban(context: Context, args: argparse.Namespace) -> int:
    answer = context.client.delete(path_of("bans", args.address))
    context.output.done(answer, f"{text(args.address)} is let in again")
    return 0


def tell_bans(context: Context) -> None:
    """A line below an answer that stands without it."""
    try:
        bans = context.client.get(path_of("bans")).get("bans")
    except HubError:
        return
    if bans:
        words = f"{counted(len(bans), 'address is', 'addresses are')} banned: jetcamer hub bans"
        context.output.note((words, "warn"))
