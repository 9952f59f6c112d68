"""The document says what the routes do, the routes do what it says, and who may what."""

from __future__ import annotations

import re

import msgspec

from jetcamer.hub.api import answers, questions
from jetcamer.hub.records import ROLES
from tests.hub.api.world import APICase

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

    def test_which_it_is(self) -> None:
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
