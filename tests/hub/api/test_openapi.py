"""The document says what the routes do, the routes do what it says, and who may what."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any
from unittest import SkipTest

import msgspec
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

from jetcamer.hub.api import answers, questions
from jetcamer.hub.api.service import APIService
from jetcamer.hub.records import (
    ROLES,
    LogRecord,
    MetricsPoint,
    MetricsSeries,
    Reading,
    SessionRecord,
)
from tests.hub.api.test_agents import refusal
from tests.hub.api.world import NOW, APICase, World, record

#: What `docs` promise: who may what.
EXPECTED = """
open      GET     /healthz
open      GET     /readyz
viewer    GET     /metrics
viewer    GET     /api/openapi.json
viewer    GET     /api/status
viewer    GET     /api/agents
viewer    GET     /api/agents/{id}
admin     POST    /api/agents
admin     POST    /api/agents/{id}/rotate
admin     POST    /api/agents/{id}/revoke
admin     POST    /api/agents/{id}/restore
viewer    GET     /api/agents/{id}/metrics
viewer    GET     /api/agents/{id}/logs
viewer    GET     /api/agents/{id}/sessions
viewer    GET     /api/agents/{id}/refusals
viewer    GET     /api/agents/{id}/commands
viewer    GET     /api/refusals
viewer    GET     /api/bans
operator  DELETE  /api/bans/{address}
operator  POST    /api/agents/{id}/commands
viewer    GET     /api/commands
viewer    GET     /api/commands/{id}
operator  POST    /api/commands
viewer    GET     /api/command-batches/{id}
viewer    GET     /api/events
admin     GET     /api/audit
admin     GET     /api/audit/verify
admin     GET     /api/tokens
admin     POST    /api/tokens
admin     DELETE  /api/tokens/{id}
admin     GET     /api/join-tokens
admin     POST    /api/join-tokens
admin     DELETE  /api/join-tokens/{id}
open      POST    /api/join
admin     POST    /api/backup
viewer    GET     /api/websocket/agents
viewer    GET     /api/websocket/agents/{id}
operator  POST    /api/websocket/agents/{id}/command
"""


def expected() -> set[tuple[str, str, str]]:
    return {(*line.split(),) for line in EXPECTED.strip().splitlines()}


class TableTests(APICase):
    def test_every_operation_has_the_role_it_should(self) -> None:
        table = {(o.role or "open", o.method, o.path) for o in self.world.api.operations}
        self.assertEqual(table, expected())

    def test_each_role_may_what_it_may_and_no_more(self) -> None:
        may = {"viewer": {"viewer"}, "operator": {"viewer", "operator"}, "admin": {*ROLES}}
        for role, method, pattern in sorted(expected()):
            path = re.sub(r"\{id\}", "nobody", pattern)
            for asker in (None, *ROLES):
                with self.subTest(method=method, path=path, asker=asker):
                    connection = self.connect()
                    connection.protocol.dataReceived(self.text(method, path, role=asker))
                    self.clock.advance(0)
                    status = int(connection.transport.value().split(b" ", 2)[1])
                    if role == "open":
                        self.assertIn(status, {200, 415})
                    elif asker is None:
                        self.assertEqual(status, 401)
                    elif role not in may[asker]:
                        self.assertEqual(status, 403)
                    else:
                        self.assertNotIn(status, {401, 403})
        self.assertEqual(self.store.audited()[-1][0], "admin")

    def test_what_is_forbidden_says_why(self) -> None:
        response = self.ask("GET", "/api/tokens", role="operator")
        self.assert_error(response, 403, "this needs the role admin; yours is operator")

    def test_without_a_token_nobody_learns_which_paths_there_are(self) -> None:
        for path in ("/api/agents", "/api/nothing", "/", "/metrics"):
            self.assertEqual(self.ask("GET", path, role=None).status, 401)
        self.assertEqual(self.ask("GET", "/api/nothing").status, 404)
        response = self.ask("DELETE", "/api/agents/web-1")
        self.assertEqual((response.status, response.headers["allow"]), (405, "GET, HEAD"))

    def test_bodies_that_are_too_large_or_of_another_kind(self) -> None:
        response = self.ask("POST", "/api/commands", body={"command": "x" * 600_000})
        self.assertEqual(response.status, 413)
        text = self.text("POST", "/api/commands", body={}).replace(b"/json", b"/xml")
        self.assertEqual(self.connect().send(text)[0].status, 415)

    def test_a_fault_of_ours_is_no_more_than_that_outside(self) -> None:
        self.patch(self.world.status, "version", object())
        self.assert_error(self.ask("GET", "/api/status"), 500, "internal error")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)


class DocumentTests(APICase):
    def setUp(self) -> None:
        super().setUp()
        self.document = self.get("/api/openapi.json")

    def test_is_valid(self) -> None:
        schemathesis.openapi.from_dict(self.document).validate()
        self.assertEqual(self.document["openapi"], "3.1.0")
        self.assertEqual(self.document["info"]["version"], "5.0.0")

    def test_has_every_route_and_no_other(self) -> None:
        documented = {
            (method.upper(), path)
            for path, operations in self.document["paths"].items()
            for method in operations
        }
        self.assertEqual(documented, {(method, path) for _, method, path in expected()})

    def test_says_who_may(self) -> None:
        paths = self.document["paths"]
        self.assertEqual(paths["/api/backup"]["post"]["security"], [{"apiToken": ["admin"]}])
        self.assertEqual(paths["/readyz"]["get"]["security"], [])
        self.assertEqual(paths["/api/join"]["post"]["security"], [{"joinToken": []}])

    def test_says_what_may_be_asked(self) -> None:
        (path, *query) = self.document["paths"]["/api/agents/{id}/metrics"]["get"]["parameters"]
        self.assertEqual((path["name"], path["in"], path["required"]), ("id", "path", True))
        self.assertEqual(
            query[2],
            {
                "name": "points",
                "in": "query",
                "required": False,
                "schema": {"type": "integer", "minimum": 1, "maximum": 5000, "default": 300},
            },
        )
        self.assertNotIn("null", str([parameter["schema"] for parameter in query]))

    def test_every_value_has_its_schema(self) -> None:
        schemas = self.document["components"]["schemas"]
        for module in (answers, questions):
            for name, kind in vars(module).items():
                is_struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
                if not is_struct or kind.__module__ != module.__name__ or name.startswith("_"):
                    continue
                if not name.endswith("Query") and name != "Nothing":
                    self.assertTrue(name in schemas, name)
        self.assertEqual([name for name in schemas if "." in name], [])

    def test_secrets_are_not_in_the_repr_of_any_value(self) -> None:
        config = answers.NewAgentConfig(ws_api_url="u", ws_secret="s3", instance_id="i")
        for value in (
            config,
            answers.NewAgent(agent_id="i", secret="s3", ws_api_url="u", config=config),
            answers.NewSecret(agent_id="i", secret="s3", old_valid_until=1, config=config),
            answers.JoinedAgent(agent_id="i", secret="s3", ws_api_url="u"),
            answers.NewJoinToken(id="i", token="s3", expires_at=1, uses_left=1),
            answers.NewToken(
                id="i",
                name="n",
                role="admin",
                created_at=1,
                expires_at=None,
                last_used=None,
                token="s3",
            ),
            questions.NewAgentBody(agent_id="i", secret="s3"),
            questions.RotateBody(secret="s3"),
        ):
            self.assertNotIn("s3", repr(value))


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
