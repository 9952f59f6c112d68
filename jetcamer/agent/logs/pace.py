"""How fast live lines may be sent: as configured, or as fast as the server has shown to take them.

In: a clock, what was sent, and that a server closed the link because of too many messages. Out:
when the next line may go. Must never be faster than configured; comes down at once and goes up
slowly, so that a server with a limit closes the link a few times and then hardly ever.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.interfaces import IReactorTime

from jetcamer.net.timers import Timer

#: Lines that may be sent at once, however fast they may be sent after that.
BURST = 400

#: Of lines that waited for the link, those after the first `BURST`: so many a second.
CATCHING_UP = 40.0

#: Lines a second below which no server brings us.
FLOOR = 5.0

#: Seconds without a disturbance after which the rate goes up, if lines had to wait for it; and how.
GROW_INTERVAL = 60.0
GROWTH = 1.1

#: How near it may come to a rate that the server refused, and for how many seconds after that.
NEAR = 0.9
REMEMBERED = 3600.0


class Pace:
    """The rate of the moment, and what has been sent.

    :param most: the configured rate, in lines a second, more than 0.
    """

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._clock = clock
        self._most = most
        #: Lines a second.
        self.rate = float(most)
        #: When each of the last lines was sent, those of the last second at least.
        self._sent_at: deque[float] = deque(maxlen=max(most, BURST))
        self._sent = 0
        #: Whether lines had to wait for the rate since it was last looked at.
        self._held = False
        self._refused_rate = 0.0
        self._refused_at = 0.0
        self._grow_timer = Timer(clock)

    @property
    def limited(self) -> bool:
        """Whether a server has brought the rate down."""
        return self.rate < self._most

    def opened(self) -> None:
        """The link was opened."""
        self._sent = 0
        self._arrange_to_grow()

    def stop(self) -> None:
        """The link was lost, or nothing will be sent any more."""
        self._grow_timer.stop()

    def wait(self, *, waited: bool) -> float:
        """Seconds until the next line may be sent; 0: now.

        :param waited: whether that line has waited for the link.
        """
        rate = self.rate
        if waited and self._sent >= BURST:
            rate = min(rate, CATCHING_UP)
        # No more than so many in the time that they take at the rate: a second's worth, or,
        # where somebody counts, a quarter's.
        lines = min(self._most, BURST) if rate == self._most else max(1, int(rate / 4))
        if len(self._sent_at) < lines:
            return 0
        due = self._sent_at[-lines] + lines / rate
        wait = max(0.0, due - self._clock.seconds())
        self._held = self._held or wait > 0
        return wait

    def sent(self) -> None:
        """A line was sent."""
        self._sent_at.append(self._clock.seconds())
        self._sent += 1

    def refused(self) -> bool:
        """The server closed the link for too many messages; True when the rate came down.

        `stop` and, for the next connection, `opened` follow.
        """
        before = self.rate
        self._refused_rate = min(before, self._measured())
        self._refused_at = self._clock.seconds()
        self.rate = min(before, max(self._refused_rate / 2, FLOOR))
        return self.rate < before

    def _measured(self) -> float:
        """Lines a second over this connection, as far as it is known; else the rate."""
        count = min(self._sent, len(self._sent_at))
        if count < 2:
            return self.rate
        seconds = self._sent_at[-1] - self._sent_at[-count]
        return (count - 1) / seconds if seconds >= 1 else self.rate

    def _arrange_to_grow(self) -> None:
        self._held = False
        if self.limited:
            self._grow_timer.start(GROW_INTERVAL, self._grow)

    def _grow(self) -> None:
        # Where nothing waited, nothing has been shown; and nothing is needed.
        if self._held:
            rate = min(self.rate * GROWTH, float(self._most))
            known = self._clock.seconds() - self._refused_at < REMEMBERED
            if not known or rate <= self._refused_rate * NEAR:
                self.rate = rate
        self._arrange_to_grow()
