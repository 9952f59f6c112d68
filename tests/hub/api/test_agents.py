"""Agents, and what is remembered of each."""

from __future__ import annotations

import json

from jetcamer.hub.records import (
    LogRecord,
    MetricsPoint,
    MetricsSeries,
    Reading,
    RefusalRecord,
    SessionRecord,
)
from jetcamer.hub.store.interface import Page, StoreError
from jetcamer.protocol.envelope import MetricsPayload
from tests.hub.api.world import NOW, APICase


def refusal(number: int, **members: object) -> RefusalRecord:
    values = {
        "ts_ms": NOW + number,
        "agent_id": "web-1",
        "address": "192.0.2.9",
        "reason": "invalid_signature",
        "words": "no key fits",
        "refusal_id": number,
        **members,
    }
    return RefusalRecord(**values)


class AgentsTests(APICase):
    def setUp(self) -> None:
        super().setUp()
        agent = self.world.add("web-1", hostname="Alpha.example", version="5.0.0")
        agent.metrics = MetricsPayload(12.5, None, 60.25)
        agent.metrics_ms = NOW - 100
        self.world.add("db-1", here=False)
        self.world.add("web-2", here=False, revoked_ms=NOW - 10)

    def ids(self, query: str = "") -> tuple[list[str], str | None]:
        answer = self.get("/api/agents" + query)
        return [agent["agentId"] for agent in answer["agents"]], answer["next"]

    def test_by_id_with_all_that_is_known(self) -> None:
        answer = self.get("/api/agents")
        self.assertEqual(self.ids()[0], ["db-1", "web-1", "web-2"])
        self.assertEqual(
            answer["agents"][1],
            {
                "agentId": "web-1",
                "state": "online",
                "words": "online",
                "hostname": "Alpha.example",
                "version": "5.0.0",
                "capabilities": [],
                "address": "",
                "connectedAt": NOW - 500,
                "lastSeen": NOW - 500,
                "clockSkewMs": None,
                "legacy": False,
                "createdAt": NOW - 1000,
                "oldSecretUntil": None,
                "oldSecretUsed": None,
                "metrics": {
                    "cpuPercent": 12.5,
                    "memPercent": None,
                    "diskUsage": 60.25,
                    "ts": NOW - 100,
                },
            },
        )
        self.assertIsNone(answer["agents"][0]["metrics"])
        self.assertNotIn("secret", json.dumps(answer))

    def test_filters(self) -> None:
        self.assertEqual(self.ids("?state=revoked"), (["web-2"], None))
        self.assertEqual(self.ids("?search=WEB"), (["web-1", "web-2"], None))
        self.assertEqual(self.ids("?search=alpha"), (["web-1"], None))
        self.assertEqual(self.ids("?search=web&state=online"), (["web-1"], None))
        self.assertEqual(self.ids("?search=%C3%A9"), ([], None))

    def test_pages(self) -> None:
        self.assertEqual(self.ids("?limit=2"), (["db-1", "web-1"], "web-1"))
        self.assertEqual(self.ids("?limit=2&after=web-1"), (["web-2"], None))
        self.assertEqual(self.ids("?limit=3"), (["db-1", "web-1", "web-2"], None))

    def test_queries_that_are_wrong_name_the_parameter(self) -> None:
        for query, words in (
            ("limit=0", "limit: expected a whole number >= 1"),
            ("limit=1001", "limit: expected a whole number <= 1000"),
            ("limit=ten", "limit: expected a whole number"),
            ("limit=", "limit: expected a whole number"),
            ("limit=1&limit=2", "limit: given more than once"),
            ("limit=null", "limit: expected a whole number"),
            ("state=null", "state: null is not a value of it"),
            ("state=gone", "state: not one of the values it may have"),
            ("Limit=5", "Limit: not known here"),
            ("%0a=5", "a name: not known here"),
            ("search=%ff", "the query is not UTF-8"),
            ("search=" + "x" * 1025, "search: expected a string of length <= 1024"),
        ):
            with self.subTest(query=query[:30]):
                self.assert_error(self.ask("GET", "/api/agents?" + query), 400, words)

    def test_one(self) -> None:
        agent = self.world.fleet.get("web-1")
        agent.last_refusal = refusal(1)
        agent.skew_ms = 412_000
        self.world.commands.waiting["web-1"] = 3
        answer = self.get("/api/agents/web-1")
        self.assertEqual(answer["queuedCommands"], 3)
        self.assertEqual(answer["clockSkewMs"], 412_000)
        self.assertEqual(
            answer["lastRefusal"],
            {
                "ts": NOW + 1,
                "agentId": "web-1",
                "address": "192.0.2.9",
                "reason": "invalid_signature",
                "words": "no key fits",
            },
        )

    def test_ids_of_all_characters(self) -> None:
        self.world.add("käse +%?#&")
        self.assertEqual(self.get("/api/agents/k%C3%A4se%20+%25%3F%23%26")["agentId"], "käse +%?#&")

    def test_unknown(self) -> None:
        for path in ("", "/metrics", "/logs", "/sessions", "/refusals", "/commands"):
            response = self.ask("GET", f"/api/agents/nobody{path}")
            self.assert_error(response, 404, "no agent of this id is known")
        for path in ("/api/agents/", "/api/agents//logs", "/api/agents/a%2Fb/c/d"):
            self.assertEqual(self.ask("GET", path).status, 404)
        self.assert_error(self.ask("GET", "/api/agents/%ff"), 400, "the path is not UTF-8")


