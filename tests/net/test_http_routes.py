"""Paths with parts that vary, handlers with conditions, queries, and who asks."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import Request

from jetcamer.net.http import (
    Guard,
    Guarded,
    HTTPError,
    Routes,
    principal_of,
    read_query,
)
from jetcamer.net.http_guard import bearer_token, host_name, unauthorized
from jetcamer.net.http_site import JSONSite
from tests.support.raw_http import MemoryConnection, Response, request

NAMES = {b"good": "ann", b"other": "bob"}


def authorize(asked: Request) -> str:
    name = NAMES.get(bearer_token(asked) or b"")
    if name is None:
        raise unauthorized()
    return name


def only_ann(principal: Any) -> None:
    if principal != "ann":
        raise HTTPError(403, f"not for {principal}")


class RoutesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.guard = Guard("192.0.2.5", authorizer=authorize, public=("/open", "/open/{x}"))
        routes = Routes(
            self.guard,
            {
                "/open": {"GET": principal_of},
                "/who": {"GET": lambda asked: [principal_of(asked), host_name(asked)]},
                "/a/{id}": {"GET": lambda _, x: {"one": x}},
                "/a/fixed": {"GET": lambda _: "fixed"},
                "/a/{id}/b/{other}": {"GET": lambda _, *x: [*x], "DELETE": lambda _, *x: "gone"},
                "/query": {"GET": read_query},
                "/ann": {
                    "GET": Guarded(principal_of, only_ann),
                    "POST": Guarded(principal_of, only_ann, bodiless=True),
                    "PUT": Guarded(principal_of, only_ann),
                },
            },
        )
        self.clock = Clock()
        self.connection = MemoryConnection(JSONSite(self.clock, routes))

    def tearDown(self) -> None:
        self.connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ask(self, path: str, *headers: str, method: str = "GET", token: str = "good") -> Response:
        (response,) = self.connection.send(
            request(method, path, *headers, f"Authorization: Bearer {token}", host="192.0.2.5:80")
        )
        return response


class PathTests(RoutesCase):
    def test_what_varies_is_decoded(self) -> None:
        for part, value in (
            ("x", "x"),
            ("%2e%2E", ".."),
            ("%C3%A9%20+", "é +"),
            ("a%2Fb", "a/b"),
            ("%00", "\0"),
            ("%", "%"),
            ("{id}", "{id}"),
        ):
            self.assertEqual(self.ask(f"/a/{part}").json, {"one": value})
        self.assertEqual(self.ask("/a/1/b/2?x=1").json, ["1", "2"])

    def test_the_exact_path_counts(self) -> None:
        self.assertEqual(self.ask("/a/fixed").json, "fixed")
        self.assertEqual(self.ask("/a/%66ixed").json, {"one": "fixed"})

    def test_what_does_not_match(self) -> None:
        for path in ("/a", "/a/", "/a//", "/a/1/b/", "/a/1/c/2", "/a/1/b/2/", "//a/1", "/b/1"):
            self.assertEqual(self.ask(path).status, 404, path)
        response = self.ask("/a/%ff")
        self.assertEqual((response.status, response.error), (400, "the path is not UTF-8"))

    def test_methods(self) -> None:
        self.assertEqual(self.ask("/a/1/b/2", method="DELETE").json, "gone")
        response = self.ask("/a/1/b/2", method="PATCH")
        self.assertEqual((response.status, response.headers["allow"]), (405, "DELETE, GET, HEAD"))


class QueryTests(RoutesCase):
    def test_values(self) -> None:
        for text, value in (
            ("", {}),
            ("?", {}),
            ("?a", {"a": ""}),
            ("?a=", {"a": ""}),
            ("?a=b=c&&d=%26+%3D%2b", {"a": "b=c", "d": "& =+"}),
            ("?%C3%A9=%E2%82%AC", {"é": "€"}),
            ("?a=b?c", {"a": "b?c"}),
        ):
            self.assertEqual(self.ask("/query" + text).json, value)

    def test_what_is_refused(self) -> None:
        for text, words in (
            ("?a=1&a=1", "a: given more than once"),
            ("?a=1&%61=2", "a: given more than once"),
            ("?a=%ff", "the query is not UTF-8"),
            ("?%ff=1", "the query is not UTF-8"),
            (f"?{'%0a' * 50}=1&{'%0a' * 50}=1", "?" * 40 + "…: given more than once"),
        ):
            response = self.ask("/query" + text)
            self.assertEqual((response.status, response.error), (400, words))


class PrincipalTests(RoutesCase):
    def test_who_asks(self) -> None:
        self.assertEqual(self.ask("/who").json, ["ann", "192.0.2.5"])
        self.assertEqual(self.ask("/who", token="other").json[0], "bob")
        response = self.ask("/who", token="bad")
        self.assertEqual(response.status, 401)
        self.assertEqual(response.headers["www-authenticate"], 'Bearer realm="jetcamer"')

    def test_public_paths_are_asked_by_nobody(self) -> None:
        self.assertIsNone(self.ask("/open", token="bad").json)
        # They are exact.
        self.assertEqual(self.ask("/open/1", token="bad").status, 401)

    def test_conditions_come_before_bodies(self) -> None:
        self.assertEqual(self.ask("/ann").json, "ann")
        for method in ("GET", "POST", "PUT"):
            response = self.ask("/ann", "Content-Length: 0", method=method, token="other")
            self.assertEqual((response.status, response.error), (403, "not for bob"))

    def test_a_post_without_a_body_where_none_is_needed(self) -> None:
        self.assertEqual(self.ask("/ann", method="POST").json, "ann")
        self.assertEqual(self.ask("/ann", method="PUT").status, 415)
        (response,) = self.connection.send(
            request("POST", "/ann", "Authorization: Bearer good", host="192.0.2.5", body=b"{}")
        )
        self.assertEqual(response.status, 415)

    def test_further_addresses(self) -> None:
        def asked(host: str) -> int:
            (response,) = self.connection.send(request("GET", "/open", host=host))
            return response.status

        self.assertEqual((asked("192.0.2.5"), asked("192.0.2.6"), asked("[::1]")), (200, 403, 200))
        self.guard.listens_on("192.0.2.6")
        self.assertEqual((asked("192.0.2.5"), asked("192.0.2.6")), (200, 200))
        self.guard.listens_on("::")
        self.assertEqual((asked("198.51.100.1"), asked("evil.example")), (200, 403))
