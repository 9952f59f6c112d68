"""schemathesis, which knows nothing of us, asks the API what the document says can be asked.

A module of its own: it takes a second to load.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any
from unittest import SkipTest

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from jetcamer.hub.api.service import APIService
from jetcamer.hub.records import LogRecord, MetricsPoint, MetricsSeries, Reading, SessionRecord
from tests.hub.api.test_agents import refusal
from tests.hub.api.test_openapi import expected
from tests.hub.api.world import NOW, World, record

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


class SchemathesisTests(TestCase):
    """Whatever is asked, the answer is one that the document describes."""

    timeout = 120

    async def setUp(self) -> None:
        self.world = World(reactor, self.mktemp())
        # The throttle and the wall clock stand still.
        self.world.tokens.throttle._clock = Clock()
        await self.world.make_tokens()
        self.world.commands.outcome = {}
        agent = self.world.add("web-1")
        agent.last_refusal = refusal(1)
        store = self.world.store
        store.refusal_records.append(refusal(2))
        store.log_records.append(
            LogRecord(
                log_id=1,
                agent_id="web-1",
                ts=NOW,
                received_ms=NOW,
                level="info",
                message="m",
                event="[1]",
            )
        )
        store.session_records.append(
            SessionRecord(
                session_id=1,
                agent_id="web-1",
                peer="192.0.2.1:5",
                hostname="",
                version="",
                started_ms=NOW,
            )
        )
        point = MetricsPoint(ts=NOW, count=1, disk_usage=Reading(1.5, 1.0, 2.0))
        store.series = MetricsSeries(resolution="raw", step_ms=0, points=(point,))
        store.put_command(record(batch_id="b1"))
        self.service = APIService(reactor, self.world.api, "tcp:0:interface=127.0.0.1")
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def test_every_operation(self) -> None:
        join, _ = await self.world.enrolment.create_join_token(
            who="admin", expires_seconds=3600, uses=100_000
        )
        _, spare = await self.world.enrolment.create_join_token(
            who="admin", expires_seconds=3600, uses=1
        )
        (viewer,) = [t for t in self.world.tokens.all() if t.role == "viewer"]
        #: What is there, so that not every answer is 404; by how the path begins.
        self.known = {
            "/api/agents/": "web-1",
            "/api/websocket/agents/": "web-1",
            "/api/commands/": "c1",
            "/api/command-batches/": "b1",
            "/api/tokens/": viewer.token_id,
            "/api/join-tokens/": spare.token_id,
        }
        self.join = join
        self.seen: set[tuple[str, str, int]] = set()
        document = self.world.api.openapi()
        schemathesis.openapi.from_dict(document).validate()
        # It has no end to wait for: tests/hub/api/test_events.py.
        del document["paths"]["/api/events"]
        await deferToThread(self.run_all, document)
        good = {(method, path) for method, path, status in self.seen if status < 300}
        # Which of them have none but refusals depends on what is drawn.
        missing = {(method, path) for _, method, path in expected()} - good
        self.assertLess(len(missing), 6, missing)
        self.assertEqual(self.flushLoggedErrors(), [])

    def run_all(self, document: Any) -> None:
        """In a thread."""
        schema = schemathesis.openapi.from_dict(document)
        with closing(requests.Session()) as session:
            for found in schema.get_all_operations():
                operation = found.ok()
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    try:
                        self.run_one(operation.as_strategy(generation_mode=mode), session)
                    except (Unsatisfiable, SkipTest):
                        # There is nothing to get wrong.
                        self.assertIs(mode, GenerationMode.NEGATIVE)

    def run_one(self, strategy: Any, session: Any) -> None:
        count = 0

        @settings(
            max_examples=2,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck],
        )
        @given(case=strategy)
        def check(case: Any) -> None:
            nonlocal count
            count += 1
            path = case.operation.path
            token = self.join if path == "/api/join" else self.world.secrets["admin"]
            if "{id}" in path and count % 2:
                case.path_parameters = {"id": self.known[path.partition("{")[0]]}
            response = case.call(
                base_url=self.service.url,
                headers={"Authorization": f"Bearer {token}"},
                session=session,
            )
            self.seen.add((case.operation.method.upper(), path, response.status_code))
            case.validate_response(response, checks=CHECKS)

        check()
