"""JSON over HTTP, for the few routes a daemon offers: strict about who asks and how much.

In: requests. Out: JSON answers, every error among them as ``{"error": "…"}``. A web page in a
browser must never be able to read or change anything here (DNS rebinding, cross-site requests).
`net/http_site.py` holds the connections and their limits.

Built on `twisted.web.http` alone: `twisted.web.server` would cost 1.6 MB more and brings nothing
that is needed here.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request, datetimeToString
from twisted.web.resource import IResource
from zope.interface import implementer

log = Logger()

#: `twisted.web.server.NOT_DONE_YET`, for a `Routes` used as a resource of somebody's `Site`.
NOT_DONE_YET = 1

#: Methods that change something: their body must say that it is JSON.
_WRITES = frozenset({b"POST", b"PUT", b"PATCH"})
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")
_ORIGIN = re.compile(rb"https?://(.+)")
_BEARER = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)
_JSON_TYPE = re.compile(rb"application/json[ \t]*(;.*)?", re.IGNORECASE)


class Answer(msgspec.Struct, frozen=True):
    """What a handler gives that is not simply a JSON value with status 200."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class HTTPError(Exception):
    """Refuse the request. `words` go to the peer as ``{"error": words}``: no secret in them."""

    def __init__(self, status: int, words: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(words)
        self.answer = Answer(json_text({"error": words}), status, headers=headers)


#: Gives a JSON value, an `Answer`, or an awaitable of either. Raises `HTTPError` to refuse; any
#: other exception is logged and answered with status 500.
Handler = Callable[[Request], object]


def json_text(value: object) -> bytes:
    """One line of compact JSON. A lone surrogate comes out as its escape."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_json(request: Request) -> Any:
    """The body of `request`. Raises `HTTPError` 400 unless it is one JSON text in UTF-8 without
    duplicate members, NaN or Infinity."""
    content: Any = request.content
    try:
        return json.loads(
            content.read().decode("utf-8"),
            object_pairs_hook=_members,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        # The parser's own words may quote the body, and the body may hold a secret.
        raise HTTPError(400, "invalid JSON payload") from None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(name)


class Guard:
    """Decides who may ask at all, before any route is looked up."""

    def __init__(
        self,
        address: str,
        *,
        names: Iterable[str] = (),
        token: str | None = None,
        public: Iterable[str] = (),
    ) -> None:
        """
        :param address: where the site listens; the address of every interface (``0.0.0.0``,
            ``::``) makes any literal IP address a good ``Host``, which no rebound name can be
        :param names: further names a client may use for this site
        :param token: the bearer token to demand; None demands none
        :param public: paths that need no token
        """
        listening = _parse_address(address)
        self._any_address = listening.is_unspecified if listening is not None else not address
        self._names = {"localhost", address.lower(), *(name.lower() for name in names)}
        self._listening = listening
        self._token = None if token is None else token.encode("utf-8", "surrogateescape")
        self._public = frozenset(path.encode() for path in public)

    def check(self, request: Request) -> None:
        """Raises `HTTPError`: 400 (no or a strange Host), 403 (a foreign one, or another site's
        page asks), 401 (the token)."""
        host = _single(request, b"Host")
        match = None if host is None else _HOST.fullmatch(host)
        if host is None or match is None:
            raise HTTPError(400, "exactly one valid Host header is required")
        if not self._is_ours(match[1].decode()):
            raise HTTPError(403, "this Host is not served here")
        for origin in request.requestHeaders.getRawHeaders(b"Origin", ()):
            match = _ORIGIN.fullmatch(origin)
            if match is None or match[1].lower() != host.lower():
                raise HTTPError(403, "cross-origin requests are refused")
        for site in request.requestHeaders.getRawHeaders(b"Sec-Fetch-Site", ()):
            # `same-site` too: another port of localhost is the same site.
            if site not in {b"same-origin", b"none"}:
                raise HTTPError(403, "cross-site requests are refused")
        if self._token is not None and request.path not in self._public:
            self._check_token(request, self._token)

    def _is_ours(self, name: str) -> bool:
        if name.lower().removesuffix(".") in self._names:
            return True
        address = _parse_address(name)
        return address is not None and (
            self._any_address or address.is_loopback or address == self._listening
        )

    def _check_token(self, request: Request, token: bytes) -> None:
        match = _BEARER.fullmatch(_single(request, b"Authorization") or b"")
        if match is None or not hmac.compare_digest(match[1], token):
            challenge = (("WWW-Authenticate", 'Bearer realm="jetcamer"'),)
            raise HTTPError(401, "a valid bearer token is required", challenge)


def _parse_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _single(request: Request, name: bytes) -> bytes | None:
    """The value of a header that must not come twice."""
    values = request.requestHeaders.getRawHeaders(name, [])
    return values[0] if len(values) == 1 else None


@implementer(IResource)
class Routes:
    """The whole tree: exact paths, each with its handlers by method.

    ``HEAD`` is answered by the handler of ``GET``. Also a leaf resource for any `Site`.
    """

    isLeaf = True
    server = None

    def __init__(self, guard: Guard, routes: Mapping[str, Mapping[str, Handler]]) -> None:
        self._guard = guard
        self._routes: dict[bytes, dict[bytes, Handler]] = {}
        for path, handlers in routes.items():
            methods = {method.encode(): handler for method, handler in handlers.items()}
            if b"GET" in methods:
                methods.setdefault(b"HEAD", methods[b"GET"])
            self._routes[path.encode()] = methods

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
            result = self._handler(request)(request)
            if isinstance(result, Awaitable):
                result = await result
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
        request.setResponseCode(answer.status)
        request.responseHeaders.removeHeader(b"Server")
        for name, value in header_lines(answer):
            request.setHeader(name, value)
        request.write(answer.body)
        request.finish()

    def _handler(self, request: Request) -> Handler:
        self._guard.check(request)
        methods = self._routes.get(request.path)
        if methods is None:
            raise HTTPError(404, "not found")
        handler = methods.get(request.method)
        if handler is None:
            allow = b", ".join(sorted(methods)).decode()
            raise HTTPError(405, "method not allowed", (("Allow", allow),))
        if request.method in _WRITES or _has_body(request):
            kind = _single(request, b"Content-Type")
            if kind is None or _JSON_TYPE.fullmatch(kind) is None:
                raise HTTPError(415, "Content-Type must be application/json")
        return handler


def _has_left(request: Request) -> bool:
    """Whether the client is gone, and with it the right to write an answer."""
    return getattr(request, "channel", None) is None


def _has_body(request: Request) -> bool:
    headers = request.requestHeaders
    length = headers.getRawHeaders(b"Content-Length", [b"0"])[0]
    return headers.hasHeader(b"Transfer-Encoding") or bool(length.strip(b"0"))


def header_lines(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Every header of `answer`, by name and value."""
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Date": datetimeToString().decode(),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **dict(answer.headers),
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()]
