"""Who may ask: digests, expiry, the last use, and the throttle."""

from __future__ import annotations

from hashlib import sha256

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.hub.api import throttle
from jetcamer.hub.api.throttle import Throttle
from jetcamer.hub.api.tokens import EXPIRED_KEPT_MS, Tokens
from jetcamer.hub.store.interface import ConflictError, StoreError
from tests.hub.api.memory_store import MemoryStore
from tests.hub.api.world import NOW, APICase


class FirstAdminTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()
        self.now = NOW

    def make(self) -> Tokens:
        return Tokens(Clock(), self.store, now_ms=lambda: self.now)

    def run_(self, coroutine):
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_is_made_once(self) -> None:
        token = self.run_(self.make().ensure_admin())
        self.assertTrue(token.startswith("jc_"))
        (record,) = self.store.tokens.values()
        self.assertEqual((record.name, record.role), ("admin", "admin"))
        self.assertEqual(record.digest, sha256(token.encode()).digest())
        self.assertNotIn(token, str(self.store.tokens))
        self.assertIsNone(self.run_(self.make().ensure_admin()))
        self.assertEqual(self.store.audited(), [("hub", "token.create", "admin")])

    def test_is_made_again_when_the_only_one_has_expired(self) -> None:
        tokens = self.make()
        self.run_(tokens.create("admin", "admin", 60, who="x"))
        self.run_(tokens.create("admin-2", "viewer", None, who="x"))
        self.assertIsNone(self.run_(self.make().ensure_admin()))
        self.now += 60_000
        self.assertIsNotNone(self.run_(self.make().ensure_admin()))
        tokens = self.make()
        self.run_(tokens.load())
        self.assertEqual(sorted(each.name for each in tokens.all()), ["admin", "admin-2"])

    def test_the_name_of_one_that_has_expired_is_free(self) -> None:
        tokens = self.make()
        first, _ = self.run_(tokens.create("ci", "viewer", 60, who="x"))
        self.failureResultOf(
            Deferred.fromCoroutine(tokens.create("ci", "viewer", 60, who="x")), ConflictError
        )
        self.now += 60_000
        second, _ = self.run_(tokens.create("ci", "viewer", 60, who="x"))
        self.assertEqual(tokens.all(), [second])
        self.now += EXPIRED_KEPT_MS
        self.run_(tokens.create("ci", "viewer", 60, who="x"))
        self.assertFalse(self.run_(tokens.delete(first.token_id, who="x")))

    def test_a_store_that_fails_leaves_no_token_behind(self) -> None:
        tokens = self.make()
        self.store.failing = StoreError("full")
        self.failureResultOf(
            Deferred.fromCoroutine(tokens.create("x", "admin", None, who="x")), StoreError
        )
        self.assertEqual(tokens.all(), [])
        self.store.failing = None
        record, _ = self.run_(tokens.create("x", "admin", None, who="x"))
        self.run_(tokens.create("y", "admin", None, who="x"))
        self.failureResultOf(
            Deferred.fromCoroutine(tokens.create("y", "viewer", None, who="x")), ConflictError
        )
        self.store.failing = StoreError("full")
        self.failureResultOf(
            Deferred.fromCoroutine(tokens.delete(record.token_id, who="x")), StoreError
        )
        self.assertEqual(len(tokens.all()), 2)


