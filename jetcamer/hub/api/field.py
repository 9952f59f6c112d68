"""The API of the hub before this one, with its shapes, for the programs that use it."""

from __future__ import annotations

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.hub.api import questions
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.table import Call, Operation
from jetcamer.hub.registry import CommandError, CommandRefusedError, NotConnectedError
from jetcamer.net.http import HTTPError

log = Logger()


class FieldAgent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An agent that is connected, as the hub before this one said it."""

    agent_id: str
    last_seen: int | None
    hostname: str
    version: str
    connected_at: int | None


class FieldAgents(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agents: tuple[FieldAgent, ...]


class FieldConnected(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    agent_id: str
    connected: bool


class FieldCommand(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The command was sent; nobody waits for its result."""

    success: bool
    agent_id: str
    command: str


class FieldOperations:
    def __init__(self, parts: HubParts) -> None:
        self._parts = parts

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/api/websocket/agents",
                role="viewer",
                summary="The agents that are connected",
                handler=self.agents,
                answers={200: FieldAgents},
                tag="field",
            ),
            Operation(
                method="GET",
                path="/api/websocket/agents/{id}",
                role="viewer",
                summary="Whether an agent is connected",
                handler=self.agent,
                answers={200: FieldConnected},
                tag="field",
            ),
            Operation(
                method="POST",
                path="/api/websocket/agents/{id}/command",
                role="operator",
                summary="Send a command without waiting for its answer",
                handler=self.command,
                body=questions.FieldCommandBody,
                answers={200: FieldCommand},
                tag="field",
            ),
        ]

    def agents(self, call: Call) -> FieldAgents:
        return FieldAgents(
            agents=tuple(
                FieldAgent(
                    agent_id=agent.agent_id,
                    last_seen=agent.last_seen_ms,
                    hostname=agent.hostname,
                    version=agent.version,
                    connected_at=agent.connected_ms,
                )
                for agent in self._parts.fleet
                if agent.session is not None
            )
        )

    def agent(self, call: Call, agent_id: str) -> FieldConnected:
        return FieldConnected(agent_id=agent_id, connected=self._is_here(agent_id))

    def command(self, call: Call, agent_id: str) -> FieldCommand:
        body: questions.FieldCommandBody = call.body
        if not body.command:
            raise HTTPError(400, "Command is required")
        if not self._is_here(agent_id):
            raise HTTPError(404, "Agent not connected")
        args = body.args or {}
        self._parts.store.audit(
            call.who, "command.send", agent_id, {"command": body.command, "args": args}
        )
        refused: list[BaseException | None] = []

        def failed(failure: Failure) -> None:
            failure.trap(CommandError)
            refused.append(failure.value)

        sending = self._parts.commands.send(agent_id, body.command, args, who=call.who)
        sending.addErrback(failed)
        sending.addErrback(lambda failure: log.failure("[hub] a command failed", failure))
        # What cannot be sent is known at once; what comes later nobody here waits for.
        for error in refused:
            if isinstance(error, NotConnectedError):
                raise HTTPError(404, "Agent not connected")
            if isinstance(error, CommandRefusedError):
                raise HTTPError(400, str(error))
        return FieldCommand(success=True, agent_id=agent_id, command=body.command)

    def _is_here(self, agent_id: str) -> bool:
        agent = self._parts.fleet.get(agent_id)
        return agent is not None and agent.session is not None
