"""The link's states: what each thing that can happen does to it.

In: the events of `LinkInputs`. Out: calls on a `LinkCore`, by one table: state → input → next state
and action. The states are those that ``ws-status`` shows; what a session says is not known here.

Twisted's `ClientService` is not used: it forgets its failures at every connect, where a server
that accepts and then closes must keep backing off, and its wait cannot be seen or cut short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.credentials import LinkCredentials
from jetcamer.agent.reconnect import MAX_DELAY, UNDISTURBED, ReconnectPolicy
from jetcamer.agent.send_queue import Counters
from jetcamer.agent.session import Session
from jetcamer.net.endpoint import ConnectFailed
from jetcamer.net.timers import Timer
from jetcamer.net.websocket import Disconnected, WebSocketConnection
from jetcamer.protocol.close_codes import POLICY_VIOLATION, TRY_AGAIN_LATER

log = Logger()

#: Seconds for flushing what is queued and for the close handshake, together.
CLOSE_DEADLINE = 2.0

SessionMaker = Callable[[WebSocketConnection], Session]

#: Opens a WebSocket with these credentials; the Deferred fails with `ConnectFailed`.
Dial = Callable[[LinkCredentials, SessionMaker], Deferred[Session]]

#: Makes the session of an open connection, which tells the last argument how it ended.
MakeSession = Callable[
    [WebSocketConnection, LinkCredentials, Callable[[Disconnected], None]], Session
]


class LinkInputs(Protocol):
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


class LinkCore:
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
        self.on_rate_limited: Callable[[], None] = lambda: None
        self.inputs: LinkInputs
        self._attempt: Deferred[Session] | None = None
        self._retry = Timer(clock)
        self._undisturbed = Timer(clock)
        self._closing = Timer(clock)
        self._stopping: list[Deferred[None]] = []

    @property
    def next_retry(self) -> float | None:
        """Seconds until the next attempt."""
        return self._retry.remaining

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
        self._retry.stop()

    def begin(self, session: Session) -> None:
        log.info("[ws] ✓ connected successfully to {peer}", peer=session.connection.peer)
        self.session = session
        self.counters.connections += 1
        self.connected_at = self.clock.seconds()
        self._undisturbed.start(UNDISTURBED, self.policy.reset)
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
        if _sent_too_much(reason):
            self.on_rate_limited()

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
        self._retry.start(delay, self.inputs.retry)

    def close_to_move(self) -> None:
        self._close("credentials changed")

    def close_to_stop(self) -> None:
        self._close("agent stopping")

    def _close(self, reason: str) -> None:
        session = self.session
        assert session is not None
        log.info("[ws] closing: {reason}", reason=reason)
        self._closing.start(CLOSE_DEADLINE, session.connection.abort)
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
        self._undisturbed.stop()
        self._closing.stop()


_Action = Callable[..., None]
_Row = tuple[str, _Action]

_STAY: _Action = LinkCore.nothing

#: state → input → (next state, action). "moving" is the closing that is followed by a new dial.
TABLE: dict[str, dict[str, _Row]] = {
    "stopped": {
        "start": ("waiting", LinkCore.offer),
        "stop": ("stopped", LinkCore.halt),
    },
    "waiting": {
        "stop": ("stopped", LinkCore.halt),
        "ready": ("connecting", LinkCore.connect_anew),
    },
    "connecting": {
        "stop": ("stopped", LinkCore.halt),
        "ready": ("connecting", LinkCore.connect_anew),
        "missing": ("waiting", LinkCore.wait_for_credentials),
        "opened": ("online", LinkCore.begin),
        "failed": ("backing off", LinkCore.back_off),
    },
    "online": {
        "stop": ("closing", LinkCore.close_to_stop),
        "ready": ("moving", LinkCore.close_to_move),
        "missing": ("moving", LinkCore.close_to_move),
        "lost": ("backing off", LinkCore.back_off_after_loss),
    },
    "backing off": {
        "stop": ("stopped", LinkCore.halt),
        "ready": ("connecting", LinkCore.connect_anew),
        "missing": ("waiting", LinkCore.wait_for_credentials),
        "retry": ("connecting", LinkCore.connect),
    },
    "moving": {
        "stop": ("closing", LinkCore.nothing),
        "lost": ("waiting", LinkCore.offer_after_loss),
    },
    "closing": {
        "start": ("moving", LinkCore.nothing),
        "lost": ("stopped", LinkCore.halt),
    },
}

INPUTS: tuple[Callable[..., None], ...] = (
    LinkInputs.start,
    LinkInputs.stop,
    LinkInputs.ready,
    LinkInputs.missing,
    LinkInputs.opened,
    LinkInputs.failed,
    LinkInputs.lost,
    LinkInputs.retry,
)


def _build() -> Callable[[LinkCore], LinkInputs]:
    """The machine of `TABLE`; an input that a state does not name changes nothing there."""
    builder: Any = TypeMachineBuilder(LinkInputs, LinkCore)
    states = {name: builder.state(name) for name in TABLE}
    for name, rows in TABLE.items():
        for input_ in INPUTS:
            following, action = rows.get(input_.__name__, (name, _STAY))

            def enter(
                inputs: LinkInputs,
                core: LinkCore,
                *args: Any,
                following: str = following,
                action: _Action = action,
            ) -> None:
                before, core.state = core.state, following
                action(core, *args)
                if before != following:
                    core.on_change()

            states[name].upon(input_).to(states[following])(enter)
    machine: Callable[[LinkCore], LinkInputs] = builder.build()
    return machine


new_machine = _build()


def shown(url: str | None) -> str:
    """`url` for a person: without its query, which may hold a token."""
    return (url or "").partition("?")[0]


def _asked_to_wait(reason: Disconnected) -> float | None:
    """How long a server that closed wants us to stay away: 1013 carries seconds, or means long."""
    if reason.code != TRY_AGAIN_LATER or not reason.by_peer:
        return None
    words = reason.reason.strip()
    return float(words) if words.isascii() and words.isdigit() else MAX_DELAY


def _sent_too_much(reason: Disconnected) -> bool:
    """Whether the server closed because of too many messages; words may follow its reason."""
    return (
        reason.by_peer
        and reason.code == POLICY_VIOLATION
        and reason.reason.startswith("rate_limited")
    )
