"""What happens in the fleet, as it happens: `events`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from itertools import islice
from typing import Any

from jetcamer.cli.hub.arguments import Commands, add_command, count, names
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.output import LEVELS, STATES, Cell
from jetcamer.cli.hub.stream import GAP, Event, EventStream
from jetcamer.cli.hub.words import arguments, first_line, moment, percent, reading, text

KINDS = ("agent", "metrics", "log", "command", "refusal")


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands,
        "events",
        events,
        "follow what happens in the fleet",
        "A connection that breaks is made again and goes on where it broke.",
    )
    parser.add_argument(
        "--kinds", type=_kinds, metavar="A,B", help=f"only these of {', '.join(KINDS)}"
    )
    parser.add_argument("--agents", type=names, metavar="A,B", help="only of these agents")
    parser.add_argument("--after", metavar="ID", type=_event_id, help="begin after this event")
    parser.add_argument("-n", "--count", type=count, metavar="N", help="end after so many")


def events(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    stream = EventStream(
        context.client,
        {
            "kinds": ",".join(args.kinds) if args.kinds else None,
            "agents": ",".join(args.agents) if args.agents else None,
        },
        last_id=args.after,
        sleep=context.sleep,
        on_break=lambda words, seconds: broken(context, words, seconds),
    )
    try:
        for event in islice(stream, args.count):
            if output.as_json:
                output.item({"id": event.event_id, "event": event.kind, "data": event.data})
            else:
                _line(context, event)
    finally:
        stream.close()
    return 0


def broken(context: Context, words: str, seconds: float) -> None:
    # What to do about it is said where it ends the command.
    what = words.split(": ", 1)[0]
    context.output.note((f"{what}; trying again in {max(1, round(seconds))} s", "dim"))


def _line(context: Context, event: Event) -> None:
    data = event.data
    if event.kind == GAP:
        context.output.line(("some events were missed here", "warn"))
        return
    words = summary(event.kind, data, context.output.more)
    context.output.line(
        (moment(data.get("ts")), "dim"),
        f"  {text(event.kind):<8}",
        (f"{text(data.get('agentId'))}  ", "strong"),
        words,
        indent=21,
    )


def summary(kind: str, data: Mapping[str, Any], more: str) -> Cell:
    """One event in a line, without its time and its agent.

    :param more: stands where an answer goes on below.
    """
    if kind == "metrics":
        return "  ".join(
            f"{name} {percent(reading(data, member)):>6}"
            for name, member in (
                ("cpu", "cpuPercent"),
                ("mem", "memPercent"),
                ("disk", "diskUsage"),
            )
        )
    if kind == "log":
        level = text(data.get("level"))
        return f"{level}: {text(data.get('message'))}", LEVELS.get(level.lower(), "")
    if kind == "command":
        state = text(data.get("state"))
        told = f"{text(data.get('command'))} {arguments(data.get('args'))}".rstrip()
        answer = data.get("error") or data.get("result")
        return f"{told}: {state}" + (f", {first_line(answer, more)}" if answer else ""), STATES.get(
            state, ""
        )
    if kind == "refusal":
        place = f"{text(data.get('address'))}: " if data.get("address") else ""
        return f"{place}{text(data.get('reason'))}: {text(data.get('words'))}", "bad"
    if kind == "agent" and data.get("state"):
        state = text(data["state"])
        said = f": {text(data['words'])}" if data.get("words") else ""
        return state.replace("_", " ") + said, STATES.get(state, "")
    return text({key: value for key, value in data.items() if key not in ("agentId", "ts")})


def _kinds(words: str) -> list[str]:
    listed = names(words)
    for kind in listed:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(KINDS)}")
    return listed


def _event_id(words: str) -> str:
    if not words.isascii() or not words.isprintable() or not words.strip():
        raise argparse.ArgumentTypeError(f"{words!r} is not the id of an event")
    return words
