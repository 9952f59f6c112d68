"""What the API stands on: the parts of the hub, as far as it uses them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from jetcamer.hub.api.tokens import Tokens
from jetcamer.hub.fleet import Agent
from jetcamer.hub.records import CommandRecord, JoinTokenRecord, RefusalRecord
from jetcamer.hub.store.interface import Store


class FleetView(Protocol):
    def get(self, agent_id: str) -> Agent | None: ...

    def __iter__(self) -> Iterator[Agent]: ...

    def __len__(self) -> int: ...


class Progress(Protocol):
    @property
    def batch_id(self) -> str: ...

    @property
    def total(self) -> int: ...

    @property
    def done(self) -> int: ...

    @property
    def failed(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def finished(self) -> bool: ...


class CommandSender(Protocol):
    """`jetcamer.hub.commands.Commands`."""

    @property
    def counts(self) -> Mapping[str, int]: ...

    def queued(self, agent_id: str) -> int: ...

    def send(
        self,
        agent_id: str,
        command: str,
        args: Mapping[str, str],
        *,
        who: str,
        timeout: float = 30.0,
        queue_seconds: float | None = None,
    ) -> Deferred[CommandRecord]: ...

    def send_many(
        self,
        agent_ids: Sequence[str],
        command: str,
        args: Mapping[str, str],
        *,
        who: str,
        timeout: float = 30.0,
        concurrency: int = 50,
        queue_seconds: float | None = None,
    ) -> str: ...

    def progress(self, batch_id: str) -> Progress | None: ...


class Enroller(Protocol):
    """`jetcamer.hub.enrolment.Enrolment`, which writes its own entries into the audit trail."""

    async def add(self, agent_id: str, *, who: str, secret: str | None = None) -> str: ...

    async def rotate(
        self,
        agent_id: str,
        *,
        who: str,
        grace_seconds: float = 86_400,
        secret: str | None = None,
    ) -> tuple[str, int]: ...

    async def revoke(self, agent_id: str, *, who: str) -> None: ...

    def old_secret_until(self, agent_id: str) -> int | None: ...

    async def restore(self, agent_id: str, *, who: str, secret: str | None = None) -> str: ...

    async def create_join_token(
        self, *, who: str, expires_seconds: float, uses: int
    ) -> tuple[str, JoinTokenRecord]: ...

    async def join(self, token: str, agent_id: str, *, address: str) -> str: ...


class BusEvent(Protocol):
    @property
    def event_id(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def agent_id(self) -> str | None: ...

    @property
    def data(self) -> bytes: ...


class EventSource(Protocol):
    """`jetcamer.hub.bus.local.LocalBus`."""

    @property
    def last_event_id(self) -> str: ...

    def subscribe(
        self,
        receiver: Callable[[Any], None],
        *,
        kinds: Collection[str] | None = None,
        agent_ids: Collection[str] | None = None,
    ) -> Callable[[], None]: ...

    def since(self, event_id: str) -> Iterator[BusEvent] | None: ...


class RecentRefusals(Protocol):
    """`jetcamer.hub.refusals.Refusals`."""

    def of_agent(self, agent_id: str) -> list[RefusalRecord]: ...

    def of_address(self, address: str) -> list[RefusalRecord]: ...

    def latest(self) -> list[RefusalRecord]: ...


class BanList(Protocol):
    """`jetcamer.hub.admission.Offenders`."""

    def bans(self) -> list[tuple[str, float, int]]:
        """Address, seconds left, offences."""

    def lift(self, address: str) -> bool:
        """False where it is not banned."""


class HubFigures(Protocol):
    """`jetcamer.hub.status.HubStatus`."""

    @property
    def version(self) -> str: ...

    @property
    def started_ms(self) -> int: ...

    @property
    def ready(self) -> bool: ...

    @property
    def why_not(self) -> str | None: ...

    @property
    def draining(self) -> bool: ...

    @property
    def connections(self) -> int: ...

    @property
    def agents_online(self) -> int: ...

    @property
    def agents_known(self) -> int: ...

    @property
    def messages(self) -> int: ...

    @property
    def messages_by_type(self) -> Mapping[str, int]: ...

    @property
    def refusals(self) -> Mapping[str, int]: ...

    @property
    def reactor_lag(self) -> float: ...

    @property
    def handshakes(self) -> int: ...

    @property
    def handshakes_refused(self) -> Mapping[int, int]: ...


@dataclass(frozen=True, kw_only=True)
class HubParts:
    """Given to every group of operations."""

    #: The reactor, or a clock in its place.
    clock: Any
    #: The wall clock in Unix milliseconds.
    now_ms: Callable[[], int]
    fleet: FleetView
    commands: CommandSender
    enrolment: Enroller
    store: Store
    bus: EventSource
    refusals: RecentRefusals
    offenders: BanList
    status: HubFigures
    #: The URL for agents (`wsApiUrl`), from the host by which the client calls this hub.
    agent_url: Callable[[str], str]
    #: Where copies of the database go.
    backup_dir: str
    tokens: Tokens
