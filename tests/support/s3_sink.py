"""An S3 that takes objects and forgets them, in a process of its own: as fast as there is, or slow.

    python -m tests.support.s3_sink [BYTES_PER_SECOND]

Every bucket is there. A PUT is answered once its body has been read. Prints one JSON object a line:
``{"event": "listening", "port"}``, and for each line on standard input
``{"event": "totals", "puts", "objects", "lines", "bytes"}``: of objects, the last content counts.
No signature is looked at.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

from tests.support.line_process import LineProcess
from tests.support.tools import ROOT


class S3Sink(LineProcess[dict[str, Any]]):
    """The driver's side; `url` is what ``AWS_ENDPOINT_URL_S3`` wants."""

    def __init__(self, reactor: Any, bytes_per_second: float = 0) -> None:
        super().__init__(reactor)
        self._rate = bytes_per_second
        self.url = ""

    def parse(self, line: str) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(line)
        return event

    async def start(self) -> S3Sink:
        argv = [sys.executable, "-m", "tests.support.s3_sink", str(self._rate)]
        self.spawn(argv, {"PYTHONPATH": str(ROOT)}, str(ROOT))
        listening = await self.wait_for(lambda event: event["event"] == "listening")
        self.url = f"http://127.0.0.1:{listening['port']}"
        return self

    async def totals(self) -> dict[str, int]:
        before = len(self.events)
        self.write_line("totals")
        totals: dict[str, int] = await self.wait_for(
            lambda event: event["event"] == "totals", since=before
        )
        return totals


class Store:
    """What all connections share.

    :param rate: bytes a second of all of them together; 0 is without a limit.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.free_at = 0.0
        self.puts = 0
        self.objects: dict[bytes, tuple[int, int]] = {}

    def put(self, key: bytes, body_lines: int, size: int) -> None:
        self.puts += 1
        self.objects[key] = (body_lines, size)

    def totals(self) -> dict[str, int]:
        return {
            "puts": self.puts,
            "objects": len(self.objects),
            "lines": sum(lines for lines, _ in self.objects.values()),
            "bytes": sum(size for _, size in self.objects.values()),
        }


class Connection(asyncio.Protocol):
    def __init__(self, store: Store) -> None:
        self._store = store
        self._head = b""
        self._target = b""
        self._lines = 0
        self._size = 0
        self._wanted = -1  # bytes of the body that are to come; -1: a head is

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._slow_down(len(data))
        while data:
            if self._wanted < 0:
                head, end, data = (self._head + data).partition(b"\r\n\r\n")
                self._head = b"" if end else head
                if end:
                    self._begin(head)
            else:
                piece, data = data[: self._wanted], data[self._wanted :]
                self._wanted -= len(piece)
                self._size += len(piece)
                self._lines += piece.count(b"\n")
            if self._wanted == 0:
                self._end()

    def _begin(self, head: bytes) -> None:
        first, *fields = head.split(b"\r\n")
        named = dict(field.lower().split(b":", 1) for field in fields)
        self._target = first.split(b" ")[1] if first.startswith(b"PUT ") else b""
        self._lines = self._size = 0
        self._wanted = int(named.get(b"content-length", b"0"))
        if b"100-continue" in named.get(b"expect", b""):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _end(self) -> None:
        self._wanted = -1
        if self._target.count(b"/") > 1:
            self._store.put(self._target, self._lines, self._size)
        self._transport.write(b'HTTP/1.1 200 OK\r\nETag: "taken"\r\nContent-Length: 0\r\n\r\n')

    def _slow_down(self, size: int) -> None:
        store = self._store
        if not store.rate:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        store.free_at = max(now, store.free_at) + size / store.rate
        self._transport.pause_reading()
        loop.call_at(store.free_at, self._resume)

    def _resume(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()


async def serve(rate: float) -> None:
    store = Store(rate)
    listening = socket.create_server(("127.0.0.1", 0))
    if rate:  # what the kernel holds would not be slow
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(store), sock=listening)
    print(json.dumps({"event": "listening", "port": listening.getsockname()[1]}), flush=True)

    def asked() -> None:
        if not sys.stdin.readline():
            server.close()
            loop.remove_reader(sys.stdin)
            return
        print(json.dumps({"event": "totals", **store.totals()}), flush=True)

    loop.add_reader(sys.stdin, asked)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]) if len(sys.argv) > 1 else 0))
