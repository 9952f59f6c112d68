"""`jetcamer doctor` against real servers on loopback, good ones and broken ones."""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from jetcamer import __version__
from jetcamer.agent.config import load_config
from jetcamer.agent.health import HealthCheck
from jetcamer.agent.service import build_agent
from jetcamer.cli import doctor
from jetcamer.cli.doctor import local, network, running
from jetcamer.cli.doctor.advice import advice
from jetcamer.cli.doctor.examination import Examination
from jetcamer.cli.doctor.report import Check, Findings, Report
from jetcamer.cli.doctor.time_limit import TimeLimit
from jetcamer.daemon.clock import wall_clock_ms
from jetcamer.hub.gateway import Gateway
from jetcamer.hub.registry import AgentRegistry
from jetcamer.hub.session import AgentSession
from tests.hub.doubles import RecordingListener, keys
from tests.net.peers import PeerFactory, PeerProtocol, ProxyProcess
from tests.support.certs import Certificate, TestCA, self_signed
from tests.support.imds import FakeIMDS
from tests.support.node_peer import NodePeer
from tests.support.twistd import clean_environment

SECRET = "a-secret-that-nobody-may-see-0123456789"
TOKEN = "a-token-that-nobody-may-see"
STATUSES = {"ok", "warn", "fail", "skip"}


