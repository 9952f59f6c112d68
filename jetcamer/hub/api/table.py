"""One table says what the API can do; routes and OpenAPI document are both made of it.

In: `Operation`s. Out: a `Routes` that checks roles, reads queries and bodies, and turns values and
errors into answers. A change that has begun is finished, whether or not its client stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request

from jetcamer.hub.api import questions
from jetcamer.hub.api.answers import Error
from jetcamer.hub.api.reading import body_as, query_as
from jetcamer.hub.api.tokens import Principal
from jetcamer.hub.enrolment import EnrolmentError
from jetcamer.hub.records import Role
from jetcamer.hub.store.interface import ConflictError, StoreError
from jetcamer.net.http import Answer, Guard, Guarded, HTTPError, Routes, Streaming, principal_of
from jetcamer.net.http_guard import unauthorized

log = Logger()
T = TypeVar("T")

Method = Literal["GET", "POST", "DELETE"]

#: Told of each answer: method, path as in the table, status, seconds.
Observer = Callable[[str, str, int, float], None]

#: What is counted where the client left before its answer.
LEFT = 499

_ENROLMENT_STATUS = {"invalid": 400, "token": 401, "unknown": 404, "exists": 409}


class Call(msgspec.Struct):
    """One request, read and allowed."""

    request: Request
    #: None where the operation is open.
    principal: Principal | None
    #: Of the types that the operation names; None for a query that is ignored.
    query: Any
    body: Any

    @property
    def who(self) -> str:
        """The name that the audit trail knows."""
        return "" if self.principal is None else self.principal.name


class Reply(msgspec.Struct, frozen=True):
    """A value with another status than the operation's first."""

    status: int
    value: msgspec.Struct


class Media(msgspec.Struct, frozen=True):
    """An answer that is not JSON."""

    content_type: str


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    method: Method
    path: str
    #: The weakest that may; None: no API token is needed.
    role: Role | None
    #: What it is for, in a few words.
    summary: str
    #: Called with a `Call`, and what stands in the path. Gives a value of the first type of
    #: `answers`, a `Reply`, an `Answer` or a `Streaming`, or an awaitable of one of them.
    handler: Callable[..., object]
    #: Status → the type of the answer, the one of success first. The errors that any operation
    #: like this has are added by `statuses`.
    answers: Mapping[int, type[msgspec.Struct] | Media]
    #: None: whatever is there is ignored.
    query: type[msgspec.Struct] | None = questions.Nothing
    body: type[msgspec.Struct] | None = None
    #: Headers that it heeds, beside what every operation does.
    headers: tuple[str, ...] = ()
    #: The request's bearer token is a join token.
    join: bool = False
    tag: str = "hub"

    def statuses(self) -> dict[int, type[msgspec.Struct] | Media]:
        """Everything it answers with, by status."""
        found: dict[int, type[msgspec.Struct] | Media] = dict(self.answers)
        # The guard's, and those of the parameters.
        errors = [400, 403]
        if self.role is not None or self.join:
            # Of the last: the hub is starting, or its database fails.
            errors += [401, 429, 503]
        if self.path.count("{"):
            errors.append(404)
        if self.method != "GET":
            # Without a body they are for one that is there all the same.
            errors += [413, 415]
        for status in errors:
            found.setdefault(status, Error)
        return dict(sorted(found.items()))


def make_routes(
    operations: Iterable[Operation], guard: Guard, clock: IReactorTime, observe: Observer
) -> Routes:
    routes: dict[str, dict[str, Guarded]] = {}
    for operation in operations:
        methods = routes.setdefault(operation.path, {})
        methods[operation.method] = Guarded(
            _handler(operation, clock, observe),
            _permit(operation),
            # A page in a browser can post without a type, but it has no token.
            bodiless=operation.role is not None and _needs_no_body(operation),
        )
    return Routes(guard, routes)


def open_paths(operations: Iterable[Operation]) -> tuple[str, ...]:
    """Those that need no API token."""
    return tuple(operation.path for operation in operations if operation.role is None)


def shielded(work: Deferred[T]) -> Deferred[T]:
    """Fires as `work` does; cancelling it leaves `work` alone."""
    waiting: Deferred[T] = Deferred()

    def done(result: T) -> None:
        if not waiting.called:
            waiting.callback(result)

    def failed(failure: Failure) -> None:
        if not waiting.called:
            waiting.errback(failure)
        elif failure.check(HTTPError) is None:
            log.warn("[hub] a change that nobody waited for failed: {why}", why=failure.value)

    work.addCallbacks(done, failed)
    return waiting


def _permit(operation: Operation) -> Callable[[Principal | None], None]:
    role = operation.role

    def permit(principal: Principal | None) -> None:
        if role is None:
            return
        if principal is None:
            raise unauthorized()
        if not principal.may(role):
            raise HTTPError(403, f"this needs the role {role}; yours is {principal.role}")

    return permit


def _needs_no_body(operation: Operation) -> bool:
    return operation.body is None or not any(
        field.required for field in msgspec.structs.fields(operation.body)
    )


def _handler(
    operation: Operation, clock: IReactorTime, observe: Observer
) -> Callable[..., Deferred[object]]:
    async def handle(request: Request, *path: str) -> object:
        began = clock.seconds()
        status = 500
        try:
            result = await _outcome(operation, request, path)
            status = result.status if isinstance(result, Answer) else 200
            return result
        except HTTPError as refusal:
            status = refusal.answer.status
            raise
        except CancelledError:
            status = LEFT
            raise
        finally:
            observe(operation.method, operation.path, status, clock.seconds() - began)

    def begin(request: Request, *path: str) -> Deferred[object]:
        work = Deferred.fromCoroutine(handle(request, *path))
        return work if operation.method == "GET" else shielded(work)

    return begin


async def _outcome(operation: Operation, request: Request, path: tuple[str, ...]) -> object:
    try:
        query = None if operation.query is None else query_as(request, operation.query)
        body = body_as(request, operation.body or questions.Nothing)
        result = operation.handler(Call(request, principal_of(request), query, body), *path)
        if isinstance(result, Awaitable):
            result = await result
    except ConflictError as error:
        raise HTTPError(409, str(error)) from None
    except StoreError as error:
        raise HTTPError(503, f"the store cannot do this now: {error}") from None
    except EnrolmentError as error:
        if error.kind == "token":
            raise unauthorized(str(error)) from None
        raise HTTPError(_ENROLMENT_STATUS[error.kind], str(error)) from None
    if isinstance(result, Answer | Streaming):
        return result
    status = next(iter(operation.answers))
    if isinstance(result, Reply):
        status, result = result.status, result.value
    return Answer(msgspec.json.encode(result) + b"\n", status)
