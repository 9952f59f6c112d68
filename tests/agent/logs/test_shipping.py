"""Whether lines are followed and archived at all, and how that changes while the agent runs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.config import AgentConfig
from jetcamer.agent.credential_store import StoredCredentials
from jetcamer.agent.credentials import AwsAccess
from jetcamer.agent.logs import pipeline
from jetcamer.agent.logs import shipping as module
from jetcamer.agent.logs.archive_errors import ArchiveOff
from jetcamer.agent.logs.checkpoint import FILE_NAME, CheckpointFile
from jetcamer.agent.logs.shipping import LOOK_INTERVAL, LogShipping
from jetcamer.agent.logs.tail import Tail
from jetcamer.agent.send_queue import Counters, SendQueue
from tests.support.logs import LogsMixin
from tests.support.tools import ROOT

ROLE = AwsAccess("ec2-instance-role", None, "eu-west-1")
STORED = AwsAccess("stored-credentials", StoredCredentials("AKIA", "s3cr3t", None), "eu-west-1")


class ShippingCase(LogsMixin, SynchronousTestCase):
    def setUp(self) -> None:
        self.logged = self.capture_logs()
        self.clock: Any = Clock()
        for name in ("addReader", "removeReader", "removeWriter"):
            setattr(self.clock, name, lambda watcher: None)
        self.patch(pipeline, "run_in_thread", lambda reactor, call, name: maybeDeferred(call))
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        self.state_dir = os.path.join(self.folder, "state")
        self.found: AwsAccess | None = None
        self.can_archive = True
        self.machine: str | OSError = "m1"
        self.environ: dict[str, str] = {}
        self.shipping: LogShipping | None = None
        self.addCleanup(self.stop)

    async def look_for_aws(self) -> AwsAccess | None:
        return self.found

    def machine_id(self) -> str:
        if isinstance(self.machine, OSError):
            raise self.machine
        return self.machine

    def start(self, **config: Any) -> LogShipping:
        self.patch(module, "DEFAULT_LOG_PATHS", (self.path("*.log"),))
        config = {"state_dir": self.state_dir, **config}
        shipping = self.shipping = LogShipping(
            self.clock,
            AgentConfig(**config),
            queue=SendQueue(Counters()),
            say=lambda *words: None,
            finder=self,
            environ=self.environ,
            machine_id=self.machine_id,
            metadata=lambda: {},
            now=self.clock.seconds,
            can_archive=lambda: self.can_archive,
        )
        shipping.startService()
        return shipping

    def stop(self) -> None:
        shipping, self.shipping = self.shipping, None
        if shipping is not None and shipping.running:
            stopped = shipping.stopService()
            self.clock.advance(1)
            self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def write(self, name: str, text: str = "") -> None:
        with open(self.path(name), "a") as file:
            file.write(text)

    def archive(self) -> dict[str, Any]:
        assert self.shipping is not None
        archive: dict[str, Any] = self.shipping.status()["archive"]
        return archive


class FollowingTests(ShippingCase):
    def test_without_a_file_nothing_is_made_and_little_is_imported(self) -> None:
        shipping = self.start()
        self.assertEqual(shipping.status()["files"], [])
        self.assertEqual(shipping.totals(), {})
        self.assertFalse(os.path.exists(self.state_dir))
        code = (
            "import sys, jetcamer.agent.service\n"
            "print([name for name in sys.modules if 'botocore' in name"
            " or name.startswith('jetcamer.agent.logs.')])"
        )
        printed = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout
        self.assertEqual(
            sorted(eval(printed)),
            [f"jetcamer.agent.logs.{name}" for name in ("archive_errors", "discovery", "shipping")],
        )

    def test_a_file_that_is_there_is_followed_from_its_end(self) -> None:
        self.write("a.log", "old\n")
        (file,) = self.start().status()["files"]
        self.assertEqual((file["path"], file["live"]), (self.path("a.log"), 4))

    def test_the_first_file_that_appears_later_is_followed_from_its_beginning(self) -> None:
        shipping = self.start()
        self.write("a.log", "new\n")
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(shipping.status()["waiting"], 1)

    def test_what_is_there_is_followed_although_there_is_nothing_to_connect_to(self) -> None:
        self.write("a.log")
        shipping = self.start(archive="off")
        self.write("a.log", "line\n")
        self.clock.pump([0.25] * 4)
        self.assertEqual(shipping.status()["waiting"], 1)
        self.assertEqual(shipping.totals()["sent"], 0)

    def test_the_status_shows_the_rate_of_the_moment(self) -> None:
        shipping = self.start(archive="off")
        shipping.server_limits()  # with no file there is nothing to be slowed
        self.write("access.log")
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(shipping.status()["linesPerSecond"], 200)
        shipping.server_limits()
        self.assertEqual(shipping.status()["linesPerSecond"], 100)

    def test_a_configured_file_that_is_not_there_is_said(self) -> None:
        self.start(log_paths=(self.path("b.log"),))
        self.assertLogged(self.logged, f"[logs] {self.path('b.log')}: there is no such file yet")

    def test_a_folder_that_cannot_be_listed_is_said_and_its_files_are_not_new(self) -> None:
        shipping = self.start()
        os.mkdir(self.path("logs"))
        self.write("logs/a.log", "old\n")
        real = os.listdir

        def listdir(path: str) -> list[str]:
            if path.startswith(self.path("logs")):
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        self.stop()
        self.patch(os, "listdir", listdir)
        self.patch(module, "DEFAULT_LOG_PATHS", (self.path("logs/*.log"),))
        shipping = self.start(log_paths=(self.path("logs/*.log"),))
        self.assertIn(self.path("logs"), "".join(shipping.status()["ignored"]))
        self.patch(os, "listdir", real)
        self.clock.advance(LOOK_INTERVAL)
        (file,) = shipping.status()["files"]
        self.assertEqual((file["live"], shipping.status()["waiting"]), (4, 0))

    def test_a_checkpoint_that_cannot_be_read_is_left_alone_and_tried_again(self) -> None:
        self.write("a.log", "old\n")
        self.start()
        self.stop()
        self.write("a.log", "new\n")
        real = CheckpointFile.load

        def load(file: CheckpointFile) -> Any:
            raise OSError(5, "Input/output error", file.path)

        self.patch(CheckpointFile, "load", load)
        shipping = self.start()
        self.clock.advance(LOOK_INTERVAL)
        words = f"{self.state_dir}/logs.checkpoint.json: Input/output error"
        self.assertEqual(shipping.status()["error"], words)
        self.assertEqual(len([line for line in self.logged.lines if words in line]), 1)
        self.patch(CheckpointFile, "load", real)
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(shipping.status()["waiting"], 1)
        self.assertNotIn("error", shipping.status())

    def test_a_start_that_fails_is_tried_again(self) -> None:
        self.write("a.log")
        real = Tail.start

        def start(tail: Tail) -> None:
            raise RuntimeError("out of luck")

        self.patch(Tail, "start", start)
        shipping = self.start()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.patch(Tail, "start", real)
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(len(shipping.status()["files"]), 1)


class ArchiveModeTests(ShippingCase):
    def test_off_is_off_and_asks_for_no_credentials(self) -> None:
        self.found = ROLE
        self.start(archive="off")
        self.assertEqual(self.archive(), {"state": "off", "why": "the configuration turns it off"})

    def test_auto_is_on_with_botocore_and_credentials_also_without_a_file(self) -> None:
        self.found = ROLE
        self.start()
        archive = self.archive()
        self.assertEqual(
            (archive["state"], archive["bucket"], archive["region"]),
            ("on", "cyber-agent-logs", "eu-west-1"),
        )

    def test_auto_without_botocore_is_off_and_says_how_to_get_it(self) -> None:
        self.found = ROLE
        self.can_archive = False
        self.start()
        archive = self.archive()
        self.assertEqual(archive["state"], "off")
        self.assertIn(f"{sys.executable} -m pip install 'jetcamer[s3]'", archive["why"])
        self.assertEqual(self.logged.lines, [])

    def test_auto_begins_when_credentials_are_found(self) -> None:
        self.write("a.log", "before\n")
        self.start()
        self.assertEqual(self.archive(), {"state": "off", "why": "no AWS credentials were found"})
        self.found = ROLE
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(self.archive()["state"], "on")
        assert self.shipping is not None
        (file,) = self.shipping.status()["files"]
        self.assertEqual(file["archive"], 7)

    def test_on_without_botocore_or_credentials_is_said_once(self) -> None:
        self.can_archive = False
        self.start(archive="on")
        self.clock.pump([LOOK_INTERVAL] * 3)
        self.can_archive = True
        self.clock.pump([LOOK_INTERVAL] * 3)
        self.assertEqual(
            [line for line in self.logged.lines if "archived" in line],
            [
                "[logs] nothing is archived: botocore is not installed: "
                f"{sys.executable} -m pip install 'jetcamer[s3]'",
                "[logs] lines wait to be archived in s3://cyber-agent-logs: "
                "no AWS credentials were found",
            ],
        )
        self.assertEqual(self.archive()["state"], "waiting")

    def test_once_it_has_been_on_it_waits_for_credentials_and_loses_no_line(self) -> None:
        self.write("a.log")
        self.found = STORED
        shipping = self.start()
        self.found = None
        self.clock.advance(LOOK_INTERVAL)
        archive = self.archive()
        self.assertEqual(
            (archive["state"], archive["lastError"]), ("waiting", "no AWS credentials were found")
        )
        self.stop()
        self.write("a.log", "while nobody was there\n")
        shipping = self.start()
        self.assertEqual(self.archive()["state"], "waiting")
        (file,) = shipping.status()["files"]
        self.assertEqual((file["archive"], file["size"]), (0, 23))

    def test_credentials_that_change_are_used_at_once(self) -> None:
        self.found = ROLE
        shipping = self.start()
        before = shipping._uploader
        self.clock.advance(LOOK_INTERVAL)
        self.assertIs(shipping._uploader, before)
        self.found = STORED
        shipping.look_now()
        assert before is not None
        assert shipping._uploader is not None
        self.assertIsNot(shipping._uploader, before)
        self.assertEqual(shipping._uploader.access.stored, STORED.stored)
        self.failureResultOf(before.put("k", lambda: b"", {}))

    def test_the_endpoint_is_the_environments(self) -> None:
        self.environ = {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}
        shipping = self.start()
        self.assertEqual(shipping.access(None).endpoint, "http://b")
        del self.environ["AWS_ENDPOINT_URL_S3"]
        self.assertEqual(shipping.access(None).endpoint, "http://a")

    def test_without_a_machine_id_nothing_is_archived_until_there_is_one(self) -> None:
        self.found = ROLE
        self.machine = FileNotFoundError(2, "No such file or directory")
        self.start()
        why = "the machine id cannot be read: No such file or directory"
        self.assertEqual(self.archive(), {"state": "off", "why": why})
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(len([line for line in self.logged.lines if why in line]), 1)
        self.machine = "m1"
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(self.archive()["state"], "on")


class BatchTests(ShippingCase):
    def test_where_nothing_is_archived_a_batch_is_refused_with_the_reason(self) -> None:
        shipping = self.start(archive="off")
        failure = self.failureResultOf(shipping.upload_batch(b"{}\n", 1), ArchiveOff)
        self.assertEqual(str(failure.value), "nothing is archived: the configuration turns it off")

    def test_a_batch_is_safe_on_disk_before_it_is_uploaded(self) -> None:
        self.found = ROLE
        shipping = self.start()
        self.found = None
        self.clock.advance(LOOK_INTERVAL)
        stored = self.successResultOf(shipping.upload_batch(b"{}\n", 1))
        self.assertNoResult(stored.uploaded.addErrback(lambda _: None))
        (name,) = os.listdir(os.path.join(self.state_dir, "spool", "objects"))
        with open(os.path.join(self.state_dir, "spool", "objects", name), "rb") as file:
            self.assertEqual(file.read(), b"{}\n")


class NameTests(SynchronousTestCase):
    def test_the_checkpoint_has_one_name(self) -> None:
        self.assertEqual(module.CHECKPOINT_NAME, FILE_NAME)


class StoppingTests(ShippingCase):
    def test_a_disk_that_hangs_does_not_hold_up_the_end(self) -> None:
        self.found = ROLE
        self.write("a.log")
        shipping = self.start()
        self.patch(pipeline, "run_in_thread", lambda reactor, call, name: Deferred())
        stopped = shipping.stopService()
        self.clock.pump([0.5] * 5)
        self.successResultOf(stopped)
        self.assertLogged(self.logged, "[logs] the positions could not be kept in time")

    def test_positions_are_on_disk_when_it_has_stopped(self) -> None:
        self.write("a.log", "old\n")
        self.start(archive="off")
        self.stop()
        checkpoint = CheckpointFile(self.state_dir).load()
        assert checkpoint is not None
        self.assertEqual([state.live for state in checkpoint.streams], [4])

    def test_it_may_be_stopped_while_it_looks_for_credentials(self) -> None:
        looking: Deferred[None] = Deferred()

        async def look_for_aws() -> None:
            await looking

        self.look_for_aws = look_for_aws  # type: ignore[assignment,method-assign]
        self.start()
        self.stop()
        self.assertEqual(self.logged.lines, [])

    def test_a_look_that_fails_is_logged_and_the_next_one_comes(self) -> None:
        async def look_for_aws() -> AwsAccess | None:
            await fail(RuntimeError("no such thing"))
            return None

        works = self.look_for_aws
        self.look_for_aws = look_for_aws  # type: ignore[method-assign]
        self.write("a.log")
        shipping = self.start()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.look_for_aws = works  # type: ignore[method-assign]
        self.clock.advance(LOOK_INTERVAL)
        self.assertEqual(len(shipping.status()["files"]), 1)
