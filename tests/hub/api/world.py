"""The whole API in memory: real tokens, fleet, bus and enrolment, a store of lists, a sender of
commands that the test turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.fernet import Fernet
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.service import API_LIMITS, HubAPI
from jetcamer.hub.api.tokens import Tokens
from jetcamer.hub.bus.local import LocalBus
from jetcamer.hub.commands import BatchProgress
from jetcamer.hub.enrolment import Enrolment
from jetcamer.hub.fleet import Agent, Fleet
from jetcamer.hub.records import ROLES, AgentRecord, CommandRecord
from jetcamer.hub.refusals import Refusals
from jetcamer.hub.vault import Vault
from jetcamer.net.http_site import JSONSite
from tests.hub.api.memory_store import MemoryStore
from tests.support.raw_http import MemoryConnection, Response, request

NOW = 1_731_819_422_000
HOST = "hub.example:9812"


class FakeCommands:
    """What is sent waits until the test answers."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"done": 4, "timeout": 1}
        self.waiting: dict[str, int] = {}
        self.sent: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []
        self.many: list[tuple[list[str], str, dict[str, Any]]] = []
        self.batches: dict[str, BatchProgress] = {}
        self.answers: list[Deferred[CommandRecord]] = []
        #: What every command sent gets at once; None: the test fires `answers`.
        self.outcome: Any = None
        self.cancelled = 0

    def queued(self, agent_id: str) -> int:
        return self.waiting.get(agent_id, 0)

    def send(
        self, agent_id: str, command: str, args: Mapping[str, str], **options: Any
    ) -> Deferred[CommandRecord]:
        def cancel(_: Deferred[CommandRecord]) -> None:
            self.cancelled += 1

        answer: Deferred[CommandRecord] = Deferred(cancel)
        self.sent.append((agent_id, command, dict(args), options))
        self.answers.append(answer)
        if isinstance(self.outcome, Exception):
            answer.errback(self.outcome)
        elif self.outcome is not None:
            answer.callback(record(agent_id, command, dict(args), **self.outcome))
        return answer

    def send_many(
        self, agent_ids: Sequence[str], command: str, args: Mapping[str, str], **options: Any
    ) -> str:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        batch_id = f"batch-{len(self.many) + 1}"
        self.many.append(([*agent_ids], command, {"args": dict(args), **options}))
        self.batches[batch_id] = BatchProgress(
            batch_id=batch_id,
            total=len(agent_ids),
            done=0,
            failed=0,
            waiting=len(agent_ids),
            finished=False,
        )
        return batch_id

    def progress(self, batch_id: str) -> BatchProgress | None:
        return self.batches.get(batch_id)


class FakeStatus:
    version = "5.0.0"
    started_ms = NOW - 60_000
    draining = False
    connections = 7
    agents_online = 2
    agents_known = 3
    messages_by_type: Mapping[str, int] = {"auth": 2, "metrics": 40}
    messages = 42
    refusals: Mapping[str, int] = {"invalid_signature": 5}
    reactor_lag = 0.004
    handshakes = 9
    handshakes_refused: Mapping[int, int] = {429: 2}

    def __init__(self) -> None:
        self.why_not: str | None = None

    @property
    def ready(self) -> bool:
        return self.why_not is None


class Here:
    """An `AgentSession` that is open."""

    open = True
    record_id = 0
    verified = 0
    refused = 0
    uses_old_secret = False


class FakeOffenders:
    """Addresses that the test bans."""

    def __init__(self) -> None:
        self.banned: dict[str, tuple[float, int]] = {}

    def bans(self) -> list[tuple[str, float, int]]:
        return [(address, *ban) for address, ban in self.banned.items()]

    def lift(self, address: str) -> bool:
        return self.banned.pop(address, None) is not None


def record(
    agent_id: str = "web-1", command: str = "ping", args: dict[str, str] | None = None, **more: Any
) -> CommandRecord:
    members = {
        "command_id": "c1",
        "who": "operator",
        "state": "done",
        "created_ms": NOW,
        "sent_ms": NOW + 1,
        "ended_ms": NOW + 43,
        "result": "pong",
        "details": '{"took":1.50}',
        **more,
    }
    return CommandRecord(agent_id=agent_id, command=command, args=args or {}, **members)


