"""TLS over memory BIOs, with both ends in memory: what arrives when is drawn or written here."""

from __future__ import annotations

import contextlib
import ssl
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from jetcamer.net.client_hello import MAX_HELLO, Incomplete, offered_protocols
from jetcamer.net.listen import server_context
from jetcamer.net.memory_tls import TLSServerFactory
from tests.net.memory_tcp import MemoryTCP, MemoryTLSClient, Producer, Recorder
from tests.support.certs import TestCA
from tests.support.logs import LogsMixin

BIG = bytes(range(256)) * 4096  # 1 MiB


@cache
def contexts() -> tuple[ssl.SSLContext, str]:
    """The server's context, and the file of the authority that it comes from."""
    folder = TemporaryDirectory()
    ca = TestCA(folder.name)
    certificate = ca.issue(dns=["hub.example"])
    server = server_context()
    server.load_cert_chain(certificate.path_cert, certificate.path_key)
    client = ssl.create_default_context(cafile=ca.path_cert)
    authority = ssl.DER_cert_to_PEM_cert(client.get_ca_certs(binary_form=True)[0])
    folder.cleanup()
    return server, authority


def client_context(*alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=contexts()[1])
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Connection:
    """One connection, before the handshake unless told otherwise."""

    def __init__(self, protocol: Recorder | None = None) -> None:
        self.clock = Clock()
        self.protocol = protocol or Recorder()
        factory = Factory.forProtocol(lambda: self.protocol)
        self.factory = TLSServerFactory(
            factory, lambda: contexts()[0], self.clock, protocols=["http/1.1"]
        )
        tls = self.factory.buildProtocol(None)
        assert tls is not None
        self.tls = tls
        self.tcp = MemoryTCP(tls)

    def client(self, *alpn: str) -> MemoryTLSClient:
        return MemoryTLSClient(self.tcp, client_context(*alpn))


def shaken(protocol: Recorder | None = None) -> tuple[Connection, MemoryTLSClient]:
    connection = Connection(protocol)
    return connection, connection.client().shake()


class Case(LogsMixin):
    def assertLost(self, connection: Connection, kind: type[Exception], words: str = "") -> None:
        """The wrapped protocol was told of the end, once, and nothing is left to happen."""
        if connection.tcp.half_closed and not connection.protocol.lost:
            connection.tcp.end()  # the peer closes in its turn
        [reason] = connection.protocol.lost
        self.assertIs(reason.type, kind, str(reason.value))
        self.assertIn(words, str(reason.value))
        self.assertEqual(connection.clock.getDelayedCalls(), [])


