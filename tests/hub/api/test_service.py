"""The service on real sockets: listening, streams, clients that leave or do not read, the end."""

from __future__ import annotations

import json
import os
import re
import ssl
from contextlib import closing
from http.client import HTTPSConnection

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from jetcamer.hub.api.reading import fault_words
from jetcamer.hub.api.service import API_LIMITS, APIService, ListenError
from jetcamer.net.http_site import Limits
from tests.hub.api.world import World
from tests.support.certs import TestCA
from tests.support.raw_http import RawClient, parse_responses, request


class ServiceCase(TestCase):
    timeout = 30

    async def setUp(self) -> None:
        self.world = World(reactor)
        await self.world.make_tokens()

    def serve(self, endpoint: str = "tcp:0:interface=127.0.0.1", **more: object) -> APIService:
        service = APIService(reactor, self.world.api, endpoint, **more)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def text(self, method: str, path: str, *headers: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        return request(
            method,
            path,
            f"Authorization: Bearer {self.world.secrets['admin']}",
            "Content-Type: application/json",
            *headers,
            body=data,
        )


class ListeningTests(ServiceCase):
    async def test_answers_where_it_says(self) -> None:
        service = self.serve()
        self.assertEqual(service.url, f"http://127.0.0.1:{service.port}")
        client = await RawClient.connect(reactor, service.port)
        client.send(request("GET", "/healthz", "Connection: close"))
        (response,) = parse_responses(await client.until_closed())
        self.assertEqual(response.body, b"ok")

    async def test_a_port_that_is_taken_is_one_line(self) -> None:
        taken = self.serve()
        description = f"tcp:{taken.port}:interface=127.0.0.1"
        other = APIService(reactor, self.world.api, ["tcp:0:interface=127.0.0.1", description])
        error = self.assertRaises(ListenError, other.bind)
        self.assertEqual(str(error), f"apiListen {description}: Address already in use")
        self.assertRaises(RuntimeError, lambda: other.port)

    def test_descriptions_that_are_none(self) -> None:
        for description in ("nonsense", "tcp:port", "ssl:0:privateKey=/none", "unix:/none/x"):
            service = APIService(reactor, self.world.api, description)
            error = self.assertRaises(ListenError, service.bind)
            self.assertTrue(str(error).startswith(f"apiListen {description}: "), error)
            self.assertEqual(len(str(error).splitlines()), 1)

    async def test_several_endpoints_and_a_unix_socket(self) -> None:
        path = os.path.relpath(os.path.join(self.mktemp()))
        service = self.serve(["unix:" + path, "tcp:0:interface=127.0.0.1"])
        tcp = f"http://127.0.0.1:{service.port}"
        self.assertEqual((service.urls, service.url), ([f"unix:{path}", tcp], tcp))
        client = await connectProtocol(UNIXClientEndpoint(reactor, path), RawClient())
        client.send(self.text("GET", "/api/tokens", "Connection: close"))
        (response,) = parse_responses(await client.until_closed())
        self.assertEqual(response.status, 200)

    async def test_the_addresses_listened_on_are_good_hosts(self) -> None:
        service = self.serve("tcp:0:interface=0.0.0.0", names=("hub.example",))
        self.assertEqual(service.url, f"http://127.0.0.1:{service.port}")
        self.assertEqual(service.urls, [f"http://0.0.0.0:{service.port}"])
        for host, status in (("192.0.2.1", 200), ("hub.example", 200), ("evil.example", 403)):
            client = await RawClient.connect(reactor, service.port)
            client.send(request("GET", "/healthz", "Connection: close", host=host))
            (response,) = parse_responses(await client.until_closed())
            self.assertEqual(response.status, status)

    async def test_starting_and_stopping_again(self) -> None:
        service = self.serve()
        service.bind()
        await service.stopService()
        self.assertRaises(RuntimeError, lambda: service.port)
        await service.stopService()

    def test_the_limits(self) -> None:
        self.assertEqual(API_LIMITS, Limits(262_144, 10.0, 256, 64))


class StreamTests(ServiceCase):
    async def open(self, service: APIService) -> RawClient:
        client = await RawClient.connect(reactor, service.port)
        client.send(self.text("GET", "/api/events"))
        await client.until(lambda data: b"id: e-" in data)
        return client

    async def test_events_arrive(self) -> None:
        client = await self.open(self.serve())
        self.world.bus.publish("metrics", "web-1", 5, {"n": 1})
        data = await client.until(lambda data: b'"n":1}\n\n' in data)
        self.assertIn(b"event: metrics\n", data)
        client.transport.loseConnection()
        await client.until_closed()

    async def test_stopping_ends_every_stream(self) -> None:
        service = self.serve()
        clients = [await self.open(service) for _ in range(3)]
        ended = gatherResults([client.until_closed() for client in clients])
        await service.stopService()
        for data in await ended:
            self.assertTrue(data.endswith(b"0\r\n\r\n"))
        self.assertEqual(self.world.bus._subscriptions, [])

    async def test_a_reader_that_does_not_read_is_cut_off(self) -> None:
        service = self.serve()
        client = await self.open(service)
        client.transport.pauseProducing()
        text = "x" * 65_536
        for _ in range(2_000):  # 128 MB
            if not self.world.bus._subscriptions:
                break
            self.world.bus.publish("log", "web-1", 5, {"text": text})
            await self.turn()
        self.assertEqual(self.world.bus._subscriptions, [])
        client.transport.resumeProducing()
        await client.until_closed()

    async def test_a_reader_that_missed_much_gets_it_all_in_order(self) -> None:
        service = self.serve()
        bus = self.world.bus
        for number in range(70):  # 7 MB, of which the stream may hold 1
            bus.publish("log", "web-1", 5, {"n": number, "text": "x" * 100_000}, 100_000)
        client = await RawClient.connect(reactor, service.port)
        client.send(self.text("GET", "/api/events?lastEventId=e-0"))
        await client.until(lambda data: b"id: e-1\n" in data)
        bus.publish("log", "web-1", 5, {"n": 70})
        data = await client.until(lambda data: b"id: e-71\n" in data)
        self.assertEqual([int(found) for found in re.findall(rb'"n":(\d+)', data)], [*range(71)])
        client.transport.loseConnection()
        await client.until_closed()

    async def test_a_client_that_resets_is_noticed(self) -> None:
        service = self.serve()
        client = await self.open(service)
        gone: Deferred[None] = Deferred()
        (stream,) = service._site.streams
        end = stream._end_supply
        stream._end_supply = lambda: (end(), gone.callback(None))
        client.transport.abortConnection()
        await gone
        self.assertEqual(self.world.bus._subscriptions, [])

    def turn(self) -> Deferred[None]:
        """One turn of the reactor."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        return turned


class TLSTests(ServiceCase):
    """Over the TLS of `jetcamer.net.listen`; a client of the standard library, in a thread."""

    async def setUp(self) -> None:
        await super().setUp()
        authority = TestCA(self.mktemp())
        issued = authority.issue(ips=["127.0.0.1"])
        self.service = self.serve(
            f"ssl:0:interface=127.0.0.1:privateKey={issued.path_key}:certKey={issued.path_cert}"
        )
        self.context = ssl.create_default_context(cafile=authority.path_cert)
        self.headers = {
            "Authorization": f"Bearer {self.world.secrets['admin']}",
            "Content-Type": "application/json",
        }

    def connect(self) -> HTTPSConnection:
        return HTTPSConnection("127.0.0.1", self.service.port, context=self.context, timeout=20)

    async def test_answers(self) -> None:
        self.assertEqual(self.service.url, f"https://127.0.0.1:{self.service.port}")

        def ask() -> list[int]:
            found = []
            with closing(self.connect()) as connection:
                for path, body in (
                    ("/api/status", None),
                    ("/api/join-tokens", b"{}"),
                    ("/api/join-tokens", b"x" * 300_000),
                ):
                    method = "GET" if body is None else "POST"
                    connection.request(method, path, body, self.headers)
                    response = connection.getresponse()
                    json.loads(response.read())
                    found.append(response.status)
            return found

        self.assertEqual(await deferToThread(ask), [200, 201, 413])

    async def test_events_to_the_end(self) -> None:
        begun: Deferred[None] = Deferred()

        def read() -> bytes:
            with closing(self.connect()) as connection:
                connection.request("GET", "/api/events", headers=self.headers)
                response = connection.getresponse()
                first = response.readline()
                reactor.callFromThread(begun.callback, None)
                return first + response.read()

        reading = deferToThread(read)
        await begun
        self.world.bus.publish("log", "web-1", 5, {"text": "x" * 300_000})
        await self.service.stopService()
        data = await reading
        self.assertTrue(data.startswith(b": open\n"))
        self.assertEqual(data.count(b"x" * 300_000), 1)
        self.assertTrue(data.endswith(b"\n\n"))


class WithoutSocketsTests(SynchronousTestCase):
    def test_words_for_msgspecs_faults(self) -> None:
        for fault, words in (
            ("Expected `int`, got `str` - at `$.a.b`", "a.b: expected a whole number"),
            ("Expected `int | null`, got `str` - at `$.a`", "a: expected a whole number or null"),
            ("Expected `str`, got `int` - at `$.agents[...]`", "agents: expected a string"),
            ("Object missing required field `x`", "x: missing"),
            ("Object missing required field `x` - at `$.a`", "a.x: missing"),
            ("Object contains unknown field `secret\ntext`", "a name: not known here"),
            ("Invalid enum value 'hunter2' - at `$.a`", "a: not one of the values it may have"),
            ("Something new 'hunter2'", "the body: not one of the values it may have"),
        ):
            self.assertEqual(fault_words(fault), words)

    def test_nothing_is_left_when_nobody_comes(self) -> None:
        clock = Clock()
        world = World(clock)
        APIService(clock, world.api, "tcp:0")
        self.assertEqual(clock.getDelayedCalls(), [])
