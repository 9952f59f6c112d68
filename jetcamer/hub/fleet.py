"""Every agent that the hub knows, in memory: by which keys, since when, and how it is.

In: what the store remembers, and what sessions find out. Out: the `Agent` a message is verified
against, at once, and its state in words. The memory of messages seen lives here, with the keys and
not in a session, so that a recorded `auth` cannot open a second one. Never hands out a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from jetcamer.hub.clones import Machine, Replacements
from jetcamer.hub.enrolment_rules import EnrolmentError, check_agent_id
from jetcamer.hub.records import AgentRecord, RefusalRecord
from jetcamer.protocol.envelope import AuthPayload, MetricsPayload
from jetcamer.protocol.errors import excerpt
from jetcamer.protocol.replay import ReplayGuard
from jetcamer.protocol.signing import SigningKey

if TYPE_CHECKING:
    from jetcamer.hub.session import AgentSession

State = Literal["online", "offline", "clock_wrong", "clone", "refused", "revoked", "never_seen"]

#: A `ts` further than this from our clock is about the clock as it goes, a nearer one that was
#: refused about a clock that was set back. Milliseconds.
_WINDOW_MS = 300_000

#: What an agent says of itself is kept up to here: characters of its host name and version, and
#: capabilities of so many characters each.
MAX_WORDS = 255
MAX_CAPABILITIES = 64
MAX_CAPABILITY = 64

#: Agents that came with the shared secret and were never written down. A stranger who knows that
#: secret may choose ids as he likes.
_MOST_LEGACY = 100_000


class Agent:
    """One agent that is known. Its slots are for reading; sessions and the registry write them.

    Times are Unix milliseconds by the hub's clock.
    """

    __slots__ = (
        "address",
        "agent_id",
        "capabilities",
        "connected_ms",
        "created_ms",
        "hostname",
        "keys",
        "last_refusal",
        "last_seen_ms",
        "legacy",
        "metrics",
        "metrics_ms",
        "rate_ms",
        "replacements",
        "replay",
        "retired",
        "revoked_ms",
        "session",
        "skew_ms",
        "told",
        "version",
    )

    def __init__(self, record: AgentRecord, keys: tuple[SigningKey, ...]) -> None:
        self.agent_id = record.agent_id
        #: Those that verify its messages, the newest first.
        self.keys = keys
        #: Those that did until lately: to tell an agent that still uses one what is wrong.
        self.retired: tuple[SigningKey, ...] = ()
        self.replay = ReplayGuard(floor=record.replay_floor_ms)
        self.legacy = record.legacy
        self.created_ms = record.created_ms
        self.revoked_ms = record.revoked_ms
        self.hostname = record.hostname
        self.version = record.version
        self.capabilities = record.capabilities
        self.address = record.address
        self.last_seen_ms = record.last_seen_ms
        #: The one that is open and authenticated, if any is.
        self.session: AgentSession | None = None
        self.connected_ms: int | None = None
        self.metrics: MetricsPayload | None = None
        self.metrics_ms: int | None = None
        #: How far its clock was ahead when a message was refused for that; None since one was not.
        self.skew_ms: int | None = None
        #: Of those that are its own.
        self.last_refusal: RefusalRecord | None = None
        #: When the messages so far would have come at the sustained rate (`RateLimit`).
        self.rate_ms = 0.0
        #: What was last told of where and what it is.
        self.told: tuple[str, ...] | None = None
        #: Made with the first.
        self.replacements: Replacements | None = None

    def describe(self, auth: AuthPayload, address: str) -> AuthPayload:
        """What it says of itself with `auth`; returns that as far as it is kept."""
        auth = shortened(auth)
        self.hostname = auth.hostname
        self.version = auth.version
        self.capabilities = auth.capabilities
        self.address = address
        return auth

    def replaced(self, now_ms: int, older: Machine, newer: Machine) -> None:
        """A newer session took the place of an open one."""
        if self.replacements is None:
            self.replacements = Replacements()
        self.replacements.add(now_ms, older, newer)

    def is_clone(self, now_ms: int) -> bool:
        return self.replacements is not None and self.replacements.is_clone(now_ms)

    def was_refused(self, refusal: RefusalRecord) -> None:
        """Remember it where it is the agent's own (`RefusalRecord.own`)."""
        if not refusal.own:
            return
        self.last_refusal = refusal
        if refusal.reason == "invalid_timestamp":
            self.skew_ms = refusal.skew_ms

    def state(self, now_ms: int) -> tuple[State, str]:
        """How it is, as one word and in words for a person."""
        if self.revoked_ms is not None:
            return "revoked", "revoked: its messages are not accepted"
        if self.replacements is not None and self.replacements.is_clone(now_ms):
            return "clone", self.replacements.words
        if self.session is not None:
            return "online", "online"
        refusal = self.last_refusal
        if refusal is not None and refusal.ts_ms >= (self.last_seen_ms or 0):
            # Who has recorded its messages can send them too, from elsewhere.
            whence = "" if refusal.address == self.address else f", from {refusal.address}"
            if refusal.reason == "invalid_timestamp" and self.skew_ms is not None:
                return "clock_wrong", f"{_clock_words(self.skew_ms, refusal)}{whence}"
            return "refused", f"refused{whence}: {refusal.words}"
        if self.last_seen_ms is None:
            return "never_seen", "has never connected"
        return "offline", "not connected"

    def record(self) -> AgentRecord:
        """What the store keeps of it."""
        return AgentRecord(
            agent_id=self.agent_id,
            created_ms=self.created_ms,
            legacy=self.legacy,
            revoked_ms=self.revoked_ms,
            hostname=self.hostname,
            version=self.version,
            capabilities=self.capabilities,
            address=self.address,
            last_seen_ms=self.last_seen_ms,
            replay_floor_ms=self.replay.high,
        )


