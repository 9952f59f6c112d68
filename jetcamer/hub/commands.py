"""Commands that operators give: sent, waited for, queued for agents that are away, remembered.

In: a command for an agent or for many. Out: its record, in the store and on the bus with each step,
and a Deferred for the last one. A command is sent at most once: what has been sent and has no
answer is never sent again, not even after a restart. One that has waited is sent only when it is on
disk as sent; where the disk fails, it waits on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.hub.batches import Batch, Batches, BatchProgress
from jetcamer.hub.bus.local import LocalBus
from jetcamer.hub.command_log import CommandEvent, CommandLog
from jetcamer.hub.command_queue import CommandQueue, TooManyCommandsError
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

__all__ = ["BatchProgress", "CommandEvent", "Commands", "NotRunningError", "TooManyCommandsError"]

_log = Logger()

#: How often it is looked what has expired, and what can be sent after all. Seconds.
_LOOK_INTERVAL = 1.0

#: Members of commands for many whose turn may be yet to come, in all.
MAX_LEFT = 100_000
#: So many of one command for many are written down, sent, or fail, before others get the reactor.
_SLICE = 100


class NotRunningError(NotConnectedError):
    """The hub starts or stops."""


class Commands:
    """What operators ask of agents. Nothing is sent before `start` and after `stop`.

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
        self._clock = clock
        self._registry = registry
        self._store = store
        self._now_ms = now_ms
        self._queue = CommandQueue()
        #: Agents whose queue is being worked through.
        self._delivering: set[str] = set()
        #: By agent: what is written down as sent, and is not sent yet; as it was before.
        self._marked: dict[str, CommandRecord] = {}
        self._batches = Batches()
        #: Told how long each answer took, in seconds.
        self.on_answer: Callable[[float], None] = lambda _seconds: None
        self._log = CommandLog(store, bus, self._batches, now_ms, self._took)
        self._running = False
        #: Nothing that waited is sent until a write succeeds again.
        self._disk_fails = False
        self._probing = False
        self._timer = RepeatingTimer(clock, _LOOK_INTERVAL, self._look, name="[hub] commands")

    @property
    def counts(self) -> Mapping[str, int]:
        """Commands that have ended since the start, by their last states."""
        return self._log.counts

    async def start(self) -> None:
        """Take up what the store still holds. What was sent before is not known to have run."""
        now = self._now_ms()
        for record in await self._store.unfinished_commands():
            if record.state != "queued" or record.expires_ms is None:
                # Also the member of a command for many that was about to be sent.
                self._log.end(record, "lost", error="the hub was restarted before an answer came")
            elif record.expires_ms <= now:
                self._expired(record)
            else:
                self._queue.add(record)
        self._running = True
        self._timer.start()

    def stop(self) -> None:
        """Send nothing more. Queued commands stay in the store."""
        if not self._running:
            return
        self._running = False
        self._timer.stop()
        marked, self._marked = self._marked, {}
        for record in marked.values():
            self._store.put_command(record)
        self._end_left("the hub stopped before this was sent")

    def queued(self, agent_id: str) -> int:
        """How many commands wait for the agent to come back."""
        return self._queue.number(agent_id)

    def send(
        self,
        agent_id: str,
        command: str,
        args: Mapping[str, str],
        *,
        who: str,
        timeout: float = 30.0,
        queue_seconds: float | None = None,
    ) -> Deferred[CommandRecord]:
        """Send it; fires with the record in its last state, or in the state ``queued``.

        Fails with NotConnectedError where the agent is away and `queue_seconds` is not given, with
        NotRunningError, TooManyCommandsError, and with CommandRefusedError for arguments that
        cannot be sent. Cancelling it changes nothing for the command.

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
            timeout_seconds=timeout,
        )
        return _on_its_own(Deferred.fromCoroutine(self._send(record, queue_seconds)))

    async def _send(self, record: CommandRecord, queue_seconds: float | None) -> CommandRecord:
        agent_id = record.agent_id
        if not self._running:
            raise NotRunningError("the hub is starting or stopping")
        # Where it may not wait for its turn, it goes before those that do.
        if self._is_here(agent_id) and (queue_seconds is None or not self.queued(agent_id)):
            return await self._ask(record)
        if queue_seconds is None:
            raise NotConnectedError(f"{agent_id} is not connected")
        expires = record.created_ms + round(queue_seconds * 1000)
        record = replace(record, state="queued", sent_ms=None, expires_ms=expires)
        self._queue.check(record)
        self._queue.add(record)
        self._log.keep(record)
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
        `progress` with. An agent that is away counts as failed, or waits if it may be queued.

        Each member is given to the store before the first is sent. Raises TooManyCommandsError.
        """
        if self._batches.number_left() + len(agent_ids) > MAX_LEFT:
            raise TooManyCommandsError(f"{self._batches.number_left()} commands wait to be sent")
        batch_id = secrets.token_urlsafe(12)
        now, kept_args = self._now_ms(), dict(args)
        records = [
            CommandRecord(
                command_id=f"{batch_id}-{number}",
                agent_id=agent_id,
                command=command,
                args=kept_args,
                who=who,
                # Without `expires_ms`: it is its turn that it waits for.
                state="queued",
                created_ms=now,
                batch_id=batch_id,
                timeout_seconds=timeout,
            )
            for number, agent_id in enumerate(agent_ids, 1)
        ]
        batch = self._batches.add(batch_id, records)
        if not self._running:
            self._end_left("the hub is starting or stopping")
        Deferred.fromCoroutine(self._send_each(batch, concurrency, queue_seconds)).addErrback(
            lambda failure: _log.failure("[hub] a command for many failed", failure)
        )
        return batch_id

    async def _send_each(self, batch: Batch, concurrency: int, queue_seconds: float | None) -> None:
        if not await self._write_down([*batch.left]):
            return
        number = 0
        while batch.left:
            if batch.running >= concurrency:
                batch.room = Deferred()
                await batch.room
                continue
            batch.running += 1
            ending = Deferred.fromCoroutine(self._send_one(batch.left.popleft(), queue_seconds))
            ending.addErrback(lambda failure: _log.failure("[hub] a command failed", failure))
            ending.addCallback(lambda _: batch.released())
            number += 1
            if number % _SLICE == 0:
                await deferLater(self._clock, 0)

    async def _write_down(self, records: Sequence[CommandRecord]) -> bool:
        """Give the store what shall be sent. False where the hub was stopped meanwhile, which ends
        them all."""
        for start in range(0, len(records), _SLICE):
            if start:
                await deferLater(self._clock, 0)
                if not self._running:
                    return False
            for record in records[start : start + _SLICE]:
                self._store.put_command(record)
        return True

    async def _send_one(self, record: CommandRecord, queue_seconds: float | None) -> None:
        try:
            sent = replace(record, state="sent", sent_ms=self._now_ms())
            await self._send(sent, queue_seconds)
        except CommandError as error:
            self._log.end(record, "failed", error=str(error))

    def _end_left(self, words: str) -> None:
        for record in self._batches.take_left():
            self._log.end(record, "failed", error=words)

    def progress(self, batch_id: str) -> BatchProgress | None:
        """How far it is; None once it is not kept in memory any more."""
        return self._batches.progress(batch_id)

    def agent_arrived(self, agent_id: str) -> None:
        """The agent is here: send it what waits, one after the other."""
        if agent_id in self._delivering or not self.queued(agent_id) or not self._running:
            return
        self._delivering.add(agent_id)
        Deferred.fromCoroutine(self._deliver(agent_id)).addErrback(
            lambda failure: _log.failure("[hub] queued commands could not be sent", failure)
        )

    def agent_revoked(self, agent_id: str) -> None:
        """End what waits for an agent that is not accepted any more."""
        self._marked.pop(agent_id, None)
        for record in self._queue.remove_all(agent_id):
            self._log.end(record, "failed", error="the agent was revoked")

    async def _deliver(self, agent_id: str) -> None:
        try:
            while self._running and not self._disk_fails and self._is_here(agent_id):
                record = self._queue.head(agent_id)
                if record is None:
                    return
                if _has_expired(record, self._now_ms()):
                    self._expire()
                    continue
                # On disk as sent before it is sent: a crash must not make it run twice.
                sent = replace(record, state="sent", sent_ms=self._now_ms())
                self._store.put_command(sent)
                self._marked[agent_id] = record
                is_written = await self._flushed()
                if self._marked.pop(agent_id, None) is not record:
                    continue  # it has ended meanwhile, or `stop` has put it back
                if not is_written or not self._is_here(agent_id):
                    self._store.put_command(record)
                    return
                if _has_expired(record, self._now_ms()):
                    self._expire()
                    continue
                self._queue.remove(record)
                await self._ask(replace(sent, sent_ms=self._now_ms()))
        finally:
            self._delivering.discard(agent_id)

    async def _flushed(self) -> bool:
        try:
            await self._store.flush()
        except StoreError as error:
            if not self._disk_fails:
                self._disk_fails = True
                _log.warn("[hub] queued commands wait until the disk is well: {error}", error=error)
            return False
        return True

    def _is_here(self, agent_id: str) -> bool:
        session = self._registry.get(agent_id)
        return session is not None and session.open

    async def _ask(self, record: CommandRecord) -> CommandRecord:
        """Send a command to an agent that is here and wait for its end."""
        command_id = record.command_id
        asked = self._registry.send_command(
            record.agent_id,
            record.command,
            record.args,
            record.timeout_seconds,
            late=lambda payload: self._log.answered_late(command_id, payload),
        )
        if not asked.called:
            self._log.keep(record)
        try:
            payload = await asked
        except CommandTimeoutError as error:
            ended = self._log.end(record, "timeout", error=str(error))
            self._log.overdue(ended)
            return ended
        except (NotConnectedError, CommandRefusedError) as error:
            if record.expires_ms is None:  # whoever asks is told at once
                raise
            return self._log.end(record, "failed", error=str(error))
        except CommandError as error:
            return self._log.end(record, "lost", error=str(error))
        return self._log.answered(record, payload)

    def _took(self, seconds: float) -> None:
        self.on_answer(seconds)

    # Each second.

    def _look(self) -> None:
        self._expire()
        agent_ids = [agent_id for agent_id in self._queue if self._is_here(agent_id)]
        if self._disk_fails and agent_ids:
            if not self._probing:
                self._probing = True
                self._store.flush().addCallbacks(self._recovered, self._still_failing)
            return
        for agent_id in agent_ids:
            self.agent_arrived(agent_id)

    def _recovered(self, _: None) -> None:
        self._probing = self._disk_fails = False
        if self._running:
            self._look()

    def _still_failing(self, failure: Failure) -> None:
        self._probing = False
        if not failure.check(StoreError):
            _log.failure("[hub] the store cannot be asked", failure)

    def _expire(self) -> None:
        for record in self._queue.remove_expired(self._now_ms()):
            if self._marked.get(record.agent_id) is record:
                del self._marked[record.agent_id]
            self._expired(record)

    def _expired(self, record: CommandRecord) -> None:
        self._log.end(record, "expired", error="the agent did not come back in time")


def _has_expired(record: CommandRecord, now_ms: int) -> bool:
    return record.expires_ms is not None and record.expires_ms <= now_ms


def _on_its_own(sending: Deferred[CommandRecord]) -> Deferred[CommandRecord]:
    """The same outcome; what happens to this Deferred does not reach `sending`."""
    outcome: Deferred[CommandRecord] = Deferred(lambda _: None)

    def ended(result: CommandRecord | Failure) -> None:
        if outcome.called:  # cancelled
            return
        if isinstance(result, Failure):
            outcome.errback(result)
        else:
            outcome.callback(result)

    sending.addBoth(ended)
    return outcome
