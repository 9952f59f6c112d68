"""The stream of events: nothing missed, nothing twice, and an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from jetcamer.hub.bus.local import Event
from jetcamer.hub.store.interface import StoreError
from jetcamer.net.http_stream import KEEPALIVE_SECONDS, EventStream
from tests.hub.api.world import APICase
from tests.support.raw_http import MemoryConnection, parse_responses


def unchunked(data: bytes) -> bytes:
    """The body of an answer in chunks, as far as it has come."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body, data = body + data[:length], data[length + 2 :]
    return body


class Reader:
    """One reader in memory."""

    def __init__(self, connection: MemoryConnection, asked: bytes) -> None:
        self.connection = connection
        connection.transport.clear()
        connection.protocol.dataReceived(asked)
        head, _, rest = connection.transport.value().partition(b"\r\n\r\n")
        self.head = head.decode().lower()
        connection.transport.clear()
        connection.transport.write(rest)

    def blocks(self) -> list[str]:
        """What has come since the last look, without what is no event and no gap."""
        return [block for block in self.all_blocks() if "event:" in block]

    def all_blocks(self) -> list[str]:
        text = unchunked(self.connection.transport.value()).decode()
        self.connection.transport.clear()
        assert not text or text.endswith("\n\n"), text
        return text.split("\n\n")[:-1]


