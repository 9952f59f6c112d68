"""`jetcamer hub`: which hub, with which token, and what is said when it does not work."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.cli.hub import client as client_module
from jetcamer.cli.hub.client import HubClient, path_of
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.settings import Settings
from tests.cli_hub.fake_hub import TOKEN, FakeHub, ShellCase
from tests.support.certs import TestCA


class SettingsTests(SynchronousTestCase):
    def test_urls(self) -> None:
        for given, url in (
            ("http://127.0.0.1:9812", "http://127.0.0.1:9812"),
            ("http://localhost/", "http://localhost"),
            ("http://[::1]:9812/hub/", "http://[::1]:9812/hub"),
            ("https://Hub.Example:443", "https://hub.example"),
            ("https://hub.example:9/a/b", "https://hub.example:9/a/b"),
        ):
            self.assertEqual(Settings(given).url, url)

    def test_wrong_urls(self) -> None:
        for url, said in (
            ("hub.example", "not the URL of a hub"),
            ("ws://hub.example", "not the URL of a hub"),
            ("https://", "not the URL of a hub"),
            ("https://hub.example/?x=1", "not the URL of a hub"),
            ("https://hub.example:port", "not a URL"),
            ("https://a\x1bb", "characters"),
            ("https://hub.example/a b", "characters"),
            ("https://alice:pa55word@hub.example", "user or password"),
        ):
            words = str(self.assertRaises(HubError, Settings, url))
            self.assertIn(said, words)
            self.assertNotIn("pa55word", words)
            self.assertTrue(words.isprintable())

    def test_a_token_does_not_travel_readable(self) -> None:
        for host in ("hub.example", "192.0.2.1", "localhost.example", "[2001:db8::1]", "0.0.0.0"):
            words = str(self.assertRaises(HubError, Settings, f"http://{host}:9812"))
            self.assertIn("--insecure-http", words)
            Settings(f"http://{host}:9812", insecure_http=True)
        for host in ("127.0.0.1", "127.9.9.9", "localhost", "[::1]"):
            self.assertTrue(Settings(f"http://{host}").is_loopback)

    def test_no_token_is_shown(self) -> None:
        self.assertNotIn(TOKEN, repr(Settings(token=TOKEN)))

    def test_paths(self) -> None:
        self.assertEqual(
            path_of("agents", "../a?b#c%", "logs"), "/api/agents/..%2Fa%3Fb%23c%25/logs"
        )


class TokenTests(ShellCase):
    def token_used(self) -> str:
        return self.hub.requests[-1].headers["Authorization"].removeprefix("Bearer ")

    def setUp(self) -> None:
        super().setUp()
        self.hub.answer("GET", "/api/status", {"ready": True})
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def written(self, text: str, name: str = "token") -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def test_from_where(self) -> None:
        """The option before the environment, the environment before the file of the user."""
        self.written("of-the-user\n", "jetcamer/hub-token")
        environ = {"XDG_CONFIG_HOME": str(self.folder)}
        self.shell("status", JETCAMER_HUB_TOKEN="", **environ)
        self.assertEqual(self.token_used(), "of-the-user")
        self.shell("status", JETCAMER_HUB_TOKEN="of-the-environment", **environ)
        self.assertEqual(self.token_used(), "of-the-environment")
        self.shell("status", "--token-file", self.written("of-the-option"), **environ)
        self.assertEqual(self.token_used(), "of-the-option")
        home = {"HOME": str(self.folder)}
        self.written("of-home", ".config/jetcamer/hub-token")
        self.shell("status", JETCAMER_HUB_TOKEN="", **home)
        self.assertEqual(self.token_used(), "of-home")

    def test_missing(self) -> None:
        self.assertEqual(self.shell("status", JETCAMER_HUB_TOKEN=""), 1)
        self.assertIn("no API token: put one into", self.one_line())
        self.assertEqual(self.shell("status", "--token-file", "/nowhere/token"), 1)
        self.assertIn("/nowhere/token: No such file or directory", self.one_line())
        self.assertEqual(self.hub.requests, [])

    def test_not_a_token(self) -> None:
        """What no header can carry is not sent, and not shown."""
        for text in ("", "two words", "a\nb", "\x00", "geheim-ä"):
            path = self.written(text)
            self.assertEqual(self.shell("status", "--token-file", path), 1)
            self.assertIn("does not hold an API token", self.one_line())
            self.assertNotIn(text or "-", self.err.replace(path, ""))
        self.assertEqual(self.shell("status", JETCAMER_HUB_TOKEN="two words"), 1)
        self.assertIn("JETCAMER_HUB_TOKEN does not hold", self.one_line())
        self.assertEqual(self.hub.requests, [])


class ErrorTests(ShellCase):
    """Every failure is one line that says what to do, and status 1."""

    def fails(self, *words: str, **environ: str) -> str:
        self.assertEqual(self.shell(*words or ("show", "x"), **environ), 1)
        self.assertEqual(self.out, "")
        self.assertNotIn(TOKEN, self.err)
        return self.one_line()

    def test_statuses(self) -> None:
        for status, body, headers, said in (
            (401, {"error": "no"}, {}, "does not accept the token from JETCAMER_HUB_TOKEN (no)"),
            (403, {"error": "this needs the role admin"}, {}, "role admin: use the token of"),
            (403, {"error": "this Host is not"}, {}, "put 127.0.0.1 into apiNames"),
            (403, b"", {}, "the hub refuses that: it does not say why"),
            (404, {"error": "no agent is called x"}, {}, "show: no agent is called x"),
            (404, b"<html>", {}, "is it the hub's API?"),
            (426, b"", {}, "status 426: that is the agents' port; the API's is another"),
            (405, b"the method is not GET", {}, "that is the agents' port"),
            (400, b"this is a port for TLS", {}, "is it https://?"),
            (409, {"error": "x is away"}, {}, "show: x is away"),
            (429, {"error": "slow"}, {"Retry_After": "30"}, "(slow), try again in 30 s"),
            (429, {"error": "slow"}, {"Retry_After": "soon"}, "a while (slow)"),
            (503, {"error": "draining"}, {"Retry_After": "5"}, "not ready (draining), try again"),
            (504, {"error": "no answer within 30 s"}, {}, "show: no answer within 30 s"),
            (500, b"", {}, "answered with status 500"),
            (301, b"", {"Location": "https://other\x9b"}, "points to https://other\\x9b"),
            (400, {"error": "a\x1b[2Jb\nc"}, {}, "show: a\\x1b[2Jb\\nc"),
            (400, {"error": "long " * 1000}, {}, "long long"),
            (200, b"hello", {}, "not a hub's"),
            (200, b"[]", {}, "not a hub's"),
            (200, b"[" * 100_000, {}, "not a hub's"),
        ):
            fake = FakeHub()
            self.addCleanup(fake.stop)
            fake.answer("GET", "/api/agents/x", body, status, **headers)
            line = self.fails(JETCAMER_HUB_URL=fake.url)
            self.assertIn(said, line)
            self.assertLess(len(line), 600)

    def test_nobody_there(self) -> None:
        free = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        free.close()
        line = self.fails("show", "x", "--url", url)
        self.assertIn(f"nothing listens at {url}: is the hub running", line)

    def test_no_such_host(self) -> None:
        def no_address(*args: Any, **more: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        self.patch(socket, "getaddrinfo", no_address)
        line = self.fails("show", "x", "--url", "https://hub.invalid")
        self.assertIn("no host is called hub.invalid", line)

    def test_slow(self) -> None:
        """Silence, and an answer that never ends, come to an end."""
        self.hub.let.clear()
        client = HubClient(Settings(self.hub.url, TOKEN), timeout=0.05)
        self.addCleanup(client.close)
        error = self.assertRaises(HubError, client.get, "/api/status")
        self.assertEqual(str(error), f"{self.hub.url} did not answer within 0.05 s")
        self.assertTrue(error.passes)

    def test_dripping(self) -> None:
        self.hub.answer("GET", "/api/status", b"{}")
        client = HubClient(Settings(self.hub.url, TOKEN), timeout=-1.0)
        self.patch(client, "_connection", lambda timeout: HubClient._connection(client, 5.0))
        error = self.assertRaises(HubError, client.get, "/api/status")
        self.assertIn("did not answer", str(error))

    def test_too_large(self) -> None:
        self.patch(client_module, "_ANSWER_BYTES", 1000)
        self.hub.answer("GET", "/api/agents/x", b'"' + b"x" * 2000 + b'"')
        self.assertIn("too large", self.fails())

    def test_broken_off(self) -> None:
        self.hub.answer("GET", "/api/agents/x", b'{"agentId"', length=100)
        self.assertIn("broke off", self.fails())

    def test_another_protocol(self) -> None:
        """A server of something else, and TLS where there is none."""
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)

        def greet() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                connection.recv(10)
                connection.sendall(b"220 mail.example ESMTP\r\n")
                connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        self.addCleanup(thread.join)
        port = server.getsockname()[1]
        self.assertIn("is not a hub", self.fails("show", "x", "--url", f"http://127.0.0.1:{port}"))
        self.assertIn("no TLS", self.fails("show", "x", "--url", f"https://127.0.0.1:{port}"))

    def test_a_kept_connection_that_is_gone(self) -> None:
        """A GET is sent once more on a new one; what changes something uses only new ones."""
        self.hub.answer("GET", "/api/status", {"ready": True})
        self.hub.answer("POST", "/api/backup", {"path": "/p", "size": 1})
        client = HubClient(Settings(self.hub.url, TOKEN))
        self.addCleanup(client.close)
        client.get("/api/status")
        client.get("/api/status")
        self.assertEqual(self.hub.connections, 1)
        client._kept.sock.shutdown(socket.SHUT_RDWR)
        client.get("/api/status")
        self.assertEqual(self.hub.connections, 2)
        client.post("/api/backup")
        self.assertEqual(self.hub.connections, 3)


class TLSTests(ShellCase):
    def setUp(self) -> None:
        super().setUp()
        self.ca = TestCA(self.mktemp())

    def at(self, **names: Any) -> str:
        fake = FakeHub(self.ca.issue(**names))
        self.addCleanup(fake.stop)
        fake.answer("GET", "/api/status", {"ready": True})
        self.secure = fake
        return fake.url

    def test_verified(self) -> None:
        url = self.at(ips=["127.0.0.1"])
        self.assertEqual(self.shell("status", "--url", url, "--ca-file", self.ca.path_cert), 0)
        self.assertEqual(
            self.shell("status", "--url", url, JETCAMER_HUB_CA_FILE=self.ca.path_cert), 0
        )

    def test_not_trusted(self) -> None:
        """An authority nobody named, and a name that is not the certificate's: no token is sent."""
        url = self.at(ips=["127.0.0.1"])
        self.assertEqual(self.shell("status", "--url", url), 1)
        self.assertIn("is not trusted", self.one_line())
        self.assertIn("--ca-file", self.one_line())
        self.assertEqual(self.secure.requests, [])
        url = self.at(dns=["hub.example"])
        self.assertEqual(self.shell("status", "--url", url, "--ca-file", self.ca.path_cert), 1)
        self.assertIn("127.0.0.1", self.one_line())
        self.assertEqual(self.secure.requests, [])

    def test_no_authorities(self) -> None:
        empty = os.path.join(self.ca.folder, "empty.pem")
        Path(empty).write_text("")
        for path in (empty, "/nowhere/ca.pem"):
            status = self.shell("status", "--url", "https://127.0.0.1:1", "--ca-file", path)
            self.assertEqual(status, 1)
            self.assertIn(f"cannot read certificates from {path}", self.one_line())
