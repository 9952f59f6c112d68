"""Who the fleet is: `agents`, `show`, `sessions`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from jetcamer.cli.hub.arguments import Commands, add_agent, add_command, add_limit
from jetcamer.cli.hub.client import path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.output import Cell, Column, Rows, state_cell
from jetcamer.cli.hub.words import (
    NOTHING,
    ago,
    ahead,
    counted,
    moment,
    moment_and_ago,
    moment_and_ahead,
    percent,
    reading,
    short_moment,
    span,
    text,
)

_LEGACY = " (legacy)"

_STATES = ("online", "offline", "clock_wrong", "clone", "refused", "revoked", "never_seen")

_COLUMNS = (
    Column("AGENT", long=True),
    Column("STATE"),
    Column("HOST", long=True),
    Column("VERSION"),
    Column("ADDRESS", long=True),
    Column("CPU", right=True),
    Column("MEM", right=True),
    Column("DISK", right=True),
    Column("SEEN"),
)

#: Shown where any agent has one.
_OLD_SECRET = Column("OLD SECRET")

_SESSION_COLUMNS = (
    Column("STARTED"),
    Column("LASTED", right=True),
    Column("PEER", long=True),
    Column("VERSION"),
    Column("MESSAGES", right=True),
    Column("REFUSED", right=True),
    Column("ENDED BY", long=True),
)


def add_commands(commands: Commands) -> None:
    parser = add_command(commands, "agents", list_agents, "list the agents and how they are")
    parser.add_argument("--state", choices=_STATES, metavar="STATE", help=", ".join(_STATES))
    parser.add_argument("--search", metavar="TEXT", help="only those with TEXT in id or host")
    add_agent(add_command(commands, "show", show, "show all that is known of one agent"))
    parser = add_command(
        commands, "sessions", sessions, "list an agent's sessions and why each ended"
    )
    add_agent(parser)
    add_limit(parser)


def list_agents(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    output.expect_tables()
    listed = context.client.agents({"state": args.state, "search": args.search})
    if output.as_json:
        output.document(listed)
        return 0
    agents = listed["agents"]
    columns: Sequence[Column] = _COLUMNS
    rows = [_row(agent, context.now_ms) for agent in agents]
    if any(agent.get("oldSecretUntil") for agent in agents):
        columns = (*columns, _OLD_SECRET)
        rows = [
            (*row, _old_secret(agent, context.now_ms))
            for row, agent in zip(rows, agents, strict=True)
        ]
    output.table(columns, rows, "no agents")
    if agents and output.terminal.is_tty:
        online = sum(agent.get("state") == "online" for agent in agents)
        output.note((f"{counted(len(agents), 'agent')}, {online} online", "dim"))
    return 0


def show(context: Context, args: argparse.Namespace) -> int:
    agent = context.client.get(path_of("agents", args.agent))
    if context.output.as_json:
        context.output.document(agent)
    else:
        context.output.fields(_fields(agent, context))
    return 0


def sessions(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    output.expect_tables()
    path = path_of("agents", args.agent, "sessions")
    listed = context.client.pages(path, "sessions", limit=args.limit)
    if output.as_json:
        output.document(listed)
        return 0
    rows: list[Sequence[Cell]] = []
    for session in listed["sessions"]:
        started, ended = session.get("startedAt"), session.get("endedAt")
        is_open = ended is None
        until = context.now_ms if is_open else ended
        refused = session.get("refused")
        # Of one that is open the hub may not know them; there is one at least.
        counted_so_far = not is_open or session.get("messages")
        rows.append(
            (
                moment(started),
                span((until - started) / 1000) if isinstance(started, int) else NOTHING,
                text(session.get("peer")),
                text(session.get("version")),
                text(session.get("messages")) if counted_so_far else NOTHING,
                (text(refused), "bad" if refused else "") if counted_so_far else NOTHING,
                ("still open", "good") if is_open else text(session.get("ending")),
            )
        )

    def narrow() -> Rows:
        now_ms = context.now_ms
        return _SESSION_COLUMNS, [
            (short_moment(session.get("startedAt"), now_ms), *row[1:])
            for session, row in zip(listed["sessions"], rows, strict=True)
        ]

    output.table(_SESSION_COLUMNS, rows, f"no sessions of {args.agent}", narrow=narrow)
    return 0


def _row(agent: Mapping[str, Any], now_ms: int) -> Sequence[Cell]:
    metrics = agent.get("metrics")
    state, style = _state(agent)
    return (
        text(agent.get("agentId")),
        (state, style),
        text(agent.get("hostname")),
        text(agent.get("version")),
        text(agent.get("address")),
        percent(reading(metrics, "cpuPercent")),
        percent(reading(metrics, "memPercent")),
        percent(reading(metrics, "diskUsage")),
        ago(agent.get("lastSeen"), now_ms),
    )


def _state(agent: Mapping[str, Any]) -> tuple[str, str]:
    """An agent without a secret of its own is marked wherever it is shown."""
    cell = state_cell(agent.get("state"))
    state, style = cell if isinstance(cell, tuple) else (cell, "")
    return (state + _LEGACY if agent.get("legacy") else state), style


def _state_and_words(agent: Mapping[str, Any]) -> Cell:
    """The state and what the hub says of it, which may begin with the state itself."""
    state, style = _state(agent)
    said = text(agent.get("words"))
    plain = state.removesuffix(_LEGACY)
    if said in (NOTHING, plain):
        return state, style
    if said.startswith(plain):
        return state + said.removeprefix(plain), style
    return f"{state}: {said}", style


def _old_secret(agent: Mapping[str, Any], now_ms: int) -> Cell:
    """How long one is valid beside a newer one, and whether the agent still needs it."""
    until = agent.get("oldSecretUntil")
    if not until:
        return NOTHING
    used = agent.get("oldSecretUsed")
    use = "" if used is None else ", still used" if used else ", not used"
    return f"ends {ahead(until, now_ms)}{use}", "warn" if used else ""


def _fields(agent: Mapping[str, Any], context: Context) -> list[tuple[str, Cell]]:
    now_ms = context.now_ms
    rows: list[tuple[str, Cell]] = [
        ("agent", (text(agent.get("agentId")), "strong")),
        ("state", _state_and_words(agent)),
        ("host", text(agent.get("hostname"))),
        ("version", text(agent.get("version"))),
        ("address", text(agent.get("address"))),
        ("connected", moment_and_ago(agent.get("connectedAt"), now_ms)),
        ("last seen", moment_and_ago(agent.get("lastSeen"), now_ms)),
        ("added", moment_and_ago(agent.get("createdAt"), now_ms)),
        ("can do", text(agent.get("capabilities"))),
    ]
    skew = agent.get("clockSkewMs")
    if isinstance(skew, int | float):
        direction = "fast" if skew > 0 else "slow"
        rows.append(("clock", (f"{abs(skew) / 1000:g} s {direction}", "warn")))
    if agent.get("legacy"):
        rows.append(("secret", ("the one shared by all legacy agents", "warn")))
    until = agent.get("oldSecretUntil")
    if until:
        used = agent.get("oldSecretUsed")
        use = "" if used is None else "; the agent still uses it" if used else "; it is not used"
        words = f"valid until {moment_and_ahead(until, now_ms)}{use}"
        rows.append(("old secret", (words, "warn" if used else "")))
    metrics = agent.get("metrics")
    for name, member in (("cpu", "cpuPercent"), ("memory", "memPercent"), ("disk", "diskUsage")):
        value = reading(metrics, member)
        if value is not None:
            rows.append((name, f"{percent(value):>6}  {context.output.terminal.bar(value, 20)}"))
    if isinstance(metrics, Mapping):
        rows.append(("measured", moment_and_ago(metrics.get("ts"), now_ms)))
    if agent.get("queuedCommands"):
        rows.append(("queued", counted(agent["queuedCommands"], "command")))
    refusal = agent.get("lastRefusal")
    if isinstance(refusal, Mapping):
        rows.append(
            (
                "refused",
                (
                    f"{text(refusal.get('reason'))}, {ago(refusal.get('ts'), now_ms)}: "
                    f"{text(refusal.get('words'))}",
                    "bad",
                ),
            )
        )
    return rows
