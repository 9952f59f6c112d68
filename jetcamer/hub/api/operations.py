"""How the hub itself is, and what its operator does with it: status, figures, audit, backup."""

from __future__ import annotations

import os
import secrets
import time

from jetcamer.hub.api import answers, convert, questions
from jetcamer.hub.api.parts import HubParts
from jetcamer.hub.api.prometheus import Exposition
from jetcamer.hub.api.table import Call, Media, Operation, Reply
from jetcamer.net.http import Answer, HTTPError


class HubOperations:
    def __init__(self, parts: HubParts, exposition: Exposition) -> None:
        self._parts = parts
        self._exposition = exposition

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/healthz",
                role=None,
                summary="Whether the process answers",
                handler=self.healthz,
                answers={200: Media("text/plain")},
                query=None,
            ),
            Operation(
                method="GET",
                path="/readyz",
                role=None,
                summary="Whether the hub should get agents now",
                handler=self.readyz,
                answers={200: answers.Readiness, 503: answers.Readiness},
                query=None,
            ),
            Operation(
                method="GET",
                path="/metrics",
                role="viewer",
                summary="Figures for Prometheus",
                handler=self.metrics,
                answers={200: Media("text/plain")},
            ),
            Operation(
                method="GET",
                path="/api/status",
                role="viewer",
                summary="How the hub is",
                handler=self.status,
                answers={200: answers.Status},
            ),
            Operation(
                method="GET",
                path="/api/audit",
                role="admin",
                summary="What operators changed",
                handler=self.audit,
                query=questions.PageQuery,
                answers={200: answers.AuditTrail},
            ),
            Operation(
                method="GET",
                path="/api/audit/verify",
                role="admin",
                summary="Whether the audit trail is as it was written",
                handler=self.verify,
                answers={200: answers.Verification},
            ),
            Operation(
                method="POST",
                path="/api/backup",
                role="admin",
                summary="Copy the database while it is in use",
                handler=self.backup,
                answers={200: answers.BackupMade},
            ),
        ]

    def healthz(self, call: Call) -> Answer:
        return Answer(b"ok", content_type="text/plain")

    def readyz(self, call: Call) -> answers.Readiness | Reply:
        why = self._parts.status.why_not
        if why is None:
            return answers.Readiness(ready=True)
        return Reply(503, answers.Readiness(ready=False, why=why))

    async def metrics(self, call: Call) -> Answer:
        return Answer(await self._exposition.text(), content_type=self._exposition.content_type)

    def status(self, call: Call) -> answers.Status:
        figures = self._parts.status
        health = self._parts.store.health()
        return answers.Status(
            version=figures.version,
            started_at=figures.started_ms,
            ready=figures.ready,
            why=figures.why_not,
            draining=figures.draining,
            connections=figures.connections,
            agents_online=figures.agents_online,
            agents_known=figures.agents_known,
            messages=figures.messages,
            refusals=dict(figures.refusals),
            banned_addresses=len(self._parts.offenders.bans()),
            store=answers.StoreStatus(
                ok=health.ok,
                words=health.words,
                lag_seconds=health.lag,
                waiting=health.waiting,
                lost=health.lost,
                size=health.size,
            ),
            reactor_lag_seconds=figures.reactor_lag,
        )

    async def audit(self, call: Call) -> answers.AuditTrail:
        query: questions.PageQuery = call.query
        page = await self._parts.store.audit_entries(limit=query.limit, before=query.before)
        return answers.AuditTrail(entries=tuple(map(convert.audit_entry, page)), next=page.next)

    async def verify(self, call: Call) -> answers.Verification:
        verified, first_wrong = await self._parts.store.verify_audit()
        return answers.Verification(verified=verified, first_wrong=first_wrong)

    async def backup(self, call: Call) -> answers.BackupMade:
        parts = self._parts
        when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(parts.now_ms() / 1000))
        name = f"hub-{when}-{secrets.token_hex(2)}.sqlite3"
        try:
            os.makedirs(parts.backup_dir, mode=0o700, exist_ok=True)
        except OSError as error:
            words = f"{parts.backup_dir} cannot be made: {error.strerror}"
            raise HTTPError(503, words) from None
        path = os.path.join(parts.backup_dir, name)
        size = await parts.store.backup(path)
        parts.store.audit(call.who, "backup", name, {"size": size})
        return answers.BackupMade(path=path, size=size)
