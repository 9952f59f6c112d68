"""Agents, and what is remembered of each: metrics, logs, sessions, refusals."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec.structs import replace

from jetcamer.hub import fleet
from jetcamer.hub.api import answers, convert, questions
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.table import Call, Operation
from jetcamer.hub.records import RefusalRecord
from jetcamer.hub.store.interface import StoreError
from jetcamer.net.http import HTTPError

HOUR_MS = 3_600_000


def known_agent(parts: HubParts, agent_id: str) -> fleet.Agent:
    """Raises `HTTPError` 404."""
    agent = parts.fleet.get(agent_id)
    if agent is None:
        raise HTTPError(404, "no agent of this id is known")
    return agent


class AgentOperations:
    def __init__(self, parts: HubParts) -> None:
        self._parts = parts
        self._store = parts.store

    def operations(self) -> list[Operation]:
        def get(
            path: str,
            summary: str,
            handler: Callable[..., object],
            answer: type[Any],
            query: type[Any] = questions.Nothing,
        ) -> Operation:
            return Operation(
                method="GET",
                path=path,
                role="viewer",
                summary=summary,
                handler=handler,
                answers={200: answer},
                query=query,
                tag="agents",
            )

        one = "/api/agents/{id}"
        page = questions.PageQuery
        return [
            get(
                "/api/agents",
                "Agents, by id",
                self.agents,
                answers.Agents,
                questions.AgentsQuery,
            ),
            get(one, "One agent", self.agent, answers.AgentDetails),
            get(
                f"{one}/metrics",
                "An agent's metrics over time",
                self.metrics,
                answers.Series,
                questions.SeriesQuery,
            ),
            get(
                f"{one}/logs",
                "An agent's log messages",
                self.logs,
                answers.Logs,
                questions.LogsQuery,
            ),
            get(
                f"{one}/sessions",
                "An agent's connections",
                self.sessions,
                answers.Sessions,
                page,
            ),
            get(
                f"{one}/refusals",
                "Why an agent was refused",
                self.agent_refusals,
                answers.Refusals,
                page,
            ),
            get(
                "/api/refusals",
                "Why somebody was refused, by address or claimed agent id",
                self.refusals,
                answers.Refusals,
                questions.RefusalsQuery,
            ),
        ]

    def agents(self, call: Call) -> answers.Agents:
        query: questions.AgentsQuery = call.query
        now = self._parts.now_ms()
        part = (query.search or "").lower()

        def wanted(agent: fleet.Agent) -> bool:
            return (
                (query.after is None or agent.agent_id > query.after)
                and (part in agent.agent_id.lower() or part in agent.hostname.lower())
                and (query.state is None or agent.state(now)[0] == query.state)
            )

        found = heapq.nsmallest(
            query.limit + 1, filter(wanted, self._parts.fleet), key=lambda agent: agent.agent_id
        )
        shown = found[: query.limit]
        return answers.Agents(
            agents=tuple(answers.Agent(**self._members(agent, now)) for agent in shown),
            next=shown[-1].agent_id if len(found) > query.limit else None,
        )

    def agent(self, call: Call, agent_id: str) -> answers.AgentDetails:
        agent = known_agent(self._parts, agent_id)
        last = agent.last_refusal
        members = self._members(agent, self._parts.now_ms())
        return answers.AgentDetails(
            **members,
            last_refusal=None if last is None else convert.refusal(last),
            queued_commands=self._parts.commands.queued(agent_id),
        )

    async def metrics(self, call: Call, agent_id: str) -> answers.Series:
        query: questions.SeriesQuery = call.query
        known_agent(self._parts, agent_id)
        to_ms = self._parts.now_ms() if query.to_ms is None else query.to_ms
        from_ms = max(0, to_ms - HOUR_MS) if query.from_ms is None else query.from_ms
        if from_ms >= to_ms:
            raise HTTPError(400, "from: must be before to")
        series = await self._store.metrics(agent_id, from_ms, to_ms, query.points)
        return answers.Series(
            agent_id=agent_id,
            resolution=series.resolution,
            step_ms=series.step_ms,
            from_ms=from_ms,
            to_ms=to_ms,
            points=series.points,
        )

    async def logs(self, call: Call, agent_id: str) -> answers.Logs:
        query: questions.LogsQuery = call.query
        known_agent(self._parts, agent_id)
        if query.from_ms is not None and query.to_ms is not None and query.from_ms >= query.to_ms:
            raise HTTPError(400, "from: must be before to")
        page = await self._store.logs(
            agent_id,
            from_ms=query.from_ms,
            to_ms=query.to_ms,
            levels=tuple(level for level in (query.level or "").split(",") if level),
            source=query.source,
            contains=query.contains,
            limit=query.limit,
            before=query.before,
        )
        return answers.Logs(logs=tuple(map(convert.log, page)), next=page.next)

    async def sessions(self, call: Call, agent_id: str) -> answers.Sessions:
        query: questions.PageQuery = call.query
        agent = known_agent(self._parts, agent_id)
        rows = await self._store.sessions(agent_id, limit=query.limit + 1, before=query.before)
        shown, cursor = convert.page(rows, query.limit, lambda row: row.session_id)
        return answers.Sessions(
            sessions=tuple(convert.session(row, agent.session) for row in shown), next=cursor
        )

    async def agent_refusals(self, call: Call, agent_id: str) -> answers.Refusals:
        query: questions.PageQuery = call.query
        # Somebody who is refused for his id is not known: that is no reason for a 404.
        recent = self._parts.refusals.of_agent(agent_id)
        if not recent:
            known_agent(self._parts, agent_id)
        asked = self._store.refusals(agent_id=agent_id, limit=query.limit + 1, before=query.before)
        return await _refusals(asked, recent, query.limit, query.before)

    async def refusals(self, call: Call) -> answers.Refusals:
        query: questions.RefusalsQuery = call.query
        if query.agent_id is not None:
            recent = [
                refusal
                for refusal in self._parts.refusals.of_agent(query.agent_id)
                if query.address in {None, refusal.address}
            ]
        elif query.address is not None:
            recent = self._parts.refusals.of_address(query.address)
        else:
            recent = self._parts.refusals.latest()
        asked = self._store.refusals(
            agent_id=query.agent_id,
            address=query.address,
            limit=query.limit + 1,
            before=query.before,
        )
        return await _refusals(asked, recent, query.limit, query.before)

    def _members(self, agent: fleet.Agent, now: int) -> dict[str, Any]:
        until = self._parts.enrolment.old_secret_until(agent.agent_id)
        return convert.agent_members(agent, now, until)


async def _refusals(
    asked: Awaitable[Sequence[RefusalRecord]],
    recent: Sequence[RefusalRecord],
    limit: int,
    before: int | None,
) -> answers.Refusals:
    """What the store has, and before it what only memory has: all of the last ones where the store
    fails, those that wait for a disk in trouble where it answers."""
    try:
        rows = [*await asked]
    except StoreError:
        if not recent or before is not None:
            raise
        rows = []
    if before is None:
        newest = rows[0].ts_ms if rows else 0
        written = {replace(row, refusal_id=0) for row in rows}
        rows[:0] = [
            refusal
            for refusal in recent
            if refusal.ts_ms >= newest and replace(refusal, refusal_id=0) not in written
        ]
    shown = rows[:limit]
    cursor = None
    if len(rows) > limit:
        # Those that only memory has are no place to go on from.
        following = next((row.refusal_id for row in rows[limit:] if row.refusal_id), None)
        cursor = shown[-1].refusal_id or (None if following is None else following + 1)
    return answers.Refusals(refusals=tuple(map(convert.refusal, shown)), next=cursor)
