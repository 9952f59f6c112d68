"""The agent's local HTTP interface (docs/protocol.md, Local HTTP): health, status, credentials;
what is about S3 is in `jetcamer.agent.s3_http`.

In: requests from this machine, or with a token from elsewhere. Out: JSON, and ``ok`` for
``/health``. A secret comes in here and must never go out again: not in an answer, not in a log
line, not in an exception.

`twisted.web` is imported with the first connection. Many agents are never asked anything, and
would carry 1 MB for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, ILoggingContext
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.agent.credential_store import StoredCredentials

if TYPE_CHECKING:
    from typing import Any

    from twisted.web.http import Request

    from jetcamer.agent.credential_store import CredentialStore
    from jetcamer.agent.logs.posted import Stored
    from jetcamer.agent.logs.s3_validate import S3Question
    from jetcamer.net.http import Answer, Guard, Routes
    from jetcamer.net.http_site import JSONSite, Limits

log = Logger()

#: Seconds that a change of the credentials waits to be able to say that the link was started.
CHANGE_SECONDS = 2.0
#: Characters; AWS itself gives 20 and 40, and at most 128 for an access key id.
MAX_ACCESS_KEY, MAX_SECRET, MAX_REGION = 128, 1024, 64

INVALID = "invalid JSON payload"
REQUIRED = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are required"
NO_REGION = "AWS_REGION was not given: the configured or the instance's own region is used"


class AgentView(Protocol):
    """What the interface shows of the agent, and the two things it can give it."""

    @property
    def version(self) -> str: ...

    @property
    def store(self) -> CredentialStore: ...

    def ws_status(self) -> Mapping[str, object]:
        """The members of ``/internal/ws-status``, without a secret."""

    def machine_id(self) -> str:
        """Raises ``OSError`` where the machine has none."""

    def credentials_changed(self) -> Deferred[bool]:
        """Look at the credentials at once; True when that started the link."""

    def s3_question(self) -> S3Question:
        """How the agent archives now, and how that goes."""

    def upload_batch(self, body: bytes, count: int) -> Deferred[Stored]:
        """Archive `count` events, NDJSON; fires when they are safe on disk.

        Raises, or fails with, `ArchiveOff` or `SpoolFull` of `jetcamer.agent.logs.archive_errors`.
        Is cancelled, and so is ``Stored.uploaded``, when nobody waits any longer.
        """


class ListenError(Exception):
    """The address cannot be listened on. One line for a person."""


class LocalHTTP(Service):
    """Listens on one address and answers for the agent behind `view`.

    ``bind()`` is for the time before anything starts, so that a port that is taken ends the
    process; `startService` does it where nobody has. After `stopService` every connection is gone.
    """

    name = "local-http"

    def __init__(
        self,
        reactor: Any,
        *,
        host: str,
        port: int,
        token: str | None,
        view: AgentView,
        names: Iterable[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """
        :param host: an IP address, ``localhost``, or "" for every IPv4 address
        :param port: 0 picks a free one
        :param token: the bearer token that everything but ``/health`` then needs
        :param names: host names, beside ``localhost``, that clients may use for this agent
        """
        self._reactor = reactor
        self._host = host
        self._wanted_port = port
        self._token = token
        self._view = view
        self._names = tuple(names)
        self._limits = limits
        self._factory = _FirstConnectionFactory(self._make_site)
        self._listening: IListeningPort | None = None

    def bind(self) -> None:
        """Take the port. Raises `ListenError`; a second call does nothing."""
        if self._listening is not None:
            return
        try:
            self._listening = self._reactor.listenTCP(
                self._wanted_port, self._factory, interface=self._host
            )
        except CannotListenError as error:
            cause = error.socketError
            words = getattr(cause, "strerror", None) or str(cause)
            host = f"[{self._host}]" if ":" in self._host else self._host
            raise ListenError(f"webListen {host}:{self._wanted_port}: {words}") from None

    @property
    def port(self) -> int:
        """The port that is really listened on. Raises ``RuntimeError`` before `bind`."""
        if self._listening is None:
            raise RuntimeError("not listening")
        address: Any = self._listening.getHost()
        return int(address.port)

    def startService(self) -> None:
        self.bind()
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Fires when the port is free and every connection closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)
        site = self._factory.site
        if site is not None:
            self._factory.site = None
            await site.close()

    def _make_site(self) -> JSONSite:
        from jetcamer.net.http import Guard
        from jetcamer.net.http_site import JSONSite

        guard = Guard(self._host, names=self._names, token=self._token, public=("/health",))
        routes = local_routes(self._reactor, self._view, guard)
        return JSONSite(self._reactor, routes, self._limits)


def local_routes(clock: Any, view: AgentView, guard: Guard) -> Routes:
    """Every route of the local interface, for the agent behind `view`.

    :param clock: the reactor; only ``/internal/s3-validate`` needs more of it than its time
    """
    from jetcamer.agent.s3_http import S3Handlers
    from jetcamer.net.http import Routes

    handlers = _Handlers(clock, view)
    s3 = S3Handlers(clock, view)
    return Routes(
        guard,
        {
            "/health": {"GET": handlers.health},
            "/version": {"GET": handlers.version},
            "/internal/get-machine-id": {"GET": handlers.machine_id},
            "/internal/ws-status": {"GET": handlers.ws_status},
            "/internal/set-aws-config": {
                "PUT": handlers.set_aws_config,
                "POST": handlers.set_aws_config,
                "DELETE": handlers.forget_aws_config,
            },
            "/internal/s3-validate": {"GET": s3.s3_validate},
            "/internal/batch": {"POST": s3.batch},
        },
    )


@implementer(ILoggingContext)
class _FirstConnectionFactory(ServerFactory):
    """Makes the site, and imports what it needs, when somebody connects."""

    noisy = False

    def logPrefix(self) -> str:
        """Twisted's log says that this is "starting on" a port."""
        return "[http] interface"

    def __init__(self, make_site: Callable[[], JSONSite]) -> None:
        self._make_site = make_site
        self.site: JSONSite | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.site is None:
            self.site = self._make_site()
        return self.site.buildProtocol(addr)


