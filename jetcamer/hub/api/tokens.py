"""API tokens: who may ask the hub what.

In: tokens as clients show them. Out: a `Principal`, or a refusal. A token is known by its digest
alone: it is nowhere but in the answer that creates it, and a look-up by digest tells nothing by the
time it takes.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web.http import Request

from jetcamer.hub.admission import UNIX, ClientAddress, plain_address
from jetcamer.hub.api.throttle import Throttle
from jetcamer.hub.records import ROLES, APITokenRecord, Role
from jetcamer.hub.store.interface import ConflictError, Store
from jetcamer.net.http import HTTPError
from jetcamer.net.http_guard import bearer_token, unauthorized

log = Logger()

#: How much later a use must be than the last one written down. Milliseconds.
USE_WRITTEN_MS = 60_000
#: Seconds after which it is looked again whether a token that somebody goes on using has expired:
#: the wall clock may be set meanwhile.
LOOK_SECONDS = 60.0
#: How long a token that has expired is kept in memory: the clock may be set back. Milliseconds.
EXPIRED_KEPT_MS = 86_400_000


class Principal(msgspec.Struct, frozen=True):
    """Who asks: an API token's name and role."""

    token_id: str
    name: str
    role: Role

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


class LastAdminError(Exception):
    """Without it nobody could administer the hub."""


