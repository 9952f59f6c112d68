"""JSON over HTTP, for the few routes a daemon offers: strict about who asks and how much.

In: requests. Out: JSON answers, every error among them as ``{"error": "…"}``, and streams
(`net/http_stream.py`). `net/http_guard.py` decides who may ask, `net/http_site.py` holds the
connections and their limits.

Built on `twisted.web.http` alone: `twisted.web.server` would cost 1.6 MB more and brings nothing
that is needed here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote_to_bytes

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import IResource
from zope.interface import implementer

from jetcamer.net.http_answer import (
    Answer,
    HTTPError,
    header_lines,
    json_text,
    read_json,
    read_query,
    reason_phrase,
)
from jetcamer.net.http_body import write_body
from jetcamer.net.http_guard import Guard

__all__ = [
    "NOT_DONE_YET",
    "Answer",
    "Guard",
    "Guarded",
    "HTTPError",
    "Handler",
    "Routes",
    "Streaming",
    "header_lines",
    "json_text",
    "principal_of",
    "read_json",
    "read_query",
]

log = Logger()

#: `twisted.web.server.NOT_DONE_YET`, for a `Routes` used as a resource of somebody's `Site`.
NOT_DONE_YET = 1

#: Methods that change something: their body must say that it is JSON.
_WRITES = frozenset({b"POST", b"PUT", b"PATCH"})
_JSON_TYPE = re.compile(rb"application/json[ \t]*(;.*)?", re.IGNORECASE)

#: Called with the request and, decoded, what stands for each ``{name}`` of its path. Gives a JSON
#: value, an `Answer`, a `Streaming`, or an awaitable of one of them. Raises `HTTPError` to refuse;
#: any other exception is logged and answered with status 500.
Handler = Callable[..., object]


@runtime_checkable
class Streaming(Protocol):
    """An answer that goes on."""

    def begin(self, request: Request) -> None:
        """Write the headers and go on by itself. Raises `HTTPError` while nothing is written."""


class Guarded(msgspec.Struct, frozen=True):
    """A handler with conditions of its own."""

    handler: Handler
    #: Raises `HTTPError` where who asks (what the guard's authorizer gave) may not.
    permit: Callable[[Any], None]
    #: A POST without a body need not say what its body is. Not without a token: a page in a browser
    #: can send such a request without asking anybody.
    bodiless: bool = False


def principal_of(request: Request) -> Any:
    """Who asks, as the guard's authorizer said."""
    return getattr(request, "principal", None)


@implementer(IResource)
class Routes:
    """The whole tree: paths, each with its handlers by method.

    A path is exact but for ``{name}``, which stands for one whole segment that is not empty. Where
    two match, the exact one counts. ``HEAD`` is answered by the handler of ``GET``. Also a leaf
    resource for any `Site`.
    """

    isLeaf = True
    server = None

    def __init__(self, guard: Guard, routes: Mapping[str, Mapping[str, Handler | Guarded]]) -> None:
        self._guard = guard
        self._exact: dict[bytes, dict[bytes, Handler | Guarded]] = {}
        #: By the number of segments; None in a pattern takes any segment.
        self._patterns: dict[
            int, list[tuple[list[bytes | None], dict[bytes, Handler | Guarded]]]
        ] = {}
        for path, handlers in routes.items():
            methods = {method.encode(): handler for method, handler in handlers.items()}
            if b"GET" in methods:
                methods.setdefault(b"HEAD", methods[b"GET"])
            if "{" not in path:
                self._exact[path.encode()] = methods
                continue
            pattern = [None if part.startswith("{") else part.encode() for part in path.split("/")]
            self._patterns.setdefault(len(pattern), []).append((pattern, methods))

    def getChildWithDefault(self, name: bytes, request: Request) -> Routes:
        return self

    def putChild(self, path: bytes, child: object) -> None:
        raise TypeError("routes are fixed when they are made")

    def render(self, request: Request) -> int:
        """Answer `request`, now or later; a client that leaves cancels what is awaited."""
        answering: Deferred[None] | None = None

        def left(_: Failure) -> None:
            if answering is not None:
                answering.cancel()

        request.notifyFinish().addErrback(left)
        answering = Deferred.fromCoroutine(self._respond(request))
        return NOT_DONE_YET

    async def _respond(self, request: Request) -> None:
        try:
            result = self._answer(request)
            if isinstance(result, Awaitable):
                result = await result
            if isinstance(result, Streaming):
                if not _has_left(request):
                    result.begin(request)
                return
            answer = result if isinstance(result, Answer) else Answer(json_text(result))
        except HTTPError as refusal:
            answer = refusal.answer
        except Exception:
            if _has_left(request):
                return
            log.failure("[http] {method} {path} failed", method=request.method, path=request.path)
            answer = HTTPError(500, "internal error").answer
        if _has_left(request):
            return
        request.setResponseCode(answer.status, reason_phrase(answer.status))
        request.responseHeaders.removeHeader(b"Server")
        for name, value in header_lines(answer):
            request.setHeader(name, value)
        write_body(request, answer.body)

    def _answer(self, request: Request) -> object:
        principal = self._guard.check(request)
        methods, values = self._find(request.path)
        if methods is None:
            raise HTTPError(404, "not found")
        found = methods.get(request.method)
        if found is None:
            allow = b", ".join(sorted(methods)).decode()
            raise HTTPError(405, "method not allowed", (("Allow", allow),))
        if isinstance(found, Guarded):
            found.permit(principal)
            handler, bodiless = found.handler, found.bodiless
        else:
            handler, bodiless = found, False
        if _has_body(request) or (request.method in _WRITES and not bodiless):
            kinds = request.requestHeaders.getRawHeaders(b"Content-Type", [])
            if len(kinds) != 1 or _JSON_TYPE.fullmatch(kinds[0]) is None:
                raise HTTPError(415, "Content-Type must be application/json")
        request.principal = principal  # type: ignore[attr-defined]
        return handler(request, *values)

    def _find(self, path: bytes) -> tuple[dict[bytes, Handler | Guarded] | None, list[str]]:
        methods = self._exact.get(path)
        if methods is not None:
            return methods, []
        parts = path.split(b"/")
        for pattern, candidates in self._patterns.get(len(parts), ()):
            pairs = [*zip(pattern, parts, strict=True)]
            if all(part == wanted if wanted is not None else part for wanted, part in pairs):
                try:
                    values = [
                        unquote_to_bytes(part).decode("utf-8")
                        for wanted, part in pairs
                        if wanted is None
                    ]
                except UnicodeDecodeError:
                    raise HTTPError(400, "the path is not UTF-8") from None
                return candidates, values
        return None, []


def _has_left(request: Request) -> bool:
    """Whether the client is gone, and with it the right to write an answer."""
    return getattr(request, "channel", None) is None


def _has_body(request: Request) -> bool:
    headers = request.requestHeaders
    length = headers.getRawHeaders(b"Content-Length", [b"0"])[0]
    return headers.hasHeader(b"Transfer-Encoding") or bool(length.strip(b"0"))
