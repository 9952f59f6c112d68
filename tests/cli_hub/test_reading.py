"""`jetcamer hub`: what is looked at. Each command as a table and as JSON."""

from __future__ import annotations

import re
from typing import Any

from jetcamer.cli.hub import output
from tests.cli_hub.answers import (
    EVIL,
    EVIL_SHOWN,
    MINUTE,
    NOW,
    STATUS,
    agent,
    command,
    log,
    points,
    refusal,
    session,
)
from tests.cli_hub.fake_hub import TOKEN, ShellCase


class AgentsTests(ShellCase):
    def test_table(self) -> None:
        self.hub.answer(
            "GET",
            "/api/agents",
            {
                "agents": [
                    agent(),
                    agent("db-01", state="clock_wrong", metrics=None, lastSeen=None, legacy=True),
                ],
                "next": None,
            },
        )
        head, first, second = self.rows("agents", "--state", "online", "--search", "b")
        self.assertEqual(
            head, ["AGENT", "STATE", "HOST", "VERSION", "ADDRESS", "CPU", "MEM", "DISK", "SEEN"]
        )
        self.assertEqual(
            first,
            [
                "web-01",
                "online",
                "host-of-web-01",
                "5.0.0",
                "192.0.2.7",
                "12.5%",
                "80.0%",
                "95.0%",
                "3 min ago",
            ],
        )
        self.assertEqual(
            second,
            [
                "db-01",
                "clock wrong (legacy)",
                "host-of-db-01",
                "5.0.0",
                "192.0.2.7",
                "-",
                "-",
                "-",
                "-",
            ],
        )
        (request,) = self.hub.requests
        self.assertEqual(request.query, {"state": "online", "search": "b", "limit": "1000"})
        self.assertEqual(request.headers["Authorization"], f"Bearer {TOKEN}")

    def test_pages(self) -> None:
        """Every page, over one connection; a cursor that stands still ends it."""
        for first, position in (("a", "1"), ("b", "2"), ("c", "2")):
            self.hub.answer("GET", "/api/agents", {"agents": [agent(first)], "next": position})
        listed = self.json("agents")
        self.assertEqual([each["agentId"] for each in listed["agents"]], ["a", "b", "c"])
        self.assertEqual(
            [request.query.get("after") for request in self.hub.requests], [None, "1", "2"]
        )
        self.assertEqual(self.hub.connections, 1)

    def test_none(self) -> None:
        self.hub.answer("GET", "/api/agents", {"agents": [], "next": None})
        self.assertEqual(self.shell("agents"), 0)
        self.assertEqual((self.out, self.err), ("", "no agents\n"))

    def test_what_peers_say(self) -> None:
        """No markup, no escape sequence, no line of its own, however it is written."""
        evil = agent(EVIL, hostname=EVIL, version=EVIL, address=EVIL, words=EVIL, state=EVIL)
        self.hub.answer("GET", "/api/agents", {"agents": [evil], "next": None})
        self.hub.answer("GET", "/api/agents/x", evil)
        for words, times in ((("agents",), 5), (("top", "--once"), 2), (("show", "x"), 5)):
            for tty in (False, True):
                self.assertEqual(self.shell(*words, tty=tty, columns=500, NO_COLOR="1"), 0)
                self.assertGreaterEqual(self.out.count(EVIL_SHOWN), times)
                self.assertNotRegex(self.out, "[\x1b\u202e]")
        self.assertEqual(self.json("agents")["agents"], [evil])
        self.assertTrue(self.out.isascii())
        self.assertNotIn("\x1b", self.out)

    def test_terminals(self) -> None:
        """Colour where it is wanted; on a narrow terminal no line is wider, and nothing is cut."""
        self.hub.answer("GET", "/api/agents", {"agents": [agent("web-0123456789")], "next": None})
        self.shell("agents", tty=True, columns=200)
        self.assertIn("\x1b[32monline", self.out)
        self.shell("agents", tty=True, columns=200, NO_COLOR="1")
        self.assertNotIn("\x1b", self.out)
        for columns in (30, 40, 60, 100):
            self.shell("agents", tty=True, columns=columns, NO_COLOR="1")
            self.assertLessEqual(max(map(len, self.out.splitlines())), columns)
            for words in ("web-0123456789", "host-of-web-0123456789", "192.0.2.7", "3 min ago"):
                self.assertIn(words.replace(" ", ""), re.sub(r"\s", "", self.out))
        self.shell("agents", encoding="ascii")
        self.assertTrue(self.out.isascii())

    def test_wide_in_a_pipe(self) -> None:
        self.hub.answer("GET", "/api/agents", {"agents": [agent("x" * 300)], "next": None})
        self.shell("agents")
        self.assertEqual(len(self.out.splitlines()), 2)
        self.assertIn("x" * 300, self.out)

    def test_without_rich(self) -> None:
        """A table says what to install, before anything is asked; JSON and lines need nothing."""
        self.patch(output, "_has_rich", lambda: False)
        for words in (
            ("agents",),
            ("sessions", "x"),
            ("commands", "x"),
            ("refusals",),
            ("top",),
            ("audit",),
            ("access", "list"),
            ("token", "list"),
            ("send", "--all", "ping"),
            ("metrics", "x", "--table"),
        ):
            self.assertEqual(self.shell(*words), 1)
            self.assertIn("pip install 'jetcamer[hub]'", self.one_line())
        self.assertEqual(self.hub.requests, [])
        self.hub.answer("GET", "/api/agents", {"agents": [], "next": None})
        self.hub.answer("GET", "/api/agents/x", agent("x"))
        self.json("agents")
        self.assertEqual(self.shell("show", "x"), 0)


