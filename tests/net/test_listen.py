"""Endpoints from descriptions, TLS among them, with real sockets and clients that are not ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from jetcamer.net.certificates import CHECK_EVERY, CertificateFiles
from jetcamer.net.listen import TLSServerEndpoint, server_context, server_endpoint
from tests.net.memory_tcp import Recorder
from tests.support.case import ProcessCase
from tests.support.certs import Certificate, TestCA
from tests.support.logs import LogsMixin
from tests.support.tools import require_program

MEGABYTES = os.urandom(5 * 1024 * 1024)


class LaterReactor:
    """The reactor, by a clock that a test sets forward."""

    offset = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def seconds(self) -> float:
        return reactor.seconds() + self.offset


class Served(TestCase):
    """A server behind TLS, and blocking clients in threads."""

    timeout = 30

    async def serve(self, protocol: Any = None, factory: Any = None) -> Recorder:
        """Listen; the protocol of the next connection."""
        self.ca = TestCA(self.mktemp())
        self.certificate = self.ca.issue(dns=["localhost"])
        #: How each connection to a `Recorder` ended, in order.
        self.endings: DeferredQueue[type[Exception]] = DeferredQueue()
        protocol = protocol or Recorder()
        protocol.on_lost = lambda reason: self.endings.put(reason.type)
        self.clock = LaterReactor()
        endpoint = server_endpoint(
            self.clock,
            f"ssl:0:interface=127.0.0.1:certKey={self.certificate.path_cert}"
            f":privateKey={self.certificate.path_key}",
        )
        port = await endpoint.listen(factory or Factory.forProtocol(lambda: protocol))
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        return protocol

    def connect(self) -> socket.socket:
        """A socket; for use in a thread."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        self.addCleanup(connection.close)
        return connection

    def connect_tls(self, *alpn: str, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.ca.path_cert)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context.wrap_socket(
            self.connect(), server_hostname="localhost", suppress_ragged_eofs=False
        )

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        return await deferToThread(work)


