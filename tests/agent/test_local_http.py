"""The local interface: every route in memory, and what a browser or a bad client tries for real."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, ClassVar
from unittest import mock

from treq.testing import StubTreq
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase, TestCase

from jetcamer.agent import s3_http
from jetcamer.agent.credential_store import CredentialStore, StoredCredentials
from jetcamer.agent.local_http import (
    CHANGE_SECONDS,
    NO_REGION,
    ListenError,
    LocalHTTP,
    local_routes,
    parse_aws_config,
)
from jetcamer.agent.logs import shipping
from jetcamer.agent.logs.archive_errors import ArchiveOff, SpoolFull
from jetcamer.agent.logs.posted import Stored
from jetcamer.agent.logs.s3_client import S3Access
from jetcamer.agent.logs.s3_errors import UploadError
from jetcamer.agent.logs.s3_validate import S3Check, S3Question
from jetcamer.agent.s3_http import BATCH_SECONDS
from jetcamer.net.http import Guard
from tests.support.aws import aws_environ
from tests.support.moto_server import shared_moto
from tests.support.raw_http import RawClient, Response, parse_responses, request
from tests.support.s3_proxy import S3Proxy
from tests.support.tools import ROOT

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
GOOD = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
JSON = "Content-Type: application/json"
PATH = "/internal/set-aws-config"


class FakeAgent:
    """The agent behind the interface, with a real store."""

    version = "5.0.0"

    def __init__(self, directory: str) -> None:
        self.store = CredentialStore(os.path.join(directory, "aws-credentials.json"), None)
        self.looks = 0
        self.look: Callable[[], Deferred[bool]] = lambda: succeed(True)
        self.status: Mapping[str, object] = {"started": True, "apiURL": "wss://hub/agent"}
        self.id: str | OSError = "0123456789abcdef"
        self.question: S3Question | None = None
        self.batches: list[tuple[bytes, int]] = []
        self.upload: Callable[[], Deferred[int]] = lambda: succeed(self.batches[-1][1])
        self.disk: Callable[[], Deferred[None]] = lambda: succeed(None)

    def ws_status(self) -> Mapping[str, object]:
        return self.status

    def machine_id(self) -> str:
        if isinstance(self.id, OSError):
            raise self.id
        return self.id

    def credentials_changed(self) -> Deferred[bool]:
        self.looks += 1
        return self.look()

    def s3_question(self) -> S3Question:
        assert self.question is not None
        return self.question

    def upload_batch(self, body: bytes, count: int) -> Deferred[Stored]:
        self.batches.append((body, count))
        return self.disk().addCallback(lambda _: Stored(self.upload()))


def s3_question(bucket: str = "logs", endpoint: str | None = None) -> S3Question:
    return S3Question(
        access=S3Access(bucket, None, endpoint, StoredCredentials("AKIAEXAMPLE", SECRET, None)),
        machine_id="0123456789abcdef",
        credentials_type="stored-credentials",
        environ=aws_environ(),
    )


class RoutesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = FakeAgent(self.mktemp())
        routes = local_routes(self.clock, self.agent, Guard("127.0.0.1"))
        self.client = StubTreq(routes)

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def ask(self, method: str, path: str, body: Any = None, **kwargs: Any) -> tuple[int, Any]:
        if body is not None:
            kwargs["data"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            kwargs.setdefault("headers", {"Content-Type": "application/json"})
        asking = self.client.request(method, f"http://localhost:9811{path}", **kwargs)
        response = self.successResultOf(asking)
        self.assertEqual(response.headers.getRawHeaders("Cache-Control"), ["no-store"])
        text = self.successResultOf(self.client.text_content(response, "utf-8"))
        self.assertNotIn(SECRET, text)
        kind = response.headers.getRawHeaders("Content-Type")
        if kind == ["text/plain"]:
            return response.code, text
        self.assertEqual(kind, ["application/json"])
        return response.code, json.loads(text)


class RoutesTests(RoutesCase):
    def test_health_and_version(self) -> None:
        self.assertEqual(self.ask("GET", "/health"), (200, "ok"))
        self.assertEqual(self.ask("GET", "/version"), (200, {"version": "5.0.0"}))

    def test_machine_id(self) -> None:
        path = "/internal/get-machine-id"
        self.assertEqual(self.ask("GET", path), (200, {"machineId": "0123456789abcdef"}))
        self.agent.id = FileNotFoundError(2, "No such file or directory", "/etc/machine-id")
        words = "the machine id cannot be read: No such file or directory"
        self.assertEqual(self.ask("GET", path), (500, {"error": words}))

    def test_ws_status(self) -> None:
        self.assertEqual(self.ask("GET", "/internal/ws-status"), (200, self.agent.status))

    def test_wrong_methods(self) -> None:
        for method, path in (
            ("POST", "/health"),
            ("PUT", "/version"),
            ("DELETE", "/internal/get-machine-id"),
            ("POST", "/internal/ws-status"),
            ("GET", PATH),
            ("PATCH", PATH),
            ("POST", "/internal/s3-validate"),
            ("GET", "/internal/batch"),
        ):
            with self.subTest(method=method, path=path):
                self.assertEqual(self.ask(method, path), (405, {"error": "method not allowed"}))

    def test_credentials_are_stored_and_the_link_is_told(self) -> None:
        stored = {"status": "ok", "message": "AWS credentials stored successfully"}
        for method in ("PUT", "POST"):
            with self.subTest(method=method), capturedLogs() as events:
                body = {**GOOD, "AWS_REGION": "eu-west-1", "AWS_SESSION_TOKEN": ["ignored"]}
                self.assertEqual(
                    self.ask(method, PATH, body),
                    (200, {**stored, "region": "eu-west-1", "websocket": "started"}),
                )
                self.assertEqual(
                    self.agent.store.load(),
                    StoredCredentials("AKIAEXAMPLE", SECRET, "eu-west-1"),
                )
                self.assertTrue(self.agent.store.delete())
            self.assert_no_secret(events)
        self.assertEqual(self.agent.looks, 2)
        self.assertEqual(
            stat.S_IMODE(os.stat(os.path.dirname(self.agent.store.path)).st_mode), 0o700
        )

    def assert_no_secret(self, events: list[Any]) -> None:
        for event in events:
            for text in (eventAsText(event), repr(event)):
                self.assertNotIn(SECRET, text)
                self.assertNotIn("AKIAEXAMPLE", text)

    def test_without_a_region_there_is_a_warning(self) -> None:
        self.agent.look = lambda: succeed(False)
        for more in ({}, {"AWS_REGION": None}, {"AWS_REGION": ""}, {"AWS_REGION": "\n"}):
            with self.subTest(more=more):
                code, answer = self.ask("PUT", PATH, {**GOOD, **more})
                self.assertEqual(code, 200)
                self.assertEqual(
                    answer,
                    {
                        "status": "ok",
                        "message": "AWS credentials stored successfully",
                        "warning": NO_REGION,
                    },
                )

    def test_both_keys_are_required(self) -> None:
        key, secret = GOOD.items()
        for body in (
            {},
            dict([key]),
            dict([secret]),
            {**GOOD, key[0]: ""},
            {**GOOD, secret[0]: " \n"},
            {**GOOD, secret[0]: None},
        ):
            with self.subTest(body=body):
                words = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are required"
                self.assertEqual(self.ask("PUT", PATH, body), (400, {"error": words}))
        self.assert_nothing_stored()

    def assert_nothing_stored(self) -> None:
        self.assertIsNone(self.agent.store.load())
        self.assertEqual(self.agent.looks, 0)

    def test_what_is_not_an_object_of_strings(self) -> None:
        for body in (
            b"",
            b"{",
            b"\x00",
            b"\xff",
            b"null",
            b"[]",
            b'"AWS_ACCESS_KEY_ID"',
            {**GOOD, "AWS_SECRET_ACCESS_KEY": 5},
            {**GOOD, "AWS_ACCESS_KEY_ID": ["x"]},
            {**GOOD, "AWS_REGION": {}},
            json.dumps(GOOD).encode()[:-1] + b', "AWS_SECRET_ACCESS_KEY": "other"}',
        ):
            with self.subTest(body=body), capturedLogs() as events:
                self.assertEqual(
                    self.ask("PUT", PATH, body), (400, {"error": "invalid JSON payload"})
                )
            self.assert_no_secret(events)
        self.assert_nothing_stored()

    def test_values_that_cannot_be_right(self) -> None:
        secret, region = "AWS_SECRET_ACCESS_KEY", "AWS_REGION"
        for name, value, words in (
            (secret, SECRET + "\x00", "holds a character that cannot be printed"),
            (secret, "a\nb" + SECRET, "holds a character that cannot be printed"),
            (secret, SECRET + "\ud800x", "holds a character that cannot be printed"),
            (secret, SECRET * 100, "is longer than 1024 characters"),
            ("AWS_ACCESS_KEY_ID", "A" * 129, "is longer than 128 characters"),
            (region, "eu west 1", "is not the name of a region"),
            (region, "EU-WEST-1", "is not the name of a region"),
            (region, "--", "is not the name of a region"),
            (region, "eu-wést-1", "is not the name of a region"),
        ):
            with self.subTest(name=name, words=words), capturedLogs() as events:
                answer = self.ask("PUT", PATH, {**GOOD, name: value})
                self.assertEqual(answer, (400, {"error": f"{name} {words}"}))
            self.assert_no_secret(events)
        self.assert_nothing_stored()

    def test_white_space_around_a_value_is_not_part_of_it(self) -> None:
        parsed = parse_aws_config({name: f" {value}\r\n" for name, value in GOOD.items()})
        self.assertEqual(parsed, StoredCredentials("AKIAEXAMPLE", SECRET, None))

    def test_regions_aws_and_others_have(self) -> None:
        for region in ("eu-west-1", "us-gov-west-1", "us-isob-east-1", "auto", "minio"):
            self.assertEqual(parse_aws_config({**GOOD, "AWS_REGION": region}).region, region)

    def test_a_store_that_cannot_be_written(self) -> None:
        directory = os.path.dirname(self.agent.store.path)
        with open(directory, "w"):
            pass  # a file where the directory should be
        with capturedLogs() as events:
            code, answer = self.ask("PUT", PATH, GOOD)
        self.assertEqual(code, 500)
        self.assertEqual(answer, {"error": "the credentials cannot be stored: File exists"})
        self.assert_no_secret(events)
        self.assertEqual(len(events), 1)
        code, answer = self.ask("DELETE", PATH)
        self.assertEqual((code, list(answer)), (500, ["error"]))
        self.assertEqual(self.agent.looks, 0)

    def test_delete_forgets_them(self) -> None:
        self.agent.store.save(StoredCredentials("AKIAEXAMPLE", SECRET, None))
        answer = {"status": "ok", "message": "AWS credentials removed"}
        self.assertEqual(self.ask("DELETE", PATH), (200, answer))
        self.assertIsNone(self.agent.store.load())
        answer = {"status": "ok", "message": "no AWS credentials were stored"}
        self.assertEqual(self.ask("DELETE", PATH), (200, answer))
        self.assertEqual(self.agent.looks, 2)

    def test_a_slow_look_is_not_waited_for(self) -> None:
        cancelled: list[object] = []
        look: Deferred[bool] = Deferred(cancelled.append)
        self.agent.look = lambda: look
        asking = self.client.put(f"http://localhost{PATH}", json=GOOD)
        self.assertNoResult(asking)
        self.clock.advance(CHANGE_SECONDS)
        self.client.flush()
        response = self.successResultOf(asking)
        answer = self.successResultOf(self.client.json_content(response))
        self.assertNotIn("websocket", answer)
        self.assertEqual(answer["status"], "ok")
        look.callback(True)
        self.assertEqual(cancelled, [])

    def test_a_look_that_fails_does_not_undo_the_storing(self) -> None:
        for look in (lambda: fail(ZeroDivisionError()), lambda: 1 / 0):
            self.agent.look = look
            code, answer = self.ask("PUT", PATH, GOOD)
            self.assertEqual((code, answer.get("websocket")), (200, None))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertIsNotNone(self.agent.store.load())


class BatchTests(RoutesCase):
    PATH = "/internal/batch"

    def lines(self) -> list[Any]:
        ((body, count),) = self.agent.batches
        self.assertTrue(body.endswith(b"\n"))
        lines = [json.loads(line) for line in body.splitlines()]
        self.assertEqual(len(lines), count)
        return lines

    def test_both_shapes(self) -> None:
        events = [{"path": "/é\n", "status": 200}, {}, {"env": "test", "siteId": None}]
        common = {"env": "prod", "instanceId": "i-1", "siteId": "default"}
        answer = self.ask("POST", self.PATH, {**common, "events": events, "other": [1]})
        self.assertEqual(answer, (200, {"status": "ok", "uploaded": 3}))
        self.assertEqual(
            self.lines(),
            [{**common, **events[0]}, common, {**common, "env": "test", "siteId": None}],
        )
        self.agent.batches.clear()
        self.assertEqual(
            self.ask("POST", self.PATH, events), (200, {"status": "ok", "uploaded": 3})
        )
        self.assertEqual(self.lines(), events)
        self.agent.batches.clear()
        self.ask("POST", self.PATH, {"env": None, "siteId": "s", "events": [{"n": 1e300}]})
        self.assertEqual(self.lines(), [{"siteId": "s", "n": 1e300}])

    def test_no_events(self) -> None:
        for body in ([], {"events": []}, {"env": "prod", "events": []}):
            answer = self.ask("POST", self.PATH, body)
            self.assertEqual(answer, (200, {"status": "ok", "message": "no events to upload"}))
        self.assertEqual(self.agent.batches, [])

    def test_what_is_no_batch(self) -> None:
        shape = "events must be an array of objects"
        for body, words in (
            (b"", "invalid JSON payload"),
            (b"[{]", "invalid JSON payload"),
            (b'[{"a": NaN}]', "invalid JSON payload"),
            (b'[{"a": 1, "a": 2}]', "invalid JSON payload"),
            (b"[" * 60_000, "invalid JSON payload"),
            (b'[{"a": 1e400}]', "an event holds a number that is too large"),
            (b"5", shape),
            ({}, shape),
            ({"events": None}, shape),
            ({"events": {"0": {}}}, shape),
            ([{}, []], "events[1] must be an object"),
            ({"events": [{}, {}, None]}, "events[2] must be an object"),
            ({"env": 5, "events": [{}]}, "env must be a string"),
            ({"instanceId": ["i"], "events": [{}]}, "instanceId must be a string"),
            ({"siteId": {}, "events": []}, "siteId must be a string"),
        ):
            with self.subTest(body=body):
                self.assertEqual(self.ask("POST", self.PATH, body), (400, {"error": words}))
        self.assertEqual(self.agent.batches, [])

    def test_half_of_a_surrogate_pair_stays_what_it_was(self) -> None:
        self.ask("POST", self.PATH, b'[{"a": "\\ud800"}]')
        self.assertEqual(self.agent.batches, [(b'{"a":"\\ud800"}\n', 1)])

    QUEUED: ClassVar = {
        "status": "ok",
        "uploaded": 0,
        "queued": 2,
        "message": "stored on disk, uploaded when S3 takes it",
    }

    def post(self) -> Deferred[tuple[int, Any]]:
        """Two events; fires with status and JSON."""

        async def post() -> tuple[int, Any]:
            response = await self.client.post(f"http://localhost{self.PATH}", json=[{}, {}])
            self.client.flush()
            return response.code, await self.client.json_content(response)

        return Deferred.fromCoroutine(post())

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.client.flush()

    def test_an_upload_that_takes_its_time_is_queued_and_not_waited_for(self) -> None:
        cancelled: list[object] = []
        self.agent.upload = lambda: Deferred(cancelled.append)
        asking = self.post()
        self.wait(BATCH_SECONDS - 0.1)
        self.assertNoResult(asking)
        self.wait(0.1)
        self.assertEqual(self.successResultOf(asking), (200, self.QUEUED))
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_is_said_to_be_on_disk_before_it_is(self) -> None:
        for full in (False, True):
            disk: Deferred[None] = Deferred()
            self.agent.disk = lambda disk=disk: disk
            self.agent.upload = Deferred
            asking = self.post()
            self.wait(BATCH_SECONDS * 2)
            self.assertNoResult(asking)
            if full:
                disk.errback(SpoolFull("268 MB wait"))
                self.wait(0)
                answer = 500, {"error": "268 MB wait"}
            else:
                disk.callback(None)
                self.wait(BATCH_SECONDS - 0.1)
                self.assertNoResult(asking)
                self.wait(0.1)
                answer = 200, self.QUEUED
            self.assertEqual(self.successResultOf(asking), answer)

    def test_who_leaves_is_not_waited_for(self) -> None:
        cancelled: list[object] = []
        self.agent.upload = lambda: Deferred(cancelled.append)
        request: Any = mock.Mock()
        request.content = BytesIO(b"[{}, {}]")
        handlers = s3_http.S3Handlers(self.clock, self.agent)
        answering = Deferred.fromCoroutine(handlers.batch(request))
        answering.cancel()
        self.failureResultOf(answering, CancelledError)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_on_disk_when_the_agent_stops_is_queued(self) -> None:
        self.agent.upload = lambda: fail(ArchiveOff("the agent is stopping"))
        asking = self.post()
        self.wait(0)
        self.assertEqual(self.successResultOf(asking), (200, self.QUEUED))

    def test_an_archive_that_does_not_take_it(self) -> None:
        def off() -> Deferred[None]:
            raise ArchiveOff("no botocore: pip install")

        for disk, answer in (
            (off, (503, {"error": "no botocore: pip install"})),
            (lambda: fail(ArchiveOff("off")), (503, {"error": "off"})),
            (lambda: fail(SpoolFull("268 MB wait")), (500, {"error": "268 MB wait"})),
            (lambda: fail(ZeroDivisionError()), (500, {"error": "internal error"})),
        ):
            self.agent.disk = disk
            self.assertEqual(self.ask("POST", self.PATH, [{}]), answer)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.agent.disk = lambda: succeed(None)
        self.agent.upload = lambda: fail(UploadError("too large", kind="too_large"))
        self.assertEqual(self.ask("POST", self.PATH, [{}]), (500, {"error": "too large"}))


class WithoutBotocoreTests(RoutesCase):
    def test_says_what_to_do(self) -> None:
        self.patch(shipping, "find_spec", lambda name: None)
        self.patch(sys, "executable", "/opt/my venv/bin/python")
        self.agent.question = s3_question()
        code, answer = self.ask("GET", "/internal/s3-validate")
        self.assertEqual(code, 503)
        words = "botocore is not installed: '/opt/my venv/bin/python' -m pip install 'jetcamer[s3]'"
        self.assertEqual(
            answer,
            {
                "valid": False,
                "errors": [words],
                "region": "us-east-1",
                "bucketExists": False,
                "machineId": "0123456789abcdef",
                "credentialsType": "stored-credentials",
            },
        )


class ServiceCase(TestCase):
    timeout = 20
    token: str | None = None

    def setUp(self) -> None:
        self.agent = FakeAgent(self.mktemp())
        self.service = self.make()
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def make(self, port: int = 0, host: str = "127.0.0.1") -> LocalHTTP:
        return LocalHTTP(reactor, host=host, port=port, token=self.token, view=self.agent)

    async def send(self, data: bytes) -> list[Response]:
        client = await RawClient.connect(reactor, self.service.port)
        client.send(data)
        return parse_responses(await client.until_closed())

    async def ask(self, method: str, path: str, *headers: str, **kwargs: Any) -> Response:
        kwargs.setdefault("host", f"127.0.0.1:{self.service.port}")
        (response,) = await self.send(
            request(method, path, "Connection: close", *headers, **kwargs)
        )
        return response


class BrowserTests(ServiceCase):
    """What a page in a browser on this machine may try."""

    BODY = json.dumps(GOOD).encode()

    async def refused(self, status: int, *headers: str, **kwargs: Any) -> None:
        for method in ("POST", "PUT"):
            response = await self.ask(method, PATH, *headers, body=self.BODY, **kwargs)
            self.assertEqual(response.status, status)
            self.assertFalse([n for n in response.headers if n.startswith("access-control")])
        self.assertIsNone(self.agent.store.load())
        self.assertEqual(self.agent.looks, 0)

    async def test_the_owner_can(self) -> None:
        response = await self.ask("PUT", PATH, JSON, body=self.BODY)
        self.assertEqual((response.status, response.json["websocket"]), (200, "started"))
        self.assertIsNotNone(self.agent.store.load())

    async def test_a_form_needs_no_permission_and_gets_nowhere(self) -> None:
        await self.refused(415, "Content-Type: text/plain")
        await self.refused(415, "Content-Type: application/x-www-form-urlencoded")
        await self.refused(415, "Content-Type: multipart/form-data; boundary=x")
        await self.refused(415)

    async def test_a_foreign_page(self) -> None:
        await self.refused(403, JSON, "Origin: https://evil.example")
        await self.refused(403, JSON, "Origin: null")
        await self.refused(403, JSON, "Sec-Fetch-Site: cross-site")
        await self.refused(403, JSON, "Origin: http://localhost:3000")

    async def test_a_rebound_name(self) -> None:
        await self.refused(403, JSON, host="evil.example")
        own = f"evil.example:{self.service.port}"
        await self.refused(
            403, JSON, f"Origin: http://{own}", "Sec-Fetch-Site: same-origin", host=own
        )

    async def test_a_preflight_is_given_nothing(self) -> None:
        response = await self.ask(
            "OPTIONS",
            PATH,
            "Origin: https://evil.example",
            "Access-Control-Request-Method: PUT",
            "Access-Control-Request-Headers: content-type",
        )
        self.assertEqual(response.status, 403)
        self.assertFalse([n for n in response.headers if n.startswith("access-control")])

    async def test_nothing_can_be_read_either(self) -> None:
        for header in ("Origin: null", "Sec-Fetch-Site: cross-site", "Origin: http://evil.example"):
            for path in ("/health", "/version", "/internal/ws-status", "/internal/get-machine-id"):
                response = await self.ask("GET", path, header)
                self.assertEqual((response.status, list(response.json)), (403, ["error"]))


class LocalHTTPTests(ServiceCase):
    async def test_answers_what_curl_asks(self) -> None:
        response = await self.ask("GET", "/internal/ws-status", "User-Agent: curl/8", "Accept: */*")
        self.assertEqual(response.json, self.agent.status)
        self.assertTrue(response.body.endswith(b"\n"))
        self.assertNotIn("server", response.headers)

    async def test_oversized_bodies_are_refused_unread(self) -> None:
        for headers in (("Content-Length: 70000",), ("Content-Length: 1000000000000",)):
            (response,) = await self.send(request("PUT", PATH, JSON, *headers))
            self.assertEqual(response.status, 413)
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        (response,) = await self.send(
            request("PUT", PATH, JSON, "Transfer-Encoding: chunked") + chunk * 2
        )
        self.assertEqual((response.status, response.error), (413, "the body is too large"))

    async def test_a_port_that_is_taken(self) -> None:
        other = self.make(port=self.service.port)
        with self.assertRaises(ListenError) as caught:
            other.bind()
        words = f"webListen 127.0.0.1:{self.service.port}: Address already in use"
        self.assertEqual(str(caught.exception), words)
        await other.stopService()

    async def test_addresses_that_cannot_be_listened_on(self) -> None:
        for host, port in (("192.0.2.1", 9811), ("2001:db8::1", 9811)):
            with self.subTest(host=host), self.assertRaises(ListenError) as caught:
                self.make(port, host).bind()
            self.assertNotIn("\n", str(caught.exception))
            shown = f"[{host}]" if ":" in host else host
            self.assertTrue(str(caught.exception).startswith(f"webListen {shown}:{port}: "))

    async def test_bound_before_it_is_started(self) -> None:
        service = self.make()
        with self.assertRaises(RuntimeError):
            _ = service.port
        service.bind()
        port = service.port
        service.bind()
        service.startService()
        self.assertEqual(service.port, port)
        await service.stopService()
        with self.assertRaises(RuntimeError):
            _ = service.port

    async def test_bound_and_never_started(self) -> None:
        service = self.make()
        service.bind()
        port = service.port
        await service.stopService()
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))

    async def test_stopping_closes_every_connection(self) -> None:
        stored: Deferred[None] = Deferred()

        def look() -> Deferred[bool]:
            stored.callback(None)
            return Deferred()

        self.agent.look = look
        idle, used, waiting = [
            await RawClient.connect(reactor, self.service.port) for _ in range(3)
        ]
        used.send(request())
        await used.until(lambda data: b"404" in data)
        waiting.send(request("PUT", PATH, JSON, body=json.dumps(GOOD).encode()))
        await stored
        await self.service.stopService()
        for client in (idle, used, waiting):
            await client.until_closed()
        self.assertEqual(waiting.received, b"")

    async def test_can_be_started_again(self) -> None:
        await self.ask("GET", "/health")
        await self.service.stopService()
        self.service.startService()
        self.assertEqual((await self.ask("GET", "/health")).body, b"ok")

    async def test_ipv6(self) -> None:
        service = self.make(host="::1")
        try:
            service.bind()
        except ListenError as error:
            raise self.skipTest(str(error)) from None
        self.assertGreater(service.port, 0)
        await service.stopService()


class S3ValidateTests(ServiceCase):
    timeout = 60
    PATH = "/internal/s3-validate"

    async def setUp(self) -> None:
        await deferLater(reactor, 0)  # see tests.support.case
        self.checks: list[S3Check] = []

        def make_check(*args: Any) -> S3Check:
            self.checks.append(S3Check(*args))
            return self.checks[-1]

        self.patch(s3_http, "S3Check", make_check)
        super().setUp()

    async def tearDown(self) -> None:
        for check in self.checks:
            await check.when_idle()

    async def test_against_a_real_server(self) -> None:
        moto = shared_moto()
        bucket = moto.new_bucket()
        self.agent.question = s3_question(bucket, moto.endpoint)
        answer = {
            "valid": True,
            "region": "us-east-1",
            "bucketExists": True,
            "machineId": "0123456789abcdef",
            "credentialsType": "stored-credentials",
        }
        both = [Deferred.fromCoroutine(self.ask("GET", self.PATH)) for _ in range(2)]
        for response in await gatherResults(both):
            self.assertEqual((response.status, response.json), (200, answer))

    async def test_a_failure(self) -> None:
        self.agent.question = s3_question(endpoint="http://s3.invalid")
        response = await self.ask("GET", self.PATH)
        self.assertEqual((response.status, response.json["valid"]), (503, False))
        self.assertIn("the name s3.invalid cannot be resolved", response.json["errors"][0])
        self.assertNotIn(SECRET.encode(), response.body)

    async def test_a_check_ends_with_the_service(self) -> None:
        proxy = S3Proxy(reactor)
        proxy.mode = "hang"
        self.agent.question = s3_question(endpoint=proxy.listen())
        self.addCleanup(proxy.close)
        client = await RawClient.connect(reactor, self.service.port)
        client.send(request("GET", self.PATH))
        await proxy.when_done(1)
        await self.service.stopService()
        await proxy.when_idle()
        await client.until_closed()


class TokenTests(ServiceCase):
    token = "s3cret-token"

    async def test_needed_for_everything_but_health(self) -> None:
        self.assertEqual((await self.ask("GET", "/health")).status, 200)
        self.assertEqual((await self.ask("GET", "/version")).status, 401)
        bearer = f"Authorization: Bearer {self.token}"
        self.assertEqual((await self.ask("GET", "/version", bearer)).status, 200)
        response = await self.ask("PUT", PATH, JSON, body=json.dumps(GOOD).encode())
        self.assertEqual(response.status, 401)
        self.assertIsNone(self.agent.store.load())
        response = await self.ask("PUT", PATH, JSON, bearer, body=json.dumps(GOOD).encode())
        self.assertEqual(response.status, 200)


class ImportTests(SynchronousTestCase):
    def test_nobody_pays_for_twisted_web_before_the_first_connection(self) -> None:
        program = (
            "import sys\n"
            "from twisted.internet import reactor\n"
            "from jetcamer.agent.local_http import LocalHTTP\n"
            "service = LocalHTTP(reactor, host='127.0.0.1', port=0, token=None, view=None)\n"
            "service.startService()\n"
            "print([name for name in sys.modules if name.startswith('twisted.web')])\n"
            "service._factory.buildProtocol(None)\n"
            "print('twisted.web.http' in sys.modules, 'twisted.web.server' in sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        self.assertEqual((done.stdout, done.stderr), ("[]\nTrue False\n", ""))
