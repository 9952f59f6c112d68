"""What the EC2 instance metadata service says about this machine.

In: the environment, which may move the service or turn it off. Out: an :class:`Ec2Metadata`
whose members are None until the service gave a valid answer, and are never lost again. A look
takes 2 s at most, never raises and never goes through a proxy. Nothing is imported for it, and
nothing sent, before somebody asks for something that is not known yet.

Off EC2 nobody answers. After a look that failed the next ones return at once what is known, for
10 s, then 20, 40 … and at most 300 s, so that asking every few seconds costs nothing there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from twisted.internet.abstract import isIPAddress
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from twisted.web.iweb import IAgent

log = Logger()

DEFAULT_BASE = "http://169.254.169.254"
TOKEN_TTL = 21600
#: Seconds for a whole look, for one call of it, and for the connect of that call.
LOOK_SECONDS, CALL_SECONDS, CONNECT_SECONDS = 2.0, 1.0, 0.9
#: Seconds during which a service that gave no token is asked without one.
_V1_SECONDS = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 300.0


class Ec2Metadata(msgspec.Struct, frozen=True):
    public_ipv4: str | None = None
    instance_id: str | None = None
    region: str | None = None
    #: Name of the instance's IAM role; asked for only by who names it.
    iam_role: str | None = None


class _Item(msgspec.Struct, frozen=True):
    path: str
    valid: Callable[[str], object]
    constant: bool  # for the life of the instance


_ITEMS = {
    "instance_id": _Item("instance-id", re.compile(r"i-[0-9a-f]{8,32}").fullmatch, True),
    "region": _Item("placement/region", re.compile(r"[a-z]{2,8}(-[a-z0-9]+)+").fullmatch, True),
    "public_ipv4": _Item("public-ipv4", isIPAddress, False),
    "iam_role": _Item(
        "iam/security-credentials/", re.compile(r"[\w+=,.@-]{1,64}", re.ASCII).fullmatch, False
    ),
}
_ZONE_PATH = "placement/availability-zone"
_TOKEN = re.compile(r"[!-~]+")


class _LookError(Exception):
    """The service cannot be used now; the text says why."""


class _ItemError(Exception):
    """One item has no usable answer; the text says why. `absent`: the service says so itself."""

    def __init__(self, words: str, *, absent: bool = False) -> None:
        super().__init__(words)
        self.absent = absent


class _NoAnswerError(Exception):
    """Connected, and then nothing in time, or the connection lost."""


class MetadataClient:
    """Asks the metadata service, and remembers.

    `reactor` needs connectTCP and a clock; `agent` (an ``IAgent``) replaces the HTTP client.
    ``known`` is what all looks together found out; ``last_error`` says in words what went wrong
    in the last one, or why there is none, and is None when all went well.
    """

    def __init__(
        self, reactor: Any, environ: Mapping[str, str], agent: IAgent | None = None
    ) -> None:
        self.known = Ec2Metadata()
        self.last_error: str | None = None
        self._reactor = reactor
        self._agent = agent
        self._base: str | None = None
        try:
            self._base = _base_address(environ)
        except ValueError as error:
            self.last_error = str(error)
        self._token: str | None = None
        self._token_until = 0.0
        self._v1_until = 0.0
        self._pause = 0.0
        self._paused_until = 0.0
        self._running: Deferred[None] | None = None
        self._asking: list[str] = []
        self._deadline = 0.0
        self._waiters: list[Deferred[None]] = []

    async def look(
        self, wanted: Collection[str] = ("instance_id", "region", "public_ipv4")
    ) -> Ec2Metadata:
        """Ask for those of the `wanted` members of :class:`Ec2Metadata` that are not settled,
        and answer all that is known. Shares a look that is running."""
        while due := self._due(wanted):
            waiter: Deferred[None] = Deferred(self._leave)
            self._waiters.append(waiter)
            if self._running is None:
                self._begin(due)
            covered = set(due) <= set(self._asking)
            await waiter
            if covered:
                break
        return self.known

    def _due(self, wanted: Collection[str]) -> list[str]:
        if self._base is None:
            return []
        # A timer that asks every ten seconds must not miss its turn by a hair.
        if self._running is None and self._reactor.seconds() < self._paused_until - 0.5:
            return []
        return [
            name
            for name, item in _ITEMS.items()
            if name in wanted and not (item.constant and getattr(self.known, name))
        ]

    def _begin(self, due: list[str]) -> None:
        self._asking = due
        self._deadline = self._reactor.seconds() + LOOK_SECONDS
        self._running = Deferred.fromCoroutine(self._look(due))
        self._running.addBoth(self._ended)

    def _ended(self, result: Failure | None) -> None:
        self._running = None
        if isinstance(result, Failure) and self._waiters:
            log.failure("the look at the EC2 metadata service failed", result)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)

    def _leave(self, waiter: Deferred[None]) -> None:
        """A waiter was cancelled; with the last one the look ends."""
        self._waiters.remove(waiter)
        if not self._waiters and self._running is not None:
            self._deadline = 0.0
            self._running.cancel()

    async def _look(self, due: list[str]) -> None:
        started = self._reactor.seconds()
        problems: dict[str, list[str]] = {}  # words, and the items that have them
        failed = False
        try:
            for name in due:
                try:
                    value = await self._item(name)
                except _ItemError as refused:
                    problems.setdefault(str(refused), []).append(_ITEMS[name].path)
                    failed = failed or not refused.absent
                else:
                    self.known = msgspec.structs.replace(self.known, **{name: value})
        except _LookError as error:
            problems[str(error)] = []
            failed = True
        # Something answers 404 to everything at this address on other clouds.
        if self._token is None and self.known == Ec2Metadata():
            failed = True
        self.last_error = (
            "; ".join(
                f"{', '.join(paths)}: {words}" if paths else words
                for words, paths in problems.items()
            )
            or None
        )
        self._pause = min(_LONGEST_PAUSE, self._pause * 2 or _FIRST_PAUSE) if failed else 0.0
        self._paused_until = started + self._pause

    async def _item(self, name: str) -> str:
        item = _ITEMS[name]
        try:
            text = await self._get(item.path)
        except _ItemError as refused:
            if name != "region" or not refused.absent:
                raise
            text = (await self._get(_ZONE_PATH))[:-1]
            if not item.valid(text):  # other clouds name their zones as they like
                raise _ItemError("named by nothing", absent=True) from None
        if name == "iam_role":
            text = text.partition("\n")[0]
        if not item.valid(text):
            raise _ItemError(f"an answer that cannot be one ({len(text)} characters)")
        return text

    async def _get(self, path: str) -> str:
        status = 0
        for _ in range(2):
            token = await self._current_token()
            headers = {} if token is None else {"X-aws-ec2-metadata-token": token}
            try:
                status, text = await self._call("GET", f"/latest/meta-data/{path}", headers)
            except _NoAnswerError as error:
                raise _ItemError(str(error)) from None
            if status == 200:
                return text.strip()
            if status != 401:
                break
            # The token ran out or was never good; or the service wants one after all.
            self._token, self._v1_until = None, 0.0
        raise _ItemError(f"HTTP status {status}", absent=status == 404)

    async def _current_token(self) -> str | None:
        """A session token; None where the service knows none (IMDSv1)."""
        now = self._reactor.seconds()
        if self._token is not None and now < self._token_until:
            return self._token
        if now < self._v1_until:
            return None
        self._token = None
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL)}
        try:
            status, text = await self._call("PUT", "/latest/api/token", ttl)
        except _ItemError as refused:
            raise _LookError(f"{self._base}: not a metadata service: {refused}") from None
        except _NoAnswerError:
            # Inside a container the answer to this call, and only to this one, may be dropped.
            status, text = 0, ""
        if status != 200:
            self._v1_until = now + _V1_SECONDS
            return None
        text = text.strip()
        if not _TOKEN.fullmatch(text):
            raise _LookError(f"{self._base}: not a metadata service: the token is none")
        self._token, self._token_until = text, now + TOKEN_TTL - 60
        return text

    async def _call(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        assert self._base is not None
        limit = min(CALL_SECONDS, self._deadline - self._reactor.seconds())
        if limit <= 0:
            raise _LookError(f"{self._base}: no answer within {LOOK_SECONDS:g} s")
        # Here and not above: on most machines nothing is ever asked.
        from jetcamer.agent import short_http

        if self._agent is None:
            self._agent = short_http.direct_agent(self._reactor, self._base, CONNECT_SECONDS)
        try:
            return await short_http.call(
                self._reactor, self._agent, method, f"{self._base}{path}", headers, limit
            )
        except short_http.NoConnectionError as error:
            raise _LookError(f"{self._base}: {error}") from None
        except short_http.TooLongError as error:
            raise _ItemError(str(error)) from None
        except short_http.NoAnswerError as error:
            raise _NoAnswerError(str(error)) from None


def _base_address(environ: Mapping[str, str]) -> str:
    """Where the service is. Raises ``ValueError`` with words: it is off, or the address bad."""
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise ValueError("turned off by AWS_EC2_METADATA_DISABLED")
    base = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or DEFAULT_BASE
    if not re.fullmatch(r"http://([\w.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?/?", base, re.ASCII):
        raise ValueError("AWS_EC2_METADATA_SERVICE_ENDPOINT: not an address like http://host:port")
    port = re.search(r":([0-9]+)/?$", base)
    if port is not None and int(port[1]) > 65535:
        raise ValueError("AWS_EC2_METADATA_SERVICE_ENDPOINT: no such port")
    return base.rstrip("/")