class Answering(Protocol):
    """Gives its factory's answer to whatever comes first."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.factory.answer)


def answering(answer: bytes) -> Factory:
    factory = Factory.forProtocol(Answering)
    factory.answer = answer
    return factory


class DoctorCase(TestCase):
    """Writes a configuration, and runs the examination on it in this process."""

    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "state").mkdir(parents=True)
        self.config = {
            "stateDir": str(self.folder / "state"),
            "webListen": "127.0.0.1:1",
            "instanceId": "agent-1",
            "wsSecret": SECRET,
        }
        self.environ = {"AWS_EC2_METADATA_DISABLED": "true"}
        self.printed = ""
        self.patch(network, "LINGER_SECONDS", 0.05)

    def listen(self, factory: Any, certificate: Certificate | None = None) -> int:
        """Serve on a free port of 127.0.0.1, over TLS with a certificate."""
        if certificate is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            context = certificate.server_context()
            port = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def websocket_server(self) -> PeerFactory:
        self.hub = PeerFactory(reactor)
        return self.hub

    def ca(self) -> TestCA:
        authority = TestCA(self.folder / "ca")
        self.config["wsCaFile"] = authority.path_cert
        return authority

    @property
    def config_path(self) -> Path:
        return self.folder / "agent.config.json"

    async def examine(self, *, timeout: float = 20.0, **members: Any) -> Report:
        """The report for the configuration with `members`; it shows no secret."""
        self.config_path.write_text(json.dumps(self.config | members))
        self.config_path.chmod(0o600)
        return await self.examine_file(timeout)

    async def examine_file(self, timeout: float = 20.0) -> Report:
        self.examination = Examination(
            reactor,
            self.environ,
            str(self.config_path),
            timeout,
            hostname="host-1",
            legacy_credentials=None,
        )
        report = await self.examination.run()
        self.printed = report.as_text() + report.as_json()
        self.assertNotIn(SECRET, self.printed)
        self.assertNotIn(TOKEN, self.printed)
        return report

    def rows(self, report: Report, check: str) -> list[Check]:
        return [row for row in report.checks if row.check == check]

    def row(self, report: Report, check: str) -> Check:
        (row,) = self.rows(report, check)
        return row

    def assertRow(
        self, report: Report, check: str, status: str, words: str = "", hint: str = ""
    ) -> None:
        """There is a row of `check` with that status that holds these texts."""
        found = [
            row
            for row in self.rows(report, check)
            if row.status == status and words in row.words and hint in row.hint
        ]
        self.assertTrue(found, f"no {check} {status} {words!r} {hint!r} in\n{report.as_text()}")


class NetworkTests(DoctorCase):
    """How far the connection comes, and what the row says that it does not pass."""

    async def test_a_good_server(self) -> None:
        """Every step is well; nothing is said to the server, and it is left with 1000."""
        server = self.websocket_server()
        certificate = self.ca().issue(ips=["127.0.0.1"], common_name="hub.example")
        port = self.listen(server, certificate)
        report = await self.examine(wsApiUrl=f"wss://127.0.0.1:{port}/agent")
        self.assertRow(report, "url", "ok", f"wss://127.0.0.1:{port}/agent")
        self.assertRow(report, "dns", "skip", "127.0.0.1 is an address")
        self.assertRow(report, "tcp", "ok", f"127.0.0.1:{port} accepts (")
        self.assertRow(report, "proxy", "ok", "none")
        row = self.row(report, "tls")
        self.assertEqual(row.status, "ok")
        for part in ("TLSv1.3", "CN=hub.example", "IP:127.0.0.1", "CN=JetCamer test CA", "days"):
            self.assertIn(part, row.words)
        self.assertRow(report, "websocket", "ok", "upgrade")
        (peer,) = server.connections
        _, code, reason = await peer.closed
        self.assertEqual((code, reason, peer.messages), (1000, "jetcamer doctor", []))

    async def test_nobody_listens(self) -> None:
        report = await self.examine(wsApiUrl="ws://127.0.0.1:1/agent")
        self.assertRow(
            report, "tcp", "fail", "connection refused by 127.0.0.1:1", "nothing listens"
        )
        self.assertRow(report, "websocket", "skip", "127.0.0.1:1 is not reached")
        self.assertEqual(self.rows(report, "tls"), [])
        self.assertRow(report, "disk", "ok")
        self.assertIn("Do this first (tcp): nothing listens there", report.as_text())
        self.assertEqual(report.exit_status, 2)

    async def test_a_server_that_is_no_websocket(self) -> None:
        port = self.listen(answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        report = await self.examine(wsApiUrl=f"ws://127.0.0.1:{port}/agent")
        self.assertRow(report, "tls", "skip", "nothing is encrypted")
        self.assertRow(report, "websocket", "fail", "HTTP 404 Not Found", "ends in /agent")
        not_found = answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        port = self.listen(not_found, self.ca().issue(ips=["127.0.0.1"]))
        report = await self.examine(wsApiUrl=f"wss://127.0.0.1:{port}/agent")
        self.assertRow(report, "tls", "ok", "IP:127.0.0.1")
        self.assertRow(report, "websocket", "fail", "HTTP 404 Not Found", "ends in /agent")

    async def test_a_server_without_tls(self) -> None:
        port = self.listen(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        report = await self.examine(wsApiUrl=f"wss://127.0.0.1:{port}/agent")
        self.assertRow(report, "tls", "fail", "does not speak TLS", "ws://")
        self.assertRow(report, "websocket", "skip", "no TLS connection")

    async def test_the_missing_san_is_named(self) -> None:
        certificate = self.ca().issue(dns=["hub.example"])
        port = self.listen(self.websocket_server(), certificate)
        report = await self.examine(wsApiUrl=f"wss://127.0.0.1:{port}/agent")
        self.assertRow(report, "tls", "fail", "DNS:hub.example", "the IP SAN 127.0.0.1, or set wsS")
        report = await self.examine(
            wsApiUrl=f"wss://127.0.0.1:{port}/agent", wsServerName="other.example"
        )
        self.assertRow(report, "tls", "fail", "other.example", "the DNS SAN other.example")
        report = await self.examine(
            wsApiUrl=f"wss://127.0.0.1:{port}/agent", wsServerName="hub.example"
        )
        self.assertRow(report, "tls", "ok")

    async def test_other_bad_certificates(self) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        authority = self.ca()
        for certificate, words, hint in (
            (self_signed(self.folder, ips=["127.0.0.1"]), "self-signed", "to the file of wsCaFile"),
            (
                TestCA(self.folder / "other", "Other").issue(ips=["127.0.0.1"]),
                "unknown certificate authority",
                "to the file of wsCaFile",
            ),
            (authority.issue(ips=["127.0.0.1"], not_after=yesterday), "expired on", "renew"),
            (authority.issue(), "names no host", "the IP SAN 127.0.0.1"),
        ):
            port = self.listen(self.websocket_server(), certificate)
            report = await self.examine(wsApiUrl=f"wss://127.0.0.1:{port}/agent")
            self.assertRow(report, "tls", "fail", words, hint)
            self.assertNotIn("set wsCaFile", self.printed)
            self.assertNotIn("wsServerName", self.printed)
        del self.config["wsCaFile"]
        port = self.listen(self.websocket_server(), authority.issue(ips=["127.0.0.1"]))
        report = await self.examine(wsApiUrl=f"wss://127.0.0.1:{port}/agent")
        self.assertRow(report, "tls", "fail", "set wsCaFile to trust it", "set wsCaFile to the")

    async def test_a_certificate_that_ends_soon(self) -> None:
        soon = datetime.now(UTC) + timedelta(days=5, hours=1)
        certificate = self.ca().issue(ips=["127.0.0.1"], not_after=soon)
        port = self.listen(self.websocket_server(), certificate)
        report = await self.examine(wsApiUrl=f"wss://127.0.0.1:{port}/agent")
        self.assertRow(report, "tls", "warn", "good for 5 days", "renew")

    async def test_a_server_that_closes_at_once(self) -> None:
        server = self.websocket_server()
        self.patch(network, "LINGER_SECONDS", 5)
        server.on_open = lambda peer: reactor.callLater(
            0.02, peer.sendCloseFrame, 1013, b"draining"
        )
        port = self.listen(server)
        report = await self.examine(wsApiUrl=f"ws://127.0.0.1:{port}/agent")
        self.assertRow(report, "websocket", "warn", "1013 draining", "wait")

    async def test_roots_that_cannot_be_loaded(self) -> None:
        def connection_creator(*ignored: object) -> None:
            raise OSError("no roots")

        self.patch(network.ClientTrust, "connection_creator", connection_creator)
        port = self.listen(self.websocket_server())
        report = await self.examine(wsApiUrl=f"wss://127.0.0.1:{port}/agent")
        self.assertRow(report, "tls", "fail", "no roots")
        self.assertRow(report, "websocket", "skip", "no TLS")

    async def test_a_server_that_says_nothing(self) -> None:
        """The step has its deadline; the later ones still have theirs."""
        self.patch(network, "OPEN_SECONDS", 0.1)
        port = self.listen(answering(b""))
        report = await self.examine(wsApiUrl=f"ws://127.0.0.1:{port}/agent")
        self.assertRow(
            report, "websocket", "fail", "no answer to the WebSocket upgrade", "says nothing"
        )
        self.assertRow(report, "agent", "warn", "no agent runs")

    async def test_ws_to_a_port_for_tls(self) -> None:
        """OpenSSL hangs up on it; others say in TLS that they do not understand."""
        port = self.listen(self.websocket_server(), self.ca().issue(ips=["127.0.0.1"]))
        report = await self.examine(wsApiUrl=f"ws://127.0.0.1:{port}/agent")
        self.assertRow(report, "websocket", "fail", "closed during", "ws:// or wss://")
        port = self.listen(answering(b"\x15\x03\x01\x00\x02\x02\x50"))
        report = await self.examine(wsApiUrl=f"ws://127.0.0.1:{port}/agent")
        self.assertRow(report, "websocket", "fail", "it answered in TLS", "wss:// in place of ws")

    async def test_a_server_that_hangs_up(self) -> None:
        class Rude(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()

        port = self.listen(Factory.forProtocol(Rude))
        report = await self.examine(wsApiUrl=f"ws://127.0.0.1:{port}/agent")
        words = "the connection was closed during the WebSocket upgrade"
        self.assertRow(report, "websocket", "fail", words, "hangs up")
        self.assertRow(report, "clock", "skip", "not told")

    async def test_a_path_that_node_does_not_serve(self) -> None:
        """The package ws answers 400, with no Date; to an upgrade it gives none either."""
        peer = NodePeer(reactor, {})
        self.addCleanup(peer.stop)
        await peer.start()
        report = await self.examine(wsApiUrl=peer.url.replace("/agent", "/agnet"))
        self.assertRow(report, "websocket", "fail", "HTTP 400 Bad Request", "usually /agent")
        self.assertRow(report, "clock", "ok", "in step")
        report = await self.examine(wsApiUrl=peer.url)
        self.assertRow(report, "websocket", "ok")
        self.assertRow(report, "clock", "ok", "in step")

    async def test_clocks(self) -> None:
        skew = 0.0

        class Dated(PeerProtocol):
            def onConnect(self, request: Any) -> tuple[None, dict[str, str]]:
                return None, {"Date": formatdate(time.time() + skew, usegmt=True)}

        server = self.websocket_server()
        server.protocol = Dated
        url = f"ws://127.0.0.1:{self.listen(server)}/agent"
        self.assertRow(await self.examine(wsApiUrl=url), "clock", "ok", "in step")
        skew = 100.0
        self.assertRow(await self.examine(wsApiUrl=url), "clock", "warn", "behind", "timedatectl")
        skew = -1000.0
        self.assertRow(await self.examine(wsApiUrl=url), "clock", "fail", "ahead", "timedatectl")
        server.protocol = PeerProtocol
        self.assertRow(await self.examine(wsApiUrl=url), "clock", "skip", "not told")


@implementer(IHostnameResolver)
class Resolver:
    """Knows one name; keeps those who ask for "slow.example" waiting."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *rest: Any, **more: Any
    ) -> Any:
        from twisted.internet.address import IPv4Address

        class Resolution:
            name = hostName

            def cancel(self) -> None:
                raise NotImplementedError  # as Twisted's own

        receiver.resolutionBegan(Resolution())
        if hostName == "slow.example":
            return Resolution()
        for address in self.addresses if hostName == "hub.example" else []:
            receiver.addressResolved(IPv4Address("TCP", address, portNumber))
        receiver.resolutionComplete()
        return Resolution()


