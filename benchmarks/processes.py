"""What a running process costs, read from Linux: memory, exact CPU time, threads, children."""

from __future__ import annotations

import os
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

ROOT = Path(__file__).resolve().parents[1]


def unit_environment() -> dict[str, str]:
    """The variables that the shipped systemd unit sets: the agent as it is installed."""
    found = {}
    for line in (ROOT / "etc" / "jetcamer-agent.service").read_text("utf-8").splitlines():
        if line.startswith("Environment="):
            for word in line.removeprefix("Environment=").split():
                name, _, value = word.strip('"').partition("=")
                found[name] = value
    return found


def memory(pid: int) -> tuple[float, float]:
    """Resident and proportional set, in MB."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        sizes[name] = int(value.split()[0]) / 1024
    return sizes["Rss"], sizes["Pss"]


def peak_memory(pid: int) -> float:
    """The largest resident set since the start or `forget_peak`, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} is gone")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu(pid: int) -> float:
    """Seconds that the process, its threads, also ended ones, and its ended children have run."""
    own = time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid(3) makes of a pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return own + (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def children(pid: int) -> int:
    return sum(
        len(Path(task, "children").read_text().split())
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def has_open(pid: int, path: Path) -> bool:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if entry.readlink() == path:
                return True
        except FileNotFoundError:
            pass  # closed meanwhile
    return False


def pause(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)
