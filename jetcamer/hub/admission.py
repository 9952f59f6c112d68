"""Who may open a WebSocket now: so many a second, and nobody who guesses.

In: the addresses of those who ask, and of those whose messages were refused. Out: come in, or for
how long to stay away. What it remembers is bounded, whoever asks and however many. It reads no
message and closes nothing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from twisted.internet.interfaces import IReactorTime

#: Whom `ClientAddress` names for the peer of a Unix socket, which has no address.
UNIX = "unix"

#: Nobody is told to stay away for longer because of the queue. Seconds.
_LONGEST_WAIT = 300.0

#: A ban: the first; the longest; and the longest for who goes on through one. Seconds.
_FIRST_BAN, _LONGEST_BAN, _LONGEST_OF_ALL = 30.0, 600.0, 3600.0

#: Known agents of one address whose offences are told apart; far more than a ban takes.
_MOST_AGENTS = 1_000

#: Addresses that are remembered as offenders; beyond it the one unheard of for longest is let go.
_MOST_OFFENDERS = 10_000


class Admission:
    """Lets at most `per_second` handshakes in a second; the rest are told when to come again.

    Those who are sent away are given places in a queue, `per_second` a second, behind those sent
    away before them: a fleet that comes back at once is asked in over as many seconds as it needs.

    :param per_second: as many may also come at one moment.
    :param spread: gives numbers from 0 to 1, so that those told the same second are no herd.
    """

    def __init__(
        self,
        clock: IReactorTime,
        per_second: float = 500.0,
        *,
        spread: Callable[[], float] = random.random,
    ) -> None:
        if per_second <= 0:
            raise ValueError("nobody could ever come in")
        self._clock = clock
        self._per_second = per_second
        self._most = max(1.0, per_second)
        self._spread = spread
        self._places = self._most
        self._counted_at = clock.seconds()
        self._next_place = self._counted_at

    def admit(self) -> float | None:
        """None: come in; else the seconds after which to try again."""
        now = self._clock.seconds()
        gained = max(0.0, now - self._counted_at) * self._per_second
        self._places = min(self._most, self._places + gained)
        self._counted_at = now
        if self._places >= 1.0:
            self._places -= 1.0
            return None
        place = max(self._next_place, now + 1.0) + 1.0 / self._per_second
        self._next_place = min(place, now + _LONGEST_WAIT)
        return self._next_place - now + self._spread()


class _Offender:
    __slots__ = ("agents", "ban", "banned_until", "bans", "last", "offences", "pardoned", "times")

    def __init__(self) -> None:
        #: Of the offences that may still lead to a ban.
        self.times: deque[float] = deque()
        #: When each retired agent's last was counted, the longest ago first; None: there was none.
        self.agents: dict[str, float] | None = None
        #: How many bans the next one is to be longer than, and how long the last one was.
        self.bans = 0
        self.ban = 0.0
        self.banned_until = 0.0
        #: Since it was last left in peace, counted or not.
        self.offences = 0
        #: The last offence, counted or not, and the last pardon.
        self.last = self.pardoned = float("-inf")

    def counts(self, agent_id: str, now: float, per: float) -> bool:
        """Whether a retired agent's offence is counted: once in `per` seconds."""
        agents = self.agents
        if agents is None:
            agents = self.agents = {}
        while agents and agents[first := next(iter(agents))] <= now - per:
            del agents[first]
        if agent_id in agents:
            return False
        agents[agent_id] = now
        if len(agents) > _MOST_AGENTS:
            del agents[next(iter(agents))]
        return True


