"""Whether two machines connect with one agent's id.

In: each session of an agent that a newer one took the place of. Out: whether that looks like two
machines, and who they are, in words. One machine whose connection broke without a word replaces
itself too, now and then; two replace each other for ever, once a minute when their waits have
grown. What is remembered is bounded, and made with an agent's first replacement.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from jetcamer.protocol.errors import excerpt

#: More replacements than this within `_FAST_MS` are two machines, whoever they are.
CLONE_REPLACEMENTS = 5
_FAST_MS = 60_000

#: Fewer are, where those that were replaced come back: within this time, so many times. Of
#: machines that look alike, one that is slow to come back was not waiting for its turn.
_SLOW_MS = 600_000
_BACK_MS = 120_000
_RETURNS = 2
_RETURNS_ALIKE = 3

#: A clone is one until nobody has taken another's place for this long.
_MEMORY_MS = 300_000


class Machine(NamedTuple):
    """As which two that use one id may be told apart."""

    address: str
    hostname: str


class _Replacement(NamedTuple):
    when_ms: int
    replaced: Machine
    #: Both looked alike.
    alike: bool
    #: The newer one had been replaced itself, shortly before.
    returned: bool


class Replacements:
    """Of one agent. Times are Unix milliseconds by the hub's clock."""

    __slots__ = ("_clone_ms", "_latest", "_machines")

    def __init__(self) -> None:
        self._latest: deque[_Replacement] = deque(maxlen=16)
        #: When it last looked like two.
        self._clone_ms: int | None = None
        self._machines: tuple[Machine, Machine] | None = None

    def add(self, now_ms: int, older: Machine, newer: Machine) -> None:
        """`newer` took the place of `older`, whose connection was open."""
        latest = self._latest
        alike = older == newer
        if alike:
            returned = bool(latest) and now_ms - latest[-1].when_ms <= _BACK_MS
        else:
            returned = any(
                each.replaced == newer for each in latest if now_ms - each.when_ms <= _SLOW_MS
            )
        latest.append(_Replacement(now_ms, older, alike, returned))
        if not alike or self._machines is None:
            self._machines = (min(older, newer), max(older, newer))
        goes_on = self.is_clone(now_ms) and (returned or not alike)
        if goes_on or self._looks_like_two(now_ms):
            self._clone_ms = now_ms

    def _looks_like_two(self, now_ms: int) -> bool:
        latest = self._latest
        n = CLONE_REPLACEMENTS + 1
        if len(latest) >= n and now_ms - latest[-n].when_ms <= _FAST_MS:
            return True
        returns = [
            each.alike for each in latest if each.returned and now_ms - each.when_ms <= _SLOW_MS
        ]
        return returns.count(False) >= _RETURNS or returns.count(True) >= _RETURNS_ALIKE

    def is_clone(self, now_ms: int) -> bool:
        seen = self._clone_ms
        return seen is not None and now_ms - seen < _MEMORY_MS

    @property
    def words(self) -> str:
        """Who the two are, once one has replaced the other."""
        if self._machines is None:
            return ""
        one, other = self._machines
        words = "two machines connect with this id"
        if one.address != other.address:
            return f"{words}: {one.address} and {other.address}"
        if one.hostname != other.hostname:
            names = f"{excerpt(one.hostname)} and {excerpt(other.hostname)}"
            return f"{words}: {names}, from {one.address}"
        return f"{words}, both from {one.address}"