class SocketTests(LogsMixin, Served):
    async def test_five_megabytes_each_way_with_a_slow_reader(self) -> None:
        protocol = await self.serve()
        written: list[int] = []

        def answer(_: bytes) -> None:
            if len(protocol.data) == len(MEGABYTES):
                protocol.transport.write(protocol.data)
                written.append(len(protocol.data))
                protocol.transport.loseConnection()

        protocol.on_data = answer

        def client() -> bytes:
            connection = self.connect_tls()
            connection.sendall(MEGABYTES)
            found = []
            while data := connection.recv(1000 if len(found) < 200 else 65536):
                found.append(data)
            return b"".join(found)  # recv() raises at an end without close_notify

        self.assertEqual(await self.in_thread(client), MEGABYTES)
        self.assertEqual(written, [len(MEGABYTES)])
        await self.endings.get()

    async def test_a_reader_that_stops_pauses_the_producer(self) -> None:
        paused: Deferred[None] = Deferred()

        class Source:
            """Writes until it is told to pause."""

            going = False

            def __init__(self, transport: Any) -> None:
                self.transport = transport

            def resumeProducing(self) -> None:
                self.going = True
                self.more()

            def more(self) -> None:
                if self.going:
                    self.transport.write(b"x" * 100_000)
                    reactor.callLater(0, self.more)

            def pauseProducing(self) -> None:
                self.going = False
                if not paused.called:
                    paused.callback(None)

            def stopProducing(self) -> None:
                self.going = False

        protocol = Recorder()

        def made() -> None:
            source = Source(protocol.transport)
            protocol.transport.registerProducer(source, True)
            source.resumeProducing()

        protocol.on_made = made
        await self.serve(protocol)
        await self.in_thread(self.connect_tls)
        await paused
        protocol.transport.abortConnection()
        await self.endings.get()

    async def test_a_connection_that_never_speaks_is_the_protocols_to_end(self) -> None:
        protocol = await self.serve()
        made: Deferred[None] = Deferred()
        protocol.on_made = lambda: made.callback(None)
        await self.in_thread(self.connect)
        await made
        protocol.transport.abortConnection()
        self.assertIs(await self.endings.get(), ConnectionAborted)

    async def test_close_notify_is_seen(self) -> None:
        protocol = await self.serve()
        protocol.on_data = lambda _: protocol.transport.loseConnection()

        def client() -> bytes:
            with self.connect_tls() as connection:
                connection.sendall(b"x")
                return connection.recv(100)

        self.assertEqual(await self.in_thread(client), b"")
        self.assertIs(await self.endings.get(), ConnectionDone)

    async def test_an_answer_given_before_all_was_read_arrives(self) -> None:
        protocol = await self.serve()

        def answer(_: bytes) -> None:
            protocol.transport.write(b"too large")
            protocol.transport.loseConnection()

        protocol.on_data = answer

        def client() -> bytes:
            with self.connect_tls() as connection:
                connection.sendall(MEGABYTES)
                return b"".join(iter(lambda: connection.recv(100), b""))

        self.assertEqual(await self.in_thread(client), b"too large")
        self.assertIs(await self.endings.get(), ConnectionDone)
        self.assertEqual(len(protocol.received), 1)

    async def test_a_truncated_stream_is_no_clean_end(self) -> None:
        protocol = await self.serve()

        def client() -> None:
            connection = self.connect_tls()
            connection.sendall(b"half of it")
            socket.socket(fileno=connection.detach()).close()

        await self.in_thread(client)
        self.assertIs(await self.endings.get(), ConnectionLost)
        self.assertEqual(protocol.data, b"half of it")

    async def test_a_peer_that_resets(self) -> None:
        protocol = await self.serve()

        def client() -> None:
            connection = self.connect_tls()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            socket.socket(fileno=connection.detach()).close()

        await self.in_thread(client)
        self.assertIs(await self.endings.get(), ConnectionLost)
        self.assertEqual(protocol.data, b"")

    async def test_plain_http_is_told(self) -> None:
        await self.serve()
        captured = self.capture_logs()

        def client() -> bytes:
            with self.connect() as connection:
                connection.sendall(b"GET /agent HTTP/1.1\r\nHost: hub\r\n\r\n")
                return b"".join(iter(lambda: connection.recv(4096), b""))

        answer = await self.in_thread(client)
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        self.assertIn(b"This port speaks TLS", answer)
        await self.endings.get()
        self.assertEqual(
            [line for line in captured.lines if line.startswith("[tls]")], captured.lines
        )
        self.assertEqual(len(captured.lines), 1)

    async def test_garbage(self) -> None:
        protocol = await self.serve()

        def client() -> None:
            with self.connect() as connection, contextlib.suppress(ConnectionResetError):
                connection.sendall(b"\xff" * 50_000)
                while connection.recv(4096):
                    pass

        await self.in_thread(client)
        self.assertIs(await self.endings.get(), ConnectionLost)
        self.assertEqual(protocol.data, b"")

    async def test_versions_and_protocols(self) -> None:
        await self.serve()

        def client() -> list[tuple[str | None, str | None]]:
            found = []
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with self.connect_tls("h2", "http/1.1", version=version) as connection:
                    found.append((connection.version(), connection.selected_alpn_protocol()))
            with self.assertRaises(ssl.SSLError) as caught:
                self.connect_tls("h2")
            self.assertIn("no application protocol", str(caught.exception))
            return found

        self.assertEqual(
            await self.in_thread(client), [("TLSv1.2", "http/1.1"), ("TLSv1.3", "http/1.1")]
        )
        for _ in range(3):
            self.assertIs(await self.endings.get(), ConnectionLost)

    async def test_a_website(self) -> None:
        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                return MEGABYTES if request.isSecure() else b"not secure"

        await self.serve(factory=Site(Page()))

        def client() -> bytes:
            connection = self.connect_tls("http/1.1")
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b""))

        head, _, body = (await self.in_thread(client)).partition(b"\r\n\r\n")
        self.assertIn(b"200 OK", head)
        self.assertEqual(body, MEGABYTES)

    async def test_a_renewed_certificate_is_served_to_the_next_client(self) -> None:
        await self.serve()
        renewed = self.ca.issue(dns=["localhost"])

        def serial() -> str:
            with self.connect_tls() as connection:
                return str(connection.getpeercert()["serialNumber"])

        before = await self.in_thread(serial)
        shutil.copy(renewed.path_cert, self.certificate.path_cert)
        shutil.copy(renewed.path_key, self.certificate.path_key)
        self.assertEqual(await self.in_thread(serial), before)
        self.clock.offset = CHECK_EVERY
        after = await self.in_thread(serial)
        self.assertEqual(int(after, 16), renewed.certificate.serial_number)
        self.assertNotEqual(after, before)
        for _ in range(3):
            await self.endings.get()


