"""The open connection, both ends in memory, time turned by hand."""

from __future__ import annotations

import os
from typing import Any

import txaio
from autobahn.websocket.protocol import WebSocketClientProtocol, WebSocketProtocol
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from jetcamer import __version__
from jetcamer.net.client_protocol import (
    MAX_FRAGMENTS,
    ClientFactory,
    masked_frame,
    protocol_options,
)
from jetcamer.net.endpoint import ConnectFailed, WebSocketEndpoint
from jetcamer.net.tls import ClientTrust
from jetcamer.net.websocket import Disconnected
from tests.net.peers import PeerFactory, PeerProtocol, Receiver

MIB = 1 << 20


@implementer(IPushProducer)
class Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class OpenConnectionCase(SynchronousTestCase):
    """A client and a server of Autobahn's over iosim."""

    make_receiver: type[Receiver] = Receiver

    def setUp(self) -> None:
        self.patch(txaio.config, "loop", object())  # no timer of Autobahn's can run
        self.clock = MemoryReactorClock()
        # No time of day, and rounding to whole seconds would show.
        self.clock.advance(12_345.9)
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.open()

    def open(self, **options: Any) -> None:
        endpoint = WebSocketEndpoint(
            self.clock, "ws://192.0.2.1/agent?x=1", trust=ClientTrust(), **options
        )
        opening = endpoint.connect(self.make_receiver)
        factory = self.clock.tcpClients[-1][2]
        client = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 80))
        self.server_factory = PeerFactory(self.clock)
        self.server_factory.headers = {"Date": "Tue, 14 Nov 2023 22:13:25 GMT"}
        server = self.server_factory.buildProtocol(None)
        address = IPv4Address("TCP", "192.0.2.1", 80)
        self.client_io = FakeTransport(client, False, peerAddress=address)
        self.server_io = FakeTransport(server, True, peerAddress=address)
        self.pump: IOPump = connect(
            server, self.server_io, client, self.client_io, clock=self.clock
        )
        self.pump.flush()
        self.receiver: Receiver = self.successResultOf(opening)
        self.connection = self.receiver.connection
        self.server: PeerProtocol = self.server_factory.connections[-1]

    def pass_time(self, seconds: float, answering: bool = True) -> None:
        """Let the clock run; with `answering` false, the server hears and says nothing."""
        if answering:
            for _ in range(round(seconds * 10)):
                self.clock.advance(0.1)
                self.pump.flush()
        else:
            self.clock.pump([0.1] * round(seconds * 10))

    def frame(self, payload: bytes, opcode: int = 1, **options: Any) -> None:
        self.server.sendFrame(opcode, payload, **options)
        self.pump.flush()

    def finish(self) -> Disconnected:
        """End what is left; the connection's one last word."""
        if not self.receiver.ends:
            self.connection.abort()
        self.pump.flush()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return self.receiver.end