def shortened(auth: AuthPayload) -> AuthPayload:
    """`auth`, where it is too long cut to what is kept of it."""
    capabilities = auth.capabilities
    if (
        len(auth.hostname) <= MAX_WORDS
        and len(auth.version) <= MAX_WORDS
        and len(capabilities) <= MAX_CAPABILITIES
        and max(map(len, capabilities), default=0) <= MAX_CAPABILITY
    ):
        return auth
    return AuthPayload(
        hostname=auth.hostname[:MAX_WORDS],
        version=auth.version[:MAX_WORDS],
        capabilities=tuple(each[:MAX_CAPABILITY] for each in capabilities[:MAX_CAPABILITIES]),
    )


def _clock_words(skew_ms: int, refusal: RefusalRecord) -> str:
    if abs(skew_ms) <= _WINDOW_MS:
        return refusal.words.removeprefix("ts: ")
    side = "ahead" if skew_ms > 0 else "behind"
    return f"clock wrong by {round(abs(skew_ms) / 1000)} s ({side})"


def after_kill(record: AgentRecord, now_ms: int) -> AgentRecord:
    """`record`, where the hub was killed and its last second may be missing from it.

    What the agent said until now is refused, by its own clock as it last went, so that nothing of
    that second can be played again. What it says from now on it signs later.
    """
    if record.last_seen_ms is None or record.replay_floor_ms is None:
        return record
    since = max(0, now_ms - record.last_seen_ms)
    return replace(record, replay_floor_ms=record.replay_floor_ms + since)


