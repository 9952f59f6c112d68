"""`jetcamer hub`: what changes something. Each command for people and as JSON."""

from __future__ import annotations

import getpass
import json
from typing import Any, ClassVar

from jetcamer.cli.hub import send as send_module
from tests.cli_hub.answers import EVIL, MINUTE, NOW, agent, command
from tests.cli_hub.fake_hub import ShellCase

SECRET = "s3cret-of-web-01"
CONFIG = {"wsApiUrl": "wss://hub.example/agent", "wsSecret": SECRET, "instanceId": "web-01"}
ADDED = {
    "agentId": "web-01",
    "secret": SECRET,
    "wsApiUrl": "wss://hub.example/agent",
    "config": CONFIG,
}


class SendTests(ShellCase):
    PLACE = "/api/agents/web-01/commands"

    def test_answer(self) -> None:
        details = {"checks": [{"name": "disk", "status": "ok"}]}
        self.hub.answer("POST", self.PLACE, command(details=details))
        words = ("send", "web-01", "ping", "--timeout", "2m", "name=a=b c", "empty=")
        self.assertEqual((self.shell(*words), self.err), (0, ""))
        self.assertEqual(
            self.out.splitlines(), ["pong  (done, 12 ms)", "  checks:", "    name=disk, status=ok"]
        )
        self.assertEqual(
            self.hub.requests[0].body,
            {
                "command": "ping",
                "args": {"name": "a=b c", "empty": ""},
                "timeoutSeconds": 120.0,
            },
        )
        self.assertEqual(self.json("send", "web-01", "ping")["result"], "pong")

    def test_failed(self) -> None:
        """An agent that could not is status 1; what it said stands on standard output."""
        self.hub.answer("POST", self.PLACE, command(state="failed", error=EVIL, result=""))
        self.assertEqual(self.shell("send", "web-01", "ping"), 1)
        self.assertIn("[red]x[/red]\\x1b[2J", self.out)
        self.assertEqual(self.err, "")
        self.json("send", "web-01", "ping", status=1)

    def test_lines(self) -> None:
        """Lines are lines; any other control character is visible; tabs are blanks."""
        lines = "Filesystem\tUse%\r\n/dev/sda1  9%\n\n  \x1b[2Jend\n"
        self.hub.answer("POST", self.PLACE, command(result=lines))
        for tty in (False, True):
            status = self.shell("send", "web-01", "df", tty=tty, columns=20, NO_COLOR="1")
            self.assertEqual((status, self.err), (0, ""))
            self.assertEqual(
                self.out.splitlines(),
                ["Filesystem      Use%", "/dev/sda1  9%", "", "  \\x1b[2Jend", "(done, 12 ms)"],
            )

    def test_failed_with_output(self) -> None:
        """What it printed before it failed is what a person needs."""
        for result, printed in (
            ("checking\nline 7: no such host\n", ["checking", "line 7: no such host"]),
            ("line 7: no such host", ["line 7: no such host"]),
            ("", []),
        ):
            failed = command(state="failed", error="exit status 1", result=result)
            self.hub.forget()
            self.hub.answer("POST", self.PLACE, failed)
            self.assertEqual((self.shell("send", "web-01", "check"), self.err), (1, ""))
            self.assertEqual(self.out.splitlines(), [*printed, "exit status 1  (failed, 12 ms)"])

    def test_queued_for_a_moment(self) -> None:
        queued = command(state="queued", result=None, expiresAt=NOW + 1600)
        self.hub.answer("POST", self.PLACE, queued, 202)
        self.shell("send", "web-01", "ping", "--queue-for", "2s")
        self.assertRegex(self.out, r" \(in 2 s\)$")
        self.hub.answer("GET", "/api/commands/c1", queued)
        self.shell("commands", "--command", "c1")
        self.assertRegex(self.out, r"waits until .* \(in 2 s\)\n")

    def test_queued(self) -> None:
        queued = command(state="queued", result=None, expiresAt=NOW + 60 * MINUTE)
        self.hub.answer("POST", self.PLACE, queued, 202)
        self.assertEqual(self.shell("send", "web-01", "ping", "--queue"), 0)
        self.assertRegex(
            self.out, r"^queued: web-01 is away; it waits until 2\d{3}-.* \(in 60 min\)$"
        )
        self.assertEqual(self.err, "what becomes of it: jetcamer hub commands --command c1\n")
        self.json("send", "web-01", "ping", "--queue-for", "1h")
        first, second = (request.body for request in self.hub.requests)
        self.assertEqual((first["queue"], "queueSeconds" in first), (True, False))
        self.assertEqual((second["queue"], second["queueSeconds"]), (True, 3600))

    def test_away(self) -> None:
        self.hub.answer("POST", self.PLACE, {"error": "web-01 is away"}, 409)
        self.assertEqual(self.shell("send", "web-01", "ping"), 1)
        self.assertEqual(self.one_line(), "jetcamer hub send: web-01 is away")

    def test_deadline(self) -> None:
        """504: the error is told, and what to ask with later."""
        late = {"error": "no answer within 30 s", "command": command(state="timeout")}
        self.hub.answer("POST", self.PLACE, late, 504)
        self.assertEqual((self.shell("send", "web-01", "ping"), self.out), (1, ""))
        self.assertEqual(
            self.err.splitlines(),
            [
                "what becomes of it: jetcamer hub commands --command c1",
                "jetcamer hub send: no answer within 30 s",
            ],
        )
        self.assertEqual(self.shell("send", "web-01", "ping", "--json"), 1)
        self.assertEqual(json.loads(self.out)["state"], "timeout")
        self.assertIn("no answer within 30 s", self.one_line())

    def test_no_second_time(self) -> None:
        """A command whose answer was lost is not sent again by itself."""
        self.hub.answer("POST", self.PLACE, b"{", length=100)
        self.assertEqual(self.shell("send", "web-01", "ping"), 1)
        self.assertEqual(len(self.hub.requests), 1)


