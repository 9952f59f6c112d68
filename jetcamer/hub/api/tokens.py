"""API tokens: who may ask the hub what.

In: tokens as clients show them. Out: a `Principal`, or a refusal. A token is known by its digest
alone: it is nowhere but in the answer that creates it, and a look-up by digest tells nothing by the
time it takes.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.interfaces import IReactorTime
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
#: Pairs of address and token that have been good, for which the throttle does not count.
MAX_GOOD = 10_000


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
        self._store = store
        self._now_ms = now_ms
        self._addresses = ClientAddress(trusted_proxies)
        self.throttle = Throttle(clock)
        self._tokens: dict[bytes, APITokenRecord] = {}
        self._loaded = False
        self._good: OrderedDict[tuple[str, bytes], None] = OrderedDict()

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
        names = {token.name for token in self._tokens.values()}
        name = next(
            name
            for name in ("admin", *(f"admin-{number}" for number in range(2, len(names) + 3)))
            if name not in names
        )
        _, token = await self.create(name, "admin", None, who="hub")
        return token

    def all(self) -> list[APITokenRecord]:
        """The oldest first."""
        return sorted(self._tokens.values(), key=lambda token: (token.created_ms, token.token_id))

    async def create(
        self, name: str, role: Role, expires_seconds: float | None, *, who: str
    ) -> tuple[APITokenRecord, str]:
        """A new token and its record. Fails with `ConflictError` where the name is taken, for the
        audit trail knows people by it, and with `StoreError`."""
        if any(token.name == name for token in self._tokens.values()):
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
        self._store.audit(who, "token.delete", record.name, {"id": token_id, "role": record.role})
        return True

    def authorize(self, request: Request) -> Principal:
        """Who asks. Raises `HTTPError` 401, 429 for an address that has tried too often, and 503
        while the tokens are not known yet."""
        if not self._loaded:
            raise HTTPError(503, "the hub is starting", (("Retry-After", "1"),))
        address = self.address_of(request)
        given = bearer_token(request)
        digest = _digest(given or b"")
        record = self._tokens.get(digest)
        if record is not None and not self._is_valid(record):
            record = None
        # A token that was good from here before stays so: others at the address cannot lock out
        # who is in already.
        if (address, digest) not in self._good or record is None:
            self.check_throttle(address)
        if record is None:
            if given is not None:
                self.throttle.failed(address)
                log.info("[hub] a wrong API token from {address}", address=address)
            raise unauthorized()
        self._good[(address, digest)] = None
        if len(self._good) > MAX_GOOD:
            self._good.popitem(last=False)
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
        return [t for t in self._tokens.values() if t.role == "admin" and self._is_valid(t)]

    def _is_valid(self, record: APITokenRecord) -> bool:
        return record.expires_ms is None or record.expires_ms > self._now_ms()


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
