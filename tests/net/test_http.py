"""Who may ask, and what comes back: guard, routes and errors, in memory."""

from __future__ import annotations

import json
from typing import Any

from treq.testing import StubTreq
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import server
from twisted.web.http import Request

from jetcamer.net import http
from jetcamer.net.http import Answer, Guard, HTTPError, Routes, read_json
from jetcamer.net.http_site import JSONSite
from tests.support.raw_http import MemoryConnection, Response, parse_responses, request

JSON = "Content-Type: application/json"


def echo(asked: Request) -> object:
    return {"got": read_json(asked)}


class SiteCase(SynchronousTestCase):
    """A site with a few routes, asked over a connection in memory."""

    address = "127.0.0.1"
    token: str | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.pending: Deferred[object] = Deferred()
        self.cancelled: list[object] = []
        self.site = JSONSite(
            self.clock,
            Routes(
                Guard(self.address, names=("Web-1",), token=self.token, public=("/health",)),
                {
                    "/": {"GET": lambda _: {"é": [1, None, "\ud800"]}},
                    "/health": {"GET": lambda _: Answer(b"ok", content_type="text/plain")},
                    "/echo": {"POST": echo, "PUT": echo, "DELETE": lambda _: {}},
                    "/later": {"GET": lambda _: self.pending},
                    "/async": {"GET": self.coroutine},
                    "/broken": {"GET": lambda _: 1 / 0},
                    "/unsayable": {"GET": lambda _: {"a": object()}},
                    "/teapot": {"GET": self.teapot},
                },
            ),
        )
        self.connection = MemoryConnection(self.site)

    def tearDown(self) -> None:
        self.connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.site.channels, set())

    async def coroutine(self, asked: Request) -> object:
        try:
            return Answer(b"later", 202, "text/plain", (("X-From", str(await self.pending)),))
        except CancelledError:
            self.cancelled.append(asked)
            raise

    def teapot(self, _: Request) -> object:
        raise HTTPError(418, "short and stout", (("X-Handle", "yes"),))

    def ask(self, *args: Any, **kwargs: Any) -> Response:
        (response,) = self.connection.send(request(*args, **kwargs))
        return response