class OpenSSLTests(ProcessCase, Served):
    """A client that still speaks what no other does."""

    async def test_an_old_version_is_refused(self) -> None:
        await self.serve()
        weak = ["-cipher", "DEFAULT@SECLEVEL=0"]  # else the client itself would refuse
        out, err, status = await getProcessOutputAndValue(
            require_program("openssl"),
            ["s_client", "-connect", f"127.0.0.1:{self.port}", "-tls1_1", *weak],
            env=dict(os.environ),
        )
        self.assertNotEqual(status, 0)
        self.assertIn(b"alert protocol version", out + err)
        self.assertIs(await self.endings.get(), ConnectionLost)


class DescriptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ca = TestCA(self.mktemp())
        self.certificate = self.ca.issue(dns=["localhost"])

    def describe(self, **options: str) -> str:
        options = {
            "privateKey": self.certificate.path_key,
            "certKey": self.certificate.path_cert,
            **options,
        }
        return "ssl:8443" + "".join(f":{name}={value}" for name, value in options.items())

    def test_everything_else_is_twisteds(self) -> None:
        self.assertIsInstance(server_endpoint(Clock(), "tcp:8080"), TCP4ServerEndpoint)
        self.assertIsInstance(server_endpoint(Clock(), "unix:/run/x"), UNIXServerEndpoint)
        for wrong in ("tcp", "tcp:x", "tcp:1:colour=red", "nonsense:1", "", "tcp:1\\"):
            with self.subTest(wrong), self.assertRaises(ValueError) as caught:
                server_endpoint(Clock(), wrong)
            self.assertEqual(len(str(caught.exception).splitlines()), 1)

    def test_who_may_write_to_a_unix_socket(self) -> None:
        """Its owner and his group, where the description does not say otherwise."""
        for description, mode in (
            ("unix:/run/x", 0o660),
            ("unix:address=/run/x:backlog=9", 0o660),
            (r"unix:/run/a\:b", 0o660),
            ("unix:/run/x:mode=600", 0o600),
            ("unix:/run/x:666", 0o666),
            ("unix:address=/run/x:mode=666", 0o666),
        ):
            asked: dict[str, Any] = {}

            class Reactor(Clock):
                def listenUNIX(self, address: str, factory: Any, **options: Any) -> None:
                    asked.update(options, address=address)  # noqa: B023 - used at once

            endpoint = server_endpoint(Reactor(), description)
            self.successResultOf(endpoint.listen(Factory()))
            self.assertEqual(asked["mode"], mode, description)
            self.assertIn(asked["address"], ("/run/x", "/run/a:b"))

    def listened(self, description: str) -> dict[str, Any]:
        """What the reactor is asked for."""
        asked: dict[str, Any] = {}

        class Reactor(Clock):
            def listenTCP(self, port: int, factory: Any, **options: Any) -> None:
                asked.update(options, port=port)

        endpoint = server_endpoint(Reactor(), description)
        self.assertIsInstance(endpoint, TLSServerEndpoint)
        self.assertTrue(IStreamServerEndpoint.providedBy(endpoint))
        self.successResultOf(endpoint.listen(Factory()))
        return asked

    def test_options(self) -> None:
        self.assertEqual(
            self.listened(self.describe()), {"port": 8443, "backlog": 1024, "interface": ""}
        )
        self.assertEqual(
            self.listened(self.describe(interface="\\:\\:1", backlog="5")),
            {"port": 8443, "backlog": 5, "interface": "::1"},
        )
        self.assertEqual(
            self.listened(self.describe()[4:].replace("8443", "ssl:port=1"))["port"], 1
        )

    def test_escapes(self) -> None:
        folder = Path(self.mktemp()).absolute() / "a:b=c\\d"
        folder.mkdir(parents=True)
        both = folder / "both.pem"
        both.write_bytes(
            Path(self.certificate.path_key).read_bytes()
            + Path(self.certificate.path_cert).read_bytes()
        )
        path = str(both).replace("\\", "\\\\").replace(":", "\\:")
        self.listened(f"ssl:1:privateKey={path}")

    def wrong(self, description: str, words: str, kind: type[Exception] = ValueError) -> None:
        with self.assertRaises(kind) as caught:
            server_endpoint(Clock(), description)
        self.assertIn(words, str(caught.exception))
        self.assertEqual(len(str(caught.exception).splitlines()), 1)

    def test_what_is_wrong_is_said(self) -> None:
        self.wrong(self.describe(colour="red"), "unknown option colour")
        self.wrong(self.describe(sslmethod="SSLv3_METHOD"), "unknown option sslmethod")
        self.wrong(self.describe(backlog="many"), "backlog is 'many'")
        self.wrong(self.describe().replace("8443", "70000"), "port is '70000'")
        self.wrong(self.describe().replace("ssl:8443", "ssl"), "port is ''")
        self.wrong(self.describe() + ":extra", "'extra' is no option")
        self.wrong(self.describe() + "\\", "ends within an escape")
        self.wrong(self.describe(certKey=self.mktemp()), "No such file", OSError)
        self.wrong(self.describe(privateKey=self.mktemp()), "No such file", OSError)
        self.wrong(self.describe(certKey=self.certificate.path_key), "holds no certificate")
        self.wrong(self.describe(privateKey=self.certificate.path_cert), "holds no private key")
        other = self.ca.issue(dns=["localhost"])
        self.wrong(self.describe(privateKey=other.path_key), "is not that of the certificate")
        damaged = Path(self.mktemp())
        damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        self.wrong(self.describe(certKey=str(damaged)), "is damaged")

    def test_a_key_with_a_password_is_not_asked_for(self) -> None:
        locked = Path(self.mktemp())
        locked.write_bytes(
            self.certificate.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"a password"),
            )
        )
        self.wrong(self.describe(privateKey=str(locked)), "has a password")


