"""`jetcamer hub`: the words of its command line, and figures as words."""

from __future__ import annotations

import argparse
import re
import sys

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.cli import main
from jetcamer.cli.hub.arguments import count, duration, names, time_ms
from jetcamer.cli.hub.sparkline import columns, sparkline
from jetcamer.cli.hub.words import (
    ago,
    ahead,
    first_line,
    milliseconds,
    short_moment,
    size,
    span,
    text,
)
from tests.cli_hub.fake_hub import ShellCase, Stream, parse


class ArgumentTests(SynchronousTestCase):
    def test_durations(self) -> None:
        for words, seconds in (
            ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), ("30", 30), ("1.5h", 5400),
            ("500ms", 0.5), ("2 min", 120), ("1w", 604_800),
        ):  # fmt: skip
            self.assertEqual(duration(words), seconds)
        for words in ("", "0", "-1h", "soon", "1y", "1e9", "nan", "9" * 30 + "d", "0s"):
            self.assertRaises(argparse.ArgumentTypeError, duration, words)

    def test_times(self) -> None:
        self.assertEqual(time_ms("2026-01-31T08:00:00Z"), 1_769_846_400_000)
        self.assertEqual(time_ms("2026-01-31 09:00:00+01:00"), 1_769_846_400_000)
        self.assertEqual(time_ms("1769846400000"), 1_769_846_400_000)
        self.assertLess(abs(time_ms("now") - time_ms("1h") - 3_600_000), 1000)
        for words in ("yesterday", "", "2026-13-01", "-1h"):
            self.assertRaises(argparse.ArgumentTypeError, time_ms, words)

    def test_counts_and_names(self) -> None:
        self.assertEqual((count("1"), names("a, b,")), (1, ["a", "b"]))
        for words in ("0", "-1", "x", "100001", "9" * 50, "١"):
            self.assertRaises(argparse.ArgumentTypeError, count, words)
        self.assertRaises(argparse.ArgumentTypeError, names, " , ")

    def test_options_anywhere(self) -> None:
        """Before the command, after it, and between its words."""
        for words in (
            ("--url", "http://x", "send", "a", "ping", "k=v"),
            ("send", "--url", "http://x", "a", "ping", "k=v"),
            ("send", "a", "--url", "http://x", "ping", "k=v"),
            ("send", "a", "ping", "--url", "http://x", "k=v"),
            ("--url", "http://y", "send", "a", "ping", "k=v", "--url", "http://x"),
        ):
            args = parse(words)
            self.assertEqual((args.url, args.words), ("http://x", ["a", "ping", "k=v"]))

    def test_words_with_a_dash(self) -> None:
        self.assertEqual(parse(("send", "--", "a", "ping", "-x=1")).words, ["a", "ping", "-x=1"])


class UsageTests(ShellCase):
    def test_help_ends_as_a_sentence(self) -> None:
        """And begins so; in a list it is neither."""
        for words in (("refusals",), ("status",), ("access",), ("audit",), ("bans", "lift")):
            self.assertEqual(self.shell(*words, "--help"), 0)
            self.assertRegex(self.out, r"\n\n[A-Z][^.]*\.\n\n")
        self.assertEqual(self.shell("--help"), 0)
        _, _, listed = self.out.partition("COMMAND\n")
        lines = re.findall(r"^    [a-z]+  .*", listed.partition("\n\n")[0], re.M)
        self.assertGreater(len(lines), 10)
        for line in lines:
            self.assertRegex(line, "^    [a-z]+ +[a-z]")

    def test_errors_name_the_whole_command(self) -> None:
        for words, prog in (
            (("access", "delete", "x", "--no"), "access delete"),
            (("send", "--", "a", "ping", "--no"), None),
            (("agent", "--no", "list"), "agent"),
            (("audit", "verify", "x"), "audit verify"),
            (("bans", "lift", "a", "b"), "bans lift"),
        ):
            status = self.shell(*words)
            if prog is not None:
                self.assertEqual(status, 2)
                self.assertTrue(
                    self.err.startswith(f"jetcamer hub {prog}: unrecognized arguments: "), self.err
                )

    def test_errors_of_the_whole_program(self) -> None:
        for words, prog in (
            (("hub", "--loud", "status"), "jetcamer hub"),
            (("hub", "status", "--loud"), "jetcamer hub status"),
            (("version", "--loud"), "jetcamer version"),
            (("--loud", "version"), "jetcamer"),
        ):
            self.patch(sys, "stderr", err := Stream())
            self.assertEqual(self.assertRaises(SystemExit, main, words).code, 2)
            error = err.getvalue().splitlines()[0]
            self.assertEqual(error, f"{prog}: unrecognized arguments: --loud")

    def test_errors(self) -> None:
        """One line about what is wrong, one about help, status 2, and no word to the hub."""
        for words, said in (
            ((), "COMMAND"),
            (("dance",), "dance"),
            (("agents", "--loud"), "--loud"),
            (("agents", "--sea", "x"), "--sea"),
            (("agents", "--state", "asleep"), "asleep"),
            (("agents", "--token", "secret"), "--token"),
            (("show",), "ID"),
            (("agent",), "ACTION"),
            (("agent", "add"), "NAME"),
            (("send", "web-01"), "which command"),
            (("send", "web-01", "ping", "loud"), "'loud' is not an argument: name=value"),
            (("send", "web-01", "ping", "=x"), "name=value"),
            (("send", "web-01", "ping", "a=1", "a=2"), "twice"),
            (("send", "--all", "--agents", "a", "ping"), "not allowed"),
            (("send", "--all", "web-01", "ping"), "'ping' is not an argument"),
            (("send", "web-01", "ping", "--timeout", "soon"), "is not a duration"),
            (("send", "web-01", "ping", "--no-wait"), "many agents"),
            (("logs", "x", "-n", "0"), "from 1 to 100000"),
            (("logs", "x", "-f", "--to", "now"), "--follow has no --to"),
            (("events", "--kinds", "metrics,weather"), "'weather' is none of"),
            (("events", "--after", "a\nb"), "is not the id of an event"),
            (("access", "create", "--name", "x"), "--role"),
            (("access", "create", "--name", "x", "--role", "king"), "king"),
            (("agent", "revoke", "x"), "say --yes"),
            (("token", "create", "--expires", "never"), "is not a duration"),
        ):
            self.assertEqual(self.shell(*words), 2, words)
            error, help_line = self.err.splitlines()
            self.assertIn(said, error)
            self.assertRegex(help_line, r"^Try 'jetcamer hub[ a-z]* --help'\.$")
            self.assertEqual(self.out, "")
        self.assertEqual(self.hub.requests, [])

    def test_help(self) -> None:
        """Every command has one, and it names its own options."""
        for words in (
            (), ("agents",), ("show",), ("sessions",), ("metrics",), ("logs",), ("commands",),
            ("refusals",), ("events",), ("top",), ("send",), ("status",), ("backup",),
            ("agent",), ("agent", "add"), ("agent", "list"), ("agent", "rotate"),
            ("agent", "revoke"), ("agent", "restore"), ("token",), ("token", "create"),
            ("token", "list"),
            ("token", "delete"), ("access",), ("access", "create"), ("access", "list"),
            ("access", "delete"), ("audit",), ("audit", "list"), ("audit", "verify"),
            ("bans",), ("bans", "list"), ("bans", "lift"),
        ):  # fmt: skip
            self.assertEqual(self.shell(*words, "--help"), 0)
            self.assertIn("usage: " + " ".join(("jetcamer hub", *words)), self.out)


