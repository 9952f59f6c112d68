"""A hub in a process of its own, and each kind of agent in the field as its peer.

The Go agent and the Node agent share no code with ours; our own runs as a service manager runs it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.support.case import ProcessCase
from tests.support.go_agent import STATUS, Fields, GoAgent, go_json
from tests.support.hub_service import HubService
from tests.support.node_peer import NodeAgent
from tests.support.twistd import TwistdAgent

GO, NODE, OURS = "go-1", "node-ünï-1", "ours-1"
SECRETS = {GO: "a secret — with <&>", NODE: "another — with <&>", OURS: "the third secret"}

#: Seconds until what must happen has not. A deadline, never a measure.
DEADLINE = 30.0

#: As a web server writes it.
LINE = b'203.0.113.9 - - [17/Nov/2026:14:30:22 +0000] "GET /?a=1&b=<2> HTTP/1.1" 404 153 "-" "x"'

ODD = 'a <script> & "quotes" \u2028 日本 🛰 \x01'


class GoDialectTests(SynchronousTestCase):
    def test_the_columns_of_the_table(self) -> None:
        """Against the document's table and the documentation of ``encoding/json``."""
        for value, text in (
            ("<>&", '"\\u003c\\u003e\\u0026"'),
            ("\u2028\u2029", '"\\u2028\\u2029"'),
            ("ü日🛰", '"ü日🛰"'),
            ("\ud800", '"\ufffd"'),
            ('"\\\n\t\x01', '"\\"\\\\\\n\\t\\u0001"'),
            (20.0, "20"),
            (25.5, "25.5"),
            (1e-7, "1e-7"),
            (1.25e-9, "1.25e-9"),
            (1e-6, "0.000001"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-0.0, "-0"),
            ({"10": 1, "9": 2, "b": 3, "a": 4}, '{"10":1,"9":2,"a":4,"b":3}'),
            (Fields(b=1, a=[True, None]), '{"b":1,"a":[true,null]}'),
        ):
            self.assertEqual(go_json(value), text)


