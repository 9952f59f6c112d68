"""Which command runs when, for how long, and what is answered."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from jetcamer.agent.commands import (
    CommandDispatcher,
    CommandOutcome,
    CommandRegistry,
    DeclaredProcess,
    ICommand,
    ProcessRunner,
    compile_declared,
)
from jetcamer.agent.commands.builtin import RunHealthCheck
from jetcamer.agent.health import HealthCheck
from tests.agent.commands.support import ProcessTestCase, alive, until


@implementer(ICommand)
class Does:
    """A command that does what it is told."""

    def __init__(
        self, name: str, does: Callable[[Mapping[str, str]], Any], timeout: Any = None
    ) -> None:
        self.name = name
        self.run = does
        self.timeout_seconds = timeout


class DispatcherTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = CommandRegistry()
        self.dispatcher = CommandDispatcher(self.clock, self.registry)
        self.pending: list[Deferred[Any]] = []
        self.cancelled: list[Deferred[Any]] = []
        self.registry.add(Does("wait", self.wait))

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def wait(self, args: Mapping[str, str]) -> Deferred[Any]:
        self.pending.append(Deferred(self.cancelled.append))
        return self.pending[-1]

    def answer(self, does: Callable[[Mapping[str, str]], Any], **args: str) -> dict[str, Any]:
        """What is sent back for a command that does this."""
        registry = CommandRegistry([Does("it", does)])
        dispatcher = CommandDispatcher(self.clock, registry)
        return self.successResultOf(dispatcher.submit("it", args, "n-1"))

    def submit(self, name: str = "wait", nonce: str = "n") -> Deferred[dict[str, Any]]:
        return self.dispatcher.submit(name, {}, nonce)


class AnswerTests(DispatcherTestCase):
    async def coroutine(self, args: Mapping[str, str]) -> str:
        return await succeed("pong")

    def test_whatever_a_command_may_return(self) -> None:
        expected = {"command": "it", "result": "pong", "error": "", "inReplyTo": "n-1"}
        for does in (
            lambda args: "pong",
            lambda args: CommandOutcome("pong"),
            lambda args: succeed("pong"),
            lambda args: succeed(CommandOutcome("pong", details={})),
            self.coroutine,
        ):
            self.assertEqual(self.answer(does), expected)

    def test_details(self) -> None:
        payload = self.answer(lambda args: CommandOutcome("a", "b", {"c": [1.5]}))
        self.assertEqual(
            list(payload.items()),
            [
                ("command", "it"),
                ("result", "a"),
                ("error", "b"),
                ("inReplyTo", "n-1"),
                ("details", {"c": [1.5]}),
            ],
        )

    def test_arguments_are_handed_over(self) -> None:
        self.assertEqual(self.answer(lambda args: args["x"], x="1")["result"], "1")

    def test_unknown(self) -> None:
        with capturedLogs() as events:
            payload = self.successResultOf(self.submit("rm\n[ws] executing command: ping"))
        self.assertEqual(
            (payload["result"], payload["error"]), ("unknown_command", "command not recognized")
        )
        self.assertEqual(payload["inReplyTo"], "n")
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["[ws] unknown command: rm?[ws] executing command: ping"],
        )

    def test_an_exception(self) -> None:
        def fails(args: Mapping[str, str]) -> None:
            raise KeyError("first\nsecond")

        async def fails_later(args: Mapping[str, str]) -> None:
            await succeed(None)
            raise ValueError("first\nsecond")

        payload = self.answer(fails)
        self.assertEqual((payload["result"], payload["error"]), ("", "KeyError: 'first\\nsecond'"))
        self.assertEqual(self.answer(fails_later)["error"], "ValueError: first")
        self.assertEqual(len(self.flushLoggedErrors(KeyError, ValueError)), 2)

    def test_an_exception_of_the_worst_kind(self) -> None:
        class Bad(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no words")

        def bad(args: Mapping[str, str]) -> None:
            raise Bad

        def leave(args: Mapping[str, str]) -> None:
            raise SystemExit(1)

        self.assertTrue(self.answer(bad)["error"].startswith("Bad: "))
        self.assertEqual(self.answer(leave)["error"], "SystemExit: 1")
        self.assertEqual(len(self.flushLoggedErrors(Bad, SystemExit)), 2)

    def test_what_is_no_answer(self) -> None:
        loop: dict[str, Any] = {}
        loop["loop"] = loop
        for does, words in [
            (lambda args: None, "TypeError: the command returned NoneType"),
            (lambda args: b"pong", "TypeError: the command returned bytes"),
            (lambda args: CommandOutcome(5), "TypeError: result and error must be text"),
            (lambda args: CommandOutcome(error=None), "TypeError: result and error must be text"),
            (lambda args: CommandOutcome(details=[1]), "TypeError: details must be a dict"),
            (
                lambda args: CommandOutcome(details={"a": object()}),
                "TypeError: details cannot be written as JSON: ",
            ),
            (
                lambda args: CommandOutcome(details={1: 2}),
                "TypeError: details cannot be written as JSON: ",
            ),
            (
                lambda args: CommandOutcome(details=loop),
                "TypeError: details cannot be written as JSON: ",
            ),
            (
                lambda args: CommandOutcome(details={"a": "x" * 300_000}),
                "ValueError: details take 300032 bytes, more than 262144",
            ),
        ]:
            payload = self.answer(does)
            self.assertEqual(payload["result"], "")
            self.assertTrue(payload["error"].startswith(words), payload["error"])
            self.assertNotIn("details", payload)
        self.assertEqual(len(self.flushLoggedErrors(TypeError, ValueError)), 9)

    def test_text_without_measure_is_cut(self) -> None:
        payload = self.answer(lambda args: CommandOutcome("x" * 100_001, "y" * 1_002))
        self.assertEqual(payload["result"], "x" * 100_000 + "\n[1 more were cut]")
        self.assertEqual(payload["error"], "y" * 1_000 + "\n[2 more were cut]")

    def test_what_the_log_says(self) -> None:
        with capturedLogs() as events:
            self.answer(lambda args: "pong", secret="hunter2")
            self.answer(lambda args: CommandOutcome(error="no\n[ws] fake"))
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "[ws] executing command: it",
                "[ws] command result: it: ok (0.000 s)",
                "[ws] executing command: it",
                "[ws] command result: it: no?[ws] fake (0.000 s)",
            ],
        )

    def test_the_log_tells_what_a_health_check_came_to(self) -> None:
        """That it could be made is not that all is well."""
        checks = [HealthCheck("disk", "fail", "full")]
        registry = CommandRegistry([RunHealthCheck(lambda: succeed(checks))])
        dispatcher = CommandDispatcher(self.clock, registry)
        with capturedLogs() as events:
            self.successResultOf(dispatcher.submit("run_health_check", {}, "n"))
        self.assertEqual(
            formatEvent(events[-1]),
            "[ws] command result: run_health_check: health_degraded (0.000 s)",
        )


class QueueTests(DispatcherTestCase):
    def test_four_run_thirty_two_wait_the_next_is_told_so(self) -> None:
        answers = [self.submit(nonce=f"n{number}") for number in range(36)]
        self.assertEqual(len(self.pending), 4)
        refused = self.successResultOf(self.submit(nonce="late"))
        self.assertEqual(
            refused, {"command": "wait", "result": "", "error": "busy", "inReplyTo": "late"}
        )
        for number, answer in enumerate(answers):
            self.assertNoResult(answer)
            self.pending[number].callback(f"r{number}")
            payload = self.successResultOf(answer)
            self.assertEqual(
                (payload["result"], payload["inReplyTo"]), (f"r{number}", f"n{number}")
            )
            self.assertEqual(len(self.pending), min(36, 5 + number))

    def test_an_unknown_command_needs_no_place(self) -> None:
        answers = [self.submit() for _ in range(36)]
        self.assertEqual(self.successResultOf(self.submit("x"))["result"], "unknown_command")
        for number in range(36):
            self.pending[number].callback("")
        for answer in answers:
            self.successResultOf(answer)

    def test_many_quick_ones_after_a_slow_one(self) -> None:
        self.registry.add(Does("quick", lambda args: "done"))
        slow = [self.submit() for _ in range(4)]
        quick = [self.submit("quick") for _ in range(32)]
        self.pending[0].callback("")
        for answer in quick:
            self.assertEqual(self.successResultOf(answer)["result"], "done")
        for number in range(1, 4):
            self.pending[number].callback("")
        for answer in slow:
            self.successResultOf(answer)


class DeadlineTests(DispatcherTestCase):
    def test_counts_from_the_start_of_running(self) -> None:
        answers = [self.submit() for _ in range(5)]
        self.clock.advance(29)
        self.pending[0].callback("")
        self.clock.advance(1)
        for answer in answers[1:4]:
            payload = self.successResultOf(answer)
            self.assertEqual(payload["error"], "timed out after 30 s")
            self.assertEqual(payload["details"], {"timedOut": True})
        self.clock.advance(28)
        self.assertNoResult(answers[4])
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(answers[4])["error"], "timed out after 30 s")
        self.assertEqual(self.cancelled, self.pending[1:])

    def test_a_commands_own(self) -> None:
        self.registry.add(Does("brief", self.wait, 0.5))
        answer = self.submit("brief")
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(answer)["error"], "timed out after 0.5 s")

    def test_what_a_cancelled_command_still_says_is_kept(self) -> None:
        cleaned: Deferred[None] = Deferred()

        async def careful(args: Mapping[str, str]) -> CommandOutcome:
            try:
                await Deferred()
            except CancelledError:
                await cleaned
            return CommandOutcome("half done", details={"rows": 7})

        self.registry.add(Does("careful", careful))
        answer = self.submit("careful")
        self.clock.advance(30)
        self.assertNoResult(answer)
        cleaned.callback(None)
        self.assertEqual(
            self.successResultOf(answer),
            {
                "command": "careful",
                "result": "half done",
                "error": "timed out after 30 s",
                "inReplyTo": "n",
                "details": {"rows": 7, "timedOut": True},
            },
        )

    def test_a_command_that_will_not_be_cancelled(self) -> None:
        cancelled = []
        late: Deferred[str] = Deferred()

        async def deaf(args: Mapping[str, str]) -> str:
            while len(cancelled) < 2:
                try:
                    await Deferred()
                except CancelledError:
                    cancelled.append(self.clock.seconds())
            return await late

        self.registry.add(Does("deaf", deaf))
        answer = self.submit("deaf")
        rest = [self.submit() for _ in range(4)]
        self.clock.advance(30)
        self.clock.advance(2)
        self.assertEqual(cancelled, [30, 32])
        self.assertEqual(self.cancelled, self.pending[:3])
        with capturedLogs() as events:
            self.clock.advance(1)
            late.callback("at last")
        self.assertEqual(self.successResultOf(answer)["error"], "timed out after 30 s")
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "[ws] command deaf goes on although it was cancelled",
                "[ws] command result: deaf: timed out after 30 s (33.000 s)",
            ],
        )
        self.pending[3].callback("")
        for other in rest:
            self.successResultOf(other)

    def test_an_error_while_it_is_cancelled_is_logged(self) -> None:
        async def clumsy(args: Mapping[str, str]) -> str:
            try:
                await Deferred()
            finally:
                raise ZeroDivisionError

        self.registry.add(Does("clumsy", clumsy))
        answer = self.submit("clumsy")
        self.clock.advance(30)
        self.assertEqual(self.successResultOf(answer)["error"], "timed out after 30 s")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class StopTests(DispatcherTestCase):
    def test_nothing_runs(self) -> None:
        self.assertIsNone(self.successResultOf(self.dispatcher.stop()))
        self.assertIsNone(self.successResultOf(self.dispatcher.stop()))
        self.assertEqual(self.successResultOf(self.submit())["error"], "the agent is stopping")

    def test_all_are_answered(self) -> None:
        answers = [self.submit(nonce=str(number)) for number in range(10)]
        self.successResultOf(self.dispatcher.stop())
        for number, answer in enumerate(answers):
            self.assertEqual(
                self.successResultOf(answer),
                {
                    "command": "wait",
                    "result": "",
                    "error": "the agent is stopping",
                    "inReplyTo": str(number),
                },
            )
        self.assertEqual(len(self.pending), 4)

    def test_waits_for_those_that_clean_up_but_not_long(self) -> None:
        async def deaf(args: Mapping[str, str]) -> str:
            while True:
                try:
                    await Deferred()
                except CancelledError:
                    continue

        self.registry.add(Does("deaf", deaf))
        answer = self.submit("deaf")
        stopped = self.dispatcher.stop()
        again = self.dispatcher.stop()
        self.clock.pump([0.5, 0.2])
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.successResultOf(stopped)
        self.successResultOf(again)
        self.assertEqual(self.successResultOf(answer)["error"], "the agent is stopping")

    def test_takes_commands_again_once_it_is_started_again(self) -> None:
        self.registry.add(Does("pong", lambda args: "pong"))
        self.successResultOf(self.dispatcher.stop())
        self.assertEqual(
            self.successResultOf(self.submit("pong"))["error"], "the agent is stopping"
        )
        self.dispatcher.start()
        self.assertEqual(self.successResultOf(self.submit("pong"))["result"], "pong")


class ProcessTreeTests(ProcessTestCase):
    """The deadline and the stop of a declared command, with real processes."""

    #: Three generations; the last two ignore SIGTERM, and one left the group as daemons do.
    TREE = """
        trap '' TERM
        sh -c 'echo $$ > '$0'/child
               sh -c "echo \\$\\$ > '$0'/grandchild; while :; do sleep 1; done" &
               while :; do sleep 1; done' &
        setsid sh -c 'echo $$ > '$0'/daemon; exec sleep 600' &
        mark top $$
        echo started
        trap - TERM
        wait
    """
    NAMES = ("top", "child", "grandchild", "daemon")

    async def start(self) -> tuple[Clock, CommandDispatcher, Deferred[dict[str, Any]]]:
        script = self.script(self.TREE.replace("$0", str(self.folder)))
        template = compile_declared("tree", script, 20, {})
        runner = ProcessRunner(reactor, os.environ)
        clock = Clock()
        registry = CommandRegistry([DeclaredProcess(template, runner)])
        dispatcher = CommandDispatcher(clock, registry)
        answer = dispatcher.submit("tree", {}, "n")
        await until(lambda: self.has_marked(*self.NAMES))
        return clock, dispatcher, answer

    def assert_gone(self) -> None:
        for name in self.NAMES:
            self.assertEqual(alive(self.marked(name)), name == "daemon", name)

    async def test_the_deadline_ends_the_whole_group(self) -> None:
        clock, _, answer = await self.start()
        clock.advance(20)
        self.assertTrue(alive(self.marked("grandchild")))
        await until(lambda: not alive(self.marked("top")))
        self.assertTrue(alive(self.marked("grandchild")), "it ignores SIGTERM")
        clock.advance(2)
        payload = await answer
        self.assert_gone()
        self.assertEqual(payload["error"], "timed out after 20 s")
        self.assertEqual(payload["result"], "started\n")
        self.assertTrue(payload["details"].pop("durationMs") >= 0)
        self.assertEqual(payload["details"], {"signal": "SIGTERM", "timedOut": True})
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_stopping_ends_the_whole_group(self) -> None:
        clock, dispatcher, answer = await self.start()
        stopped = dispatcher.stop()
        clock.advance(0.5)
        await stopped
        self.assert_gone()
        self.assertEqual((await answer)["error"], "the agent is stopping")
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_a_program_that_is_not_there(self) -> None:
        template = compile_declared("gone", ["/no/such/program"], None, {})
        registry = CommandRegistry([DeclaredProcess(template, ProcessRunner(reactor, {}))])
        payload = await CommandDispatcher(reactor, registry).submit("gone", {}, "n")
        self.assertEqual(payload["error"], "/no/such/program does not exist")
