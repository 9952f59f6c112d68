"""The bounded send queue, item by item and against a model of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from jetcamer.net.outbox import Keep, Outbox


class OutboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dropped: list[str] = []
        self.written: list[str] = []
        self.outbox: Outbox[str] = Outbox(100, self.dropped.append)

    def test_is_the_producer_its_transport_wants(self) -> None:
        verifyObject(IPushProducer, self.outbox)

    def test_open_sends_at_once_and_in_order(self) -> None:
        self.outbox.open(self.written.append)
        for name in "abc":
            self.assertTrue(self.outbox.put(name, 10, Keep.LIVE))
        self.assertEqual(self.written, ["a", "b", "c"])
        self.assertEqual(self.outbox.size, 0)

    def test_what_waits_is_sent_in_the_order_it_came_whatever_its_kind(self) -> None:
        self.outbox.put("result", 10, Keep.ASSURED)
        self.outbox.put("metrics", 10, Keep.LIVE)
        self.outbox.put("log", 10, Keep.QUEUED)
        self.assertEqual(len(self.outbox), 3)
        self.outbox.open(self.written.append)
        self.assertEqual(self.written, ["result", "metrics", "log"])

    def test_a_full_transport_stops_it_and_an_empty_one_resumes(self) -> None:
        self.outbox.open(self.written.append)
        self.outbox.pauseProducing()
        self.outbox.put("a", 10, Keep.LIVE)
        self.assertEqual(self.written, [])
        self.outbox.resumeProducing()
        self.assertEqual(self.written, ["a"])

    def test_a_writer_that_fills_the_transport_is_not_called_again(self) -> None:
        def write(item: str) -> None:
            self.written.append(item)
            self.outbox.pauseProducing()

        for name in "abc":
            self.outbox.put(name, 10, Keep.LIVE)
        self.outbox.open(write)
        self.assertEqual(self.written, ["a"])
        self.outbox.resumeProducing()
        self.assertEqual(self.written, ["a", "b"])

    def test_a_writer_that_puts_does_not_recurse(self) -> None:
        def write(item: str) -> None:
            self.written.append(item)
            if len(self.written) < 2000:
                self.outbox.put(f"{len(self.written)}", 1, Keep.LIVE)

        self.outbox.open(write)
        self.outbox.put("0", 1, Keep.LIVE)
        self.assertEqual(len(self.written), 2000)

    def test_full_of_live_drops_the_oldest_live(self) -> None:
        for number in range(11):
            self.assertTrue(self.outbox.put(str(number), 10, Keep.LIVE))
        self.assertEqual(self.dropped, ["0"])
        self.assertEqual(self.outbox.size, 100)

    def test_live_goes_before_queued_and_assured_stays(self) -> None:
        self.outbox.put("result", 40, Keep.ASSURED)
        self.outbox.put("log", 30, Keep.QUEUED)
        self.outbox.put("metrics", 30, Keep.LIVE)
        self.assertTrue(self.outbox.put("result 2", 30, Keep.ASSURED))
        self.assertEqual(self.dropped, ["metrics"])
        self.assertTrue(self.outbox.put("result 3", 30, Keep.ASSURED))
        self.assertEqual(self.dropped, ["metrics", "log"])
        self.assertEqual(self.outbox.size, 100)

    def test_assured_that_does_not_fit_is_refused_and_drops_nothing(self) -> None:
        self.outbox.put("log", 30, Keep.QUEUED)
        self.outbox.put("result", 60, Keep.ASSURED)
        self.assertFalse(self.outbox.put("result 2", 50, Keep.ASSURED))
        self.assertEqual(self.dropped, [])
        self.assertEqual(self.outbox.size, 90)

    def test_live_never_pushes_a_log_message_out(self) -> None:
        self.outbox.put("log", 95, Keep.QUEUED)
        self.assertFalse(self.outbox.put("metrics", 10, Keep.LIVE))
        self.assertEqual(self.dropped, ["metrics"])

    def test_larger_than_the_box_is_reported_at_once(self) -> None:
        self.outbox.put("small", 10, Keep.LIVE)
        self.assertFalse(self.outbox.put("huge", 101, Keep.QUEUED))
        self.assertEqual(self.dropped, ["huge"])

    def test_close_drops_live_only(self) -> None:
        for name, keep in (("m", Keep.LIVE), ("l", Keep.QUEUED), ("r", Keep.ASSURED)):
            self.outbox.put(name, 10, keep)
        self.outbox.close()
        self.assertEqual(self.dropped, ["m"])
        self.outbox.open(self.written.append)
        self.assertEqual(self.written, ["l", "r"])

    def test_a_pause_dies_with_its_connection(self) -> None:
        self.outbox.open(self.written.append)
        self.outbox.pauseProducing()
        self.outbox.put("r", 10, Keep.ASSURED)
        self.outbox.stopProducing()
        self.outbox.close()
        self.outbox.open(self.written.append)
        self.assertEqual(self.written, ["r"])

    def test_when_empty(self) -> None:
        self.assertIsNone(self.successResultOf(self.outbox.when_empty()))
        self.outbox.put("r", 10, Keep.ASSURED)
        waiting = self.outbox.when_empty()
        self.assertNoResult(waiting)
        self.outbox.open(self.written.append)
        self.assertIsNone(self.successResultOf(waiting))

    def test_when_empty_may_be_cancelled(self) -> None:
        self.outbox.put("r", 10, Keep.ASSURED)
        waiting = self.outbox.when_empty()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.outbox.open(self.written.append)
        self.assertEqual(self.written, ["r"])

    @settings(deadline=None, derandomize=True, max_examples=100, database=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("put"), st.integers(1, 60), st.sampled_from(list(Keep))),
                st.tuples(st.sampled_from(["open", "close", "pause", "resume"])),
            ),
            max_size=60,
        )
    )
    def test_every_item_is_written_dropped_refused_or_still_there(self, steps: list) -> None:
        dropped: list[tuple[int, Keep]] = []
        written: list[tuple[int, Keep]] = []
        outbox: Outbox[tuple[int, Keep]] = Outbox(100, dropped.append)
        put = refused = 0
        for step in steps:
            match step:
                case ("put", size, keep):
                    fits = outbox.put((put, keep), size, keep)
                    put += 1
                    refused += not fits and keep is Keep.ASSURED
                case ("open",):
                    outbox.open(written.append)
                case ("close",):
                    outbox.close()
                case ("pause",):
                    outbox.pauseProducing()
                case ("resume",):
                    outbox.resumeProducing()
            self.assertLessEqual(outbox.size, outbox.limit)
        self.assertEqual(put, len(written) + len(dropped) + refused + len(outbox))
        self.assertEqual(written, sorted(written, key=lambda item: item[0]))
        self.assertNotIn(Keep.ASSURED, [keep for _, keep in dropped])