class CertificateFilesTests(LogsMixin):
    def setUp(self) -> None:
        self.clock = Clock()
        self.ca = TestCA(self.mktemp(), parent=None)
        self.certificate = self.ca.issue(dns=["localhost"])

    def files(self, chain: str | None = None) -> CertificateFiles:
        return CertificateFiles(
            self.certificate.path_cert,
            self.certificate.path_key,
            chain,
            make_context=server_context,
            seconds=self.clock.seconds,
        )

    def put(self, other: Certificate, *, key: bool = True) -> None:
        shutil.copy(other.path_cert, self.certificate.path_cert)
        if key:
            shutil.copy(other.path_key, self.certificate.path_key)

    def test_the_same_until_they_change(self) -> None:
        files = self.files()
        context = files.context()
        self.clock.advance(CHECK_EVERY)
        self.assertIs(files.context(), context)
        captured = self.capture_logs()
        self.put(self.ca.issue(dns=["localhost"]))
        self.clock.advance(CHECK_EVERY - 1)
        self.assertIs(files.context(), context)
        self.clock.advance(1)
        renewed = files.context()
        self.assertIsNot(renewed, context)
        self.assertLogged(captured, "[tls] the certificate")
        self.assertIs(files.context(), renewed)

    def test_a_broken_one_is_told_once_and_not_served(self) -> None:
        files = self.files()
        context = files.context()
        captured = self.capture_logs()
        other = self.ca.issue(dns=["localhost"])
        self.put(other, key=False)
        for _ in range(3):
            self.clock.advance(CHECK_EVERY)
            self.assertIs(files.context(), context)
        self.assertEqual(len(captured.lines), 1)
        self.assertIn("is not that of", captured.lines[0])
        os.unlink(self.certificate.path_cert)
        self.clock.advance(CHECK_EVERY)
        self.assertIs(files.context(), context)
        self.put(other)
        self.clock.advance(CHECK_EVERY)
        self.assertIsNot(files.context(), context)

    def test_the_chain_is_sent(self) -> None:
        middle = TestCA(self.mktemp(), "middle", parent=self.ca)
        self.certificate = middle.issue(dns=["localhost"])
        for chain in (None, self.ca.path_cert):
            context = self.files(chain).context()
            self.assertEqual(sent_certificates(context), 2 if chain is None else 3)


def sent_certificates(context: ssl.SSLContext) -> int:
    """How many certificates a server with `context` sends: from a handshake of TLS 1.2."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    for side in (
        client_context.wrap_bio(ssl.MemoryBIO(), to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    ):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return to_client.read().count(b"\x06\x03\x55\x04\x03") // 2  # commonName: subject and issuer