class RoutesTests(SiteCase):
    def test_json_is_one_compact_line_with_its_headers(self) -> None:
        response = self.ask()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.body, '{"é":[1,null,"\\ud800"]}\n'.encode())
        self.assertEqual(response.headers.pop("date")[-3:], "GMT")
        self.assertEqual(
            response.headers,
            {
                "content-type": "application/json",
                "content-length": str(len(response.body)),
                "cache-control": "no-store",
                "x-content-type-options": "nosniff",
            },
        )

    def test_an_answer_of_another_type(self) -> None:
        response = self.ask("GET", "/health")
        self.assertEqual((response.status, response.body), (200, b"ok"))
        self.assertEqual(response.headers["content-type"], "text/plain")

    def test_head_has_the_headers_of_get_and_no_body(self) -> None:
        body = self.ask("GET", "/").body
        self.connection.transport.clear()
        self.connection.protocol.dataReceived(request("HEAD", "/"))
        (response,) = parse_responses(self.connection.transport.value(), head=True)
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers["content-length"], str(len(body)))

    def test_unknown_paths(self) -> None:
        for path in ("/nothing", "/health/", "//health", "/echo/x", "http://127.0.0.1/health", "*"):
            with self.subTest(path=path):
                response = self.ask("GET", path)
                self.assertEqual((response.status, response.error), (404, "not found"))
                self.assertEqual(response.headers["content-type"], "application/json")

    def test_a_query_does_not_change_the_route(self) -> None:
        self.assertEqual(self.ask("GET", "/health?verbose=1&" + "x=1&" * 100).status, 200)

    def test_wrong_methods_are_told_the_right_ones(self) -> None:
        for method, path, allow in (
            ("POST", "/health", "GET, HEAD"),
            ("TRACE", "/health", "GET, HEAD"),
            ("OPTIONS", "/echo", "DELETE, POST, PUT"),
            ("get", "/health", "GET, HEAD"),
            ("GET", "/echo", "DELETE, POST, PUT"),
        ):
            with self.subTest(method=method, path=path):
                response = self.ask(method, path)
                self.assertEqual((response.status, response.error), (405, "method not allowed"))
                self.assertEqual(response.headers["allow"], allow)

    def test_a_handler_may_answer_later(self) -> None:
        self.assertEqual(self.connection.send(request("GET", "/later")), [])
        self.pending.callback({"done": True})
        (response,) = parse_responses(self.connection.transport.value())
        self.assertEqual(response.json, {"done": True})

    def test_a_coroutine_may_choose_status_type_and_headers(self) -> None:
        self.pending.callback("here")
        response = self.ask("GET", "/async")
        self.assertEqual((response.status, response.body), (202, b"later"))
        self.assertEqual(response.headers["content-type"], "text/plain")
        self.assertEqual(response.headers["x-from"], "here")

    def test_a_refusal_carries_its_headers(self) -> None:
        response = self.ask("GET", "/teapot")
        self.assertEqual((response.status, response.error), (418, "short and stout"))
        self.assertEqual(response.headers["x-handle"], "yes")

    def test_a_client_that_leaves_cancels_the_handler(self) -> None:
        self.connection.send(request("GET", "/async"))
        with capturedLogs() as events:
            self.connection.lose()
        self.assertEqual(len(self.cancelled), 1)
        self.assertEqual(events, [])
        self.connection = MemoryConnection(self.site)

    def test_a_failing_handler_is_logged_and_says_nothing(self) -> None:
        for path in ("/broken", "/unsayable"):
            with self.subTest(path=path), capturedLogs() as events:
                response = self.ask("GET", path)
            self.assertEqual((response.status, response.error), (500, "internal error"))
            (event,) = events
            self.assertEqual(event["log_level"], LogLevel.critical)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_a_handler_cancelled_by_another_is_still_answered(self) -> None:
        self.connection.send(request("GET", "/later"))
        self.pending.cancel()
        (response,) = parse_responses(self.connection.transport.value())
        self.assertEqual(response.error, "internal error")
        self.flushLoggedErrors(CancelledError)

    def test_routes_are_a_resource_for_a_site_of_twisted_web(self) -> None:
        self.assertEqual(http.NOT_DONE_YET, server.NOT_DONE_YET)
        client = StubTreq(self.site.routes)
        response = self.successResultOf(client.get("http://127.0.0.1:9811/health"))
        self.assertEqual(self.successResultOf(client.text_content(response)), "ok")
        self.assertFalse(response.headers.hasHeader(b"Server"))
        response = self.successResultOf(
            client.post("http://localhost/echo", json={"a": 1}, headers={"Origin": "http://x"})
        )
        self.assertEqual(response.code, 403)
        response = self.successResultOf(client.post("http://localhost/echo", json={"a": 1}))
        self.assertEqual(self.successResultOf(client.json_content(response)), {"got": {"a": 1}})
        with self.assertRaises(TypeError):
            self.site.routes.putChild(b"x", self.site.routes)