class Fleet:
    """The agents that are known, by id.

    :param legacy_secret: the secret that every agent without one of its own may use; None: none.
    """

    def __init__(self, *, legacy_secret: str | None = None) -> None:
        self._agents: dict[str, Agent] = {}
        self._legacy = () if legacy_secret is None else (SigningKey(legacy_secret),)
        #: Agents that have no secret of their own.
        self._number_legacy = 0

    def __len__(self) -> int:
        return len(self._agents)

    def __iter__(self) -> Iterator[Agent]:
        """In the order in which they became known."""
        return iter([*self._agents.values()])

    def get(self, agent_id: str) -> Agent | None:
        """Also one that was revoked."""
        return self._agents.get(agent_id)

    def keys_by_name(self, agent: Agent) -> dict[str, SigningKey]:
        """Every key that a message of `agent` may have been signed with, by its name for a
        person, whether it is valid or not."""
        names = ["its secret", *(f"its older secret {n}" for n in range(1, len(agent.keys)))]
        named = dict(zip(names, agent.keys, strict=True)) if agent.keys else {}
        for key in agent.retired:
            named.setdefault("a secret that it no longer has", key)
        for key in self._legacy:
            named.setdefault("the shared secret", key)
        return named

    def find(self, agent_id: str, now_ms: int = 0) -> Agent | None:
        """The agent whose messages may be verified; None for a stranger and for a revoked one.

        Under the shared secret a stranger gets an `Agent` that the fleet does not know yet: see
        `admit`.
        """
        agent = self._agents.get(agent_id)
        if agent is not None:
            return agent if agent.revoked_ms is None and agent.keys else None
        if not self._legacy or self._number_legacy >= _MOST_LEGACY:
            return None
        try:
            check_agent_id(agent_id)
        except EnrolmentError:
            return None
        record = AgentRecord(agent_id=agent_id, created_ms=now_ms, legacy=True)
        return Agent(record, self._legacy)

    def admit(self, agent: Agent) -> Agent:
        """A message of `agent` has verified: from now on it is known. Returns the known one."""
        known = self._agents.get(agent.agent_id)
        if known is None:
            known = self._agents[agent.agent_id] = agent
            self._number_legacy += agent.legacy
        return known

    def why_unknown(self, agent_id: str) -> str:
        """Why `find` has nobody of this name, in words."""
        name = excerpt(agent_id)
        agent = self._agents.get(agent_id)
        if agent is None:
            if self._legacy:
                try:
                    check_agent_id(agent_id)
                except EnrolmentError as error:
                    return f"no agent can be known as {name}: {error}"
            return f"no agent is known as {name}"
        if agent.revoked_ms is not None:
            return f"{name} was revoked"
        return f"{name} has no secret that is valid"

    def add(self, record: AgentRecord, secrets: Sequence[tuple[str, int | None]] = ()) -> Agent:
        """Know an agent, with its secrets, newest first, and until when each is valid (ms)."""
        keys = tuple(SigningKey(secret) for secret, _ in secrets)
        agent = Agent(record, keys or (self._legacy if record.legacy else ()))
        before = self._agents.get(record.agent_id)
        self._number_legacy += agent.legacy - (before is not None and before.legacy)
        self._agents[record.agent_id] = agent
        return agent

    def recall(self, refusals: Iterable[RefusalRecord]) -> None:
        """What the store remembers of why agents were refused before this hub started."""
        for refusal in refusals:
            agent = self._agents.get(refusal.agent_id or "")
            if agent is not None:
                agent.was_refused(refusal)

    def set_secrets(self, agent_id: str, secrets: Sequence[tuple[str, int | None]]) -> None:
        """These, and no others, are valid from now on; also for a connection that is open."""
        agent = self._agents[agent_id]
        keys = tuple(SigningKey(secret) for secret, _ in secrets)
        valid = {key.sign(b"") for key in keys}
        agent.retired = tuple(key for key in agent.keys if key.sign(b"") not in valid)[:2]
        agent.keys = keys
        self._number_legacy -= agent.legacy
        agent.legacy = False

    def revoke(self, agent_id: str, revoked_ms: int | None) -> None:
        agent = self._agents[agent_id]
        agent.revoked_ms = revoked_ms
        if revoked_ms is not None:
            agent.keys = ()
