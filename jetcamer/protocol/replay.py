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

    __slots__ = ("_limit", "_lowest", "_ring", "_tags", "_window", "floor", "high")

    def __init__(self, window_ms: int = 300_000, limit: int = 64, floor: int | None = None) -> None:
        if window_ms < 0 or limit < 1:
            raise ValueError("the window must not be negative, and at least one nonce be held")
        self._window = window_ms
        self._limit = limit
        #: No message with a ``ts`` up to this one counts.
        self.floor = floor
        #: The highest ``ts`` that counted; the floor as long as none has.
        self.high = floor
        # The messages in order of ts, the first at `_lowest`, and round: message i has its ts at
        # 2 * i, and at 2 * i + 1 the 64-bit hash of its nonce, keyed anew in each process. A clash
        # refuses a message that was fresh, and never accepts a replay.
        self._ring = array("q")
        # The low byte of each hash, by which it is looked up: nothing searches faster than memchr.
        self._tags = bytearray()
        self._lowest = 0

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
        floor = self.floor
        if floor is not None and ts <= floor:
            raise ProtocolError(
                "invalid_timestamp", "older than what is remembered to tell it from a replay", "ts"
            )
        high = self.high
        if high is None or ts >= high:
            self.high = ts
            at = self._lowest
            ring = self._ring
            if len(tags) == self._limit and (lowest := ring[2 * at]) < ts - _RECENT:
                # Nearly every message ends here: the highest takes the place of the lowest.
                if floor is None or lowest > floor:
                    self.floor = lowest
                ring[2 * at] = ts
                ring[2 * at + 1] = mark
                tags[at] = tag
                self._lowest = at + 1 if at + 1 < self._limit else 0
                return
        self._insert(ts, mark)

    def _holds(self, mark: int) -> bool:
        at = self._tags.find(mark & 0xFF)
        while at >= 0:
            if self._ring[2 * at + 1] == mark:
                return True
            at = self._tags.find(mark & 0xFF, at + 1)
        return False

    def _insert(self, ts: int, mark: int) -> None:
        """Remember one of the first messages, one of a burst, or one that is not the newest."""
        ring, tags, at = self._ring, self._tags, self._lowest
        if at:
            ring[:] = ring[2 * at :] + ring[: 2 * at]
            tags[:] = tags[at:] + tags[:at]
            self._lowest = 0
        excess = 0
        while (held := len(tags) - excess) >= self._limit and (
            ring[2 * excess] < ts - _RECENT or held >= self._limit * _BURST
        ):
            if self.floor is None or ring[2 * excess] > self.floor:
                self.floor = ring[2 * excess]
            excess += 1
        del ring[: 2 * excess]
        del tags[:excess]
        at = len(tags)
        if at and ts < ring[-2]:
            at = bisect_right(range(at), ts, key=lambda index: ring[2 * index])
        ring.insert(2 * at, ts)
        ring.insert(2 * at + 1, mark)
        tags.insert(at, mark & 0xFF)