class NameTests(DoctorCase):
    def resolve(self, *addresses: str) -> None:
        before = reactor.installNameResolver(Resolver(list(addresses)))
        self.addCleanup(reactor.installNameResolver, before)

    async def test_a_name(self) -> None:
        self.resolve("127.0.0.1", "127.0.0.1")
        port = self.listen(self.websocket_server(), self.ca().issue(dns=["hub.example"]))
        report = await self.examine(wsApiUrl=f"wss://hub.example:{port}/agent")
        self.assertEqual(self.row(report, "dns").words, "hub.example is 127.0.0.1")
        self.assertEqual(len(self.rows(report, "tcp")), 1)
        self.assertRow(report, "tls", "ok", "DNS:hub.example")
        self.assertRow(report, "websocket", "ok")

    async def test_one_address_of_two_is_down(self) -> None:
        self.resolve("127.0.0.1", "127.0.0.2")
        port = self.listen(self.websocket_server())
        report = await self.examine(wsApiUrl=f"ws://hub.example:{port}/agent")
        self.assertRow(report, "tcp", "ok", f"127.0.0.1:{port}")
        self.assertRow(report, "tcp", "warn", f"refused by 127.0.0.2:{port}", "other addresses")
        self.assertRow(report, "websocket", "ok")

    async def test_a_name_that_is_not_found(self) -> None:
        self.resolve()
        report = await self.examine(wsApiUrl="wss://nowhere.example/agent")
        self.assertRow(report, "dns", "fail", "name not found: nowhere.example", "spelling")
        self.assertRow(report, "websocket", "skip")

    async def test_name_servers_that_do_not_answer(self) -> None:
        self.resolve()
        self.patch(network, "DNS_SECONDS", 0.05)
        report = await self.examine(wsApiUrl="wss://slow.example/agent")
        self.assertRow(report, "dns", "fail", "slow.example: no answer within", "name servers")


