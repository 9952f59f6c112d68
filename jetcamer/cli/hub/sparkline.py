"""A row of numbers as a row of characters."""

from __future__ import annotations

from collections.abc import Sequence

_UNICODE = "▁▂▃▄▅▆▇█"
_ASCII = "_.-:=+*#"


def sparkline(values: Sequence[float | None], *, unicode: bool) -> str:
    """One character a value, on a scale from 0 to 100; a space where there is none."""
    marks = _UNICODE if unicode else _ASCII
    return "".join(" " if value is None else marks[_level(value, len(marks))] for value in values)


def columns(
    points: Sequence[tuple[float, float | None]], begin: float, end: float, width: int
) -> list[float | None]:
    """Averages of (time, value) in `width` equal spans from `begin` to `end`."""
    sums = [0.0] * width
    counts = [0] * width
    length = max(end - begin, 1.0)
    for ts, value in points:
        if value is not None and begin <= ts <= end:
            column = min(width - 1, int((ts - begin) / length * width))
            sums[column] += value
            counts[column] += 1
    return [total / count if count else None for total, count in zip(sums, counts, strict=True)]


def _level(value: float, levels: int) -> int:
    return min(levels - 1, max(0, int(value / 100 * levels)))
