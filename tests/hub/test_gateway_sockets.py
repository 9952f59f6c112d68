"""The gateway over real sockets, with an agent that is not ours: Node's `ws`."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.trial.unittest import TestCase

from jetcamer.daemon.clock import wall_clock_ms
from jetcamer.hub.admission import Offenders
from jetcamer.hub.gateway import Gateway
from jetcamer.hub.registry import AgentRegistry, DisconnectedError
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import Connection
from jetcamer.hub.websocket import Limits
from jetcamer.protocol.envelope import LogPayload
from tests.hub.doubles import SECRETS, RecordingListener, keys
from tests.hub.raw_websocket import request
from tests.support.certs import TestCA
from tests.support.node_peer import NodeAgent


class WaitingListener(RecordingListener):
    """Lets a test wait for an event, past or to come."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[str, Deferred[object]]] = []

    def _record(self, event: str, what: object) -> None:
        super()._record(event, what)
        for name, done in list(self._waiting):
            if name == event:
                self._waiting.remove((name, done))
                done.callback(what)

    async def next(self, event: str) -> object:
        for what in self.of(event):
            return what
        done: Deferred[object] = Deferred()
        self._waiting.append((event, done))
        return await done.addTimeout(20, reactor)


class Raw(Protocol):
    """A client that asks for the WebSocket, by hand."""

    def __init__(self, *more: str) -> None:
        self.more = more
        self.received = b""
        self.answered: Deferred[str] = Deferred()
        self.closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(request("/agent", *self.more))

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if b"\r\n\r\n" in self.received and not self.answered.called:
            self.answered.callback(self.received.decode().split("\r\n")[0])

    def connectionLost(self, reason: object) -> None:
        self.closed.callback(None)


class OpenSession:
    """Stands for an `AgentSession`: keeps its connection, and says how that ended."""

    agent_id = "agent-1"

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.ended: Deferred[str] = Deferred()

    def close(self, code: int, reason: str) -> None:
        self.connection.close(code, reason)

    def connection_lost(self, words: str) -> None:
        self.ended.callback(words)


class GatewaySocketsTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.listener = WaitingListener()
        self.registry = AgentRegistry(reactor, self.listener)
        self.keys = keys()

    def make_session(self, connection: Connection) -> AgentSession:
        return AgentSession(connection, self.keys, self.registry, wall_clock_ms)

    def serve(self, description: str = "tcp:0:interface=127.0.0.1", **limits: float) -> Gateway:
        gateway = Gateway(reactor, description, self.make_session, limits=Limits(**limits))
        gateway.startService()
        self.addCleanup(gateway.stopService)
        return gateway

    async def agent(
        self, gateway: Gateway, scheme: str = "ws", path: str = "/agent", **options: object
    ) -> NodeAgent:
        url = f"{scheme}://127.0.0.1:{gateway.port}{path}"
        agent = NodeAgent(reactor, url, "agent-1", SECRETS["agent-1"], **options)
        self.addCleanup(agent.stop)
        return await agent.start()

    async def test_conversation(self) -> None:
        """Everything a Node agent says verifies, however it is spelled, and it answers."""
        agent = await self.agent(self.serve(), metrics=0.05, heartbeat=0.05)
        await self.listener.next("metrics")
        await self.listener.next("heartbeat")
        text = '√ <&>\u2028 \x00\x1b[31m 🛰 \ud83d \u007f \\ "'
        agent.do("send", type="log", payload={"level": "info", "message": text, "10": 1, "9": 1e21})
        logged = await self.listener.next("log")
        self.assertEqual(logged, LogPayload("info", text.replace("\ud83d", "\ufffd")))
        status = await self.registry.send_command("agent-1", "get_status", {"a": "<&>"})
        self.assertIn("<since> 5 min & counting\n\tünï\u2028code 🛰", status.result)
        pong, unknown = (
            self.registry.send_command("agent-1", "ping", {}),
            self.registry.send_command("agent-1", "reboot", {}),
        )
        self.assertEqual((await pong).result, "pong")
        self.assertEqual((await unknown).error, "command not recognized")
        self.assertEqual(self.listener.of("refused"), [])

    async def test_close_reasons(self) -> None:
        """A real client sees the code and the reason of each refusal."""
        gateway = self.serve()
        forged = {"type": "log", "payload": {}, "more": {"signature": "00" * 32}}
        old = {"type": "metrics", "payload": {}, "more": {"ts": 1}}
        for action, members, code, reason in (
            ("raw", {"text": "hello"}, 1003, "invalid_json"),
            ("binary", {"text": "{}"}, 1003, "not_text"),
            ("send", old, 1008, "invalid_timestamp"),
            ("send", forged, 1008, "invalid_signature"),
            ("raw", {"text": "x" * ((1 << 20) + 1)}, 1009, "received WebSocket message size"),
        ):
            self.listener.events.clear()
            agent = await self.agent(gateway)
            await self.listener.next("authenticated")
            agent.do(action, **members)
            closed = await agent.wait_for_event("close")
            self.assertEqual(closed["code"], code)
            self.assertTrue(closed["reason"].startswith(reason), closed)
            await agent.stop()

    async def test_tls(self) -> None:
        """TLS by nothing but the endpoint's description; plain text at its port goes nowhere."""
        ca = TestCA(self.mktemp())
        certificate = ca.issue(ips=["127.0.0.1"])
        gateway = self.serve(
            f"ssl:0:interface=127.0.0.1:privateKey={certificate.path_key}"
            f":certKey={certificate.path_cert}",
            handshake_timeout=2.0,
        )
        agent = await self.agent(gateway, "wss", ca=ca.path_cert)
        await self.listener.next("authenticated")
        self.assertEqual((await self.registry.send_command("agent-1", "ping", {})).result, "pong")
        plain = await self.agent(gateway, "ws")
        await plain.wait_for_event("error")
        await gateway.stopService()
        closed = await agent.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1012, "service_restart"))

    async def test_frozen_over_tls(self) -> None:
        """The end of TLS, too, is not waited for without end."""
        ca = TestCA(self.mktemp())
        certificate = ca.issue(ips=["127.0.0.1"])
        gateway = self.serve(
            f"ssl:0:interface=127.0.0.1:privateKey={certificate.path_key}"
            f":certKey={certificate.path_cert}"
        )
        agent = await self.agent(gateway, "wss", ca=ca.path_cert)
        await self.listener.next("authenticated")
        agent.signal("STOP")
        await gateway.stopService()
        self.assertEqual(gateway.factory.connections, set())

    def serve_raw(self, *endpoints: str, **limits: Any) -> tuple[Gateway, list[OpenSession]]:
        sessions: list[OpenSession] = []

        def make_session(connection: Connection) -> Any:
            sessions.append(OpenSession(connection))
            return sessions[-1]

        gateway = Gateway(reactor, endpoints, make_session, limits=Limits(**limits))
        gateway.startService()
        self.addCleanup(gateway.stopService)
        return gateway, sessions

    async def raw(self, endpoint: Any, *more: str) -> Raw:
        client = await connectProtocol(endpoint, Raw(*more))
        self.addCleanup(client.transport.loseConnection)
        return client

    async def test_alpn(self) -> None:
        """A client that offers protocols in TLS gets the one that a WebSocket begins as."""
        ca = TestCA(self.mktemp())
        certificate = ca.issue(ips=["127.0.0.1"])
        gateway, _ = self.serve_raw(
            f"ssl:0:interface=127.0.0.1:privateKey={certificate.path_key}"
            f":certKey={certificate.path_cert}"
        )
        self.assertEqual(gateway.urls, [f"wss://127.0.0.1:{gateway.port}/agent"])
        with open(ca.path_cert, "rb") as file:
            root = Certificate.loadPEM(file.read())
        for offered in ([b"h2", b"http/1.1"], [b"http/1.1"]):
            options = optionsForClientTLS(
                "127.0.0.1",
                trustRoot=trustRootFromCertificates([root]),
                acceptableProtocols=offered,
            )
            tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", gateway.port)
            client = await self.raw(wrapClientTLS(options, tcp))
            self.assertEqual(await client.answered, "HTTP/1.1 101 Switching Protocols")
            self.assertEqual(client.transport.negotiatedProtocol, b"http/1.1")

    async def test_banned(self) -> None:
        """Over TLS not one byte is spent on who is banned; in plain text it is told so."""
        ca = TestCA(self.mktemp())
        certificate = ca.issue(ips=["127.0.0.1"])
        offenders = Offenders(reactor)
        gateway = Gateway(
            reactor,
            [
                f"ssl:0:interface=127.0.0.1:privateKey={certificate.path_key}"
                f":certKey={certificate.path_cert}",
                "tcp:0:interface=127.0.0.1",
            ],
            self.make_session,
            offenders=offenders,
        )
        gateway.startService()
        self.addCleanup(gateway.stopService)
        for _ in range(10):
            offenders.offended("127.0.0.1")
        tls, tcp = (TCP4ClientEndpoint(reactor, "127.0.0.1", port) for port in gateway.ports)
        client = await self.raw(tls)
        await client.closed
        self.assertEqual(client.received, b"")
        client = await self.raw(tcp)
        self.assertEqual(await client.answered, "HTTP/1.1 429 Too Many Requests")
        await client.closed
        self.assertEqual(gateway.handshakes_refused, {0: 1, 429: 1})

    async def test_several_listeners(self) -> None:
        """A port and a Unix socket; who comes through the socket is whom the proxy names."""
        path = os.path.join(tempfile.mkdtemp(), "hub.sock")
        self.addCleanup(shutil.rmtree, os.path.dirname(path))
        gateway, sessions = self.serve_raw("tcp:0:interface=127.0.0.1", f"unix:{path}")
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", gateway.port)
        forwarded = "X-Forwarded-For: 198.51.100.1"
        for endpoint, address in (
            (tcp, "127.0.0.1"),
            (UNIXClientEndpoint(reactor, path), "198.51.100.1"),
        ):
            client = await self.raw(endpoint, forwarded)
            self.assertEqual(await client.answered, "HTTP/1.1 101 Switching Protocols")
            self.assertEqual(sessions[-1].connection.address, address)
        self.assertEqual((len(gateway.ports), len(gateway.addresses)), (1, 2))
        self.assertEqual(gateway.connections, 2)

    async def test_held(self) -> None:
        """The port is there before the hub is ready, and says so."""
        gateway, _ = self.serve_raw("tcp:0:interface=127.0.0.1")
        gateway.hold()
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", gateway.port)
        client = await self.raw(tcp)
        self.assertEqual(await client.answered, "HTTP/1.1 503 Service Unavailable")
        await client.closed
        gateway.release()
        self.assertIn("101", await (await self.raw(tcp)).answered)

    async def test_outbox(self) -> None:
        """What waits for an agent that does not read is measured where it waits."""
        gateway, sessions = self.serve_raw("tcp:0:interface=127.0.0.1")
        tcp = TCP4ClientEndpoint(reactor, "127.0.0.1", gateway.port)
        client = await self.raw(tcp)
        await client.answered
        client.transport.pauseProducing()
        (session,) = sessions
        (connection,) = gateway.factory.connections
        most = sent = 0
        while not session.ended.called:
            for _ in range(20):
                session.connection.send(b"x" * 1000)
                sent += 1000
                transport = connection.transport
                waiting = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
                most = max(most, waiting)
            self.assertLess(sent, 100 << 20)
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn
        self.assertEqual(await session.ended, "the agent does not read")
        self.assertGreater(most, 128 << 10)
        self.assertLess(most, 260 << 10)

    async def test_other_path(self) -> None:
        agent = await self.agent(self.serve(), path="/elsewhere")
        error = await agent.wait_for_event("error")
        self.assertIn("404", error["message"])

    async def test_auth_timeout(self) -> None:
        """A client that upgrades and says nothing."""
        agent = await self.agent(self.serve(auth_timeout=0.05), silent=True)
        closed = await agent.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1008, "auth_timeout"))

    async def test_replaced(self) -> None:
        gateway = self.serve()
        first = await self.agent(gateway)
        await self.listener.next("authenticated")
        self.listener.events.clear()
        await self.agent(gateway)
        await self.listener.next("authenticated")
        closed = await first.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1000, "replaced_by_new_connection"))
        self.assertEqual(len(self.registry), 1)
        self.assertEqual(self.listener.of("disconnected"), ["replaced by a newer connection"])
        self.assertEqual((await self.registry.send_command("agent-1", "ping", {})).result, "pong")

    async def test_drain(self) -> None:
        """Stopping sends agents away with a code that says: come back."""
        gateway = self.serve()
        agent = await self.agent(gateway)
        await self.listener.next("authenticated")
        await gateway.stopService()
        self.assertEqual(len(self.registry), 0)
        closed = await agent.wait_for_event("close")
        self.assertEqual((closed["code"], closed["reason"]), (1012, "service_restart"))

    async def test_frozen(self) -> None:
        """A frozen agent is noticed by its silence, and does not hold up the end."""
        gateway = self.serve(ping_interval=1.0, idle_timeout=1.0)
        agent = await self.agent(gateway)
        await self.listener.next("authenticated")
        agent.signal("STOP")
        self.assertIn("idle_timeout", str(await self.listener.next("disconnected")))
        await gateway.stopService()

    async def test_deaf(self) -> None:
        """An agent that stops reading is dropped when too much waits for it, and no later."""
        gateway = self.serve()
        agent = await self.agent(gateway)
        await self.listener.next("authenticated")
        agent.do("pause")
        await agent.wait_for_event("paused")
        done = [self.registry.send_command("agent-1", "ping", {"x": "y" * 900_000})]
        while "disconnected" not in self.listener.names():
            done.append(self.registry.send_command("agent-1", "ping", {"x": "y" * 900_000}))
            self.assertLess(len(done), 60)
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn
        self.assertEqual(self.listener.of("disconnected"), ["the agent does not read"])
        for each in done:
            await self.assertFailure(each, DisconnectedError)
