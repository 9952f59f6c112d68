"""The hub's HTTP API, from a program that waits.

In: a method, a path, a JSON object. Out: the JSON object of the answer, or a `HubError` that says
in one line what a person can do. It follows no redirect, uses no proxy, verifies certificates
always, and reads no answer without bound.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Mapping
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from jetcamer import __version__
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.settings import Settings
from jetcamer.cli.terminal import visible

#: Seconds for a whole answer, unless a request says otherwise.
TIMEOUT = 30.0

#: Seconds without a byte after which an event stream counts as broken: the hub sends a comment
#: every 15.
STREAM_SILENCE = 45.0

#: Rows asked for at a time; agents are short.
PAGE = 100
_AGENTS_PAGE = 1000

_ANSWER_BYTES = 64 * 1024 * 1024
_ERROR_CHARACTERS = 400

Query = Mapping[str, str | int | None]
Document = dict[str, Any]


def path_of(*parts: str) -> str:
    """`/api/…`, each part as one segment whatever is in it."""
    return "/api/" + "/".join(quote(part, safe="") for part in parts)


class OpenStream(NamedTuple):
    """An answer without end."""

    connection: HTTPConnection
    response: HTTPResponse

    def readline(self, limit: int) -> bytes:
        """b"" at the end. Raises OSError and HTTPException."""
        return self.response.readline(limit)

    def close(self) -> None:
        self.response.close()
        self.connection.close()


class HubClient:
    """Requests to the hub at `settings`, one after the other.

    :param timeout: seconds to connect, and for a whole answer.
    """

    def __init__(self, settings: Settings, *, timeout: float = TIMEOUT) -> None:
        self.settings = settings
        self._timeout = timeout
        self._kept: HTTPConnection | None = None
        self._context: ssl.SSLContext | None = None

    def get(self, path: str, query: Query | None = None) -> Document:
        return self.request("GET", path, query=query)

    def post(
        self, path: str, body: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> Document:
        """:param timeout: seconds, for what the hub itself waits for."""
        return self.request("POST", path, body=body or {}, timeout=timeout)

    def delete(self, path: str) -> Document:
        return self.request("DELETE", path)

    def agents(self, query: Query | None = None) -> Document:
        """Every agent, as one answer."""
        return self.pages(
            path_of("agents"), "agents", query=query, cursor="after", page_rows=_AGENTS_PAGE
        )

    def pages(
        self,
        path: str,
        member: str,
        *,
        query: Query | None = None,
        cursor: str = "before",
        limit: int | None = None,
        page_rows: int = PAGE,
    ) -> Document:
        """The lists called `member` of as many pages as `limit` rows take, as one answer; its other
        members are those of the last. A page may be empty and not the last.

        :param cursor: the query's member that takes an answer's `next`.
        """
        rows: list[Document] = []
        asked: dict[str, str | int | None] = dict(query or {})
        seen: set[str] = set()
        while True:
            wanted = page_rows if limit is None else min(page_rows, limit - len(rows))
            answer = self.get(path, {**asked, "limit": wanted})
            page = answer.get(member)
            rows += [row for row in page if isinstance(row, dict)] if isinstance(page, list) else []
            position = answer.get("next")
            if limit is not None and len(rows) >= limit:
                return {**answer, member: rows[:limit], "next": position}
            # A cursor that comes again would never end.
            if position is None or str(position) in seen:
                return {**answer, member: rows, "next": None}
            seen.add(str(position))
            asked[cursor] = position

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, object] | None = None,
        timeout: float | None = None,
    ) -> Document:
        """Raises `HubError` for every status but 2xx."""
        limit = timeout or self._timeout
        deadline = time.monotonic() + limit
        response = self._respond(method, path, query, body, {"Accept": "application/json"}, limit)
        try:
            data = _read(response, deadline)
        except (OSError, HTTPException) as error:
            self.close()
            raise self._unreachable(error, limit) from None
        if response.will_close:
            self.close()
        document = _parse(data)
        if not 200 <= response.status < 300:
            raise self._refused(response, document)
        if document is None:
            if not data.strip():
                return {}
            raise HubError(f"what {self.settings.url} answers is not a hub's: is this its API?")
        return document

    def open_stream(
        self, path: str, query: Query | None = None, headers: Mapping[str, str] | None = None
    ) -> OpenStream:
        """A `text/event-stream`, on a connection of its own; closing it is the caller's."""
        connection = self._connection(self._timeout)
        try:
            sent = {"Accept": "text/event-stream", **(headers or {})}
            response = self._send(connection, "GET", path, query, None, sent)
            if response.status != 200:
                raise self._refused(response, _parse(_read(response, time.monotonic() + 10)))
            if response.headers.get_content_type() != "text/event-stream":
                raise HubError(f"{self.settings.url} sends no events: is this the hub's API?")
            if connection.sock is not None:
                connection.sock.settimeout(STREAM_SILENCE)
        except (OSError, HTTPException) as error:
            connection.close()
            raise self._unreachable(error, self._timeout) from None
        except HubError:
            connection.close()
            raise
        return OpenStream(connection, response)

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _respond(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> HTTPResponse:
        """Only what changes nothing goes out on a connection kept from before: the hub may be
        closing it at this very moment, and then the request is sent once more."""
        if method != "GET":
            self.close()
        kept = self._kept
        if kept is not None:
            try:
                if kept.sock is not None:
                    kept.sock.settimeout(timeout)
                return self._send(kept, method, path, query, body, headers)
            except TimeoutError as error:
                self.close()
                raise self._unreachable(error, timeout) from None
            except (OSError, HTTPException):
                self.close()
        self._kept = self._connection(timeout)
        try:
            return self._send(self._kept, method, path, query, body, headers)
        except (OSError, HTTPException) as error:
            self.close()
            raise self._unreachable(error, timeout) from None

    def _connection(self, timeout: float) -> HTTPConnection:
        settings = self.settings
        if not settings.tls:
            return HTTPConnection(settings.host, settings.port, timeout=timeout)
        if self._context is None:
            try:
                self._context = ssl.create_default_context(cafile=settings.ca_file)
            except OSError as error:
                raise HubError(
                    f"cannot read certificates from {visible(settings.ca_file or '')}: "
                    f"{error.strerror or error}"
                ) from None
        return HTTPSConnection(settings.host, settings.port, timeout=timeout, context=self._context)

    def _send(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        query: Query | None,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str],
    ) -> HTTPResponse:
        words = {name: value for name, value in (query or {}).items() if value is not None}
        target = self.settings.prefix + path + ("?" + urlencode(words) if words else "")
        sent = {
            "Authorization": f"Bearer {self.settings.token}",
            "User-Agent": f"jetcamer/{__version__}",
            **headers,
        }
        data = None
        if body is not None:
            data = json.dumps(body).encode("ascii")
            sent["Content-Type"] = "application/json"
        connection.request(method, target, data, sent)
        return connection.getresponse()

    def _unreachable(self, error: Exception, timeout: float) -> HubError:
        url = self.settings.url
        if isinstance(error, ConnectionRefusedError):
            return HubError(
                f"nothing listens at {url}: is the hub running (systemctl status jetcamer-hub), "
                "and is this its API's address (--url, JETCAMER_HUB_URL)?"
            )
        if isinstance(error, socket.gaierror):
            return HubError(f"no host is called {self.settings.host}: check --url ({url})")
        if isinstance(error, TimeoutError):
            return HubError(f"{url} did not answer within {timeout:g} s")
        if isinstance(error, ssl.SSLCertVerificationError):
            return HubError(
                f"the certificate of {url} is not trusted: {visible(error.verify_message)} "
                "(--ca-file names the authority that signed it)"
            )
        if isinstance(error, ssl.SSLError):
            reason = visible(error.reason or str(error))
            return HubError(f"no TLS with {url}: {reason} (is it http://?)")
        if isinstance(error, IncompleteRead):
            return HubError(f"{url} broke off in the middle of its answer")
        if isinstance(error, HTTPException) and not isinstance(error, OSError):
            return HubError(f"what answers at {url} is not a hub (is it https://?)")
        words = error.strerror if isinstance(error, OSError) else None
        return HubError(f"the connection to {url} broke: {visible(words or str(error))}")

    def _refused(self, response: HTTPResponse, document: Document | None) -> HubError:
        """What an answer that is no success means, and what to do about it."""
        status = response.status
        said = (document or {}).get("error")
        words = visible(said)[:_ERROR_CHARACTERS] if isinstance(said, str) and said else ""
        retry_after = _seconds(response.headers.get("Retry-After"))
        where = f" ({words})" if words else ""
        again = "" if retry_after is None else f", try again in {retry_after:g} s"
        if status == 401:
            words = (
                f"the hub does not accept the token from {self.settings.token_from}{where}: "
                "it is wrong, has expired or was deleted"
            )
        elif status == 403:
            words = self._forbidden(words)
        elif status == 429:
            words = f"the hub refuses this address for a while{where}{again}"
        elif status == 503:
            words = f"the hub is not ready{where}{again}"
        elif 300 <= status < 400:
            place = visible(response.headers.get("Location") or "elsewhere")[:_ERROR_CHARACTERS]
            words = f"{self.settings.url} points to {place}: is that the URL to use?"
        elif status in (405, 426):
            words = (
                f"{self.settings.url} answers with status {status}{where}: that is the agents' "
                "port; the API's is another (apiListen in the hub's configuration, 9812)"
            )
        elif status == 400 and document is None and not self.settings.tls:
            words = f"{self.settings.url} answers with status 400: is it https://?"
        elif not words and status == 404:
            words = f"{self.settings.url} does not know this: is it the hub's API?"
        elif not words:
            words = f"the hub answered with status {status}"
        return HubError(words, status=status, answer=document, retry_after=retry_after)

    def _forbidden(self, words: str) -> str:
        if "role" in words:
            return f"{words}: use the token of somebody who may"
        if "Host" in words:
            return f"{words}: put {self.settings.host} into apiNames of the hub's configuration"
        return f"the hub refuses that: {words or 'it does not say why'}"


def _read(response: HTTPResponse, deadline: float) -> bytes:
    """The whole body. Raises TimeoutError for one that drips, `HubError` for one without end."""
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(65536):
        chunks.append(chunk)
        size += len(chunk)
        if size > _ANSWER_BYTES:
            raise HubError("the hub's answer is too large: ask for less at a time")
        if time.monotonic() > deadline:
            raise TimeoutError
    if response.length:  # `read1` does not say that it ended early
        raise IncompleteRead(b"", response.length)
    # It gives the connection back.
    response.close()
    return b"".join(chunks)


def _parse(data: bytes) -> Document | None:
    """The JSON object in `data`; None where there is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() and len(text) < 10 else None
