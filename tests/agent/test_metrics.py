"""Samples of the machine: never invented, never blocking."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace as NS
from typing import Any

import psutil
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.metrics import MetricsSampler

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal guest guest_nice")

#: What a sample holds beside the three basic members.
EXTENDED = {
    "load1",
    "load5",
    "load15",
    "swapPercent",
    "filesystems",
    "netRxBytesPerSec",
    "netTxBytesPerSec",
    "diskReadBytesPerSec",
    "diskWriteBytesPerSec",
    "uptimeSeconds",
    "processCount",
}


def times(user: float = 0, idle: float = 0, iowait: float = 0, guest: float = 0) -> Times:
    return Times(user, 0, 0, idle, iowait, 0, 0, 0, guest, 0)


class FakePsutil:
    """A machine of a sort. An attribute that is an exception is raised."""

    def __init__(self) -> None:
        self.cpu: Any = times(user=10, idle=90)
        self.memory: Any = NS(total=3000, available=1000)
        self.usage: Any = {
            "/": NS(used=30, free=60, total=100),
            "/srv": NS(used=1, free=3, total=4),
        }
        self.load: Any = (0.111, 2.0, 3.0)
        self.swap: Any = NS(total=200, used=50)
        self.network: Any = {"eth0": (1000, 100), "lo": (5, 5), "br0": (1000, 100)}
        self.io: Any = {"sda": (1000, 100), "sda1": (1000, 100), "dm-0": (1000, 100)}
        self.partitions: Any = [
            NS(device="/dev/sda1", mountpoint="/var/bind", fstype="ext4"),
            NS(device="/dev/sda1", mountpoint="/", fstype="ext4"),
            NS(device="/dev/sdb1", mountpoint="/srv", fstype="xfs"),
            NS(device="/dev/loop0", mountpoint="/snap/core", fstype="squashfs"),
            NS(device="me@host:", mountpoint="/remote", fstype="fuse.sshfs"),
        ]
        self.processes: Any = [1, 2, 3]
        self.partition_reads = 0

    @staticmethod
    def _of(value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    def cpu_times(self) -> Any:
        return self._of(self.cpu)

    def virtual_memory(self) -> Any:
        return self._of(self.memory)

    def disk_usage(self, path: str) -> Any:
        return self._of(self._of(self.usage)[path])

    def disk_partitions(self, all: bool) -> Any:
        self.partition_reads += 1
        return self._of(self.partitions)

    def getloadavg(self) -> Any:
        return self._of(self.load)

    def swap_memory(self) -> Any:
        return self._of(self.swap)

    def net_io_counters(self, pernic: bool, nowrap: bool) -> Any:
        counters = self._of(self.network)
        return {name: NS(bytes_recv=a, bytes_sent=b) for name, (a, b) in counters.items()}

    def disk_io_counters(self, perdisk: bool, nowrap: bool) -> Any:
        counters = self._of(self.io)
        return counters and {
            name: NS(read_bytes=a, write_bytes=b) for name, (a, b) in counters.items()
        }

    def pids(self) -> Any:
        return self._of(self.processes)


class MetricsTestCase(SynchronousTestCase):
    extended = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.psutil = FakePsutil()
        self.sys = Path(self.mktemp())
        for device in ("class/net/eth0", "block/sda"):
            (self.sys / device / "device").mkdir(parents=True)
        self.sampler = self.make()

    def make(self) -> MetricsSampler:
        return MetricsSampler(
            self.clock,
            self.extended,
            self.psutil,
            sys_root=str(self.sys),
            boot_clock=lambda: 1234.9,
        )

    def sample(self, seconds: float = 5) -> dict[str, Any]:
        self.clock.advance(seconds)
        return self.sampler.sample()


class BasicTests(MetricsTestCase):
    def test_rounded_to_two_decimals(self) -> None:
        self.psutil.cpu = times(user=11, idle=92)
        self.assertEqual(
            self.sample(), {"cpuPercent": 33.33, "memPercent": 66.67, "diskUsage": 33.33}
        )
        self.assertEqual(self.sampler.failures, {})

    def test_cpu_is_since_the_last_sample(self) -> None:
        self.psutil.cpu = times(user=20, idle=90)
        self.assertEqual(self.sample()["cpuPercent"], 100)
        self.psutil.cpu = times(user=20, idle=95)
        self.assertEqual(self.sample()["cpuPercent"], 0)

    def test_cpu_is_left_out_when_no_time_has_been_counted(self) -> None:
        self.assertEqual(set(self.sample()), {"memPercent", "diskUsage"})
        self.assertEqual(self.sampler.failures, {})

    def test_waiting_for_a_disk_is_idle_and_guests_count_once(self) -> None:
        self.psutil.cpu = times(user=14, idle=93, iowait=3, guest=4)
        # 4 of user (all of it a guest's), 3 idle, 3 waiting.
        self.assertEqual(self.sample()["cpuPercent"], 40)

    def test_a_counter_that_goes_back_a_little_is_no_time(self) -> None:
        self.psutil.cpu = times(user=10, idle=90, iowait=5)
        self.sample()
        self.psutil.cpu = times(user=11, idle=91, iowait=4)
        self.assertEqual(self.sample()["cpuPercent"], 50)

    def test_a_reading_that_fails_is_left_out_logged_once_and_counted(self) -> None:
        self.psutil.cpu = times(user=11, idle=92)
        self.psutil.memory = OSError("no /proc")
        with capturedLogs() as events:
            for _ in range(3):
                self.assertNotIn("memPercent", self.sample())
            self.psutil.memory = NS(total=4, available=1)
            self.assertEqual(self.sample()["memPercent"], 75)
            self.psutil.memory = KeyError("again")
            self.sample()
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "metrics: no memPercent: OSError: no /proc",
                "metrics: memPercent can be read again",
                "metrics: no memPercent: KeyError: 'again'",
            ],
        )
        self.assertEqual(self.sampler.failures, {"memPercent": 4})

    def test_what_makes_no_sense_is_a_failure(self) -> None:
        for memory in (
            NS(total=100, available=101),
            NS(total=100, available=-1),
            NS(total=0, available=0),
            NS(total=float("nan"), available=1),
            NS(total=None, available=1),
            NS(),
        ):
            self.psutil.memory = memory
            self.assertNotIn("memPercent", self.sample())
        self.assertEqual(self.sampler.failures, {"memPercent": 6})

    def test_cpu_after_a_failure_is_since_the_last_success(self) -> None:
        for fault in (OSError("gone"), times(user=float("nan")), times(user=-1)):
            self.psutil.cpu = fault
            self.assertNotIn("cpuPercent", self.sample())
        self.psutil.cpu = times(user=11, idle=93)
        self.assertEqual(self.sample()["cpuPercent"], 25)
        self.assertEqual(self.sampler.failures, {"cpuPercent": 3})

    def test_cpu_that_cannot_be_read_at_first(self) -> None:
        self.psutil.cpu = OSError("not yet")
        self.sampler = self.make()
        self.psutil.cpu = times(user=10, idle=90)
        self.assertNotIn("cpuPercent", self.sample())
        self.psutil.cpu = times(user=11, idle=90)
        self.assertEqual(self.sample()["cpuPercent"], 100)

    def test_all_fail(self) -> None:
        for name in ("cpu", "memory", "usage"):
            setattr(self.psutil, name, OSError("no"))
        self.assertEqual(self.sample(), {})


class ExtendedTests(MetricsTestCase):
    extended = True

    def test_everything(self) -> None:
        self.psutil.cpu = times(user=11, idle=92)
        self.psutil.network = {"eth0": (2000, 110), "lo": (50, 50), "br0": (9000, 900)}
        self.psutil.io = {"sda": (1333, 100), "sda1": (0, 0), "dm-0": (9000, 900)}
        sample = self.sample()
        self.assertEqual(set(sample), {"cpuPercent", "memPercent", "diskUsage"} | EXTENDED)
        del sample["cpuPercent"], sample["memPercent"], sample["diskUsage"]
        self.assertEqual(
            sample,
            {
                "load1": 0.11,
                "load5": 2.0,
                "load15": 3.0,
                "swapPercent": 25.0,
                "filesystems": [
                    {"mount": "/", "percent": 33.33, "totalBytes": 100, "availableBytes": 60},
                    {"mount": "/srv", "percent": 25.0, "totalBytes": 4, "availableBytes": 3},
                ],
                "netRxBytesPerSec": 200.0,
                "netTxBytesPerSec": 2.0,
                "diskReadBytesPerSec": 66.6,
                "diskWriteBytesPerSec": 0.0,
                "uptimeSeconds": 1234,
                "processCount": 3,
            },
        )
        self.assertEqual(self.sampler.failures, {})

    def assert_rates(self, sample: dict[str, Any], network: bool, disks: bool) -> None:
        self.assertEqual("netRxBytesPerSec" in sample, network)
        self.assertEqual("netTxBytesPerSec" in sample, network)
        self.assertEqual("diskReadBytesPerSec" in sample, disks)
        self.assertEqual("diskWriteBytesPerSec" in sample, disks)

    def test_a_counter_that_began_anew_leaves_out_one_sample(self) -> None:
        self.psutil.network["eth0"] = (1001, 99)
        self.assert_rates(self.sample(), False, True)
        self.psutil.network["eth0"] = (1051, 99)
        sample = self.sample()
        self.assertEqual((sample["netRxBytesPerSec"], sample["netTxBytesPerSec"]), (10, 0))
        self.assertEqual(self.sampler.failures, {})

    def test_also_where_another_device_makes_up_for_it(self) -> None:
        (self.sys / "block/sdb/device").mkdir(parents=True)
        self.psutil.io["sdb"] = (0, 0)
        self.sample()
        self.psutil.io.update(sda=(0, 100), sdb=(5000, 0))
        self.assert_rates(self.sample(), True, False)

    def test_a_device_that_came_or_went_leaves_out_one_sample(self) -> None:
        (self.sys / "class/net/eth1/device").mkdir(parents=True)
        self.psutil.network["eth1"] = (10**12, 0)
        self.assert_rates(self.sample(), False, True)
        self.assert_rates(self.sample(), True, True)
        del self.psutil.network["eth1"]
        self.assert_rates(self.sample(), False, True)

    def test_no_time_no_rate(self) -> None:
        self.assert_rates(self.sample(0), False, False)
        self.assert_rates(self.sample(), True, True)

    def test_a_container_has_no_hardware(self) -> None:
        self.sys = self.sys / "none"
        self.sampler = self.make()
        self.psutil.network["eth0"] = (2000, 100)
        self.psutil.network["lo"] = (10**12, 100)
        sample = self.sample()
        self.assertEqual(sample["netRxBytesPerSec"], 200)
        self.assert_rates(sample, True, False)

    def test_no_disk_statistics(self) -> None:
        self.psutil.io = None
        self.assert_rates(self.sample(), True, False)
        self.assertEqual(self.sampler.failures, {})

    def test_no_swap_is_not_empty_swap(self) -> None:
        self.psutil.swap = NS(total=0, used=0)
        self.assertNotIn("swapPercent", self.sample())
        self.assertEqual(self.sampler.failures, {})

    def test_a_file_system_that_fails_does_not_take_the_others_with_it(self) -> None:
        self.psutil.usage["/srv"] = OSError("stale")
        sample = self.sample()
        self.assertEqual([entry["mount"] for entry in sample["filesystems"]], ["/"])
        self.assertEqual(self.sampler.failures, {"filesystem /srv": 1})

    def test_mounts_are_listed_once_a_minute(self) -> None:
        for _ in range(13):
            self.sample()
        self.assertEqual(self.psutil.partition_reads, 2)

    def test_hidden_processes_are_not_counted(self) -> None:
        self.psutil.processes = [77]
        self.assertNotIn("processCount", self.sample())
        self.assertEqual(self.sampler.failures, {"processCount": 1})

    def test_every_reading_may_fail(self) -> None:
        names = ("memory", "usage", "load", "swap", "network", "io", "partitions", "processes")
        for name in names:
            setattr(self.psutil, name, RuntimeError("no"))
        self.assertEqual(self.sample(), {"uptimeSeconds": 1234})
        self.assertEqual(
            set(self.sampler.failures),
            {
                "memPercent",
                "diskUsage",
                "load",
                "swapPercent",
                "filesystems",
                "network",
                "disks",
                "processCount",
            },
        )


class RealTests(SynchronousTestCase):
    """The machine the tests run on."""

    def test_percentages(self) -> None:
        clock = Clock()
        sampler = MetricsSampler(clock, extended=True)
        before = psutil.cpu_times()
        while sum(psutil.cpu_times()) == sum(before):  # until the kernel has counted a tick
            pass
        clock.advance(5)
        sample = sampler.sample()
        for name in ("cpuPercent", "memPercent", "diskUsage"):
            self.assertTrue(0 <= sample[name] <= 100, sample)
        # The machine goes on meanwhile: near is enough.
        self.assertLess(abs(sample["memPercent"] - psutil.virtual_memory().percent), 5)
        self.assertLess(abs(sample["diskUsage"] - psutil.disk_usage("/").percent), 1)
        self.assertGreater(sample["uptimeSeconds"], 0)
        self.assertEqual(sampler.failures, {})
