"""The WebSocket server: its limits, byte by byte, and its life as a service."""

from __future__ import annotations

import resource
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

import msgspec
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub import websocket
from jetcamer.hub.admission import Admission, Offenders
from jetcamer.hub.frames import LONGEST
from jetcamer.hub.gateway import Gateway, NoneBanned
from jetcamer.hub.registry import AgentRegistry
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import Connection
from jetcamer.hub.websocket import DEFAULT_LIMITS, AgentWebSocketFactory, Limits
from tests.hub.doubles import NOW, RecordingListener, SealingAgent, keys
from tests.hub.raw_websocket import BINARY, CLOSE, PING, PONG, TEXT, RawClient, frame, request


class GatewayTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        # Not a whole number of seconds: deadlines are kept at the next one.
        self.clock.advance(1000.75)
        self.keys = keys()
        self.listener = RecordingListener()
        self.registry = AgentRegistry(self.clock, self.listener)
        self.factory = self.make_factory()
        self.agent = SealingAgent()
        self.clients: list[RawClient] = []

    def tearDown(self) -> None:
        for client in self.clients:
            client.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.factory.connections, set())

    def make_session(self, connection: Connection) -> AgentSession:
        return AgentSession(connection, self.keys, self.registry, lambda: NOW)

    def make_factory(self, **options: Any) -> AgentWebSocketFactory:
        limits = options.pop("limits", DEFAULT_LIMITS)
        return AgentWebSocketFactory(self.clock, self.make_session, limits, **options)

    def connect(self, upgrade: bool = True, **options: Any) -> RawClient:
        client = RawClient(self.factory, upgrade, **options)
        self.clients.append(client)
        return client

    def authenticated(self) -> RawClient:
        client = self.connect()
        client.send(frame(TEXT, self.agent.auth()))
        self.assertEqual(self.listener.names()[-1:], ["authenticated"])
        return client

    def advance(self, seconds: float) -> None:
        self.clock.pump([0.5] * int(seconds * 2))