class TransferTests(Case):
    def test_both_ways(self) -> None:
        connection, client = shaken()
        client.send(b"hello")
        connection.tls.write(b"good ")
        connection.tls.writeSequence([b"", b"d", b"ay"])
        self.assertEqual(connection.protocol.data, b"hello")
        self.assertEqual(client.received(), b"good day")

    def test_one_call_for_all_that_came_at_once(self) -> None:
        connection, client = shaken()
        for _ in range(200):
            client.tls.write(b"m" * 300)
        client.exchange()
        self.assertEqual(connection.protocol.received, [b"m" * 60000])

    def test_large(self) -> None:
        connection, client = shaken()
        connection.tls.write(BIG)
        self.assertEqual(client.received(), BIG)
        client.send(BIG)
        self.assertEqual(connection.protocol.data, BIG)

    def test_data_in_the_segment_that_ends_the_handshake(self) -> None:
        connection = Connection()
        client = connection.client()
        client.step()
        client.exchange()
        client.step()
        client.send(b"at once")
        self.assertEqual(connection.protocol.received, [b"at once"])

    def test_it_is_what_it_says(self) -> None:
        connection, _ = shaken()
        for interface in (ITCPTransport, IPushProducer, IConsumer):
            verifyObject(interface, connection.tls)
        # twisted.web's question; Autobahn's has another answer.
        self.assertIs(ISSLTransport(connection.tls, None), connection.tls)
        self.assertFalse(ISSLTransport.providedBy(connection.tls))
        self.assertEqual(connection.tls.getPeer().port, 40000)
        self.assertEqual(connection.tls.getHost().port, 443)
        connection.tls.setTcpNoDelay(True)
        connection.tls.setTcpKeepAlive(True)
        self.assertTrue(connection.tls.getTcpNoDelay())
        self.assertTrue(connection.tls.getTcpKeepAlive())
        self.assertIsNone(connection.tls.getPeerCertificate())
        self.assertEqual(connection.tls.logPrefix(), "Recorder (TLS)")
        self.assertRaises(TypeError, connection.tls.write, "text")

    def test_a_factory_that_refuses(self) -> None:
        factory = Factory.forProtocol(lambda: None)
        factory.buildProtocol = lambda addr: None
        tls = TLSServerFactory(factory, lambda: contexts()[0], Clock())
        self.assertIsNone(tls.buildProtocol(None))

    def test_what_the_protocol_raises_is_the_reactors(self) -> None:
        connection, client = shaken()

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        connection.protocol.on_data = fail
        self.assertRaises(ZeroDivisionError, client.send, b"x")

    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(st.binary(max_size=40000), max_size=6),
        st.lists(st.binary(max_size=40000), max_size=6),
        st.lists(st.integers(1, 20000), min_size=1),
        st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
    )
    def test_however_it_is_cut(
        self, up: list[bytes], down: list[bytes], cuts: list[int], version: ssl.TLSVersion
    ) -> None:
        connection = Connection()
        context = client_context("h2", "http/1.1")
        context.maximum_version = version
        client = MemoryTLSClient(connection.tcp, context)
        steps = 0

        def move() -> None:
            """Everything under way arrives, in pieces of the drawn sizes."""
            nonlocal steps
            data = client.outgoing.read()
            while data:
                size = cuts[steps % len(cuts)]
                steps += 1
                connection.tcp.deliver(data[:size])
                data = data[size:]
            client.incoming.write(connection.tcp.flush())

        connection.tls.writeSequence(down[:1])
        while not client.step():
            move()
        for data in up:
            if data:
                client.tls.write(data)
        move()
        for data in down[1:]:
            connection.tls.write(data)
        self.assertEqual(connection.protocol.data, b"".join(up))
        self.assertEqual(client.received(), b"".join(down))
        self.assertEqual(connection.tls.negotiatedProtocol, b"http/1.1")
        connection.tcp.deliver(client.close())
        connection.tcp.flush()
        self.assertLost(connection, ConnectionDone)


