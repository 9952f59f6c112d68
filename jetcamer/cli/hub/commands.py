"""What agents were told, and what they answered: `commands`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from jetcamer.cli.hub.arguments import Commands, add_agent, add_command, add_limit
from jetcamer.cli.hub.client import Document, path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.output import Cell, Column, Rows, state_cell
from jetcamer.cli.hub.words import (
    arguments,
    first_line,
    milliseconds,
    moment,
    moment_and_ago,
    moment_and_ahead,
    short_moment,
    text,
)
from jetcamer.cli.terminal import UNBROKEN

COLUMNS = (
    Column("TIME"),
    Column("AGENT", long=True),
    Column("COMMAND", long=True),
    Column("STATE"),
    Column("TOOK", right=True),
    Column("BY", long=True),
    Column("ANSWER", long=True),
    # Never broken: it is to be copied.
    Column("ID"),
)

#: Rows of a batch asked for at a time.
_BATCH_PAGE = 1000

#: Characters of an id where there is no room for all of it; and how many of the newest commands
#: are looked through for one that was given so.
_SHORT_ID = 8
_SHORT_ID_AMONG = 1000


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands,
        "commands",
        list_commands,
        "list what an agent, or the fleet, was told and answered",
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
        show_command(context, _one(context, args.command_id))
        return 0
    output.expect_tables()
    if args.batch:
        listed = batch(context, args.batch)
    else:
        path = path_of("agents", args.agent, "commands") if args.agent else path_of("commands")
        listed = client.pages(path, "commands", limit=args.limit)
    if output.as_json:
        output.document(listed)
    else:
        table(context, listed.get("commands") or [])
    return 0


def _one(context: Context, command_id: str) -> Document:
    """A command by its id, or by the beginning of it that a narrow table shows."""
    try:
        return context.client.get(path_of("commands", command_id))
    except HubError as error:
        if error.status != 404 or len(command_id) != _SHORT_ID:
            raise
        newest = context.client.pages(path_of("commands"), "commands", limit=_SHORT_ID_AMONG)
        found: list[Document] = newest["commands"]
        found = [each for each in found if _id(each).startswith(command_id)]
        if len(found) != 1:
            raise
        return found[0]


def batch(context: Context, batch_id: str) -> Document:
    """How far a command for many agents is, with all of its commands."""
    return context.client.pages(
        path_of("command-batches", batch_id),
        "commands",
        query={"commands": "true"},
        cursor="after",
        page_rows=_BATCH_PAGE,
    )


def table(context: Context, commands: Sequence[Mapping[str, Any]]) -> None:
    more = context.output.more
    rows = [_row(command, more) for command in commands]

    def narrow() -> Rows:
        ids = _short_ids([_id(command) for command in commands])
        return COLUMNS, [
            (short_moment(command.get("createdAt"), context.now_ms), *row[1:-1], short)
            for command, row, short in zip(commands, rows, ids, strict=True)
        ]

    context.output.table(COLUMNS, rows, "no commands", narrow=narrow)


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
        rows.append(("waits until", moment_and_ahead(command.get("expiresAt"), now_ms)))
    if command.get("error"):
        rows.append(("error", (text(command["error"]), "bad")))
    result = command.get("result")
    if not has_lines(result):
        rows.append(("answer", text(result)))
    rows.append(("id", text(command.get("id"))))
    output.fields(rows)
    if has_lines(result):
        output.line(("answer:", "dim"))
        output.text(str(result))
    details(context, command)


def details(context: Context, command: Mapping[str, Any]) -> None:
    """What an answer holds beside its words, as indented lines."""
    _lines(context, command.get("details"), "", 2)


def has_lines(result: object) -> bool:
    """Whether it is several lines."""
    return isinstance(result, str) and "\n" in result.strip("\n")


def _answer_cell(command: Mapping[str, Any], more: str) -> Cell:
    error = command.get("error")
    return (first_line(error, more), "bad") if error else first_line(command.get("result"), more)


def _id(command: Mapping[str, Any]) -> str:
    return text(command.get("id"))


def _short_ids(ids: Sequence[str]) -> list[str]:
    """The beginning of each, where no other begins so."""
    beginnings = Counter(each[:_SHORT_ID] for each in set(ids))
    return [each[:_SHORT_ID] if beginnings[each[:_SHORT_ID]] == 1 else each for each in ids]


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


def _told(command: Mapping[str, Any]) -> str:
    return f"{text(command.get('command'))} {arguments(command.get('args'))}".rstrip()


def _row(command: Mapping[str, Any], more: str) -> Sequence[Cell]:
    return (
        moment(command.get("createdAt")),
        text(command.get("agentId")),
        _told(command),
        state_cell(command.get("state")),
        milliseconds(command.get("milliseconds")),
        text(command.get("who")),
        _answer_cell(command, more),
        _id(command),
    )
