"""The stream of events (server-sent events), which resumes where its reader was.

In: what the bus tells. Out: blocks of text to each reader. A reader hears everything of the kinds
and agents it asked for, once and in order, or is told with an event of the kind ``gap`` that it has
missed some. A stream ends with the token that it was asked for with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from jetcamer.hub.api import questions
from jetcamer.hub.api.answers import Error
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.table import Call, Media, Operation
from jetcamer.hub.bus.local import Event, LocalBus
from jetcamer.net.http import HTTPError
from jetcamer.net.http_stream import EventStream, event_block

KINDS = ("agent", "metrics", "log", "command", "refusal")


class EventOperations:
    def __init__(self, parts: HubParts) -> None:
        self._parts = parts
        self._blocks = _Blocks()

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/api/events",
                role="viewer",
                summary="Events as they happen; Last-Event-ID, or lastEventId, resumes",
                handler=self.events,
                query=questions.EventsQuery,
                headers=("Last-Event-ID",),
                answers={200: Media("text/event-stream"), 503: Error},
                tag="events",
            )
        ]

    def events(self, call: Call) -> EventStream:
        query: questions.EventsQuery = call.query
        kinds = _list(query.kinds)
        for kind in kinds or ():
            if kind not in KINDS:
                raise HTTPError(400, f"kinds: not one of {', '.join(KINDS)}")
        agents = _list(query.agents)
        last = call.request.getHeader("Last-Event-ID") or query.last_event_id
        bus = self._parts.bus
        assert call.principal is not None
        token_id = call.principal.token_id

        def began(stream: EventStream) -> Callable[[], None]:
            unsubscribe = _feed(stream, bus, self._blocks, kinds, agents, last)
            watched = self._parts.tokens.while_valid(token_id, stream.close)

            def end() -> None:
                unsubscribe()
                watched()

            return end

        return EventStream(
            self._parts.clock,
            began,
            # Also a reader for whom nothing happens can come back to where it was.
            keepalive_block=lambda: b":\n" + _id_block(bus),
        )


def _feed(
    stream: EventStream,
    bus: LocalBus,
    blocks: _Blocks,
    kinds: Collection[str] | None,
    agents: Collection[str] | None,
    last: str | None,
) -> Callable[[], None]:
    """Give `stream` what came after the event `last`, then what comes; returns what ends that."""
    held: list[Event] = []
    looking_back = True

    def receive(event: Event) -> None:
        if looking_back:
            held.append(event)
        else:
            stream.send(blocks.of(event))

    def missed_and_held(missed: Iterator[Event]) -> Iterator[bytes]:
        """Made as the reader takes it: what all readers missed may be more than one should hold."""
        last_number = 0
        for event in missed:
            last_number = _number(event)
            if (kinds is None or event.kind in kinds) and (
                agents is None or event.agent_id in agents
            ):
                yield blocks.of(event)
        for event in held:
            if _number(event) > last_number:
                yield blocks.of(event)

    # First listen, then look back: nothing falls in between, and what does both is said once.
    unsubscribe = bus.subscribe(receive, kinds=kinds, agent_ids=agents)
    missed = None if last is None else bus.since(last)
    looking_back = False
    if missed is None and last is not None:
        stream.send(event_block("gap", b"{}"))
    stream.replay(missed_and_held(iter(()) if missed is None else missed))
    stream.send(_id_block(bus))
    return unsubscribe


def _number(event: Event) -> int:
    return int(event.event_id.rpartition("-")[2])


def _id_block(bus: LocalBus) -> bytes:
    """Tells no event, but where to resume."""
    return b"id: %s\n\n" % bus.last_event_id.encode()


class _Blocks:
    """The text of the last event, for all the readers it goes to."""

    def __init__(self) -> None:
        self._last: tuple[str, bytes] = ("", b"")

    def of(self, event: Event) -> bytes:
        if self._last[0] != event.event_id:
            block = event_block(event.kind, event.data, event.event_id)
            self._last = (event.event_id, block)
        return self._last[1]


def _list(text: str | None) -> frozenset[str] | None:
    """What stands between the commas; None where nothing was given."""
    parts = frozenset(part for part in (text or "").split(",") if part)
    return parts or None