class World:
    """:param clock: what the API measures time by; the wall clock is `now`."""

    def __init__(self, clock: Any = None, backup_dir: str = "/nowhere") -> None:
        self.clock = Clock() if clock is None else clock
        self.now = NOW
        self.store = MemoryStore()
        self.fleet = Fleet()
        self.bus = LocalBus("e")
        self.refusals = Refusals(self.clock, self.fleet)
        self.commands = FakeCommands()
        self.status = FakeStatus()
        self.offenders = FakeOffenders()
        self.closed: list[tuple[str, int, str]] = []
        store: Any = self.store
        self.tokens = Tokens(
            self.clock, store, now_ms=lambda: self.now, trusted_proxies=("10.0.0.0/8",)
        )
        self.enrolment = Enrolment(
            store,
            self.fleet,
            Vault(Fernet.generate_key()),
            now_ms=lambda: self.now,
            close_session=lambda *closing: self.closed.append(closing),
        )
        self.parts = HubParts(
            clock=self.clock,
            now_ms=lambda: self.now,
            fleet=self.fleet,
            commands=self.commands,
            enrolment=self.enrolment,
            store=store,
            bus=self.bus,
            refusals=self.refusals,
            offenders=self.offenders,
            status=self.status,
            agent_url=lambda host: f"wss://{host}:9810/agent",
            backup_dir=backup_dir,
            tokens=self.tokens,
        )
        self.api = HubAPI(self.parts)
        self.secrets: dict[str, str] = {}

    async def make_tokens(self) -> None:
        """One for each role, named as its role."""
        self.secrets["admin"] = await self.tokens.ensure_admin() or ""
        for role in ROLES[:2]:
            _, self.secrets[role] = await self.tokens.create(role, role, None, who="admin")
        self.store.audit_records.clear()

    def add(self, agent_id: str, *, here: bool = True, **members: Any) -> Agent:
        known = AgentRecord(agent_id=agent_id, created_ms=NOW - 1000, **members)
        agent = self.fleet.add(known, [("secret of " + agent_id, None)])
        if here:
            session: Any = Here()
            agent.session = session
            agent.connected_ms = agent.last_seen_ms = NOW - 500
        return agent


class APICase(SynchronousTestCase):
    """Asks the real tree over connections in memory."""

    def setUp(self) -> None:
        self.world = World()
        self.successResultOf(Deferred.fromCoroutine(self.world.make_tokens()))
        self.clock: Clock = self.world.clock
        self.store = self.world.store
        guard = self.world.api.guard(names=("hub.example",))
        self.site = JSONSite(self.clock, self.world.api.routes(guard), API_LIMITS)
        self.connections: list[MemoryConnection] = []

    def tearDown(self) -> None:
        for connection in self.connections:
            connection.lose()
        self.assertEqual(self.site.channels, set())
        self.assertEqual(self.site.streams, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def connect(self) -> MemoryConnection:
        connection = MemoryConnection(self.site)
        self.connections.append(connection)
        return connection

    def text(
        self, method: str, path: str, *headers: str, role: str | None = "admin", body: Any = None
    ) -> bytes:
        """A request as bytes; `role` chooses the token, or is one itself."""
        lines = [*headers]
        if role is not None:
            lines.append(f"Authorization: Bearer {self.world.secrets.get(role, role)}")
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            lines.append("Content-Type: application/json")
        return request(method, path, *lines, body=data, host=HOST)

    def ask(self, method: str, path: str, *headers: str, **more: Any) -> Response:
        (response,) = self.connect().send(self.text(method, path, *headers, **more))
        return response

    def get(self, path: str, role: str = "viewer") -> Any:
        """The JSON of a good answer."""
        response = self.ask("GET", path, role=role)
        self.assertEqual(response.status, 200, response.body)
        return response.json

    def assert_error(self, response: Response, status: int, words: str) -> None:
        self.assertEqual((response.status, response.error), (status, words))
