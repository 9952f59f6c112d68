"""Commands: for one agent and waited for, for many and watched, and what became of them.

In: what operators ask. Out: records of commands. Everything sent is in the audit trail before it
is sent. A client that leaves does not take its command back.
"""

from __future__ import annotations

from jetcamer.hub.api import answers, convert, questions
from jetcamer.hub.api.agents import known_agent
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.table import Call, Operation, Reply
from jetcamer.hub.commands import TooManyCommandsError
from jetcamer.hub.records import CommandRecord
from jetcamer.hub.registry import CommandRefusedError, NotConnectedError
from jetcamer.net.http import HTTPError

#: The states in which a command has an answer from its agent.
_ANSWERED = frozenset({"done", "failed"})
_WAITING = frozenset({"queued", "sent"})


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
                query=questions.PageQuery,
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
        except NotConnectedError as error:
            raise HTTPError(409, str(error)) from None
        except CommandRefusedError as error:
            raise HTTPError(400, str(error)) from None
        except TooManyCommandsError as error:
            raise HTTPError(429, str(error), (("Retry-After", "10"),)) from None

    async def of_agent(self, call: Call, agent_id: str) -> answers.Commands:
        query: questions.PageQuery = call.query
        known_agent(self._parts, agent_id)
        rows = await self._store.commands(agent_id, limit=query.limit + 1, before_ms=query.before)
        shown, cursor = convert.page_by_time(rows, query.limit, lambda row: row.created_ms)
        return answers.Commands(commands=tuple(map(convert.command, shown)), next=cursor)

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
                    what = "not known" if agent is None else "revoked"
                    raise HTTPError(400, f"agents[{place}]: this agent is {what}")
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
        batch_id = self._commands.send_many(
            agent_ids,
            body.command,
            body.args,
            who=call.who,
            timeout=body.timeout_seconds,
            concurrency=body.concurrency,
            queue_seconds=body.queue_seconds if body.queue else None,
        )
        found = self._progress(batch_id)
        assert found is not None
        return found

    async def batch(self, call: Call, batch_id: str) -> answers.Batch:
        query: questions.BatchQuery = call.query
        found = self._progress(batch_id)
        if found is not None and not query.commands:
            return found
        await self._store.flush()
        rows = await self._store.batch(batch_id)
        if found is None:
            if not rows:
                raise HTTPError(404, "no command for many of this id is known")
            done = sum(row.state == "done" for row in rows)
            waiting = sum(row.state in _WAITING for row in rows)
            found = answers.Batch(
                batch_id=batch_id,
                total=len(rows),
                done=done,
                failed=len(rows) - done - waiting,
                waiting=waiting,
                finished=not waiting,
            )
        commands = tuple(map(convert.command, rows)) if query.commands else None
        return found if commands is None else _with_commands(found, commands)

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


def _with_commands(batch: answers.Batch, commands: tuple[answers.Command, ...]) -> answers.Batch:
    return answers.Batch(
        batch_id=batch.batch_id,
        total=batch.total,
        done=batch.done,
        failed=batch.failed,
        waiting=batch.waiting,
        finished=batch.finished,
        commands=commands,
    )
