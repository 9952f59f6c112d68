"""Figures of the API as words for a person."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from jetcamer.cli.terminal import visible

#: What stands where there is nothing.
NOTHING = "-"

_UNITS = ((86_400, "d", 129_600), (3600, "h", 5400), (60, "min", 90), (1, "s", 0))


def text(value: object) -> str:
    """`value` on one line, whatever it is; `NOTHING` for none and for an empty one."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value)) or NOTHING
    if isinstance(value, Mapping):
        return ", ".join(f"{text(key)}={text(each)}" for key, each in value.items()) or NOTHING
    return visible(str(value))


def span(seconds: float) -> str:
    """A length of time in its largest unit: `45 s`, `3 min`, `5 h`, `2 d`."""
    for unit, name, least in _UNITS:
        if seconds >= least:
            return f"{round(seconds / unit)} {name}"
    return "0 s"


def ago(ms: object, now_ms: int) -> str:
    """How long before or after now, `NOTHING` for no time."""
    if not isinstance(ms, int | float):
        return NOTHING
    seconds = (now_ms - ms) / 1000
    if -2 < seconds < 2:
        return "just now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def ahead(ms: object, now_ms: int) -> str:
    """As `ago`, of what is still to come: half a second ahead is not `just now`."""
    if isinstance(ms, int | float) and ms > now_ms:
        return f"in {span(max(1.0, (ms - now_ms) / 1000))}"
    return ago(ms, now_ms)


def moment(ms: object) -> str:
    """Local time to the second."""
    if not isinstance(ms, int | float):
        return NOTHING
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))
    except (OverflowError, ValueError, OSError):
        return text(ms)


def short_moment(ms: object, now_ms: int) -> str:
    """Local time as short as it is still plain: today without the date, else to the minute."""
    words = moment(ms)
    if not isinstance(ms, int | float) or len(words) != len("2026-01-31 08:00:00"):
        return words
    return words[11:] if words[:10] == moment(now_ms)[:10] else words[5:16]


def moment_and_ahead(ms: object, now_ms: int) -> str:
    if not isinstance(ms, int | float):
        return NOTHING
    return f"{moment(ms)} ({ahead(ms, now_ms)})"


def first_line(value: object, more: str) -> str:
    """`value` as `text` has it; of several lines the first one and `more`."""
    if not isinstance(value, str):
        return text(value)
    lines = value.strip().splitlines()
    return text(lines[0].rstrip()) + more if len(lines) > 1 else text(value.strip())


def moment_and_ago(ms: object, now_ms: int) -> str:
    if not isinstance(ms, int | float):
        return NOTHING
    return f"{moment(ms)} ({ago(ms, now_ms)})"


def percent(value: object) -> str:
    return f"{value:.1f}%" if isinstance(value, int | float) else NOTHING


def size(count: object) -> str:
    """Bytes, in the unit that leaves at most four digits."""
    if not isinstance(count, int | float):
        return NOTHING
    number = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 10_000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.0f} TB"


def milliseconds(value: object) -> str:
    if not isinstance(value, int | float):
        return NOTHING
    return f"{value:.0f} ms" if value < 10_000 else span(value / 1000)


def arguments(args: object) -> str:
    """A command's arguments as they are typed."""
    if not isinstance(args, Mapping):
        return ""
    return " ".join(f"{visible(str(key))}={visible(str(value))}" for key, value in args.items())


def reading(metrics: Any, member: str) -> float | None:
    """One of an agent's latest percentages."""
    value = metrics.get(member) if isinstance(metrics, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def counted(number: int, one: str, many: str = "") -> str:
    """`1 agent`, `2 agents`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