class MessageTests(OpenConnectionCase):
    def test_messages_go_both_ways(self) -> None:
        self.server.sendMessage("grüße ☃".encode())
        self.connection.send(b'{"a":1}')
        self.pump.flush()
        self.assertEqual(self.receiver.messages, ["grüße ☃".encode()])
        self.assertEqual(self.server.messages, [b'{"a":1}'])
        self.finish()

    def test_fragments_arrive_as_one_message(self) -> None:
        self.frame(b"one ", fin=False)
        self.frame(b"two", opcode=0)
        self.assertEqual(self.receiver.messages, [b"one two"])
        self.finish()

    def test_what_the_upgrade_told(self) -> None:
        self.assertEqual(self.connection.peer, "192.0.2.1:80")
        self.assertEqual(self.connection.server_date, 1_700_000_005.0)
        headers = self.server.request.headers
        self.assertEqual(headers["user-agent"], f"JetCamer/{__version__}")
        self.assertEqual(headers["host"], "192.0.2.1:80")
        self.assertEqual(headers["sec-websocket-version"], "13")
        self.assertNotIn("sec-websocket-extensions", headers)
        self.assertNotIn("sec-websocket-protocol", headers)
        self.assertNotIn("origin", headers)
        self.assertEqual(self.server.request.path, "/agent")
        self.assertEqual(self.server.request.params, {"x": ["1"]})
        self.finish()

    def test_every_length_of_a_length(self) -> None:
        sizes = [0, 1, 2, 3, 4, 5, 125, 126, 127, 65535, 65536, 65537]
        sent = [os.urandom(size) for size in sizes]
        self.server.utf8validateIncoming = False
        for data in sent:
            self.connection.send(data)
        self.pump.flush()
        self.assertEqual(self.server.messages, sent)
        self.finish()

    def test_longest_message(self) -> None:
        self.connection.send(b"x" * MIB)
        self.server.sendMessage(b"y" * MIB)
        self.pump.flush()
        self.assertEqual(len(self.receiver.messages[0]), MIB)
        self.assertEqual(len(self.server.messages[0]), MIB)
        self.finish()

    def test_message_too_long_to_be_sent(self) -> None:
        with self.assertRaises(ValueError):
            self.connection.send(b"x" * (MIB + 1))
        self.pump.flush()
        self.assertEqual(self.server.messages, [])
        self.finish()

    def test_receiver_that_fails(self) -> None:
        fail = [True]

        def message_received(data: bytes) -> None:
            if fail.pop():
                raise RuntimeError("a bug")

        self.receiver.message_received = message_received
        fail.append(False)
        fail.reverse()
        self.server.sendMessage(b"one")
        self.server.sendMessage(b"two")
        self.pump.flush()
        self.assertEqual(fail, [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.finish()

    def test_receiver_that_fails_at_the_end(self) -> None:
        def disconnected(reason: Disconnected) -> None:
            raise RuntimeError("a bug")

        self.receiver.disconnected = disconnected
        self.connection.abort()
        self.pump.flush()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_maker_that_fails(self) -> None:
        class Faulty(Receiver):
            def __init__(self, connection: Any) -> None:
                raise RuntimeError("a bug")

        self.finish()
        endpoint = WebSocketEndpoint(self.clock, "ws://192.0.2.1/", trust=ClientTrust())
        opening = endpoint.connect(Faulty)
        client = self.clock.tcpClients[-1][2].buildProtocol(None)
        server = PeerFactory(self.clock).buildProtocol(None)
        address = IPv4Address("TCP", "192.0.2.1", 80)
        pump = connect(
            server,
            FakeTransport(server, True),
            client,
            FakeTransport(client, False, peerAddress=address),
            clock=self.clock,
        )
        pump.flush()
        self.failureResultOf(opening, RuntimeError)
        self.assertTrue(pump.clientIO.disconnected)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ViolationTests(OpenConnectionCase):
    """What the server may not send, and the code it is told."""

    def assert_closed(self, code: int, reason: str) -> None:
        self.assertEqual(self.server.remoteCloseCode, code)
        end = self.finish()
        self.assertEqual((end.code, end.by_peer, end.clean), (code, False, False))
        self.assertEqual(end.reason, reason)
        self.assertEqual(end.words, f"closed by us: {reason} ({code})")
        self.assertEqual(self.receiver.messages, [])

    def test_binary_message(self) -> None:
        self.server.sendMessage(b"\x00", isBinary=True)
        self.server.sendMessage(b"and one after it")
        self.pump.flush()
        self.assert_closed(1003, "only text messages are understood")

    def test_message_too_long(self) -> None:
        self.server.sendMessage(b"x" * (MIB + 1))
        self.pump.flush()
        self.assert_closed(1009, "message over 1048576 bytes")

    def test_fragments_too_long_together(self) -> None:
        self.frame(b"x" * MIB, fin=False)
        self.frame(b"y", opcode=0, fin=False)
        self.assert_closed(1009, "message over 1048576 bytes")

    def test_as_many_fragments_as_are_allowed(self) -> None:
        for _ in range(2):
            frames = b"\x01\x01x" + b"\x00\x01x" * (MAX_FRAGMENTS - 2) + b"\x80\x01x"
            self.server.sendData(frames)
            self.pump.flush()
        self.assertEqual(self.receiver.messages, [b"x" * MAX_FRAGMENTS] * 2)
        self.assertEqual(self.receiver.ends, [])
        self.finish()

    def test_more_fragments_than_are_allowed(self) -> None:
        """Empty ones: their length never adds up to anything."""
        self.server.sendData(b"\x01\x00" + b"\x00\x00" * MAX_FRAGMENTS + b"\x80\x00" * 2)
        self.pump.flush()
        self.assert_closed(1009, f"message in over {MAX_FRAGMENTS} fragments")

    def test_fragments_without_an_end_are_not_kept(self) -> None:
        self.server.sendData(b"\x01\x00")
        for _ in range(40):
            self.server.sendData(b"\x00\x00" * 8192)
            self.pump.flush()
        client = self.client_io.protocol._wrappedProtocol
        self.assertLess(len(client.message_data), 3 * MAX_FRAGMENTS)
        self.assert_closed(1009, f"message in over {MAX_FRAGMENTS} fragments")

    def test_fragments_after_our_own_close_are_not_what_ended_it(self) -> None:
        self.server.onCloseFrame = lambda *args: True  # never answers
        self.connection.close(1000, "bye")
        self.pump.flush()
        self.server.sendData(b"\x01\x00" + b"\x00\x00" * MAX_FRAGMENTS)
        self.pass_time(1.1)
        self.assertEqual(self.finish().words, "closed by us: 1000 bye; the server did not answer")

    def test_announced_length_is_enough(self) -> None:
        """Nothing of a message too long is kept: its header ends it."""
        self.server.sendData(b"\x81\x7f" + (1 << 40).to_bytes(8, "big"))
        self.pump.flush()
        for _ in range(50):
            self.server.transport.stream.append(b"x" * 65536)
            self.pump.pump()
        client = self.client_io.protocol._wrappedProtocol
        self.assertLess(len(client.data), 65536)
        self.assertFalse(client.frame_data)
        self.assert_closed(1009, "message over 1048576 bytes")

    def test_text_that_is_not_utf8(self) -> None:
        for bad in (b"\xff", b"\xed\xa0\x80", b"\xc3"):
            with self.subTest(bad=bad):
                self.server.sendMessage(bad)
                self.pump.flush()
                self.assert_closed(1007, "a text message was not valid UTF-8")
            self.open()
        self.finish()

    def test_masked_frame(self) -> None:
        self.server.sendData(b"\x81\x81abcdx")
        self.pump.flush()
        self.assert_closed(1002, "masked server-to-client frame")

    def test_reserved_opcode(self) -> None:
        self.frame(b"x", opcode=5)
        self.assertEqual(self.finish().code, 1002)

    def test_invalid_close_code(self) -> None:
        self.frame((999).to_bytes(2, "big"), opcode=8)
        self.assert_closed(1002, "invalid close code 999")

    def test_two_violations_at_once_by_a_server_that_does_not_read(self) -> None:
        """Autobahn then asks TCP to close, which takes for ever, and thinks it is closed."""
        aborts: list[None] = []
        self.patch(self.client_io, "loseConnection", lambda: None)
        self.patch(self.client_io, "abortConnection", lambda: aborts.append(None))
        self.server.onCloseFrame = lambda *args: True
        self.server.sendData(b"\x81\x81abcdx" * 2)
        self.pump.flush()
        self.pass_time(1.1, answering=False)
        self.assertEqual(aborts, [None])
        FakeTransport.abortConnection(self.client_io)
        self.assertEqual(self.finish().code, 1002)

    def test_server_that_goes_on_regardless_is_dropped(self) -> None:
        self.server.onCloseFrame = lambda *args: True  # never answers
        self.server.sendMessage(b"\x00", isBinary=True)
        self.pump.flush()
        self.pass_time(0.9)
        self.server.sendMessage(b"still here")
        self.pass_time(0.3)
        self.assertEqual(self.finish().code, 1003)


class HalfOpenTests(OpenConnectionCase):
    """A peer that is no more, while TCP says nothing."""

    def test_pongs_keep_it_open(self) -> None:
        self.pass_time(300)
        self.assertEqual(self.receiver.ends, [])
        self.finish()

    def test_ping_every_20_s(self) -> None:
        pings: list[float] = []
        self.server.onPing = lambda payload: pings.append(self.clock.seconds())
        begin = self.clock.seconds()
        self.pass_time(25)
        self.assertEqual([round(at - begin) for at in pings], [20])
        self.finish()

    def test_no_pong(self) -> None:
        self.pass_time(29.8, answering=False)
        self.assertFalse(self.client_io.disconnecting)
        self.pass_time(0.4, answering=False)
        self.pump.flush()
        end = self.finish()
        self.assertEqual(end.words, "no pong within 10 s")
        self.assertEqual((end.code, end.by_peer, end.clean), (None, False, False))

    def test_noticed_within_30_s_whenever_it_freezes(self) -> None:
        for lived in (0.1, 19.9, 20.1, 25.0, 39.9, 55.0):
            with self.subTest(lived=lived):
                self.pass_time(lived)
                self.pass_time(30.3, answering=False)
                self.pump.flush()
                self.assertEqual(self.finish().words, "no pong within 10 s")
            self.open()
        self.finish()

    def test_other_traffic_is_no_pong(self) -> None:
        """A peer that talks but does not hear us is half-open too."""
        self.server.onPing = lambda payload: None
        for _ in range(30):
            self.server.sendMessage(b"I am alive")
            self.server.sendFrame(10, b"a pong nobody asked for")
            self.pass_time(1)
        self.pass_time(0.5)
        self.assertEqual(self.finish().words, "no pong within 10 s")

    def test_late_pong_of_an_earlier_ping_does_not_count(self) -> None:
        payloads: list[bytes] = []
        self.server.onPing = payloads.append
        self.pass_time(21)
        self.server.sendFrame(10, payloads[0])
        self.pass_time(20)
        self.server.sendFrame(10, payloads[0])
        self.pass_time(9.9)
        self.assertEqual(self.finish().words, "no pong within 10 s")

    def test_intervals_of_its_own(self) -> None:
        self.finish()
        self.open(ping_interval=0.5, pong_timeout=0.2)
        self.pass_time(5)
        self.assertEqual(self.receiver.ends, [])
        self.pass_time(0.8, answering=False)
        self.pump.flush()
        self.assertEqual(self.finish().words, "no pong within 0.2 s")

    def test_server_pings_are_answered(self) -> None:
        pongs: list[bytes] = []
        self.server.onPong = pongs.append
        self.server.sendPing(b"hello")
        self.pump.flush()
        self.assertEqual(pongs, [b"hello"])
        self.finish()


class ClosingTests(OpenConnectionCase):
    def test_closed_by_the_server(self) -> None:
        self.server.sendCloseFrame(1008, b"invalid_signature")
        self.pump.flush()
        end = self.finish()
        self.assertEqual(
            end,
            Disconnected(
                1008,
                "invalid_signature",
                True,
                True,
                "closed by the server: 1008 invalid_signature",
            ),
        )
        self.assertEqual(self.successResultOf(self.server.closed)[0], True)

    def test_closed_by_the_server_without_a_code(self) -> None:
        self.server.sendClose()
        self.pump.flush()
        end = self.finish()
        self.assertEqual((end.code, end.reason, end.by_peer), (None, "", True))
        self.assertEqual(end.words, "closed by the server: no code")

    def test_reason_cannot_forge_a_log_line(self) -> None:
        self.server.sendCloseFrame(1011, "oops\r\n\x1b[2Jfine\u202e".encode())
        self.pump.flush()
        self.assertEqual(self.finish().words, "closed by the server: 1011 oops???[2Jfine?")

    def test_server_that_closes_but_keeps_tcp_open(self) -> None:
        self.server.sendFrame(8, (1012).to_bytes(2, "big"))
        self.pump.pump()
        self.pass_time(0.9, answering=False)
        self.assertEqual(self.receiver.ends, [])
        self.pass_time(0.2, answering=False)
        self.assertTrue(self.client_io.disconnecting)
        self.pump.flush()
        end = self.finish()
        self.assertEqual((end.code, end.by_peer, end.clean), (1012, True, True))

    def test_closed_by_us(self) -> None:
        self.connection.send(b"the last words")
        self.connection.close(1000, "shutting down")
        self.connection.send(b"too late")
        self.pump.flush()
        self.assertEqual(self.server.messages, [b"the last words"])
        _, code, reason = self.successResultOf(self.server.closed)
        self.assertEqual((code, reason), (1000, "shutting down"))
        self.assertEqual(
            self.finish(),
            Disconnected(1000, "shutting down", False, True, "closed by us: 1000 shutting down"),
        )

    def test_any_code_may_be_given(self) -> None:
        for code in (1001, 1008, 1012, 1013, 3000, 4999):
            with self.subTest(code=code):
                self.connection.close(code)
                self.pump.flush()
                self.assertEqual(self.server.remoteCloseCode, code)
                self.assertEqual(self.finish().code, code)
            self.open()
        self.finish()

    def test_long_reason_is_cut_between_characters(self) -> None:
        self.connection.close(1000, "☃" * 100)
        self.pump.flush()
        self.assertEqual(self.server.remoteCloseReason, "☃" * 41)
        self.finish()

    def test_close_that_is_not_answered(self) -> None:
        self.connection.close(1000, "bye")
        self.pass_time(0.9, answering=False)
        self.assertFalse(self.client_io.disconnecting)
        self.pass_time(0.2, answering=False)
        self.assertTrue(self.client_io.disconnecting)
        self.server.onCloseFrame = lambda *args: True
        self.pump.flush()
        end = self.finish()
        self.assertEqual((end.code, end.by_peer, end.clean), (1000, False, False))
        self.assertEqual(end.words, "closed by us: 1000 bye; the server did not answer")

    def test_both_close_at_once(self) -> None:
        self.connection.close(1000, "bye")
        self.server.sendCloseFrame(1008, b"unknown_agent")
        self.pump.flush()
        end = self.finish()
        self.assertEqual((end.code, end.by_peer, end.clean), (1000, False, True))

    def test_the_receiver_knows_from_the_first_close_frame_on(self) -> None:
        """Whoever closes: what is sent from then on would be lost."""
        self.server.sendCloseFrame(1012, b"service_restart")
        self.pump.flush()
        self.finish()
        self.assertEqual(self.receiver.closings, 1)

    def test_the_receiver_knows_of_our_own_close(self) -> None:
        self.connection.close(1000, "bye")
        self.assertEqual((self.receiver.closings, self.receiver.ends), (1, []))
        self.finish()

    def test_messages_after_our_close_are_not_delivered(self) -> None:
        self.connection.close()
        self.server.sendMessage(b"crossing")
        self.pump.flush()
        self.assertEqual(self.receiver.messages, [])
        self.finish()

    def test_abort_while_closing_is_one_end(self) -> None:
        self.connection.close(1000, "bye")
        self.connection.abort()
        self.connection.abort()
        self.connection.close(1000, "again")
        self.pump.flush()
        self.assertEqual(len(self.receiver.ends), 1)
        self.finish()

    def test_abort(self) -> None:
        self.connection.abort()
        self.pump.flush()
        self.assertEqual(self.finish().words, "aborted")

    def test_nothing_happens_after_the_end(self) -> None:
        self.connection.abort()
        self.pump.flush()
        self.connection.send(b"x")
        self.connection.close()
        self.connection.abort()
        self.connection.register_producer(Producer())
        self.finish()

    def test_tcp_ends_without_a_word(self) -> None:
        self.server.transport.loseConnection()
        self.pump.flush()
        end = self.finish()
        self.assertEqual((end.code, end.by_peer, end.clean), (None, True, False))
        self.assertEqual(end.words, "the server ended the connection without a closing handshake")

    def test_tcp_is_reset(self) -> None:
        self.client_io.disconnectReason = ConnectionLost()
        self.server.transport.loseConnection()
        self.pump.flush()
        end = self.finish()
        self.assertEqual(end.words, "connection lost (reset by the server or the network)")

    def test_tls_breaks(self) -> None:
        self.client_io.disconnectReason = SSL.Error([("SSL routines", "", "bad record mac")])
        self.server.transport.loseConnection()
        self.pump.flush()
        self.assertEqual(
            self.finish().words, "connection lost ([('SSL routines', '', 'bad record mac')])"
        )

    def test_tls_breaks_without_an_error_of_its_own(self) -> None:
        """Autobahn alone trips over this one."""
        self.client_io.disconnectReason = SSL.Error([])
        self.server.transport.loseConnection()
        self.pump.flush()
        self.assertEqual(self.finish().words, "connection lost ([])")

    def test_close_in_the_same_segment_as_a_message(self) -> None:
        self.server.sendMessage(b"one")
        self.server.sendCloseFrame(1000, b"replaced_by_new_connection")
        self.pump.flush()
        self.assertEqual(self.receiver.messages, [b"one"])
        self.assertEqual(
            self.finish().words, "closed by the server: 1000 replaced_by_new_connection"
        )


class FlowControlTests(OpenConnectionCase):
    """The transport's wishes reach the producer; real transports are test_endpoint's."""

    def test_pause_and_resume_are_passed_on(self) -> None:
        producer = Producer()
        self.connection.register_producer(producer)
        self.client_io.producer.pauseProducing()
        self.client_io.producer.resumeProducing()
        self.assertEqual(producer.calls, ["pause", "resume"])
        self.finish()

    def test_producer_registered_while_the_transport_is_full(self) -> None:
        producer = Producer()
        self.client_io.producer.pauseProducing()
        self.connection.register_producer(producer)
        self.assertEqual(producer.calls, ["pause"])
        self.finish()

    def test_producer_is_stopped_with_the_transport(self) -> None:
        producer = Producer()
        self.connection.register_producer(producer)
        self.client_io.producer.stopProducing()
        self.assertEqual(producer.calls, ["stop"])
        self.finish()

    def test_pings_of_a_peer_that_does_not_read_are_answered_once(self) -> None:
        pongs: list[bytes] = []
        self.server.onPong = pongs.append
        valve = self.client_io.producer
        valve.pauseProducing()
        for number in range(1000):
            self.server.sendPing(str(number).encode())
        self.pump.flush()
        self.assertEqual(pongs, [])
        valve.resumeProducing()
        self.pump.flush()
        self.assertEqual(pongs, [b"999"])
        self.finish()


class QuietTests(OpenConnectionCase):
    def test_autobahn_says_nothing_above_debug(self) -> None:
        self.server.sendFrame(10, b"no ping asked for this")
        self.pass_time(25)
        self.server.sendMessage(b"\x00", isBinary=True)
        self.pump.flush()
        self.finish()
        self.open()
        self.pass_time(31, answering=False)
        self.pump.flush()
        self.finish()
        loud = [
            event
            for event in self.events
            if event.get("log_level", LogLevel.debug) > LogLevel.debug
            # the server of this test is Autobahn's as it comes
            and "Server" not in str(event.get("log_namespace"))
            and event.get("log_namespace") != "autobahn.websocket.protocol"
            and event.get("log_namespace") != "autobahn.twisted.websocket"
        ]
        self.assertEqual(loud, [])
        client = self.client_io.protocol._wrappedProtocol
        self.assertFalse(isinstance(client.log, txaio.tx.Logger))


class OptionsTests(SynchronousTestCase):
    def test_every_option_is_said(self) -> None:
        names = WebSocketClientProtocol.CONFIG_ATTRS
        self.assertEqual(
            set(protocol_options(MIB)), set(names) - {"logOctets", "logFrames", "trackTimings"}
        )

    def test_options(self) -> None:
        factory = ClientFactory(lambda: None, MemoryReactorClock(), MIB, "JetCamer/0")
        found = {name: getattr(factory, name) for name in WebSocketClientProtocol.CONFIG_ATTRS}
        self.assertIsNone(found.pop("perMessageCompressionAccept")("anything"))
        self.assertEqual(
            found,
            {
                "version": WebSocketProtocol.DEFAULT_SPEC_VERSION,
                "logOctets": False,
                "logFrames": False,
                "trackTimings": False,
                "utf8validateIncoming": False,
                "applyMask": True,
                "maskClientFrames": True,
                "acceptMaskedServerFrames": False,
                "maxFramePayloadSize": MIB,
                "maxMessagePayloadSize": MIB,
                "autoFragmentSize": 0,
                "failByDrop": False,
                "echoCloseCodeReason": False,
                "tcpNoDelay": True,
                "perMessageCompressionOffers": [],
                # Every timer is ours.
                "openHandshakeTimeout": 0,
                "closeHandshakeTimeout": 0,
                "serverConnectionDropTimeout": 0,
                "autoPingInterval": 0,
                "autoPingTimeout": 0,
                "autoPingSize": 12,
                "autoPingRestartOnAnyTraffic": False,
            },
        )

    def test_frame(self) -> None:
        """The example of RFC 6455 §5.7."""
        self.assertEqual(
            masked_frame(1, b"Hello", True, bytes.fromhex("37fa213d")),
            bytes.fromhex("818537fa213d7f9f4d5158"),
        )

    def test_error_is_one_of_a_kind(self) -> None:
        error = ConnectFailed("words", kind="http", retry_after=3.0)
        self.assertEqual((str(error), error.kind, error.retry_after), ("words", "http", 3.0))
