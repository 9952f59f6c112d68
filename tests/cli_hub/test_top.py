"""`jetcamer hub top`: the picture, the keys, what comes in, and the terminal afterwards."""

from __future__ import annotations

import io
import os
import pty
import termios
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.output import make_console
from jetcamer.cli.hub.settings import Settings
from jetcamer.cli.hub.stream import GAP, Event
from jetcamer.cli.hub.top import keys_of, run_loop
from jetcamer.cli.hub.top_feed import Feed
from jetcamer.cli.hub.top_view import TopView
from jetcamer.cli.terminal import Terminal
from tests.cli_hub.answers import EVIL, MINUTE, NOW, agent
from tests.cli_hub.fake_hub import TOKEN, Answer, ShellCase, Stream, event


def measured(agent_id: str, cpu: float | None, **more: Any) -> dict[str, Any]:
    return agent(agent_id, metrics={"cpuPercent": cpu, "memPercent": 1.0, "ts": NOW}, **more)


class ViewTests(SynchronousTestCase):
    def view(self, *agents: dict[str, Any], sort: str = "cpu", **options: Any) -> TopView:
        self.terminal = Terminal(Stream(**options), {"NO_COLOR": "1"})
        view = TopView(self.terminal, sort=sort)
        view.agents_listed(agents)
        return view

    def order(self, view: TopView) -> list[str]:
        return [each["agentId"] for each in view.sorted()]

    def picture(self, view: TopView, width: int, height: int) -> list[str]:
        console = make_console(self.terminal, drawn := io.StringIO(), width)
        console.print(view.picture(width, height, NOW))
        return drawn.getvalue().splitlines()

    def test_sorted(self) -> None:
        view = self.view(
            measured("b", 10.0, lastSeen=5, state="offline"),
            measured("a", 5.0, lastSeen=1),
            measured("d", None, lastSeen=None),
            measured("c", 90.0, lastSeen=9, state="clone"),
            measured("e", 7.0, lastSeen=2),
        )
        # Who is here comes first: what the others measured is old.
        self.assertEqual(self.order(view), ["e", "a", "d", "c", "b"])
        for key, order in (
            ("n", ["a", "b", "c", "d", "e"]),
            ("r", ["e", "d", "c", "b", "a"]),
            ("s", ["c", "a", "d", "e", "b"]),
            ("a", ["c", "b", "e", "a", "d"]),
            ("m", ["a", "d", "e", "b", "c"]),
        ):
            self.assertTrue(view.key_pressed(key))
            self.assertEqual(self.order(view), order, key)
        self.assertFalse(view.key_pressed("x"))
        self.assertFalse(view.key_pressed("\x1b[A"))

    def test_events(self) -> None:
        """Metrics are shown as they come; what they do not tell asks for a new list."""
        view = self.view(measured("a", 1.0, lastSeen=NOW - 60 * MINUTE))
        view.trouble = "broken"
        data = {"agentId": "a", "ts": NOW, "cpuPercent": 99.0}
        self.assertFalse(view.event_came(Event("1", "metrics", data)))
        self.assertEqual(view.trouble, "")
        self.assertRegex(view.snapshot(NOW), r"a +online .* 99\.0% +-  +-  +just now")
        for kind, agent_id, again in (
            ("metrics", "unknown", True),
            ("agent", "a", True),
            (GAP, None, True),
            ("message", None, False),
        ):
            found = view.event_came(Event("1", kind, {"agentId": agent_id}))
            self.assertEqual(found, again, kind)

    def test_fits(self) -> None:
        """Never more lines than there are, never a wider one; the rest is counted."""
        agents = [measured(f"web-{number:03}", float(number)) for number in range(100)]
        agents[99]["hostname"] = "h" * 300
        view = self.view(*agents)
        for width, height in ((20, 5), (40, 24), (80, 24), (100, 24), (200, 50)):
            lines = self.picture(view, width, height)
            self.assertEqual(len(lines), height)
            self.assertLessEqual(max(map(len, lines)), width)
        self.assertEqual(lines[0].rstrip(), "100 agents: 100 online; by cpu; 54 more below")
        self.assertTrue(lines[3].startswith("web-099"))
        self.assertIn("█", lines[3])
        self.assertNotIn("█", self.picture(view, 80, 24)[3])

    def test_keys_are_said_in_words(self) -> None:
        view = self.view(measured("a", 1.0))
        words = "sort: c cpu · m mem · d disk · n name · s state · a age   r reverse   q quit"
        self.assertEqual(self.picture(view, 80, 10)[-1].rstrip(), words)
        # Where there is no room, how it ends is what stays.
        self.assertTrue(self.picture(view, 60, 10)[-1].startswith("q quit   r reverse   sort: c"))
        self.assertTrue(self.picture(view, 20, 10)[-1].startswith("q quit"))
        view.key_pressed("r")
        self.assertIn("; by cpu, reversed", self.picture(view, 80, 10)[0])

    def test_what_goes_first_where_it_is_narrow(self) -> None:
        view = self.view(measured("a", 1.0))
        for width, columns in (
            (80, "AGENT STATE HOST CPU MEM DISK SEEN"),
            (70, "AGENT STATE CPU MEM DISK SEEN"),
            (60, "AGENT STATE CPU MEM DISK"),
            (50, "AGENT STATE CPU MEM"),
            (40, "AGENT STATE CPU"),
            (30, "AGENT CPU"),
        ):
            self.assertEqual(self.picture(view, width, 10)[2].split(), columns.split(), width)

    def test_what_peers_say(self) -> None:
        view = self.view(agent(EVIL, hostname=EVIL, state=EVIL))
        view.trouble = EVIL
        text = "\n".join(self.picture(view, 300, 20))
        self.assertIn("[red]x[/red]\\x1b[2J", text)
        self.assertNotRegex(text, "[\x1b\u202e]")

    def test_odd_values(self) -> None:
        """Whatever a hub says, there is a picture."""
        odd = {"agentId": None, "metrics": {"cpuPercent": "x", "memPercent": float("nan")}}
        view = self.view(odd, {}, measured("a", -5.0), measured("b", 1e9))
        self.picture(view, 100, 20)
        for key in "cmdnsar":
            view.key_pressed(key)
            self.picture(view, 100, 20)

    def test_ascii(self) -> None:
        view = self.view(measured("a" * 300, 50.0), encoding="ascii")
        self.assertTrue("\n".join(self.picture(view, 100, 20)).isascii())


