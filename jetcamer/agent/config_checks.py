"""What a value of the configuration must be, beyond its type.

In: one value, already of the right type. Out: nothing, or what the value means; ``ValueError``
with words that end a sentence about the member. The words never hold the value: some values are
secrets, and what a person typed wrong may hold one too.
"""

from __future__ import annotations

import os
import re
import socket

from twisted.internet.abstract import isIPAddress, isIPv6Address

from jetcamer.net.url import WebSocketURL, check_host

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_TOKEN = re.compile(r"[!-~]{16,4096}")
_PORT = re.compile(r"[0-9]{1,5}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: an address, or ``localhost``."""
    if host.lower() == "localhost":
        return True
    if isIPAddress(host):
        return host.startswith("127.")
    if isIPv6Address(host) and "%" not in host:
        return socket.inet_pton(socket.AF_INET6, host) == b"\0" * 15 + b"\1"
    return False


def listen_address(text: str) -> tuple[str, int]:
    """``host:port`` taken apart. The host is an IP address, or empty for every IPv4 address of
    the machine; ``localhost`` becomes 127.0.0.1. Port 0 lets the system choose."""
    host, colon, port_text = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port_text) or int(port_text) > 65535:
        raise ValueError('expected "host:port" with a port from 0 to 65535')
    if host.startswith("[") and host.endswith("]") and isIPv6Address(host[1:-1]):
        return host[1:-1], int(port_text)
    if host.lower() == "localhost":
        host = "127.0.0.1"
    if host and not isIPAddress(host):
        raise ValueError(
            'expected an IP address or localhost before the port, as in "127.0.0.1:9811" '
            'or "[::1]:9811"'
        )
    return host, int(port_text)


def websocket_url(url: str) -> bool:
    """Whether what is sent to `url` is safe from listeners: it is ``wss``, or stays here."""
    parsed = WebSocketURL.parse(url)
    return parsed.secure or is_loopback(parsed.host)


def proxy(url: str) -> None:
    from jetcamer.net.proxy import Proxy

    Proxy.parse(url)


def has_password(url: str) -> bool:
    """Whether a proxy's URL carries credentials."""
    return "@" in url.partition("?")[0]


def redact_userinfo(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    userinfo, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{'…' if userinfo else ''}{at}{host}"


def ca_file(path: str) -> None:
    absolute(path)
    if os.path.exists(path) and not os.path.isfile(path):  # reading a FIFO would never end
        raise ValueError("is not a regular file")
    from jetcamer.net.tls import ClientTrust

    ClientTrust(path)


def absolute(path: str) -> None:
    if not os.path.isabs(path):
        raise ValueError("expected an absolute path")


def identifier(text: str) -> None:
    """An agent's, a site's or an environment's name, as it stands in messages and object keys."""
    if _CONTROL.search(text):
        raise ValueError("holds a control character")
    if len(text) > 256:
        raise ValueError("longer than 256 characters")


def log_paths(paths: tuple[str, ...]) -> None:
    for path in paths:
        if not os.path.isabs(path):
            raise ValueError("expected absolute paths, each beginning with /")


def bucket(name: str) -> None:
    if not _BUCKET.fullmatch(name):
        raise ValueError("not the name of an S3 bucket")


def region(name: str) -> None:
    if not _REGION.fullmatch(name):
        raise ValueError('expected the name of a region, as in "eu-west-1"')


def server_name(name: str) -> None:
    check_host(name.lower())


def web_token(token: str) -> None:
    if not _TOKEN.fullmatch(token):
        raise ValueError("expected at least 16 characters, ASCII and without spaces")