class SendManyTests(ShellCase):
    PLACE = "/api/command-batches/b1"

    def batch(self, done: int, failed: int = 0, **more: Any) -> dict[str, Any]:
        waiting = 3 - done - failed
        return {
            "batchId": "b1",
            "total": 3,
            "done": done,
            "failed": failed,
            "waiting": waiting,
            "finished": not waiting,
            **more,
        }

    def answers(self, *progress: dict[str, Any]) -> None:
        self.hub.answer("POST", "/api/commands", self.batch(0), 202)
        for each in progress:
            self.hub.answer("GET", self.PLACE, each)

    def test_progress(self) -> None:
        """Told on a terminal; then a table, and a line that sums up."""
        rows = [command(f"c{n}", agentId=f"web-0{n}") for n in range(3)]
        self.answers(self.batch(1), self.batch(3), self.batch(3, commands=rows))
        words = ("send", "--all", "ping", "--concurrency", "2", "k=v")
        self.assertEqual(self.shell(*words, tty=True, columns=120, NO_COLOR="1"), 0)
        self.assertEqual(
            self.err.split("\r")[1:],
            [
                "0 of 3 done, 0 failed, 3 waiting\x1b[K",
                "1 of 3 done, 0 failed, 2 waiting\x1b[K",
                "\x1b[K3 of 3 done, 0 failed, 0 waiting\n",
            ],
        )
        self.assertEqual(len(self.out.splitlines()), 4)
        self.assertEqual(
            self.hub.requests[0].body,
            {
                "command": "ping",
                "args": {"k": "v"},
                "timeoutSeconds": 30.0,
                "agents": "online",
                "concurrency": 2,
            },
        )
        self.assertEqual(self.slept, [0.5, 0.5])

    def test_some_failed(self) -> None:
        finished = self.batch(2, 1, commands=[command(state="failed", error="no")])
        self.answers(self.batch(2, 1), finished)
        self.assertEqual(self.shell("send", "--agents", "a,b", "ping"), 1)
        self.assertIn("2 of 3 done, 1 failed, 0 waiting\n", self.err)
        self.assertEqual(self.hub.requests[0].body["agents"], ["a", "b"])
        whole = {**finished, "next": None}
        self.assertEqual(self.json("send", "--agents", "a,b", "ping", status=1), whole)

    def test_nobody_online(self) -> None:
        nobody = {**self.batch(0), "total": 0, "waiting": 0, "finished": True}
        self.hub.answer("POST", "/api/commands", nobody, 202)
        self.hub.answer("GET", self.PLACE, {**nobody, "commands": []})
        self.assertEqual(self.shell("send", "--all", "ping"), 1)
        self.assertIn("0 of 0 done", self.err)

    def test_no_wait(self) -> None:
        self.answers()
        self.assertEqual((self.shell("send", "--all", "ping", "--no-wait"), self.out), (0, "b1\n"))
        self.assertIn("jetcamer hub commands --batch b1", self.err)
        self.assertEqual(self.json("send", "--all", "ping", "--no-wait")["batchId"], "b1")

    def test_queued(self) -> None:
        """What is held for agents that are away may take hours: nobody waits for those."""
        self.answers(self.batch(1), self.batch(1, commands=[]))
        self.assertEqual(
            self.shell("send", "--agents", "a", "ping", "--queue", "--timeout", "5"), 0
        )
        self.assertEqual(sum(self.slept), 15)
        self.assertIn("1 of 3 done, 0 failed, 2 waiting; jetcamer hub commands --batch", self.err)

    def test_a_hub_that_restarts(self) -> None:
        """A look that fails is one look; for half a minute, or with a 404, it is the end."""
        self.hub.answer("POST", "/api/commands", self.batch(0), 202)
        self.hub.answer("GET", self.PLACE, {"error": "draining"}, 503)
        self.hub.answer("GET", self.PLACE, self.batch(3))
        self.hub.answer("GET", self.PLACE, self.batch(3, commands=[]))
        self.assertEqual(self.shell("send", "--all", "ping"), 0)
        self.hub.answer("GET", self.PLACE, {"error": "no such batch"}, 404)
        self.hub.answer("GET", self.PLACE, {"error": "no such batch"}, 404)
        self.hub.answer("GET", self.PLACE, {"error": "no such batch"}, 404)
        self.assertEqual(self.shell("send", "--all", "ping"), 1)
        going_on, error = self.err.splitlines()
        self.assertIn("it goes on without us; how it ended: jetcamer hub commands", going_on)
        self.assertIn("no such batch", error)

    def test_ctrl_c(self) -> None:
        self.answers(self.batch(1))

        def interrupt(*args: Any) -> None:
            raise KeyboardInterrupt

        self.patch(send_module, "_wait", interrupt)
        self.assertRaises(KeyboardInterrupt, self.shell, "send", "--all", "ping")
        self.assertIn("jetcamer hub commands --batch b1", self.err)