class HistoryTests(APICase):
    def setUp(self) -> None:
        super().setUp()
        self.world.add("web-1")

    def test_metrics_of_the_last_hour_where_nothing_is_said(self) -> None:
        reading = Reading(1.0, 0.5, 2.0)
        point = MetricsPoint(ts=NOW - 60_000, count=12, cpu_percent=reading)
        self.store.series = MetricsSeries(resolution="1m", step_ms=60_000, points=(point,))
        answer = self.get("/api/agents/web-1/metrics")
        self.assertEqual(
            answer,
            {
                "agentId": "web-1",
                "resolution": "1m",
                "stepMs": 60_000,
                "from": NOW - 3_600_000,
                "to": NOW,
                "points": [
                    {
                        "ts": NOW - 60_000,
                        "count": 12,
                        "cpuPercent": {"avg": 1.0, "min": 0.5, "max": 2.0},
                        "memPercent": None,
                        "diskUsage": None,
                    }
                ],
            },
        )
        self.assertEqual(self.store.asked[-1][1]["points"], 300)
        self.get("/api/agents/web-1/metrics?from=5&to=10&points=5000")
        self.assertEqual(
            self.store.asked[-1][1], {"agent": "web-1", "from": 5, "to": 10, "points": 5000}
        )

    def test_metrics_of_no_time_at_all(self) -> None:
        for query in ("from=10&to=10", f"from={NOW}", "to=0"):
            response = self.ask("GET", f"/api/agents/web-1/metrics?{query}")
            self.assert_error(response, 400, "from: must be before to")
        response = self.ask("GET", f"/api/agents/web-1/metrics?from={1 << 70}")
        self.assertEqual(response.status, 400)

    def test_logs(self) -> None:
        for number in range(1, 4):
            self.store.log_records.append(
                LogRecord(
                    log_id=number,
                    agent_id="web-1",
                    ts=NOW + number,
                    received_ms=NOW,
                    level="error",
                    message="mäßig",
                    event='{"status": 500}' if number == 3 else None,
                )
            )
        answer = self.get("/api/agents/web-1/logs?limit=2")
        self.assertEqual([log["id"] for log in answer["logs"]], [3, 2])
        self.assertEqual(answer["next"], 2)
        self.assertEqual(
            answer["logs"][0],
            {
                "id": 3,
                "ts": NOW + 3,
                "receivedAt": NOW,
                "level": "error",
                "message": "mäßig",
                "source": None,
                "event": {"status": 500},
            },
        )
        answer = self.get("/api/agents/web-1/logs?limit=2&before=2")
        self.assertEqual(([log["id"] for log in answer["logs"]], answer["next"]), ([1], None))
        self.get("/api/agents/web-1/logs?level=error,warn&source=a.log&contains=x+y&from=1&to=2")
        self.assertEqual(
            self.store.asked[-1][1],
            {
                "from_ms": 1,
                "to_ms": 2,
                "levels": ("error", "warn"),
                "source": "a.log",
                "contains": "x y",
                "limit": 100,
                "before": None,
            },
        )
        response = self.ask("GET", "/api/agents/web-1/logs?from=2&to=1")
        self.assert_error(response, 400, "from: must be before to")

    def test_a_search_that_is_not_at_its_end_says_so(self) -> None:
        self.store.ended_early = Page([], 17)
        answer = self.get("/api/agents/web-1/logs?contains=needle")
        self.assertEqual(answer, {"logs": [], "next": 17})

    def test_sessions(self) -> None:
        self.store.session_records.append(
            SessionRecord(
                session_id=1,
                agent_id="web-1",
                peer="192.0.2.1:5",
                hostname="h",
                version="5",
                started_ms=NOW,
                ended_ms=NOW + 5,
                ending="connection lost",
                messages=7,
            )
        )
        self.assertEqual(
            self.get("/api/agents/web-1/sessions"),
            {
                "sessions": [
                    {
                        "id": 1,
                        "peer": "192.0.2.1:5",
                        "hostname": "h",
                        "version": "5",
                        "startedAt": NOW,
                        "endedAt": NOW + 5,
                        "ending": "connection lost",
                        "messages": 7,
                        "refused": 0,
                    }
                ],
                "next": None,
            },
        )

    def test_a_session_that_is_open_has_the_counts_so_far(self) -> None:
        for session_id in (1, 2):
            self.store.session_records.append(
                SessionRecord(
                    session_id=session_id,
                    agent_id="web-1",
                    peer="192.0.2.1:5",
                    hostname="h",
                    version="5",
                    started_ms=NOW,
                )
            )
        here = self.world.fleet.get("web-1").session
        here.record_id, here.verified, here.refused = 2, 17, 3
        found = {
            session["id"]: (session["messages"], session["refused"])
            for session in self.get("/api/agents/web-1/sessions")["sessions"]
        }
        # The other one is open for the store alone.
        self.assertEqual(found, {1: (0, 0), 2: (17, 3)})

    def test_a_store_that_fails(self) -> None:
        self.store.failing = StoreError("disk I/O error")
        response = self.ask("GET", "/api/agents/web-1/logs")
        self.assert_error(response, 503, "the store cannot do this now: disk I/O error")


