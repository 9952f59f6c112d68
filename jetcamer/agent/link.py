"""The one connection: when to dial, when to wait, when to let go.

In: credentials, the outcome of each attempt, the loss of a connection, start and stop. Out: at
most one session at a time. It knows nothing of what a session says. The states are those that
``ws-status`` shows: waiting, connecting, online, backing off, closing, stopped.

Twisted's `ClientService` is not used: it forgets its failures at every connect, where a server
that accepts and then closes must keep backing off, and its wait cannot be seen or cut short.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from automat import TypeMachineBuilder
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.credentials import LinkCredentials
from jetcamer.agent.reconnect import MAX_DELAY, UNDISTURBED, ReconnectPolicy
from jetcamer.agent.send_queue import Counters, SendQueue
from jetcamer.agent.session import Session
from jetcamer.net.endpoint import ConnectFailed
from jetcamer.net.websocket import Disconnected, WebSocketConnection

log = Logger()

#: Seconds for flushing what is queued and for the close handshake, together.
CLOSE_DEADLINE = 2.0

#: RFC 6455 §7.4.1 and the IANA registry: "try again later".
TRY_AGAIN_LATER = 1013

SessionMaker = Callable[[WebSocketConnection], Session]

#: Opens a WebSocket with these credentials; the Deferred fails with `ConnectFailed`.
Dial = Callable[[LinkCredentials, SessionMaker], Deferred[Session]]

#: Makes the session of an open connection, which tells the last argument how it ended.
MakeSession = Callable[
    [WebSocketConnection, LinkCredentials, Callable[[Disconnected], None]], Session
]


class _Inputs(Protocol):
    """What can happen to the link."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def ready(self) -> None:
        """There are credentials to dial with, and they are not the ones in use."""

    def missing(self) -> None:
        """There are none any more."""

    def opened(self, session: Session) -> None: ...
    def failed(self, error: ConnectFailed) -> None: ...
    def lost(self, reason: Disconnected) -> None: ...
    def retry(self) -> None:
        """The wait is over."""