class ShowTests(ShellCase):
    def test_fields(self) -> None:
        self.hub.answer(
            "GET",
            "/api/agents/a%2Fb%20c",
            agent(
                "a/b c",
                state="refused",
                words="its last message was refused",
                clockSkewMs=-412_000,
                legacy=True,
                queuedCommands=2,
                lastRefusal=refusal(),
            ),
        )
        rows = {row[0]: row[1:] for row in self.rows("show", "a/b c")}
        self.assertEqual(rows["agent"], ["a/b c"])
        self.assertEqual(rows["state"], ["refused (legacy): its last message was refused"])
        self.assertRegex(rows["last seen"][0], r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(3 min ago\)$")
        self.assertEqual(rows["clock"], ["412 s slow"])
        self.assertEqual(rows["queued"], ["2 commands"])
        self.assertEqual(rows["refused"], ["invalid_signature, 5 min ago: signed with another key"])
        self.assertEqual(rows["cpu"], ["12.5%", "██░░░░░░░░░░░░░░░░░░"])

    def test_never_seen(self) -> None:
        nothing = dict.fromkeys(("connectedAt", "lastSeen", "metrics", "clockSkewMs"))
        self.hub.answer("GET", "/api/agents/x", agent(state="never_seen", hostname="", **nothing))
        rows = {row[0]: row[1:] for row in self.rows("show", "x")}
        self.assertEqual((rows["host"], rows["last seen"]), (["-"], ["-"]))

    def test_json(self) -> None:
        self.hub.answer("GET", "/api/agents/x", agent("x", queuedCommands=0, lastRefusal=None))
        self.assertEqual(self.json("show", "x")["lastSeen"], NOW - 3 * MINUTE)

    def test_unknown(self) -> None:
        self.hub.answer("GET", "/api/agents/x", {"error": "no agent is called x"}, 404)
        self.assertEqual(self.shell("show", "x"), 1)
        self.assertEqual(self.one_line(), "jetcamer hub show: no agent is called x")
        self.assertEqual(self.out, "")


class ListTests(ShellCase):
    def test_sessions(self) -> None:
        self.hub.answer(
            "GET",
            "/api/agents/web-01/sessions",
            {"sessions": [session(endedAt=None, ending=None), session(refused=3)], "next": 7},
        )
        _, first, second = self.rows("sessions", "web-01", "-n", "2")
        self.assertEqual(first[1:], ["60 min", "192.0.2.7:40000", "5.0.0", "-", "-", "still open"])
        self.assertEqual(
            second[1:],
            ["5 min", "192.0.2.7:40000", "5.0.0", "120", "3", "closed by the agent: 1000"],
        )
        self.assertEqual(self.hub.requests[0].query, {"limit": "2"})
        self.assertEqual(self.json("sessions", "web-01", "-n1")["next"], 7)

    def test_commands(self) -> None:
        failed = command("c2", state="failed", args={"name": "nginx"}, error="no such service")
        self.hub.answer(
            "GET", "/api/agents/web-01/commands", {"commands": [failed, command()], "next": None}
        )
        _, first, second = self.rows("commands", "web-01")
        self.assertEqual(
            first[1:],
            ["web-01", "ping name=nginx", "failed", "12 ms", "alice", "no such service", "c2"],
        )
        self.assertEqual(second[3:], ["done", "12 ms", "alice", "pong", "c1"])
        self.assertEqual(len(self.json("commands", "web-01")["commands"]), 2)

    def test_commands_of_all(self) -> None:
        """The newest of the fleet, whoever's they are."""
        agents = {"agents": [agent("a"), agent("b")], "next": None}
        self.hub.answer("GET", "/api/agents", agents)
        for name, times in (("a", (9, 5)), ("b", (7, 6))):
            rows = [command(f"{name}{ts}", createdAt=ts) for ts in times]
            self.hub.answer("GET", f"/api/agents/{name}/commands", {"commands": rows, "next": None})
        found = self.json("commands", "-n", "3")["commands"]
        self.assertEqual([each["id"] for each in found], ["a9", "b7", "b6"])

    def test_one_command(self) -> None:
        details = {"checks": [{"name": "disk", "status": "ok"}], "free": {"root": 5}}
        self.hub.answer("GET", "/api/commands/c1", command(details=details))
        rows = {row[0]: row[1:] for row in self.rows("commands", "--command", "c1")}
        self.assertEqual((rows["command"], rows["answer"]), (["ping"], ["pong"]))
        self.assertIn("    name=disk, status=ok\n", self.out)
        self.assertIn("    root: 5\n", self.out)
        self.assertEqual(self.json("commands", "--command", "c1")["details"], details)

    def test_batch(self) -> None:
        batch = {"batchId": "b1", "total": 1, "finished": True, "commands": [command()]}
        self.hub.answer("GET", "/api/command-batches/b1", batch)
        self.assertEqual(self.rows("commands", "--batch", "b1")[1][1], "web-01")
        self.assertEqual(self.hub.requests[0].query, {"commands": "true"})
        self.assertEqual(self.json("commands", "--batch", "b1"), batch)
        self.assertEqual(self.shell("commands", "web-01", "--batch", "b1"), 2)

    def test_refusals(self) -> None:
        rows = {"refusals": [refusal(), refusal(agentId=None)], "next": None}
        self.hub.answer("GET", "/api/refusals", rows)
        _, first, second = self.rows("refusals", "web-01", "--address", "192.0.2.9")
        self.assertEqual(
            first[1:],
            ["5 min ago", "web-01", "192.0.2.9", "invalid_signature", "signed with another key"],
        )
        self.assertEqual(second[2], "-")
        self.assertEqual(
            self.hub.requests[0].query,
            {"agentId": "web-01", "address": "192.0.2.9", "limit": "50"},
        )
        self.assertEqual(self.json("refusals"), rows)

    def test_limits(self) -> None:
        """So many rows as asked for, of as many pages as that takes."""
        for begin in (0, 100):
            rows = [refusal(words=str(number)) for number in range(begin, begin + 100)]
            self.hub.answer("GET", "/api/refusals", {"refusals": rows, "next": begin + 100})
        listed = self.json("refusals", "-n", "150")
        self.assertEqual(len(listed["refusals"]), 150)
        self.assertEqual(
            [request.query for request in self.hub.requests],
            [{"limit": "100"}, {"limit": "50", "before": "100"}],
        )


class MetricsTests(ShellCase):
    def series(self, **more: Any) -> dict[str, Any]:
        return {
            "agentId": "web-01",
            "resolution": "1m",
            "stepMs": 60_000,
            "from": NOW - 3 * MINUTE,
            "to": NOW,
            "points": points(),
            **more,
        }

    def test_sparklines(self) -> None:
        self.hub.answer("GET", "/api/agents/web-01/metrics", self.series())
        self.assertEqual(self.shell("metrics", "web-01", "--from", "1h", "--points", "30"), 0)
        head, cpu, memory, disk = self.out.splitlines()
        self.assertRegex(head, r"web-01  .* to .*  3 points, each 60 s, 1m$")
        self.assertRegex(
            cpu, r"^cpu    ▁\s{17,18}▁\s{17,18}▂\s+now  20\.0% min   1\.0% max  99\.0%$"
        )
        self.assertIn("▅", memory)
        self.assertEqual(disk, "disk   no readings")
        query = self.hub.requests[0].query
        self.assertEqual(query["points"], "30")
        self.assertLess(abs(int(query["from"]) - (NOW - 60 * MINUTE)), 5 * MINUTE)

    def test_narrow(self) -> None:
        self.hub.answer("GET", "/api/agents/web-01/metrics", self.series())
        self.shell("metrics", "web-01", tty=True, columns=30, encoding="ascii", NO_COLOR="1")
        self.assertTrue(self.out.isascii())
        self.assertLessEqual(max(map(len, self.out.splitlines())), 30)

    def test_table(self) -> None:
        self.hub.answer("GET", "/api/agents/web-01/metrics", self.series())
        rows = self.rows("metrics", "web-01", "--table")
        self.assertEqual(len(rows), 4)
        self.assertEqual(rows[3][1:5], ["12", "20.0%", "1.0%", "99.0%"])

    def test_none(self) -> None:
        self.hub.answer("GET", "/api/agents/web-01/metrics", self.series(points=[]))
        self.assertEqual(self.shell("metrics", "web-01"), 0)
        self.assertEqual((self.out, self.err), ("", "no metrics of web-01 in that time\n"))

    def test_json(self) -> None:
        self.hub.answer("GET", "/api/agents/web-01/metrics", self.series())
        self.assertEqual(self.json("metrics", "web-01"), self.series())


class LogsTests(ShellCase):
    def test_lines(self) -> None:
        """The newest is the last one."""
        rows = [log(2, level="error", source="nginx"), log(1, message="\x1b[2J")]
        self.hub.answer("GET", "/api/agents/web-01/logs", {"logs": rows, "next": 1})
        self.assertEqual(
            self.shell(
                "logs", "web-01", "--level", "error,info", "--contains", "x", "--to", "now", "-n2"
            ),
            0,
        )
        first, second = self.out.splitlines()
        self.assertRegex(first, r"^2023-11-1\d \d\d:\d\d:\d\d  info   \\x1b\[2J$")
        self.assertRegex(second, r"  error  line 2  \(nginx\)$")
        query = self.hub.requests[0].query
        self.assertEqual((query["level"], query["contains"]), ("error,info", "x"))
        self.assertEqual(self.json("logs", "web-01", "-n2"), {"logs": rows, "next": 1})

    def test_none(self) -> None:
        self.hub.answer("GET", "/api/agents/web-01/logs", {"logs": [], "next": None})
        self.assertEqual(self.shell("logs", "web-01"), 0)
        self.assertEqual((self.out, self.err), ("", "no log lines of web-01\n"))


class StatusTests(ShellCase):
    def test_ready(self) -> None:
        self.hub.answer("GET", "/api/status", STATUS)
        rows = {row[0]: row[1:] for row in self.rows("status")}
        self.assertEqual(rows["state"], ["ready"])
        self.assertEqual(rows["agents"], ["11 online of 14"])
        self.assertEqual(rows["refusals"], ["invalid_signature=3"])
        self.assertEqual(rows["store"], ["50 MB, 5 waiting, 0.4 s behind"])
        self.assertEqual(rows["reactor lag"], ["3 ms"])
        self.assertEqual(self.json("status"), STATUS)

    def test_not_ready(self) -> None:
        store = {"ok": False, "words": "the disk is full", "size": 10, "lost": 4}
        found = {**STATUS, "ready": False, "why": "the store fails", "store": store}
        self.hub.answer("GET", "/api/status", found)
        self.assertEqual(self.shell("status"), 1)
        self.assertIn("not ready: the store fails", self.out)
        self.assertIn("the disk is full (10 B, 4 lost)", self.out)
        self.json("status", status=1)
