"""`jetcamer`: the command line, the terminal's lines, and the demo, alone and for real."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from jetcamer import __version__
from jetcamer.cli import main
from jetcamer.cli.demo_view import DemoView
from jetcamer.cli.terminal import Terminal
from jetcamer.hub.records import RefusalRecord
from jetcamer.hub.registry import CommandTimeoutError
from jetcamer.protocol.envelope import (
    AuthPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsPayload,
)
from tests.support.line_process import LineProcess
from tests.support.tools import ROOT

JETCAMER = [sys.executable, "-m", "jetcamer.cli"]


def jetcamer(*words: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    argv = [*JETCAMER, *words] if code is None else [sys.executable, "-c", code, *words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


class CommandLineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def exits(self, *words: str) -> int:
        return self.assertRaises(SystemExit, main, list(words)).code

    def test_version(self) -> None:
        self.assertEqual(self.exits("--version"), 0)
        self.assertEqual(self.out.getvalue(), f"jetcamer {__version__}\n")

    def test_version_command(self) -> None:
        self.assertEqual(main(["version"]), 0)
        self.assertEqual(self.out.getvalue(), f"{__version__}\n")

    def test_help(self) -> None:
        """Help names every command without importing any."""
        self.assertEqual(self.exits("--help"), 0)
        for name in ("demo", "doctor", "version"):
            self.assertRegex(self.out.getvalue(), rf"(?m)^ +{name} ")

    def test_usage_errors(self) -> None:
        """Words that make no sense are one line about them, one about help, and status 2."""
        for words, said in (
            ((), "COMMAND"),
            (("dance",), "dance"),
            (("version", "--loud"), "--loud"),
            (("demo", "--seconds", "soon"), "'soon' is not a number of seconds above 0"),
            (("demo", "--seconds", "-1"), "'-1' is not a number of seconds above 0"),
            (("demo", "--seconds", "nan"), "'nan' is not a number of seconds above 0"),
        ):
            self.err.seek(self.err.truncate(0))
            self.assertEqual(self.exits(*words), 2)
            error, help_line = self.err.getvalue().splitlines()
            self.assertIn(said, error)
            self.assertRegex(help_line, r"^Try 'jetcamer( \w+)? --help'\.$")
        self.assertEqual(self.out.getvalue(), "")

    def test_light(self) -> None:
        """A command is imported when it is asked for: the version needs no Twisted."""
        code = (
            "import sys; from jetcamer.cli import main; status = main(sys.argv[1:])\n"
            "print(status, sorted({'twisted', 'autobahn', 'zope'} & set(sys.modules)))"
        )
        self.assertEqual(jetcamer("version", code=code).stdout, f"{__version__}\n0 []\n")

    def test_broken_pipe(self) -> None:
        """A reader that has left is not a traceback."""
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as closed:
            done = subprocess.run(
                [*JETCAMER, "version"],
                cwd=ROOT,
                stdout=closed,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        self.assertEqual((done.returncode, done.stderr), (141, b""))

    def test_no_standard_output(self) -> None:
        self.patch(sys, "stdout", None)
        self.assertEqual(main(["version"]), 0)
        sys.stdout.close()


class FakeStream(io.StringIO):
    def __init__(self, *, tty: bool = False, encoding: str = "utf-8") -> None:
        super().__init__()
        self._tty = tty
        self._encoding = encoding

    @property
    def encoding(self) -> str:
        return self._encoding

    def isatty(self) -> bool:
        return self._tty


class TerminalTests(SynchronousTestCase):
    def lines(self, stream: FakeStream) -> list[str]:
        return stream.getvalue().splitlines()

    def test_pipe(self) -> None:
        """To no terminal: no colour, and a line stays a line."""
        stream = FakeStream()
        Terminal(stream, {}).line(("red", "bad"), " " + "word " * 100)
        self.assertEqual(self.lines(stream), ["red " + ("word " * 100).rstrip()])

    def test_colour(self) -> None:
        for environ, line in (
            ({}, "\x1b[31mred\x1b[0m plain"),
            ({"NO_COLOR": "1"}, "red plain"),
            ({"NO_COLOR": ""}, "\x1b[31mred\x1b[0m plain"),
            ({"TERM": "dumb"}, "red plain"),
        ):
            stream = FakeStream(tty=True)
            Terminal(stream, environ).line(("red", "bad"), " plain")
            self.assertEqual(self.lines(stream), [line])

    def test_narrow(self) -> None:
        """What does not fit goes on below, broken between words; nothing is lost."""
        stream = FakeStream(tty=True)
        terminal = Terminal(stream, {"COLUMNS": "20", "NO_COLOR": "1"})
        terminal.line("12:00:01  ", "one two six", " four\u00a0five eight", indent=10)
        self.assertEqual(
            self.lines(stream), ["12:00:01  one two", "     six four five", "     eight"]
        )

    def test_spaces_at_the_edge(self) -> None:
        """Spaces before a break are not written: they would be wider than the terminal."""
        stream = FakeStream(tty=True)
        terminal = Terminal(stream, {"COLUMNS": "20"})
        terminal.line("ping: pong, after 4  ", ("signature", "good"), indent=4)
        terminal.line("ping: pong, after", ("  4     ", "good"), "signature", indent=4)
        self.assertEqual(
            self.lines(stream),
            [
                "ping: pong, after 4\x1b[32m",
                "    signature\x1b[0m",
                "ping: pong, after\x1b[32m  4\x1b[0m",
                "    signature",
            ],
        )

    def test_long_word(self) -> None:
        """A word that fits no line is left whole, for the terminal to break."""
        stream = FakeStream(tty=True)
        Terminal(stream, {"COLUMNS": "20"}).line("a " + "x" * 50)
        self.assertIn("x" * 50, stream.getvalue())

    def test_control_characters(self) -> None:
        """What a peer says does not drive the terminal."""
        stream = FakeStream(tty=True)
        Terminal(stream, {"COLUMNS": "200"}).line("a\x1b[2J\nb\x9b\u202e\u2028\x07")
        self.assertEqual(self.lines(stream), ["a\\x1b[2J\\nb\\x9b\\u202e\\u2028\\x07"])

    def test_bar(self) -> None:
        utf8, ascii_ = Terminal(FakeStream(), {}), Terminal(FakeStream(encoding="ascii"), {})
        self.assertEqual(utf8.bar(50, 4), "██░░")
        for percent, bar in ((-5, "----"), (0, "----"), (50, "##--"), (100, "####"), (1e9, "####")):
            self.assertEqual(ascii_.bar(percent, 4), bar)

    def test_encodings(self) -> None:
        for encoding, tick in (("utf-8", "✓"), ("latin-1", "ok"), ("no-such", "ok"), ("", "ok")):
            terminal = Terminal(FakeStream(encoding=encoding), {})
            self.assertEqual(terminal.mark("✓", "ok"), tick)


class FakeSession:
    agent_id = "demo"


class DemoViewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, Deferred[CommandResultPayload]]] = []
        self.completed: list[bool] = []
        self.broken: list[bool] = []
        self.show(FakeStream())

    def tearDown(self) -> None:
        self.view.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def show(self, stream: FakeStream, **environ: str) -> None:
        self.stream = stream
        self.view = DemoView(
            self.clock,
            Terminal(stream, environ),
            on_complete=lambda: self.completed.append(True),
            on_broken=lambda: self.broken.append(True),
        )
        self.view.ask = self.ask

    def ask(
        self, agent_id: str, command: str, args: Mapping[str, str], timeout: float
    ) -> Deferred[CommandResultPayload]:
        done: Deferred[CommandResultPayload] = Deferred()
        self.asked.append((command, done))
        return done

    def envelope(self, type: str) -> Envelope:
        return Envelope(type, "demo", 1, "n", b"{}", "0" * 64)

    def authenticate(self) -> None:
        payload = AuthPayload("web-01", "5.0.0")
        self.view.authenticated(FakeSession(), self.envelope("auth"), payload)

    def metrics(self, *readings: float | None) -> None:
        payload = MetricsPayload(*readings)
        self.view.metrics(FakeSession(), self.envelope("metrics"), payload)

    def answer(self, index: int, result: str, **more: Any) -> None:
        command, done = self.asked[index]
        payload = CommandResultPayload(command, result, **more)
        self.view.command_result(FakeSession(), self.envelope("command_result"), payload)
        done.callback(payload)

    def last(self) -> str:
        """The last line, less its time."""
        return self.stream.getvalue().splitlines()[-1][10:]

    def test_the_whole_story(self) -> None:
        """Complete after metrics and both answers, whatever their order, and only once."""
        self.authenticate()
        self.assertEqual([command for command, _ in self.asked], ["ping", "run_health_check"])
        self.answer(1, "health_ok")
        self.metrics(25.5, 45.2, 60.1)
        self.assertFalse(self.view.complete)
        self.answer(0, "pong")
        self.assertTrue(self.view.complete)
        self.metrics(25.5, 45.2, 60.1)
        self.assertEqual(self.completed, [True])
        self.view.summary()
        self.assertEqual(
            self.stream.getvalue().splitlines()[-1],
            "JetCamer demo: 5 messages verified, 0 refused, 2 commands answered, in 0 s.",
        )

    def test_metrics(self) -> None:
        self.metrics(5.04, None, 100.0)
        self.assertEqual(
            self.last(), "demo  cpu   5.0%  mem no reading  disk 100.0%  ✓ signature ok"
        )

    def test_bars(self) -> None:
        """Bars fill the terminal's width, and one that is narrow has none."""
        for columns, bars in (("200", True), ("100", True), ("80", True), ("70", False)):
            self.show(FakeStream(tty=True), COLUMNS=columns, NO_COLOR="1")
            self.metrics(100.0, 45.2, 60.1)
            (line,) = self.stream.getvalue().splitlines()
            self.assertEqual("█" in line, bars)
            self.assertLessEqual(len(line), int(columns))
            self.assertTrue(line.endswith("✓ signature ok"), line)

    def test_ascii(self) -> None:
        self.show(FakeStream(encoding="ascii"))
        self.view.listening("ws://127.0.0.1:1/agent", "http://127.0.0.1:2", "jc_t", "jetcamer")
        self.authenticate()
        self.metrics(1.0, 2.0, 3.0)
        self.assertTrue(self.stream.getvalue().isascii())

    def test_heartbeat_and_log(self) -> None:
        self.view.heartbeat(FakeSession(), self.envelope("heartbeat"), HeartbeatPayload("alive"))
        self.assertEqual(self.last(), "demo  heartbeat: alive  ✓ signature ok")
        self.view.log(FakeSession(), self.envelope("log"), LogPayload("warn", "\x1b[2J"))
        self.assertEqual(self.last(), "demo  log, warn: \\x1b[2J  ✓ signature ok")

    def test_answer(self) -> None:
        """An answer shows what it says, how long it took, and each check."""
        self.authenticate()
        self.clock.advance(0.25)
        self.answer(0, "pong")
        self.assertEqual(self.last(), "demo  ping: pong, after 250 ms  ✓ signature ok")
        checks = [
            {"name": "disk", "status": "ok", "words": "78 % free"},
            {"name": "state_directory", "status": "fail", "words": "not writable"},
            "nonsense",
        ]
        self.answer(1, "health_degraded", details={"checks": checks})
        self.assertEqual(
            self.stream.getvalue().splitlines()[-2:],
            [
                "          ok      disk             78 % free",
                "          fail    state_directory  not writable",
            ],
        )

    def test_odd_details(self) -> None:
        """Details of another shape are passed over."""
        for details in (None, 7, [], {}, {"checks": None}, {"checks": "x"}, {"checks": [1, {}]}):
            self.asked.clear()
            self.authenticate()
            self.answer(1, "health_ok", details=details)

    def test_error(self) -> None:
        self.authenticate()
        self.answer(0, "", error="busy")
        self.assertIn("ping: busy", self.last())

    def test_no_answer(self) -> None:
        self.authenticate()
        self.asked[0][1].errback(CommandTimeoutError("no answer to ping from demo within 30 s"))
        self.assertEqual(self.last(), "hub   ping: no answer to ping from demo within 30 s")

    def test_pings_again(self) -> None:
        """Every half minute, until the agent leaves."""
        self.authenticate()
        self.clock.advance(30)
        self.clock.advance(30)
        self.assertEqual([command for command, _ in self.asked][2:], ["ping", "ping"])
        self.view.disconnected(FakeSession(), "closed by the agent: 1000")
        self.clock.advance(60)
        self.assertEqual(len(self.asked), 4)
        self.assertEqual(self.last(), "demo  left: closed by the agent: 1000")

    def test_refused(self) -> None:
        self.view.refused(
            RefusalRecord(
                ts_ms=0,
                agent_id="web-1",
                address="192.0.2.4",
                reason="invalid_signature",
                words="signed with another secret",
            )
        )
        words = "refused a message from 192.0.2.4: invalid_signature: signed with another secret"
        self.assertIn(words, self.last())

    def test_nobody_reads(self) -> None:
        """Told once; everything after it is quiet."""

        def broken(text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

        self.stream.write = broken
        self.authenticate()
        self.metrics(1.0, 2.0, 3.0)
        self.assertEqual(self.broken, [True])
        self.assertRaises(BrokenPipeError, self.view.raise_if_broken)


class DemoProcess(LineProcess[str]):
    def parse(self, line: str) -> str:
        return line

    def begin(self, *words: str, terminal: Any = False, **environ: str) -> DemoProcess:
        environ = {"NO_COLOR": "", "PYTHONIOENCODING": "utf-8", "TERM": "xterm", **environ}
        self.spawn([*JETCAMER, "demo", *words], environ, str(ROOT), terminal)
        return self


class DemoTests(TestCase):
    """The demo itself: a hub, an agent, a socket between them, and a person who watches."""

    timeout = 90

    def demo(self, *words: str, **options: Any) -> DemoProcess:
        demo = DemoProcess(reactor)
        self.addCleanup(demo.stop)
        return demo.begin(*words, **options)

    async def test_once(self) -> None:
        """It ends by itself when all was seen, 5 s after it began: the agent's own interval."""
        demo = self.demo("--once", PYTHONIOENCODING="ascii", HTTP_PROXY="http://192.0.2.1:1")
        await demo.when_ended()
        text = "\n".join(demo.events)
        self.assertEqual((demo.exit_code, demo.stderr), (0, ""), text)
        for pattern in (
            r"hub   listening on ws://127\.0\.0\.1:\d+/agent",
            rf"demo  authenticated: host .+, version {re.escape(__version__)}  signature ok",
            r"demo  ping: pong, after \d+ ms  signature ok",
            r"demo  run_health_check: health_\w+, after \d+ ms  signature ok",
            r"          ok      link +online",
            r"demo  cpu +\d+\.\d%  mem +\d+\.\d%  disk +\d+\.\d%  signature ok",
            r"demo  left: closed by the agent: 1000",
            r"JetCamer demo: 4 messages verified, 0 refused, 2 commands answered, in \d s\.",
        ):
            self.assertRegex(text, pattern)
        self.assertNotRegex(text, r"\x1b|\[ws\]|Traceback")

    async def test_too_short(self) -> None:
        """A time in which not all was seen is a failure, and says what there was."""
        demo = self.demo("--seconds", "0.5")
        await demo.when_ended()
        self.assertEqual((demo.exit_code, demo.stderr), (1, ""))
        self.assertIn("JetCamer demo: ", demo.events[-1])

    async def test_nobody_reads(self) -> None:
        """`jetcamer demo | head -1` ends, with the status of a broken pipe and no traceback."""
        demo = self.demo()
        await demo.wait_for(lambda line: True)
        demo.transport.closeStdout()
        await demo.when_ended()
        self.assertEqual((demo.exit_code, demo.stderr), (141, ""))

    async def test_narrow_terminal(self) -> None:
        """On a real terminal of 40 columns: colours, and lines that fit, those of --verbose too.
        Ctrl-C from the keys takes the agent's leave, sums up, and is no failure."""
        home = Path(self.mktemp()).absolute()
        (home / ".aws").mkdir(parents=True)
        (home / ".aws" / "credentials").write_text(
            "[default]\naws_access_key_id = A\naws_secret_access_key = B\n"
        )
        master, slave = pty.openpty()
        name = os.ttyname(slave)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        demo = self.demo("--verbose", terminal=(master, slave, name), HOME=str(home))
        await demo.wait_for(lambda line: "ping: pong" in line)
        demo.transport.write(b"\x03")
        await demo.wait_for(lambda line: "verified, 0" in line)
        plain = [re.sub(r"\x1b\[\d*m", "", line) for line in demo.events]
        self.assertNotEqual(plain, demo.events)
        to_copy = [line for line in plain if "JETCAMER_HUB" in line]
        self.assertEqual(len(to_copy), 2)
        self.assertLessEqual(max(len(line) for line in plain if line not in to_copy), 40)
        self.assertIn("JetCamer demo: 3 messages verified, 0", plain)
        # With --verbose, the agent's own log is there too.
        self.assertIn("          [ws] sending auth message", plain)
        await demo.when_ended()
        self.assertEqual(demo.exit_code, 0)
        # Whoever has AWS credentials at home has not asked for an archive.
        text = "\n".join(demo.events)
        self.assertNotRegex(text, r"archiving\s+to|Traceback")
