"""Rows → a page of them, bounded by number and by memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from jetcamer.hub.store.interface import Page

R = TypeVar("R")
C = TypeVar("C")


def weight(value: object) -> int:
    """About as many bytes of memory as a value takes, with what it holds."""
    if isinstance(value, msgspec.Struct):
        return sys.getsizeof(value) + sum(
            weight(getattr(value, name)) for name in value.__struct_fields__
        )
    if isinstance(value, tuple | list):
        return sys.getsizeof(value) + sum(map(weight, value))
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(weight(k) + weight(v) for k, v in value.items())
    return sys.getsizeof(value)


def page(
    rows: Iterable[R], limit: int, max_bytes: int, cursor: Callable[[R], C], end: C | None = None
) -> Page[R, C]:
    """Reads no further than one row beyond the page.

    :param end: the cursor after the last of `rows`, where there may be others after them.
    """
    taken: list[R] = []
    used = 0
    for row in rows:
        used += weight(row)
        if taken and (len(taken) >= limit or used > max_bytes):
            return Page(taken, cursor(taken[-1]))
        taken.append(row)
    return Page(taken, end)
