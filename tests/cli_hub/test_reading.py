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
            # What is live has no JSON to use instead.
            self.assertEqual("--json" in self.err, words != ("top",))
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

    def test_what_is_said_once(self) -> None:
        for state, legacy, words, shown in (
            ("clock_wrong", False, "clock wrong by 412 s (ahead)", "clock wrong by 412 s (ahead)"),
            ("refused", False, "refused: no key fits", "refused: no key fits"),
            ("refused", True, "refused: no key fits", "refused (legacy): no key fits"),
            ("revoked", False, "revoked: not accepted", "revoked: not accepted"),
            ("online", True, "online", "online (legacy)"),
            ("never_seen", False, "has never connected", "never seen: has never connected"),
        ):
            self.hub.forget()
            self.hub.answer("GET", "/api/agents/x", agent(state=state, legacy=legacy, words=words))
            rows = {row[0]: row[1:] for row in self.rows("show", "x")}
            self.assertEqual(rows["state"], [shown])

    def test_an_old_secret(self) -> None:
        until = NOW + 60 * MINUTE
        for used, shown, listed in (
            (True, "; the agent still uses it", ", still used"),
            (False, "; it is not used", ", not used"),
            (None, "", ""),
        ):
            found = agent("x", oldSecretUntil=until, oldSecretUsed=used)
            self.hub.forget()
            self.hub.answer("GET", "/api/agents/x", found)
            self.hub.answer("GET", "/api/agents", {"agents": [found, agent("y")], "next": None})
            rows = {row[0]: row[1:] for row in self.rows("show", "x")}
            self.assertRegex(rows["old secret"][0], rf"^valid until 2.* \(in 60 min\){shown}$")
            for words in (("agents",), ("agent", "list")):
                head, first, second = self.rows(*words)
                self.assertEqual(
                    (head[-1], first[-1], second[-1]),
                    ("OLD SECRET", f"ends in 60 min{listed}", "-"),
                )

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
            {
                "sessions": [
                    session(endedAt=None, ending=None, messages=0),
                    session(refused=3),
                    session(endedAt=None, ending=None, messages=17, refused=1),
                ],
                "next": 7,
            },
        )
        _, first, second, third = self.rows("sessions", "web-01", "-n", "3")
        self.assertEqual(first[1:], ["60 min", "192.0.2.7:40000", "5.0.0", "-", "-", "still open"])
        # The hub counts while it lasts.
        self.assertEqual(third[4:], ["17", "1", "still open"])
        self.assertEqual(
            second[1:],
            ["5 min", "192.0.2.7:40000", "5.0.0", "120", "3", "closed by the agent: 1000"],
        )
        self.assertEqual(self.hub.requests[0].query, {"limit": "3"})
        self.assertEqual(self.json("sessions", "web-01", "-n1")["next"], 7)

    def narrow(self, *words: str) -> list[str]:
        """The lines at 80 columns."""
        status = self.shell(*words, tty=True, columns=80, NO_COLOR="1")
        self.assertEqual((status, self.err), (0, ""))
        lines = self.out.splitlines()
        self.assertLessEqual(max(map(len, lines)), 80)
        return lines

    def test_sessions_at_80_columns(self) -> None:
        rows = [session(startedAt=NOW), session(startedAt=NOW - 48 * 60 * MINUTE)]
        self.hub.answer("GET", "/api/agents/x/sessions", {"sessions": rows, "next": None})
        head, *lines = self.narrow("sessions", "x")
        self.assertTrue(head.startswith("STARTED "))
        self.assertIn("REFUSED", head)
        self.assertRegex(lines[0], r"^\d\d:\d\d:\d\d  ")
        self.assertTrue(any(re.match(r"\d\d-\d\d \d\d:\d\d  ", line) for line in lines))

    def test_commands_at_80_columns(self) -> None:
        """A table still: the time of today, and as much of an id as tells it from others."""
        ids = ["abcdefgh" + "1" * 14, "ijklmnop" + "2" * 14, "ijklmnop" + "3" * 14]
        rows = [
            command(ids[0], createdAt=NOW, agentId="web-frontend-01", command="run_health_check"),
            command(ids[1], createdAt=NOW, state="timeout", who="operator", milliseconds=9999),
        ]
        self.hub.answer("GET", "/api/commands", {"commands": rows, "next": None})
        head, *lines = self.narrow("commands")
        self.assertRegex(head, "^TIME .* AGENT .* ID$")
        self.assertRegex(lines[0], r"^\d\d:\d\d:\d\d  .*  abcdefgh$")
        self.assertEqual(self.rows("commands")[1][-1], ids[0])
        self.hub.forget()
        rows = [command(each) for each in ids]
        self.hub.answer("GET", "/api/commands", {"commands": rows, "next": None})
        self.shell("commands", tty=True, columns=80, NO_COLOR="1")
        for each in (ids[0][:8], ids[1], ids[2]):
            self.assertRegex(self.out, rf"\b{each}\b")
        # What is shown so can be asked for so, where it is plain which one it is.
        rows = {row[0]: row[1:] for row in self.rows("commands", "--command", "abcdefgh")}
        self.assertEqual(rows["id"], [ids[0]])
        for unclear in ("ijklmnop", "zzzzzzzz", "abc"):
            self.assertEqual(self.shell("commands", "--command", unclear), 1)
            self.assertIn("no such thing", self.one_line())

    def test_answers_of_many_lines(self) -> None:
        lines = "Filesystem  Use%\n/dev/sda1  9%\n"
        rows = [command(result=lines), command("c2", state="failed", error="no\nway", result="x")]
        self.hub.answer("GET", "/api/commands", {"commands": rows, "next": None})
        self.hub.answer("GET", "/api/commands/c1", rows[0])
        _, first, second = self.rows("commands")
        self.assertEqual((first[6:8], second[6]), (["Filesystem", "Use% …"], "no …"))
        self.shell("commands", encoding="ascii")
        self.assertIn("Use% ...", self.out)
        self.shell("commands", "--command", "c1")
        self.assertTrue(self.out.endswith("\nanswer:\n" + lines), self.out)

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
        """The newest of the fleet, whoever's they are; pages may end early."""
        for ids, following in (("ab", "b"), ("", "x"), ("c", None)):
            rows = [command(each) for each in ids]
            self.hub.answer("GET", "/api/commands", {"commands": rows, "next": following})
        found = self.json("commands", "-n", "5")
        self.assertEqual([each["id"] for each in found["commands"]], ["a", "b", "c"])
        self.assertEqual(
            [request.query for request in self.hub.requests],
            [{"limit": "5"}, {"limit": "3", "before": "b"}, {"limit": "3", "before": "x"}],
        )

    def test_one_command(self) -> None:
        details = {"checks": [{"name": "disk", "status": "ok"}], "free": {"root": 5}}
        self.hub.answer("GET", "/api/commands/c1", command(details=details))
        rows = {row[0]: row[1:] for row in self.rows("commands", "--command", "c1")}
        self.assertEqual((rows["command"], rows["answer"]), (["ping"], ["pong"]))
        self.assertIn("    name=disk, status=ok\n", self.out)
        self.assertIn("    root: 5\n", self.out)
        self.assertEqual(self.json("commands", "--command", "c1")["details"], details)

    def test_batch(self) -> None:
        batch = {"batchId": "b1", "total": 2, "finished": True}

        def answer() -> None:
            self.hub.forget()
            for name, following in (("c1", "c1"), ("c2", None)):
                page = {"commands": [command(name)], "next": following}
                self.hub.answer("GET", "/api/command-batches/b1", {**batch, **page})

        answer()
        rows = self.rows("commands", "--batch", "b1")
        self.assertEqual([row[-1] for row in rows], ["ID", "c1", "c2"])
        self.assertEqual(
            [request.query for request in self.hub.requests],
            [
                {"commands": "true", "limit": "1000"},
                {"commands": "true", "limit": "1000", "after": "c1"},
            ],
        )
        answer()
        whole = {**batch, "commands": [command("c1"), command("c2")], "next": None}
        self.assertEqual(self.json("commands", "--batch", "b1"), whole)
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

    def test_refusals_tell_of_bans(self) -> None:
        for count, words in ((1, "1 address is banned"), (2, "2 addresses are banned")):
            self.hub.forget()
            self.hub.answer("GET", "/api/refusals", {"refusals": [], "next": None})
            self.hub.answer("GET", "/api/bans", {"bans": [{"address": "x"}] * count})
            self.assertEqual(self.shell("refusals"), 0)
            self.assertEqual(
                self.err.splitlines(), ["nothing was refused", f"{words}: jetcamer hub bans"]
            )

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

    def test_one_point(self) -> None:
        series = self.series(points=points()[:1], resolution="raw", stepMs=0)
        self.hub.answer("GET", "/api/agents/web-01/metrics", series)
        self.assertEqual(self.shell("metrics", "web-01"), 0)
        self.assertTrue(self.out.splitlines()[0].endswith("  1 point, raw"), self.out)

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
        for asked in (("--level", "error"), ("--contains", "x"), ("--from", "1h")):
            self.assertEqual(self.shell("logs", "web-01", *asked), 0)
            self.assertEqual(self.err, "no log lines of web-01 match\n")


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

    def test_bans(self) -> None:
        self.hub.answer("GET", "/api/status", {**STATUS, "bannedAddresses": 2})
        rows = {row[0]: row[1:] for row in self.rows("status")}
        self.assertEqual(rows["bans"], ["2 addresses are banned: jetcamer hub bans"])
        self.hub.forget()
        self.hub.answer("GET", "/api/status", {**STATUS, "bannedAddresses": 0})
        self.assertNotIn("bans", [row[0] for row in self.rows("status")])

    def test_not_ready(self) -> None:
        store = {"ok": False, "words": "the disk is full", "size": 10, "lost": 4}
        found = {**STATUS, "ready": False, "why": "the store fails", "store": store}
        self.hub.answer("GET", "/api/status", found)
        self.assertEqual(self.shell("status"), 1)
        self.assertIn("not ready: the store fails", self.out)
        self.assertIn("the disk is full (10 B, 4 lost)", self.out)
        self.json("status", status=1)
