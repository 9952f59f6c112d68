"""Who belongs to the fleet: `agent add|list|rotate|revoke`, and `token`, by which machines join.

Standard output is what is to be kept: a configuration, a line to run. A secret is in it once.
"""

from __future__ import annotations

import argparse
import getpass
import json
from collections.abc import Mapping

from jetcamer.cli.hub.agents import list_agents
from jetcamer.cli.hub.arguments import (
    Commands,
    add_command,
    add_group,
    add_yes,
    count,
    grace,
    whole_seconds,
)
from jetcamer.cli.hub.client import path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.output import Column
from jetcamer.cli.hub.words import ago, ahead, counted, moment_and_ahead, span, text
from jetcamer.cli.terminal import UNBROKEN

#: A line of standard input that is longer is no secret.
_SECRET_CHARACTERS = 4096

_TOKEN_COLUMNS = (
    Column("ID", long=True),
    Column("EXPIRES"),
    Column("USES LEFT", right=True),
    Column("MADE BY", long=True),
    Column("MADE"),
)


def add_commands(commands: Commands) -> None:
    agent = add_group(commands, "agent", "add agents, change their secrets, revoke them")
    add = add_command(
        agent, "add", add_agent, "make an agent known and print its configuration, secret included"
    )
    rotate = add_command(
        agent, "rotate", rotate_agent, "give an agent a new secret; the old one is valid for a time"
    )
    rotate.add_argument(
        "--grace",
        type=grace,
        default=86_400,
        metavar="T",
        help="how long the old secret stays valid (24h)",
    )
    revoke = add_command(
        agent, "revoke", revoke_agent, "shut an agent out: its connection is closed at once"
    )
    add_yes(revoke)
    restore = add_command(
        agent, "restore", restore_agent, "take a revocation back, with a new secret"
    )
    for each in (add, rotate, revoke, restore):
        each.add_argument("name", metavar="NAME", help="the agent's id")
    for each in (add, rotate):
        each.add_argument(
            "--secret-from-stdin",
            action="store_true",
            help="take the secret from a line of standard input instead of making one",
        )
    listed = add_command(agent, "list", list_agents, "list the agents")
    listed.set_defaults(state=None, search=None)
    _add_token_commands(commands)


def _add_token_commands(commands: Commands) -> None:
    token = add_group(
        commands, "token", "make, list and delete the tokens by which machines join the fleet"
    )
    create = add_command(
        token, "create", create_token, "make a join token and print what to run on the machine"
    )
    create.add_argument(
        "--expires", type=whole_seconds, default=3600, metavar="T", help="valid so long (1h)"
    )
    create.add_argument(
        "--uses", type=count, default=1, metavar="N", help="for so many machines (1)"
    )
    create.add_argument(
        "--join-url", metavar="URL", help="the hub as the machine reaches it (else --url)"
    )
    add_command(token, "list", list_tokens, "list the join tokens that are still valid")
    delete = add_command(token, "delete", delete_token, "make a join token worthless")
    delete.add_argument("token_id", metavar="ID", help="as `token list` shows it")
    add_yes(delete, asks=False)


def add_agent(context: Context, args: argparse.Namespace) -> int:
    body = {"agentId": args.name, **_secret(context, args)}
    answer = context.client.post(path_of("agents"), body)
    _configuration(context, answer, f"{args.name} is known now.")
    return 0


def rotate_agent(context: Context, args: argparse.Namespace) -> int:
    body = {"graceSeconds": args.grace, **_secret(context, args)}
    answer = context.client.post(path_of("agents", args.name, "rotate"), body)
    until = moment_and_ahead(answer.get("oldValidUntil"), context.now_ms)
    _configuration(context, answer, f"{args.name} has a new secret; the old one ends {until}.")
    return 0


def revoke_agent(context: Context, args: argparse.Namespace) -> int:
    if not args.yes:
        if not context.stdin.isatty():
            args.parser.error("nobody can be asked here: say --yes")
        context.output.note(
            f"{args.name} is shut out at once, and its secret is worth nothing any more. "
            "Type yes to do it:"
        )
        if context.stdin.readline().strip().lower() not in ("y", "yes"):
            raise HubError("nothing was done")
    answer = context.client.post(path_of("agents", args.name, "revoke"))
    context.output.done(answer, f"{args.name} is revoked")
    return 0


def restore_agent(context: Context, args: argparse.Namespace) -> int:
    answer = context.client.post(path_of("agents", args.name, "restore"))
    _configuration(context, answer, f"{args.name} belongs to the fleet again.")
    return 0


def create_token(context: Context, args: argparse.Namespace) -> int:
    body = {"expiresSeconds": args.expires, "uses": args.uses}
    answer = context.client.post(path_of("join-tokens"), body)
    settings = context.client.settings
    url = args.join_url or settings.url
    if context.output.as_json:
        context.output.document(answer)
        return 0
    context.output.note(
        (
            f"Run this on the machine, within {span(args.expires)}; it is good for "
            f"{counted(args.uses, 'machine')} and is shown this once:",
            "dim",
        )
    )
    # One unbroken line, however narrow the terminal: it is to be copied.
    context.output.line(
        f"jetcamer join {text(url)} {text(answer.get('token'))}".replace(" ", UNBROKEN)
    )
    if settings.is_loopback and not args.join_url:
        context.output.note(
            (f"{url} is this machine only: elsewhere, put the hub's own address", "warn")
        )
    return 0


def list_tokens(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    output.expect_tables()
    answer = context.client.get(path_of("join-tokens"))
    if output.as_json:
        output.document(answer)
        return 0
    now_ms = context.now_ms
    rows = [
        (
            text(token.get("id")),
            ahead(token.get("expiresAt"), now_ms),
            text(token.get("usesLeft")),
            text(token.get("who")),
            ago(token.get("createdAt"), now_ms),
        )
        for token in answer.get("tokens") or []
    ]
    output.table(_TOKEN_COLUMNS, rows, "no join tokens")
    return 0


def delete_token(context: Context, args: argparse.Namespace) -> int:
    answer = context.client.delete(path_of("join-tokens", args.token_id))
    context.output.done(answer, "the join token is deleted")
    return 0


def _secret(context: Context, args: argparse.Namespace) -> dict[str, str]:
    """`{"secret": …}` from standard input where that was asked for; unseen on a terminal."""
    if not args.secret_from_stdin:
        return {}
    if context.stdin.isatty():
        secret = getpass.getpass(f"secret of {args.name}: ")
    else:
        secret = context.stdin.readline(_SECRET_CHARACTERS + 1).rstrip("\r\n")
    if not secret or len(secret) > _SECRET_CHARACTERS:
        raise HubError("no secret on standard input: it is one line")
    return {"secret": secret}


def _configuration(context: Context, answer: Mapping[str, object], words: str) -> None:
    """The members to put into the agent's configuration: alone on standard output."""
    output = context.output
    if output.as_json:
        output.document(answer)
        return
    output.note(words)
    output.note(("The secret is shown this once. Put this into the agent's configuration:", "dim"))
    # As JSON, whole lines: it is to be pasted.
    config = answer.get("config")
    for line in json.dumps(config, indent=2).splitlines():
        output.line(line.replace(" ", UNBROKEN))
    settings = context.client.settings
    url = config.get("wsApiUrl") if isinstance(config, Mapping) else None
    if not url:
        words = "The hub does not know where agents connect: put the wsApiUrl in (agentUrl there)."
        output.note((words, "warn"))
    if settings.is_loopback and f"//{settings.host}" in str(url):
        output.note(("The wsApiUrl is this machine's own: elsewhere, put the hub's name.", "warn"))
