"""What following log files costs: CPU for each line, at rest, and memory when nobody takes them.

Our agent, whole and connected over TLS, follows the same files as Debian's rsyslog (imfile with
inotify, to a file), in the same run. Needs Linux, rsyslogd, and the extra `s3`.

    python benchmarks/log_tail.py [--mib 1024] [--seconds 60] [--quick] [--json] [--shape NAME …]

catching up   a file of so many MiB of access-log lines is moved into the folder. Each tailer alone.
steady        1,000 lines a second are appended, ten at a time. All tailers at the same time.
at rest       100 files that nobody writes. All tailers at the same time.
memory        so many MiB are appended at 64 MiB/s while S3 takes 1 MB/s and the server is frozen.

rsyslog copies lines to a file, and is done when all are there; "to JSON" it takes them apart first
(mmnormalize), as our archive does. `live` sends at most 200 lines a second, parsed, and counts the
rest; it is done when each line is sent or counted. `archive` parses every line and uploads all of
them, to a sink that answers at once; it is done when S3 has confirmed each. CPU is exact run time
of all threads, from the moment the file is there; the wall clock runs from the moment it is opened.
What the agent does besides, metrics every 5 s, is part of its figures.
"""

from __future__ import annotations

import argparse
import compileall
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.task import react  # noqa: E402

from benchmarks.processes import (  # noqa: E402
    cpu,
    forget_peak,
    has_open,
    memory,
    pause,
    peak_memory,
)
from benchmarks.tailers import Agent, Rsyslog, Tailer  # noqa: E402
from tests.support.access_log import LogWriter, blocks, lines  # noqa: E402

MIB = 1 << 20

#: What memory may grow by, whatever waits, in MB: the issue's bound for all files together.
BOUND = 8.0

SHAPES = ("catching up", "steady", "at rest", "memory")
Row = dict[str, Any]

T = TypeVar("T", bound=Tailer)