class AgentTests(ShellCase):
    def test_add(self) -> None:
        """Standard output is the configuration and nothing else, however narrow the terminal."""
        self.hub.answer("POST", "/api/agents", ADDED, 201)
        for tty in (False, True):
            self.assertEqual(self.shell("agent", "add", "web-01", tty=tty, columns=20), 0)
            self.assertEqual(self.out, json.dumps(CONFIG, indent=2) + "\n")
            self.assertNotIn(SECRET, self.err)
            self.assertNotIn("this machine's own", self.err)
        self.assertEqual(self.hub.requests[0].body, {"agentId": "web-01"})
        self.assertEqual(self.json("agent", "add", "web-01"), ADDED)

    def test_a_hub_that_knows_no_url(self) -> None:
        added = {**ADDED, "wsApiUrl": "", "config": {**CONFIG, "wsApiUrl": ""}}
        self.hub.answer("POST", "/api/agents", added, 201)
        self.assertEqual(self.shell("agent", "add", "web-01"), 0)
        self.assertIn("put the wsApiUrl in", self.err)

    def test_secret_from_stdin(self) -> None:
        self.hub.answer("POST", "/api/agents", ADDED, 201)
        words = ("agent", "add", "web-01", "--secret-from-stdin")
        self.assertEqual(self.shell(*words, stdin="of mine\r\nmore"), 0)
        self.patch(getpass, "getpass", lambda prompt: "typed")
        self.assertEqual(self.shell(*words, tty_in=True), 0)
        self.assertEqual(
            [request.body["secret"] for request in self.hub.requests], ["of mine", "typed"]
        )
        for stdin in ("", "\n", "x" * 5000):
            self.assertEqual(self.shell(*words, stdin=stdin), 1)
            self.assertIn("no secret on standard input", self.one_line())
        self.assertEqual(len(self.hub.requests), 2)

    def test_exists(self) -> None:
        self.hub.answer("POST", "/api/agents", {"error": "web-01 is known already"}, 409)
        self.assertEqual(self.shell("agent", "add", "web-01"), 1)
        self.assertEqual(self.one_line(), "jetcamer hub agent add: web-01 is known already")

    def test_rotate(self) -> None:
        rotated = {**ADDED, "oldValidUntil": NOW + 60 * MINUTE}
        self.hub.answer("POST", "/api/agents/web-01/rotate", rotated)
        self.assertEqual(self.shell("agent", "rotate", "web-01", "--grace", "1h"), 0)
        self.assertEqual(json.loads(self.out), CONFIG)
        self.assertRegex(self.err, r"the old one ends 2\d\d\d-.* \(in 60 min\)")
        words = ("agent", "rotate", "web-01", "--secret-from-stdin", "--json")
        self.assertEqual(self.shell(*words, stdin="mine\n"), 0)
        self.assertEqual(json.loads(self.out), rotated)
        self.assertEqual(
            [request.body for request in self.hub.requests],
            [{"graceSeconds": 3600}, {"graceSeconds": 86_400, "secret": "mine"}],
        )

    def test_revoke(self) -> None:
        revoked = {"agentId": "web-01", "revoked": True}
        self.hub.answer("POST", "/api/agents/web-01/revoke", revoked)
        self.assertEqual(self.shell("agent", "revoke", "web-01", stdin="no\n", tty_in=True), 1)
        self.assertIn("nothing was done", self.err)
        self.assertEqual(self.shell("agent", "revoke", "web-01", stdin="", tty_in=True), 1)
        self.assertEqual(self.hub.requests, [])
        self.assertEqual(self.shell("agent", "revoke", "web-01", stdin="yes\n", tty_in=True), 0)
        self.assertEqual(self.out, "web-01 is revoked\n")
        self.assertEqual(self.json("agent", "revoke", "web-01", "--yes"), revoked)

    def test_no_grace(self) -> None:
        self.hub.answer("POST", "/api/agents/web-01/rotate", ADDED)
        self.json("agent", "rotate", "web-01", "--grace", "0")
        self.assertEqual(self.hub.requests[0].body, {"graceSeconds": 0})

    def test_restore(self) -> None:
        self.hub.answer("POST", "/api/agents/web-01/restore", ADDED)
        self.assertEqual(self.shell("agent", "restore", "web-01"), 0)
        self.assertEqual(json.loads(self.out), CONFIG)
        self.assertEqual(self.json("agent", "restore", "web-01"), ADDED)

    def test_a_url_that_only_this_machine_reaches(self) -> None:
        config = {**CONFIG, "wsApiUrl": "ws://127.0.0.1:9810/agent"}
        self.hub.answer("POST", "/api/agents", {**ADDED, "config": config}, 201)
        self.shell("agent", "add", "web-01")
        self.assertIn("this machine's own", self.err)

    def test_list(self) -> None:
        self.hub.answer("GET", "/api/agents", {"agents": [agent()], "next": None})
        self.assertEqual(self.rows("agent", "list")[1][0], "web-01")
        self.assertEqual(len(self.json("agent", "list")["agents"]), 1)