class HubPeersTests(ProcessCase):
    async def new_hub(self, **config: Any) -> HubService:
        self.folder = self.mktemp()
        hub = HubService(reactor, self.folder, config)
        self.addCleanup(hub.stop)
        return await hub.start()

    def go_agent(self, hub: HubService, secret: str = SECRETS[GO]) -> GoAgent:
        agent = GoAgent(reactor, hub.port, GO, secret)
        self.addCleanup(agent.stop)
        return agent.start()

    async def node_agent(self, hub: HubService, secret: str = SECRETS[NODE]) -> NodeAgent:
        url = f"ws://127.0.0.1:{hub.port}/agent"
        agent = NodeAgent(reactor, url, NODE, secret, metrics=0.2)
        self.addCleanup(agent.stop)
        return await agent.start()

    def our_agent(self, hub: HubService, secret: str = SECRETS[OURS]) -> TwistdAgent:
        self.log_path = Path(self.mktemp()).absolute()
        self.log_path.touch()
        config = {
            "wsApiUrl": f"ws://127.0.0.1:{hub.port}/agent",
            "wsSecret": secret,
            "instanceId": OURS,
            "metricsIntervalSeconds": 1,
            "logPaths": [str(self.log_path)],
        }
        agent = TwistdAgent(reactor, self.mktemp(), config)
        self.addCleanup(agent.stop)
        return agent.start()

    async def test_each_is_received_kept_commanded_and_comes_back(self) -> None:
        hub = await self.new_hub()
        await hub.enrol(SECRETS)
        ours = self.our_agent(hub)
        go, node = self.go_agent(hub), await self.node_agent(hub)
        await self.all_online(hub)

        # What they say is kept.
        go.send_metrics(20.0, 1e-7, -0.0)
        go.send_log(ODD)
        node.do("send", type="log", payload={"level": "info", "message": ODD, "source": "node"})
        await ours.said("[logs] ")
        with self.log_path.open("ab") as file:
            file.write(LINE + b"\n")
        for agent_id in SECRETS:
            point = (await self.answer(hub, f"{agent_id}/metrics?points=5000", "points"))[0]
            self.assertIsNotNone(point["cpuPercent"], agent_id)
            logs = await self.answer(hub, f"{agent_id}/logs", "logs")
            expected = LINE.decode() if agent_id == OURS else ODD
            self.assertEqual([entry["message"] for entry in logs], [expected])
        code, shown = await hub.request("GET", _path(GO))
        readings = [shown["metrics"][name] for name in ("cpuPercent", "memPercent", "diskUsage")]
        self.assertEqual((code, readings), (200, [20.0, 1e-7, 0.0]))

        # Each answers; what it answered is what it said.
        await self.all_pong(hub)
        self.assertEqual((await self.command(hub, GO, "get_status"))["result"], STATUS)
        self.assertEqual((await self.command(hub, NODE, "get_version"))["result"], "node-1.0.0")
        unknown = await self.command(hub, GO, "rm_rf")
        self.assertEqual(
            (unknown["state"], unknown["result"], unknown["error"]),
            ("failed", "unknown_command", "command not recognized"),
        )
        echoed = await self.command(hub, GO, "echo", {"9": ODD, "10": "&", "b": "<", "a": ""})
        self.assertEqual(echoed["result"], go_json({"10": "&", "9": ODD, "a": "", "b": "<"}))
        await self.check_answers_in_order(hub, go)

        # Nothing that they signed was refused.
        code, answer = await hub.request("GET", "/api/refusals")
        self.assertEqual((code, answer["refusals"]), (200, []))

        # The hub is started anew: each comes back by itself, and nothing is forgotten.
        hub = await self.restart(hub)
        await self.all_online(hub)
        await self.all_pong(hub)
        self.assertEqual(go.endings, [(1012, "service_restart")])
        closed = await node.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1012, "service_restart"))
        await ours.said("[ws] connection failed: closed by the server: 1012 service_restart")
        for agent_id in (GO, NODE):
            logs = await self.answer(hub, f"{agent_id}/logs", "logs")
            self.assertEqual([entry["message"] for entry in logs], [ODD])
        commands = await self.answer(hub, f"{GO}/commands", "commands")
        self.assertIn(("get_status", STATUS), [(c["command"], c["result"]) for c in commands])
        sessions = await self.answer(hub, f"{GO}/sessions", "sessions")
        self.assertEqual(len(sessions), 2)

    async def check_answers_in_order(self, hub: HubService, go: GoAgent) -> None:
        """Two at once to an agent that names no `inReplyTo`."""
        go.mute, before = True, len(go.commands)
        first = Deferred.fromCoroutine(self.command(hub, GO, "echo", {"n": "1"}))
        await self.until(lambda: _now(len(go.commands) == before + 1))
        second = Deferred.fromCoroutine(self.command(hub, GO, "echo", {"n": "2"}))
        await self.until(lambda: _now(len(go.commands) == before + 2))
        go.answer()
        answers = await gatherResults([first, second])
        self.assertEqual([each["result"] for each in answers], ['{"n":"1"}', '{"n":"2"}'])

    async def test_a_wrong_secret_is_refused_with_words(self) -> None:
        hub = await self.new_hub(store="off")
        await hub.enrol(SECRETS)
        go = self.go_agent(hub, "not the secret")
        node = await self.node_agent(hub, "not the secret")
        ours = self.our_agent(hub, "not the secret")
        for agent_id in SECRETS:
            refusals = await self.answer(hub, f"{agent_id}/refusals", "refusals")
            self.assertEqual(refusals[0]["reason"], "invalid_signature")
            self.assertIn("does not match", refusals[0]["words"])
            self.assertEqual(refusals[0]["address"], "127.0.0.1")
            code, agent = await hub.request("GET", _path(agent_id))
            self.assertEqual((code, agent["state"]), (200, "refused"))
        await self.until(lambda: _now(bool(go.endings)))
        self.assertEqual(go.endings[0], (1008, "invalid_signature"))
        closed = await node.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1008, "invalid_signature"))
        await ours.said("[ws] connection failed: closed by the server: 1008 invalid_signature")

    # What the tests ask of a hub.

    async def restart(self, hub: HubService) -> HubService:
        """Stopped as by its service manager, and started again where it was."""
        hub.signal("TERM")
        await hub.when_ended()
        self.assertEqual(hub.exit_code, 0, hub.stderr)
        listen = [f"tcp:{hub.port}:interface=127.0.0.1"]
        again = HubService(reactor, self.folder, {"listen": listen})
        again.token = hub.token
        self.addCleanup(again.stop)
        return await again.start()

    async def all_online(self, hub: HubService) -> None:
        async def are_online() -> bool:
            _, answer = await hub.request("GET", "/api/agents?state=online")
            return {agent["agentId"] for agent in answer["agents"]} == set(SECRETS)

        await self.until(are_online)

    async def all_pong(self, hub: HubService) -> None:
        for agent_id in SECRETS:
            answer = await self.command(hub, agent_id, "ping")
            self.assertEqual((answer["state"], answer["result"]), ("done", "pong"), agent_id)

    async def command(
        self, hub: HubService, agent_id: str, command: str, args: dict[str, str] | None = None
    ) -> dict[str, Any]:
        path = _path(f"{agent_id}/commands")
        code, answer = await hub.request("POST", path, {"command": command, "args": args or {}})
        self.assertEqual(code, 200, answer)
        return answer

    async def answer(self, hub: HubService, path: str, member: str) -> list[dict[str, Any]]:
        """What the API lists, once there is anything."""
        found: list[dict[str, Any]] = []

        async def is_there() -> bool:
            code, answer = await hub.request("GET", _path(path))
            self.assertEqual(code, 200, answer)
            found[:] = answer[member]
            return bool(found)

        await self.until(is_there)
        return found

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Asks again and again: what a hub has received it shows a moment later."""
        deadline = reactor.seconds() + DEADLINE
        while not await holds():
            self.assertLess(reactor.seconds(), deadline, "it did not come to pass")
            await deferLater(reactor, 0.05)


async def _now(value: bool) -> bool:
    return value


def _path(agent: str) -> str:
    return "/api/agents/" + quote(agent, safe="/?=&")
