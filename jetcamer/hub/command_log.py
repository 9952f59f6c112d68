"""What becomes of commands: written down, told and counted, step by step.

In: each step of a command. Out: its record in the store, an event on the bus, the counts. It sends
nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from jetcamer.hub.batches import Batches
from jetcamer.hub.bus.local import LocalBus, weight_of
from jetcamer.hub.command_queue import weight
from jetcamer.hub.records import CommandRecord, CommandState
from jetcamer.hub.store.interface import Store
from jetcamer.protocol.envelope import CommandResultPayload

#: Commands without an answer in time for which a late one is still taken, and the bytes of memory
#: that these may take.
MAX_OVERDUE = 1_000
MAX_OVERDUE_BYTES = 4 << 20


class CommandEvent(msgspec.Struct, frozen=True, rename="camel"):
    """A step of a command, as the bus tells it."""

    id: str
    command: str
    args: dict[str, str]
    who: str
    state: str
    result: str | None
    error: str | None
    batch_id: str | None


class CommandLog:
    """
    :param batches: told of each end of a command that belongs to one of them.
    :param on_answer: told how long each answer took, in seconds.
    """

    def __init__(
        self,
        store: Store,
        bus: LocalBus,
        batches: Batches,
        now_ms: Callable[[], int],
        on_answer: Callable[[float], None],
    ) -> None:
        self._store = store
        self._bus = bus
        self._batches = batches
        self._now_ms = now_ms
        self._overdue: OrderedDict[str, CommandRecord] = OrderedDict()
        self._overdue_bytes = 0
        self._on_answer = on_answer
        #: Those that have ended since the start, by their last states.
        self.counts: dict[str, int] = {}

    def answered(self, record: CommandRecord, payload: CommandResultPayload) -> CommandRecord:
        ended = self.end(
            record,
            "failed" if payload.error else "done",
            result=payload.result,
            error=payload.error or None,
            details=_details(payload),
        )
        if ended.ended_ms is not None and ended.sent_ms is not None:
            self._on_answer((ended.ended_ms - ended.sent_ms) / 1000)
        return ended

    # Answers that come after the deadline: the state stays, and the answer is kept with it.

    def overdue(self, record: CommandRecord) -> None:
        self._overdue[record.command_id] = record
        self._overdue_bytes += weight(record)
        while len(self._overdue) > MAX_OVERDUE or self._overdue_bytes > MAX_OVERDUE_BYTES:
            _, oldest = self._overdue.popitem(last=False)
            self._overdue_bytes -= weight(oldest)

    def answered_late(self, command_id: str, payload: CommandResultPayload) -> None:
        record = self._overdue.pop(command_id, None)
        if record is None:
            return
        self._overdue_bytes -= weight(record)
        now = self._now_ms()
        seconds = (now - (record.sent_ms or now)) / 1000
        self.keep(
            replace(
                record,
                ended_ms=now,
                result=payload.result,
                error=payload.error or f"{record.error}; the answer came after {seconds:.1f} s",
                details=_details(payload),
            )
        )

    def end(
        self,
        record: CommandRecord,
        state: CommandState,
        *,
        result: str | None = None,
        error: str | None = None,
        details: str | None = None,
    ) -> CommandRecord:
        ended = replace(
            record,
            state=state,
            ended_ms=self._now_ms(),
            result=result,
            error=error,
            details=details,
        )
        self.counts[state] = self.counts.get(state, 0) + 1
        self._batches.count(record.batch_id, state == "done")
        self.keep(ended)
        return ended

    def keep(self, record: CommandRecord) -> None:
        """Remember a step, and tell it."""
        self._store.put_command(record)
        event = CommandEvent(
            record.command_id,
            record.command,
            record.args,
            record.who,
            record.state,
            record.result,
            record.error,
            record.batch_id,
        )
        texts = (record.command, record.result, record.error, *record.args, *record.args.values())
        self._bus.publish("command", record.agent_id, self._now_ms(), event, weight_of(*texts))


def _details(payload: CommandResultPayload) -> str | None:
    details = payload.details
    return None if details is None else msgspec.json.encode(details).decode()
