"""What agents were told, and what they answered: `commands`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from jetcamer.cli.hub.arguments import Commands, add_agent, add_command, add_limit
from jetcamer.cli.hub.client import Document, path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.output import Cell, Column, state_cell
from jetcamer.cli.hub.words import arguments, milliseconds, moment, moment_and_ago, text
from jetcamer.cli.terminal import UNBROKEN

COLUMNS = (
    Column("TIME"),
    Column("AGENT", long=True),
    Column("COMMAND", long=True),
    Column("STATE"),
    Column("TOOK", right=True),
    Column("BY", long=True),
    Column("ANSWER", long=True),
    Column("ID", long=True),
)


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands,
        "commands",
        list_commands,
        "list what an agent, or the fleet, was told and answered",
        "Without an ID each agent of the fleet is asked for in turn.",
    )
    add_agent(parser, optional=True)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--command", dest="command_id", metavar="ID", help="one, with its details")
    which.add_argument("--batch", metavar="ID", help="those of one `send` to many agents")
    add_limit(parser)


def list_commands(context: Context, args: argparse.Namespace) -> int:
    output, client = context.output, context.client
    if (args.command_id or args.batch) and args.agent:
        args.parser.error("--command and --batch take no agent's ID")
    if args.command_id:
        show_command(context, client.get(path_of("commands", args.command_id)))
        return 0
    output.expect_tables()
    if args.batch:
        listed = client.get(path_of("command-batches", args.batch), {"commands": "true"})
    elif args.agent:
        path = path_of("agents", args.agent, "commands")
        listed = client.pages(path, "commands", limit=args.limit)
    else:
        listed = _of_all(context, args.limit)
    if output.as_json:
        output.document(listed)
    else:
        table(context, listed.get("commands") or [])
    return 0


def table(context: Context, commands: Sequence[Mapping[str, Any]]) -> None:
    context.output.table(COLUMNS, map(_row, commands), "no commands")


def show_command(context: Context, command: Mapping[str, Any]) -> None:
    output = context.output
    if output.as_json:
        output.document(command)
        return
    now_ms = context.now_ms
    rows: list[tuple[str, Cell]] = [
        ("agent", text(command.get("agentId"))),
        ("command", (_told(command), "strong")),
        ("state", state_cell(command.get("state"))),
        ("by", text(command.get("who"))),
        ("made", moment_and_ago(command.get("createdAt"), now_ms)),
        ("sent", moment_and_ago(command.get("sentAt"), now_ms)),
        ("took", milliseconds(command.get("milliseconds"))),
    ]
    if command.get("state") == "queued":
        rows.append(("waits until", moment_and_ago(command.get("expiresAt"), now_ms)))
    if command.get("error"):
        rows.append(("error", (text(command["error"]), "bad")))
    rows.append(("answer", text(command.get("result"))))
    rows.append(("id", text(command.get("id"))))
    output.fields(rows)
    details(context, command)


def details(context: Context, command: Mapping[str, Any]) -> None:
    """What an answer holds beside its words, as indented lines."""
    _lines(context, command.get("details"), "", 2)


def answer_cell(command: Mapping[str, Any]) -> Cell:
    error = command.get("error")
    return (text(error), "bad") if error else text(command.get("result"))


def _lines(context: Context, value: object, name: str, indent: int) -> None:
    pad = UNBROKEN * indent
    if isinstance(value, Mapping) and value:
        if name:
            context.output.line(f"{pad}{name}:")
        for key, each in value.items():
            _lines(context, each, text(key), indent + (2 if name else 0))
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        context.output.line(f"{pad}{name or 'details'}:")
        for each in value:
            context.output.line(f"{pad}  {text(each)}", indent=indent + 4)
    elif value is not None:
        context.output.line(f"{pad}{name or 'details'}: {text(value)}", indent=indent + 2)


def _of_all(context: Context, limit: int) -> Document:
    """The newest of the whole fleet: the API keeps them by agent."""
    client = context.client
    agents = client.agents()["agents"]
    found: list[Document] = []
    for agent in agents:
        path = path_of("agents", str(agent.get("agentId")), "commands")
        found += client.pages(path, "commands", limit=limit)["commands"]
    found.sort(key=lambda command: command.get("createdAt") or 0, reverse=True)
    return {"commands": found[:limit], "next": None}


def _told(command: Mapping[str, Any]) -> str:
    return f"{text(command.get('command'))} {arguments(command.get('args'))}".rstrip()


def _row(command: Mapping[str, Any]) -> Sequence[Cell]:
    return (
        moment(command.get("createdAt")),
        text(command.get("agentId")),
        _told(command),
        state_cell(command.get("state")),
        milliseconds(command.get("milliseconds")),
        text(command.get("who")),
        answer_cell(command),
        text(command.get("id")),
    )