class EndTests(Case):
    def test_lose_connection_says_so_to_the_peer(self) -> None:
        connection, client = shaken()
        connection.tls.write(b"bye")
        connection.tls.loseConnection()
        connection.tls.loseConnection()
        connection.tls.write(b"too late")
        self.assertTrue(connection.tls.disconnecting)
        self.assertEqual(client.received(), b"bye")
        self.assertTrue(client.ended)
        self.assertLost(connection, ConnectionDone)
        self.assertTrue(connection.tls.disconnected)
        connection.tls.loseConnection()
        connection.tls.abortConnection()
        connection.tls.write(b"much too late")

    def test_a_peer_that_does_not_close_is_not_waited_for(self) -> None:
        connection, client = shaken()
        connection.tls.pauseProducing()
        connection.tls.write(BIG)
        connection.tcp.room = 1000
        connection.tls.loseConnection()
        connection.tcp.flush()
        connection.clock.advance(60)
        self.assertEqual(connection.protocol.lost, [])  # it is still reading
        connection.tcp.room = 1 << 30
        connection.tcp.flush()
        client.tls.write(b"it still sends")
        connection.tcp.deliver(client.outgoing.read())
        connection.clock.advance(2)
        self.assertFalse(connection.tcp.aborted)
        self.assertEqual(len(connection.protocol.lost), 1)
        self.assertLost(connection, ConnectionDone)

    def test_a_peer_refused_that_does_not_close_is_aborted(self) -> None:
        for room in (0, 1 << 30):
            with self.subTest(room=room):
                connection, _ = shaken()
                connection.tcp.room = room
                connection.tcp.deliver(b"\x00" * 100)
                connection.tcp.flush()
                connection.clock.advance(4.5)
                self.assertFalse(connection.tcp.aborted)
                connection.clock.advance(0.5)
                self.assertTrue(connection.tcp.aborted)
                connection.tcp.end()
                self.assertLost(connection, ConnectionLost, "TLS")

    def test_cut_off_by_a_peer_that_did_not_read(self) -> None:
        connection, _ = shaken()
        connection.tcp.room = 0
        connection.tls.write(BIG)
        connection.tcp.end()
        self.assertTrue(connection.tcp.aborted)
        self.assertLost(connection, ConnectionLost, "cut off")

    def test_nothing_is_handed_on_after_lose_connection(self) -> None:
        connection, client = shaken()
        producer = Producer()
        connection.tls.registerProducer(producer, True)
        connection.tls.loseConnection()
        client.send(b"late")
        self.assertEqual(connection.protocol.data, b"")

    def test_the_peer_ends_it(self) -> None:
        connection, client = shaken()
        client.tls.write(b"last")
        connection.tcp.deliver(client.outgoing.read() + client.close())
        self.assertEqual(connection.protocol.data, b"last")
        self.assertEqual(client.received(), b"")
        self.assertTrue(client.ended)
        self.assertLost(connection, ConnectionDone)

    def test_the_peer_ends_it_and_takes_nothing_more(self) -> None:
        connection, client = shaken()
        producer = Producer()
        connection.tls.registerProducer(producer, True)
        connection.tcp.room = 0
        connection.tls.write(BIG)
        self.assertEqual(producer.calls, ["pause"])
        connection.tcp.deliver(client.close())
        self.assertEqual(producer.calls[-1], "stop")
        connection.clock.advance(5)
        self.assertTrue(connection.tcp.aborted)
        connection.tcp.end()
        self.assertLost(connection, ConnectionAborted)

    def test_cut_off(self) -> None:
        connection, client = shaken()
        client.send(b"half of")
        connection.tcp.end()
        self.assertLost(connection, ConnectionLost, "cut off")

    def test_cut_off_within_a_record(self) -> None:
        connection, client = shaken()
        client.tls.write(b"a whole message")
        connection.tcp.deliver(client.outgoing.read()[:-1])
        connection.tcp.end()
        self.assertEqual(connection.protocol.data, b"")
        self.assertLost(connection, ConnectionLost, "cut off")

    def test_abort(self) -> None:
        connection, client = shaken()
        connection.tls.write(b"never sent")
        connection.tls.abortConnection()
        client.tls.write(b"never read")
        connection.tls.dataReceived(client.outgoing.read())
        self.assertTrue(connection.tcp.aborted)
        self.assertEqual(connection.tcp.flush(), b"")
        connection.tcp.end()
        self.assertEqual(connection.protocol.data, b"")
        self.assertLost(connection, ConnectionAborted)

    def test_abort_within_data_received(self) -> None:
        connection, client = shaken()
        connection.protocol.on_data = lambda _: connection.tls.abortConnection()
        client.tls.write(b"one")
        connection.tcp.deliver(client.outgoing.read() + client.close())
        connection.tls.dataReceived(b"anything")
        self.assertEqual(connection.protocol.received, [b"one"])
        connection.tcp.end()
        self.assertLost(connection, ConnectionAborted)

    def test_abort_while_closing(self) -> None:
        connection, _ = shaken()
        connection.tcp.room = 0
        connection.tls.loseConnection()
        connection.tls.abortConnection()
        self.assertTrue(connection.tcp.aborted)

    def test_half_a_close_is_a_close(self) -> None:
        connection, client = shaken()
        connection.tls.loseWriteConnection()
        client.received()
        self.assertTrue(client.ended)
        self.assertLost(connection, ConnectionDone)

    def test_a_forged_record_takes_with_it_what_came_along(self) -> None:
        connection, client = shaken()
        captured = self.capture_logs()
        client.tls.write(b"genuine")
        good = client.outgoing.read()
        client.tls.write(b"forged")
        forged = bytearray(client.outgoing.read())
        forged[-1] ^= 1
        connection.tcp.deliver(good + bytes(forged))
        connection.tls.write(b"no more")
        self.assertRaises(ssl.SSLError, client.received)  # the alert
        self.assertEqual(connection.protocol.data, b"")
        self.assertLost(connection, ConnectionLost, "bad record mac")
        self.assertLogged(captured, "[tls] the connection of 192.0.2.7:40000 is ended")

    def test_renegotiation_is_refused(self) -> None:
        connection = Connection()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        client = SSL.Connection(context)
        client.set_connect_state()

        def exchange() -> None:
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                connection.tcp.deliver(client.bio_read(1 << 16))
            if answer := connection.tcp.flush():
                client.bio_write(answer)

        for _ in range(3):
            exchange()
        self.assertEqual(client.get_protocol_version_name(), "TLSv1.2")
        self.assertTrue(client.renegotiate())
        with self.assertRaises(SSL.Error) as caught:
            for _ in range(3):
                exchange()
        self.assertIn("no renegotiation", str(caught.exception))