class ProxyTests(DoctorCase):
    async def start(self, *options: str) -> ProxyProcess:
        process = ProxyProcess(reactor, *options)
        self.addCleanup(process.stop)
        return await process.start()

    async def test_through_a_proxy(self) -> None:
        proxy = await self.start("--user", "u", "--password", SECRET)
        port = self.listen(self.websocket_server(), self.ca().issue(dns=["hub.example"]))
        self.config["wsServerName"] = "hub.example"
        report = await self.examine(
            wsApiUrl=f"wss://127.0.0.1:{port}/agent",
            wsProxy=f"http://u:{SECRET}@127.0.0.1:{proxy.port}",
        )
        self.assertRow(report, "tcp", "ok", f"127.0.0.1:{proxy.port} accepts")
        self.assertRow(report, "proxy", "ok", f"127.0.0.1:{proxy.port} lets us through")
        self.assertRow(report, "tls", "ok")
        self.assertRow(report, "websocket", "ok")

    async def test_the_time_is_asked_through_it_too(self) -> None:
        proxy = await self.start()
        late = formatdate(time.time() - 1000, usegmt=True)
        head = f"HTTP/1.1 503 Later\r\nDate: {late}\r\n\r\n".encode()
        port = self.listen(answering(head), self.ca().issue(ips=["127.0.0.1"]))
        report = await self.examine(
            wsApiUrl=f"wss://127.0.0.1:{port}/agent", wsProxy=f"http://127.0.0.1:{proxy.port}"
        )
        self.assertRow(report, "websocket", "fail", "HTTP 503", "wait")
        self.assertRow(report, "clock", "fail", "ahead of the server")
        for _ in range(2):
            await proxy.wait_for(lambda line: line.startswith(f"CONNECT 127.0.0.1:{port} "))

    async def test_a_proxy_that_refuses(self) -> None:
        proxy = await self.start("--user", "u", "--password", SECRET)
        report = await self.examine(
            wsApiUrl="wss://hub.example/agent", wsProxy=f"http://127.0.0.1:{proxy.port}"
        )
        self.assertRow(report, "proxy", "fail", "407", "user name and password")
        self.assertRow(report, "tls", "skip", "the proxy")
        self.assertRow(report, "websocket", "skip", "the proxy")

    async def test_a_proxy_of_the_environment(self) -> None:
        self.environ["HTTPS_PROXY"] = f"http://u:{SECRET}@127.0.0.1:1"
        report = await self.examine(wsApiUrl="wss://hub.example/agent")
        words = "proxy 127.0.0.1:1: connection refused by 127.0.0.1:1"
        self.assertRow(report, "tcp", "fail", words, "HTTPS_PROXY")
        self.assertRow(report, "websocket", "skip", "the proxy 127.0.0.1:1 is not reached")
        self.environ["HTTPS_PROXY"] = "http://proxy.invalid:3128"
        before = reactor.installNameResolver(Resolver([]))
        self.addCleanup(reactor.installNameResolver, before)
        report = await self.examine(wsApiUrl="wss://hub.example/agent")
        words = "proxy proxy.invalid:3128: name not found: proxy.invalid"
        self.assertRow(report, "dns", "fail", words, "HTTPS_PROXY")
        self.environ["HTTPS_PROXY"] = f"ftp://u:{SECRET}@127.0.0.1:1"
        report = await self.examine(wsApiUrl="wss://hub.example/agent")
        self.assertRow(report, "proxy", "fail", "HTTPS_PROXY", "wsProxy")
        self.assertRow(report, "websocket", "skip")


class MetadataTests(DoctorCase):
    def setUp(self) -> None:
        super().setUp()
        self.imds = FakeIMDS()
        self.environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.imds.listen(reactor)}
        self.addCleanup(lambda: Deferred.fromCoroutine(self.imds.close()))

    async def test_version_2(self) -> None:
        self.imds.items["public-ipv4"] = "127.0.0.1"
        report = await self.examine()
        self.assertRow(
            report,
            "metadata",
            "ok",
            "IMDSv2: instance i-0123456789abcdef0 in eu-west-1, public address 127.0.0.1",
        )
        self.assertRow(report, "tcp", "fail", "127.0.0.1:443")

    async def test_version_1(self) -> None:
        self.imds.faults["token"] = "404"
        self.imds.token_required = False
        report = await self.examine(wsApiUrl="ws://127.0.0.1:1/agent")
        self.assertRow(report, "metadata", "ok", "IMDSv1: instance i-0123456789abcdef0")

    async def test_an_instance_without_a_public_address(self) -> None:
        del self.imds.items["public-ipv4"]
        report = await self.examine()
        self.assertRow(report, "metadata", "warn", "public address none", "set wsApiUrl")
        self.assertRow(report, "url", "fail", "no URL", "wsApiUrl")
        self.assertRow(report, "websocket", "skip", "no URL")
        report = await self.examine(wsApiUrl="ws://127.0.0.1:1/agent")
        self.assertRow(report, "metadata", "ok", "public address none")

    async def test_no_service(self) -> None:
        self.environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1"}
        report = await self.examine()
        self.assertRow(report, "metadata", "warn", "refused", "only EC2 instances")
        report = await self.examine(wsApiUrl="ws://127.0.0.1:1/agent")
        self.assertRow(report, "metadata", "skip", "none is needed")

    async def test_a_service_that_refuses(self) -> None:
        for status in ("401", "403"):
            self.imds.faults["*"] = status
            report = await self.examine()
            words = (
                "the EC2 metadata service refuses (instance-id, placement/region, public-ipv4: "
                f"HTTP status {status})"
            )
            self.assertRow(report, "metadata", "warn", words, "modify-instance-metadata-options")

    async def test_turned_off(self) -> None:
        self.environ = {"AWS_EC2_METADATA_DISABLED": "true"}
        self.assertRow(await self.examine(), "metadata", "warn", "AWS_EC2_METADATA_DISABLED")
        report = await self.examine(wsApiUrl="ws://127.0.0.1:1/agent")
        self.assertRow(report, "metadata", "skip", "AWS_EC2_METADATA_DISABLED")

    async def test_an_address_that_is_none(self) -> None:
        self.environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:99999999/x"}
        self.assertRow(await self.examine(), "metadata", "warn", "not an address")