class EventsTests(APICase):
    def setUp(self) -> None:
        super().setUp()
        self.bus = self.world.bus

    def read(self, query: str = "", *headers: str) -> Reader:
        return Reader(
            self.connect(), self.text("GET", "/api/events" + query, *headers, role="viewer")
        )

    def publish(self, kind: Any = "metrics", agent_id: str | None = "web-1", **data: Any) -> None:
        self.bus.publish(kind, agent_id, 5, data)

    def test_events_as_they_happen(self) -> None:
        self.publish(n=0)
        reader = self.read()
        self.assertIn("http/1.1 200 ok", reader.head)
        self.assertIn("content-type: text/event-stream", reader.head)
        self.assertIn("cache-control: no-store", reader.head)
        self.assertNotIn("content-length", reader.head)
        # It begins now; where to resume is known before anything happens.
        self.assertEqual(reader.all_blocks(), [": open", "id: e-1"])
        self.publish(n=1, text="line\nbreak \u2028 é")
        self.publish("agent", None)
        self.assertEqual(
            reader.all_blocks(),
            [
                "id: e-2\nevent: metrics\n"
                'data: {"agentId":"web-1","ts":5,"n":1,"text":"line\\nbreak \u2028 é"}',
                'id: e-3\nevent: agent\ndata: {"agentId":null,"ts":5}',
            ],
        )

    def test_what_an_agent_wrote_ends_no_line(self) -> None:
        reader = self.read()
        reader.all_blocks()
        self.publish("log", event=msgspec.Raw(b'{"a":\r\n\n1,\r"event":"x\\n"}'))
        self.assertEqual(
            reader.all_blocks(),
            [
                "id: e-1\nevent: log\n"
                'data: {"agentId":"web-1","ts":5,"event":{"a":   1, "event":"x\\n"}}'
            ],
        )

    def test_only_what_was_asked_for(self) -> None:
        reader = self.read("?kinds=log,agent&agents=web-1,k%C3%A4se")
        for kind in ("agent", "metrics", "log"):
            for agent in ("web-1", "web-2", "käse", None):
                self.publish(kind, agent)
        self.assertEqual(len(reader.blocks()), 4)
        response = self.ask("GET", "/api/events?kinds=log,lgo")
        self.assert_error(response, 400, "kinds: not one of agent, metrics, log, command, refusal")

    def test_resuming(self) -> None:
        self.read("")  # without a reader, metrics would not be kept
        for number in range(5):
            self.publish("log" if number % 2 else "metrics", n=number)
        for ask in (("?kinds=metrics", "Last-Event-ID: e-2"), ("?kinds=metrics&lastEventId=e-2",)):
            reader = self.read(*ask)
            ids = [block.split("\n")[0] for block in reader.blocks()]
            self.assertEqual(ids, ["id: e-3", "id: e-5"])
        self.publish(n=6)
        self.assertEqual(len(reader.blocks()), 1)

    def test_what_is_not_known_any_more_is_a_gap(self) -> None:
        self.publish()
        for last in ("other-1", "e-99", "nonsense", "e-"):
            reader = self.read("", f"Last-Event-ID: {last}")
            self.assertEqual(reader.all_blocks(), [": open", "event: gap\ndata: {}", "id: e-1"])
        self.publish(n=2)
        self.assertEqual(len(reader.blocks()), 1)

    def test_what_happens_during_the_look_back_is_told_once_and_in_order(self) -> None:
        bus = self.bus

        class Racing:
            """A bus on which things happen while it is asked what has happened."""

            last_event_id = property(lambda _: bus.last_event_id)
            subscribe = staticmethod(bus.subscribe)

            @staticmethod
            def since(event_id: str) -> Any:
                bus.publish("metrics", "a", 5, {})  # in the answer, and told
                found = bus.since(event_id)
                bus.publish("metrics", "b", 5, {})  # told only
                return found

        self.publish()
        object.__setattr__(self.world.parts, "bus", Racing())
        reader = self.read("?lastEventId=e-1")
        ids = [block.split("\n")[0] for block in reader.blocks()]
        self.assertEqual(ids, ["id: e-2", "id: e-3"])

    def test_a_quiet_stream_is_kept_open_and_tells_where_to_resume(self) -> None:
        reader = self.read("?kinds=log")
        reader.all_blocks()
        self.clock.advance(KEEPALIVE_SECONDS - 1)
        self.publish("metrics")
        self.assertEqual(reader.all_blocks(), [])
        self.clock.advance(1)
        self.assertEqual(reader.all_blocks(), [":\nid: e-1"])
        self.clock.advance(KEEPALIVE_SECONDS / 2)
        self.publish("log")
        self.clock.advance(KEEPALIVE_SECONDS / 2)
        self.assertEqual(len(reader.all_blocks()), 1)
        self.clock.advance(3600)

    def test_a_client_that_leaves_is_forgotten(self) -> None:
        reader = self.read()
        self.assertEqual(len(self.bus._subscriptions), 1)
        reader.connection.lose()
        self.assertEqual(self.bus._subscriptions, [])
        self.assertEqual(self.site.streams, set())
        self.publish()

    def test_a_client_that_closes_its_half_has_left(self) -> None:
        reader = self.read()
        reader.connection.protocol.readConnectionLost()
        self.assertEqual(self.bus._subscriptions, [])
        self.assertTrue(reader.connection.transport.disconnecting)

    def test_it_ends_with_its_token(self) -> None:
        readers = {}
        for name, seconds in (("other", None), ("deleted", None), ("expired", 90)):
            body = {"name": name, "role": "viewer", "expiresSeconds": seconds}
            made = self.ask("POST", "/api/tokens", body=body).json
            asked = self.text("GET", "/api/events", role=made["token"])
            readers[name] = (Reader(self.connect(), asked), made["id"])

        def over() -> list[str]:
            found = []
            for name, (reader, _) in readers.items():
                if reader.connection.transport.value().endswith(b"\r\n0\r\n\r\n"):
                    found.append(name)
            return found

        self.store.failing = StoreError("full")
        self.ask("DELETE", f"/api/tokens/{readers['deleted'][1]}")
        self.assertEqual(over(), [])
        self.store.failing = None
        self.ask("DELETE", f"/api/tokens/{readers['deleted'][1]}")
        self.assertEqual(over(), ["deleted"])
        for _ in range(89):
            self.world.now += 1000
            self.clock.advance(1)
        self.assertEqual(over(), ["deleted"])
        self.world.now += 1000
        self.clock.advance(1)
        self.assertEqual(over(), ["deleted", "expired"])
        self.assertEqual(len(self.bus._subscriptions), 1)
        readers["other"][0].connection.lose()
        self.assertEqual(self.world.tokens._watches, {})

    def test_a_clock_that_was_set_forward_is_noticed(self) -> None:
        body = {"name": "short", "role": "viewer", "expiresSeconds": 1_000_000}
        token = self.ask("POST", "/api/tokens", body=body).json["token"]
        Reader(self.connect(), self.text("GET", "/api/events", role=token))
        self.world.now += 1_000_000_000
        self.clock.advance(60)
        self.assertEqual(self.bus._subscriptions, [])

    def test_what_was_missed_is_made_as_it_is_read(self) -> None:
        made: list[int] = []
        bus = self.bus

        class Counting:
            last_event_id = property(lambda _: bus.last_event_id)
            subscribe = staticmethod(bus.subscribe)

            @staticmethod
            def since(event_id: str) -> Any:
                for number in range(2, 100):
                    made.append(number)
                    data = b"x" * 30_000
                    yield Event(
                        event_id=f"e-{number}", kind="log", agent_id="a", ts_ms=1, data=data
                    )

        object.__setattr__(self.world.parts, "bus", Counting())
        connection = self.connect()
        write = connection.transport.write

        def full(data: bytes) -> None:
            write(data)
            if len(connection.transport.value()) > 65_536:
                connection.protocol.pauseProducing()

        connection.transport.write = full
        connection.transport.writeSequence = lambda parts: full(b"".join(parts))
        asked = self.text("GET", "/api/events?lastEventId=e-1", role="viewer")
        connection.protocol.dataReceived(asked)
        self.assertEqual(made, [2, 3, 4])
        connection.transport.clear()
        connection.protocol.resumeProducing()
        self.assertEqual(made, [2, 3, 4, 5, 6, 7])

    def test_closing_the_site_ends_it_in_order(self) -> None:
        reader = self.read()
        closed = self.site.close()
        self.assertTrue(reader.connection.transport.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(self.bus._subscriptions, [])
        self.assertTrue(reader.connection.transport.disconnecting)
        reader.connection.lose()
        self.successResultOf(closed)

    def test_a_reader_that_does_not_read_is_cut_off(self) -> None:
        reader, other = self.read(), self.read()
        transport = reader.connection.transport
        transport.abortConnection = reader.connection.lose
        transport.producer.pauseProducing()
        transport.clear()
        text = "x" * 100_000
        for _ in range(10):
            self.publish(text=text)
        self.assertEqual(transport.value(), b"")
        transport.producer.resumeProducing()
        self.assertEqual(len(reader.blocks()), 10)
        transport.producer.pauseProducing()
        for _ in range(10):
            self.publish(text=text)
        self.assertEqual(len(self.bus._subscriptions), 2)
        self.publish(text=text)
        self.assertEqual(len(self.bus._subscriptions), 1)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(len(other.blocks()), 21)

    def test_a_reader_that_takes_nothing_for_a_minute_is_cut_off(self) -> None:
        reader, other = self.read(), self.read()
        transport = reader.connection.transport
        transport.abortConnection = reader.connection.lose
        transport.producer.pauseProducing()
        self.clock.pump([15] * 3)
        transport.producer.resumeProducing()
        transport.producer.pauseProducing()
        self.clock.pump([15] * 3)
        self.assertEqual(len(self.bus._subscriptions), 2)
        self.clock.advance(15)
        self.assertEqual(len(self.bus._subscriptions), 1)
        self.assertEqual(len(other.all_blocks()), 9)

    def test_there_is_a_limit_on_streams(self) -> None:
        readers = [self.read() for _ in range(64)]
        response = self.ask("GET", "/api/events")
        self.assert_error(response, 503, "too many streams are open")
        self.assertEqual(response.headers["retry-after"], "30")
        readers[0].connection.lose()
        self.assertIn("200 ok", self.read().head)

    def test_head_has_no_end_to_wait_for(self) -> None:
        connection = self.connect()
        connection.protocol.dataReceived(self.text("HEAD", "/api/events"))
        text = connection.transport.value().lower()
        self.assertIn(b"text/event-stream", text)
        self.assertEqual(self.bus._subscriptions, [])
        connection.transport.clear()
        (response,) = connection.send(self.text("GET", "/healthz"))
        self.assertEqual(response.status, 200)

    def test_a_stream_takes_no_other_request(self) -> None:
        connection = self.connect()
        both = self.text("GET", "/api/events") + self.text("GET", "/healthz")
        connection.protocol.dataReceived(both)
        self.assertEqual(connection.transport.value().count(b"HTTP/1.1"), 1)
        (stream,) = self.site.streams
        stream.close()
        rest = connection.transport.value().partition(b"0\r\n\r\n")[2]
        (response,) = parse_responses(rest)
        self.assertEqual(response.body, b"ok")

    def test_a_reader_cut_off_by_what_it_missed_leaves_nothing_behind(self) -> None:
        ended: list[str] = []

        def began(stream: EventStream) -> Callable[[], None]:
            stream.close()
            return lambda: ended.append("ended")

        connection = self.connect()
        stream = EventStream(self.clock, began)
        self.patch(self.site.routes, "_answer", lambda _: stream)
        connection.protocol.dataReceived(self.text("GET", "/api/events"))
        self.assertEqual(ended, ["ended"])
        self.assertFalse(stream.open)
        stream.send(b"nothing")

    def test_a_supply_that_fails_ends_the_stream(self) -> None:
        self.patch(self.bus, "subscribe", lambda *_, **__: 1 / 0)
        connection = self.connect()
        connection.protocol.dataReceived(self.text("GET", "/api/events"))
        self.assertTrue(connection.transport.value().endswith(b"0\r\n\r\n"))
        self.assertEqual(self.site.streams, set())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