class TokenTests(ShellCase):
    CREATED: ClassVar[dict[str, Any]] = {
        "id": "j1",
        "token": "jcj_" + "x" * 60,
        "expiresAt": NOW + 60 * MINUTE,
        "usesLeft": 1,
    }

    def test_create(self) -> None:
        """Standard output is the line to run on the machine, unbroken."""
        self.hub.answer("POST", "/api/join-tokens", self.CREATED, 201)
        for tty in (False, True):
            words = ("token", "create", "--expires", "90m", "--uses", "2")
            self.assertEqual(self.shell(*words, tty=tty, columns=40, NO_COLOR="1"), 0)
            self.assertEqual(self.out, f"jetcamer join {self.hub.url} {self.CREATED['token']}\n")
        self.assertEqual(self.hub.requests[0].body, {"expiresSeconds": 5400, "uses": 2})
        self.assertIn("2 machines", self.err)

    def test_url(self) -> None:
        """The hub as this machine reaches it is not always the hub as that one does."""
        self.hub.answer("POST", "/api/join-tokens", self.CREATED, 201)
        self.shell("token", "create")
        self.assertIn("this machine only", self.err)
        self.shell("token", "create", "--join-url", "https://hub.example/")
        self.assertIn("jetcamer join https://hub.example/ jcj_", self.out)
        self.assertNotIn("this machine only", self.err)
        self.assertEqual(self.hub.requests[0].body, {"expiresSeconds": 3600, "uses": 1})

    def test_json(self) -> None:
        self.hub.answer("POST", "/api/join-tokens", self.CREATED, 201)
        self.assertEqual(self.json("token", "create"), self.CREATED)

    def test_list(self) -> None:
        token = {
            "id": "j1",
            "who": "alice",
            "createdAt": NOW - 5 * MINUTE,
            "expiresAt": NOW + 30 * MINUTE,
            "usesLeft": 3,
        }
        self.hub.answer("GET", "/api/join-tokens", {"tokens": [token]})
        self.assertEqual(
            self.rows("token", "list")[1], ["j1", "in 30 min", "3", "alice", "5 min ago"]
        )
        self.assertEqual(self.json("token", "list"), {"tokens": [token]})

    def test_delete(self) -> None:
        self.hub.answer("DELETE", "/api/join-tokens/j1", b"", 204)
        self.assertEqual(self.shell("token", "delete", "j1"), 0)
        self.assertEqual(self.out, "the join token is deleted\n")
        self.assertEqual(self.json("token", "delete", "j1"), {})
        self.assertEqual(self.shell("token", "delete", "j1", "--yes"), 0)


