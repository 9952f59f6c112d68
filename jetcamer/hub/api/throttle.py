"""How often an address may try a token that is wrong.

In: addresses, and how their tries ended. Out: how long an address has to wait. Memory is bounded,
whoever tries.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from twisted.internet.interfaces import IReactorTime

from jetcamer.hub.admission import network_of

#: Addresses remembered; the one that failed longest ago is forgotten first.
MAX_ADDRESSES = 10_000


class Throttle:
    """Failed tries by address: a window that slides.

    :param limit: failures within `per` seconds after which an address has to wait.
    """

    def __init__(self, clock: IReactorTime, limit: int = 10, per: float = 60.0) -> None:
        self._clock = clock
        self._limit = limit
        self._per = per
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def failed(self, address: str) -> None:
        network = network_of(address)
        times = self._failures.pop(network, None)
        if times is None:
            times = deque(maxlen=self._limit)
        times.append(self._clock.seconds())
        self._failures[network] = times
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)

    def wait(self, address: str) -> float:
        """Seconds until the address may try again; 0.0: it may."""
        times = self._failures.get(network_of(address))
        if times is None or len(times) < self._limit:
            return 0.0
        return max(0.0, times[0] + self._per - self._clock.seconds())
