"""The ports that agents connect to, as a service.

In: endpoints, plain or TLS, and who makes sessions. Out: listening ports whose connections are
`AgentWebSocket`s, and an end that sends every agent away with a word instead of dropping it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.hub.admission import Admission, Offenders
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import Connection
from jetcamer.hub.websocket import (
    DEFAULT_LIMITS,
    PATH,
    AgentWebSocket,
    AgentWebSocketFactory,
    Limits,
)
from jetcamer.net.listen import TLSServerEndpoint, server_endpoint
from jetcamer.net.url import join_authority

_log = Logger()


@implementer(IProtocolFactory)
class NoneBanned:
    """The factory, for connections whose first words would cost a TLS handshake: who is banned is
    not let that far, and is told nothing."""

    def __init__(self, factory: AgentWebSocketFactory) -> None:
        self._factory = factory

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress) -> AgentWebSocket | None:
        return None if self._factory.is_banned(addr) else self._factory.buildProtocol(addr)


class Gateway(Service):
    """The listening ports and the connections that came through them, as a service.

    :param endpoints: server endpoints, or their descriptions: ``tcp:443:interface=0.0.0.0`` or
        ``ssl:443:privateKey=…:certKey=…``; one, or several.
    :param admission: how many may come in a second; None: any number.
    :param offenders: who may not come at all for a time; None: nobody is turned away.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        endpoints: str | IStreamServerEndpoint | Sequence[str | IStreamServerEndpoint],
        make_session: Callable[[Connection], AgentSession],
        *,
        limits: Limits = DEFAULT_LIMITS,
        admission: Admission | None = None,
        offenders: Offenders | None = None,
    ) -> None:
        self._described = endpoints if isinstance(endpoints, (list, tuple)) else (endpoints,)
        self._endpoints: list[IStreamServerEndpoint] = [
            server_endpoint(reactor, each) if isinstance(each, str) else each
            for each in self._described
        ]
        self.factory = AgentWebSocketFactory(
            reactor, make_session, limits, admission=admission, offenders=offenders
        )
        self._listening: list[Deferred[IListeningPort | None]] = []
        self._open_ports: dict[int, IListeningPort] = {}

    @property
    def addresses(self) -> list[IAddress]:
        """Where it listens, in the order of the endpoints."""
        return [self._open_ports[index].getHost() for index in sorted(self._open_ports)]

    @property
    def ports(self) -> list[int]:
        """The TCP ports it listens on; a Unix socket has none."""
        addresses = cast("list[Any]", self.addresses)
        return [int(address.port) for address in addresses if hasattr(address, "port")]

    @property
    def port(self) -> int:
        """The first of its TCP ports. Only once it listens."""
        if not self.ports:
            raise RuntimeError("the gateway does not listen yet")
        return self.ports[0]

    @property
    def urls(self) -> list[str]:
        """Where agents connect to, for a person, in the order of the endpoints: the addresses are
        those it is bound to, and a Unix socket is said as it was described."""
        found = []
        for index in sorted(self._open_ports):
            address = cast(Any, self._open_ports[index].getHost())
            if hasattr(address, "port"):
                scheme = "wss" if isinstance(self._endpoints[index], TLSServerEndpoint) else "ws"
                found.append(f"{scheme}://{join_authority(address.host, address.port)}{PATH}")
            else:
                found.append(str(self._described[index]))
        return found

    # What the status asks for.

    @property
    def connections(self) -> int:
        """Those that are there, upgraded or not yet."""
        return len(self.factory.connections)

    @property
    def handshakes(self) -> int:
        """WebSockets opened since the start."""
        return self.factory.handshakes

    @property
    def handshakes_refused(self) -> Mapping[int, int]:
        """Requests refused since the start, by status; 0: connections ended without an answer."""
        return self.factory.handshakes_refused

    @property
    def draining(self) -> bool:
        return self.factory.draining

    def hold(self) -> None:
        """Until `release`, ask those that come to come again soon (503). The ports are taken before
        all that is needed to serve is there."""
        self.factory.held = True

    def release(self) -> None:
        self.factory.held = False

    # IService

    def privilegedStartService(self) -> None:
        """Listen. Raises at once what prevents it, so that no hub runs on deaf."""
        failures: list[Failure] = []

        def listens(port: IListeningPort, index: int) -> IListeningPort:
            self._open_ports[index] = port
            return port

        def fails(failure: Failure) -> None:
            failures.append(failure)
            if started and not failure.check(CancelledError):
                _log.failure("[hub] cannot listen", failure)

        started = False
        self.factory.draining = False
        for index, endpoint in enumerate(self._endpoints):
            behind_tls = isinstance(endpoint, TLSServerEndpoint)
            factory = NoneBanned(self.factory) if behind_tls else self.factory
            listening = endpoint.listen(factory).addCallback(listens, index)
            self._listening.append(listening.addErrback(fails))
        started = True
        if failures:
            self._stop_listening()
            failures[0].raiseException()

    def startService(self) -> None:
        super().startService()
        if not self._listening:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Take no new connection, send the open ones away; fires when all are gone."""
        super().stopService()
        if not self._listening:
            return succeed(None)
        stopped = [*self._stop_listening(), self.factory.drain()]
        return gatherResults(stopped).addCallback(lambda _: None)

    def _stop_listening(self) -> list[Deferred[None]]:
        several, self._listening = self._listening, []
        self._open_ports.clear()

        async def stop(listening: Deferred[IListeningPort | None]) -> None:
            port = await listening
            if port is not None:
                await maybeDeferred(port.stopListening)

        for listening in several:
            listening.cancel()
        return [Deferred.fromCoroutine(stop(listening)) for listening in several]