class Offenders:
    """Addresses that sent what no agent of ours sends, and for how long they are not let in.

    An address that offends `limit` times within `per` seconds is banned: for 30 s, then for twice
    as long each time, up to 10 minutes; up to an hour where the offences that lead to a ban came
    during the one before it, over connections that were open. The offences that led to a ban do
    not count towards the next.

    Behind one address there may be many machines, so what is known to be ours weighs less:

    - of an agent that was revoked, and comes back again and again as agents do, one offence counts
      in `per` seconds. `limit` such agents are banned still; fewer never are;
    - an agent that authenticates from there (`pardon`) halves the number of bans that the next one
      is measured by, and takes back the older half of the offences counted: at most once in `per`
      seconds, so that who has one agent's secret cannot buy more than some guesses with it. A ban
      that runs is not lifted.

    Nobody offends for ever: when nothing came for twice as long as the last ban was, and no less
    than `per` seconds, counted from its end or the last offence, the next ban is of 30 s again.

    The hosts of an IPv6 network of 64 bits count as one: who has one of its addresses has them all.
    """

    def __init__(self, clock: IReactorTime, limit: int = 10, per: float = 60.0) -> None:
        self._clock = clock
        self._limit = limit
        self._per = per
        #: The one unheard of for longest first.
        self._known: dict[str, _Offender] = {}

    def __len__(self) -> int:
        return len(self._known)

    def offended(self, address: str, agent_id: str | None = None, *, retired: bool = False) -> None:
        """A bad signature, an agent nobody knows, or nonsense came from there.

        :param agent_id: who it claimed to be, if anybody.
        :param retired: that agent was revoked: it guesses nothing.
        """
        if address == UNIX:
            return  # a proxy that says nothing of its clients: all of them would be banned
        now = self._clock.seconds()
        key = network_of(address)
        offender = self._known.pop(key, None) or _Offender()
        self._known[key] = offender
        if len(self._known) > _MOST_OFFENDERS:
            del self._known[next(iter(self._known))]
        since = max(offender.banned_until, offender.last)
        if offender.bans and now - since > max(2.0 * offender.ban, self._per):
            offender.bans = offender.offences = 0
        offender.last = now
        offender.offences += 1
        if retired and agent_id is not None and not offender.counts(agent_id, now, self._per):
            return
        times = offender.times
        times.append(now)
        while times[0] <= now - self._per:
            times.popleft()
        if len(times) >= self._limit:
            times.clear()
            self._ban(offender, now)

    def _ban(self, offender: _Offender, now: float) -> None:
        longest = _LONGEST_OF_ALL if now < offender.banned_until else _LONGEST_BAN
        offender.ban = min(longest, _FIRST_BAN * 2.0 ** min(offender.bans, 16))
        offender.bans += 1
        offender.banned_until = max(offender.banned_until, now + offender.ban)

    def pardon(self, address: str) -> None:
        """An agent of ours authenticated from there."""
        if not self._known:
            return
        offender = self._known.get(network_of(address))
        now = self._clock.seconds()
        if offender is None or now - offender.pardoned < self._per:
            return
        offender.pardoned = now
        offender.bans //= 2
        for _ in range((len(offender.times) + 1) // 2):
            offender.times.popleft()

    def banned_for(self, address: str) -> float:
        """Seconds until it may come again; 0.0: at once."""
        if not self._known:
            return 0.0
        offender = self._known.get(network_of(address))
        if offender is None:
            return 0.0
        return max(0.0, offender.banned_until - self._clock.seconds())

    def bans(self) -> list[tuple[str, float, int]]:
        """Every address that is banned now, the seconds left, and how often it offended. An IPv6
        address is that of its network."""
        now = self._clock.seconds()
        return [
            (address, offender.banned_until - now, offender.offences)
            for address, offender in self._known.items()
            if offender.banned_until > now
        ]

    def lift(self, address: str) -> bool:
        """Let it in again, and hold nothing against it any more; False where it is not banned."""
        if not self.banned_for(address):
            return False
        del self._known[network_of(address)]
        return True


class ClientAddress:
    """Whose address counts: the transport's peer, or whom a proxy of ours names.

    :param trusted_proxies: IP addresses or networks whose `X-Forwarded-For` is believed. A peer
        on a Unix socket is believed always: the socket's mode says who may use it.
    """

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        """Raises ValueError for what is no address and no network."""
        self._trusted = tuple(
            ip_network(each, strict=False) for each in trusted_proxies if each != UNIX
        )

    def of(self, peer: str, forwarded_for: str) -> str:
        """The client's IP address, in its usual form.

        :param peer: the transport's, an IP address or `UNIX`.
        :param forwarded_for: the field's value; each proxy adds whom it heard, at the right.
        """
        if not forwarded_for:
            return peer
        client = peer
        for each in reversed(forwarded_for.split(",")):
            if client != UNIX and not self.is_trusted(client):
                break
            found = _read(each.strip())
            if found is None:
                break
            client = str(found)
        return client

    def is_trusted(self, address: str) -> bool:
        """Whether it is a proxy of ours; never for who has no address."""
        if not self._trusted:
            return False
        found = _read(address)
        return found is not None and any(found in network for network in self._trusted)


def plain_address(host: str) -> str:
    """An IPv4 address that an IPv6 socket saw is an IPv4 address; any other is as it was."""
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def _read(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address with or without brackets and a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(plain_address(text))
    except ValueError:
        return None


def network_of(address: str) -> str:
    """Who has one IPv6 address has all of its network of 64 bits: that; any other is itself."""
    if ":" not in address:
        return address
    found = _read(address)
    if not isinstance(found, IPv6Address):
        return address
    return str(IPv6Address(int(found) >> 64 << 64))
