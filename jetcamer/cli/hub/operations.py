"""The hub itself: `status`, `audit`, `backup`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from jetcamer.cli.hub.arguments import Commands, Parser, add_command, add_limit
from jetcamer.cli.hub.client import path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.output import Cell, Column
from jetcamer.cli.hub.words import counted, moment, moment_and_ago, size, text

#: Seconds a copy of a large database may take.
_BACKUP_TIMEOUT = 600.0

#: Seconds to read the whole audit trail.
_VERIFY_TIMEOUT = 300.0

_AUDIT_ENTRIES = 50

_AUDIT_COLUMNS = (
    Column("ID", right=True),
    Column("TIME"),
    Column("WHO", long=True),
    Column("ACTION"),
    Column("SUBJECT", long=True),
    Column("DETAILS", long=True),
)


def add_status(commands: Commands) -> None:
    add_command(
        commands,
        "status",
        status,
        "say how the hub itself is",
        "Exit status 1 where it is not ready for agents.",
    )


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands, "audit", list_audit, "list what operators changed, or check that trail"
    )
    add_limit(parser, _AUDIT_ENTRIES)
    audit = parser.add_subparsers(dest="audit_command", metavar="ACTION", parser_class=Parser)
    listed = add_command(audit, "list", list_audit, "list the newest entries; so does `audit`")
    add_limit(listed, _AUDIT_ENTRIES, again=True)
    add_command(
        audit,
        "verify",
        verify_audit,
        "check that no entry was changed, removed or put in",
        "Exit status 1 where the trail is broken.",
    )
    add_command(commands, "backup", backup, "copy the hub's database, while it runs")


def status(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    found = context.client.get(path_of("status"))
    ready = bool(found.get("ready"))
    if output.as_json:
        output.document(found)
        return 0 if ready else 1
    why = f": {text(found.get('why'))}" if found.get("why") else ""
    state: Cell = ("ready", "good") if ready else (f"not ready{why}", "bad")
    if found.get("draining"):
        state = (f"stopping{why}", "warn")
    refusals = found.get("refusals")
    rows: list[tuple[str, Cell]] = [
        ("hub", (context.client.settings.url, "strong")),
        ("state", state),
        ("version", text(found.get("version"))),
        ("started", moment_and_ago(found.get("startedAt"), context.now_ms)),
        ("agents", f"{text(found.get('agentsOnline'))} online of {text(found.get('agentsKnown'))}"),
        ("connections", text(found.get("connections"))),
        ("messages", text(found.get("messages"))),
        ("refusals", (text(refusals), "warn") if refusals else "none"),
        ("store", _store(found.get("store"))),
    ]
    banned = found.get("bannedAddresses")
    if banned:
        words = f"{counted(banned, 'address is', 'addresses are')} banned: jetcamer hub bans"
        rows.insert(-1, ("bans", (words, "warn")))
    lag = found.get("reactorLagSeconds")
    if isinstance(lag, int | float):
        rows.append(("reactor lag", (f"{lag * 1000:.0f} ms", "warn" if lag > 1 else "")))
    output.fields(rows)
    return 0 if ready else 1


def _store(store: object) -> Cell:
    if not isinstance(store, Mapping):
        return text(store)
    figures = [size(store.get("size"))]
    if store.get("waiting"):
        figures.append(f"{store['waiting']} waiting")
    lag = store.get("lagSeconds")
    if isinstance(lag, int | float) and lag >= 0.1:
        figures.append(f"{lag:.1f} s behind")
    if store.get("lost"):
        figures.append(f"{store['lost']} lost")
    words = ", ".join(figures)
    if not store.get("ok"):
        return f"{text(store.get('words'))} ({words})", "bad"
    return words, "warn" if store.get("lost") else ""


def list_audit(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    output.expect_tables()
    listed = context.client.pages(path_of("audit"), "entries", limit=args.limit)
    if output.as_json:
        output.document(listed)
        return 0
    rows = [
        (
            text(entry.get("id")),
            moment(entry.get("ts")),
            text(entry.get("who")),
            text(entry.get("action")),
            text(entry.get("subject")),
            text(entry.get("details")),
        )
        for entry in listed["entries"]
    ]
    output.table(_AUDIT_COLUMNS, rows, "nothing was changed yet")
    return 0


def verify_audit(context: Context, args: argparse.Namespace) -> int:
    found = context.client.request("GET", path_of("audit", "verify"), timeout=_VERIFY_TIMEOUT)
    wrong = found.get("firstWrong")
    verified = found.get("verified")
    if context.output.as_json:
        context.output.document(found)
    elif wrong is None:
        right = counted(verified if isinstance(verified, int) else 0, "entry", "entries")
        context.output.line(("whole", "good"), f": {right}, each carries the one before")
    else:
        context.output.line(
            ("broken", "bad"),
            f" at entry {text(wrong)}: it, or one before it, was changed, removed or put in "
            f"({text(verified)} are right)",
        )
    return 0 if wrong is None and isinstance(verified, int) else 1


def backup(context: Context, args: argparse.Namespace) -> int:
    answer = context.client.post(path_of("backup"), timeout=_BACKUP_TIMEOUT)
    if context.output.as_json:
        context.output.document(answer)
    else:
        context.output.line(
            text(answer.get("path")), (f"  {size(answer.get('size'))}, on the hub", "dim")
        )
    return 0