class LocalTests(DoctorCase):
    """Configuration, credentials, permissions."""

    async def test_broken_configurations(self) -> None:
        for text, words in (
            ('{"wsSecret": "' + SECRET + '", }', "not valid JSON"),
            ('{"wsSecret": ["' + SECRET + '"]}', "wsSecret"),
            ('{"logPaths": 7}', "logPaths"),
            ('{"wsCaFile": "/nonexistent/ca.pem"}', "wsCaFile"),
        ):
            self.config_path.write_text(text)
            report = await self.examine_file()
            self.assertRow(report, "configuration", "fail", str(self.config_path), "correct it")
            self.assertRow(report, "configuration", "fail", words)
            self.assertRow(report, "signature", "ok")
            self.assertRow(report, "websocket", "skip", "the configuration cannot be used")
            self.assertEqual(report.exit_status, 2)
            self.assertIn("Do this first (configuration): correct it", report.as_text())

    async def test_a_missing_configuration(self) -> None:
        report = await self.examine_file()
        self.assertRow(report, "configuration", "fail", "no such file", "JETCAMER_AGENT_CONFIG")

    async def test_a_configuration_that_cannot_be_read(self) -> None:
        self.config_path.mkdir()  # root reads every file
        report = await self.examine_file()
        self.assertRow(report, "configuration", "fail", "cannot be read", "sudo -u jetcamer")

    async def test_stored_credentials_that_are_malformed(self) -> None:
        path = self.folder / "state" / "aws-credentials.json"
        for text in ("{", '{"AccessKeyID": "A"}', '{"SecretAccessKey": 1}'):
            path.write_text(text)
            path.chmod(0o600)
            report = await self.examine()
            self.assertRow(report, "credentials", "warn", "is not used", "PUT them to")
        path.unlink()
        path.mkdir()
        report = await self.examine()
        self.assertRow(report, "credentials", "warn", "cannot be read", "the service's user")

    async def test_warnings_of_the_configuration(self) -> None:
        self.config_path.write_text(json.dumps(self.config | {"wsSecrte": 1}))
        self.config_path.chmod(0o644)
        report = await self.examine_file()
        self.assertRow(report, "configuration", "ok", "is valid")
        self.assertRow(report, "configuration", "warn", "wsSecrte", "correct")
        self.assertRow(report, "configuration", "warn", "mode 0644", "chmod o-rw")

    async def test_where_the_secret_comes_from(self) -> None:
        report = await self.examine()
        self.assertRow(report, "credentials", "ok", "a secret is set, from wsSecret")
        del self.config["wsSecret"]
        self.environ["AWS_SECRET_ACCESS_KEY"] = SECRET
        report = await self.examine()
        self.assertRow(report, "credentials", "ok", "from AWS_SECRET_ACCESS_KEY in the environment")
        path = self.folder / "state" / "aws-credentials.json"
        path.write_text(json.dumps({"AccessKeyID": TOKEN, "SecretAccessKey": SECRET}))
        path.chmod(0o644)
        report = await self.examine()
        self.assertRow(report, "credentials", "ok", 'stored credentials; the agent is "agent-1"')
        self.assertRow(report, "credentials", "warn", "mode 0644", "chmod 600")

    async def test_no_secret(self) -> None:
        del self.config["wsSecret"]
        report = await self.examine(instanceId="auto", wsApiUrl="ws://127.0.0.1:1/agent")
        self.assertRow(report, "credentials", "fail", "no secret", "/internal/set-aws-config")
        self.assertRow(report, "tcp", "fail", "refused")

    async def test_secrets_that_will_not_do(self) -> None:
        report = await self.examine(wsSecret=SECRET + "\n")
        self.assertRow(report, "credentials", "warn", "white space", "line break")
        report = await self.examine(wsSecret="short-one")
        self.assertRow(report, "credentials", "warn", "fewer than 16", "openssl rand")
        self.assertNotIn("short-one", self.printed)

    async def test_the_state_directory_is_missing(self) -> None:
        report = await self.examine(stateDir=str(self.folder / "nothing"))
        self.assertRow(report, "state_directory", "warn", "is not there", "install -d")

    async def test_the_machine(self) -> None:
        log = self.folder / "access.log"
        log.touch()
        report = await self.examine(logPaths=[str(log)])
        self.assertRow(report, "state_directory", "ok", "is writable")
        self.assertRow(report, "log_files", "ok", "1 readable")
        self.assertRow(report, "memory", "ok")
        report = await self.examine(logPaths=[str(self.folder / "none.log")])
        self.assertRow(report, "log_files", "warn", "is not there", "adm")

    async def test_what_cannot_be_told_is_skipped(self) -> None:
        self.patch(local, "check_memory", lambda: HealthCheck("memory", "unknown", "no /proc"))
        self.assertRow(await self.examine(), "memory", "skip", "no /proc")

    async def test_an_installation_that_signs_wrongly(self) -> None:
        damaged = local._KNOWN.replace(b"ba851", b"ba852")
        self.patch(local, "_KNOWN", damaged)
        self.assertRow(await self.examine(), "signature", "fail", "refused", "install it anew")

    async def test_an_installation_that_verifies_nothing(self) -> None:
        opened = local.SigningKey(local._KNOWN_KEY).open(local._KNOWN)
        self.patch(local.SigningKey, "open", lambda self, data: opened)
        self.assertRow(await self.examine(), "signature", "fail", "changed on the way is accepted")

    async def test_an_installation_that_seals_in_other_bytes(self) -> None:
        self.patch(local.SigningKey, "seal", lambda *args, **more: b"{}")
        self.assertRow(await self.examine(), "signature", "fail", "in other bytes")

    async def test_a_secret_that_comes_back_from_a_server(self) -> None:
        """`examine` looks that it is not shown; here is that something was hidden."""
        port = self.listen(answering(f"HTTP/1.1 403 {SECRET}\r\n\r\n".encode()))
        report = await self.examine(wsApiUrl=f"ws://127.0.0.1:{port}/agent")
        self.assertRow(report, "websocket", "fail", "HTTP 403 (hidden)")