class HandshakeTests(Case):
    def test_writes_wait_for_it(self) -> None:
        protocol = Recorder()
        connection = Connection(protocol)
        connection.tls.write(b"early ")
        connection.tls.write(b"bird")
        self.assertEqual(connection.tcp.flush(), b"")
        self.assertEqual(connection.client().shake().received(), b"early bird")

    def test_told_of_its_end(self) -> None:
        class Listener(Recorder):
            def handshakeCompleted(self) -> None:
                self.received.append(b"shaken")
                self.transport.registerProducer(Producer(), True)

        protocol = Listener()
        directlyProvides(protocol, IHandshakeListener)
        shaken(protocol)
        self.assertEqual(protocol.data, b"shaken")

    def test_lose_connection_during_it(self) -> None:
        connection = Connection()
        connection.client().step()
        connection.tls.loseConnection()
        self.assertTrue(connection.tcp.aborted)
        connection.tcp.end()
        self.assertLost(connection, ConnectionAborted)

    def test_lose_connection_during_it_with_something_to_say(self) -> None:
        connection = Connection()
        connection.tls.write(b"go away")
        connection.tls.loseConnection()
        connection.tls.write(b"too late")
        client = connection.client().shake()
        self.assertEqual(client.received(), b"go away")
        self.assertTrue(client.ended)
        self.assertLost(connection, ConnectionDone)

    def test_abort_in_connection_made(self) -> None:
        protocol = Recorder()
        protocol.on_made = lambda: protocol.transport.abortConnection()  # noqa: PLW0108
        connection = Connection(protocol)
        self.assertTrue(connection.tcp.aborted)
        connection.tcp.end()
        self.assertLost(connection, ConnectionAborted)

    def test_given_up_by_the_client(self) -> None:
        connection = Connection()
        client = connection.client()
        client.step()
        connection.tcp.deliver(client.outgoing.read()[:50])
        connection.tcp.end()
        self.assertLost(connection, ConnectionLost, "no TLS handshake")

    def refused(self, data: bytes, words: str) -> bytes:
        """What the client gets; the refusal is logged in one line."""
        captured = self.capture_logs()
        connection = Connection()
        connection.tls.write(b"SECRET")
        connection.tcp.deliver(data)
        answer = connection.tcp.flush()
        self.assertEqual(captured.lines, [f"[tls] no TLS with 192.0.2.7:40000: {words}"])
        self.assertNotIn(b"SECRET", answer)
        self.assertEqual(connection.protocol.data, b"")
        self.assertLost(connection, ConnectionLost, words)
        return answer

    def test_no_tls_at_all(self) -> None:
        self.refused(b"\x00\x01\x02" * 100, "the client does not speak TLS")

    def test_many(self) -> None:
        """Who never means TLS cannot fill the log: ten lines a second, and a number."""
        captured = self.capture_logs()
        connection = Connection()
        for _ in range(150):
            tls = connection.factory.buildProtocol(None)
            assert tls is not None
            tcp = MemoryTCP(tls)
            tcp.deliver(b"\x00\x01\x02" * 100)
            tcp.end()
        self.assertEqual(len(captured.lines), 10)
        connection.clock.advance(1)
        self.assertEqual(captured.lines[10:], ["[tls] 140 more connections ended badly"])
        connection.tcp.deliver(b"\x00\x01\x02" * 100)
        self.assertEqual(len(captured.lines), 12)
        connection.tcp.end()
        connection.factory.doStop()
        self.assertEqual(connection.clock.getDelayedCalls(), [])

    def test_plain_http(self) -> None:
        answer = self.refused(b"GET / HTTP/1.1\r\n\r\n", "the client speaks plain HTTP")
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"))

    def test_an_old_version(self) -> None:
        connection = Connection()
        client = connection.client()
        client.step()
        hello = bytearray(client.outgoing.read())
        # TLS 1.1 in ClientHello.legacy_version, and no supported_versions extension.
        hello[9:11] = b"\x03\x02"
        at = hello.index(b"\x00\x2b")
        hello[at : at + 2] = b"\xff\xff"
        answer = self.refused(bytes(hello), "the client offers no TLS of 1.2 or later")
        self.assertEqual(answer[:1] + answer[5:], b"\x15\x02\x46")  # fatal, protocol_version

    def test_another_certificate_is_wanted(self) -> None:
        captured = self.capture_logs()
        connection = Connection()
        client = MemoryTLSClient(connection.tcp, ssl.create_default_context())
        client.step()
        client.exchange()
        self.assertRaises(ssl.SSLCertVerificationError, client.step)
        client.exchange()
        self.assertLost(connection, ConnectionLost, "the client refused: unknown ca")
        self.assertEqual(len(captured.lines), 1)

    def test_no_protocol_in_common(self) -> None:
        for cut in (None, 3, 60):
            with self.subTest(cut=cut):
                connection = Connection()
                client = connection.client("h2", "spdy/3")
                client.step()
                hello = client.outgoing.read()
                connection.tcp.deliver(hello[:cut])
                if cut is not None:
                    connection.tcp.deliver(hello[cut:])
                client.incoming.write(connection.tcp.flush())
                with self.assertRaises(ssl.SSLError) as caught:
                    client.step()
                self.assertIn("no application protocol", str(caught.exception))
                self.assertLost(connection, ConnectionLost, "application protocols")

    def test_protocols(self) -> None:
        for offered, chosen in (
            ((), None),
            (("http/1.1",), b"http/1.1"),
            (("h2", "http/1.1"), b"http/1.1"),
        ):
            connection = Connection()
            connection.client(*offered).shake()
            self.assertEqual(connection.tls.negotiatedProtocol, chosen)
            connection.tcp.end()
            self.assertIsNone(connection.tls.negotiatedProtocol)


