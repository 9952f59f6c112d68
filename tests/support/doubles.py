"""Stand-ins at the seams, for tests that turn the clock themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from jetcamer.agent.credentials import LinkCredentials
from jetcamer.net.endpoint import ConnectFailed
from jetcamer.net.websocket import Disconnected
from jetcamer.protocol.envelope import Envelope
from jetcamer.protocol.signing import SigningKey

SECRET = "test-secret-of-the-suite"
AGENT_ID = "agent-1"


class FakeConnection:
    """An open WebSocket whose other end is the test."""

    def __init__(self, peer: str = "192.0.2.1:443") -> None:
        self.peer = peer
        self.server_date: float | None = None
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.producer: Any = None

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = (code, reason)

    def abort(self) -> None:
        self.aborted = True

    def register_producer(self, producer: Any) -> None:
        self.producer = producer

    def messages(self, secret: str = SECRET) -> list[Envelope]:
        """What was sent, each verified."""
        key = SigningKey(secret)
        return [key.open(data) for data in self.sent]

    def types(self) -> list[str]:
        return [envelope.type for envelope in self.messages()]


class FakeNetwork:
    """The `Dial` of a link: each attempt waits until the test decides."""

    def __init__(self) -> None:
        self.attempts: list[tuple[LinkCredentials, Callable[[Any], Any], Deferred[Any]]] = []
        self.cancelled = 0

    def dial(self, credentials: LinkCredentials, make: Callable[[Any], Any]) -> Deferred[Any]:
        def cancel(_: Deferred[Any]) -> None:
            self.cancelled += 1

        result: Deferred[Any] = Deferred(cancel)
        self.attempts.append((credentials, make, result))
        return result

    def accept(self) -> FakeConnection:
        """The newest attempt succeeds."""
        _, make, result = self.attempts[-1]
        connection = FakeConnection()
        session = make(connection)
        connection.session = session  # type: ignore[attr-defined]
        result.callback(session)
        return connection

    def refuse(self, words: str = "connection refused", retry_after: float | None = None) -> None:
        self.attempts[-1][2].errback(ConnectFailed(words, kind="refused", retry_after=retry_after))


class FakeDispatcher:
    """Runs nothing; the test fires what `submit` returned."""

    def __init__(self) -> None:
        self.submitted: list[tuple[str, dict[str, str], str, Deferred[dict[str, Any]]]] = []

    def submit(self, command: str, args: Mapping[str, str], nonce: str) -> Deferred[dict[str, Any]]:
        done: Deferred[dict[str, Any]] = Deferred()
        self.submitted.append((command, dict(args), nonce, done))
        return done


class FakeSampler:
    """Readings that a test can tell apart."""

    def __init__(self) -> None:
        self.count = 0
        self.failing = False

    def sample(self) -> dict[str, Any]:
        if self.failing:
            raise OSError("no /proc")
        self.count += 1
        return {"cpuPercent": float(self.count), "memPercent": 50.25, "diskUsage": 60.0}


def credentials(
    url: str | None = "wss://hub.example/agent",
    secret: str | None = SECRET,
    agent_id: str = AGENT_ID,
) -> LinkCredentials:
    return LinkCredentials(
        agent_id=agent_id, url=url, secret=secret, secret_source="config", region=None
    )


def lost(words: str = "connection lost", code: int | None = None, reason: str = "") -> Disconnected:
    return Disconnected(
        code=code, reason=reason, by_peer=code is not None, clean=code is not None, words=words
    )
