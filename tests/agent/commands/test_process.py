"""Real programs: what they are given, what is taken of their output, and how they end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from jetcamer.agent.commands import ProcessResult, ProcessRunner, SpawnError, process
from jetcamer.agent.commands.output import OutputReader
from tests.agent.commands.support import ProcessTestCase, alive, until
from tests.support.tools import require_program

SECRET = "AKIA-not-for-children"


class RunnerTestCase(ProcessTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        require_program("setsid")
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": "/nowhere",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "NOTIFY_SOCKET": "/run/notify",
        }

    def run_program(self, *argv: str, **environment: str) -> Deferred[ProcessResult]:
        runner = ProcessRunner(reactor, self.environ)
        return Deferred.fromCoroutine(runner.run(argv, environment))

    def run_script(self, text: str) -> Deferred[ProcessResult]:
        return self.run_program(*self.script(text))


class StartTests(RunnerTestCase):
    async def test_knows_nothing_of_the_agents_environment(self) -> None:
        ended = await self.run_program("env", ADDED="1")
        self.assertEqual(
            sorted(ended.output.split("\n")),
            ["", "ADDED=1", "HOME=/nowhere", "LANG=C.UTF-8", f"PATH={os.environ['PATH']}"],
        )

    async def test_has_no_input_and_stands_in_the_root(self) -> None:
        ended = await self.run_script("cat; pwd; ls -l /proc/self/fd | grep -c ' -> '")
        # Its three, and the folder that ls reads.
        self.assertEqual(ended.output, "/\n4\n")

    async def test_leads_a_session_of_its_own(self) -> None:
        ended = await self.run_script("cut -d' ' -f1,5,6 /proc/$$/stat")
        pid, group, session = ended.output.split()
        self.assertEqual({pid, group, session}, {pid})
        self.assertNotEqual(session, str(os.getsid(0)))

    async def test_sigpipe_is_not_ignored_though_python_does(self) -> None:
        ended = await self.run_program("grep", "SigIgn", "/proc/self/status")
        ignored = int(ended.output.split()[1], 16)
        self.assertFalse(ignored & 1 << (signal.SIGPIPE - 1))

    async def test_programs_that_cannot_be_started(self) -> None:
        plain = self.folder / "plain"
        plain.write_text("0\n")
        for program, words in [
            ("no-such-program", f"the program no-such-program is not in {os.environ['PATH']}"),
            ("/no/such", "/no/such does not exist"),
            (str(plain), f"{plain} may not be executed"),
            ("/etc", "/etc may not be executed"),
        ]:
            with self.assertRaises(SpawnError) as caught:
                await self.run_program(program)
            self.assertEqual(str(caught.exception), words)

    async def test_a_system_that_refuses(self) -> None:
        before = os.listdir("/proc/self/fd")
        with self.assertRaisesRegex(SpawnError, "/true cannot be started: Out of dragons"):
            await Deferred.fromCoroutine(ProcessRunner(_Refusing(), self.environ).run(["true"]))
        self.assertEqual(os.listdir("/proc/self/fd"), before)

    async def test_without_setsid(self) -> None:
        self.environ["PATH"] = str(self.folder)
        with self.assertRaisesRegex(SpawnError, "the program setsid is not in"):
            await self.run_program("/bin/sh")


class _Refusing:
    def seconds(self) -> float:
        return 0.0

    def spawnProcess(self, *args: object, **kwargs: object) -> None:
        raise OSError(12, "Out of dragons")


class StartFromTheRootTests(StartTests):
    """Where the agent itself stands in ``/``, Twisted does not fork but calls posix_spawn."""

    async def setUp(self) -> None:
        await super().setUp()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir("/")


class OutputTests(RunnerTestCase):
    async def test_both_outputs_in_order(self) -> None:
        ended = await self.run_script("echo 1; echo 2 >&2; echo 3; echo 4 >&2")
        self.assertEqual(ended.output, "1\n2\n3\n4\n")

    async def test_bytes_that_are_not_utf_8(self) -> None:
        ended = await self.run_script(r"printf '\377a\303'")
        self.assertEqual(ended.output, "\ufffda\ufffd")

    async def test_ten_megabytes(self) -> None:
        ended = await self.run_program("head", "-c", "10000000", "/dev/zero")
        self.assertEqual(ended.truncated_bytes, 10_000_000 - 65_536)
        note = "\n[9934464 more bytes were cut]"
        self.assertTrue(ended.output == "\0" * 65_536 + note)
        self.assertEqual(ended.outcome().details["truncatedBytes"], 9_934_464)
        self.assertEqual(ended.exit_status, 0)

    async def test_more_than_is_read_in_a_hurry(self) -> None:
        ended = await self.run_program("head", "-c", "17000000", "/dev/zero")
        self.assertEqual(ended.truncated_bytes, 17_000_000 - 65_536)

    async def test_exactly_the_limit(self) -> None:
        ended = await self.run_program("head", "-c", "65536", "/dev/zero")
        self.assertEqual((len(ended.output), ended.truncated_bytes), (65_536, 0))

    async def test_bytes_that_are_not_utf_8_take_no_more_of_a_message(self) -> None:
        """The limit is that of the text: each bad byte takes three there."""
        ended = await self.run_script(r"head -c 65536 /dev/zero | tr '\0' '\377'")
        text, note, _ = ended.output.partition("\n[43691 more bytes were cut]")
        self.assertEqual((text, ended.truncated_bytes), ("\ufffd" * 21_845, 43_691))
        self.assertTrue(note)
        ended = await self.run_script(
            r"head -c 65533 /dev/zero; printf '\377'; head -c 99999 /dev/zero"
        )
        self.assertEqual(ended.truncated_bytes, 99_999)
        self.assertTrue(ended.output.startswith("\0" * 65_533 + "\ufffd\n[99999 more"))

    async def test_a_character_on_the_limit_is_left_out_whole(self) -> None:
        ended = await self.run_script(r"head -c 65535 /dev/zero; printf '\303\251'; echo end")
        self.assertEqual(ended.truncated_bytes, 5)
        self.assertTrue(ended.output.endswith("\0\n[5 more bytes were cut]"))

    def test_what_is_in_the_pipe_at_the_end_is_taken(self) -> None:
        closed = []
        output = OutputReader(reactor, lambda: closed.append(output.text()))
        read, write = os.pipe()
        self.addCleanup(os.close, write)
        output.open(read)
        os.write(write, b"last words")
        output.close()
        output.close()
        self.assertEqual(closed, [("last words", 0)])

    async def test_endless_output_does_not_keep_the_agent_busy(self) -> None:
        running = self.run_script('mark yes $$; yes & sleep 0.5; kill "$!"; wait')
        ended = await running
        # A free run passes gigabytes in that time; what is read at leisure, some megabytes.
        self.assertLess(ended.truncated_bytes, 200_000_000)
        self.assertGreater(ended.truncated_bytes, 0)


class EndTests(RunnerTestCase):
    async def test_exit_status(self) -> None:
        ended = await self.run_script("echo no; exit 3")
        outcome = ended.outcome()
        self.assertEqual((outcome.result, outcome.error), ("no\n", "exit status 3"))
        self.assertEqual(outcome.details["exitStatus"], 3)
        self.assertIsInstance(outcome.details["durationMs"], int)
        self.assertEqual((await self.run_program("true")).outcome().error, "")

    async def test_a_signal(self) -> None:
        outcome = (await self.run_script("kill -SEGV $$")).outcome()
        self.assertEqual(outcome.error, "ended by SIGSEGV")
        self.assertEqual(outcome.details["signal"], "SIGSEGV")
        self.assertNotIn("exitStatus", outcome.details)

    async def test_a_child_that_holds_the_output_is_not_waited_for(self) -> None:
        for start in ("sleep 600 &", "setsid sleep 600 &"):
            ended = await self.run_script(f"{start} mark child $!; echo done")
            self.assertEqual((ended.output, ended.exit_status), ("done\n", 0))
            self.assertTrue(alive(self.marked("child")), "what a command starts may stay")
            os.kill(self.marked("child"), 9)

    async def test_output_after_the_end_is_taken_for_a_moment(self) -> None:
        self.patch(process, "OUTPUT_GRACE", 10)
        ended = await self.run_script("(sleep 0.02; echo late) & echo early")
        self.assertEqual(ended.output, "early\nlate\n")

    async def test_closed_outputs_are_not_the_end(self) -> None:
        ended = await self.run_script("exec >/dev/null 2>&1; sleep 0.05; exit 4")
        self.assertEqual(ended.exit_status, 4)


class CancelTests(RunnerTestCase):
    """Cancelling ends the whole process group."""

    async def cancelled(self, text: str, *names: str, times: int = 1) -> ProcessResult:
        """Run a script until it has marked `names`, then cancel."""
        running = self.run_script(text)
        await until(lambda: self.has_marked(*names))
        for _ in range(times):
            running.cancel()
        return await running

    async def test_a_tree(self) -> None:
        ended = await self.cancelled(
            """
            mark top $$
            sh -c 'sh -c "sleep 600 & echo \\$! > '$0'; wait" & wait' &
            mark middle $!
            mark ready 0
            wait
            """.replace("$0", str(self.folder / "bottom")),
            "ready",
            "bottom",
        )
        self.assertEqual((ended.signal, ended.exit_status), ("SIGTERM", None))
        for name in ("top", "middle", "bottom"):
            self.assertFalse(alive(self.marked(name)), name)

    async def test_time_to_clean_up(self) -> None:
        ended = await self.cancelled(
            "trap 'echo bye; exit 7' TERM; mark top $$; while :; do sleep 0.01; done", "top"
        )
        # The shell may mention that its sleep was ended.
        self.assertEqual((ended.output.splitlines()[-1], ended.exit_status), ("bye", 7))

    async def test_a_child_has_that_time_when_its_parent_is_gone(self) -> None:
        ended = await self.cancelled(
            """
            sh -c 'trap "sleep 0.1; echo clean; exit" TERM
                   echo $$ > '$0'; while :; do sleep 0.01; done' &
            wait
            """.replace("$0", str(self.folder / "child")),
            "child",
        )
        self.assertEqual(ended.output.splitlines()[-1:], ["clean"])

    async def test_who_ignores_sigterm_is_killed(self) -> None:
        self.patch(process, "KILL_AFTER", 0.1)
        ended = await self.cancelled("trap '' TERM; mark top $$; while :; do sleep 1; done", "top")
        self.assertEqual(ended.signal, "SIGKILL")

    async def test_also_when_its_parent_is_gone(self) -> None:
        self.patch(process, "KILL_AFTER", 0.1)
        ended = await self.cancelled(
            """
            sh -c 'trap "" TERM; echo $$ > '$0'; while :; do sleep 1; done' &
            wait
            """.replace("$0", str(self.folder / "child")),
            "child",
        )
        self.assertEqual(ended.signal, "SIGTERM")
        self.assertFalse(alive(self.marked("child")))

    async def test_the_second_time_kills_at_once(self) -> None:
        self.patch(process, "KILL_AFTER", 1000)
        ended = await self.cancelled(
            "trap '' TERM; mark top $$; while :; do sleep 1; done", "top", times=3
        )
        self.assertEqual(ended.signal, "SIGKILL")

    async def test_before_the_group_exists(self) -> None:
        running = self.run_script("sleep 600")
        running.cancel()
        running.cancel()
        self.assertIn((await running).signal, ("SIGTERM", "SIGKILL"))

    async def test_a_daemon_that_left_the_group_stays(self) -> None:
        ended = await self.cancelled(
            "setsid sh -c 'echo $$ > '$0'; exec sleep 600' & wait".replace(
                "$0", str(self.folder / "daemon")
            ),
            "daemon",
        )
        self.assertEqual(ended.signal, "SIGTERM")
        self.assertTrue(alive(self.marked("daemon")))

    async def test_a_process_of_another_user(self) -> None:
        self.patch(process, "KILL_AFTER", 0.05)
        self.patch(process, "ABANDON_AFTER", 0.05)
        killpg = os.killpg

        def refuse(group: int, number: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        self.patch(os, "killpg", refuse)
        with capturedLogs() as events:
            ended = await self.cancelled("mark top $$; exec sleep 600", "top")
        outcome = ended.outcome()
        self.assertEqual(outcome.error, "the process could not be ended")
        self.assertEqual(list(outcome.details), ["durationMs"])
        lines = [formatEvent(event) for event in events]
        self.assertIn(f"(process {self.marked('top')}) could not be ended", lines[-1])
        # It is reaped all the same, whenever it ends.
        killpg(self.marked("top"), 9)
        await until(lambda: not self.children())

    def test_a_number_that_was_given_to_a_stranger(self) -> None:
        stranger = Path("/proc/self").resolve().name  # ours, which surely runs
        child = process._Process(reactor)
        child._pid = int(stranger)
        sent = []
        self.patch(os, "killpg", lambda group, number: sent.append(number))
        child._ended = object()
        child._send(15)
        self.assertEqual(sent, [])
