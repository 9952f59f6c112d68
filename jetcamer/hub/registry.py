"""Which agents are here, and the commands they have yet to answer.

In: the events of every session. Out: the same events, passed on to one listener, with the
connections that were replaced left out; a `Deferred` for each command. The newest authenticated
session of an agent wins. Never verifies anything and never touches a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from jetcamer.hub.clones import Machine
from jetcamer.hub.fleet import MAX_WORDS
from jetcamer.hub.pending import PendingCommands
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import SessionListener
from jetcamer.net.log_limit import LogLimit
from jetcamer.protocol.close_codes import NORMAL
from jetcamer.protocol.envelope import AuthPayload, CommandResultPayload, Envelope
from jetcamer.protocol.errors import ProtocolError

_log = Logger()


#: Agents that come, and that leave, which are logged one by one in a second.
_MOST_LOGGED = 50


class CommandError(Exception):
    """A command has no answer; str() is one line that says why."""


class NotConnectedError(CommandError):
    """The agent is not here."""


class DisconnectedError(CommandError):
    """The agent left before it answered. Whether the command ran is not known."""


class CommandTimeoutError(CommandError):
    """No answer in the time given. Whether the command ran is not known."""


class UnreadableAnswerError(CommandError):
    """The agent answered with what cannot be read."""


class CommandRefusedError(CommandError):
    """The command cannot be sent as it stands."""


class AgentRegistry:
    """The agents that are here. Itself the `SessionListener` of their sessions.

    :param listener: gets every event after the registry has acted on it. A session that a newer
        one replaced is disconnected to it before the newer one has authenticated, and says nothing
        after that.
    """

    def __init__(self, clock: IReactorTime, listener: SessionListener) -> None:
        self._clock = clock
        self._listener = listener
        self._present: dict[str, AgentSession] = {}
        # A fleet that comes back is told as a number: a line for each would cost as much as they.
        self._arrivals = LogLimit(clock, _say_arrived, most=_MOST_LOGGED)
        self._departures = LogLimit(clock, _say_left, most=_MOST_LOGGED)
        # What the registry does not act upon goes past it without a call.
        self.metrics = listener.metrics
        self.heartbeat = listener.heartbeat
        self.log = listener.log
        self.refused = listener.refused

    def stop(self) -> None:
        """Say what is still to be said."""
        self._arrivals.stop()
        self._departures.stop()

    def __len__(self) -> int:
        return len(self._present)

    def __iter__(self) -> Iterator[AgentSession]:
        """The sessions of the agents that are here, longest here first."""
        return iter([*self._present.values()])

    def get(self, agent_id: str) -> AgentSession | None:
        """The agent's session; None while it is not here."""
        return self._present.get(agent_id)

    def close_session(self, agent_id: str, code: int, reason: str) -> None:
        """Close the connection of an agent that is here."""
        session = self._present.get(agent_id)
        if session is not None:
            session.close(code, reason)

    def send_command(
        self,
        agent_id: str,
        command: str,
        args: Mapping[str, str],
        timeout: float = 30.0,
        late: Callable[[CommandResultPayload], object] | None = None,
    ) -> Deferred[CommandResultPayload]:
        """Send a command; fires with its result, or fails with a `CommandError`.

        Cancelling it stops the waiting, not the command.

        :param timeout: seconds until it fails with `CommandTimeoutError`.
        :param late: is given a result that comes after that all the same.
        """
        session = self._present.get(agent_id)
        if session is None or not session.open:
            return fail(NotConnectedError(f"{agent_id} is not connected"))
        try:
            nonce = session.send_command(command, args)
        except ProtocolError as error:
            return fail(CommandRefusedError(str(error)))
        if session.pending is None:
            session.pending = PendingCommands(self._clock, _unreadable)
        words = f"no answer to {command} from {agent_id} within {timeout:g} s"
        return session.pending.add(nonce, command, timeout, CommandTimeoutError(words), late)

    # SessionListener

    def authenticated(
        self, session: AgentSession, envelope: Envelope, payload: AuthPayload
    ) -> None:
        agent = session.agent
        assert agent is not None
        agent_id = agent.agent_id
        before = self._present.get(agent_id)
        if before is not session:
            self._present.pop(agent_id, None)
            self._present[agent_id] = session
            agent.session = session
            agent.connected_ms = session.last_seen_ms
            if self._arrivals.admits():
                _log.info(
                    "[hub] agent authenticated: {agent} from {peer}{shared}",
                    agent=agent_id,
                    peer=session.peer,
                    shared=", with the shared secret" if agent.legacy else "",
                )
        session.auth = payload = agent.describe(payload, session.address)
        if before is not None and before is not session:
            self._replace(before, session)
        self._listener.authenticated(session, envelope, payload)

    def _replace(self, before: AgentSession, session: AgentSession) -> None:
        agent = session.agent
        assert agent is not None
        _log.info(
            "[hub] {agent}: the connection from {peer} is replaced by a newer one",
            agent=agent.agent_id,
            peer=before.peer,
        )
        now = session.last_seen_ms
        was_clone = agent.is_clone(now)
        agent.replaced(now, _machine(before), _machine(session))
        if agent.is_clone(now) and not was_clone:
            _log.warn("[hub] {agent}: {words}", agent=agent.agent_id, words=agent.state(now)[1])
        before.close(NORMAL, "replaced_by_new_connection")
        self._give_up(before, f"{agent.agent_id} connected anew before it answered")
        self._listener.disconnected(before, "replaced by a newer connection")

    def command_result(
        self, session: AgentSession, envelope: Envelope, payload: CommandResultPayload
    ) -> None:
        pending = session.pending
        receiver = pending.answered(payload) if pending is not None else None
        try:
            self._listener.command_result(session, envelope, payload)
        finally:
            if receiver is not None:
                receiver(payload)

    def disconnected(self, session: AgentSession, words: str) -> None:
        agent = session.agent
        if agent is None or self._present.get(agent.agent_id) is not session:
            return
        del self._present[agent.agent_id]
        agent.session = None
        agent.connected_ms = None
        if self._departures.admits():
            _log.info(
                "[hub] agent disconnected: {agent}: {words}", agent=agent.agent_id, words=words
            )
        self._give_up(session, f"{agent.agent_id} left before it answered: {words}")
        self._listener.disconnected(session, words)

    def _give_up(self, session: AgentSession, words: str) -> None:
        if session.pending is not None:
            session.pending.give_up(DisconnectedError(words))


def _machine(session: AgentSession) -> Machine:
    hostname = "" if session.auth is None else session.auth.hostname[:MAX_WORDS]
    return Machine(session.address, hostname)


def _unreadable(command: str) -> CommandError:
    return UnreadableAnswerError(f"the answer to {command} cannot be read")


def _say_arrived(number: int) -> None:
    _log.info("[hub] and {number} more agents authenticated", number=number)


def _say_left(number: int) -> None:
    _log.info("[hub] and {number} more agents disconnected", number=number)