class HandshakeTests(GatewayTestCase):
    def test_upgrade(self) -> None:
        """It upgrades, says what time it is, and agrees to nothing else."""
        client = self.connect(upgrade=False)
        client.send(
            request(
                "/agent?x=1",
                "Origin: https://evil.example",
                "Sec-WebSocket-Protocol: chat, wamp.2.json",
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            )
        )
        head = client.read().decode()
        self.assertTrue(head.startswith("HTTP/1.1 101 "))
        headers = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        self.assertNotIn("Sec-WebSocket-Extensions", headers)
        self.assertNotIn("Sec-WebSocket-Protocol", headers)
        date = parsedate_to_datetime(headers["Date"]).timestamp()
        self.assertLess(abs(date - time()), 60)

    def refused(self, data: bytes, status: bytes) -> None:
        client = self.connect(upgrade=False)
        client.send(data)
        self.assertTrue(client.read().startswith(b"HTTP/1.1 " + status + b" "))
        self.assertTrue(client.gone)
        self.assertEqual(self.listener.events, [])

    def test_other_paths(self) -> None:
        for path in ("/", "/agents", "/agent/", "/AGENT", "/%61gent"):
            self.refused(request(path), b"404")

    def test_no_upgrade(self) -> None:
        """There is no status page, and no redirect to wherever a link says."""
        self.refused(b"GET /agent?redirect=http://evil HTTP/1.1\r\nHost: x\r\n\r\n", b"426")

    def test_old_version(self) -> None:
        old = request().replace(b"Version: 13", b"Version: 8")
        self.refused(old, b"426")

    def test_garbage(self) -> None:
        self.refused(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400")

    def test_large_request(self) -> None:
        """Headers without end are not collected without end."""
        client = self.connect(upgrade=False)
        client.send(b"GET /agent HTTP/1.1\r\n")
        for _ in range(16):
            client.send(b"X-Filler: " + b"x" * 1014 + b"\r\n")
        self.assertTrue(client.read().startswith(b"HTTP/1.1 431 "))
        self.assertTrue(client.gone)

    def test_large_request_at_once(self) -> None:
        self.refused(request("/agent", *["X-Filler: " + "x" * 1014] * 16), b"431")

    def test_slow_request(self) -> None:
        client = self.connect(upgrade=False)
        client.send(b"GET /agent HTTP/1.1\r\n")
        self.advance(10)
        self.assertFalse(client.gone)
        self.advance(1)
        self.assertTrue(client.transport.aborted)

    def test_lingering(self) -> None:
        """A peer that does not take its refusal is dropped all the same."""
        client = self.connect(upgrade=False)
        client.send(request("/elsewhere"))
        self.assertTrue(client.transport.disconnecting)
        self.advance(2)
        self.assertFalse(client.transport.aborted)
        self.advance(1)
        self.assertTrue(client.transport.aborted)


class LimitTests(GatewayTestCase):
    def test_options(self) -> None:
        """Every limit that Autobahn leaves open is set on the connection itself."""
        protocol = self.authenticated().protocol
        self.assertEqual(
            {
                name: getattr(protocol, name)
                for name in (
                    "utf8validateIncoming",
                    "requireMaskedClientFrames",
                    "maxFramePayloadSize",
                    "maxMessagePayloadSize",
                    "failByDrop",
                )
            },
            {
                "utf8validateIncoming": True,
                "requireMaskedClientFrames": True,
                "maxFramePayloadSize": 1 << 20,
                "maxMessagePayloadSize": 1 << 20,
                "failByDrop": False,
            },
        )
        self.assertIsNone(protocol._perMessageCompress)
        self.assertTrue(protocol.transport.no_delay)
        self.assertEqual(
            msgspec.structs.asdict(DEFAULT_LIMITS),
            {
                "max_message": 1 << 20,
                "max_first_message": 16 << 10,
                "ping_interval": 25.0,
                "idle_timeout": 75.0,
                "handshake_timeout": 10.0,
                "auth_timeout": 30.0,
                "max_unsent": 256 * 1024,
                "drain_seconds": 3.0,
                "trusted_proxies": (),
                "unauthenticated": 5_000,
                "unauthenticated_per_address": 1_000,
                "max_connections": None,
            },
        )

    def test_largest_message(self) -> None:
        """A message of exactly 1 MiB arrives, in fragments too."""
        client = self.authenticated()
        empty = len(self.agent.seal("log", {"level": "info", "message": ""}))
        message = self.agent.seal("log", {"level": "info", "message": "x" * ((1 << 20) - empty)})
        self.assertEqual(len(message), 1 << 20)
        client.send(frame(TEXT, message[: 1 << 19], fin=False))
        client.send(frame(0, message[1 << 19 :]))
        self.assertEqual(self.listener.names(), ["authenticated", "log"])

    def test_larger_message(self) -> None:
        """One byte more is refused when it is announced, not when it has been collected."""
        client = self.authenticated()
        client.send(frame(TEXT, length=(1 << 20) + 1))
        code, _ = client.closed_with()
        self.assertEqual(code, 1009)
        self.advance(3)
        self.assertTrue(client.transport.aborted)

    def test_larger_in_fragments(self) -> None:
        client = self.authenticated()
        client.send(frame(TEXT, b"x" * (1 << 19), fin=False))
        client.send(frame(0, b"x" * (1 << 19), fin=False))
        client.send(frame(0, b"x", fin=False))
        code, _ = client.closed_with()
        self.assertEqual(code, 1009)

    def test_empty_fragments(self) -> None:
        """Frames without content, without end, are not collected without end."""
        client = self.authenticated()
        client.send(frame(TEXT, fin=False))
        for _ in range(1023):
            client.send(frame(0, fin=False))
            self.clock.advance(0.125)
        client.send(frame(PONG))
        self.assertEqual([opcode for opcode, _ in client.frames() if opcode != PING], [])
        client.send(frame(0, fin=False))
        self.assertEqual(client.closed_with(), (1009, "too many fragments"))

    def test_flood(self) -> None:
        """Small frames are dear; a connection that sends hundreds in a second is not kept, and
        of a stranger not even tens."""
        for connect, most in ((self.connect, 32), (self.authenticated, 256)):
            for kind in (frame(PING), frame(PONG), frame(TEXT, b"{", fin=False) + frame(0, b"}")):
                client = connect()
                client.send(kind * 3000)
                self.assertTrue(client.transport.aborted)
                self.assertLessEqual(len(client.frames()), most + 1)

    def test_pings_over_time(self) -> None:
        client = self.connect()
        client.send(frame(PING) * 32)
        self.assertEqual(len(client.frames()), 32)
        client.send(frame(TEXT, self.agent.auth()))
        self.advance(1)
        for _ in range(4):
            client.send(frame(PING) * 256)
            self.assertEqual(len(client.frames()), 256)
            self.advance(1)
        self.assertFalse(client.gone)

    def test_large_fragments(self) -> None:
        """Those of a large message are no flood."""
        client = self.authenticated()
        message = self.agent.seal("log", {"level": "info", "message": "x" * 900_000})
        parts = [message[at : at + 1024] for at in range(0, len(message), 1024)]
        client.send(frame(TEXT, parts[0], fin=False))
        client.send(b"".join(frame(0, part, fin=False) for part in parts[1:-1]))
        client.send(frame(0, parts[-1]))
        self.assertEqual(self.listener.names(), ["authenticated", "log"])

    def too_large(self, *reads: bytes) -> None:
        """A stranger that sends `reads` is sent away at the last of them, and not before."""
        client = self.connect()
        for data in reads[:-1]:
            client.send(data)
            self.assertEqual(client.frames(), [])
        client.send(reads[-1])
        self.assertEqual(client.closed_with()[0], 1009)
        # Nor is what comes after that kept.
        for _ in range(2):
            protocol = client.protocol
            held = [protocol.data, *(protocol.message_data or ()), *(protocol.frame_data or ())]
            self.assertLess(sum(map(len, held)), 16 << 10)
            client.send(b"x" * 50_000)
        self.assertEqual(self.listener.names(), [])

    def test_first_message(self) -> None:
        """What a stranger may send, and we would have to keep, is 16 KiB; it is told so as soon as
        the length is known."""
        most = 16 << 10
        self.too_large(frame(TEXT, length=most + 1))
        self.too_large(frame(TEXT, b"x" * (most + 1))[: 8 + 5000])
        self.too_large(frame(TEXT, length=1 << 20))
        self.too_large(frame(TEXT, self.agent.auth() + b" " * most))
        self.too_large(frame(TEXT, b"x" * (most - 1), fin=False), frame(0, b"xx"))
        self.too_large(frame(TEXT, length=most + 1)[:7], frame(TEXT, length=most + 1)[7:])

    def test_first_message_in_fragments(self) -> None:
        client = self.connect()
        for at in range(16):
            client.send(frame(0 if at else TEXT, b"x" * 1024, fin=False))
        self.assertEqual(client.frames(), [])
        client.send(frame(0, length=1, fin=False))
        self.assertEqual(client.closed_with()[0], 1009)
        self.assertEqual(self.listener.names(), [])

    def test_largest_first_message(self) -> None:
        """It is read, and what comes with it may be as long as any."""
        for in_fragments in (False, True):
            for cut in (100, 20_000, 80_000, 100_000):
                self.keys = keys()
                empty = len(self.agent.seal("auth", {"hostname": "", "version": ""}))
                first = self.agent.seal(
                    "auth", {"hostname": "x" * ((16 << 10) - empty), "version": ""}
                )
                self.assertEqual(len(first), 16 << 10)
                data = frame(TEXT, first)
                if in_fragments:
                    data = frame(TEXT, first[:9], fin=False) + frame(0, first[9:])
                for length in (60_000, 100_000, 10):
                    log = {"level": "info", "message": "x" * length}
                    data += frame(TEXT, self.agent.seal("log", log))
                self.listener.events.clear()
                client = self.connect()
                client.send(data[:cut])
                client.send(data[cut:])
                self.assertEqual(client.frames(), [])
                self.assertEqual(self.listener.names(), ["authenticated", "log", "log", "log"])
                self.assertEqual(len(self.factory.strangers), 0)
                self.assertEqual(client.protocol._longest, LONGEST)  # the short way
                client.lose()
                self.clients.remove(client)

    def test_small_limit(self) -> None:
        """One below what the short way could take."""
        self.factory = self.make_factory(limits=Limits(max_message=300))
        client = self.authenticated()
        client.send(frame(TEXT, b"x" * 301))
        self.assertEqual(client.closed_with()[0], 1009)

    def test_failure_in_a_batch(self) -> None:
        """Nothing that came with the message that failed is acted upon."""
        client = self.authenticated()
        self.listener.raises = RuntimeError("disk full")
        client.send(frame(TEXT, self.agent.metrics()) * 3)
        self.assertEqual(client.closed_with(), (1011, "internal_error"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.listener.names(), ["authenticated", "metrics"])
        self.listener.raises = None

    def test_unmasked(self) -> None:
        client = self.connect()
        client.send(bytes([0x81, 2]) + b"{}")
        self.assertEqual(client.closed_with()[0], 1002)

    def test_not_utf8(self) -> None:
        client = self.connect()
        client.send(frame(TEXT, b"\xff\xfe"))
        self.assertEqual(client.closed_with()[0], 1007)

    def test_pinged(self) -> None:
        """A silent peer is pinged; one that answers stays."""
        client = self.authenticated()
        self.advance(1)
        for _ in range(4):
            self.advance(24)
            self.assertEqual(client.frames(), [])
            self.advance(1)
            ((opcode, payload),) = client.frames()
            self.assertEqual(opcode, PING)
            client.send(frame(PONG, payload))
        self.assertFalse(client.gone)

    def test_any_traffic_answers_a_ping(self) -> None:
        """Any byte shows as well as a pong that the peer is there, and the next ping comes when
        it is due all the same: proxies wait for what we send."""
        client = self.authenticated()
        self.advance(26)
        self.assertEqual([opcode for opcode, _ in client.frames()], [PING])
        self.advance(45)
        client.send(frame(TEXT, self.agent.metrics())[:1])
        self.advance(70)
        pings = [opcode for opcode, _ in client.frames()]
        self.assertEqual(pings, [PING] * 4)
        self.assertFalse(client.gone)

    def test_idle(self) -> None:
        """One from whom nothing comes, not even pongs, is told to go."""
        client = self.authenticated()
        self.advance(70)
        client.read()
        client.send(frame(PING, b"x"))
        self.assertEqual(client.frames(), [(PONG, b"x")])
        self.advance(75)
        self.assertEqual([opcode for opcode, _ in client.frames()], [PING] * 3)
        self.advance(2)
        self.assertEqual(client.closed_with(), (1001, "idle_timeout"))

    def test_half_open(self) -> None:
        """One that does not answer is dropped, and gone for the rest of the hub."""
        client = self.authenticated()
        self.advance(74)
        self.assertFalse(client.gone)
        self.advance(5)
        self.assertTrue(client.transport.aborted)
        client.lose()
        self.clients.remove(client)
        (words,) = self.listener.of("disconnected")
        self.assertEqual(words, "closed by the hub: 1001 idle_timeout")

    def test_deaf(self) -> None:
        """A peer that does not read is not read from, and what waits for it is bounded."""
        client = self.authenticated()
        done = []
        for _ in range(12):
            if client.transport.producer is not None:
                # A full transport says so at each write.
                client.transport.producer.pauseProducing()
                self.assertEqual(client.transport.producerState, "paused")
            done.append(self.registry.send_command("agent-1", "echo", {"text": "x" * 20_000}))
        self.assertTrue(client.transport.aborted)
        # With the 64 KiB that fill a transport.
        self.assertLess(len(client.read()) + (64 << 10), 256 << 10)
        client.lose()
        self.clients.remove(client)
        self.assertEqual(self.listener.of("disconnected"), ["the agent does not read"])
        for each in done:
            self.failureResultOf(each)

    def test_reads_again(self) -> None:
        client = self.authenticated()
        for _ in range(3):
            client.transport.producer.pauseProducing()
            done = self.registry.send_command("agent-1", "echo", {"text": "x" * 150_000})
            client.transport.producer.resumeProducing()
            done.addErrback(lambda _: None).cancel()
        self.assertEqual(client.transport.producerState, "producing")
        self.assertFalse(client.gone)


class ConversationTests(GatewayTestCase):
    def test_auth_timeout(self) -> None:
        """Who says nothing for 30 s is told so."""
        client = self.connect()
        self.advance(26)
        client.send(frame(PONG, client.frames()[0][1]))
        self.advance(4)
        self.assertEqual(client.frames(), [])
        self.advance(1)
        self.assertEqual(client.closed_with(), (1008, "auth_timeout"))

    def test_authenticated_in_time(self) -> None:
        client = self.connect()
        client.send(frame(TEXT, self.agent.auth()))
        self.advance(24)
        client.send(frame(TEXT, self.agent.metrics()))
        self.advance(10)
        self.assertFalse(client.gone)
        self.assertNotIn(CLOSE, [opcode for opcode, _ in client.frames()])

    def test_close_codes(self) -> None:
        """Codes that Autobahn's own `sendClose` would refuse reach the agent with their reason."""
        for code, reason in (
            (1000, "replaced_by_new_connection"),
            (1003, "invalid_json"),
            (1008, "invalid_signature"),
            (1011, "internal_error"),
            (1012, "service_restart"),
            (1013, "try_again_later"),
        ):
            client = self.connect()
            client.protocol.session.close(code, reason)
            self.assertEqual(client.closed_with(), (code, reason))
            client.answer_close(code)
            self.assertTrue(client.gone)

    def test_binary(self) -> None:
        client = self.connect()
        client.send(frame(BINARY, self.agent.auth()))
        self.assertEqual(client.closed_with(), (1003, "not_text"))
        self.assertEqual(self.listener.names(), ["refused"])

    def test_malformed(self) -> None:
        client = self.authenticated()
        client.send(frame(TEXT, b"{"))
        self.assertEqual(client.closed_with(), (1003, "invalid_json"))

    def test_nothing_after_a_refusal(self) -> None:
        """What was sent together with a bad message is not acted upon."""
        client = self.authenticated()
        client.send(frame(TEXT, b"{") + frame(TEXT, self.agent.metrics()))
        self.assertEqual(self.listener.names(), ["authenticated", "refused"])

    def test_listener_fails(self) -> None:
        """A fault of ours is ours: 1011, logged, and the other agents stay."""
        other = self.connect()
        other.send(frame(TEXT, SealingAgent("agent-2").auth()))
        client = self.authenticated()
        self.listener.raises = RuntimeError("disk full")
        client.send(frame(TEXT, self.agent.metrics()))
        self.assertEqual(client.closed_with(), (1011, "internal_error"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.listener.raises = None
        self.assertFalse(other.gone)

    def test_command(self) -> None:
        client = self.authenticated()
        done = self.registry.send_command("agent-1", "ping", {})
        ((opcode, message),) = client.frames()
        self.assertEqual(opcode, TEXT)
        nonce = self.agent.key.open(message).nonce
        client.send(frame(TEXT, self.agent.result("ping", "pong", nonce)))
        self.assertEqual(self.successResultOf(done).result, "pong")

    def test_how_it_ended(self) -> None:
        """The hub says in words which side ended a connection, and how."""
        for end in (
            lambda client: client.answer_close(1000),
            lambda client: client.send(frame(TEXT, b"{")),
            lambda client: None,
        ):
            client = self.authenticated()
            end(client)
            client.lose()
            self.clients.remove(client)
        self.assertEqual(
            self.listener.of("disconnected"),
            [
                "closed by the agent: 1000",
                "closed by the hub: 1003 invalid_json",
                "peer dropped the TCP connection without previous WebSocket closing handshake",
            ],
        )

    def test_address(self) -> None:
        self.authenticated()
        (session,) = self.registry
        self.assertEqual(session.peer, "192.0.2.7:50000")
        self.assertEqual(session._connection.address, "192.0.2.7")

    def test_address_behind_a_proxy(self) -> None:
        """The proxy says who it is, where the proxy is ours; else what it says is worth nothing."""
        for proxies, peer, forwarded, address in (
            ((), IPv4Address("TCP", "192.0.2.7", 1), "198.51.100.1", "192.0.2.7"),
            (("192.0.2.0/24",), IPv4Address("TCP", "192.0.2.7", 1), "198.51.100.1", "198.51.100.1"),
            (("::1",), IPv6Address("TCP", "::1", 1), "2001:db8::1", "2001:db8::1"),
            ((), UNIXAddress("/run/hub"), "198.51.100.1", "198.51.100.1"),
            ((), UNIXAddress("/run/hub"), "", "unix"),
            ((), IPv6Address("TCP", "::ffff:192.0.2.7", 1), "", "192.0.2.7"),
        ):
            self.factory = self.make_factory(limits=Limits(trusted_proxies=proxies))
            client = self.connect(upgrade=False, address=peer)
            more = [f"X-Forwarded-For: 203.0.113.9, {forwarded}"] if forwarded else []
            client.send(request("/agent", *more))
            connection = client.protocol.session._connection
            self.assertEqual(connection.address, address)
            client.lose()
            self.clients.remove(client)


class AdmissionTests(GatewayTestCase):
    """Refusals at the upgrade; how they are decided is in test_admission.py."""

    def ask(self, *more: str) -> str:
        client = self.connect(upgrade=False)
        client.send(request("/agent", *more))
        head = client.read().decode()
        self.assertEqual(client.gone, not head.startswith("HTTP/1.1 101 "))
        return head

    def test_too_many(self) -> None:
        admission = Admission(self.clock, 2.0, spread=lambda: 0.5)
        self.factory = self.make_factory(admission=admission)
        heads = [self.ask() for _ in range(4)]
        self.assertEqual([head.split()[1] for head in heads], ["101", "101", "503", "503"])
        self.assertIn("\r\nRetry-After: 2\r\n", heads[2])
        self.assertIn("\r\nRetry-After: 3\r\n", heads[3])
        self.assertEqual((self.factory.handshakes, self.factory.handshakes_refused), (2, {503: 2}))

    def test_banned(self) -> None:
        """Who guesses is turned away before a session is made; others are not."""
        offenders = Offenders(self.clock)
        limits = Limits(trusted_proxies=("192.0.2.7",))
        self.factory = self.make_factory(offenders=offenders, limits=limits)
        for _ in range(10):
            offenders.offended("198.51.100.1")
        head = self.ask("X-Forwarded-For: 198.51.100.1")
        self.assertTrue(head.startswith("HTTP/1.1 429 "))
        self.assertIn("\r\nRetry-After: 30\r\n", head)
        self.assertTrue(self.ask("X-Forwarded-For: 198.51.100.2").startswith("HTTP/1.1 101 "))
        self.clock.advance(30)
        self.assertTrue(self.ask("X-Forwarded-For: 198.51.100.1").startswith("HTTP/1.1 101 "))

    def test_held(self) -> None:
        self.factory.held = True
        head = self.ask()
        self.assertTrue(head.startswith("HTTP/1.1 503 "))
        self.assertIn("\r\nRetry-After: 2\r\n", head)
        self.factory.held = False
        self.assertTrue(self.ask().startswith("HTTP/1.1 101 "))

    def lines(self) -> list[str]:
        """What the hub says from now on."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            text = formatEvent(event)
            if text.startswith("[hub]"):
                lines.append(text)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    def test_logged_in_bounds(self) -> None:
        """A storm does not fill the log, and how large it was is said also when it is over."""
        lines = self.lines()
        self.factory.held = True
        for _ in range(100):
            self.ask()
        self.assertEqual(lines, ["[hub] no upgrade for 192.0.2.7:50000: 503 starting"] * 10)
        self.advance(1)
        self.assertEqual(lines[10:], ["[hub] 90 more upgrades refused"])
        self.advance(5)
        self.ask()
        self.assertEqual(len(lines), 12)
        self.assertEqual(self.factory.handshakes_refused, {503: 101})


class StrangersTests(GatewayTestCase):
    """How many may be there that have not said who they are; and how many at all."""

    LIMITS = Limits(unauthenticated=6, unauthenticated_per_address=3, handshake_timeout=60.0)

    def tearDown(self) -> None:
        for factory in {client.protocol.factory for client in self.clients} | {self.factory}:
            factory.stopFactory()
        super().tearDown()
        self.assertEqual(len(self.factory.strangers), 0)

    def dial(self, *hosts: str, upgrade: bool = False) -> list[RawClient | None]:
        """One connection from each; None for one that was turned away."""
        found: list[RawClient | None] = []
        for host in hosts:
            kind = IPv6Address if ":" in host else IPv4Address
            address = UNIXAddress("/run/hub") if host == "unix" else kind("TCP", host, 50000)
            try:
                found.append(self.connect(upgrade, address=address))
            except ConnectionRefusedError:
                found.append(None)
        return found

    def there(self) -> list[RawClient]:
        return [client for client in self.clients if not client.gone]

    def test_of_one_address(self) -> None:
        self.factory = self.make_factory(limits=self.LIMITS)
        clients = self.dial(*["192.0.2.1"] * 5)
        self.assertEqual([client is None for client in clients], [False] * 3 + [True] * 2)
        self.assertNotIn(None, self.dial("192.0.2.2", "192.0.2.2"))
        self.assertEqual(self.factory.handshakes_refused, {0: 2})

    def test_an_ipv6_network_is_one(self) -> None:
        self.factory = self.make_factory(limits=self.LIMITS)
        hosts = [f"2001:db8:0:1::{number}" for number in range(4)]
        self.assertIsNone(self.dial(*hosts)[3])
        self.assertNotIn(None, self.dial("2001:db8:0:2::1", "::ffff:192.0.2.1"))

    def test_in_all(self) -> None:
        self.factory = self.make_factory(limits=self.LIMITS)
        clients = self.dial(*[f"192.0.2.{number}" for number in range(8)])
        self.assertEqual(clients.count(None), 2)

    def test_who_speaks_for_many(self) -> None:
        """Proxies and Unix sockets have no limit of their own, only that of all."""
        limits = msgspec.structs.replace(self.LIMITS, trusted_proxies=("192.0.2.0/24",))
        self.factory = self.make_factory(limits=limits)
        self.assertEqual(self.dial(*["192.0.2.1"] * 8).count(None), 2)
        self.factory = self.make_factory(limits=limits)
        self.assertEqual(self.dial(*["unix"] * 8).count(None), 2)

    def test_authenticated_ones_do_not_count(self) -> None:
        self.factory = self.make_factory(limits=self.LIMITS)
        for _ in range(10):
            self.keys = keys()
            self.authenticated()
        self.assertEqual(len(self.factory.strangers), 0)
        in_fragments = self.connect()
        data = self.agent.auth()
        in_fragments.send(frame(TEXT, data[:9], fin=False))
        self.assertEqual(len(self.factory.strangers), 1)
        in_fragments.send(frame(0, data[9:]))
        self.assertEqual(len(self.factory.strangers), 0)

    def test_the_oldest_gives_way(self) -> None:
        """Who opens connections and says nothing does not keep those out that come after."""
        self.factory = self.make_factory(limits=self.LIMITS)
        idle = self.dial(*["192.0.2.1"] * 3)
        self.clock.advance(1.5)
        self.assertEqual(self.dial("192.0.2.1"), [None])
        self.clock.advance(0.5)
        for number in range(3):
            self.assertNotIn(None, self.dial("192.0.2.1"))
            gone = [client is not None and client.transport.aborted for client in idle]
            self.assertEqual(gone, [True] * (number + 1) + [False] * (2 - number))
        self.assertEqual(self.dial("192.0.2.1"), [None])
        self.assertEqual(len(self.there()), 3)
        # Of all addresses, likewise.
        self.dial("192.0.2.2", "192.0.2.3", "192.0.2.4")
        self.assertEqual(self.dial("192.0.2.5"), [None])
        self.clock.advance(2)
        self.assertNotIn(None, self.dial("192.0.2.5"))
        self.assertEqual(len(self.there()), 6)
        # Those that were sent away are counted as well as those that were not let in.
        self.assertEqual(self.factory.handshakes_refused, {0: 3 + 4})

    def test_one_that_had_upgraded_gives_way(self) -> None:
        self.factory = self.make_factory(limits=self.LIMITS)
        self.dial(*["192.0.2.1"] * 3, upgrade=True)
        self.clock.advance(2)
        self.dial("192.0.2.1")
        self.assertEqual(
            [client.transport.aborted for client in self.clients], [True] + [False] * 3
        )
        self.assertEqual(self.listener.events, [])

    def test_all_connections(self) -> None:
        """No more than there are files, whoever they are; strangers give way first."""
        self.factory = self.make_factory(limits=Limits(max_connections=3))
        self.authenticated()
        self.dial("192.0.2.1", "192.0.2.2")
        self.assertEqual(self.dial("192.0.2.3"), [None])
        self.clock.advance(2)
        self.assertNotIn(None, self.dial("192.0.2.3"))
        self.assertEqual([client.gone for client in self.clients], [False, True, False, False])

    def test_files(self) -> None:
        """By default, as many connections as there may be files, less those for all the rest."""
        for soft, most in ((1024, 824), (100, 50), (resource.RLIM_INFINITY, None)):
            self.patch(websocket, "getrlimit", lambda _, soft=soft: (soft, soft))
            factory = self.make_factory()
            factory.startFactory()
            self.assertEqual(factory._max_connections, most)
        factory = self.make_factory(limits=Limits(max_connections=7))
        factory.startFactory()
        self.assertEqual(factory._max_connections, 7)

    def test_said_once_a_minute(self) -> None:
        lines = AdmissionTests.lines(self)
        self.factory = self.make_factory(limits=Limits(max_connections=0))
        for _ in range(60):
            self.dial("192.0.2.1", "192.0.2.2")
            self.clock.advance(1)
        self.assertEqual(
            lines,
            [
                "[hub] turned away 192.0.2.1: too many connections",
                "[hub] 119 more connections turned away",
            ],
        )
        self.dial("192.0.2.1", "192.0.2.2")
        self.factory.stopFactory()
        self.assertEqual(lines[3:], ["[hub] 1 more connections turned away"])
        self.assertEqual(self.factory.handshakes_refused, {0: 122})

    def test_banned_before_tls(self) -> None:
        """Where the answer would cost a TLS handshake there is none; elsewhere it is 429."""
        offenders = Offenders(self.clock)
        limits = Limits(trusted_proxies=("192.0.2.9",))
        self.factory = self.make_factory(offenders=offenders, limits=limits)
        for host in ("192.0.2.1", "192.0.2.9"):
            for _ in range(10):
                offenders.offended(host)
        behind_tls = NoneBanned(self.factory)
        for host, refused in (("192.0.2.1", True), ("192.0.2.2", False), ("192.0.2.9", False)):
            protocol = behind_tls.buildProtocol(IPv4Address("TCP", host, 50000))
            self.assertEqual(protocol is None, refused)
        self.assertEqual(self.factory.handshakes_refused, {0: 1})
        (client,) = self.dial("192.0.2.1", upgrade=True)
        self.assertTrue(client is not None and client.head.startswith(b"HTTP/1.1 429 "))
        self.clock.advance(30)
        address = IPv4Address("TCP", "192.0.2.1", 50000)
        self.assertIsNotNone(behind_tls.buildProtocol(address))


class DrainTests(GatewayTestCase):
    def test_nobody(self) -> None:
        self.successResultOf(self.factory.drain())

    def test_agents_are_told(self) -> None:
        client = self.authenticated()
        drained = self.factory.drain()
        self.assertEqual(client.closed_with(), (1012, "service_restart"))
        self.assertNoResult(drained)
        client.answer_close(1012)
        client.lose()
        self.clients.remove(client)
        self.successResultOf(drained)

    def test_spread(self) -> None:
        """Many agents are told one after the other; one that had not upgraded goes last."""
        clients = [self.connect() for _ in range(120)]
        half_way = self.connect(upgrade=False)
        drained = self.factory.drain()
        told = []
        for _ in range(11):
            states = [client.protocol.state for client in clients]
            told.append(states.count(half_way.protocol.STATE_CLOSING))
            self.assertFalse(half_way.transport.aborted)
            self.clock.advance(0.05)
        self.assertEqual(told, list(range(10, 120, 10)))
        self.assertTrue(half_way.transport.aborted)
        for client in clients:
            self.assertEqual(client.closed_with(), (1012, "service_restart"))
        self.assertNoResult(drained)
        for client in self.clients:
            client.lose()
        self.clients.clear()
        self.successResultOf(drained)

    def test_all_go_first(self) -> None:
        """Nothing is left of a drain whose connections have gone by themselves."""
        clients = [self.connect() for _ in range(30)]
        drained = self.factory.drain()
        also = self.factory.drain()
        for client in clients:
            client.lose()
        self.clients.clear()
        self.successResultOf(drained)
        self.successResultOf(also)

    def test_frozen_agent(self) -> None:
        """An agent that does not answer does not hold the hub up."""
        client = self.authenticated()
        drained = self.factory.drain()
        self.advance(3)
        self.assertTrue(client.transport.aborted)
        client.lose()
        self.clients.remove(client)
        self.successResultOf(drained)

    def test_half_way(self) -> None:
        """A connection that has not upgraded is dropped."""
        client = self.connect(upgrade=False)
        drained = self.factory.drain()
        self.assertTrue(client.transport.aborted)
        client.lose()
        self.clients.remove(client)
        self.successResultOf(drained)

    def test_too_late(self) -> None:
        """A connection that was accepted just before gets 503."""
        self.authenticated()
        late = self.connect(upgrade=False)
        self.factory.draining = True
        late.send(request())
        self.assertTrue(late.read().startswith(b"HTTP/1.1 503 "))


class _FakePort:
    stopped = False

    def stopListening(self) -> None:
        self.stopped = True


class ServiceTests(SynchronousTestCase):
    def make_session(self, connection: Connection) -> AgentSession:
        return AgentSession(connection, keys(), RecordingListener(), lambda: NOW)

    def test_listens(self) -> None:
        reactor = MemoryReactorClock()
        gateway = Gateway(reactor, "tcp:8443:interface=127.0.0.1", self.make_session)
        gateway.startService()
        ((port, factory, _, interface),) = reactor.tcpServers
        self.assertEqual((port, interface), (8443, "127.0.0.1"))
        self.assertIs(factory, gateway.factory)
        self.assertFalse(gateway.draining)
        self.successResultOf(gateway.stopService())
        self.assertTrue(gateway.draining)
        self.assertEqual((gateway.addresses, gateway.ports, gateway.urls), ([], [], []))
        self.assertRaises(RuntimeError, lambda: gateway.port)

    def test_port_taken(self) -> None:
        """A hub that cannot listen does not run on deaf."""
        reactor = MemoryReactorClock()

        def taken(*args: object, **options: object) -> None:
            raise CannotListenError("127.0.0.1", 8443, OSError(98, "Address already in use"))

        reactor.listenTCP = taken
        gateway = Gateway(reactor, "tcp:8443:interface=127.0.0.1", self.make_session)
        self.assertRaises(CannotListenError, gateway.startService)
        self.successResultOf(gateway.stopService())

    def test_several(self) -> None:
        reactor = MemoryReactorClock()
        endpoints = ["tcp:8080:interface=127.0.0.1", "unix:/run/hub", "tcp6:8081"]
        gateway = Gateway(reactor, endpoints, self.make_session)
        gateway.startService()
        self.assertEqual([each[0] for each in reactor.tcpServers], [8080, 8081])
        self.assertEqual([each[0] for each in reactor.unixServers], ["/run/hub"])
        self.assertEqual(len(gateway.addresses), 3)
        urls = ["ws://0.0.0.0:8080/agent", "unix:/run/hub", "ws://[::]:8081/agent"]
        self.assertEqual(gateway.urls, urls)
        self.successResultOf(gateway.stopService())

    def test_one_of_several_taken(self) -> None:
        """What could be had is given back."""
        reactor = MemoryReactorClock()
        ports: list[_FakePort] = []

        def listen_tcp(port: int, *args: object, **options: object) -> object:
            if port == 8081:
                raise CannotListenError("127.0.0.1", port, OSError(98, "Address already in use"))
            ports.append(_FakePort())
            return ports[-1]

        reactor.listenTCP = listen_tcp
        gateway = Gateway(reactor, ["tcp:8080", "tcp:8081"], self.make_session)
        self.assertRaises(CannotListenError, gateway.startService)
        self.assertEqual([port.stopped for port in ports], [True])
        self.assertEqual(gateway.addresses, [])

    def test_counters(self) -> None:
        gateway = Gateway(MemoryReactorClock(), "tcp:8443", self.make_session)
        client = RawClient(gateway.factory)
        RawClient(gateway.factory, upgrade=False).send(request("/elsewhere"))
        client.send(frame(PING, b"x"))
        self.assertEqual(gateway.connections, 2)
        self.assertEqual(gateway.handshakes, 1)
        self.assertEqual(gateway.handshakes_refused, {404: 1})
        sent = len(request() + request("/elsewhere") + frame(PING, b"x"))
        self.assertEqual(gateway.factory.traffic.incomingOctetsWireLevel, sent)

    def test_bad_description(self) -> None:
        with self.assertRaises(ValueError):
            Gateway(MemoryReactorClock(), "carrier-pigeon:1", self.make_session)

    def test_never_started(self) -> None:
        gateway = Gateway(MemoryReactorClock(), "tcp:8443", self.make_session)
        self.successResultOf(gateway.stopService())
