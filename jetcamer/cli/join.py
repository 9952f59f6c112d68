"""``jetcamer join``: make this machine known to a hub, and write the agent's configuration.

In: the hub's URL and a join token. Out: the agent's file with its URL, secret and name in it, and
an exit status: 0 for done, 1 for not. The token has only so many uses: all that can be checked on
this machine is checked before it is shown. It starts nothing, and never prints a secret.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import ssl
import sys
from typing import Any

import msgspec

from jetcamer.agent.config import DEFAULT_PATH, ENVIRONMENT_NAME, ConfigError, decode_config
from jetcamer.agent.config_checks import is_loopback
from jetcamer.cli.private_file import PrivateFile, owner_and_mode
from jetcamer.cli.terminal import visible
from jetcamer.daemon import json_document
from jetcamer.net.url import WebSocketURL, join_authority, split

__all__ = ["add_arguments", "run"]

_MAX_CONFIG = 1 << 20
_MAX_ANSWER = 1 << 16
_TIMEOUT = 30.0
_TOKEN = re.compile("[!-~]{1,512}", re.ASCII)
_SECRET = "wsSecret"  # noqa: S105 - the member's name

#: OpenSSL's numbers for an issuer that nobody here knows, or that has another key.
_NOT_TRUSTED = frozenset({2, 7, 18, 19, 20, 21})


class _JoinError(Exception):
    """str() is one line for a person."""


class _Joined(msgspec.Struct, rename="camel"):
    """The hub's answer."""

    agent_id: str
    secret: str
    ws_api_url: str | None = None


class _HubURL(msgspec.Struct, frozen=True):
    secure: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        return join_authority(self.host, self.port)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="the hub's: https://hub.example.com/")
    parser.add_argument(
        "token",
        metavar="TOKEN",
        help="a join token, or - to read it from standard input: better, for others on the "
        "machine see command lines",
    )
    parser.add_argument(
        "--agent-id", metavar="ID", help="else the configuration's instanceId, else the host name"
    )
    parser.add_argument(
        "--config", metavar="FILE", help=f"else {ENVIRONMENT_NAME}, else {DEFAULT_PATH}"
    )
    parser.add_argument(
        "--ca-file", metavar="FILE", help="trust this authority, too (PEM); the agent will as well"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a secret that is already configured"
    )
    parser.epilog = "A token is made on the hub: jetcamer hub token create --expires 1h --uses 1"


def run(args: argparse.Namespace) -> int:
    try:
        return _join(args)
    except _JoinError as error:
        sys.stderr.write(f"jetcamer join: {visible(str(error))}\n")
        return 1


def _join(args: argparse.Namespace) -> int:
    url = _parse_url(args.url)
    path = os.path.realpath(args.config or os.environ.get(ENVIRONMENT_NAME) or DEFAULT_PATH)
    ca_file = None if args.ca_file is None else os.path.abspath(args.ca_file)
    try:
        with PrivateFile(path, _MAX_CONFIG) as file:
            members = _configured(path, file.before, force=args.force)
            agent_id = args.agent_id or _agent_id(members)
            context = _trust(ca_file or members.get("wsCaFile")) if url.secure else None
            joined = _ask(url, context, _token(args.token), agent_id)
            members["wsApiUrl"] = _websocket_url(joined, url)
            members[_SECRET] = joined.secret
            members["instanceId"] = joined.agent_id
            if ca_file is not None:
                members["wsCaFile"] = ca_file
            content = json.dumps(members, indent=2, ensure_ascii=False).encode() + b"\n"
            try:
                status = file.replace(content)
            except OSError as error:
                raise _JoinError(
                    f"the hub knows this machine as {joined.agent_id!r} now, but {path} could not "
                    f"be written: {error.strerror}; rotate its secret on the hub"
                ) from None
    except OSError as error:
        raise _JoinError(f"{path} cannot be written: {error.strerror}") from None
    _report(args.url, joined.agent_id, path, owner_and_mode(status), content)
    return 0


def _report(url: str, agent_id: str, path: str, owner: str, content: bytes) -> None:
    try:
        _, warnings = decode_config(content, path)
    except ConfigError as error:
        warnings = [str(error)]
    for words in warnings:
        sys.stderr.write(f"{visible(words)}\n")
    sys.stdout.write(
        f"Joined {visible(url)} as {visible(agent_id)}.\n"
        f"Wrote {visible(path)} ({owner}).\n"
        "Nothing was started. Next: systemctl restart jetcamer-agent\n"
    )


# Before the token is shown.


def _parse_url(text: str) -> _HubURL:
    scheme = text.partition(":")[0].lower()
    if scheme not in ("http", "https"):
        raise _JoinError("the hub's URL begins with https://")
    try:
        parts, host, port = split(text)
    except ValueError as error:
        raise _JoinError(str(error)) from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise _JoinError("the hub's URL has no user name, no query and no fragment")
    secure = scheme == "https"
    if not secure and not is_loopback(host):
        raise _JoinError("http:// to another machine would show the secret to others: use https://")
    path = parts.path.rstrip("/")
    return _HubURL(secure=secure, host=host, port=port or (443 if secure else 80), path=path)


