"""`jetcamer join` against a small server on loopback: what it writes, and what it refuses."""

from __future__ import annotations

import argparse
import io
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.config import load_config
from jetcamer.cli import join, private_file
from tests.support.certs import Certificate, TestCA, self_signed
from tests.support.tools import ROOT

TOKEN = "jcj_a-token-that-nobody-may-see"
SECRET = "a-secret-that-nobody-may-see-0123456789"
OLD_SECRET = "an-old-secret-that-nobody-may-see"


class Hub(ThreadingHTTPServer):
    """Answers every POST with `answer`, and remembers what was asked."""

    daemon_threads = True

    def __init__(self, certificate: Certificate | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 201
        self.headers: dict[str, str] = {}
        self.answer: Any = {
            "agentId": "web-1",
            "secret": SECRET,
            "wsApiUrl": "wss://hub.example/agent",
        }
        self.requests: list[tuple[str, str | None, Any]] = []
        self.before_answer = lambda: None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.path_cert, certificate.path_key)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that refuses our certificate is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers["Authorization"], json.loads(body)))
        self.server.before_answer()
        answer = self.server.answer
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


class JoinCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.config = self.folder / "jetcamer" / "agent.config.json"
        self.patch(sys, "stdout", io.StringIO())
        self.patch(sys, "stderr", io.StringIO())

    def serve(self, certificate: Certificate | None = None) -> Hub:
        hub = Hub(certificate)
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(hub.server_close)
        self.addCleanup(hub.shutdown)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{hub.server_port}"
        return hub

    def join(self, *words: str, url: str | None = None, token: str = TOKEN) -> int:
        parser = argparse.ArgumentParser()
        join.add_arguments(parser)
        url = self.url if url is None else url
        args = parser.parse_args([url, token, "--config", str(self.config), *words])
        status = join.run(args)
        self.printed = sys.stdout.getvalue() + sys.stderr.getvalue()
        for hidden in (TOKEN, SECRET, OLD_SECRET):
            self.assertNotIn(hidden, self.printed)
        if self.config.parent.is_dir():
            self.assertIn(os.listdir(self.config.parent), ([], [self.config.name]))
        return status

    def refused(self, words: str, *arguments: str, **options: str) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.seek(0)
            stream.truncate()
        before = self.config.read_bytes() if self.config.exists() else None
        self.assertEqual(self.join(*arguments, **options), 1)
        lines = sys.stderr.getvalue().splitlines()
        self.assertEqual(len(lines), 1, lines)
        self.assertTrue(lines[0].startswith("jetcamer join: "), lines)
        self.assertIn(words, lines[0])
        self.assertEqual(sys.stdout.getvalue(), "")
        self.assertEqual(self.config.read_bytes() if self.config.exists() else None, before)

    def write(self, mode: int = 0o600, **members: Any) -> None:
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(json.dumps(members))
        self.config.chmod(mode)

    def written(self) -> dict[str, Any]:
        return json.loads(self.config.read_bytes())

    def mode(self) -> int:
        return stat.S_IMODE(self.config.stat().st_mode)


