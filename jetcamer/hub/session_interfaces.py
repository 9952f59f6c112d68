"""What a session stands between: the connection below it, and who acts on what it verified.

Interfaces, and the rules that all sessions have in common. Nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from jetcamer.hub.fleet import Agent
from jetcamer.hub.records import RefusalRecord
from jetcamer.protocol.envelope import (
    AuthPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsMessage,
    MetricsPayload,
)

if TYPE_CHECKING:
    from jetcamer.hub.session import AgentSession


class Connection(Protocol):
    """What a session needs of the WebSocket under it."""

    @property
    def peer(self) -> str:
        """The other side's IP address and port, for the log."""

    @property
    def address(self) -> str:
        """The client's IP address: beyond a proxy that is trusted, what that says."""

    def send(self, data: bytes) -> None:
        """Send one text message; ignored once the connection is closing."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; ignored once it has begun."""


class KeyRing(Protocol):
    """Where sessions look agents up: a `Fleet`. Answers at once."""

    def find(self, agent_id: str, now_ms: int) -> Agent | None:
        """The agent whose messages may be verified; None for one that nobody knows."""

    def admit(self, agent: Agent) -> Agent:
        """The agent has authenticated: know it from now on."""

    def why_unknown(self, agent_id: str) -> str:
        """Why `find` has nobody of this name, in words for an operator."""


class SessionListener(Protocol):
    """Who acts on what agents say. Each call but `refused` is for a verified message.

    A listener that raises costs its agent the connection (1011), nothing more.
    """

    def authenticated(
        self, session: AgentSession, envelope: Envelope, payload: AuthPayload
    ) -> None: ...

    def metrics(
        self, session: AgentSession, envelope: Envelope | MetricsMessage, payload: MetricsPayload
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

    def refused(self, refusal: RefusalRecord) -> None:
        """A message was not accepted."""


class RateLimit(msgspec.Struct, frozen=True):
    """Messages that one agent may send, over all its connections (a leaky bucket). A long message
    counts once more for each 4 KiB of it."""

    per_second: float = 50.0
    burst: int = 500

    @property
    def words(self) -> str:
        return f"more than {self.per_second:g} messages a second, and {self.burst} at once"


class Policy(msgspec.Struct, frozen=True):
    """What all sessions have in common.

    :param explain: why a message's signature does not match any of an agent's keys, in words.
    """

    rate: RateLimit = RateLimit()
    explain: Callable[[bytes, Agent], str] = lambda _data, _agent: ""


DEFAULT_POLICY = Policy()