class WordsTests(SynchronousTestCase):
    def test_ago(self) -> None:
        now = 10_000_000_000
        for seconds, words in (
            (0, "just now"), (-1, "just now"), (45, "45 s ago"), (180, "3 min ago"),
            (7200, "2 h ago"), (200_000, "2 d ago"), (-3600, "in 60 min"), (-86_400, "in 24 h"),
        ):  # fmt: skip
            self.assertEqual(ago(now - seconds * 1000, now), words)
        self.assertEqual(ago(None, now), "-")
        self.assertEqual(span(0), "0 s")

    def test_ahead(self) -> None:
        """What is to come is never just now."""
        now = 10_000_000_000
        for ms, words in (
            (1, "in 1 s"), (1600, "in 2 s"), (3_600_000, "in 60 min"), (0, "just now"),
            (-5000, "5 s ago"),
        ):  # fmt: skip
            self.assertEqual(ahead(now + ms, now), words)
        self.assertEqual(ahead(None, now), "-")

    def test_short_words(self) -> None:
        now = time_ms("2026-01-31T20:00:05")
        for words, short in (
            ("2026-01-31T08:00:01", "08:00:01"),
            ("2026-01-30T08:00:01", "01-30 08:00"),
        ):
            self.assertEqual(short_moment(time_ms(words), now), short)
        self.assertEqual((short_moment(None, now), short_moment(1e300, now)), ("-", "1e+300"))
        for value, line in (
            ("one\n", "one"), ("one\ntwo\n", "one …"), ("\n a \r\nb", "a …"), ("", "-"),
            (None, "-"), ("a\x1b\nb", "a\\x1b …"), (5, "5"),
        ):  # fmt: skip
            self.assertEqual(first_line(value, " …"), line)

    def test_figures(self) -> None:
        self.assertEqual([size(each) for each in (0, 12_000, 5e7, 2e10, 5e13, None)],
                         ["0 B", "12 kB", "50 MB", "20 GB", "50 TB", "-"])  # fmt: skip
        self.assertEqual((milliseconds(12.4), milliseconds(95_000)), ("12 ms", "2 min"))
        self.assertEqual(
            [text(each) for each in (None, "", [], {}, True, ["a", 1], {"k": "v"}, "\x07")],
            ["-", "-", "-", "-", "yes", "a, 1", "k=v", "\\x07"],
        )

    def test_sparkline(self) -> None:
        values = [0, 50, 100, None, -5, 1000]
        self.assertEqual(sparkline(values, unicode=True), "▁▅█ ▁█")
        self.assertEqual(sparkline(values, unicode=False), "_=# _#")
        self.assertEqual(
            columns([(0, 10.0), (1, 20.0), (10, 30.0), (99, 1.0), (5, None)], 0, 10, 2), [15, 30]
        )
        self.assertEqual(columns([(5, 1.0)], 5, 5, 3), [1, None, None])
