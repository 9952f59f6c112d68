"""The API over the hub's own parts: every answer is what its type says, from a real database."""

from __future__ import annotations

import json
import os
from typing import Any, TypeVar

import msgspec
from cryptography.fernet import Fernet
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from jetcamer.hub.admission import Offenders
from jetcamer.hub.api import answers
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.service import APIService, HubAPI
from jetcamer.hub.api.tokens import Tokens
from jetcamer.hub.bus.local import LocalBus
from jetcamer.hub.commands import Commands
from jetcamer.hub.enrolment import Enrolment
from jetcamer.hub.fleet import Fleet
from jetcamer.hub.ingest import Ingest
from jetcamer.hub.refusals import Refusals
from jetcamer.hub.registry import AgentRegistry
from jetcamer.hub.session import AgentSession
from jetcamer.hub.store.null import NullStore
from jetcamer.hub.store.sqlite import Retention, SQLiteStore
from jetcamer.hub.vault import Vault
from tests.hub.api.world import NOW, FakeStatus
from tests.hub.doubles import FakeConnection, SealingAgent
from tests.support.raw_http import RawClient, Response, parse_responses, request

T = TypeVar("T")


class RealHub:
    """All but the WebSocket."""

    def __init__(self, folder: str, store: Any) -> None:
        self.now = NOW
        self.store = store
        self.fleet = Fleet()
        self.bus = LocalBus()
        self.refusals = Refusals(reactor, self.fleet)
        self.offenders = Offenders(reactor)
        self.ingest = Ingest(
            reactor,
            fleet=self.fleet,
            store=store,
            bus=self.bus,
            refusals=self.refusals,
            offenders=self.offenders,
            now_ms=self.now_ms,
        )
        self.registry = AgentRegistry(reactor, self.ingest)
        self.commands = Commands(
            reactor, registry=self.registry, store=store, bus=self.bus, now_ms=self.now_ms
        )
        self.ingest.commands = self.commands
        self.tokens = Tokens(reactor, store, now_ms=self.now_ms)
        self.enrolment = Enrolment(
            store,
            self.fleet,
            Vault(Fernet.generate_key()),
            now_ms=self.now_ms,
            close_session=lambda *_: None,
        )
        self.api = HubAPI(
            HubParts(
                clock=reactor,
                now_ms=self.now_ms,
                fleet=self.fleet,
                commands=self.commands,
                enrolment=self.enrolment,
                store=store,
                bus=self.bus,
                refusals=self.refusals,
                offenders=self.offenders,
                status=FakeStatus(),
                agent_url=lambda host: f"ws://{host}/agent",
                backup_dir=os.path.join(folder, "backups"),
                tokens=self.tokens,
            )
        )
        self.commands.on_answer = self.api.exposition.command_answered
        self.service = APIService(reactor, self.api, "tcp:0:interface=127.0.0.1")
        self.token: str | None = None

    def now_ms(self) -> int:
        return self.now

    async def start(self) -> None:
        await self.store.open()
        await self.enrolment.load()
        self.token = await self.tokens.ensure_admin()
        await self.commands.start()
        self.ingest.start()
        self.service.startService()

    async def stop(self) -> None:
        self.commands.stop()
        await self.service.stopService()
        self.ingest.stop()
        await self.store.close()

    def connect(self, agent_id: str, secret: str) -> tuple[FakeConnection, AgentSession]:
        """An agent that has said who it is."""
        connection = FakeConnection()
        session = AgentSession(connection, self.fleet, self.registry, self.now_ms)
        session.message_received(SealingAgent(agent_id, secret).auth())
        return connection, session

    async def ask(self, method: str, path: str, body: object = None) -> Response:
        client = await RawClient.connect(reactor, self.service.port)
        client.send(self.text(method, path, body))
        (response,) = parse_responses(await client.until_closed())
        return response

    def text(self, method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        return request(
            method,
            path,
            f"Authorization: Bearer {self.token}",
            "Content-Type: application/json",
            "Connection: close",
            body=data,
        )


class SQLiteTests(TestCase):
    timeout = 60

    def make_store(self, folder: str) -> Any:
        path = os.path.join(folder, "hub.sqlite3")
        return SQLiteStore(reactor, path, now_ms=self.now_ms, retention=Retention())

    def now_ms(self) -> int:
        return self.hub.now

    async def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.hub = RealHub(self.folder, self.make_store(self.folder))
        await self.hub.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.hub.stop()))

    async def say(
        self, kind: type[T], method: str, path: str, body: object = None, status: int = 200
    ) -> T:
        response = await self.hub.ask(method, path, body)
        self.assertEqual(response.status, status, response.body)
        return msgspec.json.decode(response.body, type=kind)

    async def get(self, kind: type[T], path: str) -> T:
        await self.hub.store.flush()
        return await self.say(kind, "GET", path)

    async def add(self, agent_id: str = "web-1") -> str:
        made = await self.say(
            answers.NewAgent, "POST", "/api/agents", {"agentId": agent_id}, status=201
        )
        return made.secret

    async def test_what_an_agent_said(self) -> None:
        secret = await self.add()
        _, session = self.hub.connect("web-1", secret)
        agent = SealingAgent("web-1", secret)
        session.message_received(agent.metrics())
        log = {"level": "error", "message": "é 500", "source": "a.log", "event": {"status": 500}}
        session.message_received(agent.seal("log", log))
        self.hub.connect("web-1", "another secret")
        found = await self.get(answers.AgentDetails, "/api/agents/web-1")
        self.assertEqual((found.state, found.hostname), ("online", "web-01"))
        # Who only says that he is the agent says nothing of how it is.
        self.assertIsNone(found.last_refusal)
        self.assertEqual(found.metrics.cpu_percent, 25.5)
        await self.check_history()
        text = (await self.hub.ask("GET", "/metrics")).body
        self.assertIn(b'jetcamer_agent_up{agent="web-1"} 1.0\n', text)

    async def check_history(self) -> None:
        path = "/api/agents/web-1"
        series = await self.get(answers.Series, f"{path}/metrics?from={NOW - 60_000}&to={NOW + 1}")
        self.assertEqual([point.cpu_percent.avg for point in series.points], [25.5])
        logs = await self.get(answers.Logs, f"{path}/logs?level=error&contains=500&source=a.log")
        self.assertEqual(json.loads(bytes(logs.logs[0].event)), {"status": 500})
        sessions = await self.get(answers.Sessions, f"{path}/sessions")
        # It is open: the messages so far, `auth` among them.
        (session,) = sessions.sessions
        self.assertEqual((session.ended_at, session.messages, session.refused), (None, 3, 0))
        refusals = await self.get(answers.Refusals, "/api/refusals?address=192.0.2.7")
        self.assertEqual(len(refusals.refusals), 1)

    async def test_an_old_secret_that_is_still_used(self) -> None:
        async def shown() -> tuple[int | None, bool | None]:
            found = await self.get(answers.AgentDetails, "/api/agents/web-1")
            return found.old_secret_until, found.old_secret_used

        old = await self.add()
        _, session = self.hub.connect("web-1", old)
        path = "/api/agents/web-1/rotate"
        rotated = await self.say(answers.NewSecret, "POST", path, {"graceSeconds": 60})
        self.assertEqual(await shown(), (NOW + 60_000, True))
        session.message_received(SealingAgent("web-1", old).metrics())
        self.assertEqual(await shown(), (NOW + 60_000, True))
        session.message_received(SealingAgent("web-1", rotated.secret).metrics())
        self.assertEqual(await shown(), (NOW + 60_000, False))
        session.connection_lost("it left")
        self.assertEqual(await shown(), (NOW + 60_000, None))
        self.hub.now += 60_000
        self.assertEqual(await shown(), (None, None))

    async def test_bans(self) -> None:
        for _ in range(10):
            self.hub.offenders.offended("192.0.2.7")
        (ban,) = (await self.get(answers.Bans, "/api/bans")).bans
        self.assertEqual((ban.address, round(ban.seconds_left)), ("192.0.2.7", 30))
        await self.say(answers.LiftedBan, "DELETE", "/api/bans/192.0.2.7")
        self.assertEqual((await self.get(answers.Bans, "/api/bans")).bans, ())
        self.assertEqual(self.hub.offenders.banned_for("192.0.2.7"), 0.0)

    async def test_commands(self) -> None:
        secret = await self.add()
        connection, session = self.hub.connect("web-1", secret)
        asked = Deferred.fromCoroutine(
            self.hub.ask("POST", "/api/agents/web-1/commands", {"command": "ping"})
        )
        while not connection.sent:
            await self.turn()
        ((envelope, payload),) = connection.commands(secret)
        self.assertEqual(payload.command, "ping")
        session.message_received(
            SealingAgent("web-1", secret).result("ping", "pong", envelope.nonce)
        )
        command = msgspec.json.decode((await asked).body, type=answers.Command)
        self.assertEqual((command.state, command.result, command.who), ("done", "pong", "admin"))
        self.assertEqual(await self.get(answers.Command, f"/api/commands/{command.id}"), command)
        page = await self.get(answers.Commands, "/api/agents/web-1/commands")
        self.assertEqual(page.commands, (command,))

        await self.add("away")
        body = {"command": "later", "queue": True}
        queued = await self.say(
            answers.Command, "POST", "/api/agents/away/commands", body, status=202
        )
        self.assertEqual(queued.state, "queued")
        details = await self.get(answers.AgentDetails, "/api/agents/away")
        self.assertEqual(details.queued_commands, 1)
        response = await self.hub.ask("POST", "/api/agents/away/commands", {"command": "now"})
        self.assertEqual(response.status, 409)

        body = {"agents": ["away"], "command": "ping"}
        batch = await self.say(answers.Batch, "POST", "/api/commands", body, status=202)
        batch = await self.get(
            answers.Batch, f"/api/command-batches/{batch.batch_id}?commands=true"
        )
        self.assertEqual((batch.failed, batch.finished, len(batch.commands)), (1, True, 1))

    async def test_pages_of_commands(self) -> None:
        agents = [f"web-{number}" for number in range(5)]
        for agent_id in agents:
            await self.add(agent_id)
        body = {"agents": agents, "command": "ping"}  # nobody is here: all in one millisecond
        batch = await self.say(answers.Batch, "POST", "/api/commands", body, status=202)
        path = f"/api/command-batches/{batch.batch_id}?commands=true"
        for first, cursor, order in (
            ("/api/commands?limit=2", "before", agents[::-1]),
            (f"{path}&limit=2", "after", agents),
        ):
            found: list[str] = []
            following: object = None
            while len(found) < 10:
                more = f"&{cursor}={following}" if following else ""
                kind = answers.Commands if cursor == "before" else answers.Batch
                page = await self.get(kind, first + more)
                found += [command.agent_id for command in page.commands]
                following = page.next
                if following is None:
                    break
            self.assertEqual(found, order)
        self.patch(self.hub.commands, "progress", lambda _: None)  # as after a restart
        again = await self.get(answers.Batch, path)
        self.assertEqual((again.total, again.failed, again.finished), (5, 5, True))

    async def test_only_valid_tokens_are_listed(self) -> None:
        for uses in (1, 2):
            body = {"uses": uses, "expiresSeconds": 60 * uses}
            await self.say(answers.NewJoinToken, "POST", "/api/join-tokens", body, status=201)
        listed = await self.get(answers.JoinTokens, "/api/join-tokens")
        self.assertEqual(len(listed.tokens), 2)
        self.hub.now += 60_000
        listed = await self.get(answers.JoinTokens, "/api/join-tokens")
        self.assertEqual([token.uses_left for token in listed.tokens], [2])

    async def test_the_deadline(self) -> None:
        secret = await self.add()
        self.hub.connect("web-1", secret)
        body = {"command": "ping", "timeoutSeconds": 0.01}
        failure = await self.say(
            answers.CommandFailure, "POST", "/api/agents/web-1/commands", body, status=504
        )
        self.assertEqual(failure.command.state, "timeout")

    async def test_the_trail_and_a_backup(self) -> None:
        await self.add()
        await self.say(answers.Revoked, "POST", "/api/agents/web-1/revoke")
        trail = await self.get(answers.AuditTrail, "/api/audit")
        self.assertEqual(
            [entry.action for entry in trail.entries],
            ["agent.revoke", "agent.add", "token.create"],
        )
        checked = await self.get(answers.Verification, "/api/audit/verify")
        self.assertEqual(checked, answers.Verification(verified=3, first_wrong=None))
        await self.check_backup()

    async def check_backup(self) -> None:
        made = await self.say(answers.BackupMade, "POST", "/api/backup")
        self.assertEqual(os.stat(made.path).st_size, made.size)
        self.assertEqual(os.path.dirname(made.path), os.path.join(self.folder, "backups"))

    async def test_tokens_outlive_a_restart(self) -> None:
        body = {"name": "ci", "role": "operator"}
        made = await self.say(answers.NewToken, "POST", "/api/tokens", body, status=201)
        again = Tokens(reactor, self.hub.store, now_ms=self.hub.now_ms)
        self.assertIsNone(await again.ensure_admin())
        self.assertEqual({token.name for token in again.all()}, {"admin", "ci"})
        await self.say(answers.Deleted, "DELETE", f"/api/tokens/{made.id}")
        await again.load()
        self.assertEqual([token.name for token in again.all()], ["admin"])

    async def test_events_resume(self) -> None:
        last = self.hub.bus.last_event_id
        self.hub.connect("web-1", await self.add())
        client = await RawClient.connect(reactor, self.hub.service.port)
        client.send(self.hub.text("GET", f"/api/events?lastEventId={last}&kinds=agent"))
        data = await client.until(lambda data: b"event: agent" in data)
        self.assertIn(b'data: {"agentId":"web-1","ts":', data)
        client.transport.loseConnection()
        await client.until_closed()

    def turn(self) -> Deferred[None]:
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        return turned


class NullTests(SQLiteTests):
    """The same with the store off, as far as it goes."""

    def make_store(self, folder: str) -> Any:
        return NullStore(now_ms=self.now_ms)

    async def check_history(self) -> None:
        refusals = await self.get(answers.Refusals, "/api/refusals?address=192.0.2.7")
        self.assertEqual(len(refusals.refusals), 1)

    async def check_backup(self) -> None:
        response = await self.hub.ask("POST", "/api/backup")
        self.assertEqual(response.status, 503)
