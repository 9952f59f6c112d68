"""An EC2 instance metadata service over real sockets, that fails on request.

In a test: ``imds = FakeIMDS(); base = imds.listen(reactor)``, then set ``imds.faults`` and
``imds.items``; end with ``await imds.close()``. As a program: ``python -m tests.support.imds``
prints its port; what it answers is changed with ``PUT /_fault/<path>`` (body: the fault, empty to
heal) and ``PUT /_item/<path>`` (body: the value, empty to remove).

Faults, by path ("token", "public-ipv4", …, "*" for all): an HTTP status; ``slow`` (never
answers), ``drip`` (one byte of the body, and no more), ``garbage`` (a web page with status 200),
``huge`` (64 KiB), ``close`` (the connection is reset), ``redirect``.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

TOKEN_HEADER = "x-aws-ec2-metadata-token"
TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
ITEMS = {
    "instance-id": "i-0123456789abcdef0",
    "public-ipv4": "54.123.45.67",
    "placement/region": "eu-west-1",
    "placement/availability-zone": "eu-west-1b",
}
PAGE = b"<!DOCTYPE html>\n<html><title>Hotel Wi-Fi</title><p>Please accept the terms.</html>\n"


class FakeIMDS:
    """`token_required` is what an instance with IMDSv2 only does; an old service, which knows no
    tokens at all, has it False and the fault ``token: 404``."""

    def __init__(self, items: dict[str, str] | None = None, *, token_required: bool = True) -> None:
        self.items = dict(ITEMS if items is None else items)
        self.faults: dict[str, str] = {}
        self.token_required = token_required
        self.tokens: set[str] = set()
        #: What came in: ("PUT", "token"), ("GET", "instance-id"), …
        self.requests: list[tuple[str, str]] = []
        #: The Host headers that came with it.
        self.hosts: set[str | None] = set()
        self.connections = 0
        self._open: set[Any] = set()
        self._port: Any = None
        self._empty: Deferred[None] | None = None

    def listen(self, reactor: Any, interface: str = "127.0.0.1") -> str:
        """Answer on a free port of a loopback address. The base address of the service."""
        self._port = reactor.listenTCP(0, _CountingSite(self), interface=interface)
        return f"http://{f'[{interface}]' if ':' in interface else interface}:{self.port}"

    @property
    def port(self) -> int:
        return int(self._port.getHost().port)

    async def close(self) -> None:
        """Stop listening; drop what is open; return when nothing is left."""
        await self._port.stopListening()
        for channel in list(self._open):
            channel.transport.abortConnection()
        await self.drained()

    async def drained(self) -> None:
        """Return when the clients have closed all their connections."""
        if self._open:
            self._empty = Deferred()
            await self._empty

    def expire_tokens(self) -> None:
        self.tokens.clear()

    def asked(self, path: str) -> int:
        return sum(1 for _, asked in self.requests if asked == path)

    def answer(self, request: Request) -> Any:
        method = request.method.decode("ascii")
        path = request.path.decode("ascii")
        if method == "PUT" and path.startswith(("/_fault/", "/_item/")):
            return self._configure(path, request.content.read().decode())
        is_token = path == "/latest/api/token"
        name = "token" if is_token else path.removeprefix("/latest/meta-data/")
        self.requests.append((method, name))
        self.hosts.add(request.getHeader("host"))
        request.setHeader(b"server", b"EC2ws")
        request.setHeader(b"content-type", b"text/plain")
        fault = self.faults.get(name) or self.faults.get("*")
        if fault is not None:
            return self._fail(request, fault)
        if request.getHeader("x-forwarded-for") is not None:
            return _status(request, 403)
        if is_token:
            return self._give_token(request, method)
        token = request.getHeader(TOKEN_HEADER)
        if token not in self.tokens and (token is not None or self.token_required):
            return _status(request, 401)
        if name not in self.items:
            return _status(request, 404)
        return self.items[name].encode()

    def _give_token(self, request: Request, method: str) -> bytes:
        if method != "PUT":
            return _status(request, 405)
        ttl = request.getHeader(TTL_HEADER) or ""
        if not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            return _status(request, 400)
        token = secrets.token_urlsafe(40) + "=="
        self.tokens.add(token)
        request.setHeader(TTL_HEADER.encode(), ttl.encode())
        return token.encode()

    def _fail(self, request: Request, fault: str) -> Any:
        if fault.isdigit():
            return _status(request, int(fault))
        if fault == "slow":
            return NOT_DONE_YET
        if fault == "drip":
            request.setHeader(b"content-length", b"20")
            request.write(b"i")
            return NOT_DONE_YET
        if fault == "garbage":
            request.setHeader(b"content-type", b"text/html")
            return PAGE
        if fault == "huge":
            return b"i-0123456789abcdef0 " * 3277
        if fault == "redirect":
            request.setHeader(b"location", b"/latest/meta-data/instance-id")
            return _status(request, 302)
        assert fault == "close", fault
        request.channel.transport.abortConnection()
        return NOT_DONE_YET

    def _configure(self, path: str, value: str) -> bytes:
        kind, _, name = path[2:].partition("/")
        table = self.faults if kind == "fault" else self.items
        if value:
            table[name] = value
        else:
            table.pop(name, None)
        return b""

    def opened(self, channel: Any) -> None:
        self.connections += 1
        self._open.add(channel)

    def closed(self, channel: Any) -> None:
        self._open.discard(channel)
        if not self._open and self._empty is not None:
            empty, self._empty = self._empty, None
            empty.callback(None)


def _status(request: Request, code: int) -> bytes:
    request.setResponseCode(code)
    return f"{code}\n".encode()


class _Root(Resource):
    isLeaf = True

    def __init__(self, imds: FakeIMDS) -> None:
        super().__init__()
        self._imds = imds

    def render(self, request: Request) -> Any:
        return self._imds.answer(request)


class _CountingSite(Site):
    def __init__(self, imds: FakeIMDS) -> None:
        super().__init__(_Root(imds), timeout=None)
        self._imds = imds

    def buildProtocol(self, addr: Any) -> Any:
        channel = super().buildProtocol(addr)
        lost = channel.connectionLost

        def connection_lost(reason: Any) -> None:
            lost(reason)
            self._imds.closed(channel)

        channel.connectionLost = connection_lost
        self._imds.opened(channel)
        return channel

    def log(self, request: Any) -> None:
        pass


def main(arguments: list[str]) -> None:
    """Each argument is ``path=fault``; ``v1`` stands for a service without tokens."""
    from twisted.internet import reactor

    imds = FakeIMDS()
    for argument in arguments:
        if argument == "v1":
            imds.token_required = False
            imds.faults["token"] = "404"
        else:
            path, _, fault = argument.partition("=")
            imds.faults[path] = fault
    imds.listen(reactor)
    print(imds.port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
