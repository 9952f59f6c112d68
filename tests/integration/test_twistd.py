"""The agent as a user runs it: a process, its standard streams, its exit status, its signals."""

from __future__ import annotations

import json
import os
import socket

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.support.case import ProcessCase
from tests.support.node_peer import NodePeer
from tests.support.twistd import TwistdAgent, http

AGENT = "agent-1"
SECRET = "a-secret-that-must-never-be-printed"


class TwistdCase(ProcessCase):
    def agent(self, config: dict | None = None, **environ: str) -> TwistdAgent:
        agent = TwistdAgent(
            reactor, self.mktemp(), {"instanceId": AGENT, **(config or {})}, **environ
        )
        self.addCleanup(self.end, agent)
        return agent

    async def end(self, agent: TwistdAgent) -> None:
        if agent.transport is not None:
            await agent.stop()
            printed = "\n".join(agent.events) + agent.stderr
            self.assertNotIn(SECRET, printed)
            self.assertNotIn("Traceback", printed)

    async def peer(self, **options: object) -> NodePeer:
        peer = NodePeer(reactor, {AGENT: SECRET}, **options)
        self.addCleanup(peer.stop)
        return await peer.start()

    async def terminate(self, agent: TwistdAgent) -> None:
        """SIGTERM ends it with status 0, in the 3 s (and a margin for a busy machine) it has."""
        started = reactor.seconds()
        agent.signal("TERM")
        await agent.when_ended()
        self.assertEqual(agent.exit_code, 0, agent._report("SIGTERM"))
        self.assertLess(reactor.seconds() - started, 5.0)


class CredentialsTests(TwistdCase):
    async def test_none_then_by_put_then_online_then_forgotten(self) -> None:
        peer = await self.peer()
        agent = self.agent({"wsApiUrl": peer.url}).start()
        port = await agent.web_port()
        await agent.said("[ws] not started: missing secret")
        code, status = await http(reactor, port, "GET", "/internal/ws-status")
        self.assertEqual((code, status["state"], status["missing"]), (200, "waiting", "secret"))
        self.assertFalse(status["started"])
        before = len(peer.events)
        code, answer = await http(
            reactor,
            port,
            "PUT",
            "/internal/set-aws-config",
            {
                "AWS_ACCESS_KEY_ID": "AKIA",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "eu-west-1",
            },
        )
        self.assertEqual(
            (code, answer),
            (
                200,
                {
                    "status": "ok",
                    "message": "AWS credentials stored successfully",
                    "region": "eu-west-1",
                    "websocket": "started",
                },
            ),
        )
        await peer.message("auth", since=before, timeout=5)
        await agent.said("[ws] ✓ auth message sent successfully")
        code, status = await http(reactor, port, "GET", "/internal/ws-status")
        self.assertEqual((status["state"], status["hasConnection"]), ("online", True))
        self.assertEqual(status["secretSource"], "stored-credentials")
        self.assertNotIn(SECRET, json.dumps(status))
        stored = agent.folder / "state" / "aws-credentials.json"
        self.assertEqual(stored.stat().st_mode & 0o777, 0o600)
        code, _ = await http(reactor, port, "DELETE", "/internal/set-aws-config")
        self.assertEqual(code, 200)
        closed = await peer.wait_for_event("close", since=before)
        self.assertEqual((closed["code"], closed["reason"]), (1000, "credentials changed"))
        code, status = await http(reactor, port, "GET", "/internal/ws-status")
        self.assertEqual(status["missing"], "secret")
        await self.terminate(agent)

    async def test_by_file_while_it_runs(self) -> None:
        peer = await self.peer()
        agent = self.agent({"wsApiUrl": peer.url, "credentialPollSeconds": 1}).start()
        await agent.said("[ws] not started: missing secret")
        stored = agent.folder / "state" / "aws-credentials.json"
        stored.parent.mkdir(exist_ok=True)
        stored.touch(0o600)
        stored.write_text(
            json.dumps({"AccessKeyID": "AKIA", "SecretAccessKey": SECRET, "Region": "eu-west-1"})
        )
        await peer.message("auth")
        before = len(peer.events)
        agent.config["wsSecret"] = "a new secret, put into the configuration"
        peer.do("secret", agentId=AGENT, secret=agent.config["wsSecret"])
        agent.write_config()
        await peer.message("auth", since=before)
        await self.terminate(agent)