class RefusalTests(APICase):
    def times(self, path: str) -> list[int]:
        return [refusal["ts"] - NOW for refusal in self.get(path)["refusals"]]

    def test_of_an_agent_and_of_an_address(self) -> None:
        self.world.add("web-1")
        self.store.refusal_records += [
            refusal(1),
            refusal(2, address="192.0.2.8"),
            refusal(3, agent_id=None),
        ]
        self.assertEqual(self.times("/api/agents/web-1/refusals"), [2, 1])
        self.assertEqual(self.times("/api/refusals"), [3, 2, 1])
        self.assertEqual(self.times("/api/refusals?address=192.0.2.9"), [3, 1])
        self.assertEqual(self.times("/api/refusals?address=192.0.2.9&agentId=web-1"), [1])
        self.assertEqual(self.get("/api/refusals?limit=1")["next"], 3)
        self.assertEqual(self.times("/api/refusals?limit=1&before=3"), [2])

    def test_memory_answers_where_the_store_has_nothing_or_fails(self) -> None:
        for number in range(1, 4):
            self.world.refusals.add(refusal(number, refusal_id=0, agent_id="stranger"))
        self.assertEqual(self.times("/api/agents/stranger/refusals"), [3, 2, 1])
        self.assertEqual(self.times("/api/refusals?address=192.0.2.9&limit=2"), [3, 2])
        self.assertEqual(self.times("/api/refusals?agentId=stranger&address=192.0.2.1"), [])
        self.store.failing = StoreError("full")
        self.assertEqual(self.times("/api/refusals?agentId=stranger"), [3, 2, 1])
        self.assertEqual(self.times("/api/refusals?limit=2"), [3, 2])
        self.assertEqual(self.ask("GET", "/api/refusals?agentId=stranger&before=9").status, 503)
        self.assertEqual(self.ask("GET", "/api/refusals?agentId=nobody").status, 503)

    def test_what_cannot_be_written_is_in_the_answer_all_the_same(self) -> None:
        for number in range(1, 4):
            self.store.refusal_records.append(refusal(number, refusal_id=10 + number))
            self.world.refusals.add(refusal(number, refusal_id=0))
        for number in range(4, 7):
            self.world.refusals.add(refusal(number, refusal_id=0))
        for query in ("", "?agentId=web-1", "?address=192.0.2.9"):
            self.assertEqual(self.times(f"/api/refusals{query}"), [6, 5, 4, 3, 2, 1])
        for limit, following in ((2, 14), (3, 14), (4, 13), (5, 12), (6, None)):
            path = f"/api/refusals?limit={limit}"
            answer = self.get(path)
            self.assertEqual((len(answer["refusals"]), answer["next"]), (limit, following))
        self.assertEqual(self.times("/api/refusals?before=13"), [2, 1])
