"""Connections that have not authenticated: how many there may be, of one address and in all.

In: connections as they come, and that one went or is known by now. Out: whether there is room for
another. Where there is none, the one that has waited for longest gives way, so that who opens
connections and says nothing keeps nobody out. It knows nothing of what connections say.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

#: One that has been there for less is on its way to authenticate, and does not give way. Seconds.
PATIENCE = 2.0


class Stranger(Protocol):
    def give_way(self) -> None:
        """Go, at once."""


class Strangers:
    """All of them, the oldest first.

    :param per_address: of one address that is named to `came`.
    """

    def __init__(self, clock: IReactorTime, *, most: int, per_address: int) -> None:
        self._clock = clock
        self._most = most
        self._per_address = per_address
        self._all: dict[Stranger, tuple[str | None, float]] = {}
        self._of: dict[str, dict[Stranger, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def why_not(self, address: str | None) -> str | None:
        """Why another may not come, in words; None: it may.

        :param address: None for one whose connections are not counted by themselves.
        """
        if len(self._all) >= self._most and not self.make_room():
            return "too many connections that have not authenticated"
        if address is not None:
            own = self._of.get(address)
            if own is not None and len(own) >= self._per_address and not self._give_way(own):
                return "too many connections of its address that have not authenticated"
        return None

    def make_room(self) -> bool:
        """Let the oldest go, if it has had its time; whether it went."""
        return self._give_way(self._all)

    def came(self, stranger: Stranger, address: str | None) -> None:
        self._all[stranger] = (address, self._clock.seconds())
        if address is not None:
            self._of.setdefault(address, {})[stranger] = None

    def left(self, stranger: Stranger) -> None:
        """It went, or is no stranger any more."""
        address, _ = self._all.pop(stranger, (None, 0.0))
        if address is not None:
            own = self._of[address]
            del own[stranger]
            if not own:
                del self._of[address]

    def _give_way(
        self, among: dict[Stranger, tuple[str | None, float]] | dict[Stranger, None]
    ) -> bool:
        oldest = next(iter(among), None)
        if oldest is None or self._clock.seconds() - self._all[oldest][1] < PATIENCE:
            return False
        self.left(oldest)
        oldest.give_way()
        return True