class SignalTests(TwistdCase):
    async def test_sigterm_while_connecting(self) -> None:
        deaf = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(deaf.close)
        url = f"ws://127.0.0.1:{deaf.getsockname()[1]}/agent"
        agent = self.agent({"wsApiUrl": url, "wsSecret": SECRET}).start()
        await agent.said("[ws] connecting to ")
        await self.terminate(agent)

    async def test_sigterm_while_a_name_is_looked_up_that_nobody_answers(self) -> None:
        agent = self.agent({"wsApiUrl": "ws://hub.invalid/agent", "wsSecret": SECRET})
        agent.prelude = (
            "import socket, time, sys;"
            "socket.getaddrinfo = lambda *a: (print('[test] asked', flush=True), time.sleep(60));"
        )
        agent.start()
        await agent.said("[test] asked")
        await self.terminate(agent)

    async def test_sigterm_with_a_peer_that_is_frozen(self) -> None:
        peer = await self.peer()
        agent = self.agent({"wsApiUrl": peer.url, "wsSecret": SECRET}).start()
        await peer.message("auth")
        peer.signal("STOP")
        await self.terminate(agent)
        peer.signal("CONT")

    async def test_sigterm_while_a_command_runs_that_will_not_end(self) -> None:
        peer = await self.peer()
        agent = self.agent({"wsApiUrl": peer.url, "wsSecret": SECRET})
        started = agent.folder / "started"
        script = f"trap '' TERM; echo $$ > {started}.new; mv {started}.new {started}; sleep 60"
        agent.config["commands"] = {"stubborn": {"argv": ["sh", "-c", script]}}
        agent.start()
        await peer.message("auth")
        peer.do("command", agentId=AGENT, command="stubborn")
        while not started.exists():
            await deferLater(reactor, 0.01)
        await self.terminate(agent)
        result = await peer.message("command_result")
        self.assertEqual(result["payload"]["error"], "the agent is stopping")
        with self.assertRaises(ProcessLookupError):
            os.kill(int(started.read_text()), 0)

    async def test_sigterm_just_when_a_command_starts(self) -> None:
        peer = await self.peer()
        agent = self.agent(
            {"wsApiUrl": peer.url, "wsSecret": SECRET, "commands": {"s": {"argv": ["sleep", "9"]}}}
        )
        agent.options = ["--rundir=/"]  # as the unit runs it
        agent.start()
        await peer.message("auth")
        peer.do("command", agentId=AGENT, command="s")
        await agent.said("[ws] executing command: s")
        await self.terminate(agent)
        result = await peer.message("command_result")
        self.assertEqual(
            (result["payload"]["result"], result["payload"]["error"]), ("", "the agent is stopping")
        )

    async def test_a_second_sigterm_changes_nothing(self) -> None:
        peer = await self.peer()
        agent = self.agent({"wsApiUrl": peer.url, "wsSecret": SECRET}).start()
        await peer.message("auth")
        peer.signal("STOP")
        agent.signal("TERM")
        await agent.said("[ws] closing: ")
        await self.terminate(agent)
        peer.signal("CONT")


class RefusedStartTests(TwistdCase):
    async def assert_refused(self, agent: TwistdAgent, *words: str) -> None:
        """It ends with status 1 and one line on standard error that has these words in it."""
        await agent.when_ended()
        self.assertEqual(agent.exit_code, 1, agent._report("refused"))
        (line,) = agent.stderr.splitlines()
        for word in words:
            self.assertIn(word, line)

    async def test_a_configuration_that_is_no_utf_8(self) -> None:
        """Faults of every other kind: `tests.agent.test_tap`."""
        agent = self.agent()
        agent.config_path.write_bytes(b"\xff")
        agent.start("--config", str(agent.config_path))
        await self.assert_refused(agent, str(agent.config_path), "UTF-8")

    async def test_a_named_file_that_is_missing(self) -> None:
        agent = self.agent(JETCAMER_AGENT_CONFIG="/nonexistent.json")
        agent.start("--log-format", "text")
        await self.assert_refused(agent, "/nonexistent.json", "no such file")

    async def test_a_port_that_is_taken(self) -> None:
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        agent = self.agent({"webListen": address}).start()
        await self.assert_refused(agent, "webListen", address, "in use")

    async def test_an_option_that_is_unknown(self) -> None:
        agent = self.agent().start("--log-format", "xml")
        await agent.when_ended()
        self.assertEqual(agent.exit_code, 1)


