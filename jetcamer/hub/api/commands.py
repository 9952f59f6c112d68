"""Commands: for one agent and waited for, for many and watched, and what became of them.

In: what operators ask. Out: records of commands. Everything that is sent is given to the audit
trail first, which is on the disk within a second: a command must also work while the disk is full.
A client that leaves does not take its command back.
"""

from __future__ import annotations

from msgspec.structs import replace

from jetcamer.hub.api import answers, convert, questions
from jetcamer.hub.api.agents import known_agent
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.table import Call, Operation, Reply
from jetcamer.hub.commands import NotRunningError, TooManyCommandsError
from jetcamer.hub.records import CommandRecord, CommandState
from jetcamer.hub.registry import CommandError, CommandRefusedError, NotConnectedError
from jetcamer.net.http import HTTPError
from jetcamer.protocol.errors import excerpt

#: The states in which a command has an answer from its agent.
_ANSWERED = frozenset({"done", "failed"})
_WAITING: tuple[CommandState, ...] = ("queued", "sent")


class CommandOperations:
    def __init__(self, parts: HubParts) -> None:
        self._parts = parts
        self._store = parts.store
        self._commands = parts.commands

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/api/agents/{id}/commands",
                role="operator",
                summary="Send a command to an agent and wait for its answer",
                handler=self.send,
                body=questions.CommandBody,
                answers={
                    200: answers.Command,
                    202: answers.Command,
                    409: answers.Error,
                    429: answers.Error,
                    502: answers.CommandFailure,
                    504: answers.CommandFailure,
                },
                tag="commands",
            ),
            Operation(
                method="GET",
                path="/api/agents/{id}/commands",
                role="viewer",
                summary="The commands an agent was sent",
                handler=self.of_agent,
                query=questions.CommandsQuery,
                answers={200: answers.Commands},
                tag="commands",
            ),
            Operation(
                method="GET",
                path="/api/commands",
                role="viewer",
                summary="The commands that any agent was sent",
                handler=self.of_all,
                query=questions.CommandsQuery,
                answers={200: answers.Commands},
                tag="commands",
            ),
            Operation(
                method="GET",
                path="/api/commands/{id}",
                role="viewer",
                summary="One command",
                handler=self.command,
                answers={200: answers.Command},
                tag="commands",
            ),
            Operation(
                method="POST",
                path="/api/commands",
                role="operator",
                summary="Send a command to many agents",
                handler=self.send_many,
                body=questions.ManyBody,
                answers={202: answers.Batch, 409: answers.Error},
                tag="commands",
            ),
            Operation(
                method="GET",
                path="/api/command-batches/{id}",
                role="viewer",
                summary="How far a command for many agents is",
                handler=self.batch,
                query=questions.BatchQuery,
                answers={200: answers.Batch},
                tag="commands",
            ),
        ]

    async def send(self, call: Call, agent_id: str) -> answers.Command | Reply:
        body: questions.CommandBody = call.body
        agent = known_agent(self._parts, agent_id)
        if agent.revoked_ms is not None:
            raise HTTPError(409, f"{agent_id} was revoked")
        if agent.session is None and not body.queue:
            raise HTTPError(409, f"{agent_id} is not connected")
        self._parts.store.audit(
            call.who,
            "command.send",
            agent_id,
            {"command": body.command, "args": body.args, "queue": body.queue},
        )
        record = await self._sent(agent_id, body, call.who)
        command = convert.command(record)
        if record.state in _ANSWERED:
            return command
        if record.state == "queued":
            return Reply(202, command)
        status = 504 if record.state == "timeout" else 502
        words = record.error or "the command has no answer"
        return Reply(status, answers.CommandFailure(error=words, command=command))

    async def _sent(self, agent_id: str, body: questions.CommandBody, who: str) -> CommandRecord:
        try:
            return await self._commands.send(
                agent_id,
                body.command,
                body.args,
                who=who,
                timeout=body.timeout_seconds,
                queue_seconds=body.queue_seconds if body.queue else None,
            )
        except CommandError as error:
            raise _not_sent(error) from None

    async def of_agent(self, call: Call, agent_id: str) -> answers.Commands:
        known_agent(self._parts, agent_id)
        return await self._page(call.query, agent_id)

    async def of_all(self, call: Call) -> answers.Commands:
        return await self._page(call.query, None)

    async def _page(self, query: questions.CommandsQuery, agent_id: str | None) -> answers.Commands:
        page = await self._store.commands(agent_id, limit=query.limit, before=query.before)
        return answers.Commands(commands=tuple(map(convert.command, page)), next=page.next)

    async def command(self, call: Call, command_id: str) -> answers.Command:
        record = await self._store.command(command_id)
        if record is None:
            # It may be on its way to the disk.
            await self._store.flush()
            record = await self._store.command(command_id)
        if record is None:
            raise HTTPError(404, "no command of this id is known")
        return convert.command(record)

    def send_many(self, call: Call) -> answers.Batch:
        body: questions.ManyBody = call.body
        if body.agents == "online":
            agent_ids = [a.agent_id for a in self._parts.fleet if a.session is not None]
            if not agent_ids:
                raise HTTPError(409, "no agent is online")
        else:
            agent_ids = [*dict.fromkeys(body.agents)]
            for place, agent_id in enumerate(body.agents):
                agent = self._parts.fleet.get(agent_id)
                if agent is None or agent.revoked_ms is not None:
                    name = excerpt(agent_id)
                    what = f"no agent is known as {name}" if agent is None else f"{name} is revoked"
                    raise HTTPError(400, f"agents[{place}]: {what}")
        self._parts.store.audit(
            call.who,
            "command.send_many",
            body.command,
            {
                "command": body.command,
                "args": body.args,
                "agents": "online" if body.agents == "online" else agent_ids,
                "count": len(agent_ids),
                "queue": body.queue,
            },
        )
        try:
            batch_id = self._commands.send_many(
                agent_ids,
                body.command,
                body.args,
                who=call.who,
                timeout=body.timeout_seconds,
                concurrency=body.concurrency,
                queue_seconds=body.queue_seconds if body.queue else None,
            )
        except CommandError as error:
            raise _not_sent(error) from None
        found = self._progress(batch_id)
        assert found is not None
        return found

    async def batch(self, call: Call, batch_id: str) -> answers.Batch:
        query: questions.BatchQuery = call.query
        found = self._progress(batch_id) or await self._ended(batch_id)
        if not query.commands:
            return found
        page = await self._store.batch(batch_id, limit=query.limit, after=query.after)
        return replace(found, commands=tuple(map(convert.command, page)), next=page.next)

    async def _ended(self, batch_id: str) -> answers.Batch:
        """One that is in memory no more."""
        states = await self._store.batch_states(batch_id)
        if not states:
            raise HTTPError(404, "no command for many of this id is known")
        total = sum(states.values())
        done = states.get("done", 0)
        waiting = sum(states.get(state, 0) for state in _WAITING)
        return answers.Batch(
            batch_id=batch_id,
            total=total,
            done=done,
            failed=total - done - waiting,
            waiting=waiting,
            finished=not waiting,
        )

    def _progress(self, batch_id: str) -> answers.Batch | None:
        found = self._commands.progress(batch_id)
        if found is None:
            return None
        return answers.Batch(
            batch_id=found.batch_id,
            total=found.total,
            done=found.done,
            failed=found.failed,
            waiting=found.waiting,
            finished=found.finished,
        )


def _not_sent(error: CommandError) -> CommandError | HTTPError:
    """Why, as a refusal; one that is none is a fault of ours."""
    if isinstance(error, NotRunningError):
        return HTTPError(503, str(error), (("Retry-After", "1"),))
    if isinstance(error, NotConnectedError):
        return HTTPError(409, str(error))
    if isinstance(error, CommandRefusedError):
        return HTTPError(400, str(error))
    if isinstance(error, TooManyCommandsError):
        return HTTPError(429, str(error), (("Retry-After", "10"),))
    return error