class SnapshotTests(ShellCase):
    def test_in_a_pipe(self) -> None:
        agents = {"agents": [measured("a", 1.0), measured("b", 2.0)], "next": None}
        self.hub.answer("GET", "/api/agents", agents)
        head, columns, first, second = self.rows("top")
        self.assertEqual(head, ["2 agents: 2 online"])
        self.assertEqual(columns, ["AGENT", "STATE", "HOST", "CPU", "MEM", "DISK", "SEEN"])
        self.assertEqual((first[0], second[0]), ("b", "a"))
        self.assertEqual(self.rows("top", "--once", "--sort", "name", tty=True)[2][0], "a")
        self.assertEqual(self.json("top"), agents)
        # A terminal that cannot be drawn on gets the same once.
        self.assertEqual(self.rows("top", tty=True, TERM="dumb")[0], ["2 agents: 2 online"])


class FakeFeed:
    def __init__(self, *arrivals: Any) -> None:
        self.arrivals = list(arrivals)
        self.asked = 0

    def take(self, seconds: float) -> Any:
        while self.arrivals:
            yield self.arrivals.pop(0)

    def list_soon(self) -> None:
        self.asked += 1


class LoopTests(SynchronousTestCase):
    def loop(self, feed: FakeFeed, keys: str) -> tuple[TopView, int]:
        view = TopView(Terminal(Stream(), {}), sort="cpu")
        pressed = iter(keys)
        drawn: list[int] = []
        run_loop(view, feed, lambda seconds: next(pressed), lambda: drawn.append(1))
        return view, len(drawn)

    def test_arrivals(self) -> None:
        feed = FakeFeed([measured("a", 1.0)], Event("1", "agent", {"agentId": "b"}), "no word")
        view, drawn = self.loop(feed, "nq")
        self.assertEqual((len(view.sorted()), view.trouble, feed.asked), (1, "no word", 1))
        # At first, and after what came.
        self.assertEqual(drawn, 2)

    def test_what_will_not_pass(self) -> None:
        error = HubError("the token was deleted", status=401)
        self.assertRaises(HubError, self.loop, FakeFeed(error), "nnn")


class FeedTests(ShellCase):
    def test_feed(self) -> None:
        """Events as they come, breaks as words, and the end as an error."""
        self.hub.stream(event("1", "metrics", agentId="a"), Answer(403, b"{}", {}))
        feed = Feed(Settings(self.hub.url, TOKEN))
        self.addCleanup(feed.stop)
        found: list[Any] = []
        while not any(isinstance(each, HubError) for each in found):
            arrived = list(feed.take(20))
            self.assertTrue(arrived, found)
            found += arrived
        self.assertEqual(found[0], Event("1", "metrics", {"agentId": "a"}))
        self.assertRegex(found[1], "; trying again in 1 s$")
        self.assertEqual(self.hub.requests[0].query, {"kinds": "agent,metrics"})


class KeyTests(SynchronousTestCase):
    def test_keys(self) -> None:
        """Each key as it is pressed, and the terminal as it was, also after an error."""
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        before = termios.tcgetattr(slave)
        with os.fdopen(slave, "r") as stdin:
            try:
                with keys_of(stdin) as read_key:
                    self.assertNotEqual(termios.tcgetattr(slave), before)
                    self.assertEqual(read_key(0), "")
                    os.write(master, b"c")
                    self.assertEqual(read_key(20), "c")
                    raise KeyboardInterrupt
            except KeyboardInterrupt:
                pass
            self.assertEqual(termios.tcgetattr(slave), before)

    def test_no_keys(self) -> None:
        with keys_of(Stream()) as read_key:
            self.assertEqual(read_key(0), "")
