"""What stands between a client and its S3, and fails on request: in this process, real sockets.

``proxy = S3Proxy(reactor, moto.port); proxy.listen()``, then `proxy.endpoint` is the address to
give to the client; end with ``await proxy.close()``. `faults` are used up, one a request; `mode`
holds for all requests while there are no `faults`. What was done is in `done`.

Faults:

- ``ok``: none, for a place in the list
- ``refuse``: the connection is reset as soon as it is made (`down` and `up` refuse it for real)
- ``cut``: the connection is reset when half of the body is here; S3 sees nothing of it
- ``500``, ``503``: InternalError, SlowDown with ``Retry-After: 7``
- ``hang``: everything is taken, nothing answered
- ``lost``: S3 does what is asked, the connection is reset in place of its answer
- ``slow``: the request is passed on after `slow_seconds`
- an `S3Error` or `Canned`: that answer

Without an `upstream` the proxy is the S3 itself, which knows nothing but its faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.web.http import datetimeToString


class Canned(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}

    def encode(self) -> bytes:
        headers = {
            "Date": datetimeToString().decode(),
            "Content-Length": str(len(self.body)),
            "Connection": "close",
            **self.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Canned\r\n{lines}\r\n".encode() + self.body


class S3Error(NamedTuple):
    """An error as S3 documents them; `members` are further ones of the ``Error`` element."""

    status: int
    code: str
    message: str = "An excerpt of what S3 says."
    headers: Mapping[str, str] = {}
    members: Mapping[str, str] = {}

    def encode(self) -> bytes:
        members = {
            "Code": self.code,
            "Message": self.message,
            **self.members,
            "RequestId": "656c76696e6727732072657175657374",
        }
        xml = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in members.items())
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{xml}</Error>'.encode()
        headers = {"Content-Type": "application/xml", "Server": "AmazonS3", **self.headers}
        return Canned(self.status, body, headers).encode()


Fault = str | S3Error | Canned

SLOW_DOWN = S3Error(503, "SlowDown", "Please reduce your request rate.", {"Retry-After": "7"})
INTERNAL_ERROR = S3Error(500, "InternalError", "We encountered an internal error.")


class Done(NamedTuple):
    """What was done with a request. A ``refuse`` has neither `method` nor `path`."""

    fault: Fault
    method: str = ""
    path: str = ""


class S3Proxy:
    def __init__(self, reactor: Any, upstream: int | None = None, tls: Any = None) -> None:
        """
        :param upstream: the port, on this machine, of the S3 behind
        :param tls: a context factory; the endpoint is then an ``https`` one
        """
        self.faults: list[Fault] = []
        self.mode: Fault = "ok"
        self.done: list[Done] = []
        self.slow_seconds = 0.3
        #: Whole requests, head and body, as they came.
        self.received: list[bytes] = []
        self._reactor = reactor
        self._upstream = upstream
        self._tls = tls
        self._port: Any = None
        self._number = 0
        self._open: set[Any] = set()
        self._connecting: set[Any] = set()
        self._timers: set[Any] = set()
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._empty: Deferred[None] | None = None

    def listen(self) -> str:
        """Take a free port, or the same again. The endpoint."""
        factory = Factory.forProtocol(lambda: _Client(self))
        factory.noisy = False
        if self._tls is None:
            self._port = self._reactor.listenTCP(self._number, factory, interface="127.0.0.1")
        else:
            self._port = self._reactor.listenSSL(
                self._number, factory, self._tls, interface="127.0.0.1"
            )
        self._number = int(self._port.getHost().port)
        return self.endpoint

    up = listen

    @property
    def endpoint(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._number}"

    async def down(self) -> None:
        """Refuse connections, and reset those that are open, until `up`."""
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()
        await self.drop()

    close = down

    def drop(self) -> Deferred[None]:
        """Reset what is open. Fires when nothing is."""
        for timer in list(self._timers):
            timer.cancel()
        self._timers.clear()
        for connector in list(self._connecting):
            connector.stopConnecting()
        for transport in list(self._open):
            transport.abortConnection()
        return self.when_idle()

    def when_idle(self) -> Deferred[None]:
        """Fires when no connection is open."""
        if not self._open:
            return succeed(None)
        self._empty = Deferred()
        return self._empty

    def when_done(self, count: int) -> Deferred[None]:
        """Fires when `done` has at least `count` entries."""
        if len(self.done) >= count:
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda _: self._waiting.remove((count, waiter)))
        self._waiting.append((count, waiter))
        return waiter

    def kinds(self) -> list[Fault]:
        return [done.fault for done in self.done]

    # For the connections

    def next_fault(self, *, connecting: bool = False) -> Fault:
        fault = self.faults[0] if self.faults else self.mode
        if connecting and fault != "refuse":
            return "ok"
        if self.faults:
            del self.faults[0]
        return fault

    def did(self, fault: Fault, method: str = "", path: str = "") -> None:
        self.done.append(Done(fault, method, path))
        for entry in [entry for entry in self._waiting if entry[0] <= len(self.done)]:
            self._waiting.remove(entry)
            entry[1].callback(None)

    def opened(self, transport: Any) -> None:
        self._open.add(transport)

    def closed(self, transport: Any) -> None:
        self._open.discard(transport)
        if not self._open and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)

    def later(self, call: Any) -> None:
        def run() -> None:
            self._timers.discard(timer)
            call()

        timer = self._reactor.callLater(self.slow_seconds, run)
        self._timers.add(timer)

    def forward(self, request: bytes, client: _Client) -> None:
        factory = _Upstream(self, request, client)
        assert self._upstream is not None, "a proxy without an S3 behind it needs a fault"
        self._connecting.add(self._reactor.connectTCP("127.0.0.1", self._upstream, factory))

    def connected(self, connector: Any) -> None:
        self._connecting.discard(connector)


class _Client(Protocol):
    """One connection, and the one request it may make."""

    def __init__(self, proxy: S3Proxy) -> None:
        self._proxy = proxy
        self._data = b""
        self._body_at = 0
        self._length = 0
        self._what = ("", "")
        self._fault: Fault | None = None
        self._lost = False

    def connectionMade(self) -> None:
        self._proxy.opened(self.transport)
        if self._proxy.next_fault(connecting=True) == "refuse":
            self._fault = "refuse"
            self._abort()

    def connectionLost(self, reason: Any = None) -> None:
        self._lost = True
        self._proxy.closed(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if not self._body_at and b"\r\n\r\n" in self._data:
            self._head()
        if not self._body_at or self._fault == "done":
            return
        body = len(self._data) - self._body_at
        if self._fault == "cut" and body * 2 >= self._length:
            self._abort()
        elif self._fault == "hang":
            if body >= self._length:
                self._did()
        elif body >= self._length:
            self._whole()

    def _head(self) -> None:
        head, _, _ = self._data.partition(b"\r\n\r\n")
        self._body_at = len(head) + 4
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        self._length = int(headers.get("content-length", "0"))
        self._what = (first.split(" ")[0], first.split(" ")[1])
        self._fault = self._proxy.next_fault()
        if headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _whole(self) -> None:
        fault, proxy = self._fault, self._proxy
        self._proxy.received.append(self._data)
        if fault in ("ok", "lost"):
            proxy.forward(self._data, self)
        elif fault == "slow":
            proxy.later(lambda: proxy.forward(self._data, self))
        elif fault == "refuse":
            self._abort()
        else:
            canned = {"500": INTERNAL_ERROR, "503": SLOW_DOWN}
            answer = canned[fault] if isinstance(fault, str) else fault
            assert answer is not None
            self._answer(answer.encode())

    def answered(self, answer: bytes) -> None:
        """S3 has answered; b"" where it could not be reached or said nothing."""
        if self._fault == "lost" or not answer:
            self._abort()
        else:
            self._answer(answer)

    def _answer(self, data: bytes) -> None:
        if not self._lost:
            self.transport.write(data)
            self.transport.loseConnection()
        self._did()

    def _abort(self) -> None:
        if not self._lost:
            self.transport.abortConnection()
        self._did()

    def _did(self) -> None:
        fault, self._fault = self._fault, "done"
        assert fault is not None
        self._proxy.did(fault, *self._what)


class _Upstream(ClientFactory):
    """The connection to the S3 behind, for one request."""

    noisy = False

    def __init__(self, proxy: S3Proxy, request: bytes, client: _Client) -> None:
        self.proxy = proxy
        self.client = client
        head, _, body = request.partition(b"\r\n\r\n")
        self.request = head + b"\r\nConnection: close\r\n\r\n" + body

    def buildProtocol(self, addr: Any) -> Protocol:
        return _UpstreamProtocol(self)

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.proxy.connected(connector)
        self.client.answered(b"")


class _UpstreamProtocol(Protocol):
    def __init__(self, factory: _Upstream) -> None:
        self._factory = factory
        self._answer = b""

    def connectionMade(self) -> None:
        self._factory.proxy.connected(self.transport.connector)
        self._factory.proxy.opened(self.transport)
        self.transport.write(self._factory.request)

    def dataReceived(self, data: bytes) -> None:
        self._answer += data

    def connectionLost(self, reason: Any = None) -> None:
        self._factory.proxy.closed(self.transport)
        self._factory.client.answered(self._answer)
