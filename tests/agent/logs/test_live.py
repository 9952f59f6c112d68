"""Lines to the link: their order, their rate, and the count of those that were not sent."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs import live as module
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.lines import MAX_LINE
from jetcamer.agent.logs.live import (
    MAX_WAITING,
    MAX_WAITING_BYTES,
    SAY_INTERVAL,
    TURN_SIZE,
    Live,
)
from jetcamer.agent.logs.stream import BLOCK_SIZE, Source, Stream
from jetcamer.agent.send_queue import Counters, Outgoing, SendQueue
from tests.support.logs import LogsMixin


class LiveCase(LogsMixin, SynchronousTestCase):
    rate = 200

    def setUp(self) -> None:
        self.logged = self.capture_logs()
        self.clock = Clock()
        self.counters = Counters()
        self.queue = SendQueue(self.counters)
        self.written: list[Mapping[str, Any]] = []
        self.changes = 0
        self.live = Live(
            self.clock,
            self.queue,
            rate=self.rate,
            parser_for=self.parser_for,
            changed=self.changed,
        )
        self.addCleanup(self.check_over)

    def check_over(self) -> None:
        self.live.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def changed(self) -> None:
        self.changes += 1

    def parser_for(self, path: str) -> Callable[[str], Mapping[str, Any] | None]:
        return lambda line: {"path": line} if line.startswith("GET") else None

    def stream(self, name: str = "access.log") -> Stream:
        path = f"{self.mktemp()}.{name}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.addCleanup(os.close, fd)
        return Stream(
            f"id-{name}", path, Source(fd, head=b""), Ledger(), device=1, inode=os.fstat(fd).st_ino
        )

    def write(self, stream: Stream, *lines: str) -> None:
        os.write(stream.source.fd, "".join(f"{line}\n" for line in lines).encode())
        stream.end = stream.source.size()
        self.live.more(stream)
        while stream.live.position < stream.end:
            self.clock.advance(0)

    def open(self) -> None:
        def write(outgoing: Outgoing) -> None:
            self.written.append(json.loads(outgoing.payload))
            self.queue.sent(outgoing)

        self.queue.open(write)
        self.live.link_changed()

    def messages(self) -> list[str]:
        return [payload["message"] for payload in self.written]

    def assert_ledger(self, stream: Stream, *, sent: int, suppressed: int) -> None:
        self.assertEqual((stream.ledger.sent, stream.ledger.suppressed), (sent, suppressed))


class LiveTests(LiveCase):
    def test_a_line_is_sent_as_it_is_written(self) -> None:
        self.open()
        stream = self.stream()
        self.write(stream, "GET /a", "hallo wörld")
        self.assertEqual(
            self.written,
            [
                {
                    "level": "info",
                    "message": "GET /a",
                    "source": stream.path,
                    "event": {"path": "GET /a"},
                },
                {"level": "info", "message": "hallo wörld", "source": stream.path},
            ],
        )
        self.assertTrue(stream.settled)
        self.assert_ledger(stream, sent=2, suppressed=0)
        self.assertGreater(self.changes, 0)

    def test_a_partial_line_waits_for_its_end(self) -> None:
        self.open()
        stream = self.stream()
        os.write(stream.source.fd, b"one\ntw")
        stream.end = 6
        self.live.more(stream)
        self.assertEqual(self.messages(), ["one"])
        self.assertEqual(stream.live_settled, 4)
        self.write(stream, "o")
        self.assertEqual(self.messages(), ["one", "two"])

    def test_a_complete_stream_gives_its_last_line_without_its_end(self) -> None:
        self.open()
        stream = self.stream()
        os.write(stream.source.fd, b"one\r\ntwo")
        stream.end, stream.complete = 8, True
        self.live.more(stream)
        self.assertEqual(self.messages(), ["one", "two"])
        self.assertTrue(stream.settled)

    def test_no_more_than_the_rate_is_sent_and_none_is_lost_to_it(self) -> None:
        self.open()
        stream = self.stream()
        self.write(stream, *map(str, range(500)))
        self.assertEqual(len(self.written), 200)
        self.clock.pump([0.25] * 3)
        self.assertEqual(len(self.written), 200)
        self.clock.advance(0.25)
        self.assertEqual(len(self.written), 400)
        self.clock.pump([0.25] * 4)
        self.assertEqual(self.messages(), [str(n) for n in range(500)])
        self.assert_ledger(stream, sent=500, suppressed=0)

    def test_of_too_many_lines_the_newest_are_sent_and_the_rest_is_said_once_a_minute(
        self,
    ) -> None:
        self.open()
        stream = self.stream()
        self.write(stream, *map(str, range(6213)))
        self.clock.pump([0.25] * 20)
        self.assertEqual(self.messages(), [str(n) for n in range(5213, 6213)])
        self.assert_ledger(stream, sent=1000, suppressed=5213)
        self.clock.advance(SAY_INTERVAL)
        self.assertEqual(
            self.written[1000:],
            [{"level": "info", "message": "… and 5,213 lines more", "source": stream.path}],
        )
        self.clock.advance(SAY_INTERVAL)
        self.assertEqual(len(self.written), 1001)

    def test_while_the_link_is_down_the_last_thousand_lines_wait(self) -> None:
        stream = self.stream()
        for first in range(0, 2500, 100):
            self.write(stream, *map(str, range(first, first + 100)))
        self.assertEqual(self.live.waiting, MAX_WAITING)
        self.assert_ledger(stream, sent=0, suppressed=1500)
        self.assertEqual(self.queue.size, 0)
        self.clock.advance(SAY_INTERVAL)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.open()
        self.clock.pump([0.25] * 80)
        self.assertEqual(self.messages(), [str(n) for n in range(1500, 2500)])
        self.clock.advance(SAY_INTERVAL)
        self.assertEqual(self.messages()[1000:], ["… and 1,500 lines more"])

    def test_those_that_waited_come_slowly_after_a_first_burst_and_newer_ones_as_ever(
        self,
    ) -> None:
        stream = self.stream()
        self.write(stream, *map(str, range(600)))
        self.open()
        self.clock.pump([0.25] * 12)
        self.assertLess(len(self.written), 400 + 90)
        self.clock.pump([0.25] * 20)
        self.assertEqual(len(self.written), 600)
        self.write(stream, *map(str, range(600, 900)))
        self.clock.pump([0.25] * 4)
        self.assertEqual(self.messages(), [str(n) for n in range(900)])

    def test_newer_ones_do_not_wait_for_those_that_made_way(self) -> None:
        stream = self.stream()
        self.write(stream, *["old"] * 1000)
        self.open()
        self.clock.pump([0.25] * 8)
        self.write(stream, *["new"] * 1000)
        before = len(self.written)
        self.clock.advance(1)
        self.assertEqual(self.messages()[before:], ["new"] * 200)

    def test_bytes_that_wait_are_bounded_too(self) -> None:
        stream = self.stream()
        for n in range(40):
            self.write(stream, f"{n}:" + "x" * (MAX_LINE - 10))
        self.assertLessEqual(self.live._waiting_bytes, MAX_WAITING_BYTES)
        self.assertEqual(self.live.waiting, 16)
        self.assert_ledger(stream, sent=0, suppressed=24)

    def test_with_more_lines_than_can_wait_the_place_is_that_of_the_oldest_that_waits(
        self,
    ) -> None:
        for before in ([], ["a", "b"]):
            stream = self.stream(f"{len(before)}.log")
            if before:
                self.write(stream, *before)
            self.write(stream, *["four"] * 5000)
            first = stream.end - 5 * MAX_WAITING
            self.assertEqual((stream.live_settled, stream.state().live), (first, first))
            self.assert_ledger(stream, sent=0, suppressed=4000 + len(before))
            self.assertFalse(stream.settled)

    def test_a_large_backlog_is_only_counted_but_for_its_end(self) -> None:
        stream = self.stream()
        self.write(stream, "waits")
        made = 0
        pop = self.live._pop

        def counted() -> Any:
            nonlocal made
            made += 1
            return pop()

        self.patch(self.live, "_pop", counted)
        self.write(stream, *["x" * 99] * 60_000)
        self.assertLess(made, 10_000)
        self.assertEqual(self.live.waiting, MAX_WAITING)
        self.assert_ledger(stream, sent=0, suppressed=59_001)
        self.assertEqual(stream.live_settled, stream.end - 100 * MAX_WAITING)

    def test_of_many_files_no_more_than_a_turns_worth_is_read_at_once(self) -> None:
        streams = [self.stream(f"{n}.log") for n in range(20)]
        for stream in streams:
            os.write(stream.source.fd, b"line\n" * 60_000)
            stream.end = stream.source.size()
        for stream in streams[1:]:
            self.live._reading[stream.id] = stream
        self.live.more(streams[0])
        read = sum(stream.live.position for stream in streams)
        self.assertLessEqual(read, TURN_SIZE + BLOCK_SIZE)
        while any(stream.live.position < stream.end for stream in streams):
            self.clock.advance(0)
        self.assertEqual(sum(stream.ledger.suppressed for stream in streams), 1_199_000)

    def test_how_many_more_there_were_is_said_once_the_server_takes_messages_again(self) -> None:
        self.open()
        stream = self.stream()
        self.write(stream, *map(str, range(1500)))
        self.clock.pump([0.25] * 40)
        self.queue.producer.pauseProducing()
        self.clock.advance(SAY_INTERVAL)
        self.queue.producer.resumeProducing()
        self.clock.advance(SAY_INTERVAL)
        self.assertEqual(self.messages()[-1], "… and 500 lines more")

    def test_what_waits_is_read_again_after_a_restart(self) -> None:
        stream = self.stream()
        self.write(stream, "one", "two")
        self.assertEqual(stream.state().live, 0)
        self.open()
        self.assertEqual(stream.state().live, stream.end)

    def test_an_overlong_line_is_cut_and_says_so(self) -> None:
        self.open()
        stream = self.stream()
        self.write(stream, "y" * 300_000, "next")
        first, second = self.messages()
        self.assertEqual(first, "y" * MAX_LINE + "… [line cut: 300001 bytes]")
        self.assertEqual(second, "next")
        self.assert_ledger(stream, sent=2, suppressed=0)

    def test_a_server_that_does_not_take_them_makes_them_wait(self) -> None:
        self.open()
        stream = self.stream()
        self.queue.producer.pauseProducing()
        self.write(stream, *map(str, range(1200)))
        self.assert_ledger(stream, sent=0, suppressed=200)
        self.assertEqual(self.queue.size, 0)
        self.queue.producer.resumeProducing()
        self.clock.pump([0.25] * 20)
        self.assertEqual(self.messages(), [str(n) for n in range(200, 1200)])

    def test_a_line_that_was_handed_over_but_not_written_is_not_settled(self) -> None:
        stream = self.stream()
        held: list[Outgoing] = []

        def write(outgoing: Outgoing) -> None:
            held.append(outgoing)
            self.queue.producer.pauseProducing()

        self.queue.open(write)
        self.write(stream, "one", "two")
        self.assertEqual((len(held), stream.live_settled), (1, 0))
        self.queue.close()
        self.queue.sent(held[0])
        self.assertEqual(stream.live_settled, 4)
        self.assert_ledger(stream, sent=1, suppressed=0)

    def test_what_is_suppressed_behind_a_line_in_hand_counts_when_its_place_does(self) -> None:
        stream = self.stream()
        held: list[Outgoing] = []

        def write(outgoing: Outgoing) -> None:
            held.append(outgoing)
            self.queue.producer.pauseProducing()

        self.queue.open(write)
        self.write(stream, "in hand")
        self.queue.close()
        self.write(stream, *["x"] * 3000)
        self.assertEqual(stream.live_settled, 0)
        self.assert_ledger(stream, sent=0, suppressed=0)
        self.queue.sent(held[0])
        self.assertEqual(stream.live_settled, 8 + 2 * 2000)
        self.assert_ledger(stream, sent=1, suppressed=2000)

    def test_what_was_suppressed_is_said_at_the_end(self) -> None:
        self.open()
        self.write(self.stream(), *map(str, range(1500)))
        self.live.stop()
        self.assertEqual(self.messages()[-1], "… and 500 lines more")

    def test_several_files_share_the_rate_and_keep_their_own_ledgers(self) -> None:
        self.open()
        one, two = self.stream("one"), self.stream("two")
        self.write(one, *["a"] * 150)
        self.write(two, *["b"] * 150)
        self.assertEqual((one.ledger.sent, two.ledger.sent), (150, 50))
        self.assertFalse(two.settled)
        self.clock.pump([0.25] * 4)
        self.assertEqual((one.ledger.sent, two.ledger.sent), (150, 150))
        self.assertTrue(one.settled and two.settled)

    def test_what_is_written_once_it_is_stopped_is_left_for_the_next_start(self) -> None:
        stream = self.stream()
        self.write(stream, "one")
        self.live.stop()
        os.write(stream.source.fd, b"two\n")
        stream.end = stream.source.size()
        self.live.more(stream)
        self.assertEqual((stream.live.position, stream.state().live), (4, 0))
        self.assert_ledger(stream, sent=0, suppressed=0)

    def test_a_file_that_is_closed_still_has_its_lines_sent(self) -> None:
        stream = self.stream()
        self.write(stream, "last words")
        self.live.closed(stream)
        self.open()
        self.assertEqual(self.messages(), ["last words"])
        self.assertTrue(stream.settled)


class LimitTests(LiveCase):
    """A server that closes the link of who sends more than a leaky bucket takes."""

    per_second = 50
    burst = 500

    def setUp(self) -> None:
        super().setUp()
        self.full_at = 0.0
        self.closings: list[float] = []
        self.refused = False

    def connect(self) -> None:
        def write(outgoing: Outgoing) -> None:
            self.queue.sent(outgoing)
            now = self.clock.seconds()
            due = max(self.full_at, now) + 1 / self.per_second
            if self.refused or due > now + self.burst / self.per_second:
                self.refused = True
                return
            self.full_at = due
            self.written.append(json.loads(outgoing.payload))

        self.refused = False
        self.queue.open(write)
        self.live.link_changed()

    def lose(self) -> None:
        self.queue.close()
        self.live.server_limits()
        self.live.link_changed()

    def run_for(self, seconds: float, stream: Stream, per_second: int) -> None:
        """A log that grows, and an agent that comes back two seconds after each closing."""
        back_at = 0.0
        for step in range(round(seconds * 4)):
            lines = per_second * (step + 1) // 4 - per_second * step // 4
            self.write(stream, *["x"] * lines)
            if self.refused and self.queue.is_open:
                self.lose()
                self.closings.append(self.clock.seconds())
                back_at = self.clock.seconds() + 2
            elif not self.queue.is_open and self.clock.seconds() >= back_at:
                self.connect()
            self.clock.advance(0.25)

    def test_one_line_says_what_is_sent_from_then_on(self) -> None:
        self.assertEqual(self.live.rate, 200)
        self.live.server_limits()
        said = "[logs] the server limits messages: sending at most {} lines a second"
        self.assertEqual(self.logged.lines, [said.format(100)])
        for _ in range(9):
            self.live.server_limits()
        self.assertEqual(self.logged.lines, [said.format(rate) for rate in (100, 50, 25, 12, 6, 5)])
        self.assertEqual(self.live.rate, 5)

    def test_lines_that_waited_come_at_that_pace_too(self) -> None:
        stream = self.stream()
        self.write(stream, *map(str, range(1000)))
        for _ in range(3):
            self.live.server_limits()
        self.open()
        self.assertEqual(len(self.written), 6)
        self.clock.pump([0.25] * 40)
        self.assertLessEqual(len(self.written), 6 + 250)
        self.assertGreater(len(self.written), 225)

    def test_the_slowest_pace_is_kept_exactly(self) -> None:
        self.write(self.stream(), *["x"] * 100)
        for _ in range(9):
            self.live.server_limits()
        self.open()
        self.clock.pump([0.01] * 1000)
        self.assertIn(len(self.written), range(46, 52))

    def test_a_busy_log_settles_after_two_closings_and_every_line_is_counted(self) -> None:
        stream = self.stream()
        self.run_for(300, stream, 150)
        self.assertEqual(len(self.closings), 2, self.closings)
        self.assertLess(self.closings[-1], 20)
        self.assertTrue(self.queue.is_open)
        ledger = stream.ledger
        self.assertEqual(ledger.sent + ledger.suppressed + self.live.waiting, 300 * 150)
        said = [int(m.split()[2].replace(",", "")) for m in self.messages() if m[0] == "…"]
        self.assertEqual(sum(said), ledger.suppressed - self.live._unsaid[stream.path])
        self.assertGreater(self.live._unsaid[stream.path], 0)

    def test_a_log_that_is_a_little_too_fast_costs_one_closing(self) -> None:
        self.run_for(300, self.stream(), 60)
        self.assertEqual(len(self.closings), 1, self.closings)

    def test_after_an_outage_a_quiet_log_does_not_run_into_the_limit(self) -> None:
        stream = self.stream()
        self.write(stream, *["x"] * 1000)
        self.run_for(60, stream, 16)
        self.assertEqual(self.closings, [])
        self.assertEqual(self.live.waiting, 0)

    def test_with_no_link_and_when_stopped_no_timer_runs(self) -> None:
        self.connect()
        self.lose()
        self.connect()
        self.assertNotEqual(self.clock.getDelayedCalls(), [])
        self.queue.close()
        self.live.link_changed()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.live.stop()
        self.connect()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_of_many_files_a_few_are_spoken_of_at_once_and_each_in_its_turn(self) -> None:
        self.patch(module, "MAX_SAID", 3)
        self.live = Live(
            self.clock,
            self.queue,
            rate=0,
            parser_for=self.parser_for,
            changed=self.changed,
        )
        self.open()
        streams = [self.stream(f"{n}.log") for n in range(7)]
        for _ in range(2):
            for stream in streams:
                self.write(stream, "line")
        said = []
        for _ in range(3):
            self.clock.advance(SAY_INTERVAL)
            said.append([payload["source"] for payload in self.written])
            self.written.clear()
        paths = [stream.path for stream in streams]
        self.assertEqual(said, [paths[:3], paths[3:6], paths[6:]])


class NoLinesTests(LiveCase):
    rate = 0

    def test_a_server_that_limits_messages_changes_nothing(self) -> None:
        self.live.server_limits()
        self.assertEqual((self.live.rate, self.logged.lines), (0, []))

    def test_none_is_sent_and_all_are_counted(self) -> None:
        self.open()
        stream = self.stream()
        self.write(stream, "one", "two")
        self.assertEqual(self.written, [])
        self.assertTrue(stream.settled)
        self.assert_ledger(stream, sent=0, suppressed=2)
        self.clock.advance(SAY_INTERVAL)
        self.assertEqual(self.messages(), ["… and 2 lines more"])
