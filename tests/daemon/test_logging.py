"""What is printed, line by line."""

from __future__ import annotations

import io
import json
import os
from typing import Any

from twisted.application.service import Application, MultiService
from twisted.logger import ILogObserver, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.cli import terminal
from jetcamer.daemon.logging import DaemonService, LineObserver, fail_start, observer_for
from jetcamer.daemon.visible import visible


class LineObserverTests(SynchronousTestCase):
    def write(self, style: str, level: str, text: str, /, **fields: Any) -> str:
        stream = io.StringIO()
        LineObserver(stream, style)(
            {
                "log_format": text,
                "log_level": LogLevel.lookupByName(level),
                "log_namespace": "jetcamer.test",
                "log_time": 0.0,
                **fields,
            }
        )
        return stream.getvalue()

    def test_text_is_the_line_itself(self) -> None:
        line = self.write("text", "info", "[ws] connecting to {url}", url="wss://h/agent")
        self.assertEqual(line, "[ws] connecting to wss://h/agent\n")

    def test_debug_is_not_printed(self) -> None:
        for style in ("text", "journal", "file", "json"):
            self.assertEqual(self.write(style, "debug", "no"), "")

    def test_the_journal_gets_the_priority(self) -> None:
        self.assertEqual(self.write("journal", "info", "[ws] a"), "<6>[ws] a\n")
        self.assertEqual(self.write("journal", "warn", "[ws] a"), "<4>[ws] a\n")
        self.assertEqual(self.write("journal", "critical", "[ws] a"), "<2>[ws] a\n")

    def test_every_line_of_a_traceback_has_its_priority(self) -> None:
        lines = self.write("journal", "error", "broke", log_failure=Failure(OSError("x")))
        self.assertGreater(lines.count("\n"), 1)
        self.assertTrue(all(line.startswith("<3>") for line in lines.splitlines()))

    def test_a_file_gets_time_and_level(self) -> None:
        line = self.write("file", "warn", "[ws] a")
        self.assertRegex(line, r"^1970-01-01T\d\d:00:00[+-]\d{4} warn  \[ws\] a\n$")

    def test_json_is_one_object_a_line(self) -> None:
        line = self.write("json", "warn", "[ws] {words}", words='é "q"\n')
        self.assertEqual(line.count("\n"), 1)
        self.assertEqual(
            json.loads(line),
            {
                "time": "1970-01-01T00:00:00.000Z",
                "level": "warn",
                "logger": "jetcamer.test",
                "message": '[ws] é "q"\n',
            },
        )
        record = json.loads(self.write("json", "error", "x", log_failure=Failure(OSError("why"))))
        self.assertIn("OSError: why", record["exception"])

    def test_a_peer_can_neither_forge_a_line_nor_drive_the_terminal(self) -> None:
        line = self.write("text", "info", "[ws] {words}", words="a\n[ws] forged\x1b[2J\x9b\r")
        self.assertEqual(line, "[ws] a\\n[ws] forged\\x1b[2J\\x9b\\r\n")
        line = self.write("journal", "info", "[ws] {words}", words="a\u2028[ws] b\u2029\x85c")
        self.assertEqual(line, "<6>[ws] a\\u2028[ws] b\\u2029\\x85c\n")
        error = OSError("a\u2028[ws] forged\x1b")
        line = self.write("journal", "error", "[ws] x", log_failure=Failure(error))
        self.assertNotIn("\u2028", line)
        self.assertNotIn("\x1b", line)

    def test_nor_turn_the_direction_of_writing(self) -> None:
        """In no form that is printed, and by the same table as what the command line shows."""
        marks = "\u061c\u200e\u200f\u202a\u202e\u2066\u2069"
        for style in ("text", "journal", "file", "json"):
            line = self.write(style, "info", "[ws] {words}", words=f"a{marks}b\x9b\x7f\u2028c")
            self.assertTrue(line.isascii(), line)
            self.assertIn("\\u202e", line)
            self.assertNotIn("\x7f", line)
            failure = Failure(OSError(f"a{marks}\x9b"))
            self.assertTrue(self.write(style, "error", "x", log_failure=failure).isascii(), style)
        line = self.write("json", "info", "[ws] {words}", words=f"é{marks}\x9b\x00\n")
        self.assertEqual(json.loads(line)["message"], f"[ws] é{marks}\x9b\x00\n")
        self.assertIs(terminal.visible, visible)

    def test_what_twisted_says_of_the_port_is_left_out(self) -> None:
        stream = io.StringIO()
        with_text = {"log_level": LogLevel.info, "log_format": "{log_text}"}
        for namespace in ("log_legacy", "jetcamer.test"):
            for text in (
                "[http] interface starting on 9811",
                "(TCP Port 9811 Closed)",
                "Main loop terminated.",
            ):
                event = with_text | {"log_namespace": namespace, "log_text": text}
                LineObserver(stream, "text")(event)
        self.assertEqual(
            stream.getvalue().splitlines(),
            [
                "Main loop terminated.",
                "[http] interface starting on 9811",
                "(TCP Port 9811 Closed)",
                "Main loop terminated.",
            ],
        )

    def test_a_stream_that_cannot_say_it(self) -> None:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, "ascii")
        LineObserver(stream, "text")({"log_format": "[ws] ✓ connected", "log_level": LogLevel.info})
        self.assertEqual(raw.getvalue(), b"[ws] ? connected\n")

    def test_a_stream_that_is_gone(self) -> None:
        stream = io.StringIO()
        stream.close()
        LineObserver(stream, "text")({"log_format": "x", "log_level": LogLevel.info})


