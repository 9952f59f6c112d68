"""Commands: what each outcome is answered with, and what the old hub's programs get."""

from __future__ import annotations

from jetcamer.hub.commands import NotRunningError, TooManyCommandsError
from jetcamer.hub.registry import CommandRefusedError, NotConnectedError
from jetcamer.hub.store.interface import StoreError
from tests.hub.api.world import NOW, APICase, record
from tests.support.raw_http import parse_responses

PATH = "/api/agents/web-1/commands"
PING = {"command": "ping"}


class SendTests(APICase):
    def setUp(self) -> None:
        super().setUp()
        self.world.add("web-1")
        self.commands = self.world.commands

    def send(self, body: object = PING, role: str = "operator", path: str = PATH):
        return self.ask("POST", path, role=role, body=body)

    def test_an_answer(self) -> None:
        self.commands.outcome = {}
        response = self.send({"command": "ping", "args": {"a": "b"}, "timeoutSeconds": 2.5})
        self.assertEqual(response.status, 200)
        self.assertEqual(
            response.json,
            {
                "id": "c1",
                "agentId": "web-1",
                "command": "ping",
                "args": {"a": "b"},
                "who": "operator",
                "state": "done",
                "createdAt": NOW,
                "sentAt": NOW + 1,
                "endedAt": NOW + 43,
                "milliseconds": 42,
                "expiresAt": None,
                "result": "pong",
                "error": None,
                "details": {"took": 1.5},
                "batchId": None,
            },
        )
        self.assertIn(b'"details":{"took":1.50}', response.body)  # as it was stored
        self.assertEqual(
            self.commands.sent,
            [
                (
                    "web-1",
                    "ping",
                    {"a": "b"},
                    {"who": "operator", "timeout": 2.5, "queue_seconds": None},
                )
            ],
        )
        self.assertEqual(self.store.audited(), [("operator", "command.send", "web-1")])
        self.assertEqual(
            self.store.audit_records[0].details,
            '{"command": "ping", "args": {"a": "b"}, "queue": false}',
        )

    def test_the_outcomes(self) -> None:
        for outcome, status, error in (
            ({"state": "failed", "error": "exit status 3"}, 200, None),
            ({"state": "timeout", "error": "no answer within 30 s"}, 504, "no answer within 30 s"),
            ({"state": "lost", "error": "it left"}, 502, "it left"),
            ({"state": "timeout", "error": None}, 504, "the command has no answer"),
        ):
            with self.subTest(outcome=outcome):
                self.commands.outcome = outcome
                response = self.send()
                self.assertEqual(response.status, status)
                command = response.json if status == 200 else response.json["command"]
                self.assertEqual(command["state"], outcome["state"])
                if error is not None:
                    self.assertEqual(response.json["error"], error)
        for exception, status in (
            (NotConnectedError("gone"), 409),
            (CommandRefusedError("gone"), 400),
            (TooManyCommandsError("gone"), 429),
            (NotRunningError("gone"), 503),
        ):
            self.commands.outcome = exception
            self.assert_error(self.send(), status, "gone")
            if status != 400:
                body = {"agents": ["web-1"], "command": "ping"}
                response = self.ask("POST", "/api/commands", body=body)
                self.assert_error(response, status, "gone")

    def test_an_agent_that_is_away(self) -> None:
        self.world.add("away", here=False)
        path = "/api/agents/away/commands"
        self.assert_error(self.send(path=path), 409, "away is not connected")
        self.assertEqual((self.commands.sent, self.store.audited()), ([], []))
        self.commands.outcome = {"state": "queued", "sent_ms": None, "ended_ms": None}
        response = self.send({**PING, "queue": True, "queueSeconds": 60}, path=path)
        self.assertEqual((response.status, response.json["state"]), (202, "queued"))
        self.assertIsNone(response.json["milliseconds"])
        self.assertEqual(self.commands.sent[-1][3]["queue_seconds"], 60)
        self.send({**PING, "queue": True}, path=path)
        self.assertEqual(self.commands.sent[-1][3]["queue_seconds"], 86_400)

    def test_agents_that_get_none(self) -> None:
        self.world.add("old", here=False, revoked_ms=NOW)
        response = self.send({**PING, "queue": True}, path="/api/agents/old/commands")
        self.assert_error(response, 409, "old was revoked")
        response = self.send(path="/api/agents/nobody/commands")
        self.assert_error(response, 404, "no agent of this id is known")

    def test_bodies_that_are_wrong_name_the_member(self) -> None:
        for body, words in (
            ({}, "command: missing"),
            ({"command": ""}, "command: expected a string of length >= 1"),
            ({"command": 1}, "command: expected a string"),
            ({**PING, "args": {"secret": 5}}, "args: expected a string"),
            ({**PING, "args": []}, "args: expected an object"),
            ({**PING, "timeoutSeconds": 0}, "timeoutSeconds: expected a number > 0.0"),
            ({**PING, "timeoutSeconds": 1e308}, "timeoutSeconds: expected a number <= 3600.0"),
            ({**PING, "timeoutSeconds": "5"}, "timeoutSeconds: expected a number"),
            ({**PING, "queue": 1}, "queue: expected true or false"),
            ({**PING, "sudo": True}, "sudo: not known here"),
            ([], "the body: expected an object"),
            ({"command": "\ud800"}, "a string holds half a surrogate pair"),
            ({**PING, "args": {"\udfff": "x"}}, "a string holds half a surrogate pair"),
        ):
            with self.subTest(body=body):
                self.assert_error(self.send(body), 400, words)
        self.assertEqual(self.commands.sent, [])
        self.assert_error(self.ask("POST", PATH), 415, "Content-Type must be application/json")
        self.commands.outcome = {}
        self.assertEqual(self.send({"command": "\\ud800 as text, and \U0001f600"}).status, 200)

    def test_a_client_that_leaves_does_not_take_its_command_back(self) -> None:
        connection = self.connect()
        self.assertEqual(connection.send(self.text("POST", PATH, body=PING)), [])
        connection.lose()
        self.assertEqual(self.commands.cancelled, 0)
        self.commands.answers[0].callback(record())
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_client_that_stays_gets_the_answer_when_it_comes(self) -> None:
        connection = self.connect()
        connection.send(self.text("POST", PATH, body=PING))
        self.clock.advance(120)
        connection.transport.clear()
        self.commands.answers[0].callback(record())
        (response,) = parse_responses(connection.transport.value())
        self.assertEqual(response.json["result"], "pong")


