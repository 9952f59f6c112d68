"""Agents' secrets, join tokens, API tokens: made once, shown once, written down."""

from __future__ import annotations

from twisted.logger import capturedLogs, eventAsText

from jetcamer.hub.store.interface import StoreError
from tests.hub.api.world import NOW, APICase, Here


class AgentTests(APICase):
    def test_adding(self) -> None:
        response = self.ask("POST", "/api/agents", body={"agentId": "web-1"})
        self.assertEqual(response.status, 201)
        secret = response.json["secret"]
        url = "wss://hub.example:9810/agent"
        self.assertEqual(
            response.json,
            {
                "agentId": "web-1",
                "secret": secret,
                "wsApiUrl": url,
                "config": {"wsApiUrl": url, "wsSecret": secret, "instanceId": "web-1"},
            },
        )
        self.assertIsNotNone(self.world.fleet.find("web-1"))
        self.assertEqual(self.store.audited(), [("admin", "agent.add", "web-1")])
        response = self.ask("POST", "/api/agents", body={"agentId": "web-1"})
        self.assert_error(response, 409, "an agent with this id is known already")

    def test_a_secret_of_ones_own_goes_nowhere_but_into_the_answer(self) -> None:
        body = {"agentId": "web-1", "secret": "correct horse battery"}
        with capturedLogs() as events:
            response = self.ask("POST", "/api/agents", body=body)
            self.assertEqual(response.json["secret"], "correct horse battery")
            for wrong in ({**body, "secret": "horse"}, {**body, "x": "correct horse battery"}):
                self.assertNotIn(b"horse", self.ask("POST", "/api/agents", body=wrong).body)
            self.world.fleet.add = None  # whatever fails then is logged
            response = self.ask("POST", "/api/agents", body={**body, "agentId": "web-2"})
        self.assertEqual(response.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertNotIn("horse", "".join(map(eventAsText, events)))
        self.assertNotIn("horse", str(self.store.audit_records))

    def test_ids_that_no_agent_may_have(self) -> None:
        for agent_id in ("a/b", "a\nb", " ", ".."):
            response = self.ask("POST", "/api/agents", body={"agentId": agent_id})
            self.assertEqual(response.status, 400)
            self.assertIn("an agent's id is", response.error)

    def test_rotating(self) -> None:
        self.ask("POST", "/api/agents", body={"agentId": "web-1"})
        path = "/api/agents/web-1/rotate"
        response = self.ask("POST", path, body={"graceSeconds": 60})
        self.assertEqual(response.status, 200)
        self.assertEqual(response.json["oldValidUntil"], NOW + 60_000)
        self.assertEqual(response.json["config"]["wsSecret"], response.json["secret"])
        self.assertEqual(len(self.world.fleet.find("web-1").keys), 2)
        # It needs no body.
        self.assertEqual(self.ask("POST", path).json["oldValidUntil"], NOW + 86_400_000)
        response = self.ask("POST", path, body={"graceSeconds": -1})
        self.assert_error(response, 400, "graceSeconds: expected a number >= 0.0")

    def test_an_old_secret_shows(self) -> None:
        def shown() -> tuple[object, object]:
            one = self.get("/api/agents/web-1")
            (listed,) = self.get("/api/agents")["agents"]
            members = ("oldSecretUntil", "oldSecretUsed")
            self.assertEqual(*([each[name] for name in members] for each in (one, listed)))
            return one["oldSecretUntil"], one["oldSecretUsed"]

        self.ask("POST", "/api/agents", body={"agentId": "web-1"})
        self.assertEqual(shown(), (None, None))
        self.ask("POST", "/api/agents/web-1/rotate", body={"graceSeconds": 60})
        self.assertEqual(shown(), (NOW + 60_000, None))
        session = Here()
        self.world.fleet.get("web-1").session = session
        self.assertEqual(shown(), (NOW + 60_000, False))
        session.uses_old_secret = True
        self.assertEqual(shown(), (NOW + 60_000, True))
        self.world.now += 60_000
        self.assertEqual(shown(), (None, None))

    def test_one_that_was_revoked_is_restored_not_rotated(self) -> None:
        self.world.add("web-1", here=False, revoked_ms=NOW)
        response = self.ask("POST", "/api/agents/web-1/rotate")
        words = "the agent was revoked: restore it, which gives it a new secret"
        self.assert_error(response, 409, words)

    def test_revoking_and_taking_it_back(self) -> None:
        self.ask("POST", "/api/agents", body={"agentId": "web-1"})
        response = self.ask("POST", "/api/agents/web-1/restore")
        self.assert_error(response, 409, "the agent was not revoked")
        response = self.ask("POST", "/api/agents/web-1/revoke")
        self.assertEqual(
            (response.status, response.json), (200, {"agentId": "web-1", "revoked": True})
        )
        self.assertEqual({*self.world.closed}, {("web-1", 1008, "revoked")})
        response = self.ask("POST", "/api/agents/web-1/restore")
        self.assertEqual((response.status, response.json["agentId"]), (200, "web-1"))
        for path in ("rotate", "revoke", "restore"):
            response = self.ask("POST", f"/api/agents/nobody/{path}")
            self.assert_error(response, 404, "no agent of this id is known")

    def test_without_a_url_to_tell_nothing_is_changed(self) -> None:
        def no_url(_: str) -> str:
            raise RuntimeError("listens on no TCP port")

        for agent_id in ("there", "gone"):
            self.ask("POST", "/api/agents", body={"agentId": agent_id})
        self.ask("POST", "/api/agents/gone/revoke")
        join = self.ask("POST", "/api/join-tokens").json["token"]
        before = (*self.store.audited(), *self.store.secret_records, *self.store.join.values())
        object.__setattr__(self.world.parts, "agent_url", no_url)
        for path, role, body in (
            ("/api/agents", "admin", {"agentId": "new"}),
            ("/api/agents/there/rotate", "admin", None),
            ("/api/agents/gone/restore", "admin", None),
            ("/api/join", join, {"agentId": "new"}),
        ):
            self.assertEqual(self.ask("POST", path, role=role, body=body).status, 500)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        after = (*self.store.audited(), *self.store.secret_records, *self.store.join.values())
        self.assertEqual(after, before)

    def test_a_store_that_fails_changes_nothing(self) -> None:
        self.store.failing = StoreError("disk full")
        response = self.ask("POST", "/api/agents", body={"agentId": "web-1"})
        self.assertEqual(response.status, 503)
        self.assertIsNone(self.world.fleet.get("web-1"))


class TokenTests(APICase):
    def test_making_listing_and_deleting(self) -> None:
        body = {"name": "grafana", "role": "viewer", "expiresSeconds": 60}
        response = self.ask("POST", "/api/tokens", body=body)
        self.assertEqual(response.status, 201)
        made = response.json
        token = made.pop("token")
        self.assertRegex(token, r"\Ajc_[A-Za-z0-9_-]{43}\Z")
        self.assertEqual((made["name"], made["expiresAt"]), ("grafana", NOW + 60_000))
        self.assertEqual(self.ask("GET", "/api/status", role=token).status, 200)
        listed = self.ask("GET", "/api/tokens")
        self.assertNotIn(token.encode(), listed.body)
        self.assertIn({**made, "lastUsed": NOW}, listed.json["tokens"])
        response = self.ask("DELETE", f"/api/tokens/{made['id']}")
        self.assertEqual(
            (response.status, response.json), (200, {"id": made["id"], "deleted": True})
        )
        self.assertEqual(self.ask("GET", "/api/status", role=token).status, 401)
        self.assertEqual(
            self.store.audited(),
            [("admin", "token.create", "grafana"), ("admin", "token.delete", "grafana")],
        )
        self.assertNotIn(token, str(self.store.audit_records))

    def test_refusals(self) -> None:
        for body, status, words in (
            ({"name": "x"}, 400, "role: missing"),
            ({"name": "x", "role": "root"}, 400, "role: not one of the values it may have"),
            ({"name": "", "role": "admin"}, 400, "name: expected a string of length >= 1"),
            (
                {"name": "a\nb", "role": "admin"},
                400,
                "name: expected printable characters without blanks around them",
            ),
            ({"name": "viewer", "role": "admin"}, 409, "a token of this name is there already"),
        ):
            self.assert_error(self.ask("POST", "/api/tokens", body=body), status, words)
        response = self.ask("DELETE", "/api/tokens/none")
        self.assert_error(response, 404, "no token of this id is known")

    def test_never_the_last_admin(self) -> None:
        (admin,) = [token for token in self.store.tokens.values() if token.role == "admin"]
        path = f"/api/tokens/{admin.token_id}"
        words = "the last admin token cannot be deleted"
        self.assert_error(self.ask("DELETE", path), 409, words)
        body = {"name": "other", "role": "admin", "expiresSeconds": 60}
        other = self.ask("POST", "/api/tokens", body=body).json
        self.world.now += 60_000  # it has expired, and is none
        self.assert_error(self.ask("DELETE", path), 409, words)
        self.world.now -= 60_000
        self.assertEqual(self.ask("DELETE", path, role=other["token"]).status, 200)
        response = self.ask("DELETE", f"/api/tokens/{other['id']}", role=other["token"])
        self.assert_error(response, 409, words)


class JoinTests(APICase):
    def make(self, **body: object) -> dict[str, object]:
        response = self.ask("POST", "/api/join-tokens", body=body)
        self.assertEqual(response.status, 201)
        return response.json

    def join(self, token: str | None, agent_id: str = "web-1"):
        return self.ask("POST", "/api/join", role=token, body={"agentId": agent_id})

    def test_a_machine_joins_once(self) -> None:
        made = self.make()
        self.assertEqual((made["usesLeft"], made["expiresAt"]), (1, NOW + 3_600_000))
        response = self.join(made["token"])
        self.assertEqual(response.status, 201)
        self.assertEqual(
            {**response.json, "secret": ""},
            {"agentId": "web-1", "secret": "", "wsApiUrl": "wss://hub.example:9810/agent"},
        )
        response = self.join(made["token"], "web-2")
        self.assertEqual(response.status, 401)
        self.assertIn("the join token is not valid", response.error)
        self.assertIn("www-authenticate", response.headers)

    def test_listing_and_deleting(self) -> None:
        made = self.make(uses=5, expiresSeconds=60)
        listed = self.ask("GET", "/api/join-tokens")
        self.assertNotIn(made["token"].encode(), listed.body)
        self.assertEqual(
            listed.json["tokens"],
            [
                {
                    "id": made["id"],
                    "who": "admin",
                    "createdAt": NOW,
                    "expiresAt": NOW + 60_000,
                    "usesLeft": 5,
                }
            ],
        )
        path = f"/api/join-tokens/{made['id']}"
        self.assertEqual(self.ask("DELETE", path).status, 200)
        self.assert_error(self.ask("DELETE", path), 404, "no join token of this id is known")
        self.assertEqual(self.store.audited()[-1], ("admin", "join-token.delete", made["id"]))

    def test_refusals(self) -> None:
        made = self.make(uses=2)
        self.join(made["token"])
        self.assert_error(self.join(made["token"]), 409, "an agent with this id is known already")
        self.assertEqual(self.join(made["token"], "a b").status, 400)
        self.assertEqual(self.join(None).status, 401)
        # An API token is not one, nor the other way round.
        self.assertEqual(self.join("admin").status, 401)
        self.assertEqual(self.ask("GET", "/api/status", role=made["token"]).status, 401)

    def test_guessing_is_throttled(self) -> None:
        token = self.make()["token"]
        for _ in range(10):
            self.assertEqual(self.join("guess").status, 401)
        response = self.join(token)
        self.assert_error(response, 429, "too many wrong tokens")
        self.assertEqual(response.headers["retry-after"], "60")
