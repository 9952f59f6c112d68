"""One agent's conversation with the hub, from its `auth` to its last message.

In: the bytes of each message, and what befalls the connection. Out: calls of a `SessionListener`,
for messages whose signature, agent, time, nonce and rate are right and for no others, and sealed
commands. No I/O and no timer: the gateway brings both. It never acts on a message it has not
verified, and never runs on after a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

from jetcamer.hub.fleet import Agent
from jetcamer.hub.records import RefusalRecord
from jetcamer.hub.session_interfaces import (
    DEFAULT_POLICY,
    Connection,
    KeyRing,
    Policy,
    SessionListener,
)
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.close_codes import POLICY_VIOLATION, UNSUPPORTED_DATA
from jetcamer.protocol.envelope import (
    MAX_AGENT_ID,
    AuthPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsMessage,
    MetricsPayload,
    decode,
    decode_payload,
    decode_plain,
)
from jetcamer.protocol.errors import ProtocolError, excerpt
from jetcamer.protocol.parsing import check_limits, members
from jetcamer.protocol.signing import SigningKey

if TYPE_CHECKING:
    from jetcamer.hub.pending import PendingCommands

_NO_KEY = SigningKey(uuid4().hex)

#: Refusals that are about who speaks, when or how much. Any other is about the text: 1003
#: `invalid_json`.
_POLICY_REASONS = frozenset(
    {
        "unknown_agent",
        "wrong_agent",
        "invalid_signature",
        "invalid_timestamp",
        "replayed_nonce",
        "rate_limited",
    }
)

#: Those that come after the signature was found to be right.
_VERIFIED = frozenset({"wrong_agent", "replayed_nonce", "rate_limited"})

#: Bytes by which a message counts as one more.
_WEIGHT = 4096


class AgentSession:
    """The hub's side of one connection.

    :param now_ms: Unix milliseconds, the wall clock.
    """

    __slots__ = (
        "_burst_ms",
        "_closing",
        "_connection",
        "_interval_ms",
        "_key",
        "_keys",
        "_listener",
        "_now_ms",
        "_policy",
        "agent",
        "agent_id",
        "auth",
        "counted",
        "last_seen_ms",
        "pending",
        "record_id",
        "refused",
        "verified",
    )

    def __init__(
        self,
        connection: Connection,
        keys: KeyRing,
        listener: SessionListener,
        now_ms: Callable[[], int],
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._listener = listener
        self._now_ms = now_ms
        self._policy = policy
        self._interval_ms = 1000.0 / policy.rate.per_second
        self._burst_ms = policy.rate.burst * self._interval_ms
        #: The key that verified the last message; one that verifies nothing, before the first.
        self._key = _NO_KEY
        self._closing = False
        #: Both set by the first verified `auth`, and by nothing after it.
        self.agent: Agent | None = None
        self.agent_id: str | None = None
        #: What the agent last said of itself.
        self.auth: AuthPayload | None = None
        #: Messages whose signature was right, and messages refused.
        self.verified = 0
        self.refused = 0
        #: Unix milliseconds of the last verified message, by our clock; 0 before the first.
        self.last_seen_ms = 0
        #: Commands that wait for their answers; made with the first.
        self.pending: PendingCommands | None = None
        #: What the store calls this session, and how many messages and refusals it knows of.
        self.record_id = 0
        self.counted = 0

    @property
    def peer(self) -> str:
        return self._connection.peer

    @property
    def address(self) -> str:
        return self._connection.address

    @property
    def open(self) -> bool:
        """Whether a command can be sent: authenticated, and not closing."""
        return self.agent_id is not None and not self._closing

    @property
    def uses_old_secret(self) -> bool:
        """Whether its last message was signed with a secret that a newer one has replaced."""
        keys = () if self.agent is None else self.agent.keys
        return bool(keys) and self._key is not keys[0]

    # What the gateway reports.

    def message_received(self, data: bytes) -> None:
        """One whole text message. Never raises for anything the peer sent."""
        if self._closing:
            return
        now = self._now_ms()
        agent = self.agent
        metrics: MetricsMessage | None = None
        envelope: Envelope | MetricsMessage
        try:
            if agent is None:
                agent, envelope = self._open_first(data, now)
            else:
                if self._key in agent.keys:
                    metrics = self._key.open_metrics(data)
                envelope = self._open(data, agent) if metrics is None else metrics
                if envelope.agent_id != agent.agent_id:
                    raise ProtocolError("wrong_agent", "the agent id changed within a connection")
            agent.replay.check(envelope.ts, envelope.nonce, now)
            # A leaky bucket: when this message would have come at the sustained rate.
            due = agent.rate_ms
            if due < now:  # noqa: PLR1730 - cheaper than a call, for each message
                due = now
            due += self._interval_ms
            if len(data) >= _WEIGHT:
                due += self._interval_ms * (len(data) // _WEIGHT)
            if due > now + self._burst_ms:
                due = self._beyond_burst(agent, now)
            agent.rate_ms = due
        except ProtocolError as error:
            self._refuse_message(data, error, now)
            return
        self.verified += 1
        self.last_seen_ms = now
        if metrics is not None:
            agent.last_seen_ms = agent.metrics_ms = now
            agent.metrics = payload = metrics.payload
            self._listener.metrics(self, metrics, payload)
            return
        assert isinstance(envelope, Envelope)
        try:
            self._dispatch(agent, envelope, now)
        except ProtocolError as error:
            # Signed by the right agent, so a fault and not an attack: an agent with one odd
            # message keeps its link. One whose `auth` is odd is nobody yet, and does not.
            if self.agent is None:
                own = self._is_own(agent, verified=True)
                self._refuse("invalid_json", str(error), agent.agent_id, own=own)
            else:
                self._count_refusal("invalid_payload", str(error), agent.agent_id)
                if envelope.type == "command_result" and self.pending is not None:
                    self.pending.unreadable(envelope.payload)

    def binary_received(self) -> None:
        """A binary message, which the protocol does not have."""
        if not self._closing:
            own = self._is_own(self.agent, verified=False)
            self._refuse("not_text", "a binary message", self.agent_id, own=own)

    def auth_overdue(self) -> None:
        """The time in which an agent has to say who it is has passed."""
        if self.agent is None and not self._closing:
            self._refuse("auth_timeout", "no auth message came in time", None)

    def connection_lost(self, words: str) -> None:
        """The connection is gone. `words` say how, for a person."""
        self._closing = True
        if self.agent is not None:
            self._listener.disconnected(self, words)

    # What the hub asks for.

    def send_command(self, command: str, args: Mapping[str, str]) -> str:
        """Send a signed `command`; returns its nonce, which the answer names as `inReplyTo`.

        Raises ProtocolError for arguments that are not text or make too large a message, and
        ValueError when the session is not `open`.
        """
        if self.agent_id is None or self._closing:
            raise ValueError("the session is not open")
        nonce = str(uuid4())
        message = self._key.seal(
            "command",
            self.agent_id,
            canonical({"command": command, "args": dict(args)}),
            ts=self._now_ms(),
            nonce=nonce,
        )
        self._connection.send(message)
        return nonce

    def close(self, code: int, reason: str) -> None:
        """Close the connection; nothing that still arrives is acted upon."""
        if not self._closing:
            self._closing = True
            self._connection.close(code, reason)

    # How a message is judged.

    def _open(self, data: bytes, agent: Agent, plain: Envelope | None = None) -> Envelope:
        """Verify with the agent's keys, the one that was right the last time first.

        :param plain: what `decode_plain` found in `data`, where it was asked before and did.
        """
        keys = agent.keys
        key = self._key
        if key not in keys:
            if not keys:
                raise ProtocolError("unknown_agent", "its secrets have been taken back")
            key = self._key = keys[0]
        try:
            return key.open(data, plain)
        except ProtocolError as error:
            if error.code != "invalid_signature" or len(keys) == 1:
                raise
        for other in keys:
            if other is not key:
                try:
                    envelope = other.open(data, plain)
                except ProtocolError:
                    continue
                self._key = other
                return envelope
        raise ProtocolError("invalid_signature", "does not match the message", "signature")

    def _open_first(self, data: bytes, now: int) -> tuple[Agent, Envelope]:
        """The one message that is decoded before it is verified: it says by which key."""
        plain = decode_plain(data)
        claimed = (plain or decode(data)).agent_id
        agent = self._keys.find(claimed, now)
        if agent is None:
            raise ProtocolError("unknown_agent", self._keys.why_unknown(claimed))
        return agent, self._open(data, agent, plain)

    def _beyond_burst(self, agent: Agent, now: int) -> float:
        """Refuse it; but where our clock was set back since the last one, begin anew."""
        if agent.rate_ms <= now + self._burst_ms:
            raise ProtocolError("rate_limited", self._policy.rate.words)
        return now + self._interval_ms

    def _dispatch(self, agent: Agent, envelope: Envelope, now: int) -> None:
        listener = self._listener
        kind = envelope.type
        if self.agent is None:
            if kind != "auth":
                words = f"began with {excerpt(kind)}"
                own = self._is_own(agent, verified=True)
                self._refuse("auth_required", words, agent.agent_id, own=own)
                return
            auth = decode_payload(envelope, AuthPayload)
            self.agent = agent = self._keys.admit(agent)
            self.agent_id, self.auth = agent.agent_id, auth
            agent.last_seen_ms = now
            agent.skew_ms = None
            listener.authenticated(self, envelope, auth)
            return
        agent.last_seen_ms = now
        if kind == "metrics":
            metrics = decode_payload(envelope, MetricsPayload)
            agent.metrics = metrics
            agent.metrics_ms = now
            listener.metrics(self, envelope, metrics)
        elif kind == "heartbeat":
            listener.heartbeat(self, envelope, decode_payload(envelope, HeartbeatPayload))
        elif kind == "log":
            listener.log(self, envelope, decode_payload(envelope, LogPayload))
        elif kind == "command_result":
            listener.command_result(self, envelope, decode_payload(envelope, CommandResultPayload))
        elif kind == "auth":
            self.auth = decode_payload(envelope, AuthPayload)
            listener.authenticated(self, envelope, self.auth)
        else:
            # As the servers in the field do: say so, and go on.
            words = f"no message has the type {excerpt(kind)}"
            self._count_refusal("unknown_type", words, agent.agent_id)

    # How a message is refused.

    def _refuse_message(self, data: bytes, error: ProtocolError, now: int) -> None:
        reason = error.code if error.code in _POLICY_REASONS else "invalid_json"
        words, told = str(error), reason
        claimed_id, ts = _claimed(data)
        agent, agent_id = self.agent, self.agent_id
        if agent is None and claimed_id is not None:
            agent_id = claimed_id
            agent = self._keys.find(agent_id, now)
        verified, skew_ms = reason in _VERIFIED, None
        if agent is not None and reason == "invalid_signature":
            explained = self._policy.explain(data, agent)
            words = f"{words}: {explained}" if explained else words
        elif agent is not None and ts is not None and reason == "invalid_timestamp":
            # The signature was right, so this is the agent's own clock.
            agent = self._keys.admit(agent)
            verified, skew_ms = True, ts - now
            told = f"{reason}: {error.words}"
        own = self._is_own(agent, verified)
        self._refuse(reason, words, agent_id, told=told, own=own, skew_ms=skew_ms)

    def _is_own(self, agent: Agent | None, verified: bool) -> bool:
        """Whether a refusal here says how `agent` is; not while that is here over another
        connection, and not where a stranger may only have said its name."""
        if agent is None or agent.session not in (None, self):
            return False
        return verified or agent.address in ("", self._connection.address)

    def _refuse(
        self,
        reason: str,
        words: str,
        agent_id: str | None,
        *,
        told: str | None = None,
        own: bool = False,
        skew_ms: int | None = None,
    ) -> None:
        """Count it, and close the connection with that reason."""
        self._count_refusal(reason, words, agent_id, own=own, skew_ms=skew_ms)
        about_text = reason in ("invalid_json", "not_text")
        self.close(UNSUPPORTED_DATA if about_text else POLICY_VIOLATION, told or reason)

    def _count_refusal(
        self,
        reason: str,
        words: str,
        agent_id: str | None,
        *,
        own: bool = False,
        skew_ms: int | None = None,
    ) -> None:
        self.refused += 1
        self._listener.refused(
            RefusalRecord(
                ts_ms=self._now_ms(),
                agent_id=agent_id,
                address=self._connection.address,
                reason=reason,
                words=words,
                own=own,
                skew_ms=skew_ms,
            )
        )


def _claimed(data: bytes) -> tuple[str | None, int | None]:
    """The agent id that a message names which was refused, and its `ts`, where it has them."""
    try:
        envelope = decode(data)
    except ProtocolError:
        pass
    else:
        return envelope.agent_id, envelope.ts
    try:
        check_limits(data)
        member = members(data).get("agentId")
    except ProtocolError:
        return None, None
    named = member.value if member is not None else None
    fits = isinstance(named, str) and 0 < len(named) <= MAX_AGENT_ID and named.isprintable()
    return (named if fits else None), None
