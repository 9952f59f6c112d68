"""TCP ports and connections as Twisted's, that send at once.

In: connections as the kernel hands them out. Out: protocols with transports, as any other port
makes them. A transport of Twisted's own never sends within `write`: epoll has to say first that it
may, which costs two calls into the kernel and a round of the reactor for each answer, however
short. Here what is written goes out at once, as far as the socket takes it; only the rest waits.
"""

from __future__ import annotations

import socket

from twisted.internet.main import CONNECTION_LOST
from twisted.internet.tcp import Port, Server
from twisted.python.failure import Failure


class DirectConnection(Server):
    """A connection that a `DirectPort` accepted."""

    _tempDataLen: int
    #: Bytes that were sent at once since epoll was last asked.
    _sent_at_once = 0
    #: What sending found out.
    _failure: Failure | None = None
    #: On Linux an accepted socket has the options of the one that listens.
    _no_delay = True

    def write(self, data: bytes) -> None:
        """Send it; what the socket does not take now, when it does. A connection that turns out to
        be lost is reported so later, and never within this call."""
        if type(data) is bytes and self._may_send_at_once():
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # The socket tells it once; from now on it only seems to be at its end.
                sent, self._failure = 0, Failure(CONNECTION_LOST)
            self._sent_at_once += sent
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)

    def _may_send_at_once(self) -> bool:
        if not self.connected or self.disconnecting or self._aborting or self._writeDisconnected:
            return False
        if self.TLS or self._tempDataLen or self.dataBuffer:
            return False
        # A producer that is pulled is asked for more by `doWrite` alone.
        if self.producer is not None and not self.streamingProducer:
            return False
        # One that pushes is told to pause by what waits. Where nothing ever did, it would go on and
        # on, and all else would wait for it.
        return self._sent_at_once < self.bufferSize

    def doWrite(self) -> BaseException | None:  # type: ignore[override]
        self._sent_at_once = 0
        why: BaseException | None = super().doWrite()
        return why

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(self._failure or reason)

    def setTcpNoDelay(self, enabled: bool) -> None:
        if enabled != self._no_delay:
            super().setTcpNoDelay(enabled)
            self._no_delay = enabled


class DirectPort(Port):
    """A listening port whose connections are `DirectConnection`s."""

    transport = DirectConnection

    def createInternetSocket(self) -> socket.socket:
        listening: socket.socket = super().createInternetSocket()
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        return listening
