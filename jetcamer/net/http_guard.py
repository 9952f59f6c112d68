"""Who may ask a JSON site at all, before any route is looked up.

In: the headers of a request. Out: nothing, or who asks, or a refusal. A web page in a browser must
never be able to read or change anything here (DNS rebinding, cross-site requests).
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable

from twisted.web.http import Request

from jetcamer.net.http_answer import HTTPError

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{1,5})?")
_ORIGIN = re.compile(rb"https?://(.+)")
_BEARER = re.compile(rb"bearer +([!-~]+)", re.IGNORECASE)

#: Gives who asks, or raises `HTTPError` 401 or 429.
Authorizer = Callable[[Request], object]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Guard:
    """Checks every request before anything else looks at it."""

    def __init__(
        self,
        address: str,
        *,
        names: Iterable[str] = (),
        token: str | None = None,
        authorizer: Authorizer | None = None,
        public: Iterable[str] = (),
        names_from: str = "",
    ) -> None:
        """
        :param address: where the site listens; the address of every interface (``0.0.0.0``,
            ``::``) makes any literal IP address a good ``Host``, which no rebound name can be
        :param names: further names a client may use for this site
        :param token: the bearer token to demand; None demands none
        :param authorizer: finds out who asks; instead of `token`
        :param public: paths that need neither
        :param names_from: the member of a configuration that `names` are from, for who uses another
        """
        self._any_address = False
        self._addresses: set[Address] = set()
        self._names = {"localhost", *(name.lower() for name in names)}
        self._token = None if token is None else token.encode("utf-8", "surrogateescape")
        self._authorizer = authorizer
        self._public = frozenset(path.encode() for path in public)
        self._foreign = "this Host is not served here"
        if names_from:
            self._foreign += f": {names_from} in the configuration lists the names that are"
        self.listens_on(address)

    def listens_on(self, address: str) -> None:
        """The site listens on this address too."""
        listening = _parse_address(address)
        if listening is not None:
            self._addresses.add(listening)
        self._any_address |= listening.is_unspecified if listening is not None else not address
        self._names.add(address.lower())

    def check(self, request: Request) -> object:
        """Who asks, where the guard has an authorizer and the path is not public; else None.

        Raises `HTTPError`: 400 (no or a strange Host), 403 (a foreign one, or another site's page
        asks), 401 (the token), and what the authorizer raises.
        """
        host = _single(request, b"Host")
        match = None if host is None else _HOST.fullmatch(host)
        if host is None or match is None:
            raise HTTPError(400, "exactly one valid Host header is required")
        if not self._is_ours(match[1].decode()):
            raise HTTPError(403, self._foreign)
        for origin in request.requestHeaders.getRawHeaders(b"Origin", ()):
            match = _ORIGIN.fullmatch(origin)
            if match is None or match[1].lower() != host.lower():
                raise HTTPError(403, "cross-origin requests are refused")
        for site in request.requestHeaders.getRawHeaders(b"Sec-Fetch-Site", ()):
            # `same-site` too: another port of localhost is the same site.
            if site not in {b"same-origin", b"none"}:
                raise HTTPError(403, "cross-site requests are refused")
        if request.path in self._public:
            return None
        if self._token is not None:
            given = bearer_token(request)
            if given is None or not hmac.compare_digest(given, self._token):
                raise unauthorized()
        return None if self._authorizer is None else self._authorizer(request)

    def _is_ours(self, name: str) -> bool:
        if name.lower().removesuffix(".") in self._names:
            return True
        address = _parse_address(name)
        return address is not None and (
            self._any_address or address.is_loopback or address in self._addresses
        )


def bearer_token(request: Request) -> bytes | None:
    """The token of a request that has exactly one well-formed Authorization header."""
    match = _BEARER.fullmatch(_single(request, b"Authorization") or b"")
    return None if match is None else match[1]


def unauthorized(words: str = "a valid bearer token is required") -> HTTPError:
    """The refusal of a request without a good token."""
    return HTTPError(401, words, (("WWW-Authenticate", 'Bearer realm="jetcamer"'),))


def host_name(request: Request) -> str:
    """The name or address that the client calls this site by, without the port. Only after
    `Guard.check`."""
    match = _HOST.fullmatch(_single(request, b"Host") or b"")
    return "localhost" if match is None else match[1].decode()


def _parse_address(name: str) -> Address | None:
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _single(request: Request, name: bytes) -> bytes | None:
    """The value of a header that must not come twice."""
    values = request.requestHeaders.getRawHeaders(name, [])
    return values[0] if len(values) == 1 else None
