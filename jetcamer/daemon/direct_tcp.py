"""TCP ports and connections as Twisted's, that send at once.

In: connections as the kernel hands them out. Out: protocols with transports, as any other port
makes them. Twisted's own write nothing at once: epoll has to say first that they may, which costs
two calls into the kernel and a round of the reactor for each answer, however short. Here what is
written goes out at once, as far as the socket takes it; only the rest waits.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from twisted.internet.tcp import Port, Server


class DirectConnection(Server):
    """An accepted connection."""

    _tempDataLen: int
    #: As the port's socket is, and so every one that it accepts.
    _no_delay = True

    def write(self, data: bytes) -> None:
        """Send it; what the socket does not take now, when it does. A connection that turns out to
        be gone is lost later, and never within this call."""
        waits = self._tempDataLen or self.dataBuffer
        ends = self.disconnecting or self._aborting or self._writeDisconnected
        # One that is pulled is asked for more when what it wrote has been sent: later, that is.
        pulled = self.producer is not None and not self.streamingProducer
        if self.connected and not (waits or ends or pulled or self.TLS):
            with suppress(OSError):
                data = data[self.socket.send(data) :]
        if data:
            super().write(data)

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
