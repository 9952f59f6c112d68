"""What the machine is doing: the members of a ``metrics`` message.

In: psutil and a clock. Out: a flat dictionary of numbers, rounded to two decimals. A number is
never invented: a reading that fails, or makes no sense, is left out of that sample, logged when it
begins to fail, and counted. No reading blocks on the network or starts a process.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

log = Logger()

#: Seconds for which it is believed which file systems and devices there are.
_INVENTORY_AGE = 60.0

#: Never asked: those that can hang when a server is gone, and images that are always full.
#: psutil names only file systems on devices, so that NFS, SMB and FUSE are not even seen.
_SKIPPED_TYPES = frozenset({"squashfs", "iso9660", "udf", "erofs", "gfs2", "ocfs2", "lustre"})

_MAX_FILESYSTEMS = 32


class MetricsSampler:
    """Takes samples of the machine.

    :param clock: `IReactorTime`, for rates.
    :param extended: more than the three members that every agent sends.
    :param psutil: the module, or a stand-in for it.
    :param boot_clock: seconds since the machine was started.
    :param logs: the counts of the log lines; an extended sample has them as ``logs``.
    """

    def __init__(
        self,
        clock: IReactorTime,
        extended: bool = False,
        psutil: Any = psutil,
        *,
        sys_root: str = "/sys",
        boot_clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        logs: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._clock = clock
        self._extended = extended
        self._psutil = psutil
        self._boot_clock = boot_clock
        self._logs = logs
        self._failing: set[str] = set()
        #: How often each reading has failed.
        self.failures: Counter[str] = Counter()
        self._inventory = _Inventory(clock, psutil, sys_root)
        self._cpu = _CpuShare(psutil)
        self._network = _Rates(clock)
        self._disks = _Rates(clock)
        # What is measured since the last sample needs a first one.
        self._try("cpuPercent", self._cpu.percent)
        if extended:
            self._try("network", self._network_rates)
            self._try("disks", self._disk_rates)

    def sample(self) -> dict[str, Any]:
        """The payload of a ``metrics`` message, with those readings that succeeded."""
        found: dict[str, Any] = {}
        readings: tuple[tuple[str, Callable[[], dict[str, Any] | None]], ...] = (
            ("cpuPercent", self._cpu.percent),
            ("memPercent", self._memory),
            ("diskUsage", self._root),
        )
        if self._extended:
            readings += (
                ("load", self._load),
                ("swapPercent", self._swap),
                ("filesystems", self._filesystems),
                ("network", self._network_rates),
                ("disks", self._disk_rates),
                ("uptimeSeconds", lambda: {"uptimeSeconds": int(self._boot_clock())}),
                ("processCount", self._processes),
                ("logs", self._log_lines),
            )
        for name, reading in readings:
            found.update(self._try(name, reading))
        return found

    def _try(self, name: str, reading: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
        try:
            found = reading()
        except Exception as error:
            self.failures[name] += 1
            if name not in self._failing:
                self._failing.add(name)
                log.warn(
                    "metrics: no {name}: {kind}: {words}",
                    name=name,
                    kind=type(error).__name__,
                    words=str(error),
                )
            return {}
        if name in self._failing:
            self._failing.discard(name)
            log.info("metrics: {name} can be read again", name=name)
        return found or {}

    def _log_lines(self) -> dict[str, Any] | None:
        counts = self._logs()
        return {"logs": counts} if counts else None

    def _memory(self) -> dict[str, Any]:
        memory = self._psutil.virtual_memory()
        return {"memPercent": _percent(memory.total - memory.available, memory.total)}

    def _root(self) -> dict[str, Any]:
        return {"diskUsage": _used(self._psutil.disk_usage("/"))}

    def _load(self) -> dict[str, Any]:
        averages = (_amount(value) for value in self._psutil.getloadavg())
        return dict(zip(("load1", "load5", "load15"), averages, strict=True))

    def _swap(self) -> dict[str, Any] | None:
        swap = self._psutil.swap_memory()
        # Without swap there is nothing to be full or empty.
        return {"swapPercent": _percent(swap.used, swap.total)} if swap.total else None

    def _filesystems(self) -> dict[str, Any]:
        found = []
        for mount in self._inventory.mounts():
            usage = self._try(f"filesystem {mount}", partial(self._filesystem, mount))
            if usage:
                found.append(usage)
        return {"filesystems": found}

    def _filesystem(self, mount: str) -> dict[str, Any]:
        usage = self._psutil.disk_usage(mount)
        return {
            "mount": mount,
            "percent": _used(usage),
            "totalBytes": usage.total,
            "availableBytes": usage.free,
        }

    def _processes(self) -> dict[str, Any]:
        pids = self._psutil.pids()
        if 1 not in pids:
            raise PermissionError("the processes of others are hidden (hidepid, ProtectProc)")
        return {"processCount": len(pids)}

    def _network_rates(self) -> dict[str, Any] | None:
        counters = self._psutil.net_io_counters(pernic=True, nowrap=False)
        rates = self._network.since_last(
            {
                nic: (counters[nic].bytes_recv, counters[nic].bytes_sent)
                for nic in self._inventory.nics(counters)
            }
        )
        return rates and {"netRxBytesPerSec": rates[0], "netTxBytesPerSec": rates[1]}

    def _disk_rates(self) -> dict[str, Any] | None:
        counters = self._psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
        rates = self._disks.since_last(
            {
                disk: (counters[disk].read_bytes, counters[disk].write_bytes)
                for disk in self._inventory.disks(counters)
            }
        )
        return rates and {"diskReadBytesPerSec": rates[0], "diskWriteBytesPerSec": rates[1]}


class _CpuShare:
    """The part of all processors' time that was not idle, since it was asked before."""

    def __init__(self, psutil: Any) -> None:
        self._psutil = psutil
        self._last: Any = None

    def percent(self) -> dict[str, Any] | None:
        """None the first time, and when no time has been counted since."""
        now = self._psutil.cpu_times()
        for seconds in now:
            _amount(seconds)
        last, self._last = self._last, now
        if last is None:
            return None
        # A counter may go back a little (iowait does): that is no time.
        spent = {name: max(0.0, getattr(now, name) - getattr(last, name)) for name in now._fields}
        # The kernel counts what guests use as user and nice already.
        total = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
        idle = spent["idle"] + spent.get("iowait", 0.0)
        if total == 0:
            return None
        return {"cpuPercent": _percent(total - idle, total)}