class _Handlers:
    """One method a route; each gives what `jetcamer.net.http.Handler` may give."""

    def __init__(self, clock: Any, view: AgentView) -> None:
        self._clock = clock
        self._view = view

    def health(self, request: Request) -> Answer:
        from jetcamer.net.http import Answer

        return Answer(b"ok", content_type="text/plain")

    def version(self, request: Request) -> object:
        return {"version": self._view.version}

    def machine_id(self, request: Request) -> object:
        try:
            return {"machineId": self._view.machine_id()}
        except OSError as error:
            raise _refusal(500, f"the machine id cannot be read: {error.strerror}") from None

    def ws_status(self, request: Request) -> object:
        return self._view.ws_status()

    async def set_aws_config(self, request: Request) -> object:
        from jetcamer.net.http import read_json

        try:
            credentials = parse_aws_config(read_json(request))
        except ValueError as error:
            raise _refusal(400, str(error)) from None
        try:
            self._view.store.save(credentials)
        except OSError as error:
            log.error("[http] AWS credentials not stored: {error}", error=str(error))
            raise _refusal(500, f"the credentials cannot be stored: {error.strerror}") from None
        log.info("[http] AWS credentials stored")
        answer = {"status": "ok", "message": "AWS credentials stored successfully"}
        if credentials.region is None:
            answer["warning"] = NO_REGION
        else:
            answer["region"] = credentials.region
        if await self._changed():
            answer["websocket"] = "started"
        return answer

    async def forget_aws_config(self, request: Request) -> object:
        try:
            found = self._view.store.delete()
        except OSError as error:
            log.error("[http] AWS credentials not removed: {error}", error=str(error))
            raise _refusal(500, f"the credentials cannot be removed: {error.strerror}") from None
        if found:
            log.info("[http] AWS credentials removed")
        await self._changed()
        words = "AWS credentials removed" if found else "no AWS credentials were stored"
        return {"status": "ok", "message": words}

    def _changed(self) -> Deferred[bool]:
        """What `credentials_changed` says, or False after `CHANGE_SECONDS`; the look goes on."""
        waiting: Deferred[bool] = Deferred(lambda _: timer.cancel())
        timer = self._clock.callLater(CHANGE_SECONDS, waiting.callback, False)

        def looked(started: bool) -> None:
            if not waiting.called:
                timer.cancel()
                waiting.callback(started)

        def failed(failure: Failure) -> None:
            log.failure("[http] the new credentials could not be looked at", failure)
            looked(False)

        maybeDeferred(self._view.credentials_changed).addCallbacks(looked, failed)
        return waiting


def parse_aws_config(body: object) -> StoredCredentials:
    """The credentials in the body of a request to ``/internal/set-aws-config``.

    White space around a value is dropped: a file read by a shell ends in a line break. Raises
    ``ValueError``, one line for the caller that quotes nothing of the body.
    """
    if not isinstance(body, dict):
        raise ValueError(INVALID)
    values: dict[str, str] = {}
    for name, limit in (
        ("AWS_ACCESS_KEY_ID", MAX_ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", MAX_SECRET),
        ("AWS_REGION", MAX_REGION),
    ):
        value = body.get(name)
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise ValueError(INVALID)
        value = value.strip()
        if len(value) > limit:
            raise ValueError(f"{name} is longer than {limit} characters")
        if not value.isprintable():
            raise ValueError(f"{name} holds a character that cannot be printed")
        values[name] = value
    if not values["AWS_ACCESS_KEY_ID"] or not values["AWS_SECRET_ACCESS_KEY"]:
        raise ValueError(REQUIRED)
    region = values["AWS_REGION"] or None
    if region is not None and not _is_region(region):
        raise ValueError("AWS_REGION is not the name of a region")
    return StoredCredentials(
        access_key_id=values["AWS_ACCESS_KEY_ID"],
        secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        region=region,
    )


def _is_region(text: str) -> bool:
    """Loosely: AWS adds regions, and other makers of S3 have names of their own."""
    return text.isascii() and text.replace("-", "").isalnum() and text == text.lower()


def _refusal(status: int, words: str) -> Exception:
    from jetcamer.net.http import HTTPError

    return HTTPError(status, words)