class Bench:
    """:param settle: seconds after which what is done once at the start is over."""

    def __init__(self, folder: Path, *, mib: int, seconds: float, settle: float) -> None:
        self.folder = folder
        self.mib = mib
        self.seconds = seconds
        self.settle = settle
        self._count = 0
        self._tailers: list[Tailer] = []
        self._writer: LogWriter | None = None
        self._pool = folder / "pool"
        self._pool.write_bytes(b"".join(lines(80_000)))
        for package in ("jetcamer", "twisted"):
            compileall.compile_dir(ROOT / package, quiet=2)  # as pip does when it installs

    def place(self) -> Path:
        self._count += 1
        return self.folder / str(self._count)

    def logs(self) -> Path:
        logs = self.place()
        logs.mkdir()
        return logs

    def live(self) -> Agent:
        return self._made(Agent(self.place(), "JetCamer live", 0))

    def archive(self, batch: int = 500, **options: float) -> Agent:
        label = f"JetCamer live + archive of {batch:,}"
        return self._made(Agent(self.place(), label, batch, **options))

    def rsyslog(self, *, parsing: bool = False) -> Rsyslog:
        return self._made(Rsyslog(self.place(), parsing=parsing))

    def _made(self, tailer: T) -> T:
        self._tailers.append(tailer)
        return tailer

    async def write(self, path: Path, *, count: int, interval: float, seconds: float) -> int:
        """Append `count` lines each `interval`; how many lines it was."""
        self._writer = LogWriter(
            reactor, path, self._pool, count=count, interval=interval, seconds=seconds
        )
        await self._writer.start()
        return await self._writer.written(60 + 2 * seconds)

    async def stop(self) -> None:
        """End whatever still runs."""
        for each in (self._writer, *self._tailers):
            if each is not None:
                await each.stop()

    async def until_taken(self, tailer: Tailer, count: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not await tailer.has_taken(count):
            if time.monotonic() > deadline:
                await tailer.check(count)
            await pause(0.25)

    # The shapes

    async def catching_up(self) -> list[Row]:
        file = self.folder / "gathered"
        count = 0
        with file.open("wb") as writing:
            for text, more in blocks(self.mib * MIB):
                writing.write(text)
                count += more
        makers: list[Callable[[], Tailer]] = [
            self.rsyslog,
            lambda: self.rsyslog(parsing=True),
            self.live,
            lambda: self.archive(500, flush=1),
            lambda: self.archive(5000, flush=1),
        ]
        rows = []
        for make in makers:
            tailer, logs = make(), self.logs()
            await tailer.start(logs)
            await pause(self.settle)
            rows.append(await self._catch_up(tailer, file, logs / "access.log", count))
            await tailer.stop()
        file.unlink()
        return rows

    async def _catch_up(self, tailer: Tailer, file: Path, place: Path, count: int) -> Row:
        before = cpu(tailer.pid)
        file.rename(place)
        while not has_open(tailer.pid, place):  # it looks for new files now and then
            await pause(0.02)
        began = time.monotonic()
        await self.until_taken(tailer, count, 120 + self.mib)
        seconds = time.monotonic() - began
        used = cpu(tailer.pid) - before
        peak = peak_memory(tailer.pid)
        await tailer.check(count)
        place.rename(file)
        return row("catching up", tailer, count, seconds, used, peak)

    async def steady(self) -> list[Row]:
        logs = self.logs()
        path = logs / "access.log"
        path.touch()
        tailers = [self.rsyslog(), self.live(), self.archive()]
        await self._start(tailers, logs)
        first = await self._warm_up(tailers, path)
        before = [cpu(tailer.pid) for tailer in tailers]
        began = time.monotonic()
        count = await self.write(path, count=10, interval=0.01, seconds=self.seconds)
        seconds = time.monotonic() - began
        used = [cpu(tailer.pid) - then for tailer, then in zip(tailers, before, strict=True)]
        rows = []
        for tailer, spent in zip(tailers, used, strict=True):
            await self.until_taken(tailer, first + count, 60)
            await tailer.check(first + count)
            peak = peak_memory(tailer.pid)
            rows.append(row("steady", tailer, count, seconds, spent, peak))
            await tailer.stop()
        return rows

    async def at_rest(self) -> list[Row]:
        logs = self.logs()
        text = b"".join(lines(1000))
        for number in range(100):
            (logs / f"{number}.log").write_bytes(b"# %d\n" % number + text)
        tailers = [self.rsyslog(), self.live(), self.archive()]
        await self._start(tailers, logs)
        without = self.live()
        without.label = "JetCamer, no such files"
        await self._start([without], self.logs())
        tailers.append(without)
        before = [cpu(tailer.pid) for tailer in tailers]
        began = time.monotonic()
        await pause(self.seconds)
        seconds = time.monotonic() - began
        rows = [
            row("at rest", tailer, 0, seconds, cpu(tailer.pid) - then, peak_memory(tailer.pid))
            for tailer, then in zip(tailers, before, strict=True)
        ]
        for tailer in tailers:
            await tailer.stop()
        return rows

    async def memory(self) -> list[Row]:
        return [await self._flood(batch) for batch in (500, 5000)]

    async def _flood(self, batch: int) -> Row:
        logs = self.logs()
        path = logs / "access.log"
        path.touch()
        agent = self.archive(batch, slow=1e6, flush=1)
        await self._start([agent], logs)
        await self._warm_up([agent], path)
        agent.hub.signal("STOP")
        forget_peak(agent.pid)
        resting, used = memory(agent.pid)[0], cpu(agent.pid)
        began = time.monotonic()
        count = await self.write(path, count=35_000, interval=0.1, seconds=self.mib / 64)
        await pause(self.seconds / 2)
        totals = (await agent.logs())["totals"]
        if totals["archived"] > count / 2:
            raise SystemExit(f"{agent.label}: the sink was not slow: {totals}")
        used, seconds = cpu(agent.pid) - used, time.monotonic() - began
        found = row("memory", agent, 0, seconds, used, peak_memory(agent.pid))
        found |= {"lines": count, "MB before": resting, "grown by MB": found["max MB"] - resting}
        await agent.stop()
        return found

    async def _warm_up(self, tailers: Sequence[Tailer], path: Path) -> int:
        """Let them take some lines: what they import then is neither for each line nor a buffer."""
        count = await self.write(path, count=200, interval=0.1, seconds=1)
        for tailer in tailers:
            await self.until_taken(tailer, count, 60)
        return count

    async def _start(self, tailers: Sequence[Tailer], logs: Path) -> None:
        for tailer in tailers:
            await tailer.start(logs)
        await pause(self.settle)


def row(shape: str, tailer: Tailer, count: int, seconds: float, used: float, peak: float) -> Row:
    found = {"shape": shape, "tailer": tailer.label, "wall s": seconds, "CPU s": used}
    if count:
        found |= {"lines": count, "lines/s": count / seconds, "lines/CPU s": count / used}
    return found | {"CPU s/min": used / seconds * 60, "max MB": peak}


def relate(rows: list[Row]) -> None:
    """Say of each how its lines/CPU s are to those of rsyslog in the same shape."""
    base = {row["shape"]: row for row in rows if row["tailer"] == "rsyslog"}
    for each in rows:
        other = base.get(each["shape"], {})
        if "lines/CPU s" in each and "lines/CPU s" in other:
            each["of rsyslog"] = each["lines/CPU s"] / other["lines/CPU s"]


def show(rows: list[Row]) -> None:
    digits = {
        "lines": 0,
        "wall s": 1,
        "lines/s": 0,
        "CPU s": 3,
        "lines/CPU s": 0,
        "of rsyslog": 2,
        "CPU s/min": 3,
        "MB before": 1,
        "max MB": 1,
    }
    print("\n| shape | tailer | " + " | ".join(digits) + " |")
    print("|" + " --- |" * (len(digits) + 2))
    for each in rows:
        cells = [f"{each[name]:,.{d}f}" if name in each else "–" for name, d in digits.items()]
        print("| " + " | ".join([each["shape"], each["tailer"], *cells]) + " |")
    print("\nof rsyslog: lines for each second of CPU, beside rsyslog's in the same shape")
    for each in rows:
        if "grown by MB" in each:
            verdict = "ok" if each["grown by MB"] <= BOUND else "OVER"
            grown = f"{each['grown by MB']:.1f} {verdict}"
            print(f"required: at most {BOUND:g} MB more: {each['tailer']}: {grown}")


async def measure(bench: Bench, wanted: Sequence[str]) -> list[Row]:
    shapes = (bench.catching_up, bench.steady, bench.at_rest, bench.memory)
    rows: list[Row] = []
    for shape, run in zip(SHAPES, shapes, strict=True):
        if shape in wanted:
            rows += await run()
            print(f"measured: {shape}", file=sys.stderr)
    relate(rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, help="of the large file; default 1024")
    parser.add_argument("--seconds", type=float, help="of steady writing and of rest; default 60")
    parser.add_argument("--quick", action="store_true", help="64 MiB and 10 s")
    parser.add_argument("--shape", choices=SHAPES, nargs="+", default=SHAPES)
    parser.add_argument(
        "--folder", help="where the files are made, on a disk; default: as tempfile"
    )
    parser.add_argument("--json", action="store_true", help="the rows, for a program")
    options = parser.parse_args()
    options.mib = options.mib or (64 if options.quick else 1024)
    options.seconds = options.seconds or (10 if options.quick else 60)
    if shutil.which("rsyslogd") is None:
        raise SystemExit("rsyslogd is missing: apt-get install --no-install-recommends rsyslog")

    async def run(_: object) -> None:
        bench = Bench(
            Path(name).resolve(),
            mib=options.mib,
            seconds=options.seconds,
            settle=6 if options.quick else 12,
        )
        # Also at an error, or Ctrl-C.
        reactor.addSystemEventTrigger(
            "before", "shutdown", lambda: Deferred.fromCoroutine(bench.stop())
        )
        rows = await measure(bench, options.shape)
        if options.json:
            print(json.dumps(rows))
        else:
            show(rows)

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        react(run)


if __name__ == "__main__":
    main()
