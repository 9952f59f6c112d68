"""Access-log lines in quantity, and a process that appends them to a file at a steady pace.

    python -m tests.support.access_log PATH LINES COUNT INTERVAL SECONDS

appends to PATH, each INTERVAL seconds and for SECONDS, the next COUNT lines of the file LINES, from
its beginning again after its end, in one write. Prints one JSON object a line:
``{"event": "writing"}``, and at the end ``{"event": "written", "lines"}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.support.line_process import LineProcess
from tests.support.tools import ROOT

AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:131.0) Gecko/20100101 Firefox/131.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like"
    " Gecko) Version/18.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.5.0",
    "python-requests/2.32.3",
    "-",
]
PAGES = ["/", "/index.html", "/login", "/account/orders", "/static/app.css", "/static/app.js"]
STATUSES = [200] * 30 + [301, 302, 304, 304, 400, 403, 404, 404, 500, 502]

#: The hour in which `lines` are written; `later` moves them.
HOUR = b"[23/Nov/2026:05:"


def lines(count: int, seed: int = 1) -> list[bytes]:
    """Lines in the combined format with their ends, of one hour and in order of time."""
    random = Random(seed)
    made = []
    for number in range(count):
        minute, second = divmod(number * 3600 // count, 60)
        page = random.choice(PAGES)
        if random.random() < 0.6:
            page = f"/articles/{random.randrange(10**6)}?page={random.randrange(40)}&sort=date"
        method = "POST" if random.random() < 0.1 else "GET"
        referer = "-"
        if random.random() < 0.7:
            referer = f"https://www.example.com/{random.choice(('search?q=', 'tags/'))}"
            referer += f"{random.randrange(10**5)}"
        made.append(
            f"{random.randrange(1, 224)}.{random.randrange(256)}.{random.randrange(256)}"
            f".{random.randrange(256)} - - [23/Nov/2026:05:{minute:02}:{second:02} +0000]"
            f' "{method} {page} HTTP/1.1" {random.choice(STATUSES)} {random.randrange(99999)}'
            f' "{referer}" "{random.choice(AGENTS)}"\n'.encode()
        )
    return made


def later(hour: bytes, number: int) -> bytes:
    """The same lines `number` hours later, up to a year."""
    day, of_day = divmod(number, 24)
    month, of_month = divmod(day, 28)
    name = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()[month % 12]
    return hour.replace(HOUR, b"[%02d/%s/2027:%02d:" % (of_month + 1, name, of_day))


def blocks(size: int, *, hour: int = 80_000) -> Iterator[tuple[bytes, int]]:
    """Lines of about `size` bytes together, in blocks with the number of their lines."""
    first = lines(hour)
    text = b"".join(first)
    for number in range(size // len(text)):
        yield later(text, number), hour
    rest = size % len(text)
    end = text.rfind(b"\n", 0, rest) + 1
    yield later(text[:end], size // len(text)), text.count(b"\n", 0, end)


class LogWriter(LineProcess[dict[str, Any]]):
    """The driver's side."""

    def __init__(
        self, reactor: Any, path: Path, source: Path, *, count: int, interval: float, seconds: float
    ) -> None:
        """:param source: the file whose lines are written, `count` of them each `interval`."""
        super().__init__(reactor)
        self._arguments = [str(path), str(source), str(count), str(interval), str(seconds)]

    def parse(self, line: str) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(line)
        return event

    async def start(self) -> LogWriter:
        """Returns when it begins to write."""
        argv = [sys.executable, "-m", "tests.support.access_log", *self._arguments]
        self.spawn(argv, {"PYTHONPATH": str(ROOT)}, str(ROOT))
        await self.wait_for(lambda event: event["event"] == "writing")
        return self

    async def written(self, timeout: float) -> int:
        """The number of lines, when all are written."""
        done = await self.wait_for(lambda event: event["event"] == "written", timeout=timeout)
        return int(done["lines"])


def main() -> None:
    path, source, *numbers = sys.argv[1:]
    count, interval, seconds = int(numbers[0]), float(numbers[1]), float(numbers[2])
    pool = Path(source).read_bytes().splitlines(keepends=True)
    pieces = [b"".join(pool[at : at + count]) for at in range(0, len(pool) - count + 1, count)]
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    print(json.dumps({"event": "writing"}), flush=True)
    began = time.monotonic()
    ticks = round(seconds / interval)
    for tick in range(ticks):
        wait = began + tick * interval - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        os.write(file, pieces[tick % len(pieces)])
    print(json.dumps({"event": "written", "lines": ticks * count}), flush=True)


if __name__ == "__main__":
    main()
