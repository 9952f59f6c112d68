"""Client TLS: real handshakes over real sockets, and every certificate that must be refused."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import SkipTest

from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from jetcamer.net import tls
from jetcamer.net.tls import ClientTrust, TLSFailed
from tests.support.certs import Certificate, TestCA, san_der, self_signed

WORD = b"a word from the client"
PAST = datetime(2021, 5, 6, tzinfo=UTC)


class Listener(Protocol):
    """The server's side: keeps what it was told."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.received += data


@implementer(IHandshakeListener)
class Client(Protocol):
    """Writes at once, as HTTP clients do, and tells how the handshake ended."""

    def __init__(self) -> None:
        self.handshake: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(WORD)

    def handshakeCompleted(self) -> None:
        self.handshake.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        self.gone.callback(None)
        if not self.handshake.called:
            self.handshake.errback(reason)


class HandshakeTests(TestCase):
    def setUp(self) -> None:
        self.ca = TestCA(self.mktemp())
        self.trust = ClientTrust(ca_file=self.ca.path_cert)
        self.server = Factory.forProtocol(Listener)
        self.server.noisy = False
        self.server.received = b""

    async def handshake(
        self,
        host: str,
        served: Any,
        trust: ClientTrust | None = None,
        server: Factory | None = None,
    ) -> None:
        """Shake hands with a server on loopback that the client calls `host`."""
        ipv6 = ":" in host
        interface = "::1" if ipv6 else "127.0.0.1"
        factory: Any = server or self.server
        if served is not None:
            options = served.server_context() if isinstance(served, Certificate) else served
            factory = TLSMemoryBIOFactory(options, False, factory)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface=interface)
        client = Client()
        creator = (trust or self.trust).connection_creator(host)
        try:
            endpoint = TCP6ClientEndpoint if ipv6 else TCP4ClientEndpoint
            await endpoint(reactor, interface, port.getHost().port).connect(
                TLSMemoryBIOFactory(creator, True, Factory.forProtocol(lambda: client))
            )
            try:
                await client.handshake
            finally:
                if not client.gone.called:
                    client.transport.loseConnection()
                await client.gone
        finally:
            await port.stopListening()

    async def assert_refused(self, words: str, host: str, *args: Any, **kwargs: Any) -> None:
        with self.assertRaises(TLSFailed) as caught:
            await self.handshake(host, *args, **kwargs)
        self.assertEqual(str(caught.exception), words)
        self.assertEqual(self.server.received, b"", "nothing may be written to a refused server")

    # The ones that must pass.

    async def test_right_name(self) -> None:
        await self.handshake("hub.example", self.ca.issue(dns=["other.example", "hub.example"]))
        self.assertEqual(self.server.received, WORD)

    async def test_right_name_by_wildcard(self) -> None:
        await self.handshake("eu.hub.example", self.ca.issue(dns=["*.hub.example"]))

    async def test_case_and_final_dot_of_the_name_do_not_matter(self) -> None:
        await self.handshake("Hub.Example.", self.ca.issue(dns=["hub.EXAMPLE"]))

    async def test_right_ipv4_address(self) -> None:
        await self.handshake("127.0.0.1", self.ca.issue(ips=["10.0.0.1", "127.0.0.1"]))

    async def test_right_ipv6_address(self) -> None:
        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
        except OSError:
            raise SkipTest("there is no IPv6 loopback here") from None
        await self.handshake("::1", self.ca.issue(ips=["::1"]))

    async def test_intermediate_authority(self) -> None:
        between = TestCA(self.mktemp(), "between", parent=self.ca)
        await self.handshake("hub.example", between.issue(dns=["hub.example"]))

    async def test_self_signed_certificate_that_is_trusted_itself(self) -> None:
        own = self_signed(self.mktemp(), dns=["hub.example"])
        await self.handshake("hub.example", own, ClientTrust(ca_file=own.path_cert))

    # The ones that must not.

    async def test_no_san(self) -> None:
        await self.assert_refused(
            "the certificate names no host (it has no subjectAltName)",
            "hub.example",
            self.ca.issue(common_name="hub.example"),
        )

    async def test_malformed_san_address_of_three_bytes(self) -> None:
        certificate = self.ca.issue(raw_san=san_der((2, b"hub.example"), (7, b"\x7f\x00\x00")))
        with self.assertRaises(TLSFailed) as caught:
            await self.handshake("hub.example", certificate)
        self.assertIn("the certificate's subjectAltName cannot be read", str(caught.exception))
        self.assertEqual(self.server.received, b"")

    async def test_malformed_san_name_that_is_not_ascii(self) -> None:
        certificate = self.ca.issue(raw_san=san_der((2, b"hub.example"), (2, b"h\xff\xfe.example")))
        with self.assertRaises(TLSFailed) as caught:
            await self.handshake("hub.example", certificate)
        self.assertIn("cannot be read", str(caught.exception))

    async def test_malformed_san_that_is_no_der(self) -> None:
        with self.assertRaises(TLSFailed):
            await self.handshake("hub.example", self.ca.issue(raw_san=b"\x30\x7fhub.example"))
        self.assertEqual(self.server.received, b"")

    async def test_two_wildcards(self) -> None:
        certificate = self.ca.issue(raw_san=san_der((2, b"*.*.example"), (2, b"a.hub.example")))
        with self.assertRaises(TLSFailed) as caught:
            await self.handshake("a.hub.example", certificate)
        self.assertIn("contains too many wildcards", str(caught.exception))
        self.assertEqual(self.server.received, b"")

    async def test_wrong_name(self) -> None:
        await self.assert_refused(
            "the certificate is not valid for hub.example"
            " (it names DNS:a.example, DNS:b.example, IP:10.0.0.1)",
            "hub.example",
            self.ca.issue(dns=["a.example", "b.example"], ips=["10.0.0.1"]),
        )

    async def test_wrong_name_among_many(self) -> None:
        await self.assert_refused(
            "the certificate is not valid for hub.example (it names DNS:h0.example,"
            " DNS:h1.example, DNS:h2.example, DNS:h3.example, DNS:h4.example and 35 more)",
            "hub.example",
            self.ca.issue(dns=[f"h{n}.example" for n in range(40)]),
        )

    async def test_wrong_ip(self) -> None:
        await self.assert_refused(
            "the certificate is not valid for IP address 127.0.0.1 (it names IP:127.0.0.2)",
            "127.0.0.1",
            self.ca.issue(ips=["127.0.0.2"]),
        )

    async def test_dns_san_for_an_ip_url(self) -> None:
        await self.assert_refused(
            "the certificate is not valid for IP address 127.0.0.1 (it names DNS:hub.example)",
            "127.0.0.1",
            self.ca.issue(dns=["hub.example"]),
        )

    async def test_address_written_as_a_dns_san(self) -> None:
        with self.assertRaises(TLSFailed):
            await self.handshake("127.0.0.1", self.ca.issue(dns=["127.0.0.1", "hub.example"]))
        self.assertEqual(self.server.received, b"")

    async def test_expired(self) -> None:
        await self.assert_refused(
            "certificate expired on 2021-05-06",
            "hub.example",
            self.ca.issue(dns=["hub.example"], not_after=PAST),
        )

    async def test_not_yet_valid(self) -> None:
        future = datetime(2199, 1, 2, tzinfo=UTC)
        await self.assert_refused(
            "certificate is not valid before 2199-01-02; is the clock of this machine right?",
            "hub.example",
            self.ca.issue(dns=["hub.example"], not_before=future, not_after=future.replace(day=9)),
        )

    async def test_expired_authority(self) -> None:
        old = TestCA(self.mktemp(), "old CA", not_after=PAST)
        await self.assert_refused(
            "certificate of the authority CN=old CA expired on 2021-05-06",
            "hub.example",
            old.issue(dns=["hub.example"]),
            ClientTrust(ca_file=old.path_cert),
        )

    async def test_self_signed(self) -> None:
        await self.assert_refused(
            "self-signed certificate (CN=selfmade); wsCaFile does not hold it",
            "hub.example",
            self_signed(self.mktemp(), dns=["hub.example"]),
        )

    async def test_unknown_authority(self) -> None:
        stranger = TestCA(self.mktemp(), "Stranger\n[ws] all is well")
        await self.assert_refused(
            "unknown certificate authority (issuer CN=Stranger?[ws] all is well);"
            " wsCaFile does not hold it",
            "hub.example",
            stranger.issue(dns=["hub.example"]),
        )

    async def test_authority_made_anew_under_the_same_name(self) -> None:
        await self.assert_refused(
            "CN=JetCamer test CA, as it is trusted here, did not sign the certificate;"
            " is wsCaFile out of date?",
            "hub.example",
            TestCA(self.mktemp()).issue(dns=["hub.example"]),
        )

    async def test_unknown_authority_that_sends_itself_along(self) -> None:
        root = TestCA(self.mktemp(), "other root")
        between = TestCA(self.mktemp(), "between", parent=root)
        served = between.issue(dns=["hub.example"])
        options = served.server_context()
        options.extraCertChain.append(SSL.X509.from_cryptography(root.certificate))
        await self.assert_refused(
            "unknown certificate authority (CN=other root); wsCaFile does not hold it",
            "hub.example",
            options,
        )

    async def test_certificate_of_a_client(self) -> None:
        await self.assert_refused(
            "the certificate is not meant for a server",
            "hub.example",
            self.ca.issue(dns=["hub.example"], usage=ExtendedKeyUsageOID.CLIENT_AUTH),
        )

    # The second look.

    async def test_verification_that_never_ran_is_noticed(self) -> None:
        """Were OpenSSL's callback not called, the handshake would still not pass."""
        self.patch(tls, "_verify", lambda *args: True)
        certificate = self.ca.issue(dns=["hub.example"])
        words = "the server's certificate was not verified"
        await self.assert_refused(words, "hub.example", certificate)

    async def test_name_is_checked_again_after_the_handshake(self) -> None:
        judge = tls._VerifiedConnection.judge

        def deaf(connection: Any, *args: Any) -> bool:
            judge(connection, *args)
            connection._refusal = None
            return True

        self.patch(tls._VerifiedConnection, "judge", deaf)
        await self.assert_refused(
            "the certificate is not valid for hub.example (it names DNS:a.example)",
            "hub.example",
            self.ca.issue(dns=["a.example"]),
        )

    def test_no_data_before_the_second_look(self) -> None:
        """Not even OpenSSL's own idea to shake hands when it is given data to send."""
        creator = self.trust.connection_creator("hub.example")
        connection = creator.clientConnectionForTLS(None)
        connection.set_connect_state()
        self.assertRaises(SSL.WantReadError, connection.send, WORD)
        self.assertRaises(SSL.WantReadError, connection.bio_read, 1000)

    async def test_exception_in_the_callback_refuses(self) -> None:
        self.patch(tls._VerifiedConnection, "judge", lambda *args: 1 / 0)
        with self.assertRaises(TLSFailed):
            await self.handshake("hub.example", self.ca.issue(dns=["hub.example"]))
        self.assertEqual(self.server.received, b"")

    async def test_exception_in_the_second_look_refuses(self) -> None:
        self.patch(tls._VerifiedConnection, "get_peer_certificate", lambda *args: 1 / 0)
        await self.assert_refused(
            "the server's certificate was not verified (division by zero)",
            "hub.example",
            self.ca.issue(dns=["hub.example"]),
        )

    # The server's name.

    def served_and_recorded(self, certificate: Certificate) -> tuple[Any, list[bytes | None]]:
        names: list[bytes | None] = []
        return certificate.server_context(contextForServerName=names.append), names

    async def test_sni_carries_the_name(self) -> None:
        served, names = self.served_and_recorded(self.ca.issue(dns=["hub.example"]))
        await self.handshake("hub.example.", served)
        self.assertEqual(names, [b"hub.example"])

    async def test_sni_carries_no_address(self) -> None:
        served, names = self.served_and_recorded(self.ca.issue(ips=["127.0.0.1"]))
        await self.handshake("127.0.0.1", served)
        self.assertEqual([name for name in names if name], [])

    async def test_server_name_replaces_the_host(self) -> None:
        served, names = self.served_and_recorded(self.ca.issue(dns=["hub.example"]))
        trust = ClientTrust(self.ca.path_cert, server_name="hub.example")
        await self.handshake("127.0.0.1", served, trust)
        self.assertEqual(names, [b"hub.example"])

    async def test_renewed_authority(self) -> None:
        """Its file is looked at before each connection, not only when the daemon starts."""
        renewed = TestCA(self.mktemp(), "renewed")
        before, after = (ca.issue(dns=["hub.example"]) for ca in (self.ca, renewed))
        await self.handshake("hub.example", before)
        Path(renewed.path_cert).replace(self.ca.path_cert)
        await self.handshake("hub.example", after)
        words = "unknown certificate authority (issuer CN=JetCamer test CA);"
        self.server.received = b""
        await self.assert_refused(f"{words} wsCaFile does not hold it", "hub.example", before)

    async def test_authority_whose_file_is_lost_stays_trusted(self) -> None:
        for spoil in (
            lambda path: path.write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n"),
            lambda path: path.write_bytes(b""),
            lambda path: path.unlink(),
        ):
            spoil(Path(self.ca.path_cert))
            await self.handshake("hub.example", self.ca.issue(dns=["hub.example"]))

    async def test_server_name_that_the_certificate_lacks(self) -> None:
        await self.assert_refused(
            "the certificate is not valid for hub.example (it names IP:127.0.0.1)",
            "127.0.0.1",
            self.ca.issue(ips=["127.0.0.1"]),
            ClientTrust(self.ca.path_cert, server_name="hub.example"),
        )

    async def test_server_name_may_be_an_address(self) -> None:
        served, names = self.served_and_recorded(self.ca.issue(ips=["10.9.8.7"]))
        trust = ClientTrust(self.ca.path_cert, server_name="10.9.8.7")
        await self.handshake("hub.example", served, trust)
        self.assertEqual([name for name in names if name], [])

    # Servers that speak something else.

    def speaking(self, answer: bytes) -> Factory:
        class Speaker(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(answer)

        factory = Factory.forProtocol(Speaker)
        factory.noisy = False
        return factory

    async def test_plain_http(self) -> None:
        await self.assert_refused(
            "the server does not speak TLS on this port",
            "hub.example",
            None,
            server=self.speaking(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        )

    async def test_alert(self) -> None:
        await self.assert_refused(
            "the server refused the handshake (handshake failure)",
            "hub.example",
            None,
            server=self.speaking(bytes.fromhex("15030300020228")),
        )

    async def test_close_notify_during_the_handshake(self) -> None:
        """Twisted alone trips over this one, with a traceback."""
        with self.assertRaises(TLSFailed):
            await self.handshake(
                "hub.example", None, server=self.speaking(bytes.fromhex("15030300020100"))
            )

    def old_server(self, certificate: Certificate) -> Any:
        """A server that can TLS 1.1 at best, however weak its ciphers must be for that."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_file(certificate.path_cert)
        context.use_privatekey_file(certificate.path_key)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")

        @implementer(IOpenSSLServerConnectionCreator)
        class Creator:
            def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
                return SSL.Connection(context, None)

        return Creator()

    async def test_tls_1_1_is_too_old(self) -> None:
        self.patch(tls, "_CIPHERS", b"ALL:@SECLEVEL=0")  # the ciphers alone would forbid it
        await self.assert_refused(
            "the server refused the handshake (protocol version)",
            "hub.example",
            self.old_server(self.ca.issue(dns=["hub.example"])),
        )

    async def test_tls_1_2_will_do(self) -> None:
        served = self.ca.issue(dns=["hub.example"]).server_context(
            lowerMaximumSecurityTo=ssl.TLSVersion.TLSv1_2
        )
        await self.handshake("hub.example", served)
        self.assertEqual(self.server.received, WORD)


class ClientTrustTests(SynchronousTestCase):
    def folder(self) -> Path:
        folder = Path(self.mktemp())
        folder.mkdir()
        return folder

    def test_missing_ca_file(self) -> None:
        with self.assertRaises(ValueError) as caught:
            ClientTrust(ca_file="/nowhere/ca.pem")
        self.assertEqual(
            str(caught.exception), "/nowhere/ca.pem cannot be read: No such file or directory"
        )

    def test_ca_file_that_is_a_folder(self) -> None:
        folder = str(self.folder())
        with self.assertRaises(ValueError) as caught:
            ClientTrust(ca_file=folder)
        self.assertEqual(str(caught.exception), f"{folder} cannot be read: Is a directory")

    def test_ca_file_of_garbage(self) -> None:
        path = self.folder() / "ca.pem"
        path.write_bytes(b"\xff\x00 no certificate")
        with self.assertRaises(ValueError) as caught:
            ClientTrust(ca_file=str(path))
        self.assertEqual(str(caught.exception), f"{path} holds no certificate in PEM form")

    def test_ca_file_with_a_damaged_certificate(self) -> None:
        ca = TestCA(self.mktemp())
        lines = Path(ca.path_cert).read_text().splitlines()
        lines[2] = lines[2][::-1]
        path = self.folder() / "ca.pem"
        path.write_text(Path(ca.path_cert).read_text() + "\n".join(lines))
        with self.assertRaises(ValueError) as caught:
            ClientTrust(ca_file=str(path))
        self.assertEqual(str(caught.exception), f"{path} holds a damaged certificate")

    def test_ca_file_with_a_nul_in_its_name(self) -> None:
        with self.assertRaises(ValueError) as caught:
            ClientTrust(ca_file="/etc/\0")
        self.assertEqual(len(str(caught.exception).splitlines()), 1)

    def test_server_name_that_is_none(self) -> None:
        for name in ("", "a b", "hub..example", "12345", "[::1]", "hub.example:443"):
            with self.subTest(name=name), self.assertRaises(ValueError):
                ClientTrust(server_name=name)

    def test_roots_are_loaded_once_and_late(self) -> None:
        loads: list[object] = []
        self.patch(tls, "_add_platform_roots", loads.append)
        trust = ClientTrust()
        self.assertEqual(loads, [])
        for host in ("a.example", "b.example", "10.0.0.1"):
            trust.connection_creator(host)
        self.assertEqual(len(loads), 1)


class ChangedFileTests(SynchronousTestCase):
    """A `ca_file` that changes under a running daemon."""

    def setUp(self) -> None:
        self.patch(tls, "_add_platform_roots", lambda context: None)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.path = folder / "ca.pem"
        self.pems = [Path(TestCA(self.mktemp(), f"CA {n}").path_cert).read_bytes() for n in "abc"]
        self.path.write_bytes(self.pems[0])
        self.made: list[int] = []
        make = tls._make_context

        def make_context(roots: list[Any]) -> SSL.Context:
            self.made.append(len(roots))
            return make(roots)

        self.patch(tls, "_make_context", make_context)
        self.trust = ClientTrust(ca_file=str(self.path))

    def said(self) -> list[tuple[str, str]]:
        """Connect once; what the log tells."""
        with capturedLogs() as events:
            self.trust.connection_creator("hub.example")
        return [(event["log_level"].name, formatEvent(event)) for event in events]

    def test_unchanged(self) -> None:
        for _ in range(3):
            self.assertEqual(self.said(), [])
        self.assertEqual(self.made, [1])

    def test_changed(self) -> None:
        self.said()
        self.path.write_bytes(b"".join(self.pems))
        words = f"{self.path} has changed: its 3 certificates are trusted"
        self.assertEqual(self.said(), [("info", words)])
        self.assertEqual(self.said(), [])
        self.assertEqual(self.made, [1, 3])

    def test_changed_in_nothing_but_its_bytes(self) -> None:
        """As long as before, and as old by its time stamp: ``cp -p``."""
        self.said()
        status = self.path.stat()
        other = self.pems[0].splitlines()
        other[1], other[2] = other[2], other[1]
        self.path.write_bytes(b"\n".join(other) + b"\n")
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assertEqual(self.path.stat().st_size, status.st_size)
        ((level, _),) = self.said()
        self.assertEqual(level, "warn")

    def test_changed_before_the_first_use(self) -> None:
        self.path.write_bytes(b"".join(self.pems))
        self.said()
        self.assertEqual(self.made, [3])

    def test_unusable_for_a_while(self) -> None:
        """One warning, whatever it is that is wrong, and another one the next time."""
        self.said()
        for made in ([1, 2], [1, 2, 2]):
            self.path.write_bytes(b"\xff no certificate")
            self.assertEqual(
                self.said(),
                [
                    (
                        "warn",
                        f"{self.path} holds no certificate in PEM form;"
                        " those read before stay trusted",
                    )
                ],
            )
            self.path.unlink()
            self.assertEqual(self.said(), [])
            self.path.mkdir()
            self.assertEqual(self.said(), [])
            self.path.rmdir()
            self.path.write_bytes(b"".join(self.pems[:2]))
            ((level, _),) = self.said()
            self.assertEqual(level, "info")
            self.assertEqual(self.made, made)

    def test_unreadable_until_its_mode_is_mended(self) -> None:
        """The file is then no other than the one that could not be read."""
        self.said()
        read = tls._read_certificates

        def denied(path: str) -> list[Any]:
            raise ValueError(f"{path} cannot be read: Permission denied")

        self.patch(tls, "_read_certificates", denied)
        self.path.write_bytes(b"".join(self.pems))
        ((level, _),) = self.said()
        self.assertEqual((level, self.made), ("warn", [1]))
        self.patch(tls, "_read_certificates", read)
        ((level, _),) = self.said()
        self.assertEqual((level, self.made), ("info", [1, 3]))

    def test_away_with_its_folder_for_a_while(self) -> None:
        """As a file system that is mounted late: warned of each time, and not read again."""
        self.said()
        folder = self.path.parent
        for _ in range(2):
            folder.rename(folder.with_suffix(".away"))
            ((level, words),) = self.said()
            self.assertEqual(level, "warn")
            self.assertIn("cannot be read: No such file or directory", words)
            folder.with_suffix(".away").rename(folder)
            self.assertEqual(self.said(), [])
        self.assertEqual(self.made, [1])


class PlatformRootsTests(SynchronousTestCase):
    """Which of file and folder is loaded: what is trusted must not depend on it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.bundle = self.folder / "bundle.crt"
        self.links = self.folder / "links"
        self.links.mkdir()
        self.pems = [Path(TestCA(self.mktemp(), f"CA {n}").path_cert).read_text() for n in "abc"]
        self.bundle.write_text("".join(self.pems))
        for number, pem in enumerate(self.pems):
            (self.links / f"0123456{number}.0").write_text(f"# a comment\n{pem}")

    def loaded(self, **environ: str) -> list[tuple[str, object]]:
        calls: list[tuple[str, object]] = []

        class Context:
            def load_verify_locations(self, cafile: object, capath: object) -> None:
                calls.append(("folder", capath))

            def set_default_verify_paths(self) -> None:
                calls.append(("default", None))

        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            if name in os.environ:
                self.patch(os, "environ", {k: v for k, v in os.environ.items() if k != name})
        self.patch(os, "environ", {**os.environ, **environ})
        tls._add_platform_roots(Context())
        return calls

    def test_folder_that_holds_all(self) -> None:
        self.assertEqual(
            self.loaded(SSL_CERT_FILE=str(self.bundle), SSL_CERT_DIR=str(self.links)),
            [("folder", str(self.links))],
        )

    def test_folder_that_lacks_one(self) -> None:
        with self.bundle.open("a") as bundle:
            bundle.write(Path(TestCA(self.mktemp(), "appended by hand").path_cert).read_text())
        self.assertEqual(
            self.loaded(SSL_CERT_FILE=str(self.bundle), SSL_CERT_DIR=str(self.links)),
            [("default", None)],
        )

    def test_file_that_is_not_a_link_does_not_count(self) -> None:
        (self.links / "01234560.0").rename(self.links / "a.pem")
        self.assertEqual(
            self.loaded(SSL_CERT_FILE=str(self.bundle), SSL_CERT_DIR=str(self.links)),
            [("default", None)],
        )

    def test_only_one_variable(self) -> None:
        """A file named alone restricts the trust to it; no folder is added."""
        self.assertEqual(self.loaded(SSL_CERT_FILE=str(self.bundle)), [("default", None)])
        self.assertEqual(self.loaded(SSL_CERT_DIR=str(self.links)), [("default", None)])

    def test_missing_bundle(self) -> None:
        self.assertEqual(
            self.loaded(SSL_CERT_FILE="/nowhere.crt", SSL_CERT_DIR=str(self.links)),
            [("default", None)],
        )