class AccessTests(ShellCase):
    CREATED: ClassVar[dict[str, Any]] = {
        "id": "t1",
        "name": "ci",
        "role": "viewer",
        "token": "jca_x",
        "expiresAt": None,
    }

    def test_create(self) -> None:
        self.hub.answer("POST", "/api/tokens", self.CREATED, 201)
        self.assertEqual(self.shell("access", "create", "--name", "ci", "--role", "viewer"), 0)
        self.assertEqual((self.out, self.err), ("jca_x\n", "ci is viewer. Shown this once:\n"))
        words = ("access", "create", "--name", "ci", "--role", "viewer", "--expires", "7d")
        self.assertEqual(self.json(*words), self.CREATED)
        self.assertEqual(
            [request.body for request in self.hub.requests],
            [
                {"name": "ci", "role": "viewer"},
                {"name": "ci", "role": "viewer", "expiresSeconds": 604_800},
            ],
        )

    def test_list(self) -> None:
        token = {
            "id": "t1",
            "name": "ci",
            "role": "viewer",
            "createdAt": NOW - 5 * MINUTE,
            "expiresAt": None,
            "lastUsed": None,
        }
        self.hub.answer("GET", "/api/tokens", {"tokens": [token]})
        self.assertEqual(
            self.rows("access", "list")[1], ["t1", "ci", "viewer", "5 min ago", "-", "-"]
        )
        self.assertEqual(self.json("access", "list"), {"tokens": [token]})

    def test_delete(self) -> None:
        self.hub.answer("DELETE", "/api/tokens/t1", {"error": "it is the last admin"}, 409)
        self.assertEqual(self.shell("access", "delete", "t1"), 1)
        self.assertEqual(self.one_line(), "jetcamer hub access delete: it is the last admin")
        self.hub.answer("DELETE", "/api/tokens/t2", {})
        self.assertEqual(self.shell("access", "delete", "t2"), 0)
        self.assertEqual(self.json("access", "delete", "t2"), {})
        self.assertEqual(self.shell("access", "delete", "t2", "--yes"), 0)


