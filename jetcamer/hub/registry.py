"""Which agents are here, and the commands they have yet to answer.

In: the events of every session. Out: the same events, passed on to one listener, with the
connections that were replaced left out; a `Deferred` for each command. The newest authenticated
session of an agent wins. Never verifies anything and never touches a socket.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from jetcamer.hub.session import NORMAL, AgentSession, SessionListener
from jetcamer.protocol.envelope import (
    AuthPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsPayload,
)
from jetcamer.protocol.errors import ProtocolError

_log = Logger()

#: Commands of one agent that nobody waits for any more but whose answers may still come.
_MAX_ABANDONED = 64


class CommandError(Exception):
    """A command has no answer; str() is one line that says why."""


class NotConnectedError(CommandError):
    """The agent is not here."""


class DisconnectedError(CommandError):
    """The agent left before it answered. Whether the command ran is not known."""


class CommandTimeoutError(CommandError):
    """No answer in the time given. Whether the command ran is not known."""


class CommandRefusedError(CommandError):
    """The command cannot be sent as it stands."""


class _Waiting:
    """A command that was sent, and who waits for its answer."""

    __slots__ = ("command", "deadline", "done")

    def __init__(
        self, command: str, done: Deferred[CommandResultPayload], deadline: IDelayedCall
    ) -> None:
        self.command = command
        self.deadline = deadline
        #: None once nobody waits: the answer of a peer that answers in order still counts.
        self.done: Deferred[CommandResultPayload] | None = done

    def take(self) -> Deferred[CommandResultPayload] | None:
        done, self.done = self.done, None
        if self.deadline.active():
            self.deadline.cancel()
        return done


class _Presence:
    """One agent's session and its open commands, in the order they were sent."""

    __slots__ = ("session", "waiting")

    def __init__(self, session: AgentSession) -> None:
        self.session = session
        self.waiting: dict[str, _Waiting] = {}

    def answered(self, payload: CommandResultPayload) -> _Waiting | None:
        """The command that `payload` answers.

        A peer that names no `inReplyTo` answers in the order it was asked.
        """
        nonce = payload.in_reply_to
        if nonce is None:
            for candidate, waiting in self.waiting.items():
                if waiting.command == payload.command:
                    nonce = candidate
                    break
            else:
                return None
        return self.waiting.pop(nonce, None)

    def forget_abandoned(self) -> None:
        abandoned = [nonce for nonce, waiting in self.waiting.items() if waiting.done is None]
        for nonce in abandoned[: max(0, len(abandoned) - _MAX_ABANDONED)]:
            del self.waiting[nonce]

    def give_up(self, error: CommandError) -> None:
        everything, self.waiting = self.waiting, {}
        for waiting in everything.values():
            done = waiting.take()
            if done is not None:
                done.errback(error)


class AgentRegistry:
    """The agents that are here. Itself the `SessionListener` of their sessions.

    :param listener: gets every event after the registry has acted on it, but for those of a
        session that a newer one replaced: to it an agent leaves only when it is gone.
    """

    def __init__(self, clock: IReactorTime, listener: SessionListener) -> None:
        self._clock = clock
        self._listener = listener
        self._present: dict[str, _Presence] = {}

    def __len__(self) -> int:
        return len(self._present)

    def __iter__(self) -> Iterator[AgentSession]:
        """The sessions of the agents that are here, longest here first."""
        return iter([presence.session for presence in self._present.values()])

    def send_command(
        self, agent_id: str, command: str, args: Mapping[str, str], timeout: float = 30.0
    ) -> Deferred[CommandResultPayload]:
        """Send a command; fires with its result, or fails with a `CommandError`.

        Cancelling it stops the waiting, not the command.

        :param timeout: seconds until it fails with `CommandTimeoutError`.
        """
        presence = self._present.get(agent_id)
        if presence is None or not presence.session.open:
            return fail(NotConnectedError(f"{agent_id} is not connected"))
        try:
            nonce = presence.session.send_command(command, args)
        except ProtocolError as error:
            return fail(CommandRefusedError(str(error)))
        words = f"no answer to {command} from {agent_id} within {timeout:g} s"
        done: Deferred[CommandResultPayload] = Deferred(
            lambda _: self._abandon(presence, nonce, None)
        )
        deadline = self._clock.callLater(
            timeout, self._abandon, presence, nonce, CommandTimeoutError(words)
        )
        presence.waiting[nonce] = _Waiting(command, done, deadline)
        return done

    def _abandon(self, presence: _Presence, nonce: str, error: CommandError | None) -> None:
        waiting = presence.waiting.get(nonce)
        done = waiting.take() if waiting is not None else None
        presence.forget_abandoned()
        if done is not None and error is not None:
            done.errback(error)

    # SessionListener

    def authenticated(
        self, session: AgentSession, envelope: Envelope, payload: AuthPayload
    ) -> None:
        agent_id = envelope.agent_id
        before = self._present.get(agent_id)
        if before is None or before.session is not session:
            self._present.pop(agent_id, None)
            self._present[agent_id] = _Presence(session)
            _log.info(
                "[hub] agent authenticated: {agent} from {peer}", agent=agent_id, peer=session.peer
            )
        if before is not None and before.session is not session:
            _log.info(
                "[hub] {agent}: the connection from {peer} is replaced by a newer one",
                agent=agent_id,
                peer=before.session.peer,
            )
            before.session.close(NORMAL, "replaced_by_new_connection")
            before.give_up(DisconnectedError(f"{agent_id} connected anew before it answered"))
        self._listener.authenticated(session, envelope, payload)

    def metrics(self, session: AgentSession, envelope: Envelope, payload: MetricsPayload) -> None:
        self._listener.metrics(session, envelope, payload)

    def heartbeat(
        self, session: AgentSession, envelope: Envelope, payload: HeartbeatPayload
    ) -> None:
        self._listener.heartbeat(session, envelope, payload)

    def log(self, session: AgentSession, envelope: Envelope, payload: LogPayload) -> None:
        self._listener.log(session, envelope, payload)

    def command_result(
        self, session: AgentSession, envelope: Envelope, payload: CommandResultPayload
    ) -> None:
        presence = self._present[envelope.agent_id]
        waiting = presence.answered(payload)
        done = waiting.take() if waiting is not None else None
        try:
            self._listener.command_result(session, envelope, payload)
        finally:
            if done is not None:
                done.callback(payload)

    def disconnected(self, session: AgentSession, words: str) -> None:
        agent_id = session.agent_id
        presence = self._present.get(agent_id) if agent_id is not None else None
        if agent_id is None or presence is None or presence.session is not session:
            return
        del self._present[agent_id]
        _log.info("[hub] agent disconnected: {agent}: {words}", agent=agent_id, words=words)
        presence.give_up(DisconnectedError(f"{agent_id} left before it answered: {words}"))
        self._listener.disconnected(session, words)

    def refused(self, reason: str, peer: str) -> None:
        self._listener.refused(reason, peer)
