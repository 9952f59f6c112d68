"""Commands that operators give: sent, waited for, queued for agents that are away, remembered.

In: a command for an agent or for many. Out: its record, in the store and on the bus with each step,
and a Deferred for the last one. A command is sent at most once: what has been sent and has no
answer is never sent again, not even after a restart.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.hub.bus.local import LocalBus
from jetcamer.hub.records import CommandRecord
from jetcamer.hub.registry import (
    AgentRegistry,
    CommandError,
    CommandRefusedError,
    CommandTimeoutError,
    NotConnectedError,
)
from jetcamer.hub.store.interface import Store, StoreError
from jetcamer.net.timers import RepeatingTimer
from jetcamer.protocol.envelope import CommandResultPayload

_log = Logger()

#: Commands that may wait for one agent, and for all.
MAX_QUEUED_EACH = 100
MAX_QUEUED = 10_000

#: Commands for many agents whose progress is kept in memory.
_KEPT_BATCHES = 100

#: How often it is looked whether a queued command has expired. Seconds.
_EXPIRY_INTERVAL = 1.0


class TooManyCommandsError(CommandError):
    """No more can be queued."""


class CommandEvent(msgspec.Struct, frozen=True, rename="camel"):
    """A step of a command, as the bus tells it."""

    id: str
    command: str
    who: str
    state: str
    result: str | None
    error: str | None
    batch_id: str | None


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a command for many agents is. `failed` counts all that were not done."""

    batch_id: str
    total: int
    done: int
    failed: int
    waiting: int
    finished: bool


class _Batch:
    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.failed = 0

    def count(self, done: bool) -> None:
        if done:
            self.done += 1
        else:
            self.failed += 1


