"""The shipped nginx and Caddy configurations in front of a real hub: only their names, ports and
certificates are others. Clients come from loopback addresses of their own."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from twisted.internet import reactor, ssl
from twisted.internet.endpoints import SSL4ClientEndpoint, connectProtocol
from twisted.internet.utils import getProcessOutputAndValue

from jetcamer.daemon.clock import wall_clock_ms
from tests.hub.doubles import SealingAgent
from tests.hub.raw_websocket import request
from tests.support.case import ProcessCase
from tests.support.certs import TestCA
from tests.support.hub_service import HubService
from tests.support.line_process import LineProcess
from tests.support.raw_http import RawClient
from tests.support.tools import ROOT, require_program
from tests.support.twistd import TwistdAgent, clean_environment
from tests.support.websocket_client import WebSocketClient

NAME = "hub.example.com"

#: Who connects: the proxy sees each at its own address.
GOOD, BAD, PROMETHEUS = "127.0.0.2", "127.0.0.3", "127.0.0.4"

#: What a client says of itself and nobody is to believe.
FORGED = "X-Forwarded-For: 203.0.113.9"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Proxy(LineProcess[str]):
    """:param snippet: the shipped file, with the ports and names of this test."""

    def __init__(self, folder: Path, snippet: str) -> None:
        super().__init__(reactor)
        self.folder = folder.absolute()
        self.config = self.folder / "proxy.conf"
        self.config.write_text(self.whole(snippet), "utf-8")

    def parse(self, line: str) -> str:
        return line

    def whole(self, snippet: str) -> str:
        """The snippet in a configuration that keeps to the test's folder."""
        raise NotImplementedError

    async def start(self) -> None:
        raise NotImplementedError


class Nginx(Proxy):
    def whole(self, snippet: str) -> str:
        kept = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{name}_temp_path {self.folder}/{name};\n" for name in kept)
        return (
            f"daemon off; master_process off; pid {self.folder}/pid;\n"
            "error_log /dev/stdout notice;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{paths}{snippet}}}\n"
        )

    async def start(self) -> None:
        program = require_program("nginx")
        self.spawn([program, "-p", str(self.folder), "-c", str(self.config)])
        await self.wait_for(lambda line: "event method" in line)  # it listens by then


class Caddy(Proxy):
    def whole(self, snippet: str) -> str:
        return (
            "{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n"
            f"\tstorage file_system {self.folder}\n}}\n{snippet}"
        )

    async def start(self) -> None:
        argv = [require_program("caddy"), "run", "--adapter", "caddyfile", "--config"]
        self.spawn(
            ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv, str(self.config)],
            {"HOME": str(self.folder), "XDG_CONFIG_HOME": str(self.folder)},
        )
        await self.wait_for(lambda line: "serving initial configuration" in line)


def upgrade(port: int) -> bytes:
    """The request for a WebSocket, by the proxy's name, that lies about who asks."""
    return request("/agent", FORGED).replace(b"127.0.0.1", f"{NAME}:{port}".encode())


class ForgingClient(WebSocketClient):
    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def connectionMade(self) -> None:
        self.transport.write(upgrade(self._port))