class AuthorizeTests(APICase):
    def status(self, *headers: str, role: str | None = None) -> int:
        return self.ask("GET", "/api/status", *headers, role=role).status

    def test_nothing_but_a_good_token_will_do(self) -> None:
        token = self.world.secrets["viewer"]
        self.assertEqual(self.status(f"Authorization: bearer  {token}"), 200)
        for headers in (
            (),
            ("Authorization: Basic " + token,),
            ("Authorization: Bearer",),
            ("Authorization: Bearer " + token[:-1],),
            ("Authorization: Bearer " + token.swapcase(),),
            (f"Authorization: Bearer {token}", f"Authorization: Bearer {token}"),
        ):
            self.assertEqual(self.status(*headers), 401)

    def test_until_the_hub_has_started_nobody_is_known(self) -> None:
        self.world.tokens._loaded = False
        response = self.ask("GET", "/api/status")
        self.assert_error(response, 503, "the hub is starting")
        self.assertEqual(self.ask("GET", "/healthz", role=None).status, 200)

    def test_expiry(self) -> None:
        body = {"name": "short", "role": "viewer", "expiresSeconds": 1.5}
        token = self.ask("POST", "/api/tokens", body=body).json["token"]
        self.world.now += 1499
        self.assertEqual(self.status(role=token), 200)
        self.world.now += 1
        self.assertEqual(self.status(role=token), 401)

    def test_the_last_use_is_written_once_a_minute(self) -> None:
        writes = self.store.token_writes
        for _ in range(5):
            self.status(role="viewer")
        self.assertEqual(self.store.token_writes, writes + 1)
        self.world.now += 60_000
        self.store.failing = StoreError("full")
        self.assertEqual(self.status(role="viewer"), 200)
        self.assertEqual(self.store.token_writes, writes + 2)

    def test_ten_wrong_tokens_in_a_minute(self) -> None:
        for _ in range(10):
            self.assertEqual(self.status(role="wrong"), 401)
            self.clock.advance(3)
        response = self.ask("GET", "/api/status", role="wrong")
        self.assert_error(response, 429, "too many wrong tokens")
        self.assertEqual(response.headers["retry-after"], "30")
        # No path tells an address that has to wait anything, nor does a request without a token.
        self.assertEqual(self.ask("GET", "/api/nothing", role="wrong").status, 429)
        self.assertEqual(self.status(), 429)
        self.clock.advance(30)
        self.assertEqual(self.status(role="wrong"), 401)

    def test_the_status_line(self) -> None:
        for _ in range(10):
            self.status(role="wrong")
        connection = self.connect()
        connection.send(self.text("GET", "/api/status", role="wrong"))
        first, _, _ = connection.transport.value().partition(b"\r\n")
        self.assertEqual(first, b"HTTP/1.1 429 Too Many Requests")

    def test_asking_without_a_token_is_no_guess(self) -> None:
        for _ in range(20):
            self.assertEqual(self.status(), 401)

    def test_a_valid_token_is_never_locked_out(self) -> None:
        """Behind an SSH tunnel everybody has one address; and a restart forgets who was in."""
        for _ in range(20):
            self.status(role="wrong")
        for role in ("viewer", "operator", "admin"):
            self.assertEqual(self.status(role=role), 200)
        # It is no pardon for who goes on guessing, and one that has expired is none.
        self.assertEqual(self.status(role="wrong"), 429)
        body = {"name": "short", "role": "viewer", "expiresSeconds": 1}
        token = self.ask("POST", "/api/tokens", body=body).json["token"]
        self.world.now += 1000
        self.assertEqual(self.status(role=token), 429)

    def test_a_forwarded_address_counts_only_behind_a_trusted_proxy(self) -> None:
        # The peer in memory is 192.168.1.1, which is trusted by nobody.
        for number in range(10):
            self.status(f"X-Forwarded-For: 192.0.2.{number}", role="wrong")
        self.assertEqual(self.status("X-Forwarded-For: 192.0.2.99", role="wrong"), 429)
        self.clock.advance(61)


class ThrottleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.throttle = Throttle(self.clock, limit=3, per=60.0)

    def test_the_window_slides(self) -> None:
        for _ in range(3):
            self.assertEqual(self.throttle.wait("192.0.2.1"), 0.0)
            self.throttle.failed("192.0.2.1")
            self.clock.advance(10)
        self.assertEqual(self.throttle.wait("192.0.2.1"), 30.0)
        self.assertEqual(self.throttle.wait("192.0.2.2"), 0.0)
        self.clock.advance(30)
        self.assertEqual(self.throttle.wait("192.0.2.1"), 0.0)
        self.throttle.failed("192.0.2.1")
        self.assertEqual(self.throttle.wait("192.0.2.1"), 10.0)

    def test_addresses_that_are_one_persons(self) -> None:
        for number in range(3):
            self.throttle.failed(f"2001:db8::{number}")
        self.assertEqual(self.throttle.wait("2001:db8::ffff:1"), 60.0)
        self.assertEqual(self.throttle.wait("2001:db8:0:1::1"), 0.0)
        for _ in range(3):
            self.throttle.failed("unix")
        self.assertEqual(self.throttle.wait("unix"), 60.0)

    def test_memory_is_bounded(self) -> None:
        self.patch(throttle, "MAX_ADDRESSES", 5)
        for number in range(20):
            self.throttle.failed(f"192.0.2.{number}")
        self.assertEqual(len(self.throttle._failures), 5)
