"""The port that agents connect to, as a service.

In: an endpoint, plain or TLS, and who makes sessions. Out: a listening port whose connections are
`AgentWebSocket`s, and an end that sends every agent away with a word instead of dropping it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.hub.session import AgentSession, Connection
from jetcamer.hub.websocket import DEFAULT_LIMITS, AgentWebSocketFactory, Limits

_log = Logger()


class Gateway(Service):
    """The listening port and the connections that came through it, as a service.

    :param endpoint: a server endpoint, or its description for `serverFromString`:
        ``tcp:443:interface=0.0.0.0`` or ``ssl:443:privateKey=…:certKey=…``.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: str | IStreamServerEndpoint,
        make_session: Callable[[Connection], AgentSession],
        *,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._endpoint = (
            serverFromString(reactor, endpoint) if isinstance(endpoint, str) else endpoint
        )
        self.factory = AgentWebSocketFactory(reactor, make_session, limits)
        self._listening: Deferred[IListeningPort | None] | None = None
        self._port: IListeningPort | None = None

    @property
    def address(self) -> IAddress:
        """Where it listens. Only once it does."""
        if self._port is None:
            raise RuntimeError("the gateway does not listen yet")
        return self._port.getHost()

    @property
    def port(self) -> int:
        """The TCP port it listens on. Only once it does."""
        return int(cast(Any, self.address).port)

    def privilegedStartService(self) -> None:
        """Listen. Raises at once what prevents it, so that no hub runs on deaf."""
        failures: list[Failure] = []

        def listens(port: IListeningPort) -> IListeningPort:
            self._port = port
            return port

        def fails(failure: Failure) -> None:
            failures.append(failure)
            if started and not failure.check(CancelledError):
                _log.failure("[hub] cannot listen", failure)

        started = False
        self.factory.draining = False
        self._listening = self._endpoint.listen(self.factory).addCallbacks(listens, fails)
        started = True
        if failures:
            self._listening = None
            failures[0].raiseException()

    def startService(self) -> None:
        super().startService()
        if self._listening is None:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Take no new connection, send the open ones away; fires when all are gone."""
        super().stopService()
        listening, self._listening, self._port = self._listening, None, None
        if listening is None:
            return succeed(None)
        listening.cancel()

        async def stop_listening() -> None:
            port = await listening
            if port is not None:
                await maybeDeferred(port.stopListening)

        stopped = [Deferred.fromCoroutine(stop_listening()), self.factory.drain()]
        return gatherResults(stopped).addCallback(lambda _: None)


def wall_clock_ms() -> int:
    """Unix milliseconds now. The reactor's own time need not be the time of day."""
    return time.time_ns() // 1_000_000