class AuditTests(ShellCase):
    ENTRY: ClassVar[dict[str, Any]] = {
        "id": 9,
        "ts": NOW,
        "who": "alice",
        "action": "agent.add",
        "subject": "web-01",
        "details": {"by": "api"},
        "previous": "0" * 64,
        "hash": "1" * 64,
    }

    def test_list(self) -> None:
        self.hub.answer("GET", "/api/audit", {"entries": [self.ENTRY], "next": None})
        for words in (("audit",), ("audit", "list", "-n", "50")):
            row = self.rows(*words)[1]
            self.assertEqual((row[0], *row[2:]), ("9", "alice", "agent.add", "web-01", "by=api"))
            self.assertEqual(self.json(*words)["entries"], [self.ENTRY])
        self.assertEqual({request.query["limit"] for request in self.hub.requests}, {"50"})

    def test_so_many(self) -> None:
        """The number stands wherever it is typed."""
        self.hub.answer("GET", "/api/audit", {"entries": [self.ENTRY], "next": None})
        for words in (("-n", "5"), ("list", "-n", "5"), ("-n", "5", "list"), ("-n5",)):
            self.rows("audit", *words)
        self.assertEqual({request.query["limit"] for request in self.hub.requests}, {"5"})

    def test_verify(self) -> None:
        self.hub.answer("GET", "/api/audit/verify", {"verified": 12, "firstWrong": None})
        self.assertEqual(self.shell("audit", "verify"), 0)
        self.assertEqual(self.out, "whole: 12 entries, each carries the one before\n")
        self.assertEqual(self.json("audit", "verify"), {"verified": 12, "firstWrong": None})

    def test_broken(self) -> None:
        self.hub.answer("GET", "/api/audit/verify", {"verified": 3, "firstWrong": 4})
        self.assertEqual(self.shell("audit", "verify"), 1)
        self.assertIn("broken at entry 4", self.out)
        self.json("audit", "verify", status=1)

    def test_no_answer_is_not_whole(self) -> None:
        self.hub.answer("GET", "/api/audit/verify", {})
        self.json("audit", "verify", status=1)


class BanTests(ShellCase):
    BANS: ClassVar[dict[str, Any]] = {
        "bans": [
            {"address": "2001:db8::", "secondsLeft": 240.2, "offences": 31},
            {"address": "192.0.2.9", "secondsLeft": 0.2, "offences": 10},
        ]
    }

    def test_list(self) -> None:
        self.hub.answer("GET", "/api/bans", self.BANS)
        for words in (("bans",), ("bans", "list")):
            self.assertEqual(
                self.rows(*words),
                [
                    ["ADDRESS", "ENDS", "OFFENCES"],
                    ["2001:db8::", "in 4 min", "31"],
                    ["192.0.2.9", "in 1 s", "10"],
                ],
            )
            self.assertEqual(self.json(*words), self.BANS)

    def test_none(self) -> None:
        self.hub.answer("GET", "/api/bans", {"bans": []})
        self.assertEqual((self.shell("bans"), self.out), (0, ""))
        self.assertEqual(self.err, "no address is banned\n")

    def test_lift(self) -> None:
        lifted = {"address": "2001:db8::", "lifted": True}
        self.hub.answer("DELETE", "/api/bans/2001%3Adb8%3A%3A", lifted)
        self.assertEqual(self.shell("bans", "lift", "2001:db8::"), 0)
        self.assertEqual(self.out, "2001:db8:: is let in again\n")
        self.assertEqual(self.json("bans", "lift", "2001:db8::"), lifted)
        self.hub.answer("DELETE", "/api/bans/x", {"error": "this address is not banned"}, 404)
        self.assertEqual(self.shell("bans", "lift", "x"), 1)
        self.assertEqual(self.one_line(), "jetcamer hub bans lift: this address is not banned")


class BackupTests(ShellCase):
    def test_backup(self) -> None:
        made = {"path": "/var/lib/jetcamer-hub/backups/a.db", "size": 50_000_000}
        self.hub.answer("POST", "/api/backup", made)
        self.assertEqual(self.shell("backup"), 0)
        self.assertEqual(self.out, f"{made['path']}  50 MB, on the hub\n")
        self.assertEqual(self.json("backup"), made)