class Tokens:
    """The tokens that are known, in memory; what changes is written to the store.

    :param trusted_proxies: addresses and networks whose X-Forwarded-For is believed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: Store,
        *,
        now_ms: Callable[[], int],
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        self._clock = clock
        self._store = store
        self._now_ms = now_ms
        #: Those who want to know when a token ends, by its id.
        self._watches: dict[str, set[_Watch]] = {}
        self._addresses = ClientAddress(trusted_proxies)
        self.throttle = Throttle(clock)
        self._tokens: dict[bytes, APITokenRecord] = {}
        self._loaded = False

    async def load(self) -> None:
        """Read what the store has. Fails with `StoreError`."""
        self._tokens = {token.digest: token for token in await self._store.api_tokens()}
        self._loaded = True

    async def ensure_admin(self, *, another: bool = False) -> str | None:
        """Load, and where no admin's token is valid, or `another` is wanted, make one: the token,
        or None. Fails with `StoreError`."""
        await self.load()
        if self._admins() and not another:
            return None
        names = {token.name for token in self._valid()}
        name = next(
            name
            for name in ("admin", *(f"admin-{number}" for number in range(2, len(names) + 3)))
            if name not in names
        )
        _, token = await self.create(name, "admin", None, who="hub")
        return token

    def all(self) -> list[APITokenRecord]:
        """Those that are valid, the oldest first. The store forgets others by itself."""
        return sorted(self._valid(), key=lambda token: (token.created_ms, token.token_id))

    def while_valid(self, token_id: str, over: Callable[[], None]) -> Callable[[], None]:
        """Call `over` once, as soon as this token is deleted or expires; returns what takes that
        back. For what goes on after a request was allowed."""
        watch = _Watch(over)
        self._watches.setdefault(token_id, set()).add(watch)
        self._look(token_id, watch)
        return partial(self._forget, token_id, watch)

    def _look(self, token_id: str, watch: _Watch) -> None:
        record = next((t for t in self._tokens.values() if t.token_id == token_id), None)
        if record is None or not self._is_valid(record):
            self._forget(token_id, watch)
            watch.over()
        elif record.expires_ms is not None:
            left = (record.expires_ms - self._now_ms()) / 1000
            watch.timer = self._clock.callLater(
                min(left, LOOK_SECONDS), self._look, token_id, watch
            )

    def _forget(self, token_id: str, watch: _Watch) -> None:
        watches = self._watches.get(token_id, set())
        watches.discard(watch)
        if not watches:
            self._watches.pop(token_id, None)
        if watch.timer is not None and watch.timer.active():
            watch.timer.cancel()

    async def create(
        self, name: str, role: Role, expires_seconds: float | None, *, who: str
    ) -> tuple[APITokenRecord, str]:
        """A new token and its record. Fails with `ConflictError` where a valid token has the name,
        for the audit trail knows people by it, and with `StoreError`."""
        if any(token.name == name for token in self._valid()):
            raise ConflictError("a token of this name is there already")
        token = "jc_" + secrets.token_urlsafe(32)
        now = self._now_ms()
        record = APITokenRecord(
            token_id=secrets.token_hex(8),
            name=name,
            role=role,
            digest=_digest(token.encode()),
            created_ms=now,
            expires_ms=None if expires_seconds is None else now + round(expires_seconds * 1000),
        )
        self._tokens = {
            digest: token
            for digest, token in self._tokens.items()
            if token.expires_ms is None or now - token.expires_ms < EXPIRED_KEPT_MS
        }
        # In memory first: a second one of this name must not come in between.
        self._tokens[record.digest] = record
        try:
            await self._store.put_api_token(record)
        except BaseException:
            self._tokens.pop(record.digest, None)
            raise
        self._store.audit(
            who,
            "token.create",
            name,
            {"id": record.token_id, "role": role, "expiresAt": record.expires_ms},
        )
        return record, token

    async def delete(self, token_id: str, *, who: str) -> bool:
        """False where there is none. Fails with `LastAdminError` and with `StoreError`."""
        record = next((t for t in self._tokens.values() if t.token_id == token_id), None)
        if record is None:
            return False
        if self._admins() == [record]:
            raise LastAdminError("the last admin token cannot be deleted")
        # Out of memory first: from now on nothing writes it any more.
        del self._tokens[record.digest]
        try:
            await self._store.delete_api_token(token_id)
        except BaseException:
            self._tokens[record.digest] = record
            raise
        for watch in [*self._watches.get(token_id, ())]:
            self._look(token_id, watch)
        self._store.audit(who, "token.delete", record.name, {"id": token_id, "role": record.role})
        return True

    def authorize(self, request: Request) -> Principal:
        """Who asks. Raises `HTTPError` 401, 429 where an address that has tried too often has no
        valid token, and 503 while the tokens are not known yet.

        Who has a valid one is let in whatever others at his address try: to look one up tells a
        guesser nothing that helps against 256 random bits.
        """
        if not self._loaded:
            raise HTTPError(503, "the hub is starting", (("Retry-After", "1"),))
        given = bearer_token(request)
        record = None if given is None else self._tokens.get(_digest(given))
        if record is None or not self._is_valid(record):
            address = self.address_of(request)
            self.check_throttle(address)
            if given is not None:
                self.throttle.failed(address)
                log.info("[hub] a wrong API token from {address}", address=address)
            raise unauthorized()
        self._used(record)
        return Principal(record.token_id, record.name, record.role)

    def address_of(self, request: Request) -> str:
        """The IP address of who asks, beyond proxies that are trusted."""
        peer: Any = request.getClientAddress()
        host = getattr(peer, "host", None)
        forwarded = request.requestHeaders.getRawHeaders(b"X-Forwarded-For", ())
        return self._addresses.of(
            UNIX if host is None else plain_address(host), b",".join(forwarded).decode("latin-1")
        )

    def check_throttle(self, address: str) -> None:
        """Raises `HTTPError` 429 for an address that has tried too often."""
        wait = self.throttle.wait(address)
        if wait > 0:
            seconds = str(math.ceil(wait))
            raise HTTPError(429, "too many wrong tokens", (("Retry-After", seconds),))

    def _used(self, record: APITokenRecord) -> None:
        now = self._now_ms()
        if record.last_used_ms is not None and now - record.last_used_ms < USE_WRITTEN_MS:
            return
        record = replace(record, last_used_ms=now)
        self._tokens[record.digest] = record

        def failed(failure: Any) -> None:
            log.debug("[hub] the use of a token was not written: {why}", why=failure.value)

        self._store.put_api_token(record).addErrback(failed)

    def _admins(self) -> list[APITokenRecord]:
        return [token for token in self._valid() if token.role == "admin"]

    def _valid(self) -> list[APITokenRecord]:
        return [token for token in self._tokens.values() if self._is_valid(token)]

    def _is_valid(self, record: APITokenRecord) -> bool:
        return record.expires_ms is None or record.expires_ms > self._now_ms()


class _Watch:
    """Somebody who wants to know when a token ends."""

    def __init__(self, over: Callable[[], None]) -> None:
        self.over = over
        self.timer: IDelayedCall | None = None


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
