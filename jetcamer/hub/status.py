"""How the hub itself is: what /readyz, /api/status and /metrics say of it.

In: the parts, and a clock. Out: figures as they are at the moment of asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from jetcamer import __version__
from jetcamer.net.timers import RepeatingTimer

#: How often the reactor is timed, and for how long the worst is shown. Seconds.
LAG_INTERVAL = 0.5
LAG_MEMORY = 10.0

#: What the disk may be behind before the hub should get no new agents. Seconds.
MAX_STORE_LAG = 5.0


class GatewayFigures(Protocol):
    """What a `Gateway` counts."""

    @property
    def connections(self) -> int: ...
    @property
    def handshakes(self) -> int: ...
    @property
    def handshakes_refused(self) -> Mapping[int, int]: ...
    @property
    def draining(self) -> bool: ...


class StoreFigures(Protocol):
    @property
    def ok(self) -> bool: ...
    @property
    def words(self) -> str | None: ...
    @property
    def lag(self) -> float: ...


class Parts(Protocol):
    """Where the figures come from."""

    @property
    def gateway(self) -> GatewayFigures: ...
    def agents_online(self) -> int: ...
    def agents_known(self) -> int: ...
    def store_health(self) -> StoreFigures: ...
    def messages(self) -> Mapping[str, int]: ...
    def refused(self) -> Mapping[str, int]: ...


class HubStatus:
    """:param started_ms: Unix milliseconds."""

    version = __version__

    def __init__(self, clock: IReactorTime, parts: Parts, *, started_ms: int) -> None:
        self._clock = clock
        self._parts = parts
        self.started_ms = started_ms
        #: Set once everything listens.
        self.started = False
        self._due = 0.0
        self._worst: list[tuple[float, float]] = []
        self._timer = RepeatingTimer(clock, LAG_INTERVAL, self._measure, name="[hub] reactor lag")

    def start(self) -> None:
        self.started = True
        self._due = self._clock.seconds() + LAG_INTERVAL
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    @property
    def why_not(self) -> str | None:
        """Why the hub should get no new agents, in words; None while it should."""
        if not self.started:
            return "starting"
        if self._parts.gateway.draining:
            return "draining"
        health = self._parts.store_health()
        if not health.ok:
            return f"the store fails: {health.words}"
        if health.lag > MAX_STORE_LAG:
            return f"the disk does not keep up: {health.lag:.0f} s behind"
        return None

    @property
    def ready(self) -> bool:
        return self.why_not is None

    @property
    def draining(self) -> bool:
        return self._parts.gateway.draining

    @property
    def connections(self) -> int:
        """Open, authenticated or not."""
        return self._parts.gateway.connections

    @property
    def handshakes(self) -> int:
        """Upgrades accepted since the start."""
        return self._parts.gateway.handshakes

    @property
    def handshakes_refused(self) -> Mapping[int, int]:
        """Upgrades refused since the start, by status."""
        return self._parts.gateway.handshakes_refused

    @property
    def agents_online(self) -> int:
        return self._parts.agents_online()

    @property
    def agents_known(self) -> int:
        return self._parts.agents_known()

    @property
    def messages_by_type(self) -> Mapping[str, int]:
        """Verified since the start."""
        return self._parts.messages()

    @property
    def messages(self) -> int:
        return sum(self._parts.messages().values())

    @property
    def refusals(self) -> Mapping[str, int]:
        """Since the start, by reason."""
        return self._parts.refused()

    @property
    def reactor_lag(self) -> float:
        """The worst of the last `LAG_MEMORY` seconds: how late a timer was, in seconds."""
        since = self._clock.seconds() - LAG_MEMORY
        return max((late for when, late in self._worst if when >= since), default=0.0)

    def _measure(self) -> None:
        now = self._clock.seconds()
        self._worst.append((now, max(0.0, now - self._due)))
        del self._worst[: -int(LAG_MEMORY / LAG_INTERVAL) - 1]
        self._due = now + LAG_INTERVAL
