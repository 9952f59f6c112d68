"""How the hub is, for people and for Prometheus; its audit trail and its backups."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred

from jetcamer.hub.api.prometheus import Exposition
from jetcamer.hub.store.interface import StoreError, StoreHealth
from jetcamer.protocol.envelope import MetricsPayload
from tests.hub.api.world import NOW, APICase, World
from tests.support.raw_http import Response, parse_responses


class StatusTests(APICase):
    def test_open_to_all(self) -> None:
        response = self.ask("GET", "/healthz", role=None)
        self.assertEqual((response.status, response.body), (200, b"ok"))
        response = self.ask("GET", "/readyz", role=None)
        self.assertEqual((response.status, response.json), (200, {"ready": True}))
        # What a balancer adds is none of our business.
        for path in ("/healthz?probe=1", "/readyz?a=1&a=2&%ff"):
            self.assertEqual(self.ask("GET", path, role=None).status, 200)
        self.world.status.why_not = "draining"
        response = self.ask("GET", "/readyz", role=None)
        self.assertEqual(
            (response.status, response.json), (503, {"ready": False, "why": "draining"})
        )

    def test_status(self) -> None:
        self.world.status.why_not = "the store fails: full"
        self.world.offenders.banned["192.0.2.9"] = (12.0, 1)
        self.store.state = StoreHealth(ok=False, words="full", lag=1.5, waiting=9, lost=2, size=7)
        self.assertEqual(
            self.get("/api/status"),
            {
                "version": "5.0.0",
                "startedAt": NOW - 60_000,
                "ready": False,
                "why": "the store fails: full",
                "draining": False,
                "connections": 7,
                "agentsOnline": 2,
                "agentsKnown": 3,
                "messages": 42,
                "refusals": {"invalid_signature": 5},
                "bannedAddresses": 1,
                "store": {
                    "ok": False,
                    "words": "full",
                    "lagSeconds": 1.5,
                    "waiting": 9,
                    "lost": 2,
                    "size": 7,
                },
                "reactorLagSeconds": 0.004,
            },
        )

    def test_foreign_pages_and_names(self) -> None:
        for headers in (("Origin: https://evil.example",), ("Sec-Fetch-Site: cross-site",)):
            self.assertEqual(self.ask("GET", "/api/status", *headers).status, 403)
        text = self.text("GET", "/api/status").replace(b"hub.example", b"evil.example")
        (response,) = self.connect().send(text)
        words = (
            "this Host is not served here: apiNames in the configuration lists the names that are"
        )
        self.assert_error(response, 403, words)


class BanTests(APICase):
    def test_seen_and_lifted(self) -> None:
        self.assertEqual(self.get("/api/bans"), {"bans": []})
        banned = self.world.offenders.banned
        banned["192.0.2.9"] = (12.04, 1)
        banned["2001:db8::"] = (240.0, 3)
        self.assertEqual(
            self.get("/api/bans")["bans"],
            [
                {"address": "2001:db8::", "secondsLeft": 240.0, "offences": 3},
                {"address": "192.0.2.9", "secondsLeft": 12.0, "offences": 1},
            ],
        )
        path = "/api/bans/2001:db8::"
        self.assertEqual(self.ask("DELETE", path, role="viewer").status, 403)
        self.assertEqual([*banned], ["192.0.2.9", "2001:db8::"])
        response = self.ask("DELETE", path, role="operator")
        self.assertEqual(
            (response.status, response.json), (200, {"address": "2001:db8::", "lifted": True})
        )
        self.assertEqual([*banned], ["192.0.2.9"])
        self.assertEqual(self.store.audited(), [("operator", "ban.lift", "2001:db8::")])
        for address in ("2001:db8::", "nonsense"):
            response = self.ask("DELETE", f"/api/bans/{address}", role="operator")
            self.assert_error(response, 404, "this address is not banned")
        self.assertEqual(len(self.store.audited()), 1)


class AuditTests(APICase):
    def test_the_trail(self) -> None:
        for number in range(3):
            self.store.audit("ann", "agent.add", f"web-{number}", {"n": number})
        answer = self.get("/api/audit?limit=2", role="admin")
        self.assertEqual([entry["subject"] for entry in answer["entries"]], ["web-2", "web-1"])
        self.assertEqual(answer["next"], 2)
        entry = answer["entries"][1]
        self.assertEqual((entry["who"], entry["details"]), ("ann", {"n": 1}))
        self.assertEqual(entry["previous"], self.store.audit_records[0].hash)
        answer = self.get("/api/audit?limit=2&before=2", role="admin")
        self.assertEqual((len(answer["entries"]), answer["next"]), (1, None))

    def test_an_entry_that_was_changed_breaks_no_answer(self) -> None:
        self.store.audit("ann", "agent.add", "web-1", {"a": 1})
        (entry,) = self.store.audit_records
        for changed in ('{"a": "\\xff"}', "nonsense", "[" * 100_000, "\udcff"):
            self.store.audit_records[0] = replace(entry, details=changed)
            (found,) = self.ask("GET", "/api/audit").json["entries"]
            self.assertIsInstance(found["details"], str)

    def test_verifying(self) -> None:
        self.store.audit("ann", "x", "y", {})
        self.assertEqual(
            self.get("/api/audit/verify", role="admin"), {"verified": 1, "firstWrong": None}
        )


class BackupTests(APICase):
    def test_into_a_folder_of_its_own(self) -> None:
        folder = os.path.join(self.mktemp(), "backups")
        object.__setattr__(self.world.parts, "backup_dir", folder)
        answers = [self.ask("POST", "/api/backup") for _ in range(2)]
        self.assertEqual([response.status for response in answers], [200, 200])
        paths = [response.json["path"] for response in answers]
        self.assertEqual(len({*paths}), 2)
        self.assertRegex(
            os.path.relpath(paths[0], folder), r"\Ahub-20241117T045702Z-[0-9a-f]{4}\.sqlite3\Z"
        )
        self.assertEqual(answers[0].json["size"], 12_345)
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
        self.assertEqual(
            self.store.audited()[0], ("admin", "backup", os.path.relpath(paths[0], folder))
        )

    def test_what_can_go_wrong(self) -> None:
        with open(self.mktemp(), "w") as file:
            object.__setattr__(self.world.parts, "backup_dir", file.name + "/backups")
        response = self.ask("POST", "/api/backup")
        self.assertEqual(response.status, 503)
        self.assertIn("Not a directory", response.error)
        object.__setattr__(self.world.parts, "backup_dir", self.mktemp())
        self.store.failing = StoreError("no space left")
        self.assertEqual(self.ask("POST", "/api/backup").status, 503)
        self.assertEqual(self.store.audited(), [])


class MetricsTests(APICase):
    def scrape(self) -> Response:
        connection = self.connect()
        connection.protocol.dataReceived(self.text("GET", "/metrics", role="viewer"))
        while not connection.transport.value():
            self.clock.advance(0)
        (response,) = parse_responses(connection.transport.value())
        return response

    def families(self) -> dict[str, Any]:
        text = self.scrape().body.decode()
        families = [*text_string_to_metric_families(text)]
        self.assertEqual(len(families), len({family.name for family in families}))
        return {family.name: family for family in families}

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(sample.labels.values()): sample.value for sample in self.families()[name].samples
        }

    def test_the_hub(self) -> None:
        self.world.add("web-1")
        self.world.add("db-1", here=False)
        self.world.add("old", here=False, revoked_ms=NOW)
        response = self.scrape()
        self.assertEqual(response.status, 200)
        self.assertEqual(
            response.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8"
        )
        states = self.samples("jetcamer_agents")
        self.assertEqual(
            {state: count for (state,), count in states.items() if count},
            {"online": 1, "never_seen": 1, "revoked": 1},
        )
        self.assertEqual(len(states), 7)
        self.assertEqual(self.samples("jetcamer_messages"), {("auth",): 2.0, ("metrics",): 40.0})
        self.assertEqual(self.samples("jetcamer_refusals"), {("invalid_signature",): 5.0})
        self.assertEqual(self.samples("jetcamer_handshakes"), {(): 9.0})
        self.assertEqual(self.samples("jetcamer_handshakes_refused"), {("429",): 2.0})
        self.assertEqual(self.samples("jetcamer_commands"), {("done",): 4.0, ("timeout",): 1.0})
        for name, value in (
            ("connections", 7),
            ("ready", 1),
            ("reactor_lag_seconds", 0.004),
            ("store_up", 1),
            ("store_lag_seconds", 0.25),
            ("store_waiting", 3),
            ("store_lost", 1),
            ("store_size_bytes", 4096),
            ("start_time_seconds", NOW / 1000 - 60),
        ):
            self.assertEqual(self.samples("jetcamer_" + name), {(): value}, name)
        self.assertIn("process_resident_memory_bytes", self.families())

    def test_agents(self) -> None:
        agent = self.world.add('web "1"\\\n')
        agent.metrics = MetricsPayload(12.5, None, 60.0)
        self.world.add("db-1", here=False)
        self.world.add("old", here=False, revoked_ms=NOW)
        name = 'web "1"\\\n'
        self.assertEqual(self.samples("jetcamer_agent_up"), {(name,): 1.0, ("db-1",): 0.0})
        self.assertEqual(self.samples("jetcamer_agent_cpu_ratio"), {(name,): 0.125})
        self.assertEqual(self.samples("jetcamer_agent_memory_ratio"), {})
        self.assertEqual(self.samples("jetcamer_agent_disk_ratio"), {(name,): 0.6})
        self.assertEqual(
            self.samples("jetcamer_agent_last_seen_timestamp_seconds"),
            {(name,): (NOW - 500) / 1000},
        )
        self.assertEqual(self.samples("jetcamer_agents_without_series"), {(): 0.0})

    def test_their_number_is_bounded(self) -> None:
        for number in range(250):
            self.world.add(f"web-{number}")
        self.assertEqual(len(self.samples("jetcamer_agent_up")), 250)
        heads = re.findall("# TYPE (\\S+)", self.scrape().body.decode())
        self.assertEqual(len(heads), len({*heads}))
        handler = next(o for o in self.world.api.operations if o.path == "/metrics").handler
        handler.__self__._exposition = Exposition(self.world.parts, max_agents=101)
        self.assertEqual(len(self.samples("jetcamer_agent_up")), 101)
        self.assertEqual(self.samples("jetcamer_agents_without_series"), {(): 149.0})

    def test_others_get_their_turn_meanwhile(self) -> None:
        for number in range(250):
            self.world.add(f"web-{number}")
        turns: list[float] = []
        later = self.clock.callLater

        def count(delay: float, *call: Any, **more: Any) -> Any:
            turns.append(delay)
            return later(delay, *call, **more)

        connection = self.connect()
        self.patch(self.clock, "callLater", count)
        connection.protocol.dataReceived(self.text("GET", "/metrics"))
        self.clock.advance(0)
        self.assertTrue(connection.transport.value())
        self.assertEqual(turns.count(0), 15)  # five families of three parts

    def test_durations(self) -> None:
        self.world.add("web-1")
        self.world.api.exposition.command_answered(0.3)
        self.ask("GET", "/api/agents/web-1")
        self.ask("GET", "/api/agents/nobody")
        self.ask("GET", "/api/nothing")
        self.store.pending = Deferred()
        connection = self.connect()
        connection.send(self.text("GET", "/api/agents/web-1/logs"))
        connection.lose()
        families = self.families()
        requests = {
            tuple(sample.labels.values()): sample.value
            for sample in families["jetcamer_api_requests"].samples
            if sample.name.endswith("_total")
        }
        self.assertEqual(
            requests,
            {
                ("GET", "/api/agents/{id}", "200"): 1.0,
                ("GET", "/api/agents/{id}", "404"): 1.0,
                ("GET", "/api/agents/{id}/logs", "499"): 1.0,
            },
        )
        buckets = {
            sample.labels["le"]: sample.value
            for sample in families["jetcamer_command_duration_seconds"].samples
            if sample.name.endswith("_bucket")
        }
        self.assertEqual((buckets["0.25"], buckets["0.5"], buckets["+Inf"]), (0.0, 1.0, 1.0))

    def test_names_as_promtool_wants_them(self) -> None:
        """The rules of ``promtool check metrics`` that names can break."""
        self.get("/api/status")
        for line in self.scrape().body.decode().splitlines():
            if not line.startswith("# TYPE jetcamer_"):
                continue
            _, _, name, kind = line.split()
            self.assertRegex(name, r"\A[a-z][a-z0-9_]*\Z")
            self.assertEqual(name.endswith("_total"), kind == "counter", line)
            self.assertFalse(re.search(r"_(count|sum|bucket)\Z", name), line)
            self.assertFalse(
                re.search(
                    r"(^|_)(gauge|counter|histogram|summary|percent|ms|milliseconds)(_|$)", name
                )
            )
        self.assertNotIn("# HELP jetcamer_agents \n", self.scrape().body.decode())

    def test_a_client_that_leaves_ends_the_work(self) -> None:
        self.world.add("web-1")
        connection = self.connect()
        connection.protocol.dataReceived(self.text("GET", "/metrics"))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_two_hubs_in_one_process(self) -> None:
        """The registry is the exposition's own."""
        World()
        World()
