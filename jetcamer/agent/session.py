"""What happens while the link is open: auth, metrics, heartbeats, commands.

In: whole text messages and a clock. Out: sealed messages on the connection, commands for the
dispatcher. Nothing is sent before ``auth``; nothing is done for a message that is not signed with
our key, meant for us, of this moment and new. A session never outlives its connection: its timers
stop when it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from uuid import uuid4

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.send_queue import Counters, Outgoing, SendQueue
from jetcamer.net.timers import RepeatingTimer
from jetcamer.net.websocket import Disconnected, WebSocketConnection
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.envelope import CommandPayload, decode_payload
from jetcamer.protocol.errors import ProtocolError
from jetcamer.protocol.replay import ReplayGuard
from jetcamer.protocol.signing import SigningKey

log = Logger()

#: What the log line of a metrics message shows: its word and the payload member.
_READINGS = (("cpu", "cpuPercent"), ("mem", "memPercent"), ("disk", "diskUsage"))


class Sampler(Protocol):
    """Where metrics come from: `jetcamer.agent.metrics.MetricsSampler`."""

    def sample(self) -> dict[str, Any]: ...


class Dispatcher(Protocol):
    """What runs commands: `jetcamer.agent.commands.CommandDispatcher`."""

    def submit(
        self, name: str, args: Mapping[str, str], nonce: str
    ) -> Deferred[dict[str, Any]]: ...


class SessionSettings(msgspec.Struct, frozen=True):
    """What every session of an agent has in common. Intervals are in seconds."""

    hostname: str
    version: str
    capabilities: tuple[str, ...]
    metrics_interval: float = 5.0
    heartbeat_interval: float = 30.0


class Session:
    """One authenticated conversation over one open connection.

    :param now: Unix time in seconds; `clock` need not know the time of day.
    :param guard: shared by all sessions of an agent, so that no nonce runs twice.
    :param on_disconnected: called once, last.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        key: SigningKey,
        agent_id: str,
        *,
        settings: SessionSettings,
        queue: SendQueue,
        guard: ReplayGuard,
        sampler: Sampler,
        dispatcher: Dispatcher,
        counters: Counters,
        clock: IReactorTime,
        now: Callable[[], float],
        on_disconnected: Callable[[Disconnected], None],
    ) -> None:
        self.connection = connection
        self._key = key
        self._agent_id = agent_id
        self._settings = settings
        self._queue = queue
        self._guard = guard
        self._sampler = sampler
        self._dispatcher = dispatcher
        self._counters = counters
        self._clock = clock
        self._now = now
        self._on_disconnected = on_disconnected
        self._flushed: Deferred[None] | None = None
        #: Between `start` and the first close frame.
        self.is_open = False
        #: What the server's clock showed last, in Unix seconds, and when, by `clock`.
        self.server_time: tuple[float, float] | None = None
        if connection.server_date is not None:
            self.server_time = (connection.server_date, clock.seconds())
        self._timers = [
            RepeatingTimer(clock, interval, body, name=f"[ws] {name} timer")
            for name, interval, body in (
                ("metrics", settings.metrics_interval, self._send_metrics),
                ("heartbeat", settings.heartbeat_interval, self._send_heartbeat),
            )
        ]

    def start(self) -> None:
        """Send ``auth``, then what has waited for this moment, and start the timers."""
        log.info("[ws] sending auth message")
        payload = {
            "hostname": self._settings.hostname,
            "version": self._settings.version,
            "capabilities": list(self._settings.capabilities),
        }
        self.is_open = True
        self._send("auth", canonical(payload), self._now_ms())
        self._counters.sent["auth"] += 1
        log.info("[ws] ✓ auth message sent successfully")
        for timer in self._timers:
            timer.start()
        self.connection.register_producer(self._queue.producer)
        self._queue.open(self._write)

    def finish(self, reason: str) -> None:
        """Send what is queued, then close with 1000; `disconnected` follows."""
        for timer in self._timers:
            timer.stop()
        if self._flushed is None:
            self._flushed = self._queue.when_empty()
            self._flushed.addCallback(lambda _: self.connection.close(1000, reason))
            self._flushed.addErrback(_ignore_cancellation)

    def message_received(self, data: bytes) -> None:
        try:
            envelope = self._key.open(data)
            if envelope.agent_id != self._agent_id:
                raise ProtocolError("wrong_agent", "meant for another agent", "agentId")
            self._guard.check(envelope.ts, envelope.nonce, self._now_ms())
            if self._flushed is not None:
                # Perhaps because this key was withdrawn.
                raise ProtocolError("closing", "this session is ending")
            # Signed and of this moment: as good as a `Date`, which not every server sends.
            self.server_time = (envelope.ts / 1000, self._clock.seconds())
            log.info("[ws] received message: type={type}", type=envelope.type)
            if envelope.type != "command":
                raise ProtocolError("unexpected_type", "a server sends only commands", "type")
            command = decode_payload(envelope, CommandPayload)
            self._counters.received[envelope.type] += 1
        except ProtocolError as error:
            self._counters.refused[error.code] += 1
            log.warn(
                "[ws] message refused: {code}: {reason} (from {peer})",
                code=error.code,
                reason=str(error),
                peer=self.connection.peer,
                local_only=True,  # a server that echoes would make it answer itself
            )
            return
        # The result goes to the queue, not to this session: it may outlive the connection.
        done = self._dispatcher.submit(command.command, command.args, envelope.nonce)
        done.addCallback(self._queue.command_result)
        done.addErrback(lambda failure: log.failure("[ws] command failed", failure))

    def closing(self) -> None:
        """What is put from now on waits for the next session."""
        self.is_open = False
        for timer in self._timers:
            timer.stop()
        self._queue.close()

    def disconnected(self, reason: Disconnected) -> None:
        self.closing()
        if self._flushed is not None:
            self._flushed.cancel()
        self._on_disconnected(reason)

    def _now_ms(self) -> int:
        return int(self._now() * 1000)

    def _send(self, type_: str, payload: bytes, ts: int) -> None:
        self.connection.send(
            self._key.seal(type_, self._agent_id, payload, ts=ts, nonce=str(uuid4()))
        )

    def _write(self, outgoing: Outgoing) -> None:
        ts = self._now_ms() if outgoing.ts is None else outgoing.ts
        self._send(outgoing.type, outgoing.payload, ts)
        self._queue.sent(outgoing)
        if outgoing.words:
            log.info("{words}", words=outgoing.words)

    def _send_metrics(self) -> None:
        payload = self._sampler.sample()
        if not payload:
            return
        words = "[ws] metrics sent: " + " ".join(
            f"{name}={payload[member]:.2f}%" if member in payload else f"{name}=?"
            for name, member in _READINGS
        )
        self._queue.metrics(payload, self._now_ms(), words)

    def _send_heartbeat(self) -> None:
        self._queue.heartbeat(self._now_ms())


def _ignore_cancellation(failure: Failure) -> None:
    failure.trap(CancelledError)
