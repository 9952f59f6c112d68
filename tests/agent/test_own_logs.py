"""Forwarding the agent's own warnings without feeding on them."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.own_logs import PER_MINUTE, SOURCE, OwnLogForwarder


class OwnLogForwarderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[str, str, str | None]] = []
        self.publisher = LogPublisher()
        self.log = Logger("jetcamer.anything", observer=self.publisher)
        self.forwarder = OwnLogForwarder(self.send, self.clock.seconds)
        self.publisher.addObserver(self.forwarder)

    def send(self, level: str, message: str, source: str | None) -> None:
        self.sent.append((level, message, source))
        self.log.warn("sending made a warning")

    def test_warnings_and_errors_only(self) -> None:
        self.log.debug("no")
        self.log.info("no")
        self.log.warn("disk {mount} is full", mount="/")
        self.log.error("broken")
        self.log.critical("gone")
        self.assertEqual(
            self.sent,
            [
                ("warn", "disk / is full", SOURCE),
                ("error", "broken", SOURCE),
                ("error", "gone", SOURCE),
            ],
        )

    def test_a_failure_is_named_without_its_traceback(self) -> None:
        self.log.failure("timer failed", Failure(OSError("no /proc")))
        self.assertEqual(self.sent, [("error", "timer failed: OSError: no /proc", SOURCE)])

    def test_what_sending_logs_is_not_sent(self) -> None:
        self.log.warn("one")
        self.assertEqual(len(self.sent), 1)

    def test_neither_what_others_log_nor_what_is_said_of_the_servers_messages(self) -> None:
        Logger("database", observer=self.publisher).error("its own affair")
        Logger("jetcamerish", observer=self.publisher).error("not ours")
        self.log.warn("[ws] message refused", local_only=True)
        self.assertEqual(self.sent, [])

    def test_a_flood_is_cut_and_counted(self) -> None:
        for number in range(PER_MINUTE + 1234):
            self.log.warn("{n}", n=number)
        self.assertEqual(len(self.sent), PER_MINUTE)
        self.clock.advance(60)
        self.log.warn("later")
        self.assertEqual(
            [words for _, words, _ in self.sent[PER_MINUTE:]],
            ["… and 1,234 messages more", "later"],
        )

    def test_a_send_that_fails_leaves_it_working(self) -> None:
        def fail(level: str, message: str, source: str | None) -> None:
            raise RuntimeError("no")

        forwarder = OwnLogForwarder(fail, self.clock.seconds)
        publisher = LogPublisher()
        publisher.addObserver(forwarder)
        log = Logger("jetcamer.anything", observer=publisher)
        log.warn("one")
        self.assertFalse(forwarder._sending)
