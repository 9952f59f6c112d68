"""One agent's conversation with the hub, from its `auth` to its last message.

In: the bytes of each message, and what befalls the connection. Out: calls of a `SessionListener`,
for messages whose signature, agent, time and nonce are right and for no others, and sealed
commands. No I/O and no timer: the gateway brings both. It never acts on a message it has not
verified, and never runs on after a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol
from uuid import uuid4

from twisted.logger import Logger

from jetcamer.hub.keys import AgentKey, KeyRing
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.envelope import (
    AuthPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsPayload,
    decode,
    decode_payload,
)
from jetcamer.protocol.errors import ProtocolError, excerpt

_log = Logger()

#: WebSocket close codes (RFC 6455, 7.4.1).
NORMAL = 1000
UNSUPPORTED_DATA = 1003
POLICY_VIOLATION = 1008

#: Refusals that are about who speaks or when. Any other is about the text: 1003 `invalid_json`.
_POLICY_REASONS = frozenset(
    {"unknown_agent", "wrong_agent", "invalid_signature", "invalid_timestamp", "replayed_nonce"}
)


class Connection(Protocol):
    """What a session needs of the WebSocket under it."""

    @property
    def peer(self) -> str:
        """The other side's address, for the log."""

    def send(self, data: bytes) -> None:
        """Send one text message; ignored once the connection is closing."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; ignored once it has begun."""


class SessionListener(Protocol):
    """Who acts on what agents say. Each call but `refused` is for a verified message.

    A listener that raises costs its agent the connection (1011), nothing more.
    """

    def authenticated(
        self, session: AgentSession, envelope: Envelope, payload: AuthPayload
    ) -> None: ...

    def metrics(
        self, session: AgentSession, envelope: Envelope, payload: MetricsPayload
    ) -> None: ...

    def heartbeat(
        self, session: AgentSession, envelope: Envelope, payload: HeartbeatPayload
    ) -> None: ...

    def log(self, session: AgentSession, envelope: Envelope, payload: LogPayload) -> None: ...

    def command_result(
        self, session: AgentSession, envelope: Envelope, payload: CommandResultPayload
    ) -> None: ...

    def disconnected(self, session: AgentSession, words: str) -> None:
        """The last call for a session that had authenticated; for no other."""

    def refused(self, reason: str, peer: str) -> None:
        """A message was not accepted. `reason` is the machine name that the peer is told."""


class AgentSession:
    """The hub's side of one connection.

    :param now_ms: Unix milliseconds, the wall clock.
    """

    def __init__(
        self,
        connection: Connection,
        keys: KeyRing,
        listener: SessionListener,
        now_ms: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._listener = listener
        self._now_ms = now_ms
        self._key: AgentKey | None = None
        self._closing = False
        #: Set by the first verified `auth`, and by nothing after it.
        self.agent_id: str | None = None
        #: What the agent last said of itself.
        self.auth: AuthPayload | None = None
        #: Messages whose signature was right, and messages refused.
        self.verified = 0
        self.refused = 0
        #: Unix milliseconds of the last verified message, by our clock; 0 before the first.
        self.last_seen_ms = 0

    @property
    def peer(self) -> str:
        return self._connection.peer

    @property
    def open(self) -> bool:
        """Whether a command can be sent: authenticated, and not closing."""
        return self.agent_id is not None and not self._closing

    # What the gateway reports.

    def message_received(self, data: bytes) -> None:
        """One whole text message. Never raises for anything the peer sent."""
        if self._closing:
            return
        try:
            envelope = self._verify(data)
        except ProtocolError as error:
            self._refuse(error.code if error.code in _POLICY_REASONS else "invalid_json", error)
            return
        self.verified += 1
        self.last_seen_ms = self._now_ms()
        try:
            self._dispatch(envelope)
        except ProtocolError as error:
            # Signed by the right agent, so a fault and not an attack: an agent with one odd
            # message keeps its link. One whose `auth` is odd is nobody yet, and does not.
            if self.agent_id is None:
                self._refuse("invalid_json", error)
            else:
                self._count_refusal("invalid_payload", error)

    def binary_received(self) -> None:
        """A binary message, which the protocol does not have."""
        if not self._closing:
            self._refuse("not_text", None)

    def auth_overdue(self) -> None:
        """The time in which an agent has to say who it is has passed."""
        if self.agent_id is None and not self._closing:
            self._refuse("auth_timeout", None)

    def connection_lost(self, words: str) -> None:
        """The connection is gone. `words` say how, for a person."""
        self._closing = True
        if self.agent_id is not None:
            self._listener.disconnected(self, words)

    # What the hub asks for.

    def send_command(self, command: str, args: Mapping[str, str]) -> str:
        """Send a signed `command`; returns its nonce, which the answer names as `inReplyTo`.

        Raises ProtocolError for arguments that are not text or make too large a message, and
        ValueError when the session is not `open`.
        """
        if self._key is None or self.agent_id is None or self._closing:
            raise ValueError("the session is not open")
        nonce = str(uuid4())
        message = self._key.signing.seal(
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

    def _verify(self, data: bytes) -> Envelope:
        if self._key is None:
            return self._verify_first(data)
        envelope = self._key.signing.open(data)
        if envelope.agent_id != self.agent_id:
            raise ProtocolError("wrong_agent", "the agent id changed within a connection")
        self._key.replay.check(envelope.ts, envelope.nonce, self._now_ms())
        return envelope

    def _verify_first(self, data: bytes) -> Envelope:
        """The one message that is decoded before it is verified: it says by which key."""
        claimed = decode(data).agent_id
        key = self._keys.find(claimed)
        if key is None:
            raise ProtocolError("unknown_agent", f"no agent is known as {excerpt(claimed)}")
        envelope = key.signing.open(data)
        key.replay.check(envelope.ts, envelope.nonce, self._now_ms())
        self._key = key
        return envelope

    def _dispatch(self, envelope: Envelope) -> None:
        if self.agent_id is None and envelope.type != "auth":
            self._refuse("auth_required", None)
            return
        listener = self._listener
        match envelope.type:
            case "auth":
                auth = decode_payload(envelope, AuthPayload)
                self.agent_id, self.auth = envelope.agent_id, auth
                listener.authenticated(self, envelope, auth)
            case "metrics":
                listener.metrics(self, envelope, decode_payload(envelope, MetricsPayload))
            case "heartbeat":
                listener.heartbeat(self, envelope, decode_payload(envelope, HeartbeatPayload))
            case "log":
                listener.log(self, envelope, decode_payload(envelope, LogPayload))
            case "command_result":
                listener.command_result(
                    self, envelope, decode_payload(envelope, CommandResultPayload)
                )
            case _:
                # As the servers in the field do: say so, and go on.
                self._count_refusal("unknown_type", None)

    def _refuse(self, reason: str, error: ProtocolError | None) -> None:
        """Count it, and close the connection with that reason."""
        self._count_refusal(reason, error)
        about_text = reason in ("invalid_json", "not_text")
        self.close(UNSUPPORTED_DATA if about_text else POLICY_VIOLATION, reason)

    def _count_refusal(self, reason: str, error: ProtocolError | None) -> None:
        self.refused += 1
        _log.warn(
            "[hub] refused a message from {peer} ({agent}): {reason}{words}",
            peer=self.peer,
            agent=self.agent_id or "not authenticated",
            reason=reason,
            words=f": {error}" if error is not None else "",
        )
        self._listener.refused(reason, self.peer)
