"""The hub's server-sent events, over as many connections as it takes.

In: the bytes of `GET /api/events` (WHATWG HTML, 9.2). Out: events, one after the other, without
end. A connection that breaks is made again and resumes where it broke; what cannot be resumed is
an event of the kind `gap`. No line is read without bound.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Any, NamedTuple

from jetcamer.cli.hub.client import HubClient, OpenStream, Query, path_of
from jetcamer.cli.hub.errors import HubError

GAP = "gap"

_LINE_BYTES = 8 * 1024 * 1024
_LONGEST_WAIT = 30.0


class Event(NamedTuple):
    event_id: str
    kind: str
    #: The JSON object of its data; the text under `text` where it is none.
    data: dict[str, Any]


class EventStream:
    """:param last_id: the event after which to begin; None: with what comes next.
    :param on_break: told why a connection broke, and in how many seconds the next is tried.
    """

    def __init__(
        self,
        client: HubClient,
        query: Query,
        *,
        last_id: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        on_break: Callable[[str, float], None] = lambda words, seconds: None,
    ) -> None:
        self._client = client
        self._query = query
        self._last_id = last_id
        self._sleep = sleep
        self._on_break = on_break
        self._connection: OpenStream | None = None
        self._failures = 0

    def open(self) -> None:
        """Connect. Raises `HubError`: the first failure is the caller's to tell."""
        headers = {} if self._last_id is None else {"Last-Event-ID": self._last_id}
        self._connection = self._client.open_stream(path_of("events"), self._query, headers)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __iter__(self) -> Iterator[Event]:
        """Raises `HubError` when the hub says what no later attempt will change."""
        if self._connection is None:
            self.open()
        while True:
            try:
                yield from self._events()
                self._again("the hub ended the connection")
            except (OSError, HTTPException, ValueError) as error:
                # A response that was closed meanwhile raises ValueError.
                self._again("no word from the hub" if isinstance(error, TimeoutError) else "")

    def _events(self) -> Iterator[Event]:
        """What comes until the connection ends."""
        assert self._connection is not None
        event_id, kind, data = self._last_id or "", "", list[str]()
        while line := self._connection.readline(_LINE_BYTES):
            if not line.endswith(b"\n"):
                # It broke within a line, or the line is too long: neither is an event.
                return
            self._failures = 0
            name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
            value = value.removeprefix(" ")
            if name == "id" and "\0" not in value:
                event_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif not name and not value and line.strip(b"\r\n") == b"":
                if event_id and event_id.isprintable() and event_id.isascii():
                    self._last_id = event_id
                if data or kind == GAP:
                    yield Event(event_id, kind or "message", _object("\n".join(data)))
                kind, data = "", []

    def _again(self, words: str) -> None:
        """Connect, however often it takes."""
        asked = 0.0
        while True:
            self.close()
            wait = min(_LONGEST_WAIT, 2.0**self._failures) * random.uniform(0.5, 1.0)  # noqa: S311
            wait = max(wait, asked)
            self._failures = min(self._failures + 1, 10)
            self._on_break(words or "the connection broke", wait)
            self._sleep(wait)
            try:
                self.open()
            except HubError as error:
                if not error.passes:
                    raise
                words = str(error)
                asked = min(error.retry_after or 0.0, 2 * _LONGEST_WAIT)
            else:
                return


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"text": text}
