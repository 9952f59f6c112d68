"""The service manager is told what it asked for, over a real datagram socket."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutput
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from jetcamer.daemon.notify import MAX_STATUS, Notifier, WatchdogService


class Manager:
    """A service manager's end: a datagram socket at a path or under an abstract name."""

    def __init__(self, case: SynchronousTestCase, address: str | None = None) -> None:
        # Not mktemp(): trial's own paths grow beyond the 107 bytes of a Unix address.
        folder = tempfile.TemporaryDirectory(prefix="jetcamer-")
        case.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name) / "notify") if address is None else address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind("\0" + self.path[1:] if self.path.startswith("@") else self.path)
        case.addCleanup(self.socket.close)

    def received(self) -> list[str]:
        """The datagrams that came since the last call."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(65536).decode())
            except BlockingIOError:
                return messages


class NotifierTests(SynchronousTestCase):
    def notifier(self, environ: dict[str, str]) -> Notifier:
        notifier = Notifier(environ, pid=42)
        self.addCleanup(notifier.close)
        return notifier

    def test_says_what_happens_over_a_path(self) -> None:
        manager = Manager(self)
        notifier = self.notifier({"NOTIFY_SOCKET": manager.path})
        notifier.ready()
        notifier.status("online: wss://hub/agent")
        notifier.watchdog()
        notifier.stopping()
        self.assertEqual(
            manager.received(),
            ["READY=1", "STATUS=online: wss://hub/agent", "WATCHDOG=1", "STOPPING=1"],
        )

    def test_ready_with_a_status(self) -> None:
        manager = Manager(self)
        self.notifier({"NOTIFY_SOCKET": manager.path}).ready("waiting for the secret")
        self.assertEqual(manager.received(), ["READY=1\nSTATUS=waiting for the secret"])

    def test_abstract_name(self) -> None:
        manager = Manager(self, address=f"@jetcamer-test-{os.getpid()}")
        self.notifier({"NOTIFY_SOCKET": manager.path}).ready()
        self.assertEqual(manager.received(), ["READY=1"])

    def test_a_status_is_one_line_of_bounded_length(self) -> None:
        manager = Manager(self)
        notifier = self.notifier({"NOTIFY_SOCKET": manager.path})
        notifier.status("café\nREADY=1\r\nMAINPID=1\ud800")
        notifier.status("x" * 100_000)
        first, second = manager.received()
        self.assertEqual(first, "STATUS=café READY=1 MAINPID=1?")
        self.assertEqual(len(second), len("STATUS=") + MAX_STATUS)

    def test_silent_without_a_manager(self) -> None:
        for environ in ({}, {"NOTIFY_SOCKET": ""}):
            notifier = self.notifier(environ)
            notifier.ready("up")
            notifier.status("well")
            notifier.watchdog()
            notifier.stopping()
            self.assertIsNone(notifier.watchdog_interval)

    def test_an_address_of_another_family_is_ignored(self) -> None:
        with capturedLogs() as events:
            notifier = self.notifier({"NOTIFY_SOCKET": "vsock:2:1234"})
            notifier.ready()
        self.assertEqual([event["log_level"] for event in events], [LogLevel.warn])

    def test_a_manager_that_went_away_is_logged_once_and_found_again(self) -> None:
        manager = Manager(self)
        notifier = self.notifier({"NOTIFY_SOCKET": manager.path})
        notifier.ready()
        manager.socket.close()
        os.unlink(manager.path)
        with capturedLogs() as events:
            notifier.watchdog()
            notifier.watchdog()
        self.assertEqual(len(events), 1)
        back = Manager(self, address=manager.path)
        notifier.watchdog()
        self.assertEqual(back.received(), ["WATCHDOG=1"])
        back.socket.close()
        with capturedLogs() as events:
            notifier.watchdog()
        self.assertEqual(len(events), 1)

    def test_a_manager_that_does_not_read_never_blocks(self) -> None:
        manager = Manager(self)
        notifier = self.notifier({"NOTIFY_SOCKET": manager.path})
        with capturedLogs() as events:
            for _ in range(10_000):
                notifier.watchdog()
        self.assertEqual(len(events), 1)
        manager.received()
        notifier.stopping()
        self.assertEqual(manager.received(), ["STOPPING=1"])

    def test_a_path_too_long_for_a_socket_is_only_logged(self) -> None:
        with capturedLogs() as events:
            self.notifier({"NOTIFY_SOCKET": "/" + "x" * 200}).ready()
        self.assertEqual(len(events), 1)

    def test_the_managers_variables_are_taken_out_of_the_environment(self) -> None:
        environ = {
            "NOTIFY_SOCKET": "/run/notify",
            "WATCHDOG_USEC": "60000000",
            "WATCHDOG_PID": "42",
            "PATH": "/bin",
        }
        self.notifier(environ)
        self.assertEqual(environ, {"PATH": "/bin"})

    def test_watchdog_interval_is_half_of_what_is_allowed(self) -> None:
        cases: list[tuple[dict[str, str], float | None]] = [
            ({}, None),
            ({"WATCHDOG_USEC": "60000000"}, 30.0),
            ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "42"}, 30.0),
            ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "43"}, None),
            ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "x"}, None),
            ({"WATCHDOG_USEC": "0"}, None),
            ({"WATCHDOG_USEC": "-5"}, None),
            ({"WATCHDOG_USEC": "1e9"}, None),
            ({"WATCHDOG_USEC": "6" * 10_000}, None),
            ({"WATCHDOG_USEC": ""}, None),
        ]
        for variables, expected in cases:
            with self.subTest(variables=variables):
                notifier = self.notifier({"NOTIFY_SOCKET": "/run/notify", **variables})
                self.assertEqual(notifier.watchdog_interval, expected)

    def test_no_watchdog_without_a_socket_to_feed_it_over(self) -> None:
        self.assertIsNone(self.notifier({"WATCHDOG_USEC": "60000000"}).watchdog_interval)


class WatchdogServiceTests(SynchronousTestCase):
    def service(self, **variables: str) -> tuple[Manager, Clock, WatchdogService]:
        manager, clock = Manager(self), Clock()
        notifier = Notifier({"NOTIFY_SOCKET": manager.path, **variables}, pid=42)
        self.addCleanup(notifier.close)
        return manager, clock, WatchdogService(notifier, clock)

    def test_feeds_at_once_and_then_at_half_the_limit(self) -> None:
        manager, clock, service = self.service(WATCHDOG_USEC="60000000")
        service.startService()
        self.assertEqual(manager.received(), ["WATCHDOG=1"])
        clock.advance(29.9)
        self.assertEqual(manager.received(), [])
        clock.advance(0.2)
        self.assertEqual(manager.received(), ["WATCHDOG=1"])
        clock.pump([30, 30])
        self.assertEqual(manager.received(), ["WATCHDOG=1"] * 2)
        service.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_goes_on_after_the_manager_was_away(self) -> None:
        manager, clock, service = self.service(WATCHDOG_USEC="60000000")
        manager.socket.close()
        os.unlink(manager.path)
        service.startService()
        back = Manager(self, address=manager.path)
        clock.advance(30)
        self.assertEqual(back.received(), ["WATCHDOG=1"])
        service.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_does_nothing_where_none_is_asked_for(self) -> None:
        manager, clock, service = self.service()
        service.startService()
        self.assertEqual(clock.getDelayedCalls(), [])
        service.stopService()
        self.assertEqual(manager.received(), [])


class ChildTests(TestCase):
    async def test_a_child_does_not_inherit_the_managers_socket(self) -> None:
        os.environ["NOTIFY_SOCKET"] = "/run/notify"
        self.addCleanup(os.environ.pop, "NOTIFY_SOCKET", None)
        Notifier(os.environ)
        output = await getProcessOutput("/usr/bin/env", env=None)
        self.assertNotIn(b"NOTIFY_SOCKET", output)
