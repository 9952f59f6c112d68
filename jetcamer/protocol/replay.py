"""Time stamps and nonces → fresh, or a ProtocolError: each message counts once.

In: the ``ts`` and ``nonce`` of messages whose signature was right (never of others: a forger must
not fill the memory), and the time. What is remembered is bounded and small, for a hub holds one
guard for each agent. Whatever is forgotten raises a floor under ``ts``, so that nothing forgotten
can ever count again. See docs/protocol.md, Signature.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right

from jetcamer.protocol.errors import ProtocolError

__all__ = ["ReplayGuard"]

#: A burst may hold this many times `limit` messages...
_BURST = 16
#: ...as long as none is this much older than the message that comes. Milliseconds.
_RECENT = 20

#: A ``ts`` below every other.
_NONE = -(1 << 62)


class ReplayGuard:
    """Remembers some messages of one peer; all times are Unix milliseconds.

    A message is fresh when its ``ts`` is within ``window_ms`` of now, either way, and above the
    floor, and its nonce is not among those remembered. These are the ``limit`` messages with the
    highest ``ts``, 17 bytes each; where more came within 20 ms, up to 16 times as many, so that
    all of a burst counts. Forgetting a message raises the floor to its ``ts``: a peer whose ``ts``
    rise, or nearly, never meets it; one whose clock is set back to before what is remembered is
    refused until it has caught up. A clock that is set back, here or there, opens no hole.

    :param floor: what was `high` when a guard for the same peer was given up. None: no floor.
    """

    __slots__ = ("_floor", "_high", "_limit", "_lowest", "_marks", "_tags", "_times", "_window")

    def __init__(self, window_ms: int = 300_000, limit: int = 64, floor: int | None = None) -> None:
        if window_ms < 0 or limit < 1:
            raise ValueError("the window must not be negative, and at least one nonce be held")
        self._window = window_ms
        self._limit = limit
        self._floor = self._high = _NONE if floor is None else floor
        # The messages in order of ts, the first at `_lowest`, and round: the ts of each, and the
        # 64-bit hash of its nonce, keyed anew in each process. A clash refuses a message that was
        # fresh, and never accepts a replay.
        self._times = array("q")
        self._marks = array("q")
        # The low byte of each hash, by which it is looked up: nothing searches faster than memchr.
        self._tags = bytearray()
        self._lowest = 0

    @property
    def floor(self) -> int | None:
        """No message with a ``ts`` up to this one counts."""
        return None if self._floor == _NONE else self._floor

    @property
    def high(self) -> int | None:
        """The highest ``ts`` that counted; the floor as long as none has."""
        return None if self._high == _NONE else self._high

    def __len__(self) -> int:
        return len(self._tags)

    def check(self, ts: int, nonce: str, now: int) -> None:
        """Remember a fresh message; raise ``invalid_timestamp`` or ``replayed_nonce`` otherwise."""
        if abs(ts - now) > self._window:
            side = "ahead of" if ts > now else "behind"
            seconds = abs(ts - now) // 1000
            raise ProtocolError("invalid_timestamp", f"{seconds} s {side} this clock", "ts")
        mark = hash(nonce)
        tag = mark & 0xFF
        tags = self._tags
        if tag in tags and self._holds(mark):
            raise ProtocolError("replayed_nonce", "seen before", "nonce")
        if ts <= self._floor:
            seconds = (self._floor - ts) // 1000 + 1
            raise ProtocolError(
                "invalid_timestamp",
                f"its clock was set back by about {seconds} s: accepted again in about {seconds} s",
                "ts",
            )
        if ts >= self._high:
            self._high = ts
            times, held = self._times, len(tags)
            if held < self._limit:
                times.append(ts)
                self._marks.append(mark)
                tags.append(tag)
                return
            at = self._lowest
            if held == self._limit and times[at] < ts - _RECENT:
                # Nearly every message ends here: the highest takes the place of the lowest.
                self._floor = times[at]
                times[at] = ts
                self._marks[at] = mark
                tags[at] = tag
                self._lowest = (at + 1) % held
                return
        self._insert(ts, mark)

    def _holds(self, mark: int) -> bool:
        at = self._tags.find(mark & 0xFF)
        while at >= 0:
            if self._marks[at] == mark:
                return True
            at = self._tags.find(mark & 0xFF, at + 1)
        return False

    def _insert(self, ts: int, mark: int) -> None:
        """Remember one of a burst, or the first after it, or one that is not the newest."""
        times, marks, tags, at = self._times, self._marks, self._tags, self._lowest
        if at:
            times[:] = times[at:] + times[:at]
            marks[:] = marks[at:] + marks[:at]
            tags[:] = tags[at:] + tags[:at]
            self._lowest = 0
        excess = 0
        while (held := len(tags) - excess) >= self._limit and (
            times[excess] < ts - _RECENT or held >= self._limit * _BURST
        ):
            self._floor = times[excess]
            excess += 1
        if excess:
            del times[:excess], marks[:excess], tags[:excess]
        at = len(tags)
        if at and ts < times[-1]:
            at = bisect_right(times, ts)
        times.insert(at, ts)
        marks.insert(at, mark)
        tags.insert(at, mark & 0xFF)
