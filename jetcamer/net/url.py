"""The parts of a URL that a connection is made from.

In: a URL as a person wrote it. Out: its parts, checked. No error names the URL itself: one that
was mistyped may show a password.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

import msgspec
from twisted.internet.abstract import isIPAddress, isIPv6Address

_UNFIT = re.compile(r"[^\x21-\x7e]")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:[0-9]*)?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def is_ip(host: str) -> bool:
    """Whether `host` is an IPv4 or IPv6 address rather than a name."""
    return isIPAddress(host) or isIPv6Address(host)


def check_host(host: str) -> str:
    """`host`, if it is a host name in ASCII or an IP address; else ValueError.

    What ends in a number and is no whole IPv4 address (``10.1``, ``12345``) is neither: a resolver
    may take it for an address, a certificate cannot name it.
    """
    if is_ip(host):
        if "%" in host:
            raise ValueError("an IPv6 address with a zone cannot be used")
        return host
    labels = host.removesuffix(".").split(".")
    if (
        len(host) > 253
        or not all(_LABEL.fullmatch(label) for label in labels)
        or labels[-1].isdigit()
    ):
        raise ValueError("the host is neither a host name nor an IP address")
    return host


def join_authority(host: str, port: int) -> str:
    """``host:port``, with the brackets an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(url: str) -> tuple[SplitResult, str, int | None]:
    """The parts, the host in lower case, and the port if there is one; ValueError in one line."""
    if _UNFIT.search(url):
        raise ValueError("the URL holds white space, a control character or one outside ASCII")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("the URL's host or port cannot be read") from None
    if not _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2]):
        raise ValueError("the URL's host or port cannot be read")
    if not host:
        raise ValueError("the URL names no host")
    if port == 0:
        raise ValueError("the URL's port is 0")
    return parts, check_host(host), port


class WebSocketURL(msgspec.Struct, frozen=True):
    """Where a WebSocket is: `resource` is the path and query that the request line carries."""

    secure: bool
    host: str
    port: int
    resource: str

    @property
    def authority(self) -> str:
        return join_authority(self.host, self.port)

    @classmethod
    def parse(cls, url: str) -> WebSocketURL:
        """
        :raises ValueError: not ``ws://`` or ``wss://``, no host, or with a user name, a password or
            a fragment; one line that does not show the URL.
        """
        scheme = url.partition(":")[0].lower()
        if scheme not in ("ws", "wss"):
            raise ValueError("the URL must begin with ws:// or wss://")
        parts, host, port = split(url)
        if "@" in parts.netloc:
            raise ValueError("a user name or password does not belong in the URL")
        if "#" in url:
            raise ValueError("a fragment (#) does not belong in the URL")
        secure = scheme == "wss"
        path = parts.path or "/"
        return cls(
            secure=secure,
            host=host,
            port=port or (443 if secure else 80),
            resource=f"{path}?{parts.query}" if parts.query else path,
        )