class Commands:
    """What operators ask of agents.

    :param now_ms: Unix milliseconds, the wall clock.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        registry: AgentRegistry,
        store: Store,
        bus: LocalBus,
        now_ms: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._store = store
        self._bus = bus
        self._now_ms = now_ms
        self._queued: dict[str, deque[tuple[CommandRecord, float]]] = {}
        self._queued_in_all = 0
        #: Agents whose queue is being worked through.
        self._delivering: set[str] = set()
        self._batches: OrderedDict[str, _Batch] = OrderedDict()
        self._stopped = False
        self._timer = RepeatingTimer(clock, _EXPIRY_INTERVAL, self._expire, name="[hub] commands")
        #: By their last states, since the start; and how long answers took, in seconds.
        self.counts: dict[str, int] = {}
        self.on_answer: Callable[[float], None] = lambda _seconds: None

    async def start(self) -> None:
        """Take up what the store still holds. What was sent before is not known to have run."""
        for record in await self._store.unfinished_commands():
            if record.state == "queued":
                self._enqueue(record, 30.0)
            else:
                words = "the hub was restarted before the answer came"
                self._end(record, "lost", error=words)
        self._timer.start()

    def stop(self) -> None:
        """Send nothing more. Queued commands stay in the store."""
        self._stopped = True
        self._timer.stop()

    def queued(self, agent_id: str) -> int:
        """How many commands wait for the agent to come back."""
        return len(self._queued.get(agent_id, ()))

    def send(
        self,
        agent_id: str,
        command: str,
        args: Mapping[str, str],
        *,
        who: str,
        timeout: float = 30.0,
        queue_seconds: float | None = None,
        batch_id: str | None = None,
    ) -> Deferred[CommandRecord]:
        """Send it; fires with the record in its last state, or in the state ``queued``.

        Fails with NotConnectedError where the agent is away and `queue_seconds` is not given, with
        TooManyCommandsError, and with CommandRefusedError for arguments that cannot be sent.
        Cancelling it changes nothing for the command.

        :param timeout: seconds that the answer may take once it has been sent.
        :param queue_seconds: how long it may wait for an agent that is away.
        """
        now = self._now_ms()
        record = CommandRecord(
            command_id=secrets.token_urlsafe(12),
            agent_id=agent_id,
            command=command,
            args=dict(args),
            who=who,
            state="sent",
            created_ms=now,
            sent_ms=now,
            batch_id=batch_id,
        )
        return Deferred.fromCoroutine(self._send(record, timeout, queue_seconds))

    async def _send(
        self, record: CommandRecord, timeout: float, queue_seconds: float | None
    ) -> CommandRecord:
        agent_id = record.agent_id
        session = self._registry.get(agent_id)
        if session is not None and session.open and not self.queued(agent_id):
            return await self._ask(record, timeout)
        if queue_seconds is None:
            if session is None or not session.open:
                raise NotConnectedError(f"{agent_id} is not connected")
            return await self._ask(record, timeout)  # before those that wait for their turn
        if self.queued(agent_id) >= MAX_QUEUED_EACH or self._queued_in_all >= MAX_QUEUED:
            words = f"{self.queued(agent_id)} commands wait for {agent_id}"
            raise TooManyCommandsError(f"{words}, {self._queued_in_all} in all: no more")
        expires = record.created_ms + round(queue_seconds * 1000)
        record = replace(record, state="queued", sent_ms=None, expires_ms=expires)
        self._enqueue(record, timeout)
        self._keep(record)
        self.agent_arrived(agent_id)
        return record

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
    ) -> str:
        """Send it to each, `concurrency` at a time; returns at once, with the id to ask
        `progress` with. An agent that is away counts as failed, or waits if it may be queued."""
        batch_id = secrets.token_urlsafe(12)
        batch = self._batches[batch_id] = _Batch(len(agent_ids))
        while len(self._batches) > _KEPT_BATCHES:
            self._batches.popitem(last=False)
        left = iter(agent_ids)

        async def work(left: Iterator[str]) -> None:
            for agent_id in left:
                await self._send_one_of_many(
                    batch, batch_id, agent_id, command, args, who, timeout, queue_seconds
                )

        for _ in range(min(concurrency, len(agent_ids))):
            Deferred.fromCoroutine(work(left)).addErrback(
                lambda failure: _log.failure("[hub] a command for many failed", failure)
            )
        return batch_id

    async def _send_one_of_many(
        self,
        batch: _Batch,
        batch_id: str,
        agent_id: str,
        command: str,
        args: Mapping[str, str],
        who: str,
        timeout: float,
        queue_seconds: float | None,
    ) -> None:
        if self._stopped:
            batch.count(False)
            return
        try:
            record = await self.send(
                agent_id,
                command,
                args,
                who=who,
                timeout=timeout,
                queue_seconds=queue_seconds,
                batch_id=batch_id,
            )
        except CommandError as error:
            batch.count(False)
            now = self._now_ms()
            unsent = CommandRecord(
                command_id=secrets.token_urlsafe(12),
                agent_id=agent_id,
                command=command,
                args=dict(args),
                who=who,
                state="failed",
                created_ms=now,
                ended_ms=now,
                error=str(error),
                batch_id=batch_id,
            )
            self._keep(unsent)
            return
        if record.state != "queued":  # else it is counted when it ends
            batch.count(record.state == "done")

    def progress(self, batch_id: str) -> BatchProgress | None:
        """How far it is; None once it is not kept in memory any more."""
        batch = self._batches.get(batch_id)
        if batch is None:
            return None
        waiting = batch.total - batch.done - batch.failed
        return BatchProgress(
            batch_id=batch_id,
            total=batch.total,
            done=batch.done,
            failed=batch.failed,
            waiting=waiting,
            finished=not waiting,
        )

    def agent_arrived(self, agent_id: str) -> None:
        """The agent is here: send it what waits, one after the other."""
        if agent_id in self._delivering or not self._queued.get(agent_id) or self._stopped:
            return
        self._delivering.add(agent_id)
        Deferred.fromCoroutine(self._deliver(agent_id)).addErrback(
            lambda failure: _log.failure("[hub] queued commands could not be sent", failure)
        )

    async def _deliver(self, agent_id: str) -> None:
        try:
            while not self._stopped and self._registry.get(agent_id) is not None:
                queue = self._queued.get(agent_id)
                if not queue:
                    return
                record, timeout = queue[0]
                # On disk as sent before it is sent: a crash must not make it run twice.
                sent = replace(record, state="sent", sent_ms=self._now_ms())
                self._store.put_command(sent)
                await self._flushed()
                session = self._registry.get(agent_id)
                if not queue or queue[0][0] is not record:
                    continue  # it has expired meanwhile
                if session is None or not session.open or self._stopped:
                    self._store.put_command(record)
                    return
                self._dequeue(agent_id)
                ended = await self._ask(sent, timeout)
                self._count_of_batch(ended)
        finally:
            self._delivering.discard(agent_id)

    async def _flushed(self) -> None:
        try:
            await self._store.flush()
        except StoreError as error:
            _log.warn("[hub] a command is sent that could not be written: {error}", error=error)

    async def _ask(self, record: CommandRecord, timeout: float) -> CommandRecord:
        """Send a command to an agent that is here and wait for its end."""
        asked = self._registry.send_command(record.agent_id, record.command, record.args, timeout)
        if not asked.called:
            self._keep(record)
        try:
            payload = await asked
        except CommandTimeoutError as error:
            return self._end(record, "timeout", error=str(error))
        except (NotConnectedError, CommandRefusedError) as error:
            if record.expires_ms is None:  # whoever asks is told at once
                raise
            return self._end(record, "failed", error=str(error))
        except CommandError as error:
            return self._end(record, "lost", error=str(error))
        return self._answered(record, payload)

    def _answered(self, record: CommandRecord, payload: CommandResultPayload) -> CommandRecord:
        details = payload.details
        ended = self._end(
            record,
            "failed" if payload.error else "done",
            result=payload.result,
            error=payload.error or None,
            details=None if details is None else msgspec.json.encode(details).decode(),
        )
        if ended.ended_ms is not None and ended.sent_ms is not None:
            self.on_answer((ended.ended_ms - ended.sent_ms) / 1000)
        return ended

    def _end(
        self,
        record: CommandRecord,
        state: str,
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
        self._keep(ended)
        return ended

    def _keep(self, record: CommandRecord) -> None:
        """Remember a step, and tell it."""
        self._store.put_command(record)
        self._bus.publish(
            "command",
            record.agent_id,
            self._now_ms(),
            CommandEvent(
                record.command_id,
                record.command,
                record.who,
                record.state,
                record.result,
                record.error,
                record.batch_id,
            ),
            len(record.result or "") + len(record.error or ""),
        )

    # The queues of agents that are away.

    def _enqueue(self, record: CommandRecord, timeout: float) -> None:
        self._queued.setdefault(record.agent_id, deque()).append((record, timeout))
        self._queued_in_all += 1

    def _dequeue(self, agent_id: str) -> CommandRecord:
        queue = self._queued[agent_id]
        record, _ = queue.popleft()
        self._queued_in_all -= 1
        if not queue:
            del self._queued[agent_id]
        return record

    def _expire(self) -> None:
        now = self._now_ms()
        for agent_id, queue in [*self._queued.items()]:
            for entry in [*queue]:
                expires = entry[0].expires_ms
                if expires is None or expires > now:
                    continue
                queue.remove(entry)
                self._queued_in_all -= 1
                words = "the agent did not come back in time"
                self._count_of_batch(self._end(entry[0], "expired", error=words))
            if not queue:
                self._queued.pop(agent_id, None)

    def _count_of_batch(self, record: CommandRecord) -> None:
        batch = self._batches.get(record.batch_id or "")
        if batch is not None:
            batch.count(record.state == "done")
