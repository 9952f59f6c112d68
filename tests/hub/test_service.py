"""The hub as one service: its start, what it says of it, and its end."""

from __future__ import annotations

import os
import shutil
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import TestCase

from jetcamer.hub import service
from jetcamer.hub.config import HubConfig
from jetcamer.hub.first_token import show_token
from jetcamer.hub.service import Hub, StartError, build_hub
from jetcamer.hub.vault import VaultError
from tests.hub.doubles import FakeConnection, SealingAgent
from tests.support.logs import LogsMixin


class Manager(DatagramProtocol):
    """A service manager: what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.waits: list[tuple[str, Deferred[None]]] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.told.extend(datagram.decode().splitlines())
        for line, done in [*self.waits]:
            if line in self.told:
                self.waits.remove((line, done))
                done.callback(None)

    def hears(self, line: str) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        if line in self.told:
            done.callback(None)
        else:
            self.waits.append((line, done))
        return done


class HubTests(LogsMixin, TestCase):
    timeout = 30

    def setUp(self) -> None:
        super().setUp()
        self.folder = os.path.abspath(self.mktemp())
        self.shown: list[str] = []

    def hub(self, environ: dict[str, str] | None = None, **config: Any) -> Hub:
        members = {
            "listen": ("tcp:0:interface=127.0.0.1",),
            "api_listen": ("tcp:0:interface=127.0.0.1",),
            "state_dir": self.folder,
            "store": "off",
            "drain_seconds": 0.0,
            **config,
        }
        hub = build_hub(HubConfig(**members), reactor=reactor, environ=environ or {})
        hub.on_first_token = self.shown.append
        return hub

    async def started(self, environ: dict[str, str] | None = None, **config: Any) -> Hub:
        hub = self.hub(environ, **config)
        hub.startService()
        self.addCleanup(hub.stopService)
        await hub.when_ready()
        return hub

    def socket_folder(self) -> str:
        """A short one: the path of a socket may not be long."""
        folder = mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return folder

    async def test_asked_late(self) -> None:
        """Whether it is ready may be asked at any time."""
        hub = await self.started()
        await hub.when_ready()
        self.assertEqual(len(self.shown), 1)

    async def test_a_token_that_nobody_saw(self) -> None:
        """It is as if it had never been made: the next start makes another."""
        hub = self.hub(store="sqlite")

        def fails(token: str) -> None:
            raise OSError(28, "No space left on device", "/x")

        hub.on_first_token = fails
        hub.startService()
        error = await self.assertFailure(hub.when_ready(), StartError)
        self.assertEqual(str(error), "the admin token cannot be shown: /x: No space left on device")
        await self.assertFailure(hub.when_ready(), StartError)
        await hub.stopService()
        again = await self.started(store="sqlite")
        self.assertEqual(len(self.shown), 1)
        self.assertEqual(len(again.tokens.all()), 1)

    async def test_where_the_token_is_shown(self) -> None:
        """To who reads standard output, and where nobody does, in a file of its own."""
        reading, writing = os.pipe()
        stream = os.fdopen(writing, "w")
        self.patch(service.__dict__["show_token"].__globals__["sys"], "__stdout__", stream)
        show_token(self.folder, "jc_one")
        self.assertEqual(os.read(reading, 100), b"An admin token, shown this once: jc_one\n")
        os.close(reading)
        os.makedirs(self.folder)
        show_token(self.folder, "jc_two")
        path = os.path.join(self.folder, "new-admin-token")
        with open(path) as file:
            self.assertEqual(file.read(), "jc_two\n")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        with self.assertRaises(BrokenPipeError):
            stream.close()
        self.assertRaises(OSError, show_token, "/none/at/all", "jc_three")

    async def test_agents_that_cannot_be_told_where_to_connect(self) -> None:
        """Without a TCP endpoint the hub knows no URL. It says so, and fails nobody's request."""
        captured = self.capture_logs()
        hub = await self.started(listen=("unix:" + os.path.join(self.socket_folder(), "agents"),))
        self.assertEqual(hub._agent_url("hub.example.com"), "")
        self.assertLogged(captured, "[hub] agents cannot be told where to connect")
        hub = await self.started(
            listen=(
                "unix:" + os.path.join(self.socket_folder(), "agents"),
                "tcp:0:interface=127.0.0.1",
            ),
        )
        self.assertEqual(
            hub._agent_url("hub.example.com"), f"ws://hub.example.com:{hub.gateway.port}/agent"
        )

    async def test_what_the_service_manager_is_told(self) -> None:
        """How many agents there are, again where that has changed."""
        self.patch(service, "_STATUS_INTERVAL", 0.02)
        manager = Manager()
        path = os.path.join(self.socket_folder(), "notify")
        port = reactor.listenUNIXDatagram(path, manager)
        self.addCleanup(port.stopListening)
        hub = await self.started({"NOTIFY_SOCKET": path})
        await manager.hears("STATUS=0 agents online, 0 known")
        self.assertIn("READY=1", manager.told)
        secret = await hub.enrolment.add("web-1", who="alice")
        await manager.hears("STATUS=0 agents online, 1 known")
        agent = SealingAgent("web-1", secret)
        agent.now = hub._now_ms()
        session = hub._make_session(FakeConnection())
        session.message_received(agent.auth())
        await manager.hears("STATUS=1 agents online, 1 known")
        self.assertEqual(len([line for line in manager.told if "1 agents" in line]), 1)
        session.connection_lost("gone")

    async def test_revoked(self) -> None:
        """What waits for an agent ends with its revocation."""
        hub = await self.started()
        await hub.enrolment.add("web-1", who="alice")
        await hub.commands.send("web-1", "ping", {}, who="alice", queue_seconds=60)
        await hub.enrolment.revoke("web-1", who="alice")
        self.assertEqual(hub.commands.queued("web-1"), 0)

    async def test_why_agents_are_away_survives(self) -> None:
        """A wrong clock and a wrong secret are shown after a restart too."""
        hub = await self.started(store="sqlite")
        before = {}
        for agent_id, words in (
            ("slow", "clock wrong by 400 s (behind), from 192.0.2.7"),
            ("wrong", "refused, from 192.0.2.7: signature: does not match"),
            ("fine", "not connected"),
        ):
            secret = await hub.enrolment.add(agent_id, who="alice")
            agent = SealingAgent(agent_id, secret if agent_id != "wrong" else "another secret")
            agent.now = hub._now_ms() - 400_000 * (agent_id == "slow")
            session = hub._make_session(FakeConnection())
            session.message_received(agent.auth())
            session.connection_lost("gone")
            state = hub.fleet.get(agent_id).state(hub._now_ms())
            self.assertIn(words, state[1])
            before[agent_id] = state
        skew = hub.fleet.get("slow").skew_ms
        await hub.stopService()
        again = await self.started(store="sqlite")
        for agent_id, state in before.items():
            self.assertEqual(again.fleet.get(agent_id).state(again._now_ms()), state)
        self.assertEqual(again.fleet.get("slow").skew_ms, skew)
        self.assertEqual(again.fleet.get("wrong").last_refusal.reason, "invalid_signature")

    async def test_a_key_that_is_missing(self) -> None:
        """No other is made where there are secrets that were sealed with it."""
        hub = await self.started(store="sqlite")
        await hub.enrolment.add("web-1", who="alice")
        await hub.stopService()
        key = os.path.join(self.folder, "secret.key")
        os.rename(key, key + ".away")
        hub = self.hub(store="sqlite")
        hub.startService()
        error = await self.assertFailure(hub.when_ready(), VaultError)
        self.assertEqual(str(error), f"{key} is missing: put back the one from your backup")
        await hub.stopService()
        self.assertFalse(os.path.exists(key))
        os.rename(key + ".away", key)
        await self.started(store="sqlite")

    async def test_the_api_waits_for_all_it_stands_on(self) -> None:
        """Before the commands of the run before are known, no token is."""
        hub = self.hub()
        commands: Deferred[list[Any]] = Deferred()
        self.patch(hub.store, "unfinished_commands", lambda: commands)
        hub.startService()
        self.addCleanup(hub.stopService)
        ready = hub.when_ready()
        self.assertFalse(hub.tokens._loaded)
        commands.callback([])
        await ready
        self.assertTrue(hub.tokens._loaded)
