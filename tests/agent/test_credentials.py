"""The store, the finder and the watcher: real files, a real metadata service, a test's clock."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from jetcamer.agent.config import AgentConfig, ConfigSource, load_config
from jetcamer.agent.credentials import (
    CredentialFinder,
    CredentialStore,
    CredentialWatcher,
    LinkCredentials,
    StoredCredentials,
)
from jetcamer.agent.ec2 import Ec2Metadata, MetadataClient
from tests.support.imds import FakeIMDS

ONE = StoredCredentials("AKIAONE", "secret-one", "eu-west-1")
TWO = StoredCredentials("AKIATWO", "secret-two/+=ü", None)


class LogTestCase(SynchronousTestCase):
    """Collects what the parts under test log."""

    def setUp(self) -> None:
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def observe(self, event: LogEvent) -> None:
        if str(event.get("log_namespace")).startswith("jetcamer.agent.cred"):
            self.logged.append(event["log_format"].format(**event))


class StoreTestCase(LogTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.state = self.folder / "state"
        self.path = self.state / "aws-credentials.json"
        self.legacy = self.folder / "legacy.json"
        self.store = self.make()

    def make(self) -> CredentialStore:
        return CredentialStore(str(self.path), str(self.legacy))

    def write(self, path: Path, document: Any, mode: int = 0o600) -> None:
        path.parent.mkdir(exist_ok=True)
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        path.touch(mode=0o600)
        path.write_bytes(content)
        path.chmod(mode)

    def write_legacy(self) -> None:
        self.write(
            self.legacy,
            {"AccessKeyID": "AKIAOLD", "SecretAccessKey": "secret-old", "Region": "us-east-1"},
        )


class Saving(StoreTestCase):
    def test_what_is_saved_is_loaded(self) -> None:
        for credentials in (ONE, TWO, ONE):
            self.store.save(credentials)
            self.assertEqual(self.store.load(), credentials)
            self.assertEqual(self.make().load(), credentials)

    def test_the_members_of_the_go_agent(self) -> None:
        self.store.save(ONE)
        self.assertEqual(
            json.loads(self.path.read_bytes()),
            {"AccessKeyID": "AKIAONE", "SecretAccessKey": "secret-one", "Region": "eu-west-1"},
        )

    def test_modes_whatever_the_umask(self) -> None:
        for umask in (0o000, 0o022, 0o277):
            before = os.umask(umask)
            try:
                self.store.save(ONE)
            finally:
                os.umask(before)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
            if umask == 0:
                self.assertEqual(stat.S_IMODE(self.state.stat().st_mode), 0o700)

    def test_an_open_file_becomes_private(self) -> None:
        self.write(self.path, {}, 0o666)
        self.store.save(ONE)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_a_symbolic_link_is_replaced_and_not_followed(self) -> None:
        target = self.folder / "target"
        target.write_text("precious")
        self.state.mkdir()
        self.path.symlink_to(target)
        self.store.save(ONE)
        self.assertEqual(target.read_text(), "precious")
        self.assertFalse(self.path.is_symlink())

    def test_synced_before_the_name_and_the_folder_after(self) -> None:
        steps = []
        fsync, replace = os.fsync, os.replace

        def note_fsync(fd: int) -> None:
            steps.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
            fsync(fd)

        def note_replace(source: str, target: str) -> None:
            self.assertEqual(os.path.dirname(source), os.path.dirname(target))
            steps.append("rename")
            replace(source, target)

        self.patch(os, "fsync", note_fsync)
        self.patch(os, "replace", note_replace)
        self.store.save(ONE)
        self.assertEqual(steps, ["file", "rename", "folder"])

    def test_a_failure_at_any_step_leaves_the_old_file_and_nothing_else(self) -> None:
        self.store.save(ONE)

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        for name in ("fsync", "replace", "fchmod"):
            with self.subTest(name):
                original = getattr(os, name)
                setattr(os, name, full)
                try:
                    with self.assertRaises(OSError):
                        self.store.save(TWO)
                finally:
                    setattr(os, name, original)
                self.assertEqual(self.make().load(), ONE)
                self.assertEqual(os.listdir(self.state), ["aws-credentials.json"])

    def test_what_a_killed_writer_left_is_swept(self) -> None:
        self.state.mkdir()
        (self.state / ".aws-credentials.json.0123").write_text("secret")
        self.store.save(ONE)
        self.assertEqual(os.listdir(self.state), ["aws-credentials.json"])
        (self.state / ".aws-credentials.json.0123").write_text("secret")
        self.store.delete()
        self.assertEqual(os.listdir(self.state), [])

    def test_half_a_surrogate_pair(self) -> None:
        self.store.save(ONE)
        with self.assertRaises(ValueError) as caught:
            self.store.save(StoredCredentials("AKIA", "hunter2\ud800", None))
        self.assertNotIsInstance(caught.exception, UnicodeError)
        self.assertNotIn("hunter2", repr(caught.exception))
        self.assertEqual(self.store.load(), ONE)

    def test_readers_see_whole_files(self) -> None:
        self.store.save(ONE)
        seen: set[Any] = set()
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                seen.add(self.make().load())

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for _ in range(20):
                self.store.save(TWO)
                self.store.save(ONE)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
        self.assertLessEqual(seen, {ONE, TWO})
        self.assertEqual(self.logged, [])

    def test_secrets_are_not_shown(self) -> None:
        for text in (repr(ONE), str(ONE), f"{[ONE]}"):
            self.assertNotIn("secret-one", text)
            self.assertNotIn("AKIAONE", text)


class Loading(StoreTestCase):
    def test_nothing_there(self) -> None:
        self.assertIsNone(self.store.load())
        self.assertEqual(self.logged, [])

    def test_an_unchanged_file_is_read_once(self) -> None:
        self.store.save(ONE)
        self.store.load()

        def no(*_: Any) -> None:
            raise AssertionError("read again")

        self.patch(os, "open", no)
        for _ in range(3):
            self.assertEqual(self.store.load(), ONE)

    def test_a_file_changed_by_others(self) -> None:
        self.store.save(ONE)
        self.store.load()
        self.write(self.path, {"AccessKeyID": "A", "SecretAccessKey": "b"})
        self.assertEqual(self.store.load(), StoredCredentials("A", "b", None))
        self.path.unlink()
        self.assertIsNone(self.store.load())

    def test_broken_files_count_as_absent_and_are_named_once(self) -> None:
        for document, words in [
            (b'{"SecretAccessKey": "\xff"}', "not valid JSON"),
            (b'{"SecretAccessKey": "hunter2"', "Input data was truncated"),
            (b'{"x": ' + b"[" * 50_000, "not valid JSON"),
            (b"[1]", "Expected `object`, got `array`"),
            ({"AccessKeyID": "A", "SecretAccessKey": 5}, "got `int` - at `$.SecretAccessKey`"),
            ({"AccessKeyID": "A", "SecretAccessKey": ["hunter2"]}, "got `array`"),
            ({"AccessKeyID": "A", "SecretAccessKey": ""}, "SecretAccessKey is missing"),
            ({"SecretAccessKey": "hunter2"}, "AccessKeyID is missing"),
            (b"", "Input data was truncated"),
            (b" " * 70_000, "Larger than 65536 bytes"),
        ]:
            self.logged.clear()
            self.write(self.path, document)
            for _ in range(3):
                self.assertIsNone(self.store.load())
            (line,) = self.logged
            self.assertTrue(line.startswith(f"{self.path}: "), line)
            self.assertIn(words, line)
            self.assertNotIn("hunter2", line)
            self.assertEqual(self.store.warnings, (line,))
        self.store.save(ONE)
        self.assertEqual(self.store.load(), ONE)
        self.assertEqual(self.store.warnings, ())

    def test_the_same_fault_is_not_told_again(self) -> None:
        for _ in range(2):
            self.write(self.path, {"AccessKeyID": "A"}, 0o644)
            self.store.load()
            self.path.unlink()
            self.write(self.path, {"AccessKeyID": "AB"}, 0o644)
            self.store.load()
        self.assertEqual(len(self.logged), 2)

    def test_what_is_no_file(self) -> None:
        self.state.mkdir()
        os.mkfifo(self.path)
        self.assertIsNone(self.store.load())
        self.assertIn("Not a regular file", self.logged[0])

    def test_unreadable(self) -> None:
        self.write(self.path, {"AccessKeyID": "A", "SecretAccessKey": "b"}, 0o000)
        if os.access(self.path, os.R_OK):  # root reads everything

            def no(*_: Any, **__: Any) -> int:
                raise PermissionError(13, "Permission denied")

            self.patch(os, "open", no)
        for _ in range(3):
            self.assertIsNone(self.store.load())
        self.assertEqual(self.logged, [f"{self.path}: cannot be read: Permission denied"])

    def test_readable_by_others_is_used_and_said_once(self) -> None:
        for mode in (0o640, 0o604, 0o620, 0o644):
            self.logged.clear()
            self.write(self.path, {"AccessKeyID": "A", "SecretAccessKey": "hunter2"}, mode)
            for _ in range(3):
                self.assertIsNotNone(self.store.load())
            (line,) = self.logged
            self.assertIn(f"(mode {mode:04o})", line)
            self.assertNotIn("hunter2", line)
        self.path.chmod(0o600)
        self.store.load()
        self.assertEqual(self.store.warnings, ())


class Legacy(StoreTestCase):
    OLD = StoredCredentials("AKIAOLD", "secret-old", "us-east-1")

    def test_read_where_ours_is_absent_or_broken(self) -> None:
        self.write_legacy()
        self.assertEqual(self.store.load(), self.OLD)
        self.store.save(ONE)
        self.assertEqual(self.store.load(), ONE)
        self.write(self.path, b"{")
        self.assertEqual(self.store.load(), self.OLD)

    def test_its_group_may_read_it(self) -> None:
        self.write_legacy()
        self.legacy.chmod(0o640)
        self.store.load()
        self.assertEqual(self.logged, [])
        self.legacy.chmod(0o644)
        self.store.load()
        self.assertEqual(len(self.logged), 1)

    def test_no_legacy_place(self) -> None:
        store = CredentialStore(str(self.path), None)
        self.assertIsNone(store.load())
        store.save(ONE)
        self.assertTrue(store.delete())
        self.assertIsNone(store.load())


class Forgetting(StoreTestCase):
    def test_ours_alone(self) -> None:
        self.store.save(ONE)
        self.assertTrue(self.store.delete())
        self.assertIsNone(self.store.load())
        self.assertEqual(os.listdir(self.state), [])
        self.assertFalse(self.store.delete())

    def test_nothing(self) -> None:
        self.assertFalse(self.store.delete())
        self.assertFalse(self.state.exists())

    def test_the_old_ones_do_not_come_back(self) -> None:
        self.write_legacy()
        self.store.save(ONE)
        self.assertTrue(self.store.delete())
        self.assertIsNone(self.store.load())
        self.assertIsNone(self.make().load())
        self.assertTrue(self.legacy.exists())
        self.assertFalse(self.store.delete())
        self.store.save(TWO)
        self.assertEqual(self.store.load(), TWO)

    def test_the_old_ones_alone(self) -> None:
        self.write_legacy()
        self.assertTrue(self.store.delete())
        self.assertIsNone(self.make().load())
        self.assertEqual(self.logged, [])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_old_ones_that_come_later_count(self) -> None:
        self.store.save(ONE)
        self.store.delete()
        self.write_legacy()
        self.assertEqual(self.store.load(), Legacy.OLD)

    def test_a_broken_file_goes_too(self) -> None:
        self.write(self.path, b"secret")
        self.assertTrue(self.store.delete())
        self.assertFalse(self.path.exists())


class FakeMetadata:
    """Answers as told, and notes what it was asked for."""

    def __init__(self) -> None:
        self.known = Ec2Metadata()
        self.last_error: str | None = None
        self.asked: list[set[str]] = []
        self.hold: Deferred[None] | None = None

    async def look(self, wanted: Any = ()) -> Ec2Metadata:
        self.asked.append(set(wanted))
        if self.hold is not None:
            await self.hold
        return self.known


class Finding(LogTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store = CredentialStore(
            str(self.folder / "ours.json"), str(self.folder / "legacy.json")
        )
        self.metadata = FakeMetadata()

    def finder(self, environ: dict[str, str] | None = None, **members: Any) -> CredentialFinder:
        return CredentialFinder(
            AgentConfig(**members),
            ConfigSource(path=None),
            self.store,
            self.metadata,  # type: ignore[arg-type]
            {} if environ is None else environ,
            "host-1",
        )

    def found(self, environ: dict[str, str] | None = None, **members: Any) -> LinkCredentials:
        finder = self.finder(environ, **members)
        self.assertIsNone(finder.last)
        found = self.successResultOf(ensureDeferred(finder.look()))
        self.assertIs(finder.last, found)
        return found

    def test_secret_in_order(self) -> None:
        environ = {"AWS_SECRET_ACCESS_KEY": "from-environment"}
        self.store.save(ONE)
        found = self.found(environ, ws_secret="from-file")
        self.assertEqual((found.secret, found.secret_source), ("from-file", "config"))
        found = self.found(environ)
        self.assertEqual((found.secret, found.secret_source), ("secret-one", "stored-credentials"))
        self.store.delete()
        found = self.found(environ)
        self.assertEqual(
            (found.secret, found.secret_source), ("from-environment", "environment-variables")
        )
        for nothing in ({}, {"AWS_SECRET_ACCESS_KEY": ""}):
            found = self.found(nothing)
            self.assertEqual((found.secret, found.secret_source), (None, None))

    def test_a_secret_in_the_environment_that_is_no_text(self) -> None:
        finder = self.finder({"AWS_SECRET_ACCESS_KEY": "hunter2\udcff"})
        for _ in range(2):
            found = self.successResultOf(ensureDeferred(finder.look()))
        self.assertIsNone(found.secret)
        self.assertEqual(self.logged, ["AWS_SECRET_ACCESS_KEY is not UTF-8 text and is not used"])

    def test_url_in_order(self) -> None:
        self.metadata.known = Ec2Metadata(public_ipv4="54.123.45.67")
        self.assertEqual(self.found(ws_api_url="wss://hub/agent").url, "wss://hub/agent")
        self.assertEqual(self.found().url, "wss://54.123.45.67/agent")
        self.metadata.known = Ec2Metadata()
        self.assertIsNone(self.found().url)

    def test_agent_id_in_order(self) -> None:
        self.metadata.known = Ec2Metadata(instance_id="i-00000000")
        self.assertEqual(self.found(instance_id="named").agent_id, "named")
        for unset in (None, "", "auto", " auto "):
            self.assertEqual(self.found(instance_id=unset).agent_id, "i-00000000")
        self.metadata.known = Ec2Metadata()
        for unset in (None, "", "auto"):
            self.assertEqual(self.found(instance_id=unset).agent_id, "host-1")

    def test_region_in_order(self) -> None:
        environ = {"AWS_REGION": "env-1", "AWS_DEFAULT_REGION": "env-2"}
        self.metadata.known = Ec2Metadata(region="ec2-1")
        self.store.save(ONE)
        self.assertEqual(self.found(environ, aws_region="file-1").region, "file-1")
        self.assertEqual(self.found(environ).region, "eu-west-1")
        self.store.delete()
        self.assertEqual(self.found(environ).region, "env-1")
        del environ["AWS_REGION"]
        self.assertEqual(self.found(environ).region, "env-2")
        self.assertEqual(self.found().region, "ec2-1")
        self.metadata.known = Ec2Metadata()
        self.assertIsNone(self.found().region)

    def test_the_metadata_service_is_asked_only_for_what_nothing_else_says(self) -> None:
        self.found(ws_api_url="wss://hub/agent", instance_id="named")
        self.assertEqual(self.metadata.asked, [])
        self.found(ws_api_url="wss://hub/agent", aws_region="eu-west-1")
        self.found(instance_id="named", aws_region="eu-west-1")
        self.found()
        self.assertEqual(
            self.metadata.asked,
            [{"instance_id"}, {"public_ipv4"}, {"instance_id", "public_ipv4", "region"}],
        )

    def test_missing(self) -> None:
        for secret, url, missing in [
            (None, None, "secret"),
            (None, "wss://a", "secret"),
            ("s", None, "apiURL"),
            ("s", "wss://a", None),
        ]:
            found = LinkCredentials("a", url, secret, None)
            self.assertEqual(found.missing, missing)

    def test_why_there_is_no_url_is_said_once(self) -> None:
        self.metadata.last_error = "http://169.254.169.254: no answer"
        finder = self.finder()
        for _ in range(3):
            self.successResultOf(ensureDeferred(finder.look()))
        (line,) = self.logged
        self.assertIn("http://169.254.169.254: no answer", line)

    def test_secrets_are_not_shown(self) -> None:
        found = self.found(ws_secret="hunter2")
        for text in (repr(found), str(found), f"{[found]}"):
            self.assertNotIn("hunter2", text)

    def test_credentials_type(self) -> None:
        shared = self.folder / ".aws" / "credentials"
        home = {"HOME": str(self.folder)}
        keys = {"AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s"}
        container = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"}

        def kind(**environ: str) -> str:
            return self.finder(environ).credentials_type()

        self.assertEqual(kind(), "not-detected")
        self.assertEqual(kind(AWS_SECRET_ACCESS_KEY="s"), "not-detected")
        self.metadata.known = Ec2Metadata(iam_role="writer")
        self.assertEqual(kind(), "ec2-instance-role")
        self.assertEqual(kind(**container), "ecs-task-role")
        self.assertEqual(kind(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://x"), "ecs-task-role")
        self.assertEqual(kind(**home), "ec2-instance-role")
        shared.parent.mkdir()
        shared.touch()
        self.assertEqual(kind(**home, **container), "credentials-file")
        self.assertEqual(kind(AWS_SHARED_CREDENTIALS_FILE=str(shared)), "credentials-file")
        self.assertEqual(
            kind(**home, AWS_SHARED_CREDENTIALS_FILE="~/.aws/credentials"), "credentials-file"
        )
        self.assertEqual(kind(**home, AWS_SHARED_CREDENTIALS_FILE="/nowhere"), "ec2-instance-role")
        self.assertEqual(kind(**home, **keys), "environment-variables")
        self.assertEqual(
            kind(**keys, AWS_LAMBDA_FUNCTION_NAME="f", **home), "lambda-execution-role"
        )
        self.store.save(ONE)
        self.assertEqual(kind(**home, **keys), "stored-credentials")

    def test_the_configuration_file_is_looked_at_again(self) -> None:
        path = self.folder / "agent.config.json"
        path.touch(mode=0o600)

        def write(**members: Any) -> None:
            path.write_text(json.dumps(members))

        write(wsSecret="a", wsApiUrl="wss://a/", instanceId="one")
        finder = CredentialFinder(
            *load_config(str(path), {}),
            self.store,
            self.metadata,  # type: ignore[arg-type]
            {},
            "host-1",
        )

        def found() -> tuple[Any, ...]:
            found = self.successResultOf(ensureDeferred(finder.look()))
            return found.secret, found.url, found.agent_id

        self.assertEqual(found(), ("a", "wss://a/", "one"))
        write(wsSecret="bb", wsApiUrl="wss://b/", instanceId="auto")
        self.assertEqual(found(), ("bb", "wss://b/", "host-1"))
        write()
        self.store.save(ONE)
        self.assertEqual(found(), ("secret-one", None, "host-1"))

    def test_what_changes_during_a_slow_look_counts(self) -> None:
        path = self.folder / "agent.config.json"
        self.metadata.hold = Deferred()
        finder = CredentialFinder(
            *load_config(None, {}, default_path=str(path)),
            self.store,
            self.metadata,  # type: ignore[arg-type]
            {},
            "host-1",
        )
        look = ensureDeferred(finder.look())
        self.assertNoResult(look)
        self.store.save(ONE)
        path.write_text('{"instanceId": "named"}')
        self.metadata.known = Ec2Metadata(public_ipv4="54.123.45.67")
        self.metadata.hold.callback(None)
        self.assertEqual(
            self.successResultOf(look),
            LinkCredentials(
                agent_id="named",
                url="wss://54.123.45.67/agent",
                secret="secret-one",
                secret_source="stored-credentials",
                region="eu-west-1",
            ),
        )


class WithMetadataService(TestCase):
    async def test_from_nothing_to_a_link_and_through_a_fault(self) -> None:
        imds = FakeIMDS()
        environ = {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": imds.listen(reactor),
            "AWS_SECRET_ACCESS_KEY": "s",
        }
        try:
            finder = CredentialFinder(
                AgentConfig(),
                ConfigSource(path=None),
                CredentialStore(os.path.join(self.mktemp(), "c.json"), None),
                MetadataClient(reactor, environ),
                environ,
                "host-1",
            )
            expected = LinkCredentials(
                agent_id="i-0123456789abcdef0",
                url="wss://54.123.45.67/agent",
                secret="s",
                secret_source="environment-variables",
                region="eu-west-1",
            )
            self.assertEqual(await finder.look(), expected)
            imds.faults["*"] = "500"
            self.assertEqual(await finder.look(), expected)
        finally:
            await imds.close()


class FakeFinder:
    """Looks that a test ends when it likes."""

    def __init__(self) -> None:
        self.looks: list[Deferred[LinkCredentials]] = []
        self.cancelled: list[Deferred[LinkCredentials]] = []

    async def look(self) -> LinkCredentials:
        look: Deferred[LinkCredentials] = Deferred(self.cancelled.append)
        self.looks.append(look)
        return await look


class InstantFinder(FakeFinder):
    def __init__(self, found: LinkCredentials) -> None:
        super().__init__()
        self.found = found
        self.count = 0

    async def look(self) -> LinkCredentials:
        self.count += 1
        return self.found


A = LinkCredentials("a", "wss://a/", "s", "config")
B = LinkCredentials("a", "wss://b/", "s", "config")


class Watching(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.finder: Any = FakeFinder()
        self.changes: list[LinkCredentials] = []
        self.watcher = self.make()

    def make(self, on_change: Any = None) -> CredentialWatcher:
        return CredentialWatcher(self.clock, 10.0, self.finder, on_change or self.changes.append)

    def tearDown(self) -> None:
        self.watcher.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def answer(self, found: Any) -> None:
        look = self.finder.looks.pop(0)
        if isinstance(found, Exception):
            look.errback(found)
        else:
            look.callback(found)

    def test_at_once_and_then_by_the_clock(self) -> None:
        self.watcher.start()
        self.assertEqual(len(self.finder.looks), 1)
        self.answer(A)
        self.clock.advance(9.9)
        self.assertEqual(self.finder.looks, [])
        self.clock.advance(0.1)
        self.assertEqual(len(self.finder.looks), 1)

    def test_only_the_first_and_what_differs_is_told(self) -> None:
        self.watcher.start()
        for found in (A, A, B, B, A):
            self.answer(found)
            self.clock.advance(10)
        self.assertEqual(self.changes, [A, B, A])

    def test_nothing_found_is_told_as_well(self) -> None:
        nothing = LinkCredentials("a", None, None, None)
        self.watcher.start()
        self.answer(nothing)
        self.assertEqual(self.changes, [nothing])

    def test_a_look_that_fails(self) -> None:
        self.watcher.start()
        self.answer(RuntimeError("boom"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.clock.advance(10)
        self.answer(A)
        self.assertEqual(self.changes, [A])

    def test_a_slow_look_is_not_overtaken(self) -> None:
        self.watcher.start()
        self.clock.pump([10, 10, 10])
        self.assertEqual(len(self.finder.looks), 1)
        self.answer(A)
        self.clock.advance(10)
        self.assertEqual(len(self.finder.looks), 1)

    def test_look_now_alone(self) -> None:
        self.watcher.start()
        self.answer(A)
        answer = self.watcher.look_now()
        self.assertNoResult(answer)
        self.answer(B)
        self.assertEqual(self.successResultOf(answer), B)
        self.assertEqual(self.changes, [A, B])

    def test_look_now_during_a_look_waits_for_the_next(self) -> None:
        self.watcher.start()
        answers = [self.watcher.look_now() for _ in range(3)]
        self.assertEqual(len(self.finder.looks), 1)
        self.answer(A)
        for answer in answers:
            self.assertNoResult(answer)
        self.assertEqual(len(self.finder.looks), 1)
        self.answer(B)
        for answer in answers:
            self.assertEqual(self.successResultOf(answer), B)
        self.assertEqual(self.finder.looks, [])

    def test_the_change_is_told_before_the_answer(self) -> None:
        order = []
        self.watcher = self.make(lambda _: order.append("change"))
        self.watcher.look_now().addCallback(lambda _: order.append("answer"))
        self.answer(A)
        self.assertEqual(order, ["change", "answer"])

    def test_look_now_fails_with_its_look(self) -> None:
        self.watcher.start()
        self.answer(A)
        answer = self.watcher.look_now()
        self.answer(RuntimeError("boom"))
        self.failureResultOf(answer, RuntimeError)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_caller_that_no_longer_waits(self) -> None:
        self.watcher.start()
        first, second = self.watcher.look_now(), self.watcher.look_now()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.answer(A)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.answer(B)
        self.assertEqual(self.changes, [A, B])

    def test_a_listener_that_fails_is_told_again(self) -> None:
        told = []

        def listen(found: LinkCredentials) -> None:
            told.append(found)
            if len(told) == 1:
                raise RuntimeError("boom")

        self.watcher = self.make(listen)
        answer = self.watcher.look_now()
        self.answer(A)
        self.assertEqual(self.successResultOf(answer), A)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        for _ in range(2):
            self.watcher.look_now()
            self.answer(A)
        self.assertEqual(told, [A, A])

    def test_look_now_from_within(self) -> None:
        self.finder = InstantFinder(A)
        answers: list[Any] = []
        self.watcher = self.make(lambda _: answers.append(self.watcher.look_now()))
        self.watcher.start()
        self.assertEqual(self.finder.count, 2)
        self.assertEqual(self.successResultOf(answers[0]), A)

    def test_stop_ends_the_look_and_those_who_wait(self) -> None:
        self.watcher.start()
        waiting = self.watcher.look_now()
        self.watcher.stop()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.finder.cancelled, self.finder.looks)
        self.failureResultOf(self.watcher.look_now(), CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.changes, [])

    def test_stop_with_a_waiter_in_the_running_look(self) -> None:
        answer = self.watcher.look_now()
        self.watcher.stop()
        self.failureResultOf(answer, CancelledError)

    def test_started_again(self) -> None:
        self.watcher.start()
        self.answer(A)
        self.watcher.stop()
        self.watcher.start()
        self.answer(B)
        self.assertEqual(self.changes, [A, B])
