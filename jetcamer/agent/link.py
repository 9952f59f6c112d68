"""The one connection, as a service: what the rest of the agent sees of it.

In: credentials, start and stop, log messages. Out: at most one session at a time, kept up for as
long as there is something to dial with; and the status that ``ws-status`` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.agent.credentials import LinkCredentials
from jetcamer.agent.link_machine import Dial, LinkCore, MakeSession, new_machine, shown
from jetcamer.agent.reconnect import ReconnectPolicy
from jetcamer.agent.send_queue import SendQueue
from jetcamer.net.websocket import WebSocketConnection

log = Logger()


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
        self._core = LinkCore(clock, dial, make_session, policy or ReconnectPolicy())
        self._inputs = self._core.inputs = new_machine(self._core)
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

    def on_rate_limited(self, call: Callable[[], None]) -> None:
        """Have `call` called when the server closes because of too many messages."""
        self._core.on_rate_limited = call

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


def _key(credentials: LinkCredentials) -> tuple[str, str | None, str | None]:
    """What a connection is made of."""
    return credentials.agent_id, credentials.url, credentials.secret
