"""A hub's HTTP API with canned answers, on a thread of its own, and a shell in front of it."""

from __future__ import annotations

import argparse
import io
import json
import os
import ssl
import sys
import threading
from collections.abc import Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.cli import hub
from jetcamer.cli.hub.arguments import Parser
from jetcamer.cli.hub.context import Context
from tests.cli_hub.answers import NOW

TOKEN = "jca_0123456789abcdef"


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]
    #: The length that is announced; None: the true one.
    length: int | None = None


class FakeHub:
    """Answers each request with what `answer` and `events` have put there, else with 404.

    Several answers for one place are given one after the other; the last one stays.
    """

    def __init__(self, certificate: Any = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._answers: dict[tuple[str, str], list[Answer]] = {}
        self._streams: list[bytes | Answer] = []
        #: Held back while it is not set.
        self.let = threading.Event()
        self.let.set()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def setup(self) -> None:
                fake.connections += 1
                super().setup()

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                fake.respond(self)

            do_POST = do_DELETE = do_GET

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *args: Any) -> None:
                """A client that leaves is not ours to report."""

        self._server = Server(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.path_cert, certificate.path_key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.port = self._server.server_port
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.let.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(
        self,
        method: str,
        path: str,
        body: object,
        status: int = 200,
        length: int | None = None,
        **headers: str,
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = Answer(status, data, named, length)
        self._answers.setdefault((method, path), []).append(answer)

    def forget(self) -> None:
        self._answers.clear()

    def stream(self, *connections: bytes | Answer) -> None:
        """What the connections to /api/events get, one after the other, before each breaks."""
        self._streams += connections

    def respond(self, handler: Any) -> None:
        parts = urlsplit(handler.path)
        data = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.requests.append(
            Request(
                handler.command,
                parts.path,
                dict(parse_qsl(parts.query)),
                dict(handler.headers),
                json.loads(data) if data else None,
            )
        )
        self.let.wait(20)
        if parts.path == "/api/events" and self._streams:
            stream = self._streams.pop(0)
            if isinstance(stream, bytes):
                handler.close_connection = True
                handler.send_response(200)
                handler.send_header("Content-Type", "text/event-stream")
                handler.send_header("Transfer-Encoding", "chunked")
                handler.end_headers()
                # In two chunks, and no last one: a connection that breaks.
                for chunk in (stream[:7], stream[7:]):
                    if chunk:
                        handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                return
            answer = stream
        else:
            answers = self._answers.get((handler.command, parts.path))
            if not answers:
                answer = Answer(404, b'{"error": "no such thing"}', {})
            else:
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        length = len(answer.body) if answer.length is None else answer.length
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(answer.body)
        handler.close_connection = answer.length is not None


def event(event_id: str, kind: str, **data: object) -> bytes:
    return f"id: {event_id}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


class Stream(io.StringIO):
    def __init__(self, text: str = "", *, tty: bool = False, encoding: str = "utf-8") -> None:
        super().__init__(text)
        self._tty = tty
        self._encoding = encoding

    @property
    def encoding(self) -> str:
        return self._encoding

    def isatty(self) -> bool:
        return self._tty


class ShellCase(SynchronousTestCase):
    """`self.shell("agents", "--json")` runs `jetcamer hub agents --json` against `self.hub`."""

    def setUp(self) -> None:
        self.hub = FakeHub()
        self.addCleanup(self.hub.stop)
        self.environ = {
            "JETCAMER_HUB_URL": self.hub.url,
            "JETCAMER_HUB_TOKEN": TOKEN,
            "HOME": self.mktemp(),
            "TZ": "UTC",
        }
        self.out = self.err = ""
        self.slept: list[float] = []
        self.patch(
            hub, "Context", partial(Context, sleep=self.slept.append, now=lambda: NOW / 1000)
        )

    def shell(
        self,
        *words: str,
        stdin: str = "",
        tty: bool = False,
        tty_in: bool = False,
        columns: int = 80,
        encoding: str = "utf-8",
        **environ: str,
    ) -> int:
        """The exit status; `out` and `err` are what was printed."""
        out, err = Stream(tty=tty, encoding=encoding), Stream(tty=tty, encoding=encoding)
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        self.patch(sys, "stdin", Stream(stdin, tty=tty_in))
        self.patch(os, "environ", {**self.environ, "COLUMNS": str(columns), **environ})
        try:
            return hub.run(parse(words))
        except SystemExit as ended:
            return int(ended.code or 0)
        finally:
            self.out, self.err = out.getvalue(), err.getvalue()

    def json(self, *words: str, status: int = 0) -> Any:
        """What `--json` prints: one document."""
        self.assertEqual((self.shell(*words, "--json"), self.err), (status, ""))
        return json.loads(self.out)

    def rows(self, *words: str, **options: Any) -> list[list[str]]:
        """The table's cells, of lines whose cells stand two spaces apart."""
        self.assertEqual((self.shell(*words, **options), self.err), (0, ""))
        return [
            [cell.strip() for cell in line.split("  ") if cell.strip()]
            for line in self.out.splitlines()
        ]

    def one_line(self) -> str:
        (line,) = self.err.splitlines()
        return line


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="jetcamer hub")
    parser.set_defaults(run=hub.run)
    hub.add_arguments(parser)
    return parser.parse_args(list(words))
