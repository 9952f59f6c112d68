"""The metadata client against a metadata service on real sockets, healthy and in every way ill."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import CannotListenError, NoRouteError
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from jetcamer.agent.ec2 import Ec2Metadata, MetadataClient
from tests.support.imds import FakeIMDS
from tests.support.logs import CapturedLogs
from tests.support.tools import ROOT

WHOLE = Ec2Metadata(
    public_ipv4="54.123.45.67", instance_id="i-0123456789abcdef0", region="eu-west-1"
)


class SteeredReactor:
    """The real reactor's sockets, with a clock that a test moves by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.connectTCP = reactor.connectTCP
        self.seconds = self.clock.seconds
        self.callLater = self.clock.callLater

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class IMDSTestCase(TestCase):
    def setUp(self) -> None:
        self.imds = FakeIMDS()
        self.base = self.imds.listen(reactor)
        self.addCleanup(lambda: ensureDeferred(self.imds.close()))
        self.steered = SteeredReactor()
        self.clock = self.steered.clock
        self.client = self.make()
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))

    def make(self, **environ: str) -> MetadataClient:
        environ.setdefault("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.base)
        return MetadataClient(self.steered, environ)

    async def turn(self, times: int = 1) -> None:
        """Let the reactor see to its sockets."""
        for _ in range(times):
            over: Deferred[None] = Deferred()
            reactor.callLater(0, over.callback, None)
            await over

    async def until(self, condition: Callable[[], object]) -> None:
        """Trial's own limit ends a wait in vain."""
        while not condition():
            await self.turn()

    async def look_timing_out(self, *stuck: str, wanted: Any = None) -> Ec2Metadata:
        """A look during which each of the `stuck` calls is given no answer and its time passes."""
        look = ensureDeferred(self.client.look() if wanted is None else self.client.look(wanted))
        for path in stuck:
            before = self.imds.asked(path)
            await self.until(lambda path=path, before=before: self.imds.asked(path) > before)
            await self.turn(10)  # one byte of an answer may be on its way
            self.clock.advance(1.0)
        return await look


class Healthy(IMDSTestCase):
    async def test_everything_with_one_token(self) -> None:
        self.assertEqual(await self.client.look(), WHOLE)
        self.assertIsNone(self.client.last_error)
        self.assertEqual(
            self.imds.requests,
            [
                ("PUT", "token"),
                ("GET", "instance-id"),
                ("GET", "placement/region"),
                ("GET", "public-ipv4"),
            ],
        )

    async def test_only_what_can_change_is_asked_again(self) -> None:
        await self.client.look()
        self.imds.requests.clear()
        self.imds.items["public-ipv4"] = "203.0.113.9"
        self.imds.items["instance-id"] = "i-00000000"
        self.assertEqual(
            await self.client.look(),
            Ec2Metadata("203.0.113.9", "i-0123456789abcdef0", "eu-west-1"),
        )
        self.assertEqual(self.imds.requests, [("GET", "public-ipv4")])

    async def test_only_what_is_wanted_is_asked(self) -> None:
        found = await self.client.look({"instance_id"})
        self.assertEqual(found, Ec2Metadata(instance_id="i-0123456789abcdef0"))
        self.imds.requests.clear()
        await self.client.look({"instance_id"})
        self.assertEqual(self.imds.requests, [])

    async def test_region_from_the_availability_zone(self) -> None:
        del self.imds.items["placement/region"]
        self.assertEqual(await self.client.look(), WHOLE)

    async def test_zone_of_another_cloud_is_no_region_and_no_failure(self) -> None:
        del self.imds.items["placement/region"]
        self.imds.items["placement/availability-zone"] = "nova"
        found = await self.client.look()
        self.assertIsNone(found.region)
        self.assertEqual(found.public_ipv4, "54.123.45.67")
        self.imds.requests.clear()
        await self.client.look()
        self.assertEqual(self.imds.asked("public-ipv4"), 1)

    async def test_role(self) -> None:
        self.imds.items["iam/security-credentials/"] = "log-writer\n"
        self.assertEqual((await self.client.look({"iam_role"})).iam_role, "log-writer")

    async def test_proxy_variables_are_not_for_us(self) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            self.patch(os, "environ", {**os.environ, name: "http://127.0.0.1:1"})
        client = self.make(http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")
        self.assertEqual(await client.look(), WHOLE)

    async def test_base_address_with_a_slash(self) -> None:
        client = self.make(AWS_EC2_METADATA_SERVICE_ENDPOINT=self.base + "/")
        self.assertEqual(await client.look(), WHOLE)

    async def test_connections_are_not_kept(self) -> None:
        await self.client.look()
        await self.imds.drained()
        self.assertEqual(self.imds.connections, 4)

    async def test_the_log_has_no_line_for_each_connection(self) -> None:
        captured = CapturedLogs()
        globalLogPublisher.addObserver(captured)
        self.addCleanup(globalLogPublisher.removeObserver, captured)
        await self.client.look()
        self.assertEqual([line for line in captured.lines if "factory" in line], [])

    async def test_as_a_program(self) -> None:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.support.imds", "v1"], cwd=ROOT, stdout=subprocess.PIPE
        )
        try:
            assert child.stdout is not None
            port = int(child.stdout.readline())
            client = self.make(AWS_EC2_METADATA_SERVICE_ENDPOINT=f"http://127.0.0.1:{port}")
            self.assertEqual(await client.look(), WHOLE)
        finally:
            child.kill()
            child.communicate()


class Tokens(IMDSTestCase):
    async def test_a_refused_token_is_replaced_once(self) -> None:
        await self.client.look()
        self.imds.requests.clear()
        self.imds.expire_tokens()
        self.imds.items["public-ipv4"] = "203.0.113.9"
        self.assertEqual((await self.client.look()).public_ipv4, "203.0.113.9")
        self.assertEqual(
            self.imds.requests,
            [("GET", "public-ipv4"), ("PUT", "token"), ("GET", "public-ipv4")],
        )
        self.assertIsNone(self.client.last_error)

    async def test_a_token_is_renewed_before_it_runs_out(self) -> None:
        await self.client.look()
        self.clock.advance(21600 - 61)
        await self.client.look()
        self.assertEqual(self.imds.asked("token"), 1)
        self.clock.advance(1)
        await self.client.look()
        self.assertEqual(self.imds.asked("token"), 2)

    async def test_always_401_ends(self) -> None:
        self.imds.faults["instance-id"] = "401"
        found = await self.client.look({"instance_id"})
        self.assertEqual(found, Ec2Metadata())
        self.assertEqual(self.client.last_error, "instance-id: HTTP status 401")
        self.assertEqual(self.imds.asked("instance-id"), 2)
        self.assertEqual(self.imds.asked("token"), 2)

    async def test_imdsv1_where_the_token_call_fails(self) -> None:
        for fault in ("404", "403", "405", "400", "500", "close"):
            self.imds.token_required = False
            self.imds.faults["token"] = fault
            self.client = self.make()
            self.assertEqual(await self.client.look(), WHOLE, fault)
            self.assertIsNone(self.client.last_error)

    async def test_imdsv1_is_remembered_for_a_while(self) -> None:
        self.imds.token_required = False
        self.imds.faults["token"] = "404"
        await self.client.look()
        self.clock.advance(299)
        await self.client.look()
        self.assertEqual(self.imds.asked("token"), 1)
        self.clock.advance(1)
        await self.client.look()
        self.assertEqual(self.imds.asked("token"), 2)

    async def test_imdsv1_where_the_answer_to_the_token_call_is_lost(self) -> None:
        """As in a container that is one hop too far away."""
        self.imds.token_required = False
        self.imds.faults["token"] = "slow"
        self.assertEqual(await self.look_timing_out("token"), WHOLE)

    async def test_imdsv2_required_and_no_token_given(self) -> None:
        self.imds.faults["token"] = "403"
        self.assertEqual(await self.client.look(), Ec2Metadata())
        self.assertEqual(
            self.client.last_error, "instance-id, placement/region, public-ipv4: HTTP status 401"
        )

    async def test_a_service_that_learns_to_want_tokens(self) -> None:
        self.imds.token_required = False
        self.imds.faults["token"] = "404"
        await self.client.look()
        self.imds.token_required = True
        del self.imds.faults["token"]
        self.imds.items["public-ipv4"] = "203.0.113.9"
        self.assertEqual((await self.client.look()).public_ipv4, "203.0.113.9")


class Ill(IMDSTestCase):
    async def test_refused(self) -> None:
        await self.imds.close()
        self.assertEqual(await self.client.look(), Ec2Metadata())
        self.assertEqual(self.client.last_error, f"{self.base}: connection refused")
        self.imds.listen(reactor)  # for the clean-up

    async def test_404_for_an_item_is_an_answer(self) -> None:
        del self.imds.items["public-ipv4"]
        found = await self.client.look()
        self.assertEqual(found.instance_id, "i-0123456789abcdef0")
        self.assertIsNone(found.public_ipv4)
        self.assertEqual(self.client.last_error, "public-ipv4: HTTP status 404")
        self.imds.items["public-ipv4"] = "203.0.113.9"
        self.assertEqual((await self.client.look()).public_ipv4, "203.0.113.9")
        self.assertIsNone(self.client.last_error)

    async def test_one_item_out_of_order_costs_only_itself(self) -> None:
        for fault in ("500", "garbage", "huge", "close", "redirect"):
            self.imds.faults = {"instance-id": fault}
            self.client = self.make()
            found = await self.client.look()
            self.assertEqual(found, Ec2Metadata("54.123.45.67", None, "eu-west-1"), fault)
            self.assertIn("instance-id: ", self.client.last_error or "", fault)

    async def test_a_redirect_is_not_followed(self) -> None:
        self.imds.faults["public-ipv4"] = "redirect"
        await self.client.look({"public_ipv4"})
        self.assertEqual(self.client.last_error, "public-ipv4: HTTP status 302")
        self.assertEqual(self.imds.requests, [("PUT", "token"), ("GET", "public-ipv4")])

    async def test_a_web_page_for_everything(self) -> None:
        self.imds.faults["*"] = "garbage"
        self.assertEqual(await self.client.look(), Ec2Metadata())
        self.assertIn("not a metadata service", self.client.last_error or "")
        self.assertEqual(self.imds.requests, [("PUT", "token")])

    async def test_an_endless_token(self) -> None:
        self.imds.faults["token"] = "huge"
        self.assertEqual(await self.client.look(), Ec2Metadata())
        self.assertIn("more than 1024 bytes", self.client.last_error or "")

    async def test_implausible_values(self) -> None:
        for path, member, value in [
            ("public-ipv4", "public_ipv4", "host.example"),
            ("public-ipv4", "public_ipv4", "2001:db8::1"),
            ("public-ipv4", "public_ipv4", "1.2.3.4/@evil"),
            ("public-ipv4", "public_ipv4", ""),
            ("instance-id", "instance_id", "i-"),
            ("instance-id", "instance_id", "I-0123456789ABCDEF0"),
            ("placement/region", "region", "eu-west-1.evil.example"),
            ("placement/region", "region", "<p>"),
        ]:
            self.imds.items[path] = value
            self.client = self.make()
            self.assertIsNone(getattr(await self.client.look(), member), value)
            self.assertIn(f"{path}: an answer that cannot be one", self.client.last_error or "")

    async def test_silent_from_the_first_call(self) -> None:
        self.imds.faults["*"] = "slow"
        found = await self.look_timing_out("token", "instance-id")
        self.assertEqual(found, Ec2Metadata())
        self.assertEqual(self.clock.seconds(), 2.0)
        self.assertIn("no answer within 2 s", self.client.last_error or "")
        await self.imds.drained()

    async def test_one_silent_item_leaves_time_for_the_others(self) -> None:
        for fault in ("slow", "drip"):
            self.imds.faults["instance-id"] = fault
            self.client = self.make()
            found = await self.look_timing_out("instance-id")
            self.assertEqual(found, Ec2Metadata("54.123.45.67", None, "eu-west-1"))
            self.assertEqual(self.client.last_error, "instance-id: no answer within 1 s")
            await self.imds.drained()

    async def test_good_answers_survive_every_later_fault(self) -> None:
        await self.client.look()
        for fault in ("404", "401", "500", "garbage", "huge", "close", "redirect"):
            self.imds.faults["*"] = fault
            self.imds.expire_tokens()
            self.clock.advance(301)
            self.assertEqual(await self.client.look(), WHOLE, fault)
            self.assertIsNotNone(self.client.last_error, fault)
        self.imds.faults.clear()
        self.clock.advance(301)
        self.assertEqual(await self.client.look(), WHOLE)
        self.assertIsNone(self.client.last_error)


class Cheapness(IMDSTestCase):
    async def test_pauses_grow_after_failures_and_end_with_success(self) -> None:
        """Asked every ten seconds, it asks the service after 10, 20, 40 … and at most 300."""
        self.imds.faults["*"] = "garbage"
        asked_at = []
        for _ in range(150):
            before = len(self.imds.requests)
            await self.client.look()
            if len(self.imds.requests) > before:
                asked_at.append(self.clock.seconds())
            self.clock.advance(10)
        gaps = [later - earlier for earlier, later in itertools.pairwise(asked_at)]
        self.assertEqual(gaps[:7], [10, 20, 40, 80, 160, 300, 300])
        self.imds.faults.clear()
        self.clock.advance(300)
        self.assertEqual(await self.client.look(), WHOLE)
        self.imds.faults["*"] = "garbage"
        self.imds.requests.clear()
        for _ in range(2):
            await self.client.look()
            self.clock.advance(10)
        self.assertEqual(self.imds.asked("public-ipv4"), 2)

    async def test_404_for_everything_is_a_machine_elsewhere(self) -> None:
        self.imds.faults["*"] = "404"
        await self.client.look()
        self.imds.requests.clear()
        await self.client.look()
        self.assertEqual(self.imds.requests, [])

    async def test_looks_at_the_same_time_share_one(self) -> None:
        looks = [ensureDeferred(self.client.look()) for _ in range(5)]
        for look in looks:
            self.assertEqual(await look, WHOLE)
        self.assertEqual(self.imds.asked("public-ipv4"), 1)

    async def test_a_look_that_wants_more_than_the_running_one(self) -> None:
        first = ensureDeferred(self.client.look({"instance_id"}))
        second = ensureDeferred(self.client.look())
        self.assertEqual(await first, Ec2Metadata(instance_id="i-0123456789abcdef0"))
        self.assertEqual(await second, WHOLE)
        self.assertEqual(self.imds.asked("instance-id"), 1)

    async def test_one_cancelled_look_leaves_the_other_alone(self) -> None:
        first = ensureDeferred(self.client.look())
        second = ensureDeferred(self.client.look())
        first.cancel()
        await self.expect_cancelled(first)
        self.assertEqual(await second, WHOLE)

    async def test_the_last_one_cancelled_leaves_no_socket(self) -> None:
        for fault in ("slow", "drip"):
            self.imds.faults["token"] = fault
            self.client = self.make()
            look = ensureDeferred(self.client.look())
            await self.until(lambda: self.imds.requests)
            await self.turn(10)
            look.cancel()
            await self.expect_cancelled(look)
            await self.imds.drained()
            self.assertEqual(self.imds.requests, [("PUT", "token")])
            self.imds.requests.clear()

    async def expect_cancelled(self, look: Awaitable[Any]) -> None:
        with self.assertRaises(CancelledError):
            await look

    async def test_nobody_is_asked_when_it_is_turned_off(self) -> None:
        for value in ("true", "TRUE", "True"):
            client = self.make(AWS_EC2_METADATA_DISABLED=value)
            self.assertEqual(await client.look(), Ec2Metadata())
            self.assertEqual(client.last_error, "turned off by AWS_EC2_METADATA_DISABLED")
        self.assertEqual(self.imds.requests, [])
        self.assertEqual(await self.make(AWS_EC2_METADATA_DISABLED="false").look(), WHOLE)

    async def test_bad_base_addresses(self) -> None:
        for base in (
            "169.254.169.254",
            "https://169.254.169.254",
            "http://user:secret@127.0.0.1",
            "http://",
            "http://127.0.0.1/path",
            "http://a b",
            "file:///etc/passwd",
            "http://127.0.0.1:65536",
            "http://[::1",
        ):
            client = self.make(AWS_EC2_METADATA_SERVICE_ENDPOINT=base)
            self.assertEqual(await client.look(), Ec2Metadata())
            self.assertIn("AWS_EC2_METADATA_SERVICE_ENDPOINT", client.last_error or "")
            self.assertNotIn("secret", client.last_error or "")


class OverIPv6(TestCase):
    async def test_an_address_in_brackets(self) -> None:
        imds = FakeIMDS()
        try:
            base = imds.listen(reactor, "::1")
        except CannotListenError as error:
            raise SkipTest(f"no IPv6 loopback: {error}") from None
        try:
            client = MetadataClient(reactor, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": base})
            self.assertEqual(await client.look(), WHOLE)
            self.assertEqual(imds.hosts, {base.removeprefix("http://")})
        finally:
            await imds.close()


class Unreachable(SynchronousTestCase):
    """What a network does that loopback cannot: no route, and packets that vanish."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts: list[tuple[str, int, Any, float]] = []

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float, **_: Any) -> Any:
        self.attempts.append((host, port, factory, timeout))
        return self

    def stopConnecting(self) -> None:
        raise AssertionError("the connect's own time ends it")

    @property
    def seconds(self) -> Any:
        return self.clock.seconds

    @property
    def callLater(self) -> Any:
        return self.clock.callLater

    def fail_connect(self, error: Exception) -> None:
        self.attempts[-1][2].clientConnectionFailed(self, Failure(error))

    def test_the_default_address_and_no_route(self) -> None:
        client = MetadataClient(self, {})
        look = ensureDeferred(client.look())
        host, port, _, timeout = self.attempts[0]
        self.assertEqual((host, port, timeout), ("169.254.169.254", 80, 0.9))
        self.fail_connect(NoRouteError(101, "Network is unreachable"))
        self.assertEqual(self.successResultOf(look), Ec2Metadata())
        self.assertEqual(client.last_error, "http://169.254.169.254: network is unreachable")
        self.assertEqual(len(self.attempts), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_address_with_brackets(self) -> None:
        client = MetadataClient(
            self, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[fd00:ec2::254]"}
        )
        look = ensureDeferred(client.look())
        self.assertEqual(self.attempts[0][:2], ("fd00:ec2::254", 80))
        self.fail_connect(NoRouteError(113, "No route to host"))
        self.successResultOf(look)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Import(SynchronousTestCase):
    def test_the_http_client_is_imported_only_by_a_look(self) -> None:
        program = (
            "import sys, jetcamer.agent.ec2, jetcamer.agent.credentials, jetcamer.agent.config\n"
            "print([name for name in sys.modules if name.split('.')[0] in ('treq', 'difflib')"
            " or name.startswith('twisted.web')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout.strip(), "[]")