class _Rates:
    """How fast pairs of counters, summed over devices, have grown."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._last: tuple[float, dict[str, tuple[int, int]]] | None = None

    def since_last(self, counters: dict[str, tuple[int, int]]) -> tuple[float, float] | None:
        """Bytes a second. None when a device came or went, or a counter began anew."""
        now = self._clock.seconds()
        last, self._last = self._last, (now, counters)
        if last is None or not counters or counters.keys() != last[1].keys() or now <= last[0]:
            return None
        grown = [
            (first - last[1][name][0], second - last[1][name][1])
            for name, (first, second) in counters.items()
        ]
        if any(first < 0 or second < 0 for first, second in grown):
            return None
        elapsed = now - last[0]
        return (
            _amount(sum(first for first, _ in grown) / elapsed),
            _amount(sum(second for _, second in grown) / elapsed),
        )


class _Inventory:
    """Which file systems and devices are real; looked at once a minute."""

    def __init__(self, clock: IReactorTime, psutil: Any, sys_root: str) -> None:
        self._clock = clock
        self._psutil = psutil
        self._sys_root = sys_root
        self._mounts: list[str] = []
        self._mounts_looked: float | None = None
        self._hardware: dict[str, bool] = {}
        self._hardware_looked: float | None = None

    def mounts(self) -> list[str]:
        """Where the file systems on devices are mounted, each device once."""
        now = self._clock.seconds()
        if self._mounts_looked is None or now - self._mounts_looked >= _INVENTORY_AGE:
            devices: dict[str, str] = {}
            for partition in self._psutil.disk_partitions(all=False):
                if partition.fstype in _SKIPPED_TYPES or partition.fstype.startswith("fuse."):
                    continue
                known = devices.setdefault(partition.device, partition.mountpoint)
                if len(partition.mountpoint) < len(known):  # the others are bind mounts
                    devices[partition.device] = partition.mountpoint
            self._mounts = sorted(devices.values())[:_MAX_FILESYSTEMS]
            self._mounts_looked = now
        return self._mounts

    def nics(self, names: Any) -> list[str]:
        """The network hardware, so that bridges and tunnels do not count a byte twice.

        Where there is none, as in a container: all interfaces but the loopback.
        """
        real = [name for name in names if self._is_hardware("class/net", name)]
        return real or [name for name in names if name != "lo"]

    def disks(self, names: Any) -> list[str]:
        """The disks, without their partitions and what is made of them (RAID, LVM, loops)."""
        return [name for name in names if self._is_hardware("block", name)]

    def _is_hardware(self, kind: str, name: str) -> bool:
        now = self._clock.seconds()
        if self._hardware_looked is None or now - self._hardware_looked >= _INVENTORY_AGE:
            self._hardware.clear()
            self._hardware_looked = now
        path = f"{self._sys_root}/{kind}/{name}/device"
        known = self._hardware.get(path)
        if known is None:
            known = self._hardware[path] = os.path.exists(path)
        return known


def _used(usage: Any) -> float:
    """As ``df`` counts: of what users may have, without the part kept for root."""
    return _percent(usage.used, usage.used + usage.free)


def _percent(part: float, whole: float) -> float:
    """:raises ValueError: not from 0 to 100; :raises ZeroDivisionError: `whole` is 0."""
    percent = round(100 * part / whole, 2)
    if not 0 <= percent <= 100:  # not a number neither
        raise ValueError(f"{part} of {whole} is no percentage")
    return percent


def _amount(value: float) -> float:
    """:raises ValueError: negative, infinite or not a number."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{value} is no amount")
    return round(value, 2)
