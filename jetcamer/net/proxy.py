"""Reaching a server through an HTTP proxy that tunnels with CONNECT.

In: a proxy's URL, from the configuration or the environment. Out: a tunnel that another protocol
speaks through. A password goes to the proxy and nowhere else: into no repr, no error and no log.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from urllib.parse import unquote

import msgspec
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from jetcamer.net.errors import ConnectFailed
from jetcamer.net.response import HeadReader, ResponseHead
from jetcamer.net.url import WebSocketURL, is_ip, join_authority, split


class Proxy(msgspec.Struct, frozen=True):
    """An HTTP proxy; the password is left out of its repr."""

    host: str
    port: int
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        shown = "" if self.username is None else f"{self.username}:…@"
        return f"Proxy({shown}{self.authority})"

    @property
    def authority(self) -> str:
        return join_authority(self.host, self.port)

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """The proxy of ``http://[user[:password]@]host[:port][/]``.

        The port is 80 where none is given, as for any ``http`` URL. User name and password are
        %-decoded.

        :raises ValueError: anything else; one line that does not show the URL.
        """
        if not url.lower().startswith("http://"):
            raise ValueError("only a proxy whose URL begins with http:// can be used")
        parts, host, port = split(url)
        if parts.path not in ("", "/") or "?" in url or "#" in url:
            raise ValueError("a proxy's URL ends after its host and port")
        userinfo, at, _ = parts.netloc.rpartition("@")
        name, _, password = userinfo.partition(":")
        username = unquote(name)
        if ":" in username:
            raise ValueError("a colon in a proxy's user name cannot be sent")
        if not at:
            return cls(host, port or 80)
        return cls(host, port or 80, username, unquote(password))

    def connect_request(self, authority: str) -> bytes:
        """The CONNECT request for ``host:port`` (RFC 9110 §9.3.6, RFC 7617)."""
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self.username is not None:
            credentials = f"{self.username}:{self.password or ''}".encode()
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(credentials).decode()}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


class Tunnel(Protocol):
    """Asks a proxy for a tunnel, and gives the transport to `inner` once it stands.

    `inner` is connected only then. Before that, `refused` is told of the proxy's no, and `lost`
    of the end of the connection; afterwards `inner` hears everything itself.
    """

    def __init__(
        self,
        proxy: Proxy,
        authority: str,
        inner: IProtocol,
        refused: Callable[[ConnectFailed], None],
        lost: Callable[[Failure], None],
    ) -> None:
        self._proxy = proxy
        self._authority = authority
        self._inner = inner
        self._refused = refused
        self._lost = lost
        self._reader = HeadReader()
        self._state = "asking"

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._proxy.connect_request(self._authority))

    def dataReceived(self, data: bytes) -> None:
        if self._state == "open":
            self._inner.dataReceived(data)
            return
        if self._state == "refused":
            return
        try:
            head = self._reader.feed(data)
        except ValueError as error:
            self._refuse(str(error))
            return
        if head is None:
            return
        if not 200 <= head.status < 300:
            self._refuse(self._words(head))
            return
        self._state = "open"
        assert self.transport is not None
        self._inner.makeConnection(self.transport)
        if self._reader.rest:
            self._inner.dataReceived(self._reader.rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._state == "open":
            self._inner.connectionLost(reason)
        else:
            self._lost(reason)

    def _refuse(self, words: str) -> None:
        self._state = "refused"
        self._refused(
            ConnectFailed(
                f"proxy {self._proxy.authority}: {words}", kind="proxy", phase="proxy CONNECT"
            )
        )

    def _words(self, head: ResponseHead) -> str:
        words = f"it answered {head.status_line} to CONNECT {self._authority}"
        if head.status != 407:
            return words
        if self._proxy.username is None:
            return f"{words}; it wants a user name and password"
        return f"{words}; it does not take the user name and password given"


def proxy_from_environment(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy that the environment wants for `url`, or None.

    ``HTTPS_PROXY`` is for ``wss``, ``HTTP_PROXY`` for ``ws``; lower case counts where upper case is
    unset or empty. ``NO_PROXY`` is read as Go reads it: names (with their subdomains), ``.suffix``
    (subdomains only), addresses, CIDR blocks, each but the last with an optional port, and ``*``;
    ``localhost`` and loopback addresses are never proxied.

    :raises ValueError: the variable holds no usable URL; one line that names it, not its value.
    """
    target = WebSocketURL.parse(url)
    name = "HTTPS_PROXY" if target.secure else "HTTP_PROXY"
    if not environ.get(name):
        name = name.lower()
    value = environ.get(name)
    if not value:
        return None
    if not _proxied(target, environ.get("NO_PROXY") or environ.get("no_proxy") or ""):
        return None
    try:
        return Proxy.parse(value if "://" in value else f"http://{value}")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _proxied(target: WebSocketURL, no_proxy: str) -> bool:
    from ipaddress import ip_address

    host = target.host.removesuffix(".")
    address = ip_address(host) if is_ip(host) else None
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    for entry in no_proxy.replace(",", " ").lower().split():
        if entry == "*":
            return False
        if address is None:
            if _names(entry, host, target.port):
                return False
        elif _holds(entry, host, target.port):
            return False
    return True


def _names(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY means the host name."""
    name, colon, wanted = entry.partition(":")
    if colon and wanted != str(port):
        return False
    name = name.removeprefix("*").removesuffix(".")
    if name.startswith("."):
        return host.endswith(name)
    return name != "" and (host == name or host.endswith(f".{name}"))


def _holds(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY means the IP address."""
    from ipaddress import ip_address, ip_network

    address = ip_address(host)
    try:
        if "/" in entry:
            return address in ip_network(entry, strict=False)
        bare = entry.removeprefix("[").removesuffix("]")
        if is_ip(bare):
            return address == ip_address(bare)
        bare, _, wanted = entry.rpartition(":")
        return wanted == str(port) and address == ip_address(bare.strip("[]"))
    except ValueError:
        return False
