"""`jetcamer hub`: what is followed, through every way a connection can break."""

from __future__ import annotations

import json

from jetcamer.cli.hub import stream as stream_module
from jetcamer.cli.hub.client import HubClient
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.settings import Settings
from jetcamer.cli.hub.stream import Event, EventStream
from tests.cli_hub.answers import EVIL, EVIL_SHOWN, log
from tests.cli_hub.fake_hub import TOKEN, Answer, ShellCase, event

#: How a test ends what goes on for ever.
GONE = Answer(401, b'{"error": "deleted"}', {})


class EventStreamTests(ShellCase):
    def all(self, *connections: bytes | Answer, last_id: str | None = None) -> list[Event]:
        """Every event until the hub refuses the token."""
        self.hub.stream(*connections, GONE)
        self.breaks: list[str] = []
        stream = EventStream(
            HubClient(Settings(self.hub.url, TOKEN)),
            {"kinds": "log"},
            last_id=last_id,
            sleep=self.slept.append,
            on_break=lambda words, seconds: self.breaks.append(words),
        )
        found: list[Event] = []
        try:
            for each in stream:
                found.append(each)
        except HubError as error:
            self.assertEqual(error.status, 401)
        return found

    def asked_after(self) -> list[str | None]:
        return [request.headers.get("Last-Event-ID") for request in self.hub.requests]

    def test_forms(self) -> None:
        """Comments, several data lines, CRLF, no space, no id, unknown fields; a bad object."""
        found = self.all(
            b": hello\n\nid:1\r\nevent:log\r\ndata:{\r\ndata:}\r\n\r\n"
            b'retry: 5\nfoo: bar\ndata: {"a": 1}\n\nevent: log\n\nid: 2\ndata: nonsense\n\n'
            b"event: gap\n\n"
        )
        self.assertEqual(
            found,
            [
                Event("1", "log", {}),
                Event("1", "message", {"a": 1}),
                Event("2", "message", {"text": "nonsense"}),
                Event("2", "gap", {}),
            ],
        )

    def test_resumes(self) -> None:
        """After each break: from the last event that came whole."""
        found = self.all(
            event("e-1", "log", a=1) + event("e-2", "log", a=2) + b"id: e-3\nevent: log\ndata: {}",
            Answer(503, b'{"error": "draining"}', {"Retry-After": "7"}),
            b"",
            event("e-3", "log", a=3) + b"id: e-9\ndata: {}\n",
        )
        self.assertEqual([each.data.get("a") for each in found], [1, 2, 3])
        self.assertEqual(self.asked_after(), [None, "e-2", "e-2", "e-2", "e-3"])
        self.assertEqual(self.hub.requests[1].query, {"kinds": "log"})
        self.assertIn("the hub is not ready (draining), try again in 7 s", self.breaks)
        self.assertIn(7, self.slept)

    def test_waits_longer_each_time(self) -> None:
        busy = Answer(502, b"", {})
        self.all(event("1", "log"), *[busy] * 8, b": here\n", busy)
        waits = self.slept
        for wait, most in zip(waits, (1, 2, 4, 8, 16, 30, 30, 30, 30, 1, 2), strict=True):
            self.assertTrue(most / 2 <= wait <= most, waits)

    def test_nobody_listens_any_more(self) -> None:
        """What is not there yet is tried again; the first failure of all is told."""
        self.assertRaises(
            HubError,
            EventStream(HubClient(Settings("http://127.0.0.1:1", TOKEN)), {}).open,
        )

    def test_ids_that_no_header_carries(self) -> None:
        self.all(b"id: a\x00b\ndata: {}\n\nid: \xc3\xa4\ndata: {}\n\n", last_id="first")
        self.assertEqual(self.asked_after(), ["first", "first"])

    def test_a_line_without_end(self) -> None:
        self.patch(stream_module, "_LINE_BYTES", 1000)
        found = self.all(event("1", "log") + b"data: " + b"x" * 5000 + b"\n\n" + event("2", "log"))
        self.assertEqual([each.event_id for each in found], ["1"])

    def test_not_a_stream(self) -> None:
        self.hub.stream(Answer(200, b"{}", {"Content-Type": "application/json"}))
        stream = EventStream(HubClient(Settings(self.hub.url, TOKEN)), {})
        self.assertIn("sends no events", str(self.assertRaises(HubError, stream.open)))


