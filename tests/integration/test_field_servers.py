"""Our agent, as a process, against servers on Node: the document's own, and ours that says more."""

from __future__ import annotations

import platform

from twisted.internet import reactor

from jetcamer import __version__
from tests.support.case import ProcessCase
from tests.support.customer_server import CustomerServer
from tests.support.node_peer import NodePeer
from tests.support.twistd import TwistdAgent

AGENT = "agent-ünï-1"
SECRET = "a secret — with <&> in it"

#: What makes the difference between one way of writing JSON and another.
ODD = '1e-7 20.0 é <b>&amp;</b> \U0001f600 \u2028\u2029 \x7f \x01\x1b\t"\\ / \ud7ff'

COMMANDS = ("ping", "get_version", "get_machine_id", "get_status", "run_health_check")


class FieldServersTests(ProcessCase):
    def agent(self, url: str, **config: object) -> TwistdAgent:
        agent = TwistdAgent(
            reactor,
            self.mktemp(),
            {
                "instanceId": AGENT,
                "wsApiUrl": url,
                "wsSecret": SECRET,
                "metricsIntervalSeconds": 1,
                "heartbeatIntervalSeconds": 1,
                "commands": {
                    "odd": {"argv": ["printf", "%s", ODD]},
                    "bytes": {"argv": ["printf", r"\377\376 caf\351 \000."]},
                    "echo": {"argv": ["printf", "%s", "{text}"], "args": {"text": "(?s).*"}},
                },
                **config,
            },
        )
        self.addCleanup(agent.stop)
        return agent.start()

    async def test_every_message_verifies_and_every_command_is_answered(self) -> None:
        peer = NodePeer(reactor, {AGENT: SECRET})
        self.addCleanup(peer.stop)
        await peer.start()
        agent = self.agent(peer.url, metricsExtended=True)
        auth = await peer.message("auth")
        self.assertEqual(auth["payload"]["hostname"], platform.node())
        self.assertEqual(auth["payload"]["version"], __version__)
        self.assertLessEqual({"inReplyTo", "command:odd"}, set(auth["payload"]["capabilities"]))

        answers = {name: await peer.ask(AGENT, name) for name in (*COMMANDS, "odd", "bytes")}
        self.assertEqual(answers["ping"]["result"], "pong")
        self.assertEqual(answers["ping"]["error"], "")
        self.assertEqual(answers["get_version"]["result"], __version__)
        self.assertRegex(
            answers["get_machine_id"]["result"] or answers["get_machine_id"]["error"],
            "^[0-9a-f]{32}$|machine",
        )
        self.assertTrue(answers["get_status"]["result"] or answers["get_status"]["error"])
        self.assertRegex(answers["run_health_check"]["result"], "^health_(ok|degraded)$")
        checks = {
            check["name"]: check for check in answers["run_health_check"]["details"]["checks"]
        }
        self.assertEqual(checks["link"]["status"], "ok")
        self.assertEqual(checks["credentials"]["status"], "ok")
        self.assertEqual(checks["clock"]["status"], "ok")
        self.assertEqual(answers["odd"]["result"], ODD)
        self.assertEqual(answers["odd"]["details"]["exitStatus"], 0)
        self.assertEqual(answers["bytes"]["result"], "\ufffd\ufffd caf\ufffd \0.")

        echo = await peer.ask(AGENT, "echo", {"text": ODD})
        self.assertEqual(echo["result"], ODD)
        refused = await peer.ask(AGENT, "echo", {"text": "--version"})
        self.assertTrue(refused["error"])
        unknown = await peer.ask(AGENT, "format_disk")
        self.assertEqual(
            (unknown["result"], unknown["error"]), ("unknown_command", "command not recognized")
        )

        metrics = (await peer.message("metrics"))["payload"]
        for member in ("cpuPercent", "memPercent", "diskUsage"):
            self.assertGreaterEqual(metrics[member], 0)
            self.assertLessEqual(metrics[member], 100)
            self.assertEqual(round(metrics[member], 2), metrics[member])
        self.assertIn("load1", metrics)
        self.assertEqual((await peer.message("heartbeat"))["payload"], {"status": "alive"})
        self.assertEqual([e for e in peer.events if e["event"] in ("refused", "close")], [])
        self.assertNotIn(SECRET, "\n".join(agent.events))

    async def test_commands_that_are_not_the_servers_are_not_run(self) -> None:
        peer = NodePeer(reactor, {AGENT: SECRET})
        self.addCleanup(peer.stop)
        await peer.start()
        agent = self.agent(peer.url)
        await peer.message("auth")
        forged = {
            "invalid_signature": {"signature": "00" * 32},
            "wrong_type": {"signature": 7},
            "wrong_agent": {"agentId": "agent-2"},
            "invalid_timestamp": {"ts": 1_731_819_422_000},
            "unknown_member": {"extra": True},
        }
        for code, more in forged.items():
            peer.do("command", agentId=AGENT, command="ping", more=more)
            await agent.said(f"[ws] message refused: {code}")
        peer.do("command", agentId=AGENT, command="ping", more={"nonce": "twice"})
        peer.do("command", agentId=AGENT, command="ping", more={"nonce": "twice"})
        await agent.said("[ws] message refused: replayed_nonce")
        await peer.message("command_result")
        await peer.ask(AGENT, "ping")
        results = [e for e in peer.events if e.get("type") == "command_result"]
        self.assertEqual(len(results), 2)

    async def test_the_documents_own_server(self) -> None:
        server = CustomerServer(reactor, {AGENT: SECRET})
        self.addCleanup(server.stop)
        await server.start()
        self.agent(server.url)
        await server.wait_for(lambda line: f"Agent authenticated: {AGENT}" in line)
        for command in (*COMMANDS, "odd", "bytes", "format_disk"):
            before = len(server.events)
            server.send_command(AGENT, command)
            await server.wait_for(lambda line: f"Command result from {AGENT}" in line, since=before)
            await server.wait_for(
                lambda line, command=command: f"command: '{command}'" in line, since=before
            )
        await server.wait_for(lambda line: f"Metrics from {AGENT}" in line)
        await server.wait_for(lambda line: f"Heartbeat from {AGENT}" in line)
        said = "\n".join(server.events)
        self.assertNotIn("Invalid signature", said)
        self.assertNotIn("disconnected", said)
        self.assertEqual(server.stderr, "")
