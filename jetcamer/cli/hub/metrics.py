"""What an agent measured: `metrics`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from jetcamer.cli.hub.arguments import Commands, add_agent, add_command, add_range, count
from jetcamer.cli.hub.client import path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.output import Cell, Column
from jetcamer.cli.hub.sparkline import columns, sparkline
from jetcamer.cli.hub.words import counted, moment, percent, span, text
from jetcamer.cli.terminal import UNBROKEN

_READINGS = (("cpu", "cpuPercent"), ("memory", "memPercent"), ("disk", "diskUsage"))

#: Characters of a line beside its sparkline.
_BESIDE = 44

_COLUMNS = (
    Column("TIME"),
    Column("MESSAGES", right=True),
    *(
        Column(f"{name.upper()}{kind}", right=True)
        for name, _ in _READINGS
        for kind in ("", " MIN", " MAX")
    ),
)


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands, "metrics", metrics, "draw an agent's cpu, memory and disk over time"
    )
    add_agent(parser)
    add_range(parser)
    parser.add_argument("--points", type=count, metavar="N", help="at most so many points")
    parser.add_argument("--table", action="store_true", help="every point on a line of its own")


def metrics(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    if args.table:
        output.expect_tables()
    query = {"from": args.begin, "to": args.end, "points": args.points}
    series = context.client.get(path_of("agents", args.agent, "metrics"), query)
    if output.as_json:
        output.document(series)
        return 0
    points = [point for point in series.get("points") or [] if isinstance(point, Mapping)]
    if not points:
        output.note((f"no metrics of {args.agent} in that time", "dim"))
    elif args.table:
        output.table(_COLUMNS, map(_row, points), "")
    else:
        _draw(context, series, points)
    return 0


def _draw(context: Context, series: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> None:
    output = context.output
    begin, end = series.get("from", points[0].get("ts")), series.get("to", points[-1].get("ts"))
    step = series.get("stepMs")
    each = f", each {span(step / 1000)}" if isinstance(step, int | float) and step else ""
    output.line(
        (f"{text(series.get('agentId'))}  {moment(begin)} to {moment(end)}", "strong"),
        (f"  {counted(len(points), 'point')}{each}, {text(series.get('resolution'))}", "dim"),
    )
    width = max(10, min(80, output.terminal.width - _BESIDE))
    for name, member in _READINGS:
        averages = [(point.get("ts", 0), _value(point, member, "avg")) for point in points]
        known = [value for _, value in averages if value is not None]
        if not known:
            output.line(f"{name:<7}", ("no readings", "dim"))
            continue
        line = sparkline(columns(averages, begin, end, width), unicode=output.terminal.unicode)
        least = min(_values(points, member, "min") or known)
        most = max(_values(points, member, "max") or known)
        # Unbroken spaces keep a chart whole; a narrow terminal goes on after it.
        output.line(
            f"{name:<7}",
            (line.replace(" ", UNBROKEN), "good"),
            f" now {percent(known[-1]):>6}",
            (f" min {percent(least):>6} max {percent(most):>6}", "dim"),
            indent=7,
        )


def _row(point: Mapping[str, Any]) -> Sequence[Cell]:
    values = [
        percent(_value(point, member, kind))
        for _, member in _READINGS
        for kind in ("avg", "min", "max")
    ]
    return (moment(point.get("ts")), text(point.get("count")), *values)


def _values(points: Sequence[Mapping[str, Any]], member: str, kind: str) -> list[float]:
    values = (_value(point, member, kind) for point in points)
    return [value for value in values if value is not None]


def _value(point: Mapping[str, Any], member: str, kind: str) -> float | None:
    reading = point.get(member)
    value = reading.get(kind) if isinstance(reading, Mapping) else None
    return float(value) if isinstance(value, int | float) else None
