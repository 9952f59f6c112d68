r"""Regular expressions of the configuration: the fit ones pass, those that stand still do not."""

from __future__ import annotations

import signal
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from jetcamer.agent.logs import pattern_check
from jetcamer.agent.logs.pattern_check import check_pattern, hostile_texts

#: Each stands still on a text of 24 characters, however long one waits.
ENDLESS = [
    r"(?P<a>(a+)+$)",
    r"(?P<a>(.*)*x)",
    r"(?P<a>(\S+\s*)+$)",
    r"(?P<q>['\"])(?P<x>(?:\w+ ?)+)(?P=q)",
    # Other kinds of repeat, other places.
    r"(?P<a>a)|(?P<b>(b+)+c)",
    r"(?P<a>(?=(b+)+c)b)",
    r"(?P<a>(?>(b+)+c))",
    r"(?P<a>(a{1,9}){1,40}b)",
    r"(?P<a>(?:x?){25}x{25}y)",
    r"(?x) (?P<a> (b+)+ )  # it never fails, and the next change makes it",
    r"(?i)(?P<a>(b+)+)C",
    r"(?P<a>(é+)+ñ)",
]
SLOW = [
    r"(?P<a>.*.*.*.*.*=)",
    # The fault is reached only after something else.
    r"(?P<ip>\S+) \[(?P<x>(\w+\s?)*)\]$",
    r"^(?P<ip>\S+) - - \[[^]]+\] \"GET (?P<path>(?:/\w*)+(?:/?\w*)*)\?",
    r"(?P<k>k=(?P<v>([^;]+;?)+)) end",
    r"(?P<ip>\S+) (?P<x>(?:\"(?:[^\"\\]|\\.|\\)*\" ?)+)$",
    r"(?P<a>x)?(?(a)y|z)(?P<b>(c|cc)+)d",
    # Other kinds of repeat.
    r"(?P<a>(?:b+?)+?c)",
    r"(?P<a>.*)(?P<b>.*)=",
    r"(?P<a>.*) (?P<b>.*) (?P<c>.*) (?P<d>.*) x$",
    r"(?P<a>.*?,.*?,.*?,.*?,.*?,.*?,P)",
    # Only before an end that does not fit; only where two characters take turns.
    r"(?P<a>\d*\d*\d*)$",
    r"(?P<a>(?:z9)?(?:[a-p]|qz|z|q|[A-F])+)!",
]
FIT = [
    r'^(?P<ip>\S+) \S+ \S+ \[(?P<ts>[^\]]+)\] "(?P<method>\S+) (?P<path>\S+) [^"]*" '
    r'(?P<status>\d+) (?P<bytes>\S+) "(?P<referer>[^"]*)" "(?P<ua>[^"]*)"',
    r"(?P<ts>\S+) (?P<level>[A-Z]+) (?P<message>.*)",
    r"(?P<ts>.*?) (?P<level>[A-Z]+): (?P<message>.*)$",
    r'\{"ip":"(?P<ip>[^"]*)","status":(?P<status>\d+),"path":"(?P<path>(?:[^"\\]|\\.)*)"\}',
    r"(?P<ip>[\d.]+|[0-9a-f:]+)\t(?P<x>[^\t]*)\t(?P<y>[^\t]*)\t(?P<z>.*)",
    r"(?P<ip>(?:\d{1,3}\.){3}\d{1,3}) .*rt=(?P<rt>[\d.]+)",
    r"(?x) (?P<a> \w+ )  # a word",
    r"(?i)(?P<level>error|warn|info)\b(?P<rest>.*)",
    r"(?P<a>a++)+b",
    r"(?P<q>['\"])(?P<x>[^'\"]*)(?P=q)",
    r"(?P<a>)",
    r"(?P<a>a)|b",
]


PIECES = ["(?P<a>", "(?:", ")", "a", "b", ".", "*", "+", "?", "|", "[^a]", r"\d", r"\S", "{2,9}",
          "^", "$", "(?=", "(?!", "(?<=", "(?>", "++", "[a-f]", r"\b", "(?(1)", "(?i:", "é",
          r"\1"]  # fmt: skip


