"""One TLS connection of a server, between a transport and a protocol, with Python's own `ssl`.

In: what the transport receives. Out: calls of the wrapped protocol, and ciphertext written to the
transport. The same work as `twisted.protocols.tls` does with pyOpenSSL, at half of the cost.

It fails closed: an error of TLS ends the connection and hands on nothing of what came with it;
nothing is handed on or sent as application data before the handshake is over; an end without
close_notify is reported as `ConnectionLost`. It never buffers ciphertext of its own.

The wrapped protocol's ``connectionMade`` is called when TCP is connected, so that its own deadline
covers the handshake too: there is none here.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.net.client_hello import OfferCheck
from jetcamer.net.tls_refusal import NO_APPLICATION_PROTOCOL, explain, plain_answer
from jetcamer.net.transport_relay import TransportRelay, log_prefix

if TYPE_CHECKING:
    from jetcamer.net.memory_tls import TLSServerFactory

#: The plaintext of one TLS record (RFC 8446, 5.1). Bytes.
_MAX_RECORD = 16 * 1024

#: Ciphertext is fed to OpenSSL in pieces: a memory BIO keeps for ever the room it once needed.
_PIECE = 8 * 1024

#: Bytes that most reads need no more than.
_FEW = 2048

#: Plaintext that may wait for the handshake before a producer is told to pause. Bytes.
_MAX_WAITING = 64 * 1024

#: How long, after all has left, the peer may take to close TCP too. Closing at once would reset the
#: connection of a peer that is sending, and it might lose what it has not read. Seconds.
_LINGER = 2.0

#: How long the last bytes may take to leave once TLS is over and it was not us who ended it: the
#: wrapped protocol does not know yet and cannot see to it. Seconds.
_LAST_BYTES = 5.0


@implementer(IProtocol, IHalfCloseableProtocol)
@implementer(ITCPTransport, IPushProducer, IConsumer, ILoggingContext)
class TLSServerTransport(TransportRelay):
    """One connection: the transport's protocol, and the wrapped protocol's transport."""

    __slots__ = (
        "_factory",
        "_hello",
        "_incoming",
        "_linger",
        "_outgoing",
        "_over",
        "_producer",
        "_producer_waits",
        "_protocol",
        "_reason",
        "_shaken",
        "_streaming",
        "_tls",
        "_waiting",
        "connected",
        "disconnected",
        "disconnecting",
    )

    def __init__(self, factory: TLSServerFactory, protocol: IProtocol) -> None:
        self._factory = factory
        self._protocol: Any = protocol
        super().__init__()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: Any = None
        #: The handshake is over, well.
        self._shaken = False
        #: Nothing goes through TLS any more, in either direction.
        self._over = False
        self._hello = OfferCheck(factory.protocols) if factory.protocols else None
        #: Plaintext written before the handshake was over.
        self._waiting: list[bytes] | None = None
        self._producer: Any = None
        self._streaming = False
        #: The producer was paused here, because of `_waiting`.
        self._producer_waits = False
        #: Why TLS ended, where the transport would not know.
        self._reason: Failure | None = None
        self._linger: IDelayedCall | None = None
        self.connected = False
        self.disconnecting = False
        self.disconnected = False

    # IProtocol: what the transport calls

    def makeConnection(self, transport: Any) -> None:
        self._transport = transport
        self._tls = self._factory.get_context().wrap_bio(
            self._incoming, self._outgoing, server_side=True
        )
        self.connected = True
        self._protocol.makeConnection(self)

    def connectionMade(self) -> None:
        """Part of `IProtocol`; `makeConnection` has done it."""

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        if not self._shaken and not self._acceptable(data):
            return
        incoming = self._incoming
        received: list[bytes] = []
        ended = False
        try:
            if len(data) <= _PIECE:
                incoming.write(data)
                ended = self._decrypt(received)
            else:
                view = memoryview(data)
                for begin in range(0, len(data), _PIECE):
                    incoming.write(view[begin : begin + _PIECE])
                    ended = self._decrypt(received)
                    if ended or self._over:
                        break
        except ssl.SSLError as error:
            # Not what was read before it either: who forges one record has no claim on the rest.
            self._fail(error)
            return
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())
        if received and not self.disconnecting:
            self._protocol.dataReceived(received[0] if len(received) == 1 else b"".join(received))
        if ended and not self._over:
            self._say_goodbye()
            self._transport.loseConnection()
            self._call_later(_LAST_BYTES, self._too_late)

    def readConnectionLost(self) -> None:
        """The peer closed its half of TCP: well, if TLS was over; else it cut TLS off."""
        if self._over:
            self._transport.loseConnection()
        else:
            self._reason = Failure(ConnectionLost(self._cut_off()))
            self.abortConnection()

    def writeConnectionLost(self) -> None:
        """All that we had to say has left."""
        if self._linger is None:
            self._call_later(_LINGER, self._waited_enough)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._reason is not None:
            reason = self._reason
        elif not self._over and reason.check(ConnectionDone):
            reason = Failure(ConnectionLost(self._cut_off()))
        producer, self._producer = self._producer, None
        if producer is not None and not self._shaken:
            producer.stopProducing()  # one that the transport was never told of
        self.connected, self.disconnected, self._over = False, True, True
        protocol, self._protocol = self._protocol, None
        self._tls = self._waiting = self._reason = None
        protocol.connectionLost(reason)

    def logPrefix(self) -> str:
        return log_prefix(self._protocol)

    # ITCPTransport: what the wrapped protocol calls

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if self._over or not data or (self.disconnecting and self._producer is None):
            return
        if self._shaken:
            self._encrypt(data)
            return
        waiting = self._waiting = self._waiting or []
        waiting.append(data)
        if self._streaming and not self._producer_waits and sum(map(len, waiting)) > _MAX_WAITING:
            self._producer_waits = True
            self._producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Send what was written and close_notify, then close TCP.

        The peer is given a moment to close too, but is not waited for. With a producer registered
        this happens when it unregisters; during the handshake, at the end of it, if anything was
        written.
        """
        if self.disconnecting or self._over or not self.connected:
            return
        if not self._shaken and not self._waiting and self._producer is None:
            self.abortConnection()
            return
        self.disconnecting = True
        if self._shaken and self._producer is None:
            self._finish()

    def loseWriteConnection(self) -> None:
        """There is no half of a TLS connection here: all of it is closed."""
        self.loseConnection()

    def abortConnection(self) -> None:
        if self._transport is None or self.disconnected:
            return
        self.disconnecting = self._over = True
        self._transport.abortConnection()

    # TLS

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """What ALPN agreed on, if anything."""
        chosen = None if self._tls is None else self._tls.selected_alpn_protocol()
        return None if chosen is None else str(chosen).encode("ascii")

    def getPeerCertificate(self) -> None:
        """Clients are not asked for one."""

    def __conform__(self, interface: object) -> object:
        # twisted.web asks so whether a request is secure. That `ISSLTransport` is not provided
        # outright is for Autobahn, which takes it for pyOpenSSL's and raises.
        return self if interface is ISSLTransport else None

    # IConsumer and IPushProducer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The transport pauses and resumes it; until the handshake is over, we do."""
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer}: {self._producer} still is")
        if self._over or self.disconnected:
            producer.stopProducing()
            return
        self._producer, self._streaming = producer, streaming
        if self._shaken:
            self._transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self._producer is None:
            return
        self._producer, self._producer_waits, self._streaming = None, False, False
        if self._shaken:
            self._transport.unregisterProducer()
            if self.disconnecting and not self._over:
                self._finish()

    def stopProducing(self) -> None:
        self.loseConnection()

    # Within

    def _acceptable(self, data: bytes) -> bool:
        """Whether the client offers what we speak, as far as it can be seen."""
        if self._hello is None or self._hello.accepts(data):
            return True
        self._transport.write(NO_APPLICATION_PROTOCOL)
        self._end_badly("the client speaks none of our application protocols")
        return False

    def _decrypt(self, received: list[bytes]) -> bool:
        """Read what is there; True at the peer's close_notify. Raises SSLError."""
        incoming, tls = self._incoming, self._tls
        try:
            if not self._shaken:
                tls.do_handshake()
                self._handshake_is_over()
                if self._over:
                    return False
            # Without a look at what is there each message would cost an SSLWantReadError more, and
            # with room for the longest record each time a piece of the heap.
            while (there := incoming.pending) or tls.pending():
                data = tls.read(there if there > _FEW else _FEW)
                if not data:
                    return True
                received.append(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return True
        return False

    def _handshake_is_over(self) -> None:
        self._shaken = True
        self._hello = None
        self._transport.write(self._outgoing.read())
        producer, waiting, self._waiting = self._producer, self._waiting, None
        if producer is not None:
            self._transport.registerProducer(producer, self._streaming)
        for data in waiting or ():
            if not self._over:
                self._encrypt(data)
        if self._producer_waits:
            self._producer_waits = False
            producer.resumeProducing()
        if not self._over and IHandshakeListener.providedBy(self._protocol):
            self._protocol.handshakeCompleted()
        if self.disconnecting and self._producer is None and not self._over:
            self._finish()

    def _encrypt(self, data: bytes) -> None:
        tls, outgoing = self._tls, self._outgoing
        try:
            if len(data) <= _MAX_RECORD:
                tls.write(data)
                self._transport.write(outgoing.read())
                return
            view, records = memoryview(data), []
            for begin in range(0, len(data), _MAX_RECORD):
                tls.write(view[begin : begin + _MAX_RECORD])
                records.append(outgoing.read())
        except ssl.SSLError as error:
            self._fail(error)
        else:
            self._transport.writeSequence(records)

    def _finish(self) -> None:
        """We end TLS, well."""
        self._say_goodbye()
        self._transport.loseWriteConnection()
        self._transport.resumeProducing()  # to see the peer close

    def _say_goodbye(self) -> None:
        with suppress(ssl.SSLError):  # the peer has not answered, and is not waited for
            self._tls.unwrap()
        self._end_tls()

    def _fail(self, error: ssl.SSLError) -> None:
        if not self._shaken:
            self._transport.write(plain_answer(error))
        self._end_badly(explain(error))

    def _end_badly(self, words: str) -> None:
        self._factory.ended_badly(self._transport.getPeer(), words, shaken=self._shaken)
        self._reason = Failure(ConnectionLost(words))
        self._end_tls()
        self._transport.loseWriteConnection()
        self._call_later(_LAST_BYTES, self._too_late)

    def _end_tls(self) -> None:
        """What OpenSSL has to say goes out, an alert for one; nobody produces any more."""
        self._over = self.disconnecting = True
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())
        producer, self._producer = self._producer, None
        if producer is not None:
            # The transport would wait for one that waits for nothing more.
            if self._shaken:
                self._transport.unregisterProducer()
            producer.stopProducing()

    def _cut_off(self) -> str:
        return "TLS was cut off" if self._shaken else "no TLS handshake"

    def _call_later(self, seconds: float, what: Callable[[], None]) -> None:
        """One deadline at a time: a connection that is gone has none."""
        if not self.disconnected:
            if self._linger is not None:
                self._linger.cancel()
            self._linger = self._factory.clock.callLater(seconds, what)

    def _waited_enough(self) -> None:
        # Not an abort: what the kernel still holds is to arrive.
        self._linger = None
        self._transport.loseConnection()

    def _too_late(self) -> None:
        self._linger = None
        self._transport.abortConnection()