class BodyTests(SiteCase):
    def post(self, body: bytes, *headers: str, method: str = "POST") -> Response:
        return self.ask(method, "/echo", *headers, body=body)

    def test_json_is_read(self) -> None:
        for kind in (
            JSON,
            "content-type: Application/JSON",
            "Content-Type: application/json; charset=utf-8",
            "Content-Type: application/json ;v=1",
        ):
            with self.subTest(kind=kind):
                response = self.post('{"é": 1.5}'.encode(), kind)
                self.assertEqual(response.json, {"got": {"é": 1.5}})

    def test_another_type_is_refused(self) -> None:
        for kind in (
            (),
            ("Content-Type: text/plain",),
            ("Content-Type: application/x-www-form-urlencoded",),
            ("Content-Type: multipart/form-data; boundary=x",),
            ("Content-Type: application/jsonp",),
            ("Content-Type: text/plain; application/json",),
            ("Content-Type: application/json, text/plain",),
            ("Content-Type: text/plain", JSON),
            (JSON, "Content-Type: text/plain"),
        ):
            for method in ("POST", "PUT"):
                with self.subTest(kind=kind, method=method):
                    response = self.post(b'{"a": 1}', *kind, method=method)
                    self.assertEqual(response.status, 415)
                    self.assertEqual(response.error, "Content-Type must be application/json")

    def test_a_delete_needs_the_type_only_with_a_body(self) -> None:
        self.assertEqual(self.ask("DELETE", "/echo").status, 200)
        self.assertEqual(self.ask("DELETE", "/echo", body=b"").status, 200)
        self.assertEqual(self.ask("DELETE", "/echo", body=b"{}").status, 415)
        self.assertEqual(self.ask("DELETE", "/echo", JSON, body=b"{}").status, 200)
        (response,) = self.connection.send(
            request("DELETE", "/echo", "Transfer-Encoding: chunked") + b"0\r\n\r\n"
        )
        self.assertEqual(response.status, 415)

    def test_what_is_not_one_json_text_is_refused(self) -> None:
        for body in (
            b"",
            b"{",
            b"{} {}",
            b'{"a": 1, "a": 1}',
            b'{"b": {"a": 1, "\\u0061": 2}}',
            b'{"a": NaN}',
            b"[Infinity, -Infinity]",
            b'{"a": "\x00"}',
            b'{"a": "\xff"}',
            b'\xef\xbb\xbf{"a": 1}',
            '{"a": 1}'.encode("utf-16"),
            b"[" * 60_000,
            b"1" * 60_000,
            b"a=1&b=2",
        ):
            with self.subTest(body=body[:20]):
                response = self.post(body, JSON)
                self.assertEqual((response.status, response.error), (400, "invalid JSON payload"))

    def test_a_body_that_is_not_read_does_not_disturb_the_next_request(self) -> None:
        self.assertEqual(self.ask("GET", "/health", JSON, body=b"GET / HTTP/1.1").status, 200)
        self.assertEqual(self.ask("GET", "/").status, 200)


class GuardTests(SiteCase):
    def status(self, *headers: str, host: str | None = None) -> int:
        return self.ask("GET", "/", *headers, host=host).status

    def test_hosts_of_this_machine(self) -> None:
        for host in (
            "127.0.0.1",
            "127.0.0.1:9811",
            "127.0.0.1:80",
            "127.8.9.10:9811",
            "localhost",
            "LocalHost:9811",
            "localhost.",
            "[::1]",
            "[::1]:9811",
            "[0:0:0:0:0:0:0:1]:9811",
            "web-1:9811",
        ):
            with self.subTest(host=host):
                self.assertEqual(self.status(host=host), 200)

    def test_foreign_hosts(self) -> None:
        for host in (
            "evil.example",
            "evil.example:9811",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "10.0.0.1:9811",
            "0.0.0.0:9811",
            "[::]",
            "[2001:db8::1]:9811",
            "2130706433",
            "127.1",
            "0x7f.0.0.1",
            "0177.0.0.1",
        ):
            with self.subTest(host=host):
                self.assertEqual(self.status(host=host), 403)

    def test_strange_hosts(self) -> None:
        for host in (
            "",
            " ",
            "localhost:",
            "localhost:x",
            "localhost:123456",
            "user@localhost",
            "localhost/",
            "localhost localhost",
            "localhost,evil.example",
            "::1",
            "[::1",
            "lócalhost",
        ):
            with self.subTest(host=host):
                response = self.ask(host=host)
                self.assertEqual(response.status, 400)
                self.assertEqual(response.error, "exactly one valid Host header is required")

    def test_no_host_or_two(self) -> None:
        self.assertEqual(self.status(), 400)
        self.assertEqual(self.status("Host: localhost", host="localhost"), 400)
        self.assertEqual(self.status("Host: evil.example", host="localhost"), 400)

    def test_own_origin(self) -> None:
        for host, origin in (
            ("localhost:9811", "http://localhost:9811"),
            ("LOCALHOST:9811", "http://localhost:9811"),
            ("[::1]:9811", "http://[::1]:9811"),
            ("localhost", "https://localhost"),
        ):
            with self.subTest(origin=origin):
                self.assertEqual(self.status(f"Origin: {origin}", host=host), 200)

    def test_foreign_origin_on_every_method(self) -> None:
        for origin in (
            "https://evil.example",
            "null",
            "",
            "http://localhost",
            "http://localhost:3000",
            "http://127.0.0.1:9811",
            "http://localhost:9811.evil.example",
            "http://localhost:9811/",
            "chrome-extension://abcdef",
            "file://",
        ):
            for method, path in (("GET", "/health"), ("POST", "/echo"), ("OPTIONS", "/echo")):
                with self.subTest(origin=origin, method=method):
                    response = self.ask(
                        method, path, f"Origin: {origin}", JSON, host="localhost:9811"
                    )
                    self.assertEqual(response.status, 403)
                    self.assertFalse([n for n in response.headers if n.startswith("access-")])

    def test_one_foreign_origin_among_two(self) -> None:
        own, foreign = "Origin: http://localhost", "Origin: http://evil.example"
        self.assertEqual(self.status(own, foreign, host="localhost"), 403)
        self.assertEqual(self.status(foreign, own, host="localhost"), 403)

    def test_pages_of_other_sites(self) -> None:
        for site, status in (
            ("cross-site", 403),
            ("same-site", 403),
            ("", 403),
            ("same-origin", 200),
            ("none", 200),
        ):
            with self.subTest(site=site):
                self.assertEqual(self.status(f"Sec-Fetch-Site: {site}", host="localhost"), status)

    def test_the_guard_comes_before_the_routes(self) -> None:
        self.assertEqual(self.ask("GET", "/nothing", host="evil.example").status, 403)
        self.assertEqual(self.ask("BREW", "/broken", host="evil.example").status, 403)


