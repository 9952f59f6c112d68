"""One HTTP call that is over in time: a status and a short text.

In: method, URL, headers, seconds. Out: the answer, or one of three errors in words. Must never
follow a redirect, use a proxy, start a thread for an address, keep a connection, or leave one
behind when it is cancelled. Importing this imports treq.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

MAX_ANSWER = 1024
_NO_CONNECTION = (ConnectError, ConnectTimeoutError, DNSLookupError, ConnectingCancelledError)


class NoConnectionError(Exception):
    """Nobody there to ask."""


class NoAnswerError(Exception):
    """Connected, and then nothing in time, or no HTTP, or the connection lost."""


class TooLongError(Exception):
    """An answer of more than :data:`MAX_ANSWER` bytes."""


async def call(
    reactor: Any, agent: IAgent, method: str, url: str, headers: dict[str, str], limit: float
) -> tuple[int, str]:
    """Status and text (Latin-1) of the answer. `limit` is in seconds and holds for all of it.

    Raises one of the three errors above, also when it is cancelled.
    """
    call = Deferred.fromCoroutine(_exchange(reactor, agent, method, url, headers))
    call.addTimeout(limit, reactor, onTimeoutCancel=_timed_out)
    try:
        return await call
    except (NoAnswerError, TooLongError):
        raise
    except _NO_CONNECTION as error:
        raise NoConnectionError(_words(error)) from None
    except Exception as error:
        raise NoAnswerError(_words(error)) from None


def direct_agent(reactor: Any, base: str, connect_timeout: float) -> IAgent:
    """An agent that connects to the address in the URL `base`, whatever it is asked for, gives up
    on that after so many seconds, and pools nothing."""
    parts = urlsplit(base)
    endpoint = TCP4ClientEndpoint(
        reactor, parts.hostname or "", parts.port or 80, timeout=connect_timeout
    )
    agent: IAgent = Agent.usingEndpointFactory(reactor, _Direct(endpoint))
    return agent


async def _exchange(
    reactor: Any, agent: IAgent, method: str, url: str, headers: dict[str, str]
) -> tuple[int, str]:
    every = Headers({name: [value] for name, value in headers.items()})
    netloc = urlsplit(url).netloc
    if netloc.startswith("["):
        # treq takes an IPv6 address for a name, and fails; the agent connects by itself.
        url = url.replace(netloc, "ipv6.invalid", 1)
        every.setRawHeaders("Host", [netloc])
    response = await HTTPClient(agent).request(
        method, url, headers=every, allow_redirects=False, unbuffered=True, reactor=reactor
    )
    body = _Body()
    response.deliverBody(body)
    return response.code, (await body.finished).decode("latin-1")


@implementer(IAgentEndpointFactory)
class _Direct:
    """Agent's own way starts a thread of the resolver even for an IP address."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return _Quiet(self._endpoint)


@implementer(IStreamClientEndpoint)
class _Quiet:
    """The pool's factories write two lines into the log for each connection, unless told not to."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        protocolFactory.noisy = False  # type: ignore[attr-defined]
        return self._endpoint.connect(protocolFactory)


class _Body(Protocol):
    """Collects one body into ``finished``."""

    def __init__(self) -> None:
        self.finished: Deferred[bytes] = Deferred(self._cancelled)
        self._received = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > MAX_ANSWER:
            self._end(TooLongError(f"an answer of more than {MAX_ANSWER} bytes"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone, PotentialDataLoss):
            self._end(bytes(self._received))
        else:
            self._end(NoAnswerError("the answer broke off"))

    def _cancelled(self, _: Deferred[bytes]) -> None:
        self._end(NoAnswerError("no answer in time"))

    def _end(self, result: bytes | Exception) -> None:
        if self.finished.called:
            return
        if isinstance(result, bytes):
            self.finished.callback(result)
            return
        self.finished.errback(result)
        if self.transport is not None:
            self.transport.loseConnection()


def _timed_out(result: Any, seconds: float) -> Failure:
    """What a call that was cancelled for its time fails with."""
    if isinstance(result, Failure) and result.check(ConnectingCancelledError):
        return result
    return Failure(NoAnswerError(f"no answer within {seconds:.2g} s"))


def _words(error: BaseException) -> str:
    reasons = getattr(error, "reasons", None)  # twisted.web's failures wrap the cause
    if reasons:
        return _words(reasons[0].value)
    if isinstance(error, ConnectTimeoutError | ConnectingCancelledError):
        return "no answer"
    number = getattr(error, "osError", None)
    if isinstance(number, int):
        return os.strerror(number).lower()
    return str(error).rstrip(".").lower() or type(error).__name__
