"""Stand-ins at the hub's seams: a connection, a listener, and agents that seal messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from jetcamer.hub.fleet import Fleet
from jetcamer.hub.records import AgentRecord, RefusalRecord
from jetcamer.hub.session import AgentSession
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.envelope import CommandPayload, Envelope, decode_payload
from jetcamer.protocol.signing import SigningKey

SECRETS = {"agent-1": "first secret", "agent-2": "second secret"}

#: Unix milliseconds at which the tests begin.
NOW = 1_731_819_422_000


class FakeConnection:
    """A `Connection` that remembers."""

    def __init__(self, peer: str = "192.0.2.7:50000") -> None:
        self.peer = peer
        self.address = peer.rpartition(":")[0]
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self, code: int, reason: str) -> None:
        if self.closed is not None:
            raise AssertionError("closed twice")
        self.closed = (code, reason)

    def commands(self, secret: str = SECRETS["agent-1"]) -> list[tuple[Envelope, CommandPayload]]:
        """What was sent, each verified."""
        key = SigningKey(secret)
        envelopes = [key.open(data) for data in self.sent]
        return [(envelope, decode_payload(envelope, CommandPayload)) for envelope in envelopes]


class RecordingListener:
    """A `SessionListener` that remembers (event, agent id or None, what)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.refusals: list[RefusalRecord] = []
        self.raises: Exception | None = None

    def _record(self, event: str, what: Any) -> None:
        self.events.append((event, what))
        if self.raises is not None:
            raise self.raises

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def of(self, event: str) -> list[Any]:
        return [what for name, what in self.events if name == event]

    def authenticated(self, session: AgentSession, envelope: Envelope, payload: Any) -> None:
        self._record("authenticated", payload)

    def metrics(self, session: AgentSession, envelope: Envelope, payload: Any) -> None:
        self._record("metrics", payload)

    def heartbeat(self, session: AgentSession, envelope: Envelope, payload: Any) -> None:
        self._record("heartbeat", payload)

    def log(self, session: AgentSession, envelope: Envelope, payload: Any) -> None:
        self._record("log", payload)

    def command_result(self, session: AgentSession, envelope: Envelope, payload: Any) -> None:
        self._record("command_result", payload)

    def disconnected(self, session: AgentSession, words: str) -> None:
        self._record("disconnected", words)

    def refused(self, refusal: RefusalRecord) -> None:
        self.refusals.append(refusal)
        self._record("refused", refusal.reason)


class SealingAgent:
    """Says what a real agent says, sealed with its key."""

    def __init__(self, agent_id: str = "agent-1", secret: str | None = None) -> None:
        self.agent_id = agent_id
        self.key = SigningKey(secret or SECRETS[agent_id])
        self.now = NOW

    def seal(self, type: str, payload: Any, **more: Any) -> bytes:
        members = {"ts": self.now, "nonce": str(uuid4()), "agent_id": self.agent_id, **more}
        return self.key.seal(type, members.pop("agent_id"), canonical(payload), **members)

    def auth(self, **more: Any) -> bytes:
        return self.seal("auth", {"hostname": "web-01", "version": "5.0.0"}, **more)

    def metrics(self, **more: Any) -> bytes:
        payload = {"cpuPercent": 25.5, "memPercent": 45.2, "diskUsage": 60.1}
        return self.seal("metrics", payload, **more)

    def result(self, command: str, result: str, in_reply_to: str | None = None) -> bytes:
        payload = {"command": command, "result": result, "error": ""}
        if in_reply_to is not None:
            payload["inReplyTo"] = in_reply_to
        return self.seal("command_result", payload)


def keys(secrets: Mapping[str, str] = SECRETS) -> Fleet:
    """A fleet in which each agent has one secret."""
    fleet = Fleet()
    for agent_id, secret in secrets.items():
        fleet.add(AgentRecord(agent_id=agent_id, created_ms=NOW), [(secret, None)])
    return fleet
