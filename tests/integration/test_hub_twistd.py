"""The hub as a user runs it: a process, its first token, its restarts, its faults in one line."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import stat
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from jetcamer.daemon.clock import wall_clock_ms
from tests.hub.doubles import SealingAgent
from tests.support.case import ProcessCase
from tests.support.forks import run_forked
from tests.support.hub_service import HubService
from tests.support.line_process import LineNotSeen
from tests.support.twistd import TwistdAgent, http
from tests.support.websocket_client import connect

SHARED = "a-shared-secret-that-must-never-be-printed"

#: What `twistd` does, and what it loads for a hub before it takes a reactor.
RUN = "from twisted.scripts.twistd import run; run()"
LOADED = (
    "twisted.scripts.twistd",
    "twisted.internet.epollreactor",
    "twisted.trial.itrial",
    "jetcamer.hub.tap",
    "jetcamer.hub.service",
)


class HubCase(ProcessCase):
    def hub(self, config: dict[str, Any] | None = None, folder: str | None = None) -> HubService:
        hub = HubService(reactor, folder or self.mktemp(), config)
        self.addCleanup(self.end, hub)
        return hub

    async def end(self, hub: HubService) -> None:
        if hub.transport is not None:
            await hub.stop()
            printed = "\n".join(hub.events) + hub.stderr
            self.assertNotIn(SHARED, printed)
            self.assertNotIn("Traceback", printed)

    async def restarted(self, hub: HubService, signal: str) -> HubService:
        """A hub in its place: the same state, the same port."""
        hub.signal(signal)
        await hub.when_ended()
        after = self.hub(
            {**hub.config, "listen": [f"tcp:{hub.port}:interface=127.0.0.1"]},
            folder=str(hub.folder),
        )
        after.token = hub.token
        return await after.start()

    async def agent_of(self, hub: HubService, agent_id: str = "web-1") -> SealingAgent:
        _, answer = await hub.request("POST", "/api/agents", {"agentId": agent_id})
        agent = SealingAgent(agent_id, answer["secret"])
        agent.now = wall_clock_ms()
        return agent


class StartTests(HubCase):
    async def test_first_starts(self) -> None:
        """Nothing configured but where: a key, a database and a token, and none for strangers."""
        hub = await self.hub().start()
        state = Path(hub.config["stateDir"])
        self.assertEqual(stat.S_IMODE(state.stat().st_mode), 0o700)
        for name in ("secret.key", "hub.sqlite3"):
            self.assertEqual(stat.S_IMODE((state / name).stat().st_mode), 0o600, name)
        self.assertEqual(
            await http(reactor, hub.api_port, "GET", "/readyz"), (200, {"ready": True})
        )
        self.assertEqual((await http(reactor, hub.api_port, "GET", "/api/agents"))[0], 401)
        self.assertEqual(
            await hub.request("GET", "/api/agents"), (200, {"agents": [], "next": None})
        )
        hub.signal("TERM")
        await hub.when_ended()
        self.assertEqual(hub.exit_code, 0, hub._report("SIGTERM"))
        again = self.hub(folder=str(hub.folder))
        again.token = hub.token
        await again.start()
        self.assertEqual((await again.request("GET", "/api/agents"))[0], 200)
        self.assertFalse([line for line in again.events if "token" in line])
        await self.agent_of(again)
        again.signal("TERM")
        await again.when_ended()
        # Without its key it is nobody: one line, and nothing in its place.
        key = state / "secret.key"
        key.unlink()
        last = self.hub(folder=str(hub.folder))
        await self.assertFailure(Deferred.fromCoroutine(last.start()), LineNotSeen)
        await last.when_ended()
        self.assertEqual(last.exit_code, 1)
        self.assertEqual(
            last.stderr,
            f"jetcamer-hub: {key} is missing: put back the one from your backup\n",
        )
        self.assertFalse(key.exists())

    async def test_cannot_start(self) -> None:
        """Each fault is one line on standard error and status 1, at once or once it runs."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        folder = Path(self.mktemp())
        folder.mkdir()
        newer = folder / "newer"
        newer.mkdir()
        database = sqlite3.connect(newer / "hub.sqlite3")
        database.execute("PRAGMA user_version = 99")
        database.close()
        open_key = folder / "open.key"
        open_key.write_text("x" * 44)
        open_key.chmod(0o644)
        faults: list[tuple[dict[str, Any], str]] = [
            (
                {"listen": [f"tcp:{port}:interface=127.0.0.1"]},
                f"listen: 127.0.0.1:{port}: Address already in use",
            ),
            (
                {"listen": ["tcp:0:interface=192.0.2.1"]},
                "listen: 192.0.2.1:0: Cannot assign requested address",
            ),
            (
                {"apiListen": ["tcp:0:interface=192.0.2.1"]},
                "apiListen tcp:0:interface=192.0.2.1: Cannot assign requested address",
            ),
            ({"listen": ["tcp:99999"]}, "listen"),
            ({"apiListen": ["tcp:99999"]}, "apiListen"),
            ({"apiListen": [f"tcp:{port}:interface=127.0.0.1"]}, "Address already in use"),
            ({"listen": ["ssl:0:privateKey=/none:certKey=/none"]}, "listen: /none"),
            ({"listen": ["nonsense:1"]}, "listen: Unknown endpoint type: 'nonsense'"),
            ({"store": "mysql"}, 'store: expected "sqlite" or "off"'),
            ({"stateDir": str(newer.absolute())}, "newer"),
            ({"secretKeyFile": str(open_key.absolute())}, "open.key"),
        ]
        programs = []
        for number, (config, _) in enumerate(faults):
            hub = self.hub(config, folder=str(folder / str(number)))
            programs.append(f"import sys; sys.argv[:] = {hub.write_config()!r}; {RUN}")
        found = await deferToThread(run_forked, folder, LOADED, programs)
        for (_, words), ended in zip(faults, found, strict=True):
            self.assertEqual(ended.status, 1, f"{words}: {ended}")
            self.assertEqual(len(ended.err.splitlines()), 1, ended)
            self.assertTrue(ended.err.startswith("jetcamer-hub: "), ended)
            self.assertIn(words, ended.err)
            self.assertNotIn("Traceback", ended.out)

    async def test_without_a_store(self) -> None:
        hub = await self.hub({"store": "off", "legacySecret": SHARED}).start()
        agent = SealingAgent("old-1", SHARED)
        agent.now = wall_clock_ms()
        client = await connect(reactor, hub.port)
        client.send_text(agent.auth())
        client.send_text(agent.metrics())
        await client.ping()
        _, shown = await hub.request("GET", "/api/agents/old-1")
        self.assertEqual((shown["state"], shown["legacy"]), ("online", True))
        self.assertEqual(shown["metrics"]["cpuPercent"], 25.5)
        self.assertFalse(os.path.exists(os.path.join(hub.config["stateDir"], "hub.sqlite3")))