class _Core:
    """What the machine acts upon. Each action below is named in the table."""

    def __init__(
        self, clock: IReactorTime, dial: Dial, make_session: MakeSession, policy: ReconnectPolicy
    ) -> None:
        self.clock = clock
        self.dial = dial
        self.make_session = make_session
        self.policy = policy
        self.counters = Counters()
        self.state = "stopped"
        self.credentials: LinkCredentials | None = None
        self.session: Session | None = None
        self.connected_at: float | None = None
        self.server_time: tuple[float, float] | None = None
        self.last_error: str | None = None
        self.on_change: Callable[[], None] = lambda: None
        self.inputs: _Inputs
        self._attempt: Deferred[Session] | None = None
        self._retry: IDelayedCall | None = None
        self._timers: list[IDelayedCall] = []
        self._stopping: list[Deferred[None]] = []

    @property
    def next_retry(self) -> float | None:
        """Seconds until the next attempt."""
        return None if self._retry is None else self._retry.getTime() - self.clock.seconds()

    def when_stopped(self) -> Deferred[None]:
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        return stopped

    def nothing(self, *ignored: object) -> None:
        pass

    def connect(self, *ignored: object) -> None:
        """Dial with the credentials of this moment; the attempt in progress is given up."""
        self.give_up()
        credentials = self.credentials
        assert credentials is not None
        log.info("[ws] connecting to {url}", url=shown(credentials.url))

        def make(connection: WebSocketConnection) -> Session:
            return self.make_session(connection, credentials, self.inputs.lost)

        attempt = self._attempt = maybeDeferred(self.dial, credentials, make)

        def failed(failure: Failure) -> None:
            if self._attempt is not attempt:
                return  # given up
            self._attempt = None
            error = failure.value
            if not isinstance(error, ConnectFailed):
                log.failure("[ws] unexpected failure", failure)
                error = ConnectFailed(f"{type(error).__name__}: {error}", kind="protocol")
            self.inputs.failed(error)

        def opened(session: Session) -> None:
            self._attempt = None
            self.inputs.opened(session)

        attempt.addCallbacks(opened, failed)

    def connect_anew(self, *ignored: object) -> None:
        """The credentials changed: what the old ones did to the count is no guide to the new."""
        self.policy.reset()
        self.connect()

    def give_up(self) -> None:
        """End the attempt or the wait in progress, if there is one."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = None

    def begin(self, session: Session) -> None:
        log.info("[ws] ✓ connected successfully to {peer}", peer=session.connection.peer)
        self.session = session
        self.counters.connections += 1
        self.connected_at = self.clock.seconds()
        self._timers.append(self.clock.callLater(UNDISTURBED, self.policy.reset))
        try:
            session.start()
        except Exception:
            log.failure("[ws] the session cannot start")
            session.connection.abort()

    def back_off(self, error: ConnectFailed) -> None:
        self._wait(str(error), error.retry_after)

    def back_off_after_loss(self, reason: Disconnected) -> None:
        self._forget_session()
        self._wait(reason.words, _asked_to_wait(reason))

    def _wait(self, words: str, retry_after: float | None) -> None:
        self.last_error = words
        self.counters.failures += 1
        delay = self.policy.failed(retry_after)
        log.warn("[ws] connection failed: {words}", words=words)
        log.info(
            "[ws] reconnecting in {delay:.1f} s (attempt {attempt})",
            delay=delay,
            attempt=self.policy.attempt,
        )

        def retry() -> None:
            self._retry = None
            self.inputs.retry()

        self._retry = self.clock.callLater(delay, retry)

    def close_to_move(self) -> None:
        self._close("credentials changed")

    def close_to_stop(self) -> None:
        self._close("agent stopping")

    def _close(self, reason: str) -> None:
        session = self.session
        assert session is not None
        log.info("[ws] closing: {reason}", reason=reason)
        self._timers.append(self.clock.callLater(CLOSE_DEADLINE, session.connection.abort))
        session.finish(reason)

    def offer(self, *ignored: object) -> None:
        """Waiting has begun: perhaps there is nothing to wait for."""
        if self.credentials is not None and self.credentials.missing is None:
            self.inputs.ready()

    def offer_after_loss(self, reason: Disconnected) -> None:
        self._forget_session()
        self.policy.reset()
        self._stopped()  # who asked to stop was overtaken by who asked to start
        self.offer()

    def wait_for_credentials(self) -> None:
        self.give_up()
        self.policy.reset()

    def halt(self, *ignored: object) -> None:
        self.give_up()
        self._forget_session()
        self._stopped()

    def _stopped(self) -> None:
        stopping, self._stopping = self._stopping, []
        for stopped in stopping:
            stopped.callback(None)

    def _forget_session(self) -> None:
        if self.session is not None:
            self.server_time = self.session.server_time or self.server_time
        self.session = None
        self.connected_at = None
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()


_Action = Callable[..., None]
_Row = tuple[str, _Action]

_STAY: _Action = _Core.nothing

#: state → input → (next state, action). "moving" is the closing that is followed by a new dial.
TABLE: dict[str, dict[str, _Row]] = {
    "stopped": {
        "start": ("waiting", _Core.offer),
        "stop": ("stopped", _Core.halt),
    },
    "waiting": {
        "stop": ("stopped", _Core.halt),
        "ready": ("connecting", _Core.connect_anew),
    },
    "connecting": {
        "stop": ("stopped", _Core.halt),
        "ready": ("connecting", _Core.connect_anew),
        "missing": ("waiting", _Core.wait_for_credentials),
        "opened": ("online", _Core.begin),
        "failed": ("backing off", _Core.back_off),
    },
    "online": {
        "stop": ("closing", _Core.close_to_stop),
        "ready": ("moving", _Core.close_to_move),
        "missing": ("moving", _Core.close_to_move),
        "lost": ("backing off", _Core.back_off_after_loss),
    },
    "backing off": {
        "stop": ("stopped", _Core.halt),
        "ready": ("connecting", _Core.connect_anew),
        "missing": ("waiting", _Core.wait_for_credentials),
        "retry": ("connecting", _Core.connect),
    },
    "moving": {
        "stop": ("closing", _Core.nothing),
        "lost": ("waiting", _Core.offer_after_loss),
    },
    "closing": {
        "start": ("moving", _Core.nothing),
        "lost": ("stopped", _Core.halt),
    },
}

_INPUTS: tuple[Callable[..., None], ...] = (
    _Inputs.start,
    _Inputs.stop,
    _Inputs.ready,
    _Inputs.missing,
    _Inputs.opened,
    _Inputs.failed,
    _Inputs.lost,
    _Inputs.retry,
)


def _build() -> Callable[[_Core], _Inputs]:
    """The machine of `TABLE`; an input that a state does not name changes nothing there."""
    builder: Any = TypeMachineBuilder(_Inputs, _Core)
    states = {name: builder.state(name) for name in TABLE}
    for name, rows in TABLE.items():
        for input_ in _INPUTS:
            following, action = rows.get(input_.__name__, (name, _STAY))

            def enter(
                inputs: _Inputs,
                core: _Core,
                *args: Any,
                following: str = following,
                action: _Action = action,
            ) -> None:
                before, core.state = core.state, following
                action(core, *args)
                if before != following:
                    core.on_change()

            states[name].upon(input_).to(states[following])(enter)
    machine: Callable[[_Core], _Inputs] = builder.build()
    return machine


_new_machine = _build()


class AgentLink(Service):
    """Keeps one session with the server for as long as it runs and has credentials.

    :param dial: see `Dial`; :param make_session: see `MakeSession`.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        now: Callable[[], float],
        dial: Dial,
        make_session: MakeSession,
        policy: ReconnectPolicy | None = None,
    ) -> None:
        self._now = now
        self._core = _Core(clock, dial, make_session, policy or ReconnectPolicy())
        self._inputs = self._core.inputs = _new_machine(self._core)
        self.counters = self._core.counters
        self.queue = SendQueue(self.counters)

    def startService(self) -> None:
        super().startService()
        self._inputs.start()

    def stopService(self) -> Deferred[None]:
        """Flush, close with 1000; fires when nothing is left, in `CLOSE_DEADLINE` at the most."""
        super().stopService()
        stopped = self._core.when_stopped()
        self._inputs.stop()
        return stopped

    def set_credentials(self, credentials: LinkCredentials) -> None:
        """Dial with these; a connection that others made is closed first."""
        before, self._core.credentials = self._core.credentials, credentials
        if credentials.missing is not None:
            if before is None or before.missing != credentials.missing:
                log.warn("[ws] not started: missing {missing}", missing=credentials.missing)
            self._inputs.missing()
        elif before is None or _key(before) != _key(credentials):
            self._inputs.ready()

    def send_log(self, level: str, message: str | bytes, source: str | None = None) -> bool:
        """Send a ``log`` message, now or when the link is back.

        Bytes that are not UTF-8 are replaced. Returns False when there was no room for it: then it
        is dropped and counted, as are older ones that make way for newer.
        """
        text = message.decode("utf-8", "replace") if isinstance(message, bytes) else message
        return self.queue.log_message(level, text, source)

    @property
    def state(self) -> str:
        state = self._core.state
        return "closing" if state == "moving" else state

    @property
    def connection(self) -> WebSocketConnection | None:
        """The open connection, if there is one."""
        return None if self._core.session is None else self._core.session.connection

    @property
    def server_time(self) -> tuple[float, float] | None:
        """What the server's clock showed last, in Unix seconds, and how many seconds ago."""
        session = self._core.session
        told = (session and session.server_time) or self._core.server_time
        return told and (told[0], self._core.clock.seconds() - told[1])

    def describe(self) -> str:
        """The state in a few words, for a person."""
        status = self.status()
        if self.state == "waiting":
            return f"missing {status['missing']}" if "missing" in status else "looking around"
        if self.state == "backing off":
            return f"next attempt in {status['nextRetrySeconds']} s; {status['lastError']}"
        return str(status["apiURL"] or "no URL")

    def on_change(self, call: Callable[[], None]) -> None:
        """Have `call` called after each change of state."""
        self._core.on_change = call

    def status(self) -> dict[str, Any]:
        """The link's part of ``ws-status``; see docs/protocol.md, Local HTTP."""
        core = self._core
        credentials = core.credentials
        missing = credentials and credentials.missing
        session = core.session
        active = self.state not in ("waiting", "stopped")
        status: dict[str, Any] = {
            "started": active,
            "hasClient": active,
            "hasContext": bool(self.running),
            "apiURL": shown(credentials.url) if credentials else "",
            "agentID": credentials.agent_id if credentials else "",
            "hasSecret": bool(credentials and credentials.secret),
            "hasConnection": self.state == "online" and session is not None and session.is_open,
            "credentialsAvailable": bool(credentials and credentials.secret),
            "canStart": credentials is not None and missing is None,
            "state": self.state,
            "attempt": core.policy.attempt,
            "nextRetrySeconds": None if core.next_retry is None else round(core.next_retry, 1),
            "connectedSince": None,
            "lastError": core.last_error,
            "secretSource": credentials.secret_source if credentials else None,
            "queuedBytes": self.queue.size,
            "counters": self.counters.as_dict(),
        }
        if missing is not None:
            status["missing"] = missing
        if core.connected_at is not None:
            age = core.clock.seconds() - core.connected_at
            moment = datetime.fromtimestamp(self._now() - age, UTC)
            status["connectedSince"] = moment.isoformat(timespec="seconds").replace("+00:00", "Z")
        return status


def shown(url: str | None) -> str:
    """`url` for a person: without its query, which may hold a token."""
    return (url or "").partition("?")[0]


def _key(credentials: LinkCredentials) -> tuple[str, str | None, str | None]:
    """What a connection is made of."""
    return credentials.agent_id, credentials.url, credentials.secret


def _asked_to_wait(reason: Disconnected) -> float | None:
    """How long a server that closed wants us to stay away: 1013 carries seconds, or means long."""
    if reason.code != TRY_AGAIN_LATER or not reason.by_peer:
        return None
    words = reason.reason.strip()
    return float(words) if words.isascii() and words.isdigit() else MAX_DELAY