class ClientHelloTests(SynchronousTestCase):
    def hello(self) -> bytes:
        client = Connection().client("h2", "x")
        client.step()
        return client.outgoing.read()

    def test_cut_anywhere(self) -> None:
        hello = self.hello()
        self.assertEqual(offered_protocols(hello + b"more"), (b"h2", b"x"))
        for end in range(len(hello)):
            self.assertRaises(Incomplete, offered_protocols, hello[:end])

    def test_in_several_records(self) -> None:
        hello = self.hello()
        body = hello[5:]
        for size in (100, 300, 400, 1):
            records = b"".join(
                hello[:3] + len(piece).to_bytes(2, "big") + piece
                for piece in (body[at : at + size] for at in range(0, len(body), size))
            )
            expected = (b"h2", b"x") if size > 1 else None
            self.assertEqual(offered_protocols(records), expected)

    def test_what_it_is_not(self) -> None:
        self.assertIsNone(offered_protocols(b"GET / HTTP/1.1\r\n"))
        self.assertIsNone(offered_protocols(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"))
        too_long = (MAX_HELLO + 1).to_bytes(3, "big")
        self.assertIsNone(offered_protocols(b"\x16\x03\x01\x40\x00\x01" + too_long))
        self.assertIsNone(offered_protocols(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"))

    @given(st.binary(), st.integers(0, 600))
    def test_whatever_it_is(self, noise: bytes, at: int) -> None:
        hello = self.hello()
        for data in (noise, hello[:at] + noise + hello[at + len(noise) :]):
            with contextlib.suppress(Incomplete):
                offered_protocols(data)


class ProducerTests(Case):
    def test_paused_and_resumed_by_the_transport(self) -> None:
        connection, _ = shaken()
        producer = Producer()
        connection.tls.registerProducer(producer, True)
        self.assertRaises(RuntimeError, connection.tls.registerProducer, Producer(), True)
        connection.tcp.room = 0
        connection.tls.write(BIG)
        self.assertEqual(producer.calls, ["pause"])
        connection.tcp.room = 1 << 30
        connection.tcp.flush()
        self.assertEqual(producer.calls, ["pause", "resume"])
        connection.tls.unregisterProducer()
        connection.tls.unregisterProducer()
        connection.tls.registerProducer(producer, True)
        connection.tcp.end()
        self.assertEqual(producer.calls, ["pause", "resume", "stop"])

    def test_paused_until_the_handshake(self) -> None:
        connection = Connection()
        producer = Producer()
        connection.tls.registerProducer(producer, True)
        connection.tls.write(BIG)
        connection.tls.write(BIG)
        self.assertEqual(producer.calls, ["pause"])
        self.assertEqual(connection.client().shake().received(), BIG + BIG)
        self.assertEqual(producer.calls[-1], "resume")

    def test_one_that_never_saw_the_handshake(self) -> None:
        connection = Connection()
        producer = Producer()
        connection.tls.registerProducer(producer, True)
        connection.tcp.end()
        self.assertEqual(producer.calls, ["stop"])
        late = Producer()
        connection.tls.registerProducer(late, True)
        self.assertEqual(late.calls, ["stop"])

    def test_pulled(self) -> None:
        for before in (False, True):
            with self.subTest(before=before):
                connection = Connection()
                pieces = [b"a" * 50000, b"b" * 50000, b"c"]

                class Puller(Producer):
                    def resumeProducing(
                        self, tls: Any = connection.tls, pieces: list[bytes] = pieces
                    ) -> None:
                        tls.write(pieces.pop(0))
                        if not pieces:
                            tls.unregisterProducer()
                            tls.loseConnection()

                if before:
                    connection.tls.registerProducer(Puller(), False)
                client = connection.client().shake()
                if not before:
                    connection.tls.registerProducer(Puller(), False)
                self.assertEqual(client.received(), b"a" * 50000 + b"b" * 50000 + b"c")
                self.assertTrue(client.ended)
                self.assertLost(connection, ConnectionDone)

    def test_lose_connection_waits_for_it(self) -> None:
        connection, client = shaken()
        connection.tls.registerProducer(Producer(), True)
        connection.tls.loseConnection()
        connection.tls.write(b"the rest")
        self.assertEqual(client.received(), b"the rest")
        self.assertFalse(client.ended)
        connection.tls.unregisterProducer()
        client.received()
        self.assertTrue(client.ended)
        self.assertLost(connection, ConnectionDone)

    def test_reading_is_paused(self) -> None:
        connection, client = shaken()
        connection.tls.pauseProducing()
        self.assertFalse(connection.tcp.reading)
        connection.tls.resumeProducing()
        client.send(b"x")
        self.assertEqual(connection.protocol.data, b"x")
        connection.tls.stopProducing()
        client.received()
        self.assertTrue(client.ended)
