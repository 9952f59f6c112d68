"""HTTP as bytes: a client that sends anything at all, and a reader of what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The words of ``{"error": words}``, the only member."""
        ((name, words),) = self.json.items()
        assert name == "error", name
        return words


def parse_responses(data: bytes, *, head: bool = False) -> list[Response]:
    """Every whole response in `data`; a body is as long as its Content-Length says.

    :param head: the responses answer HEAD, so none has a body
    """
    responses = []
    while b"\r\n\r\n" in data:
        block, data = data.split(b"\r\n\r\n", 1)
        first, *lines = block.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version in {"HTTP/1.1", "HTTP/1.0"}, first
        headers: dict[str, str] = {}
        for line in lines:
            name, value = line.split(": ", 1)
            assert name.lower() not in headers, f"{name} comes twice"
            headers[name.lower()] = value
        if status == "100":
            continue
        length = 0 if head else int(headers["content-length"])
        if len(data) < length:
            return responses
        responses.append(Response(int(status), headers, data[:length]))
        data = data[length:]
    assert not data, data
    return responses


def request(
    method: str = "GET",
    path: str = "/",
    *headers: str,
    body: bytes | None = None,
    host: str | None = "127.0.0.1:9811",
    version: str = "1.1",
) -> bytes:
    """One request as text; `headers` are whole lines."""
    lines = [f"{method} {path} HTTP/{version}", *headers]
    if host is not None:
        lines.append(f"Host: {host}")
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


class MemoryConnection:
    """One connection to `factory` without a socket."""

    def __init__(self, factory: Any) -> None:
        self.transport = StringTransport(lenient=True)
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> list[Response]:
        """Deliver `data`; every response to it that is there at once."""
        self.transport.clear()
        self.protocol.dataReceived(data)
        return parse_responses(self.transport.value())

    def lose(self) -> None:
        """The connection is gone."""
        self.protocol.connectionLost(Failure(connectionDone.value))


class RawClient(Protocol):
    """A client on a real socket."""

    def __init__(self) -> None:
        self.received = b""
        self.open = True
        self._closed: list[Deferred[bytes]] = []
        self._waiting: list[tuple[Callable[[bytes], bool], Deferred[bytes]]] = []

    @classmethod
    async def connect(cls, reactor: Any, port: int) -> RawClient:
        return await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), cls())

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for item in [*self._waiting]:
            if item[0](self.received):
                self._waiting.remove(item)
                item[1].callback(self.received)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = False
        closed, self._closed = self._closed, []
        for waiting in closed:
            waiting.callback(self.received)
        lost, self._waiting = self._waiting, []
        for _, deferred in lost:
            deferred.errback(reason)

    def until_closed(self) -> Deferred[bytes]:
        """Fires with everything received, when the server has closed the connection."""
        waiting: Deferred[bytes] = Deferred()
        if self.open:
            self._closed.append(waiting)
        else:
            waiting.callback(self.received)
        return waiting

    def until(self, enough: Callable[[bytes], bool]) -> Deferred[bytes]:
        """Fires once `enough` holds of what was received; fails if the connection ends before."""
        waiting: Deferred[bytes] = Deferred()
        if enough(self.received):
            waiting.callback(self.received)
        else:
            self._waiting.append((enough, waiting))
        return waiting
