"""What the API stands on: the parts of the hub, given to it together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jetcamer.hub.admission import Offenders
    from jetcamer.hub.api.tokens import Tokens
    from jetcamer.hub.bus.local import LocalBus
    from jetcamer.hub.commands import Commands
    from jetcamer.hub.enrolment import Enrolment
    from jetcamer.hub.fleet import Fleet
    from jetcamer.hub.refusals import Refusals
    from jetcamer.hub.status import HubStatus
    from jetcamer.hub.store.interface import Store


@dataclass(frozen=True, kw_only=True)
class HubParts:
    """Given to every group of operations."""

    #: The reactor, or a clock in its place.
    clock: Any
    #: The wall clock in Unix milliseconds.
    now_ms: Callable[[], int]
    fleet: Fleet
    commands: Commands
    enrolment: Enrolment
    store: Store
    bus: LocalBus
    refusals: Refusals
    offenders: Offenders
    status: HubStatus
    #: The URL for agents (`wsApiUrl`), from the host by which the client calls this hub.
    agent_url: Callable[[str], str]
    #: Where copies of the database go.
    backup_dir: str
    tokens: Tokens
