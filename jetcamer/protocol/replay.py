"""Time stamps and nonces → fresh, or a ProtocolError: each message counts once.

In: the ``ts`` and ``nonce`` of messages whose signature was right (never of others: a forger must
not fill the memory), and the time. What is remembered is bounded. Whatever is forgotten, for age
or for room, raises a floor under ``ts``, so that nothing forgotten can ever count again.
See docs/protocol.md, Signature.
"""

from __future__ import annotations

from collections import deque

from jetcamer.protocol.errors import ProtocolError

__all__ = ["ReplayGuard"]


class ReplayGuard:
    """Remembers the nonces of one peer; all times are Unix milliseconds.

    A message is fresh when its ``ts`` is within ``window_ms`` of now, either way, and its nonce
    was not seen. At most ``limit`` nonces are held, about 150 bytes each; with more than that in
    a window the oldest arrivals are forgotten, and messages as old as they are refused. A clock
    that is set back opens no hole: what was forgotten stays refused until the clock is past it.
    """

    def __init__(self, window_ms: int = 300_000, limit: int = 8192) -> None:
        if window_ms < 0 or limit < 1:
            raise ValueError("the window must not be negative, and at least one nonce be held")
        self._window = window_ms
        self._limit = limit
        self._floor: int | None = None
        # A nonce is held as its 64-bit hash, keyed anew in each process: a rare clash refuses a
        # message that was fresh, it never accepts a replay.
        self._seen: set[int] = set()
        self._arrivals: deque[tuple[int, int]] = deque()  # (ts, hash), oldest arrival first

    def __len__(self) -> int:
        return len(self._seen)

    def check(self, ts: int, nonce: str, now: int) -> None:
        """Remember a fresh message; raise ``invalid_timestamp`` or ``replayed_nonce`` otherwise.

        O(1) amortised: each nonce is remembered once and forgotten once.
        """
        if not -self._window <= ts - now <= self._window:
            side = "ahead of" if ts > now else "behind"
            seconds = abs(ts - now) // 1000
            raise ProtocolError("invalid_timestamp", f"{seconds} s {side} this clock", "ts")
        mark = hash(nonce)
        if mark in self._seen:
            raise ProtocolError("replayed_nonce", "seen before", "nonce")
        if self._floor is not None and ts <= self._floor:
            raise ProtocolError(
                "invalid_timestamp", "older than what is remembered to tell it from a replay", "ts"
            )
        oldest = now - self._window
        arrivals = self._arrivals
        while arrivals and (arrivals[0][0] < oldest or len(arrivals) >= self._limit):
            self._forget()
        self._seen.add(mark)
        arrivals.append((ts, mark))

    def _forget(self) -> None:
        ts, mark = self._arrivals.popleft()
        self._seen.discard(mark)
        if self._floor is None or ts > self._floor:
            self._floor = ts