class Status(Resource):
    """A local interface whose agent says what a test wants."""

    isLeaf = True

    def __init__(self, body: bytes, code: int = 200) -> None:
        super().__init__()
        self.body, self.code = body, code
        self.authorization: list[str | None] = []

    def render_GET(self, request: Any) -> bytes:
        self.authorization.append(request.getHeader("authorization"))
        request.setResponseCode(self.code)
        return self.body


ONLINE = {
    "hasConnection": True,
    "state": "online",
    "attempt": 0,
    "connectedSince": "2026-11-23T04:57:02Z",
    "lastError": None,
    "apiURL": "ws://127.0.0.1:1/agent",
    "agentID": "agent-1",
    "secretSource": "config",
    "version": __version__,
}


class RunningAgentTests(DoctorCase):
    """What the row `agent` makes of the status of an agent that runs."""

    async def told(self, body: object, code: int = 200, **members: Any) -> Report:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = Status(text, code)
        port = self.listen(Site(self.status))
        return await self.examine(
            **{"wsApiUrl": "ws://127.0.0.1:1/agent", "webListen": f"127.0.0.1:{port}"} | members
        )

    async def test_none(self) -> None:
        report = await self.examine()
        self.assertRow(report, "agent", "warn", "no agent runs", "systemctl start jetcamer-agent")

    async def test_online(self) -> None:
        report = await self.told(ONLINE)
        self.assertRow(report, "agent", "ok", "online since 2026-11-23T04:57:02Z, to ws://127")
        self.assertEqual(len(self.rows(report, "agent")), 1)

    async def test_backing_off(self) -> None:
        told = {
            "hasConnection": False,
            "state": "backing off",
            "attempt": 3,
            "lastError": f"closed by the server: 1008 invalid_signature \x1b[2J{SECRET}",
        }
        report = await self.told(ONLINE | told)
        self.assertRow(report, "agent", "fail", "1008 invalid_signature", "another secret")
        self.assertNotIn("\x1b", report.as_text())

    async def test_every_secret_is_hidden(self) -> None:
        """Whatever another program says: here an agent that blurts out all it knows."""
        secrets = [f"{name}-{SECRET[2:]}" for name in ("env", "store", "id", "wsproxy", "envproxy")]
        environment, stored, key_id, proxy, environment_proxy = secrets
        self.environ["AWS_SECRET_ACCESS_KEY"] = environment
        self.environ["HTTP_PROXY"] = f"http://u:{environment_proxy}@127.0.0.1:1"
        path = self.folder / "state" / "aws-credentials.json"
        path.write_text(json.dumps({"AccessKeyID": key_id, "SecretAccessKey": stored}))
        told = {"hasConnection": False, "lastError": " ".join([*secrets, SECRET, TOKEN])}
        report = await self.told(
            ONLINE | told, webToken=TOKEN, wsProxy=f"http://u:{proxy}@127.0.0.1:1"
        )
        self.assertRow(report, "agent", "fail", "(hidden) " * 3)
        for secret in {*secrets} - {environment_proxy}:  # which is not in use
            self.assertNotIn(secret, self.printed)
        report = await self.told(
            ONLINE | told | {"lastError": environment_proxy}, wsApiUrl="ws://198.51.100.1/agent"
        )
        self.assertRow(report, "agent", "fail", "last error: (hidden)")
        report = await self.told(
            ONLINE | told | {"lastError": proxy}, wsApiUrl="", wsProxy=f"http://u:{proxy}@[::1]:1"
        )
        self.assertRow(report, "agent", "fail", "last error: (hidden)")

    async def test_waiting(self) -> None:
        report = await self.told(ONLINE | {"hasConnection": False, "missing": "secret"})
        self.assertRow(report, "agent", "warn", "missing secret")

    async def test_connecting(self) -> None:
        report = await self.told(ONLINE | {"hasConnection": False, "state": "connecting"})
        self.assertRow(report, "agent", "warn", "connecting right now")

    async def test_another_version(self) -> None:
        report = await self.told(ONLINE | {"version": "4.0.3"})
        self.assertRow(report, "agent", "warn", "version 4.0.3 runs", "restart")

    async def test_another_environment(self) -> None:
        told = {"apiURL": "wss://other.example/agent", "secretSource": "stored-credentials"}
        report = await self.told(ONLINE | told)
        self.assertRow(report, "agent", "warn", "the URL wss://other.example/agent, not ws://127")
        self.assertRow(report, "agent", "warn", "a secret from stored-credentials", "sudo -u")

    async def test_a_token(self) -> None:
        report = await self.told(ONLINE, webToken=TOKEN)
        self.assertEqual(self.status.authorization, [f"Bearer {TOKEN}"])
        self.assertRow(report, "agent", "ok")

    async def test_another_program(self) -> None:
        for body, code in ((b"<html>", 200), (b"[]", 200), (b'{"a": 1}', 200), (b"{}", 404)):
            report = await self.told(body, code)
            self.assertRow(report, "agent", "fail", f"HTTP {code}", "ss -ltnp")

    async def test_no_http(self) -> None:
        port = self.listen(answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
        report = await self.examine(webListen=f"127.0.0.1:{port}")
        self.assertRow(report, "agent", "fail", "no HTTP answer", "ss -ltnp")

    async def test_one_that_hangs(self) -> None:
        self.patch(running, "ANSWER_SECONDS", 0.1)
        port = self.listen(Factory.forProtocol(Protocol))
        report = await self.examine(webListen=f"127.0.0.1:{port}")
        self.assertRow(report, "agent", "fail", "it hangs", "restart")


class WholeTests(DoctorCase):
    """A real hub, a real agent that is connected to it, and the doctor beside them."""

    async def test_all_is_well_and_the_agent_keeps_its_place(self) -> None:
        listener = RecordingListener()
        registry = AgentRegistry(reactor, listener)
        known = keys({"agent-1": SECRET})
        certificate = self.ca().issue(ips=["127.0.0.1"])
        gateway = Gateway(
            reactor,
            f"ssl:0:interface=127.0.0.1:privateKey={certificate.path_key}"
            f":certKey={certificate.path_cert}",
            lambda connection: AgentSession(connection, known, registry, wall_clock_ms),
        )
        gateway.startService()
        self.addCleanup(gateway.stopService)
        self.config["wsApiUrl"] = f"wss://127.0.0.1:{gateway.port}/agent"
        self.config["webListen"] = "127.0.0.1:0"
        self.config["logPaths"] = [str(self.folder / "access.log")]
        (self.folder / "access.log").touch()
        self.config_path.write_text(json.dumps(self.config))
        self.config_path.chmod(0o600)
        config, source = load_config(str(self.config_path), {})
        agent = build_agent(config, reactor=reactor, source=source, environ=dict(self.environ))
        online: Deferred[None] = Deferred()
        agent.link.on_change(lambda: agent.link.state == "online" and online.callback(None))
        agent.startService()
        self.addCleanup(agent.stopService)
        await online
        before = agent.link.connection

        report = await self.examine(webListen=f"127.0.0.1:{agent.local_http.port}")
        of_this_machine = {"disk", "state_disk", "memory"}
        checks = tuple(row for row in report.checks if row.check not in of_this_machine)
        report = Report(report.version, checks)
        self.assertEqual(report.exit_status, 0, report.as_text())
        self.assertTrue(report.as_text().endswith("\n\nEverything is in order."))
        self.assertRow(report, "clock", "ok", "in step")
        self.assertRow(report, "agent", "ok", "online since")
        self.assertIs(agent.link.connection, before)
        self.assertEqual(agent.link.state, "online")
        self.assertEqual(len(listener.of("authenticated")), 1)
        self.assertEqual(listener.of("refused"), [])


class ReportTests(SynchronousTestCase):
    """Rows, text, JSON and exit status."""

    def report(self, *statuses: str) -> Report:
        rows = tuple(
            Check(f"check{number}", status, f"words {number}", f"hint {number}")  # type: ignore[arg-type]
            for number, status in enumerate(statuses)
        )
        return Report("1.2.3", rows)

    def test_exit_status(self) -> None:
        for statuses, whole, exit_status in (
            (("ok", "skip"), "ok", 0),
            (("ok", "warn", "skip"), "warn", 1),
            (("warn", "fail", "ok"), "fail", 2),
            ((), "ok", 0),
        ):
            report = self.report(*statuses)
            self.assertEqual((report.status, report.exit_status), (whole, exit_status))

    def test_json(self) -> None:
        told = json.loads(self.report("ok", "warn").as_json())
        self.assertEqual(set(told), {"status", "checks", "version"})
        self.assertEqual((told["status"], told["version"]), ("warn", "1.2.3"))
        for row in told["checks"]:
            self.assertEqual(set(row), {"check", "status", "words", "hint"})
            self.assertIn(row["status"], STATUSES)
            self.assertTrue(all(isinstance(value, str) for value in row.values()))

    def test_text(self) -> None:
        self.assertEqual(
            self.report("ok", "warn", "fail", "skip").as_text(),
            "[ ok ] check0  words 0\n"
            "[warn] check1  words 1\n"
            "               hint 1\n"
            "[FAIL] check2  words 2\n"
            "               hint 2\n"
            "[skip] check3  words 3\n"
            "               hint 3\n"
            "\n"
            "Do this first (check2): hint 2",
        )
        self.assertIn("look at this first (check1): hint 1", self.report("ok", "warn").as_text())

    def test_secrets_and_control_characters(self) -> None:
        findings = Findings()
        findings.warn("a", "x\x1b[2J\ny abcdefgh\u2028", "abcdefghijkl")
        findings.hide("abcdefgh", "abcdefghijkl", None, "")
        (row,) = findings.report("1").checks
        self.assertEqual(row, Check("a", "warn", "x [2J y (hidden) ", "(hidden)"))

    def test_a_short_secret_does_not_spoil_the_words(self) -> None:
        findings = Findings()
        findings.hide("e")
        findings.ok("a", "everything")
        self.assertEqual(findings.report("1").checks[0].words, "everything")

    def test_advice(self) -> None:
        self.assertIn("instanceId", advice("closed by the server: 1008 unknown_agent"))
        self.assertIn("its own", advice("closed by the server: 1000 replaced_by_new_connection"))
        self.assertIn("proxy", advice("proxy 10.0.0.1:3128: it answered 403 Forbidden"))
        self.assertIn("nothing to do", advice("no pong within 10 s"))
        self.assertIn("outbound", advice("no answer to the TCP connect within 10 s"))
        self.assertIn("its SAN", advice("TLS: the certificate names no host (it has no subject…"))
        self.assertEqual(advice("what nobody has seen"), "")


class ArgumentsTests(SynchronousTestCase):
    def parse(self, *words: str) -> argparse.Namespace:
        parser = argparse.ArgumentParser(prog="jetcamer doctor")
        doctor.add_arguments(parser)
        return parser.parse_args(words)

    def test_defaults(self) -> None:
        args = self.parse()
        self.assertEqual((args.config, args.json, args.timeout), (None, False, 20.0))

    def test_wrong_ones(self) -> None:
        for wrong in (["--timeout", "0"], ["--timeout", "soon"], ["--timeout", "nan"], ["x"]):
            errors = io.StringIO()
            self.patch(sys, "stderr", errors)
            with self.assertRaises(SystemExit) as caught:
                self.parse(*wrong)
            self.assertEqual(caught.exception.code, 2)
            self.assertIn("error: ", errors.getvalue())


class TimeLimitTests(SynchronousTestCase):
    def test_shares(self) -> None:
        clock = Clock()
        limit = TimeLimit(clock, 10)
        self.assertEqual(limit.share(4), 4)
        clock.advance(8)
        self.assertEqual(limit.share(4), 2)
        clock.advance(8)
        self.assertEqual(limit.share(4), 0.2)

    def test_within(self) -> None:
        clock = Clock()
        limit = TimeLimit(clock, 10)
        cancelled: list[object] = []
        waiting: Deferred[None] = Deferred(cancelled.append)
        result = Deferred.fromCoroutine(limit.within(3, waiting))
        clock.advance(2.9)
        self.assertNoResult(result)
        clock.advance(0.2)
        self.assertEqual(
            str(self.failureResultOf(result, TimeoutError).value), "no answer within 3 s"
        )
        self.assertEqual(cancelled, [waiting])
        done: Deferred[int] = Deferred()
        result = Deferred.fromCoroutine(limit.within(3, done))
        done.callback(7)
        self.assertEqual(self.successResultOf(result), 7)
        self.assertEqual(clock.getDelayedCalls(), [])


class CommandLineTests(TestCase):
    """The program itself, as a process."""

    timeout = 60

    async def doctor(self, *arguments: str, prelude: str = "") -> tuple[str, str, int]:
        code = f"{prelude}\nimport sys\nfrom jetcamer.cli import main\nsys.exit(main())"
        out, err, status = await getProcessOutputAndValue(
            sys.executable, ["-c", code, "doctor", *arguments], env=clean_environment()
        )
        return out.decode(), err.decode(), status

    async def test_json(self) -> None:
        out, err, status = await self.doctor("--json", "--config", "/nonexistent/agent.json")
        self.assertEqual((err, status), ("", 2))
        told = json.loads(out)
        self.assertEqual((told["status"], told["version"]), ("fail", __version__))
        self.assertEqual(told["checks"][0]["check"], "configuration")

    async def test_a_name_lookup_that_hangs_does_not_keep_it(self) -> None:
        """Threads cannot be ended; the program ends all the same."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        config = folder / "agent.config.json"
        config.write_text(json.dumps({"wsApiUrl": "wss://hub.example/agent", "wsSecret": SECRET}))
        out, err, status = await self.doctor(
            "--timeout",
            "1",
            "--config",
            str(config),
            prelude="import socket, time; socket.getaddrinfo = lambda *a, **k: time.sleep(120)",
        )
        self.assertIn("[FAIL] dns", out)
        self.assertEqual((err, status), ("", 2))