class ManyTests(APICase):
    def setUp(self) -> None:
        super().setUp()
        self.world.add("web-1")
        self.world.add("web-2")
        self.world.add("away", here=False)
        self.world.add("old", here=False, revoked_ms=NOW)

    def test_all_that_are_here(self) -> None:
        body = {"agents": "online", "command": "ping", "concurrency": 2}
        response = self.ask("POST", "/api/commands", role="operator", body=body)
        self.assertEqual(response.status, 202)
        self.assertEqual(
            response.json,
            {
                "batchId": "batch-1",
                "total": 2,
                "done": 0,
                "failed": 0,
                "waiting": 2,
                "finished": False,
            },
        )
        agents, command, options = self.world.commands.many[0]
        self.assertEqual((agents, command), (["web-1", "web-2"], "ping"))
        self.assertEqual((options["concurrency"], options["queue_seconds"]), (2, None))
        self.assertEqual(self.store.audited(), [("operator", "command.send_many", "ping")])

    def test_those_named_once_each(self) -> None:
        body = {"agents": ["away", "web-1", "away"], "command": "ping", "queue": True}
        response = self.ask("POST", "/api/commands", role="operator", body=body)
        self.assertEqual(response.json["total"], 2)
        self.assertEqual(self.world.commands.many[0][0], ["away", "web-1"])
        self.assertEqual(self.world.commands.many[0][2]["queue_seconds"], 86_400)

    def test_what_is_wrong(self) -> None:
        for agents, words in (
            (["web-1", "nobody"], "agents[1]: no agent is known as nobody"),
            (["old"], "agents[0]: old is revoked"),
            ([], "agents: expected an array of length >= 1"),
            ("all", "agents: not one of the values it may have"),
            (5, "agents: expected a string or an array"),
        ):
            body = {"agents": agents, "command": "ping"}
            response = self.ask("POST", "/api/commands", role="operator", body=body)
            self.assert_error(response, 400, words)
        for agent in self.world.fleet:
            agent.session = None
        body = {"agents": "online", "command": "ping"}
        response = self.ask("POST", "/api/commands", role="operator", body=body)
        self.assert_error(response, 409, "no agent is online")

    def test_progress_from_memory_then_from_the_store(self) -> None:
        self.ask("POST", "/api/commands", body={"agents": "online", "command": "ping"})
        for number, state in enumerate(("done", "failed", "lost", "queued")):
            self.store.put_command(record(command_id=f"c{number}", state=state, batch_id="batch-1"))
        answer = self.get("/api/command-batches/batch-1?commands=true")
        self.assertEqual((answer["total"], len(answer["commands"])), (2, 4))
        self.assertIsNone(answer["next"])
        self.assertNotIn("commands", self.get("/api/command-batches/batch-1"))
        self.world.commands.batches.clear()
        self.assertEqual(
            self.get("/api/command-batches/batch-1"),
            {
                "batchId": "batch-1",
                "total": 4,
                "done": 1,
                "failed": 2,
                "waiting": 1,
                "finished": False,
            },
        )
        response = self.ask("GET", "/api/command-batches/batch-9")
        self.assert_error(response, 404, "no command for many of this id is known")


