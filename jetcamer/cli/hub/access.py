"""Who may use the hub's API: `access create|list|delete`."""

from __future__ import annotations

import argparse

from jetcamer.cli.hub.arguments import (
    Commands,
    add_command,
    add_group,
    add_yes,
    whole_seconds,
)
from jetcamer.cli.hub.client import path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.output import Column
from jetcamer.cli.hub.words import ago, ahead, moment_and_ahead, text

_ROLES = ("viewer", "operator", "admin")

_COLUMNS = (
    Column("ID", long=True),
    Column("NAME", long=True),
    Column("ROLE"),
    Column("MADE"),
    Column("LAST USED"),
    Column("EXPIRES"),
)


def add_commands(commands: Commands) -> None:
    access = add_group(
        commands,
        "access",
        "make, list and delete API tokens: who may look, command, administer",
    )
    create = add_command(access, "create", create_access, "make an API token and print it")
    create.add_argument("--name", required=True, help="whose it is, as the audit trail shows it")
    create.add_argument(
        "--role",
        required=True,
        choices=_ROLES,
        metavar="ROLE",
        help="viewer looks, operator also commands, admin also changes the fleet",
    )
    create.add_argument(
        "--expires", type=whole_seconds, metavar="T", help="valid so long (else until deleted)"
    )
    add_command(access, "list", list_access, "list the API tokens, without the tokens themselves")
    delete = add_command(access, "delete", delete_access, "make an API token worthless")
    delete.add_argument("token_id", metavar="ID", help="as `access list` shows it")
    add_yes(delete, asks=False)


def create_access(context: Context, args: argparse.Namespace) -> int:
    body: dict[str, object] = {"name": args.name, "role": args.role}
    if args.expires is not None:
        body["expiresSeconds"] = args.expires
    answer = context.client.post(path_of("tokens"), body)
    if context.output.as_json:
        context.output.document(answer)
        return 0
    until = answer.get("expiresAt")
    ends = f" until {moment_and_ahead(until, context.now_ms)}" if until else ""
    context.output.note((f"{args.name} is {args.role}{ends}. Shown this once:", "dim"))
    context.output.line(text(answer.get("token")))
    return 0


def list_access(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    output.expect_tables()
    answer = context.client.get(path_of("tokens"))
    if output.as_json:
        output.document(answer)
        return 0
    now_ms = context.now_ms
    rows = [
        (
            text(token.get("id")),
            text(token.get("name")),
            text(token.get("role")),
            ago(token.get("createdAt"), now_ms),
            ago(token.get("lastUsed"), now_ms),
            ahead(token.get("expiresAt"), now_ms),
        )
        for token in answer.get("tokens") or []
    ]
    output.table(_COLUMNS, rows, "no API tokens")
    return 0


def delete_access(context: Context, args: argparse.Namespace) -> int:
    answer = context.client.delete(path_of("tokens", args.token_id))
    context.output.done(answer, "the API token is deleted")
    return 0
