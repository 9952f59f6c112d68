"""Which hub, and the token for it.

In: the command line, the environment, a file of one line. Out: `Settings`. A token is never on the
command line, where every user of the machine could read it, and never in a text made here; it does
not leave this machine unencrypted unless that was asked for by name.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.terminal import visible

DEFAULT_URL = "http://127.0.0.1:9812"

#: What an HTTP header can carry: RFC 6750's b64token and nothing that could end the line.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")

#: A token's file is one short line.
_TOKEN_FILE_BYTES = 4096


class Settings:
    """Where the hub's API is and how it is spoken to.

    :param token_from: where the token was read, for a person.
    :param ca_file: PEM of the only authorities to trust; None: the system's.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str = "",
        *,
        token_from: str = "",
        ca_file: str | None = None,
        insecure_http: bool = False,
    ) -> None:
        self.token = token
        self.token_from = token_from
        self.ca_file = ca_file
        self.tls, self.host, self.port, self.prefix = _split(url)
        shown = f"[{self.host}]" if ":" in self.host else self.host
        default_port = 443 if self.tls else 80
        port = "" if self.port == default_port else f":{self.port}"
        #: Without a slash at its end.
        self.url = f"{'https' if self.tls else 'http'}://{shown}{port}{self.prefix}"
        self.is_loopback = _is_loopback(self.host)
        if not (self.tls or self.is_loopback or insecure_http):
            raise HubError(
                f"{self.url} would carry the token unencrypted over the network: use https://, "
                "or an SSH tunnel to the hub's loopback, or say --insecure-http"
            )

    def __repr__(self) -> str:
        return f"<Settings {self.url}>"


def settings_from(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Raises `HubError` for a URL that is none, a token that is missing or cannot be sent."""
    url = getattr(args, "url", None) or environ.get("JETCAMER_HUB_URL") or DEFAULT_URL
    token, token_from = _token(getattr(args, "token_file", None), environ)
    return Settings(
        url,
        token,
        token_from=token_from,
        ca_file=getattr(args, "ca_file", None) or environ.get("JETCAMER_HUB_CA_FILE") or None,
        insecure_http=getattr(args, "insecure_http", False),
    )


def default_token_file(environ: Mapping[str, str]) -> str:
    folder = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "~"), ".config")
    return os.path.join(os.path.expanduser(folder), "jetcamer", "hub-token")


def _split(url: str) -> tuple[bool, str, int, str]:
    """TLS or not, the host, the port, the path before `/api`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise HubError(f"'{visible(url)}' is not a URL: {visible(str(error))}") from None
    if parts.username is not None or parts.password is not None:
        raise HubError("the URL holds a user or password: the token belongs in a file of its own")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise HubError(
            f"'{visible(url)}' is not the URL of a hub: it looks like https://hub.example.com"
        )
    if re.search(r"[^!-~]", parts.path) or re.search(r"[^!-~]", parts.hostname):
        raise HubError(f"'{visible(url)}' has characters that a URL cannot have")
    tls = parts.scheme == "https"
    return tls, parts.hostname, port or (443 if tls else 80), parts.path.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(path: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """The token, and where it is from."""
    if path is None:
        token = environ.get("JETCAMER_HUB_TOKEN", "").strip()
        if token:
            return _checked(token, "JETCAMER_HUB_TOKEN")
        path = default_token_file(environ)
        if not os.path.exists(path):
            raise HubError(
                f"no API token: put one into {visible(path)}, or name its file with --token-file, "
                "or set JETCAMER_HUB_TOKEN"
            )
    try:
        with open(path, "rb") as file:
            data = file.read(_TOKEN_FILE_BYTES)
    except OSError as error:
        raise HubError(f"cannot read the token's file {visible(path)}: {error.strerror}") from None
    return _checked(data.decode("utf-8", "replace").strip(), visible(path))


def _checked(token: str, token_from: str) -> tuple[str, str]:
    if not _TOKEN.fullmatch(token):
        raise HubError(f"{token_from} does not hold an API token: one line of letters and digits")
    return token, token_from