class EventsTests(ShellCase):
    EVENTS = (
        event("1", "metrics", agentId="a", ts=1000, cpuPercent=12.0, memPercent=None)
        + event("2", "log", agentId="a", ts=2000, level="error", message=EVIL)
        + event("3", "command", agentId="a", ts=3000, command="ping", state="done", result="pong")
        + event("4", "refusal", agentId=None, ts=4000, address="192.0.2.1", reason="r", words="w")
        + event("5", "agent", agentId="a", ts=5000, state="offline", words="went away")
        + event("6", "weather", agentId="a", ts=6000, sky="blue")
        + event("7", "gap")
    )

    def test_lines(self) -> None:
        self.hub.stream(self.EVENTS)
        self.assertEqual(self.shell("events", "-n", "7", "--kinds", "log,agent"), 0)
        self.assertEqual(
            self.out.splitlines(),
            [
                "1970-01-01 00:00:01  metrics a  cpu  12.0%  mem      -  disk      -",
                f"1970-01-01 00:00:02  log     a  error: {EVIL_SHOWN}",
                "1970-01-01 00:00:03  command a  ping: done, pong",
                "1970-01-01 00:00:04  refusal -  192.0.2.1: r: w",
                "1970-01-01 00:00:05  agent   a  offline: went away",
                "1970-01-01 00:00:06  weather a  sky=blue",
                "some events were missed here",
            ],
        )
        self.assertEqual(self.hub.requests[0].query, {"kinds": "log,agent"})

    def test_answers_of_many_lines(self) -> None:
        self.hub.stream(
            event("1", "command", agentId="a", ts=0, command="df", state="done", result="a\nb\n")
        )
        self.assertEqual(self.shell("events", "-n", "1"), 0)
        self.assertTrue(self.out.endswith("  command a  df: done, a …\n"), self.out)

    def test_json(self) -> None:
        """One object a line."""
        self.hub.stream(self.EVENTS)
        self.assertEqual(self.shell("events", "-n", "7", "--json", "--agents", "a,b"), 0)
        found = [json.loads(line) for line in self.out.splitlines()]
        self.assertEqual([each["event"] for each in found][:2], ["metrics", "log"])
        self.assertEqual(found[6], {"id": "7", "event": "gap", "data": {}})
        self.assertEqual(self.hub.requests[0].query, {"agents": "a,b"})
        self.assertTrue(self.out.isascii())

    def test_breaks(self) -> None:
        """The person is told, on standard error; then it goes on where it broke."""
        self.hub.stream(
            event("x-1", "agent", agentId="a"), event("x-2", "agent", agentId="b"), GONE
        )
        self.assertEqual(self.shell("events", "--after", "x-0"), 1)
        self.assertEqual(len(self.out.splitlines()), 2)
        told, _, error = self.err.splitlines()
        self.assertRegex(
            told, r"^the (hub ended the connection|connection broke); trying again in 1 s$"
        )
        self.assertIn("does not accept the token", error)
        self.assertEqual(
            [request.headers.get("Last-Event-ID") for request in self.hub.requests],
            ["x-0", "x-1", "x-2"],
        )

    def test_refused_at_once(self) -> None:
        self.hub.stream(Answer(503, b'{"error": "draining"}', {}))
        self.assertEqual(self.shell("events"), 1)
        self.assertIn("not ready (draining)", self.one_line())


class FollowTests(ShellCase):
    def follow(self, *words: str) -> list[str]:
        self.assertEqual(self.shell("logs", "web-01", "-f", *words), 1)
        return [line[21:] for line in self.out.splitlines()]

    def test_history_then_what_comes(self) -> None:
        """What is in both is shown once, however often the agent said it."""
        again = log(3)
        self.hub.answer("GET", "/api/agents/web-01/logs", {"logs": [again, log(2)], "next": None})
        del again["id"]
        self.hub.stream(
            event("1", "log", agentId="web-01", **again)
            + event("2", "log", agentId="web-01", **again)
            + event("3", "log", agentId="web-01", ts=9000, level="warn", message=EVIL),
            GONE,
        )
        self.assertEqual(
            self.follow(),
            ["info   line 2", "info   line 3", "info   line 3", f"warn   {EVIL_SHOWN}"],
        )
        self.assertEqual(self.hub.requests[0].query, {"kinds": "log", "agents": "web-01"})

    def test_gap(self) -> None:
        """What the stream cannot give again is read from the history, each line once."""
        place = "/api/agents/web-01/logs"
        rows = [log(number) for number in range(6)]
        self.hub.answer("GET", place, {"logs": [rows[1]], "next": None})
        self.hub.answer("GET", place, {"logs": rows[4:0:-1], "next": None})
        self.hub.stream(
            event("1", "log", **rows[2]),
            event("9", "gap") + event("10", "log", **rows[4]) + event("11", "log", **rows[5]),
            GONE,
        )
        self.assertEqual(self.follow(), [f"info   line {number}" for number in range(1, 6)])
        self.assertNotIn("missed", self.err)
        self.assertEqual(self.hub.requests[3].query["from"], str(rows[2]["receivedAt"]))

    def test_a_gap_that_stays(self) -> None:
        """More than was asked for, or a history that cannot be read: the person is told."""
        place = "/api/agents/web-01/logs"
        for status, body in (
            (200, {"logs": [log(9)], "next": 9}),
            (503, {"error": "the store fails"}),
        ):
            self.hub.forget()
            self.hub.answer("GET", place, {"logs": [], "next": None})
            self.hub.answer("GET", place, body, status)
            self.hub.stream(event("9", "gap"), GONE)
            self.follow("-n", "1")
            self.assertIn("some lines were missed here\n", self.err)

    def test_filters(self) -> None:
        """Events are filtered as the history is."""
        self.hub.answer("GET", "/api/agents/web-01/logs", {"logs": [], "next": None})
        lines = (
            ("error", "nginx", "no SPACE left"),
            ("info", "nginx", "space"),
            ("error", "cron", "space"),
            ("error", "nginx", "fine"),
        )
        self.hub.stream(
            b"".join(
                event(str(number), "log", ts=number, level=level, source=source, message=message)
                for number, (level, source, message) in enumerate(lines)
            ),
            GONE,
        )
        self.assertEqual(
            self.follow("--level", "error,warn", "--source", "nginx", "--contains", "Space"),
            ["error  no SPACE left  (nginx)"],
        )

    def test_json(self) -> None:
        self.hub.answer("GET", "/api/agents/web-01/logs", {"logs": [log(1)], "next": None})
        self.hub.stream(event("1", "log", ts=5, level="info", message="m"), GONE)
        self.assertEqual(self.shell("logs", "web-01", "-f", "--json"), 1)
        self.assertEqual(
            [json.loads(line)["message"] for line in self.out.splitlines()], ["line 1", "m"]
        )

    def test_unknown_agent(self) -> None:
        """The stream knows no agents: it is the history that says so."""
        self.hub.answer("GET", "/api/agents/web-01/logs", {"error": "no agent is called so"}, 404)
        self.hub.stream(b": hello\n\n")
        self.follow()
        self.assertIn("no agent is called so", self.one_line())