class JoinTests(JoinCase):
    def test_over_tls_with_an_authority_of_its_own(self) -> None:
        ca = TestCA(self.folder / "ca")
        hub = self.serve(ca.issue(ips=["127.0.0.1"]))
        self.addCleanup(os.umask, os.umask(0))
        status = self.join("--agent-id", "web-1", "--ca-file", os.path.relpath(ca.path_cert))
        self.assertEqual(status, 0, self.printed)
        self.assertEqual(hub.requests, [("/api/join", f"Bearer {TOKEN}", {"agentId": "web-1"})])
        self.assertEqual(
            self.written(),
            {
                "wsApiUrl": "wss://hub.example/agent",
                "wsSecret": SECRET,
                "instanceId": "web-1",
                "wsCaFile": ca.path_cert,
            },
        )
        self.assertEqual(self.mode(), 0o600)
        config, source = load_config(str(self.config), {})
        self.assertEqual(config.ws_secret, SECRET)
        self.assertEqual(source.warnings, ())
        self.assertEqual(
            sys.stdout.getvalue().splitlines(),
            [
                f"Joined {self.url} as web-1.",
                f"Wrote {self.config} ({private_file.owner_and_mode(self.config.stat())}).",
                "Nothing was started. Next: systemctl restart jetcamer-agent",
            ],
        )
        self.assertEqual(sys.stderr.getvalue(), "")

    def test_certificates_that_are_refused(self) -> None:
        ca = TestCA(self.folder / "ca")
        for certificate, words in (
            (ca.issue(dns=["hub.example"]), "the certificate is refused: IP address mismatch"),
            (self_signed(self.folder / "self", ips=["127.0.0.1"]), "name its authority with"),
            (TestCA(self.folder / "other").issue(ips=["127.0.0.1"]), "name its authority with"),
        ):
            hub = self.serve(certificate)
            self.refused(words, "--ca-file", ca.path_cert)
            self.assertEqual(hub.requests, [])
        self.refused("the certificate is refused")  # no --ca-file

    def test_the_authority_that_is_configured_is_trusted(self) -> None:
        ca = TestCA(self.folder / "ca")
        self.serve(ca.issue(ips=["127.0.0.1"]))
        self.write(wsCaFile=ca.path_cert)
        self.assertEqual(self.join(), 0, self.printed)
        self.assertEqual(self.written()["wsCaFile"], ca.path_cert)

    def test_ca_files_that_are_none(self) -> None:
        self.serve(TestCA(self.folder / "ca").issue(ips=["127.0.0.1"]))
        self.refused("No such file", "--ca-file", str(self.folder / "nothing"))
        (self.folder / "text").write_text("no certificate")
        self.refused("no certificate that can be read", "--ca-file", str(self.folder / "text"))

    def test_other_members_are_kept(self) -> None:
        self.serve()
        members = {"logPaths": ["/var/log/é"], "siteId": "x", "wsSecret": "", "unknown": [1.5]}
        self.write(mode=0o644, **members, instanceId="web-7")
        self.assertEqual(self.join(), 0, self.printed)
        self.assertEqual(
            self.written(),
            members
            | {"wsApiUrl": "wss://hub.example/agent", "wsSecret": SECRET, "instanceId": "web-1"},
        )
        self.assertIn("é", self.config.read_text("utf-8"))
        self.assertEqual(self.mode() & 0o007, 0)
        self.assertIn("unknown: unknown member", sys.stderr.getvalue())

    def test_which_name_is_asked_for(self) -> None:
        hub = self.serve()
        for configured, given, asked in (
            ({}, (), socket.gethostname()),
            ({"instanceId": "auto"}, (), socket.gethostname()),
            ({"instanceId": "web-7"}, (), "web-7"),
            ({"instanceId": "web-7"}, ("--agent-id", "é"), "é"),
        ):
            self.write(**configured)
            self.assertEqual(self.join(*given), 0, self.printed)
            self.assertEqual(hub.requests[-1][2], {"agentId": asked})

    def test_a_secret_is_replaced_only_by_force(self) -> None:
        hub = self.serve()
        self.write(wsSecret=OLD_SECRET)
        self.refused("holds a wsSecret already; --force replaces it")
        self.assertEqual(hub.requests, [])
        self.assertEqual(self.join("--force"), 0)
        self.assertEqual(self.written()["wsSecret"], SECRET)

    def test_the_token_from_standard_input(self) -> None:
        hub = self.serve()
        self.patch(sys, "stdin", io.StringIO(f"  {TOKEN}\nmore\n"))
        self.assertEqual(self.join(token="-"), 0, self.printed)
        self.assertEqual(hub.requests[0][1], f"Bearer {TOKEN}")
        self.patch(sys, "stdin", io.StringIO(""))
        self.write()
        self.refused("no join token", token="-")

    def test_tokens_that_are_none(self) -> None:
        hub = self.serve()
        for token in ("", " ", "a b", "a\r\nX-Other: b", "é", "x" * 513):
            self.refused("that is no join token", token=token)
        self.assertEqual(hub.requests, [])

    def test_urls_that_are_refused(self) -> None:
        for url, words in (
            ("http://hub.example/", "use https://"),
            ("http://10.0.0.1/", "use https://"),
            ("hub.example", "begins with https://"),
            ("wss://hub.example/agent", "begins with https://"),
            ("https://", "names no host"),
            ("https://a:99999/", "port cannot be read"),
            ("https://me:pass@hub.example/", "no user name"),
            ("https://hub.example/?a=b", "no query"),
        ):
            self.refused(words, url=url)
        self.assertFalse(self.config.parent.exists())

    def test_a_hub_below_a_path(self) -> None:
        hub = self.serve()
        hub.answer["wsApiUrl"] = None
        self.assertEqual(self.join(url=self.url + "/fleet/"), 0)
        self.assertEqual(hub.requests[0][0], "/fleet/api/join")
        self.assertEqual(
            self.written()["wsApiUrl"], f"ws://127.0.0.1:{hub.server_port}/fleet/agent"
        )

    def test_where_the_agent_connects_to(self) -> None:
        for told, base, url in (
            (None, "https://hub.example/", "wss://hub.example/agent"),
            ("", "https://hub.example:8443", "wss://hub.example:8443/agent"),
            ("ftp://x", "https://[2001:db8::1]/", "wss://[2001:db8::1]/agent"),
            ("wss://other.example/a", "https://hub.example/", "wss://other.example/a"),
            ("ws://HUB.example:9810/a", "https://hub.example/", "ws://HUB.example:9810/a"),
            ("ws://other.example/a", "http://localhost/", "ws://other.example/a"),
        ):
            joined = join._Joined("web-1", SECRET, told)
            self.assertEqual(join._websocket_url(joined, join._parse_url(base)), url)

    def test_a_hub_that_sends_its_agents_elsewhere_without_tls(self) -> None:
        ca = TestCA(self.folder / "ca")
        hub = self.serve(ca.issue(ips=["127.0.0.1"]))
        hub.answer["wsApiUrl"] = "ws://evil.example/agent"
        self.refused("another machine and without TLS", "--ca-file", ca.path_cert)

    def test_what_the_hub_refuses(self) -> None:
        hub = self.serve()
        for status, headers, answer, words in (
            (401, {}, {"error": "no"}, "the join token is not valid"),
            (409, {}, {"error": "exists"}, "knows an agent 'web-1' already"),
            (429, {"Retry-After": "30"}, {"error": "x"}, "try again in 30 s"),
            (429, {"Retry-After": "soon"}, {"error": "x"}, "try again in a while"),
            (400, {}, {"error": "bad\n\x1b[1mid"}, "refused with status 400: bad\\n\\x1b[1mid"),
            (405, {}, b"the method is not GET", "status 405: that is the agents' port; the API's"),
            (426, {}, b"", "that is the agents' port"),
            (400, {}, b"this is a port for TLS", "refused with status 400: is it https://?"),
            (404, {}, b"<html>", "refused with status 404: is that the hub's URL?"),
            (301, {"Location": "https://a/"}, b"", "redirection (301)"),
            (200, {}, b"hello", "refused with status 200"),
            (201, {}, b"hello", "not that of a JetCamer hub"),
            (201, {}, {"agentId": "web-1", "secret": ""}, "not that of a JetCamer hub"),
            (201, {}, {"agentId": "web-1", "secret": 5}, "not that of a JetCamer hub"),
            (201, {}, b"\xff", "not that of a JetCamer hub"),
        ):
            hub.status, hub.headers, hub.answer = status, headers, answer
            self.refused(words, "--agent-id", "web-1")

    def test_connections_that_fail(self) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
            self.refused("connection refused", url=f"http://127.0.0.1:{port}")
        self.serve()
        self.refused("TLS failed", url=self.url.replace("http:", "https:"))
        self.serve(TestCA(self.folder / "ca").issue(ips=["127.0.0.1"]))
        self.refused("", url=self.url.replace("https:", "http:"))

        def unknown(*arguments: object, **options: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        self.patch(socket, "getaddrinfo", unknown)
        self.refused("the name hub.example cannot be resolved", url="https://hub.example/")

    def test_a_server_that_says_nothing(self) -> None:
        self.patch(join, "_TIMEOUT", 0.05)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            self.refused("no answer within 0.05 s", url=f"http://127.0.0.1:{port}")


class FileTests(JoinCase):
    def test_a_place_that_cannot_be_written_costs_no_token(self) -> None:
        hub = self.serve()
        self.config = self.folder / "a" / "b" / "agent.config.json"
        self.refused("cannot be written: No such file or directory")
        self.config = self.folder / "folder"
        self.config.mkdir()
        self.assertEqual(self.join(), 1)
        self.assertIn("cannot be written", self.printed)
        self.config = self.folder / "fifo" / "agent.config.json"
        self.config.parent.mkdir()
        os.mkfifo(self.config)
        self.assertEqual(self.join(), 1)
        self.assertIn("Not a regular file", self.printed)
        self.config = self.folder / "full" / "agent.config.json"

        def full(fd: int, offset: int, length: int) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "posix_fallocate", full)
        self.refused("No space left on device")
        self.patch(os, "access", lambda *arguments, **options: False)
        self.write()
        self.refused("Permission denied")
        self.assertEqual(hub.requests, [])

    def test_a_file_that_is_wrong_is_not_replaced(self) -> None:
        hub = self.serve()
        self.config.parent.mkdir()
        for content in ('{"a":', "[]", '{"logPaths": 5}', '{"a":1,"a":2}'):
            self.config.write_text(content)
            self.refused("mend or remove the file first")
        self.assertEqual(hub.requests, [])
        self.config.write_text("\n")
        self.assertEqual(self.join(), 0, self.printed)

    def test_where_writing_fails_after_all(self) -> None:
        hub = self.serve()
        self.write(siteId="x")

        def refuse(*arguments: object) -> None:
            raise OSError(5, "Input/output error")

        hub.before_answer = lambda: self.patch(os, "replace", refuse)
        self.refused("could not be written: Input/output error; rotate its secret on the hub")
        self.assertEqual(self.written(), {"siteId": "x"})

    def test_a_link_is_followed(self) -> None:
        self.serve()
        self.write(siteId="x")
        target = self.config
        self.config = self.folder / "link.json"
        self.config.symlink_to(target)
        parser = argparse.ArgumentParser()
        join.add_arguments(parser)
        args = parser.parse_args([self.url, TOKEN, "--config", str(self.config)])
        self.assertEqual(join.run(args), 0)
        self.assertTrue(self.config.is_symlink())
        self.assertEqual(json.loads(target.read_text())["wsSecret"], SECRET)

    def test_the_environment_names_the_file(self) -> None:
        self.serve()
        self.patch(os, "environ", os.environ | {"JETCAMER_AGENT_CONFIG": str(self.config)})
        parser = argparse.ArgumentParser()
        join.add_arguments(parser)
        self.assertEqual(join.run(parser.parse_args([self.url, TOKEN])), 0)
        self.assertEqual(self.written()["wsSecret"], SECRET)

    def test_who_may_read_it(self) -> None:
        """A service that is not root's goes on reading a file of root's, and nobody else does."""

        def status(mode: int, uid: int, gid: int) -> os.stat_result:
            return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))

        for service, euid, before, wanted in (
            (None, 0, None, (-1, -1, 0o600)),
            ((990, 991), 0, None, (990, 991, 0o600)),
            ((990, 991), 1000, None, (-1, -1, 0o600)),
            (None, 0, status(0o644, 0, 0), (0, 0, 0o600)),
            ((990, 991), 0, status(0o644, 0, 0), (0, 991, 0o640)),
            (None, 0, status(0o664, 0, 991), (0, 991, 0o640)),
            (None, 0, status(0o604, 0, 991), (0, 991, 0o600)),
            ((990, 991), 0, status(0o644, 990, 991), (990, 991, 0o600)),
            (None, 1000, status(0o664, 1000, 1000), (1000, 1000, 0o600)),
        ):
            self.patch(private_file, "_service", lambda found=service: found)
            self.patch(os, "geteuid", lambda euid=euid: euid)
            self.assertEqual(private_file._wanted(before), wanted)

    def test_the_mode_is_the_one_that_is_wanted(self) -> None:
        self.serve()
        self.patch(private_file, "_wanted", lambda status: (-1, -1, 0o640))
        self.assertEqual(self.join(), 0)
        self.assertEqual(self.mode(), 0o640)
        group = private_file._name_of_group(os.getegid())
        self.assertIn(f", group {group}, mode 0640)", self.printed)

    def test_no_reactor_and_no_part_of_the_hub(self) -> None:
        program = (
            "import sys, jetcamer.cli.join\n"
            "print([name for name in sys.modules if name == 'twisted.internet.reactor' "
            "or name.startswith(('jetcamer.hub', 'cryptography'))])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        self.assertEqual(done.stdout, "[]\n")