class OutputTests(TwistdCase):
    async def test_the_documented_lines(self) -> None:
        peer = await self.peer()
        agent = self.agent(
            {"wsApiUrl": peer.url, "wsSecret": SECRET, "metricsIntervalSeconds": 1,
             "heartbeatIntervalSeconds": 1}
        ).start()  # fmt: skip
        await peer.message("auth")
        peer.do("command", agentId=AGENT, command="ping")
        for line in (
            f"[ws] connecting to {peer.url}",
            "[ws] ✓ connected successfully",
            "[ws] sending auth message",
            "[ws] ✓ auth message sent successfully",
            "[ws] received message: type=command",
            "[ws] executing command: ping",
            "[ws] command result",
            "[ws] metrics sent: cpu=",
            "[ws] heartbeat sent",
        ):
            await agent.said(line)
        before = len(agent.events)
        peer.do("close", code=1008, reason="unknown_agent")
        line = await agent.said("[ws] connection failed: ", since=before)
        self.assertIn("1008", line)
        self.assertIn("unknown_agent", line)
        await peer.stop()
        await agent.wait_for(
            lambda line: line.startswith("[ws] connection failed: ") and "refused" in line
        )
        await self.terminate(agent)  # while it backs off

    async def test_json_lines(self) -> None:
        agent = self.agent()
        agent.write_config()
        agent.start("--config", str(agent.config_path), "--log-format", "json")
        line = await agent.wait_for(lambda line: "not started: missing secret" in line)
        record = json.loads(line)
        self.assertEqual(record["level"], "warn")
        self.assertEqual(record["message"], "[ws] not started: missing secret")
        await self.terminate(agent)
        for line in agent.events:
            json.loads(line)

    async def test_a_log_file_of_twistd(self) -> None:
        agent = self.agent()
        agent.options = ["--logfile=agent.log"]
        agent.start()
        while "missing secret" not in (text := self.read(agent, "agent.log")):
            self.assertLess(len(text), 100_000)
            await self.pause()
        self.assertRegex(text, r"(?m)^\d{4}-\d\d-\d\dT\S+ warn  \[ws\] not started")
        await self.terminate(agent)

    def read(self, agent: TwistdAgent, name: str) -> str:
        path = agent.folder / name
        return path.read_text("utf-8") if path.exists() else ""

    async def pause(self) -> None:
        await deferLater(reactor, 0.05)

    async def test_the_manager_is_told(self) -> None:
        """READY and STATUS reach the socket that systemd names, and the watchdog is fed; of an
        agent whose secret stands in its environment, and which takes its leave of the server."""
        peer = await self.peer()
        name = self.mktemp()
        os.makedirs(name)
        path = os.path.join(os.path.abspath(name), "s")
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # A Unix socket's path is short: the trial's folder may be too deep for it.
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        self.addCleanup(os.close, folder)
        manager.bind(f"/proc/self/fd/{folder}/s")
        manager.setblocking(False)
        self.addCleanup(manager.close)
        agent = self.agent(
            {"wsApiUrl": peer.url},
            AWS_SECRET_ACCESS_KEY=SECRET,
            NOTIFY_SOCKET=f"/proc/{os.getpid()}/fd/{folder}/s",
            WATCHDOG_USEC="200000",
        ).start()
        auth = await peer.message("auth")
        self.assertEqual(auth["payload"]["version"].split(".")[0], "5")
        told = ""
        while not all(words in told for words in ("READY=1", "STATUS=online", "WATCHDOG=1")):
            await self.pause()
            try:
                told += manager.recv(4096).decode() + "\n"
            except BlockingIOError:
                continue
        await self.terminate(agent)
        closed = await peer.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1000, "agent stopping"))
        while True:
            try:
                told += manager.recv(4096).decode() + "\n"
            except BlockingIOError:
                break
        self.assertIn("STOPPING=1", told)
        self.assertNotIn(SECRET, told)