class ProxyTests:
    """For each of the two."""

    snippet: ClassVar[str]
    proxy_class: ClassVar[type[Proxy]]

    def adapted(self, text: str) -> str:
        raise NotImplementedError

    async def setUp(self) -> None:
        await super().setUp()
        require_program(self.proxy_class.__name__.lower())
        folder = Path(self.mktemp())
        folder.mkdir()
        self.ca = TestCA(folder / "ca")
        self.certificate = self.ca.issue(dns=[NAME, "localhost"])
        self.port = free_port()
        self.hub = HubService(
            reactor,
            self.mktemp(),
            {
                # As the head of each snippet says.
                "apiNames": [NAME],
                "trustedProxies": ["127.0.0.1"],
                "agentUrl": f"wss://localhost:{self.port}/agent",
                "badAttemptsPerMinute": 3,
            },
        )
        self.addCleanup(self.hub.stop)
        await self.hub.start()
        shipped = (ROOT / "etc" / self.snippet).read_text("utf-8")
        for port, actual in ((9810, self.hub.port), (9812, self.hub.api_port)):
            self.assertEqual(len(re.findall(rf"^[^#]*127\.0\.0\.1:{port}", shipped, re.M)), 1)
            shipped = shipped.replace(f"127.0.0.1:{port}", f"127.0.0.1:{actual}")
        self.proxy = self.proxy_class(folder, self.adapted(shipped))
        self.addCleanup(self.proxy.stop)
        await self.proxy.start()

    def endpoint(self, address: str) -> SSL4ClientEndpoint:
        authority = ssl.Certificate.loadPEM(Path(self.ca.path_cert).read_bytes())
        options = ssl.optionsForClientTLS(NAME, trustRoot=authority)
        return SSL4ClientEndpoint(
            reactor, "127.0.0.1", self.port, options, bindAddress=(address, 0)
        )

    async def web_socket(self, address: str) -> WebSocketClient:
        client = await connectProtocol(self.endpoint(address), ForgingClient(self.port))
        await client._open
        return client

    async def ask(
        self, address: str, method: str, path: str, *, token: str, body: object = None
    ) -> tuple[int, str, str]:
        """Status, head and body of one answer."""
        content = b"" if body is None else json.dumps(body).encode()
        client = await self.sent(
            address,
            f"{method} {path} HTTP/1.1",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            f"Authorization: Bearer {token}",
            body=content,
        )
        head, _, answer = (await client.until_closed()).decode().partition("\r\n\r\n")
        return int(head.split()[1]), head, answer

    async def sent(self, address: str, line: str, *headers: str, body: bytes = b"") -> RawClient:
        client = await connectProtocol(self.endpoint(address), RawClient())
        # With the port, as a browser sends both of them.
        names = (f"Host: {NAME}:{self.port}", f"Origin: https://{NAME}:{self.port}")
        client.send("\r\n".join([line, *names, FORGED, *headers, "", ""]).encode() + body)
        return client

    async def join(self, token: str) -> dict[str, str]:
        """`jetcamer join`, as the documentation says it; what it has written."""
        path = Path(self.mktemp()).absolute()
        words = ("join", f"https://localhost:{self.port}", token, "--agent-id", "web-1")
        files = ("--config", str(path), "--ca-file", self.ca.path_cert)
        out, err, code = await getProcessOutputAndValue(
            sys.executable, ["-m", "jetcamer.cli", *words, *files], env=clean_environment()
        )
        self.assertEqual(code, 0, out + err)
        written: dict[str, str] = json.loads(path.read_text("utf-8"))
        self.assertEqual(written["wsApiUrl"], f"wss://localhost:{self.port}/agent")
        return written

    async def test_both_sides(self) -> None:
        await self.an_agent_and_its_operators()
        await self.strangers()

    async def an_agent_and_its_operators(self) -> None:
        """At one name, over TLS: it joins, it is heard, it answers; events come as they happen."""
        admin = self.hub.token
        _, _, text = await self.ask(GOOD, "POST", "/api/join-tokens", token=admin, body={})
        joined = await self.join(json.loads(text)["token"])
        events = await self.sent(
            GOOD, "GET /api/events?kinds=agent HTTP/1.1", f"Authorization: Bearer {admin}"
        )
        await events.until(lambda data: b"\nid: " in data)
        agent = TwistdAgent(
            reactor,
            self.mktemp(),
            {**joined, "archive": "off"},
        )
        self.addCleanup(agent.stop)
        agent.start()
        # While the answer to that request still goes on.
        data = await events.until(lambda data: b'"state":"online"' in data)
        self.assertIn(b"event: agent\n", data)
        events.transport.abortConnection()
        status, _, text = await self.ask(
            GOOD, "POST", "/api/agents/web-1/commands", token=admin, body={"command": "ping"}
        )
        self.assertEqual((status, json.loads(text)["result"]), (200, "pong"), text)
        agent.signal("TERM")
        await agent.when_ended()
        self.assertEqual(agent.exit_code, 0)
        left = "[hub] agent disconnected: web-1: "
        self.assertIn("1000", await self.hub.wait_for(lambda line: line.startswith(left)))

    async def strangers(self) -> None:
        """Each client counts at its own address, whatever it says of that: the one that guesses is
        shut out, and nobody else is."""
        admin = self.hub.token
        _, _, text = await self.ask(GOOD, "POST", "/api/agents", token=admin, body={"agentId": "a"})
        agent = SealingAgent("a", json.loads(text)["secret"])
        agent.now = wall_clock_ms()
        client = await self.web_socket(GOOD)
        client.send_text(agent.auth())
        await client.ping()
        _, _, text = await self.ask(GOOD, "GET", "/api/agents/a", token=admin)
        shown = json.loads(text)
        self.assertEqual((shown["state"], shown["address"]), ("online", GOOD))

        guesser = SealingAgent("a", "a guessed secret")
        guesser.now = agent.now
        for _ in range(3):
            client = await self.web_socket(BAD)
            client.send_text(guesser.auth())
            self.assertEqual(await client.closed(), (1008, "invalid_signature"))
        refused = await connectProtocol(self.endpoint(BAD), RawClient())
        refused.send(upgrade(self.port))
        answer = await refused.until(lambda data: b"\r\n\r\n" in data)
        self.assertRegex(answer.decode(), r"^HTTP/1.1 429 (?s:.*)\r\n(?i:retry-after): \d+\r\n")
        refused.transport.abortConnection()
        await self.web_socket(GOOD)
        _, _, text = await self.ask(GOOD, "GET", f"/api/refusals?address={BAD}", token=admin)
        self.assertEqual(
            {each["reason"] for each in json.loads(text)["refusals"]}, {"invalid_signature"}
        )

        statuses = [
            (await self.ask(BAD, "GET", "/api/status", token=str(uuid4())))[0] for _ in range(11)
        ]
        self.assertEqual(statuses, [401] * 10 + [429])
        status, head, _ = await self.ask(BAD, "GET", "/api/status", token=str(uuid4()))
        self.assertEqual(status, 429)
        self.assertRegex(head, r"(?i)\r\nretry-after: \d+")
        self.assertEqual(
            (await self.ask(PROMETHEUS, "GET", "/metrics", token=str(uuid4())))[0], 401
        )


class NginxTests(ProxyTests, ProcessCase):
    snippet = "nginx-hub.conf"
    proxy_class = Nginx

    def adapted(self, text: str) -> str:
        for shipped, ours in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            (f"server_name {NAME};", f"server_name {NAME} localhost;"),
            ("/etc/jetcamer/hub.crt", self.certificate.path_cert),
            ("/etc/jetcamer/hub.key", self.certificate.path_key),
        ):
            self.assertEqual(text.count(shipped), 1, shipped)
            text = text.replace(shipped, ours)
        return text


class CaddyTests(ProxyTests, ProcessCase):
    snippet = "Caddyfile-hub"
    proxy_class = Caddy

    def adapted(self, text: str) -> str:
        """Its certificate is a file, where the shipped one is got from an authority."""
        files = f"{self.certificate.path_cert} {self.certificate.path_key}"
        self.assertEqual(text.count(f"\n{NAME} {{\n"), 1)
        return text.replace(
            f"\n{NAME} {{\n",
            f"\n{NAME}:{self.port}, localhost:{self.port} {{\n\ttls {files}\n\tbind 127.0.0.1\n",
        )
