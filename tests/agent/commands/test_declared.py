"""What the operator declares, and what a server can make of it."""

from __future__ import annotations

import re

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.commands import (
    ArgvTemplate,
    DeclaredProcess,
    ProcessRunner,
    compile_declared,
)
from tests.agent.commands.support import ProcessTestCase
from tests.support.tools import require_program

UNIT = r"nginx(@[0-9]+)?"


def declared(
    argv: tuple[str, ...] = ("systemctl", "restart", "{unit}"), **args: str
) -> ArgvTemplate:
    return compile_declared("restart_nginx", argv, 20, args or {"unit": UNIT})


class CompileTests(SynchronousTestCase):
    def refused(self, words: str, *args: object) -> None:
        with self.assertRaises(ValueError) as caught:
            compile_declared(*args)
        self.assertEqual(str(caught.exception), words)

    def test_the_member_at_fault_is_named(self) -> None:
        where = "commands.x"
        for words, argv, args in [
            (f"{where}.argv: names no program", [], {}),
            (f"{where}.argv: names no program", [""], {}),
            (f"{where}.argv[0]: must be an absolute path or a bare name", ["./a"], {}),
            (f"{where}.argv[0]: the program cannot be a placeholder", ["{a}"], {"a": "b"}),
            (f"{where}.argv[1]: holds a NUL character", ["a", "b\0c"], {}),
            (f"{where}.argv[1]: {{unit}} is not named in args", ["a", "{unit}"], {}),
            (f"{where}.args.unit: no item of argv is {{unit}}", ["a"], {"unit": "b"}),
            (
                f"{where}.argv[1]: a placeholder must fill the whole item",
                ["a", "--x={unit}", "{unit}"],
                {"unit": "b"},
            ),
            (
                f"{where}.args.unit: not a regular expression: "
                "missing ), unterminated subpattern at position 0",
                ["a", "{unit}"],
                {"unit": "("},
            ),
            (
                f"{where}.args: 'u-n' is not an argument's name "
                "(a letter or '_', then letters, digits or '_')",
                ["a"],
                {"u-n": "b"},
            ),
        ]:
            self.refused(words, "x", argv, None, args)

    def test_names(self) -> None:
        self.refused(
            "commands.ping: the agent has a command of this name already", "ping", ["a"], None, {}
        )
        for name in ("", "Ping", "a b", "a" * 65, "é", "a\n"):
            with self.assertRaisesRegex(ValueError, "^commands: .* is not a command's name"):
                compile_declared(name, ["a"], None, {})

    def test_a_deadline_is_a_time_in_the_future(self) -> None:
        for seconds in (0, -1, float("nan"), float("inf"), 86_401):
            self.refused(
                "commands.x.timeoutSeconds: must be above 0 and at most 86400",
                "x",
                ["a"],
                seconds,
                {},
            )

    def test_other_braces_are_literal(self) -> None:
        argv = ("find", "/", "-exec", "{}", "{{.Names}}", "a{b,c}", "x{none}y")
        self.assertEqual(compile_declared("x", argv, None, {}).fill({}), argv)


class FillTests(SynchronousTestCase):
    def refused(self, words: str, template: ArgvTemplate, args: dict[str, str]) -> None:
        with self.assertRaises(ValueError) as caught:
            template.fill(args)
        self.assertEqual(str(caught.exception), words)

    def test_a_value_is_one_item(self) -> None:
        self.assertEqual(declared().fill({"unit": "nginx@3"}), ("systemctl", "restart", "nginx@3"))

    def test_a_value_is_not_expanded_again(self) -> None:
        template = compile_declared("x", ["a", "{p}", "{q}"], None, {"p": ".*", "q": ".*"})
        self.assertEqual(template.fill({"p": "{q}", "q": "{p}"}), ("a", "{q}", "{p}"))

    def test_the_argument_is_named_and_its_value_is_not(self) -> None:
        pattern = f"argument unit does not match {UNIT}"
        for words, args in [
            ("argument unit is missing", {}),
            ("unknown argument 'unti' (known: unit)", {"unti": "nginx"}),
            (pattern, {"unit": "sshd"}),
            (pattern, {"unit": "nginx@"}),
            (pattern, {"unit": "nginx\n"}),
            (pattern, {"unit": "nginx; reboot"}),
            (pattern, {"unit": ""}),
            ("argument unit begins with '-'", {"unit": "-nginx"}),
            ("argument unit holds a NUL character", {"unit": "nginx\0"}),
            ("argument unit is not valid Unicode", {"unit": "nginx\ud800"}),
            ("argument unit is longer than 1024 bytes", {"unit": "é" * 513}),
        ]:
            self.refused(words, declared(), args)

    def test_an_option_is_refused_even_where_the_pattern_allows_it(self) -> None:
        template = declared(unit=".*")
        self.refused("argument unit begins with '-'", template, {"unit": "--force"})
        self.assertEqual(template.fill({"unit": ""})[2], "")

    def test_a_pattern_cannot_stop_the_agent(self) -> None:
        template = declared(unit="(a+)+")
        self.refused(
            "argument unit takes too long to match its pattern",
            template,
            {"unit": "a" * 100 + "!"},
        )
        self.assertEqual(template.fill({"unit": "aaa"})[2], "aaa")

    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        pattern=st.sampled_from([UNIT, ".*", "(?s).*", "[^;]+", "a|b", r"\w+", "^a$", "-.*", ""]),
        value=st.one_of(
            st.text(st.characters(codec=None), max_size=40),
            st.sampled_from(["nginx", "nginx@1", "a", "a\n", "--", "-x", "{unit}", "$(id)", "\0"]),
        ),
    )
    @example(pattern="(?s).*", value="a b\tc\n'\"\\")
    def test_what_passes_is_one_item_that_matches(self, pattern: str, value: str) -> None:
        argv = ("prog", "first", "{unit}", "last")
        try:
            filled = declared(argv, unit=pattern).fill({"unit": value})
        except ValueError as error:
            self.assertTrue(str(error).startswith("argument unit "), error)
            return
        self.assertEqual(filled, ("prog", "first", value, "last"))
        self.assertIsNotNone(re.fullmatch(pattern, value))
        self.assertFalse(value.startswith("-"))
        self.assertNotIn("\0", value)


class DeclaredProcessTests(ProcessTestCase):
    """A real program is told exactly what the server sent."""

    async def run_with(self, value: str, pattern: str = "(?s).*") -> tuple[str, str]:
        script = 'printf "%s|" "$#" "$@"'
        argv = (require_program("sh"), "-c", script, "sh", "{value}", "end")
        template = compile_declared("show", argv, None, {"value": pattern})
        command = DeclaredProcess(template, ProcessRunner(reactor, {}))
        outcome = await Deferred.fromCoroutine(command.run({"value": value}))
        return outcome.result, outcome.error

    async def test_nothing_is_interpreted(self) -> None:
        for value in ("$(id)", "`id`", "; id", "a b", "*", "", "a\nb", "'\"\\", "é 😀", "${HOME}"):
            self.assertEqual(await self.run_with(value), (f"2|{value}|end|", ""))

    async def test_a_refusal_runs_nothing(self) -> None:
        self.assertEqual(await self.run_with("b", "a"), ("", "argument value does not match a"))

    def test_carries_the_deadline_of_the_configuration(self) -> None:
        self.assertEqual(DeclaredProcess(declared(), None).timeout_seconds, 20)
