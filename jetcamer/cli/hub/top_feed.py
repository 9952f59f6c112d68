"""What `top` shows, fetched while it draws.

In: the hub's API. Out: events, lists of agents, words about a connection that broke, and the error
that ends it all, in the order in which they came.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from jetcamer.cli.hub.client import HubClient
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.settings import Settings
from jetcamer.cli.hub.stream import Event, EventStream

#: Seconds between two lists of all agents, and the least between two where events ask for one.
_LIST_EVERY = 15.0
_LIST_LEAST = 2.0

#: Events in one turn: a storm must not keep the keys from being read.
_AT_ONCE = 5000

Arrival = Event | list[dict[str, Any]] | HubError | str


class Feed:
    """Events and lists of agents, fetched by two threads and taken by one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Bounded: while the terminal stands still, so do the connections.
        self._arrivals: queue.Queue[Arrival] = queue.Queue(2 * _AT_ONCE)
        self._refresh = threading.Event()
        self._stopping = threading.Event()
        for work in (self._follow, self._list):
            threading.Thread(target=self._guarded, args=(work,), daemon=True).start()

    def stop(self) -> None:
        """Ask for no more lists. A stream ends with the process."""
        self._stopping.set()
        self._refresh.set()

    def list_soon(self) -> None:
        """Something changed that the events do not tell whole."""
        self._refresh.set()

    def take(self, seconds: float) -> Iterator[Arrival]:
        """What has come; waits at most `seconds` for the first."""
        try:
            yield self._arrivals.get(timeout=seconds)
            for _ in range(_AT_ONCE):
                yield self._arrivals.get_nowait()
        except queue.Empty:
            pass

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except HubError as error:
            self._arrivals.put(error)

    def _follow(self) -> None:
        stream = EventStream(
            HubClient(self._settings),
            {"kinds": "agent,metrics"},
            on_break=lambda words, seconds: self._arrivals.put(
                f"{words}; trying again in {max(1, round(seconds))} s"
            ),
        )
        for event in stream:
            self._arrivals.put(event)

    def _list(self) -> None:
        client = HubClient(self._settings)
        while not self._stopping.wait(_LIST_LEAST):
            self._refresh.wait(_LIST_EVERY - _LIST_LEAST)
            self._refresh.clear()
            if self._stopping.is_set():
                return
            try:
                listed = client.agents()
            except HubError as error:
                if not error.passes:
                    raise
                self._arrivals.put(str(error))
            else:
                self._arrivals.put(listed["agents"])