class RememberedTests(APICase):
    def test_one(self) -> None:
        self.store.put_command(record())
        self.assertEqual(self.get("/api/commands/c1")["result"], "pong")
        response = self.ask("GET", "/api/commands/c2")
        self.assert_error(response, 404, "no command of this id is known")
        self.assertEqual(self.store.flushes, 1)  # it could have been on its way

    def pages(self, path: str, cursor: str) -> list[list[str]]:
        """The ids of each page."""
        found = []
        following: str | None = ""
        while following is not None:
            answer = self.get(path + (f"&{cursor}={following}" if following else ""))
            found.append([command["id"] for command in answer["commands"]])
            following = answer["next"]
        return found

    def test_pages(self) -> None:
        self.world.add("web-1")
        for number in range(5):  # all of one millisecond
            batch = {"batch_id": "b1"} if number else {}
            self.store.put_command(record(command_id=f"c{number}", **batch))
        self.store.put_command(record("web-2", command_id="d"))
        self.assertEqual(
            self.pages(f"{PATH}?limit=2", "before"), [["c4", "c3"], ["c2", "c1"], ["c0"]]
        )
        self.assertEqual(
            self.pages("/api/commands?limit=3", "before"), [["d", "c4", "c3"], ["c2", "c1", "c0"]]
        )
        path = "/api/command-batches/b1?commands=true&limit=3"
        self.assertEqual(self.pages(path, "after"), [["c1", "c2", "c3"], ["c4"]])
        self.assertEqual(self.get(path)["total"], 4)


class FieldTests(APICase):
    """The hub before this one."""

    PATH = "/api/websocket/agents/web-1/command"

    def setUp(self) -> None:
        super().setUp()
        self.world.add("web-1", hostname="h", version="4")
        self.world.add("away", here=False)

    def test_agents_that_are_here(self) -> None:
        self.assertEqual(
            self.get("/api/websocket/agents"),
            {
                "agents": [
                    {
                        "agentId": "web-1",
                        "lastSeen": NOW - 500,
                        "hostname": "h",
                        "version": "4",
                        "connectedAt": NOW - 500,
                    }
                ]
            },
        )

    def test_one_agent(self) -> None:
        for agent_id, connected in (("web-1", True), ("away", False), ("nobody", False)):
            self.assertEqual(
                self.get(f"/api/websocket/agents/{agent_id}"),
                {"agentId": agent_id, "connected": connected},
            )

    def test_a_command_is_not_waited_for(self) -> None:
        body = {"command": "ping", "args": {"a": "b"}, "other": 1}
        response = self.ask("POST", self.PATH, role="operator", body=body)
        self.assertEqual(
            (response.status, response.json),
            (200, {"success": True, "agentId": "web-1", "command": "ping"}),
        )
        self.assertEqual(self.store.audited(), [("operator", "command.send", "web-1")])
        self.world.commands.answers[0].errback(NotConnectedError("later"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_its_refusals(self) -> None:
        for body in ({}, {"command": ""}, {"command": None}, {"args": {}}):
            response = self.ask("POST", self.PATH, body=body)
            self.assert_error(response, 400, "Command is required")
        path = "/api/websocket/agents/away/command"
        response = self.ask("POST", path, body={"command": "ping"})
        self.assert_error(response, 404, "Agent not connected")
        for outcome, status, words in (
            (NotConnectedError("just left"), 404, "Agent not connected"),
            (CommandRefusedError("too long"), 400, "too long"),
        ):
            self.world.commands.outcome = outcome
            response = self.ask("POST", self.PATH, body={"command": "ping"})
            self.assert_error(response, status, words)

    def test_a_fault_of_ours_is_in_the_log(self) -> None:
        self.ask("POST", self.PATH, body={"command": "ping"})
        self.world.commands.answers[0].errback(StoreError("full"))
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)