class RestartTests(HubCase):
    """What a hub knows survives it, and what it has seen does not count again."""

    async def history(self, signal: str) -> None:
        hub = await self.hub().start()
        agent = await self.agent_of(hub)
        client = await connect(reactor, hub.port)
        auth, metrics = agent.auth(), agent.metrics()
        client.send_text(auth)
        client.send_text(metrics)
        await client.ping()
        # On disk within a second: what has been answered from there is.
        while True:
            _, answer = await hub.request("GET", "/api/agents/web-1/metrics?points=10")
            if answer["points"]:
                break
        _, queued = await hub.request(
            "POST", "/api/agents/gone/commands", {"command": "ping", "queue": True}
        )
        await self.agent_of(hub, "away")
        status, queued = await hub.request(
            "POST", "/api/agents/away/commands", {"command": "ping", "queue": True}
        )
        self.assertEqual((status, queued["state"]), (202, "queued"))
        await self.settled(hub)
        after = await self.restarted(hub, signal)
        for message in (auth, metrics):
            replayer = await connect(reactor, after.port)
            replayer.send_text(message)
            code, reason = await replayer.closed()
            self.assertEqual(code, 1008)
            self.assertIn(reason.split(":")[0], ("invalid_timestamp", "replayed_nonce"))
        _, answer = await after.request("GET", "/api/agents/web-1/sessions")
        (session,) = answer["sessions"]
        self.assertIsNotNone(session["endedAt"])
        _, answer = await after.request("GET", "/api/agents/web-1/metrics?points=10")
        self.assertEqual(sum(point["count"] for point in answer["points"]), 1)
        self.assertEqual((await after.request("GET", "/api/agents/away"))[1]["queuedCommands"], 1)
        self.assertEqual(
            await after.request("GET", "/api/audit/verify"),
            (200, {"verified": 4, "firstWrong": None}),
        )
        # The agent itself is let in again, with its new messages.
        agent.now = wall_clock_ms() + 3000
        again = await connect(reactor, after.port)
        again.send_text(agent.auth())
        await again.ping()
        self.assertEqual((await after.request("GET", "/api/agents/web-1"))[1]["state"], "online")

    async def settled(self, hub: HubService) -> None:
        """Until nothing waits to be written."""
        while True:
            _, status = await hub.request("GET", "/api/status")
            if not status["store"]["waiting"]:
                return

    async def test_stopped(self) -> None:
        await self.history("TERM")

    async def test_killed(self) -> None:
        await self.history("KILL")


class WholeTests(HubCase):
    async def test_our_agent(self) -> None:
        """From a join token to an answered command, as the documentation says it."""
        hub = await self.hub({"agentUrl": None}).start()
        _, token = await hub.request("POST", "/api/join-tokens", {"expiresSeconds": 60, "uses": 1})
        status, joined = await http(
            reactor, hub.api_port, "POST", "/api/join", {"agentId": "web-9"}, token=token["token"]
        )
        self.assertEqual(status, 201)
        agent = TwistdAgent(
            reactor,
            self.mktemp(),
            {
                "instanceId": "web-9",
                "wsApiUrl": joined["wsApiUrl"],
                "wsSecret": joined["secret"],
                "archive": "off",
                "logPaths": [],
            },
        )
        self.addCleanup(agent.stop)
        agent.start()
        await agent.said("[ws] ✓ auth message sent")
        status, done = 409, None
        while status == 409:  # until the hub has read it
            status, done = await hub.request(
                "POST", "/api/agents/web-9/commands", {"command": "ping", "timeoutSeconds": 15}
            )
        self.assertEqual((status, done["state"], done["result"]), (200, "done", "pong"))
        self.assertNotIn(json.dumps(joined["secret"]), "\n".join(hub.events + agent.events))
        # Taken back: its connection ends at once, and it is told why.
        await hub.request("POST", "/api/agents/web-9/revoke")
        await agent.wait_for(lambda line: "revoked" in line)
        agent.signal("TERM")
        await agent.when_ended()