def _configured(path: str, content: bytes | None, *, force: bool) -> dict[str, Any]:
    """The members that are in the file."""
    if content is None or not content.strip():
        return {}
    try:
        decode_config(content, path)
    except ConfigError as error:
        raise _JoinError(f"{error}; mend or remove the file first") from None
    members = json_document.parse(content)
    if members.get(_SECRET) and not force:
        raise _JoinError(f"{path} holds a {_SECRET} already; --force replaces it")
    return members


def _agent_id(members: dict[str, Any]) -> str:
    """As the agent chooses it, the instance id of a cloud aside."""
    configured = str(members.get("instanceId") or "").strip()
    return socket.gethostname() if configured in ("", "auto") else configured


def _trust(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except ssl.SSLError:
            raise _JoinError(f"{ca_file} holds no certificate that can be read (PEM)") from None
        except OSError as error:
            raise _JoinError(f"{ca_file}: {error.strerror}") from None
    return context


def _token(word: str) -> str:
    token = sys.stdin.readline().strip() if word == "-" else word
    if not _TOKEN.fullmatch(token):
        raise _JoinError("that is no join token: it is empty, or holds what no token does")
    return token


# The hub.


def _ask(url: _HubURL, context: ssl.SSLContext | None, token: str, agent_id: str) -> _Joined:
    try:
        body = json.dumps({"agentId": agent_id}).encode()
        status, retry_after, answer = _post(url, context, token, body)
    except ssl.SSLCertVerificationError as error:
        words = f"{url.authority}: the certificate is refused: {error.verify_message}"
        if error.verify_code in _NOT_TRUSTED:
            words += "; name its authority with --ca-file"
        raise _JoinError(words) from None
    except ssl.SSLError as error:
        reason = (error.reason or "unknown").lower().replace("_", " ")
        raise _JoinError(f"{url.authority}: TLS failed: {reason}") from None
    except socket.gaierror as error:
        words = f"the name {url.host} cannot be resolved: {error.strerror}"
        raise _JoinError(words) from None
    except TimeoutError:
        raise _JoinError(f"{url.authority}: no answer within {_TIMEOUT:g} s") from None
    except OSError as error:
        words = error.strerror or "the connection was lost"
        raise _JoinError(f"{url.authority}: {words.lower()}") from None
    except http.client.HTTPException:
        raise _JoinError(f"{url.authority}: what answers there speaks no HTTP") from None
    if status != 201:
        raise _JoinError(_refusal(url, status, retry_after, answer, agent_id))
    try:
        joined = msgspec.json.decode(answer, type=_Joined)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        joined = _Joined("", "")
    if not joined.agent_id or not joined.secret:
        raise _JoinError(f"{url.authority}: the answer is not that of a JetCamer hub")
    return joined


def _post(
    url: _HubURL, context: ssl.SSLContext | None, token: str, body: bytes
) -> tuple[int, str | None, bytes]:
    connection = (
        http.client.HTTPConnection(url.host, url.port, timeout=_TIMEOUT)
        if context is None
        else http.client.HTTPSConnection(url.host, url.port, timeout=_TIMEOUT, context=context)
    )
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Connection": "close",
    }
    try:
        connection.request("POST", f"{url.path}/api/join", body, headers)
        response = connection.getresponse()
        return response.status, response.getheader("Retry-After"), response.read(_MAX_ANSWER)
    finally:
        connection.close()


def _refusal(
    url: _HubURL, status: int, retry_after: str | None, answer: bytes, agent_id: str
) -> str:
    if status == http.client.UNAUTHORIZED:
        return "the join token is not valid: unknown, used up or expired"
    if status == http.client.CONFLICT:
        return (
            f"the hub knows an agent {agent_id!r} already: choose another --agent-id, "
            "or rotate that one's secret on the hub"
        )
    if status == http.client.TOO_MANY_REQUESTS:
        wait = f"{retry_after} s" if (retry_after or "").isdigit() else "a while"
        return f"{url.authority}: too many attempts from here; try again in {wait}"
    if 300 <= status < 400:
        return f"{url.authority}: it answers with a redirection ({status}); give the URL it is at"
    if status in (http.client.METHOD_NOT_ALLOWED, http.client.UPGRADE_REQUIRED):
        return (
            f"{url.authority}: it answers with status {status}: that is the agents' port; the "
            "API's is another (apiListen in the hub's configuration, 9812)"
        )
    try:
        words = str(json.loads(answer)["error"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        plain = status == http.client.BAD_REQUEST and not url.secure
        words = "is it https://?" if plain else "is that the hub's URL?"
    return f"{url.authority}: refused with status {status}: {words}"


def _websocket_url(joined: _Joined, hub: _HubURL) -> str:
    """The hub's word, else beside its own interface. Raises `_JoinError` where a hub that was asked
    over TLS sends its agents to another machine without."""
    told = joined.ws_api_url
    if told:
        try:
            parsed = WebSocketURL.parse(told)
        except ValueError:
            pass
        else:
            if hub.secure and not parsed.secure and parsed.host.lower() != hub.host.lower():
                raise _JoinError(
                    f"the hub tells its agents to connect to {told}, another machine and without "
                    f"TLS: nothing was written. It knows {joined.agent_id!r} now: set agentUrl "
                    "there, revoke and restore it or join as another --agent-id"
                )
            return told
    default = 443 if hub.secure else 80
    host = f"[{hub.host}]" if ":" in hub.host else hub.host
    authority = host if hub.port == default else hub.authority
    return f"{'wss' if hub.secure else 'ws'}://{authority}{hub.path}/agent"