class TokenTests(SiteCase):
    token = "s3cret-tökén"

    def test_needed_for_everything_but_what_is_public(self) -> None:
        self.assertEqual(self.ask("GET", "/health").status, 200)
        for path in ("/", "/nothing", "/echo"):
            with self.subTest(path=path):
                response = self.ask("GET", path)
                self.assertEqual((response.status), 401)
                self.assertEqual(response.error, "a valid bearer token is required")
                self.assertEqual(response.headers["www-authenticate"], 'Bearer realm="jetcamer"')
                self.assertNotIn("s3cret", str(response))

    def test_a_foreign_page_is_refused_before_its_token_is_looked_at(self) -> None:
        response = self.ask("GET", "/", "Origin: http://evil.example")
        self.assertEqual(response.status, 403)


class AsciiTokenTests(SiteCase):
    token = "s3cret"

    def test_the_right_one(self) -> None:
        for value in ("Bearer s3cret", "bearer  s3cret"):
            self.assertEqual(self.ask("GET", "/", f"Authorization: {value}").status, 200)

    def test_wrong_ones(self) -> None:
        for lines in (
            ["Bearer"],
            ["Bearer "],
            ["Bearer s3cre"],
            ["Bearer s3crett"],
            ["Bearer S3CRET"],
            ["s3cret"],
            ["Basic s3cret"],
            ["Bearer s3cret x"],
            ["Bearer s3cret", "Bearer s3cret"],
        ):
            with self.subTest(lines=lines):
                headers = [f"Authorization: {line}" for line in lines]
                self.assertEqual(self.ask("GET", "/", *headers).status, 401)


class AnyAddressGuardTests(SiteCase):
    address = "0.0.0.0"

    def test_every_literal_address_and_no_other_name(self) -> None:
        for host, status in (
            ("10.0.0.1:9811", 200),
            ("[2001:db8::1]:9811", 200),
            ("localhost", 200),
            ("web-1", 200),
            ("evil.example:9811", 403),
        ):
            with self.subTest(host=host):
                self.assertEqual(self.ask(host=host).status, status)


class OneAddressGuardTests(SiteCase):
    address = "2001:DB8::1"

    def test_the_configured_address_in_any_spelling(self) -> None:
        for host, status in (
            ("[2001:db8::1]:9811", 200),
            ("[2001:db8:0:0::1]", 200),
            ("127.0.0.1", 200),
            ("[2001:db8::2]", 403),
        ):
            with self.subTest(host=host):
                self.assertEqual(self.ask(host=host).status, status)


class JsonTextTests(SynchronousTestCase):
    def test_is_always_json(self) -> None:
        value = {"a": "\ud800 é \x00 \u2028", "b": [1e300, -0.0, 2**70, None, True]}
        self.assertEqual(json.loads(http.json_text(value)), value)

    def test_what_json_cannot_say_is_refused(self) -> None:
        for value in (float("nan"), float("inf"), {1, 2}, b"bytes"):
            with self.assertRaises((TypeError, ValueError)):
                http.json_text(value)
