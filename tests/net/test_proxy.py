"""Proxies: which one, what is said to it, and a real one as a process."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.net.endpoint import ConnectFailed, WebSocketEndpoint
from jetcamer.net.proxy import Proxy, Tunnel, proxy_from_environment
from jetcamer.net.tls import ClientTrust
from tests.net.peers import PeerFactory, ProxyProcess, Receiver, the_deadline
from tests.support.case import ProcessCase
from tests.support.certs import TestCA

PASSWORD = "pa:ss @wörd%"
QUOTED = "pa%3Ass%20%40w%C3%B6rd%25"


class ParseTests(SynchronousTestCase):
    def test_host_and_port(self) -> None:
        self.assertEqual(Proxy.parse("http://proxy.example:3128"), Proxy("proxy.example", 3128))
        self.assertEqual(Proxy.parse("HTTP://Proxy.Example:3128/"), Proxy("proxy.example", 3128))
        self.assertEqual(Proxy.parse("http://10.0.0.1"), Proxy("10.0.0.1", 80))
        self.assertEqual(Proxy.parse("http://[::1]:8080").authority, "[::1]:8080")

    def test_credentials_are_decoded(self) -> None:
        proxy = Proxy.parse(f"http://us%65r:{QUOTED}@proxy.example:3128")
        self.assertEqual((proxy.username, proxy.password), ("user", PASSWORD))

    def test_user_name_alone(self) -> None:
        proxy = Proxy.parse("http://user@proxy.example")
        self.assertEqual((proxy.username, proxy.password), ("user", ""))

    def test_password_is_not_in_the_repr(self) -> None:
        proxy = Proxy.parse(f"http://user:{QUOTED}@proxy.example:3128")
        self.assertEqual(repr(proxy), "Proxy(user:…@proxy.example:3128)")
        self.assertEqual(f"{proxy}", repr(proxy))
        self.assertEqual(repr(Proxy("h", 1)), "Proxy(h:1)")

    def test_what_is_no_proxy(self) -> None:
        for url in (
            "",
            "proxy.example:3128",
            "https://user:secret@proxy.example:3128",
            "socks5://user:secret@proxy.example:1080",
            "http://",
            "http://user:secret@",
            "http://user:secret@:3128",
            "http://user:secret@proxy.example:0",
            "http://user:secret@proxy.example:port",
            "http://user:secret@proxy.example:70000",
            "http://user:secret",
            "http://user:secret@proxy.example/path",
            "http://user:secret@proxy.example/?q",
            "http://user:secret@proxy.example/#f",
            "http://user:secret@proxy.example\r\nX: y",
            "http://user:secret@[::1",
            "http://us%3Aer:secret@proxy.example",
        ):
            with self.subTest(url=url):
                with self.assertRaises(ValueError) as caught:
                    Proxy.parse(url)
                self.assertNotIn("secret", str(caught.exception))
                self.assertEqual(len(str(caught.exception).splitlines()), 1)
                self.assertIsNone(caught.exception.__cause__)

    def test_request(self) -> None:
        self.assertEqual(
            Proxy("p", 1).connect_request("[::1]:443"),
            b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
        )
        self.assertEqual(
            Proxy("p", 1, "Aladdin", "open sesame").connect_request("hub.example:443"),
            b"CONNECT hub.example:443 HTTP/1.1\r\nHost: hub.example:443\r\n"
            b"Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n",
        )


class EnvironmentTests(SynchronousTestCase):
    def found(self, url: str = "wss://hub.example/agent", **environ: str) -> str | None:
        proxy = proxy_from_environment(url, environ)
        return None if proxy is None else proxy.authority

    def test_nothing_set(self) -> None:
        self.assertIsNone(self.found())
        self.assertIsNone(self.found(HTTPS_PROXY="", https_proxy=""))

    def test_scheme_decides(self) -> None:
        both = {"HTTPS_PROXY": "http://s:1", "HTTP_PROXY": "http://p:2"}
        self.assertEqual(self.found("wss://hub.example/", **both), "s:1")
        self.assertEqual(self.found("ws://hub.example/", **both), "p:2")
        self.assertIsNone(self.found("ws://hub.example/", HTTPS_PROXY="http://s:1"))

    def test_lower_case(self) -> None:
        self.assertEqual(self.found(https_proxy="http://low:1"), "low:1")
        self.assertEqual(self.found(https_proxy="http://low:1", HTTPS_PROXY="http://up:1"), "up:1")
        self.assertEqual(self.found(https_proxy="http://low:1", HTTPS_PROXY=""), "low:1")
        self.assertIsNone(self.found(https_proxy="http://low:1", no_proxy="*"))

    def test_without_a_scheme(self) -> None:
        self.assertEqual(self.found(HTTPS_PROXY="proxy.example:3128"), "proxy.example:3128")

    def test_bad_value_names_the_variable_and_hides_its_content(self) -> None:
        for name in ("HTTPS_PROXY", "https_proxy"):
            with self.assertRaises(ValueError) as caught:
                self.found(**{name: "socks5://user:secret@h:1"})
            self.assertEqual(
                str(caught.exception),
                f"{name}: only a proxy whose URL begins with http:// can be used",
            )

    def proxied(self, host: str, no_proxy: str) -> bool:
        url = f"wss://{host}/agent"
        return self.found(url, HTTPS_PROXY="http://p:1", NO_PROXY=no_proxy) is not None

    def test_no_proxy_as_go_reads_it(self) -> None:
        for host, no_proxy, proxied in (
            ("hub.example", "", True),
            ("hub.example", "*", False),
            ("10.0.0.1", "*", False),
            # names
            ("hub.example", "hub.example", False),
            ("hub.example.", "hub.example", False),
            ("hub.example", "HUB.Example", False),
            ("hub.example", " other.example , hub.example ", False),
            ("hub.example", "other.example hub.example", False),
            ("eu.hub.example", "hub.example", False),
            ("githubhub.example", "hub.example", True),
            ("hub.example", "eu.hub.example", True),
            ("eu.hub.example", ".hub.example", False),
            ("eu.hub.example", "*.hub.example", False),
            ("hub.example", ".hub.example", True),
            ("hub.example", ",,", True),
            ("hub.example", ".", True),
            # ports
            ("hub.example", "hub.example:443", False),
            ("hub.example:8443", "hub.example:443", True),
            ("hub.example:8443", "hub.example:8443", False),
            ("hub.example:8443", "hub.example", False),
            # addresses
            ("10.1.2.3", "10.1.2.3", False),
            ("10.1.2.3", "10.1.2.4", True),
            ("10.1.2.3", "10.1.2.3:443", False),
            ("10.1.2.3", "10.1.2.3:80", True),
            ("10.1.2.3", "10.0.0.0/8", False),
            ("10.1.2.3", "10.1.2.3/8", False),
            ("11.1.2.3", "10.0.0.0/8", True),
            ("10.1.2.3", "2.3", True),
            ("[2001:db8::1]", "2001:db8::1", False),
            ("[2001:db8::1]", "2001:DB8:0::1", False),
            ("[2001:db8::1]", "[2001:db8::1]", False),
            ("[2001:db8::1]", "[2001:db8::1]:443", False),
            ("[2001:db8::1]", "[2001:db8::1]:80", True),
            ("[2001:db8::1]", "2001:db8::/32", False),
            ("[2001:db8::1]", "10.0.0.0/8", True),
            ("10.1.2.3", "not/a/network", True),
            ("10.1.2.3", "10.0.0.0/99", True),
            # loopback is never proxied
            ("localhost", "", False),
            ("127.0.0.1", "", False),
            ("127.9.9.9:8080", "", False),
            ("[::1]", "", False),
        ):
            with self.subTest(host=host, no_proxy=no_proxy):
                self.assertEqual(self.proxied(host, no_proxy), proxied)


class Inner(Protocol):
    """What speaks through the tunnel: keeps what it is given."""

    received: bytes | None = None
    lost = False

    def connectionMade(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class TunnelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.inner = Inner()
        self.refusals: list[ConnectFailed] = []
        self.losses: list[Failure] = []
        self.tunnel = Tunnel(
            Proxy("10.0.0.1", 3128),
            "hub.example:443",
            self.inner,
            self.refusals.append,
            self.losses.append,
        )
        self.tunnel.makeConnection(StringTransport())

    def test_every_way_to_cut_the_answer(self) -> None:
        answer = b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\n\x16\x03first bytes\r\n\r\n"
        for cut in range(len(answer) + 1):
            with self.subTest(cut=cut):
                self.setUp()
                self.tunnel.dataReceived(answer[:cut])
                self.tunnel.dataReceived(answer[cut:])
                self.assertEqual(self.inner.received, b"\x16\x03first bytes\r\n\r\n")
                self.assertIs(self.inner.transport, self.tunnel.transport)

    def test_byte_by_byte(self) -> None:
        for byte in b"HTTP/1.1 299 Fine\r\n\r\nrest":
            self.tunnel.dataReceived(bytes([byte]))
        self.assertEqual(self.inner.received, b"rest")
        self.assertEqual(self.refusals, [])

    def assert_refused(self, words: str) -> None:
        (refusal,) = self.refusals
        self.assertEqual(str(refusal), f"proxy 10.0.0.1:3128: {words}")
        self.assertEqual(refusal.kind, "proxy")
        self.tunnel.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertIsNone(self.inner.received)
        self.tunnel.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(self.inner.lost)
        self.assertEqual(len(self.losses), 1)
        self.assertEqual(len(self.refusals), 1)

    def test_no(self) -> None:
        self.tunnel.dataReceived(b"HTTP/1.1 403 Keep\x1bout\r\n\r\n")
        self.assert_refused("it answered 403 Keep?out to CONNECT hub.example:443")

    def test_endless_head(self) -> None:
        self.tunnel.dataReceived(b"HTTP/1.1 200 OK\r\n")
        fed = 0
        while not self.refusals:
            self.tunnel.dataReceived(b"X: " + b"y" * 1021 + b"\r\n")
            fed += 1026
            self.assertLess(fed, 20000)
        self.assert_refused("the head of its answer is longer than 16384 bytes")

    def test_head_of_just_the_limit(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nX: "
        self.tunnel.dataReceived(head + b"y" * (16384 - len(head) - 4) + b"\r\n\r\n")
        self.assertEqual(self.inner.received, b"")

    def test_not_http(self) -> None:
        self.tunnel.dataReceived(b"SSH-2.0-OpenSSH\r\n")
        self.assert_refused(r"it sent 'SSH-2.0-OpenSSH??' where HTTP was expected")

    def test_not_a_status(self) -> None:
        self.tunnel.dataReceived(b"HTTP/1.1 OK\r\n\r\n")
        self.assert_refused("it sent 'HTTP/1.1 OK' where a status was expected")

    def test_end_before_the_answer(self) -> None:
        self.tunnel.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(self.losses), 1)
        self.assertFalse(self.inner.lost)

    def test_end_of_an_open_tunnel(self) -> None:
        self.tunnel.dataReceived(b"HTTP/1.1 200 OK\r\n\r\n")
        self.tunnel.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.inner.lost)
        self.assertEqual(self.losses, [])


class ProxyProcessTests(ProcessCase):
    """An agent's way through `connect_proxy.py`, in a process of its own."""

    async def setUp(self) -> None:
        await super().setUp()
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    async def proxy(self, *options: str) -> ProxyProcess:
        process = ProxyProcess(reactor, *options)
        self.addCleanup(process.stop)
        return await process.start()

    def serve(self, *, tls: bool) -> tuple[str, ClientTrust]:
        self.factory = PeerFactory(reactor)
        if tls:
            ca = TestCA(self.mktemp())
            served = ca.issue(ips=["127.0.0.1"]).server_context()
            port = reactor.listenSSL(0, self.factory, served, interface="127.0.0.1")
            trust = ClientTrust(ca.path_cert)
        else:
            port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
            trust = ClientTrust()
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        return f"{'wss' if tls else 'ws'}://127.0.0.1:{self.port}/agent", trust

    async def talk(self, url: str, trust: ClientTrust, proxy: Proxy) -> None:
        """Open, exchange messages big and small, close."""
        endpoint = WebSocketEndpoint(reactor, url, trust=trust, proxy=proxy)
        receiver = await endpoint.connect(Receiver)
        self.assertEqual(
            receiver.connection.peer, f"127.0.0.1:{self.port} (through the proxy {proxy.authority})"
        )
        self.factory.on_message = lambda peer, data: peer.sendMessage(data)
        receiver.connection.send(b"small")
        receiver.connection.send(b"big" * 100_000)
        self.assertEqual(await receiver.received(2), [b"small", b"big" * 100_000])
        receiver.connection.close()
        self.assertTrue((await receiver.gone).clean)

    def assert_secret_kept(self, failure: Exception | None = None) -> None:
        said = "".join(f"{formatEvent(event)} {event!r}" for event in self.events)
        for secret in (PASSWORD, QUOTED, "dXNlcjpwYTpzcyBAd8O2cmQl"):
            self.assertNotIn(secret, said)
            self.assertNotIn(secret, repr(failure))

    async def test_the_process_says_nothing_of_clients_that_leave(self) -> None:
        """What it prints beside its requests would hide what a test is about."""
        process = await self.proxy()
        far = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(far.close)
        authority = f"127.0.0.1:{far.getsockname()[1]}"
        for request in (b"GET\r\n\r\n", f"CONNECT {authority} HTTP/1.1\r\n\r\n".encode()):
            client = socket.create_connection(("127.0.0.1", process.port))
            self.addCleanup(client.close)
            client.sendall(request)
        await process.wait_for(lambda line: line.startswith(f"CONNECT {authority} "))
        process.signal("INT")
        await process.when_ended()
        self.assertEqual(process.stderr, "")

    async def test_tunnel_to_tls(self) -> None:
        process = await self.proxy()
        url, trust = self.serve(tls=True)
        await self.talk(url, trust, Proxy.parse(f"http://127.0.0.1:{process.port}"))
        self.assertEqual(process.requests, [f"CONNECT 127.0.0.1:{self.port} authorization=no"])

    async def test_tunnel_without_tls(self) -> None:
        process = await self.proxy()
        url, trust = self.serve(tls=False)
        await self.talk(url, trust, Proxy("127.0.0.1", process.port))
        self.assertEqual(len(process.requests), 1)

    async def test_answer_byte_by_byte(self) -> None:
        process = await self.proxy("--bytewise")
        url, trust = self.serve(tls=True)
        await self.talk(url, trust, Proxy("127.0.0.1", process.port))

    async def test_credentials(self) -> None:
        process = await self.proxy("--user", "user", "--password", PASSWORD)
        url, trust = self.serve(tls=True)
        proxy = Proxy.parse(f"http://user:{QUOTED}@127.0.0.1:{process.port}")
        await self.talk(url, trust, proxy)
        self.assertEqual(process.requests, [f"CONNECT 127.0.0.1:{self.port} authorization=yes"])
        self.assert_secret_kept()

    async def failure(self, proxy: Proxy) -> ConnectFailed:
        url, trust = self.serve(tls=True)
        endpoint = WebSocketEndpoint(reactor, url, trust=trust, proxy=proxy)
        with self.assertRaises(ConnectFailed) as caught:
            await endpoint.connect(Receiver)
        self.assertEqual(self.factory.connections, [])
        self.assert_secret_kept(caught.exception)
        return caught.exception

    async def assert_words(self, process: ProxyProcess, kind: str, words: str) -> None:
        failure = await self.failure(Proxy("127.0.0.1", process.port))
        self.assertEqual(str(failure), f"proxy 127.0.0.1:{process.port}: {words}")
        self.assertEqual((failure.kind, failure.phase), (kind, "proxy CONNECT"))

    async def test_credentials_missing(self) -> None:
        process = await self.proxy("--user", "user", "--password", PASSWORD)
        failure = await self.failure(Proxy("127.0.0.1", process.port))
        self.assertEqual(
            str(failure),
            f"proxy 127.0.0.1:{process.port}: it answered 407 Proxy Authentication Required"
            f" to CONNECT 127.0.0.1:{self.port}; it wants a user name and password",
        )

    async def test_credentials_wrong(self) -> None:
        process = await self.proxy("--user", "user", "--password", "another")
        failure = await self.failure(Proxy("127.0.0.1", process.port, "user", PASSWORD))
        self.assertEqual(
            str(failure),
            f"proxy 127.0.0.1:{process.port}: it answered 407 Proxy Authentication Required"
            f" to CONNECT 127.0.0.1:{self.port}; it does not take the user name and password given",
        )

    async def test_refusals(self) -> None:
        for status, phrase in ((403, "Forbidden"), (502, "Bad Gateway"), (503, "Service")):
            process = await self.proxy("--refuse", str(status))
            failure = await self.failure(Proxy("127.0.0.1", process.port))
            self.assertEqual(failure.kind, "proxy")
            self.assertIn(f"it answered {status} {phrase}", str(failure))
            self.assertIsNone(failure.retry_after)

    async def test_proxy_that_speaks_something_else(self) -> None:
        await self.assert_words(
            await self.proxy("--garbage"),
            "proxy",
            "it sent 'SSH-2.0-OpenSSH_9.2??' where HTTP was expected",
        )

    async def test_proxy_that_hangs_up(self) -> None:
        await self.assert_words(
            await self.proxy("--close"),
            "proxy",
            "the connection was closed during the proxy CONNECT",
        )

    async def test_proxy_that_says_nothing(self) -> None:
        process = await self.proxy("--silent")
        url, trust = self.serve(tls=True)
        proxy = Proxy("127.0.0.1", process.port)
        opening = WebSocketEndpoint(reactor, url, trust=trust, proxy=proxy).connect(Receiver)
        await process.wait_for(lambda line: line.startswith("CONNECT "))
        the_deadline().reset(0)
        with self.assertRaises(ConnectFailed) as caught:
            await opening
        self.assertEqual(
            str(caught.exception),
            f"proxy 127.0.0.1:{process.port}: no answer to the proxy CONNECT within 10 s",
        )
        self.assertEqual(caught.exception.kind, "timeout")

    async def test_no_proxy_there(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            failure = await self.failure(Proxy("127.0.0.1", port, "user", PASSWORD))
        self.assertEqual(
            str(failure), f"proxy 127.0.0.1:{port}: connection refused by 127.0.0.1:{port}"
        )
        self.assertEqual(failure.kind, "proxy")

    async def test_name_of_the_proxy_is_not_found(self) -> None:
        failure = await self.failure(Proxy("nohost.invalid", 3128))
        self.assertEqual(str(failure), "proxy nohost.invalid:3128: name not found: nohost.invalid")
        self.assertEqual(failure.kind, "proxy")

    async def test_certificate_is_checked_through_the_tunnel(self) -> None:
        process = await self.proxy()
        url, _ = self.serve(tls=True)
        stranger = ClientTrust(TestCA(self.mktemp(), "stranger").path_cert)
        endpoint = WebSocketEndpoint(
            reactor, url, trust=stranger, proxy=Proxy("127.0.0.1", process.port)
        )
        with self.assertRaises(ConnectFailed) as caught:
            await endpoint.connect(Receiver)
        self.assertEqual((caught.exception.kind, caught.exception.phase), ("tls", "TLS handshake"))
        self.assertIn("unknown certificate authority", str(caught.exception))