class ChoiceTests(SynchronousTestCase):
    def style(self, twistd: dict[str, Any], log_format: str = "text", **environ: str) -> str | None:
        with open(self.mktemp(), "w") as stdout:
            status = os.fstat(stdout.fileno())
            environ = {
                name: value.format(dev=status.st_dev, ino=status.st_ino)
                for name, value in environ.items()
            }
            observer = observer_for(twistd, log_format, environ, stdout)
        return observer and observer._format.__name__

    def test_standard_output(self) -> None:
        self.assertEqual(self.style({"nodaemon": True}), "_plain")
        self.assertEqual(self.style({"logfile": "-"}), "_plain")
        self.assertEqual(self.style({"nodaemon": True}, "json"), "_json")

    def test_the_journal_is_known_by_its_device_and_inode(self) -> None:
        self.assertEqual(self.style({"nodaemon": True}, JOURNAL_STREAM="{dev}:{ino}"), "_journal")
        self.assertEqual(self.style({"nodaemon": True}, JOURNAL_STREAM="1:1"), "_plain")

    def test_a_file(self) -> None:
        name = self.mktemp()
        self.assertEqual(self.style({"logfile": name}), "_dated")
        self.assertEqual(self.style({"logfile": name}, "json"), "_json")
        self.assertTrue(os.path.exists(name))

    def test_what_the_operator_chose_stays(self) -> None:
        self.assertIsNone(self.style({"syslog": True}))
        self.assertIsNone(self.style({"logger": "x.y", "nodaemon": True}))


class DaemonServiceTests(SynchronousTestCase):
    def test_brings_its_observer_to_the_application(self) -> None:
        application = Application("test")
        service = DaemonService()
        service.observer = LineObserver(io.StringIO(), "text")
        service.setServiceParent(application)
        self.assertIs(application.getComponent(ILogObserver), service.observer)

    def test_lives_under_another_service_too(self) -> None:
        service = DaemonService()
        service.observer = LineObserver(io.StringIO(), "text")
        parent = MultiService()
        service.setServiceParent(parent)
        self.assertEqual(list(parent), [service])

    def test_fail_start_is_one_line_and_status_1(self) -> None:
        stderr = io.StringIO()
        self.patch(__import__("sys"), "__stderr__", stderr)
        self.assertEqual(fail_start("no\n").code, 1)
        self.assertEqual(stderr.getvalue(), "no\n")
