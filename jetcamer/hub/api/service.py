"""The API as one thing, and as a service that listens.

In: the parts of the hub, endpoints to listen on. Out: every operation over HTTP. After the service
has stopped, every connection is gone, streams too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from jetcamer.hub.api.agents import AgentOperations
from jetcamer.hub.api.bans import BanOperations
from jetcamer.hub.api.commands import CommandOperations
from jetcamer.hub.api.events import EventOperations
from jetcamer.hub.api.field import FieldOperations
from jetcamer.hub.api.identity import IdentityOperations
from jetcamer.hub.api.openapi import document
from jetcamer.hub.api.operations import HubOperations
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.prometheus import MAX_AGENTS, Exposition
from jetcamer.hub.api.table import Call, Media, Operation, make_routes, open_paths
from jetcamer.net.http import Answer, Guard, Routes
from jetcamer.net.http_site import JSONSite, Limits
from jetcamer.net.listen import server_endpoint
from jetcamer.net.url import join_authority

#: A command for many agents names up to thousands of them.
API_LIMITS = Limits(body=256 * 1024, seconds=10.0, connections=256, streams=64)


class ListenError(Exception):
    """An endpoint cannot be listened on. One line for a person."""


class HubAPI:
    """Every operation, and what measures them.

    :param max_agents: agents with series of their own at ``/metrics``.
    """

    def __init__(self, parts: HubParts, *, max_agents: int = MAX_AGENTS) -> None:
        self._parts = parts
        self.exposition = Exposition(parts, max_agents=max_agents)
        self.operations: tuple[Operation, ...] = (
            *HubOperations(parts, self.exposition).operations(),
            Operation(
                method="GET",
                path="/api/openapi.json",
                role="viewer",
                summary="This document",
                handler=self._openapi,
                answers={200: Media("application/json")},
            ),
            *AgentOperations(parts).operations(),
            *BanOperations(parts).operations(),
            *CommandOperations(parts).operations(),
            *EventOperations(parts).operations(),
            *IdentityOperations(parts).operations(),
            *FieldOperations(parts).operations(),
        )
        self._document: bytes | None = None

    def guard(self, *, names: Iterable[str] = ()) -> Guard:
        """Who may ask; it has yet to be told where the site listens."""
        return Guard(
            "localhost",
            names=names,
            authorizer=self._parts.tokens.authorize,
            public=open_paths(self.operations),
            names_from="apiNames",
        )

    def routes(self, guard: Guard) -> Routes:
        return make_routes(
            self.operations, guard, self._parts.clock, self.exposition.request_answered
        )

    def openapi(self) -> dict[str, Any]:
        """The document, as a JSON value."""
        return document(self.operations, self._parts.status.version)

    def _openapi(self, call: Call) -> Answer:
        if self._document is None:
            self._document = msgspec.json.encode(self.openapi()) + b"\n"
        return Answer(self._document)


class APIService(Service):
    """Listens and answers.

    ``bind()`` is for the time before anything starts, so that a port that is taken ends the
    process; `startService` does it where nobody has.

    :param endpoints: descriptions of server endpoints (`jetcamer.net.listen`).
    :param names: host names, beside localhost and the addresses listened on, that clients may call
        this hub by.
    """

    name = "api"

    def __init__(
        self,
        reactor: Any,
        api: HubAPI,
        endpoints: str | Sequence[str],
        *,
        names: Iterable[str] = (),
        limits: Limits = API_LIMITS,
    ) -> None:
        self._reactor = reactor
        self._endpoints = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
        self._guard = api.guard(names=names)
        self._site = JSONSite(reactor, api.routes(self._guard), limits)
        self._ports: list[IListeningPort] = []

    def bind(self) -> None:
        """Take the ports. Raises `ListenError`; a second call does nothing."""
        if self._ports:
            return
        for description in self._endpoints:
            try:
                self._listen(description)
            except CannotListenError as error:
                cause = error.socketError
                words = getattr(cause, "strerror", None) or str(cause)
            except (ValueError, OSError) as error:
                words = str(error)
            else:
                continue
            for listening in self._ports:
                listening.stopListening()
            self._ports.clear()
            raise ListenError(f"apiListen {description}: {words}")

    @property
    def port(self) -> int:
        """The first TCP port that is really listened on. Raises ``RuntimeError`` before `bind`."""
        for listening in self._ports:
            number = getattr(listening.getHost(), "port", None)
            if number is not None:
                return int(number)
        raise RuntimeError("not listening on a TCP port")

    @property
    def urls(self) -> list[str]:
        """Where it listens, for people to read: an endpoint on every interface is that, and a Unix
        socket is ``unix:PATH``."""
        found = []
        for description, listening in zip(self._endpoints, self._ports, strict=True):
            address: Any = listening.getHost()
            if getattr(address, "port", None) is None:
                found.append(f"unix:{os.fsdecode(address.name)}")
            else:
                found.append(_url(description, address.host, address.port))
        return found

    @property
    def url(self) -> str:
        """The first that this machine's own clients reach over TCP, else the first of all."""
        for description, listening in zip(self._endpoints, self._ports, strict=False):
            address: Any = listening.getHost()
            if getattr(address, "port", None) is not None:
                local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
                return _url(description, local, address.port)
        return next(iter(self.urls), self._endpoints[0])

    def startService(self) -> None:
        self.bind()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Fires when the ports are free and every connection is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _listen(self, description: str) -> None:
        outcome: list[Any] = []
        listening: Deferred[IListeningPort] = server_endpoint(self._reactor, description).listen(
            self._site
        )
        listening.addBoth(outcome.append)
        if not outcome:
            raise ValueError("does not listen at once")
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        self._ports.append(outcome[0])
        self._guard.listens_on(str(getattr(outcome[0].getHost(), "host", "localhost")))

    async def _stop(self) -> None:
        ports, self._ports = self._ports, []
        for listening in ports:
            await maybeDeferred(listening.stopListening)
        await self._site.close()


def _url(description: str, host: str, port: int) -> str:
    scheme = "https" if description.startswith("ssl:") else "http"
    return f"{scheme}://{join_authority(host, port)}"
