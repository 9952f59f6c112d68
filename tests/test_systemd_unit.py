"""The service units: hardened as far as it goes, and still able to do their work."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.tools import ROOT, require_program

AGENT = ROOT / "etc" / "jetcamer-agent.service"
HUB = ROOT / "etc" / "jetcamer-hub.service"
PROGRAM = "/opt/jetcamer/bin/twistd"


def settings(unit: Path) -> dict[str, dict[str, list[str]]]:
    """Section → name → every value it is given, in order."""
    sections: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] = {}
    for line in unit.read_text("utf-8").splitlines():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, value = line.split("=", 1)
            current.setdefault(name, []).append(value)
    return sections


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_program("systemd-analyze"), "--no-pager", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        timeout=60,
    )


class HardeningTests(SynchronousTestCase):
    def test_exposure_is_low(self) -> None:
        for unit in (AGENT, HUB):
            done = analyze("security", "--offline=true", "--threshold=15", str(unit))
            overall = [line for line in done.stdout.splitlines() if "Overall exposure" in line]
            self.assertEqual(len(overall), 1, done.stderr)
            self.assertEqual(done.returncode, 0, overall[0])
            self.assertIn(" OK ", overall[0])

    def test_systemd_understands_every_line(self) -> None:
        # The installed program is not here: another takes its place, which changes nothing else.
        folder = tempfile.TemporaryDirectory(prefix="jetcamer-")
        self.addCleanup(folder.cleanup)
        for unit in (AGENT, HUB):
            copy = Path(folder.name) / unit.name
            text = unit.read_text("utf-8")
            self.assertIn(PROGRAM, text)
            copy.write_text(text.replace(PROGRAM, sys.executable), "utf-8")
            done = analyze("verify", "--recursive-errors=no", "--man=no", str(copy))
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))


class UnitTestCase(SynchronousTestCase):
    unit: Path

    def setUp(self) -> None:
        self.service = settings(self.unit)["Service"]

    def one(self, name: str) -> str:
        (value,) = self.service[name]
        return value


class AgentTests(UnitTestCase):
    """What hardening must not take away from the agent."""

    unit = AGENT

    def test_it_is_watched_and_always_comes_back(self) -> None:
        self.assertEqual(self.one("Type"), "notify")
        self.assertEqual(self.one("Restart"), "always")
        self.assertEqual(self.one("WatchdogSec"), "60")
        self.assertEqual(settings(AGENT)["Unit"]["StartLimitIntervalSec"], ["0"])
        self.assertEqual(self.one("ExecStart"), f"{PROGRAM} --nodaemon --pidfile= jetcamer")

    def test_an_unprivileged_user_that_reads_the_logs(self) -> None:
        self.assertEqual(self.one("User"), "jetcamer")
        self.assertEqual(self.one("SupplementaryGroups"), "adm")
        self.assertEqual(self.one("StateDirectory"), "jetcamer")
        self.assertEqual(self.one("ConfigurationDirectory"), "jetcamer")
        self.assertEqual(self.one("EnvironmentFile"), "-/etc/jetcamer/agent.env")
        self.assertFalse(
            {"InaccessiblePaths", "TemporaryFileSystem", "RootDirectory"} & set(self.service)
        )

    def test_it_reaches_the_network_and_the_system_bus(self) -> None:
        families = set(self.one("RestrictAddressFamilies").split())
        self.assertLessEqual({"AF_INET", "AF_INET6", "AF_UNIX"}, families)
        self.assertFalse({"PrivateNetwork", "IPAddressDeny", "IPAddressAllow"} & set(self.service))

    def test_it_sees_the_whole_machine_in_proc(self) -> None:
        self.assertNotIn("ProcSubset", self.service)
        self.assertEqual(self.one("ProtectProc"), "noaccess")

    def test_it_may_run_programs(self) -> None:
        self.assertFalse({"NoExecPaths", "LimitNPROC"} & set(self.service))
        self.assertEqual(self.service["SystemCallFilter"][0], "@system-service")
        self.assertGreaterEqual(int(self.one("TasksMax")), 64)


class HubTests(UnitTestCase):
    """Nor from the hub."""

    unit = HUB

    def test_it_is_watched_and_always_comes_back(self) -> None:
        self.assertEqual(self.one("Type"), "notify")
        self.assertEqual(self.one("Restart"), "always")
        self.assertEqual(settings(HUB)["Unit"]["StartLimitIntervalSec"], ["0"])
        self.assertEqual(self.one("ExecStart"), f"{PROGRAM} --nodaemon --pidfile= jetcamer-hub")

    def test_a_user_of_its_own(self) -> None:
        """Not the agent's: what may be read by one is not the other's."""
        self.assertEqual(self.one("User"), "jetcamer-hub")
        self.assertEqual(self.one("StateDirectory"), "jetcamer-hub")
        self.assertEqual(self.one("StateDirectoryMode"), "0700")

    def test_it_takes_port_443_and_nothing_else_of_root(self) -> None:
        for name in ("CapabilityBoundingSet", "AmbientCapabilities"):
            self.assertEqual(self.one(name), "CAP_NET_BIND_SERVICE")
        self.assertFalse({"PrivateUsers", "PrivateNetwork", "IPAddressDeny"} & set(self.service))

    def test_room_for_a_fleet(self) -> None:
        self.assertGreaterEqual(int(self.one("LimitNOFILE")), 65536)
        self.assertGreaterEqual(int(self.one("TimeoutStopSec")), 30)
