"""Each health check with what makes it warn, fail, or know nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace as NS
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent import health
from jetcamer.agent.health import (
    HealthCheck,
    HealthInputs,
    check_clock,
    check_config,
    check_credentials,
    check_disk,
    check_health,
    check_link,
    check_log_files,
    check_memory,
    check_state_directory,
    overall,
)

NOW = 1_731_819_422.0


class CheckTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def assert_is(self, check: HealthCheck, status: str, words: str) -> None:
        self.assertEqual((check.status, check.words), (status, words))


class KnowledgeTests(CheckTestCase):
    """Checks of what the agent knows."""

    def test_link(self) -> None:
        for status, words, link in [
            ("unknown", "the agent does not run", None),
            (
                "ok",
                "online since 2026-01-01T00:00:00Z",
                {"hasConnection": True, "connectedSince": "2026-01-01T00:00:00Z"},
            ),
            ("warn", "not started: missing secret", {"state": "waiting", "missing": "secret"}),
            (
                "fail",
                "not connected: backing off, attempt 3, last error: refused",
                {"state": "backing off", "attempt": 3, "lastError": "refused"},
            ),
            ("fail", "not connected: connecting", {"state": "connecting", "attempt": 0}),
            ("fail", "not connected: no state", {}),
        ]:
            self.assert_is(check_link(link), status, words)

    def test_credentials(self) -> None:
        self.assertEqual(check_credentials(None).status, "unknown")
        for missing, source, status, words in [
            (None, "stored-credentials", "ok", "secret from stored-credentials"),
            (
                "secret",
                None,
                "fail",
                "no secret in the configuration, the stored credentials or the environment",
            ),
            (
                "apiURL",
                "config",
                "fail",
                "no wsApiUrl, and the metadata service gives no public address",
            ),
        ]:
            credentials: Any = NS(missing=missing, secret_source=source, secret="hunter2")
            self.assert_is(check_credentials(credentials), status, words)

    def test_clock(self) -> None:
        self.assertEqual(check_clock(NOW, None, 0).status, "unknown")
        for skew, status, words in [
            (0.0, "ok", "in step with the server"),
            (30.0, "ok", "in step with the server"),
            (-30.0, "ok", "in step with the server"),
            (31.0, "warn", "31 s ahead of the server"),
            (-31.0, "warn", "31 s behind the server"),
            (300.0, "warn", "300 s ahead of the server"),
            (301.0, "fail", "301 s ahead of the server: messages are refused from 5 min on"),
            (-9000.0, "fail", "9000 s behind the server: messages are refused from 5 min on"),
        ]:
            # The server told its time an hour ago.
            self.assert_is(check_clock(NOW + skew, NOW - 3600, 3600), status, words)


class ResourceTests(CheckTestCase):
    def disk(self, **values: int) -> HealthCheck:
        # 1000 blocks of 1 MiB, 100 of them kept for root.
        found = {
            "f_blocks": 1000,
            "f_bfree": 600,
            "f_bavail": 500,
            "f_frsize": 1 << 20,
            "f_files": 100,
            "f_favail": 50,
        }
        found.update(values)
        return check_disk("disk", "/x", lambda path: NS(**found))

    def test_space(self) -> None:
        self.assert_is(self.disk(), "ok", "/x: 55.6 % free (500 MiB)")
        self.assert_is(self.disk(f_bfree=190, f_bavail=90), "ok", "/x: 10.0 % free (90 MiB)")
        self.assertEqual(self.disk(f_bfree=189, f_bavail=89).status, "warn")
        self.assertEqual(self.disk(f_bfree=127, f_bavail=27).status, "warn")
        self.assertEqual(self.disk(f_bfree=126, f_bavail=26).status, "fail")
        # What is kept for root is of no use to us.
        self.assert_is(self.disk(f_bfree=100, f_bavail=0), "fail", "/x: 0.0 % free (0 B)")

    def test_inodes(self) -> None:
        words = "/x: 55.6 % free (500 MiB), 2.0 % of its inodes free"
        self.assert_is(self.disk(f_favail=2), "fail", words)
        self.assertEqual(self.disk(f_favail=9).status, "warn")
        self.assertEqual(self.disk(f_favail=10).status, "ok")
        self.assertEqual(self.disk(f_files=0, f_favail=0).status, "ok", "btrfs counts none")

    def test_a_disk_that_says_nothing(self) -> None:
        zero = self.disk(f_blocks=0, f_bfree=0, f_bavail=0)
        self.assert_is(zero, "unknown", "/x: the file system tells no size")
        missing = check_disk("state_disk", "/no/such/folder")
        self.assert_is(missing, "unknown", "/no/such/folder: No such file or directory")

    def test_memory(self) -> None:
        for available, status in [
            (500, "ok"),
            (100, "ok"),
            (99, "warn"),
            (30, "warn"),
            (29, "fail"),
        ]:
            machine = NS(
                virtual_memory=lambda available=available: NS(
                    available=available << 30, total=1000 << 30
                )
            )
            self.assert_is(
                check_memory(machine),
                status,
                f"{available / 10:.1f} % available ({available} GiB)",
            )


class FileTests(CheckTestCase):
    def test_state_directory(self) -> None:
        path = str(self.folder)
        self.assert_is(check_state_directory(path), "ok", f"{path} is writable")
        self.assertEqual(os.listdir(path), [], "nothing is left behind")
        self.assert_is(
            check_state_directory("/no/such/folder"),
            "fail",
            "/no/such/folder is not writable: No such file or directory",
        )
        # One that also root cannot write.
        self.assertEqual(check_state_directory("/proc").status, "fail")

    def test_configuration(self) -> None:
        self.assert_is(check_config(None, False), "ok", "no file; defaults")
        self.assert_is(check_config(None, True), "ok", "no file; given by the program")
        path = self.folder / "agent.config.json"
        self.assert_is(
            check_config(str(path), True), "unknown", f"{path}: No such file or directory"
        )
        path.write_text("{}")
        for mode, has_secret, status, words in [
            (0o600, True, "ok", f"{path} (mode 0600)"),
            (0o640, True, "ok", f"{path} (mode 0640)"),
            (0o644, False, "ok", f"{path} (mode 0644)"),
            (
                0o644,
                True,
                "warn",
                f"anyone can read the secret in {path} (mode 0644); chmod o-r",
            ),
            (0o646, False, "fail", f"anyone can change {path} (mode 0646); chmod o-w"),
        ]:
            path.chmod(mode)
            self.assert_is(check_config(str(path), has_secret), status, words)

    def refuse(self, *refused: Path) -> None:
        """As for a user who may not read these; root, who may run the tests, may everything."""
        access = os.access

        def check(path: str, mode: int, **keywords: bool) -> bool:
            return Path(path) not in refused and access(path, mode, **keywords)

        self.patch(os, "access", check)

    def test_log_files(self) -> None:
        first, second = self.folder / "a_access.log", self.folder / "b_access.log"
        pattern = f"{self.folder}/*access*.log"
        none = f"{self.folder}/none.log"
        first.touch()
        second.touch()
        self.assert_is(check_log_files([pattern]), "ok", "2 readable")
        self.assert_is(check_log_files([str(first), none]), "warn", f"{none} is not there")
        self.refuse(second)
        self.assert_is(check_log_files([pattern]), "warn", f"{second} is not readable")
        self.assert_is(check_log_files([], [pattern]), "warn", f"{second} is not readable")

    def test_logs_that_nobody_named_need_not_be_there(self) -> None:
        nothing = [f"{self.folder}/none/*.log", f"{self.folder}/*.log"]
        self.assert_is(check_log_files([], nothing), "unknown", "no access logs found")

    def test_a_folder_that_cannot_be_listed(self) -> None:
        self.refuse(self.folder)
        words = f"{self.folder} cannot be listed"
        self.assert_is(check_log_files([], [f"{self.folder}/*.log"]), "warn", words)
        self.assert_is(check_log_files([f"{self.folder}/*.log"]), "warn", words)

    def test_many_faults_are_summed_up(self) -> None:
        words = "/n/0 is not there; /n/1 is not there; /n/2 is not there and 2 more"
        self.assert_is(check_log_files([f"/n/{number}" for number in range(5)]), "warn", words)

    def test_without_pretending(self) -> None:
        folder = tempfile.mkdtemp()  # which others can reach, unlike trial's
        self.addCleanup(shutil.rmtree, folder)
        path = f"{folder}/access.log"
        os.close(os.open(path, os.O_CREAT, 0))
        os.chmod(folder, 0o555)
        self.addCleanup(os.chmod, folder, 0o755)
        if os.geteuid() == 0:
            self.addCleanup(os.seteuid, 0)
            os.seteuid(65534)
        self.assert_is(check_log_files([path]), "warn", f"{path} is not readable")
        self.assert_is(
            check_state_directory(folder), "fail", f"{folder} is not writable: Permission denied"
        )


class AllTests(CheckTestCase):
    def inputs(self, **values: Any) -> HealthInputs:
        return HealthInputs(now=NOW, state_dir=str(self.folder), **values)

    def test_all_in_a_fixed_order(self) -> None:
        checks = check_health(self.inputs(log_paths=["/n/0"]))
        self.assertEqual(
            [check.name for check in checks],
            [
                "link",
                "credentials",
                "clock",
                "disk",
                "state_disk",
                "memory",
                "state_directory",
                "configuration",
                "log_files",
            ],
        )
        self.assertEqual(overall(checks), "health_degraded")

    def test_inputs_reach_their_checks(self) -> None:
        credentials: Any = NS(missing=None, secret_source="config")
        log_file = self.folder / "access.log"
        log_file.touch()
        checks = {
            check.name: check
            for check in check_health(
                self.inputs(
                    link={"hasConnection": True},
                    credentials=credentials,
                    server_date=NOW - 10,
                    server_date_age=9.5,
                    config_path="/no/such/file",
                    log_paths=[str(log_file)],
                )
            )
        }
        self.assertEqual(checks["link"].words, "online")
        self.assertEqual(checks["credentials"].words, "secret from config")
        self.assertEqual(checks["clock"].status, "ok")
        self.assertEqual(checks["configuration"].status, "unknown")
        self.assertEqual(checks["log_files"].words, "1 readable")
        self.assertIn(str(self.folder), checks["state_disk"].words)

    def test_a_check_that_fails_itself_is_no_disaster(self) -> None:
        def broken(link: object) -> HealthCheck:
            raise ZeroDivisionError("secret")

        self.patch(health, "check_link", broken)
        check = check_health(self.inputs())[0]
        self.assert_is(check, "unknown", "the check failed: ZeroDivisionError")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_overall(self) -> None:
        def of(*statuses: Any) -> str:
            return overall(HealthCheck("x", status, "") for status in statuses)

        self.assertEqual(of(), "health_unknown")
        self.assertEqual(of("unknown"), "health_unknown")
        self.assertEqual(of("ok", "unknown"), "health_ok")
        self.assertEqual(of("ok", "warn", "unknown"), "health_degraded")
        self.assertEqual(of("fail"), "health_degraded")