class Check(SynchronousTestCase):
    def refused(self, regex: str, words: str) -> None:
        with self.assertRaises(ValueError, msg=regex) as caught:
            check_pattern(regex)
        self.assertIn(words, str(caught.exception), regex)
        self.assertEqual(len(str(caught.exception).splitlines()), 1)

    def test_slow(self) -> None:
        for regex in SLOW:
            self.refused(regex, "takes too long on some lines")

    def test_endless(self) -> None:
        """The whole limit would be waited out for nothing: a fifth of it tells as much."""
        self.patch(pattern_check, "TEXT_LIMIT", pattern_check.TEXT_LIMIT / 5)
        for regex in ENDLESS:
            self.refused(regex, "takes too long on some lines")

    def test_fit(self) -> None:
        for regex in FIT:
            check_pattern(regex)

    def test_no_expression(self) -> None:
        for regex in ("(", "(?P<a>", "[", "(?P<1>a)", "a{2,1}(?P<a>a)", "(?P<a>a)(?P=b)", "*",
                      "(?P<a>.{99999999999})", "(" * 2000, "\\"):  # fmt: skip
            self.refused(regex, "not a regular expression: ")

    def test_nothing_named(self) -> None:
        for regex in ("", "a", "(a)", ".*"):
            self.refused(regex, "has no named group")

    def test_length(self) -> None:
        self.refused("(?P<a>a)" * 1000, "longer than 4096 characters")

    def test_signals_are_as_before(self) -> None:
        def other(*_: Any) -> None:
            raise AssertionError

        before = signal.signal(signal.SIGVTALRM, other)
        self.addCleanup(signal.signal, signal.SIGVTALRM, before)
        self.addCleanup(signal.setitimer, signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 1000.0, 500.0)
        check_pattern.__wrapped__(FIT[0])
        self.refused(ENDLESS[0], "takes too long")
        self.assertIs(signal.getsignal(signal.SIGVTALRM), other)
        left, interval = signal.getitimer(signal.ITIMER_VIRTUAL)
        self.assertTrue(900 < left <= 1000.1)
        self.assertEqual(round(interval), 500)

    def test_a_slow_machine_refuses_nothing(self) -> None:
        """Where time runs out over the long texts, each of which was read in time by itself."""
        short = sum(length < 8192 for length, _, _ in hostile_texts(FIT[1]))
        shortest = sum(length == 24 and not b for length, _, b in hostile_texts(FIT[1]))
        # The clock is read at the beginning, for each text, and for the shortest once more,
        # when they must fail.
        times = iter([0.0] * (1 + short + shortest))
        self.patch(pattern_check, "thread_time", lambda: next(times, 1.0))
        check_pattern.__wrapped__(FIT[1])
        self.assertEqual(next(times, None), None)
        times = iter([0.0] * short)
        with self.assertRaises(ValueError):
            check_pattern.__wrapped__(FIT[1])

    def test_texts_lead_into_each_repeat(self) -> None:
        texts = {
            text[:40] for _, text, _ in hostile_texts(r"id=(?P<id>\d{3})/(?:x|y)[^a](?P<b>z*)")
        }
        self.assertTrue(any(text.startswith("id=000/x0zzzzzz") for text in texts))
        self.assertLessEqual(
            max(len(text) for _, text, _ in hostile_texts(r"(?P<a>\w)+")), 8192 + 1
        )

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
    def test_any_expression(self, regex: str) -> None:
        try:
            check_pattern(f"(?P<z>){regex}")
        except ValueError as error:
            self.assertEqual(len(str(error).splitlines()), 1)


class Threads(TestCase):
    """Outside of the main thread a child process does it."""

    async def results(self, *expressions: str) -> list[str]:
        from twisted.internet import reactor

        pool = ThreadPool(1, 1)
        pool.start()
        try:
            return [
                await deferToThreadPool(reactor, pool, self.words, regex) for regex in expressions
            ]
        finally:
            pool.stop()

    def words(self, regex: str) -> str:
        try:
            check_pattern.__wrapped__(regex)
        except ValueError as error:
            return str(error)[:20]
        return "fit"

    async def test_another_thread(self) -> None:
        found = await self.results(ENDLESS[0], FIT[0], r"(?P<a>(é+)+ñ)", "(")
        slow = "takes too long on so"
        self.assertEqual(found, [slow, "fit", slow, "not a regular expres"])

    async def test_no_child(self) -> None:
        self.patch(sys, "executable", "/nonexistent")
        self.assertEqual(await self.results(FIT[0]), ["cannot be tried out:"])
