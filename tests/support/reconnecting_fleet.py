"""Thousands of agents in one process, which come back to their hub as ours do.

    python -m tests.support.reconnecting_fleet PORT COUNT SECRET PER_SECOND

The agents' own `ReconnectPolicy` decides each wait, with its jitter and with what the hub asks for
in `Retry-After`; they give a dial up after ten seconds, as ours do. The first dials are spread over
COUNT / PER_SECOND seconds. An agent is back when the hub has answered a ping that followed its
`auth`: a hub that refuses the `auth` closes instead.

Prints a JSON object each time that all are there: ``{"event": "online", "seconds", "half",
"dials", "answers", "codes", "errors"}``: seconds since the first dial or the first loss, until all
and until half of them were there; how often was dialled meanwhile; and counts by HTTP status of
upgrades that were refused, by close code, and by error. Ends with its standard input.
"""

from __future__ import annotations

import errno
import heapq
import json
import select
import sys
import time
from collections import Counter, deque
from typing import Any

from jetcamer.agent.reconnect import MAX_DELAY, UNDISTURBED, ReconnectPolicy
from jetcamer.daemon.limits import raise_file_limit
from jetcamer.protocol.close_codes import TRY_AGAIN_LATER
from tests.support.line_process import LineProcess
from tests.support.load import Load, LoadAgent, LoadConnection
from tests.support.tools import ROOT

#: Seconds for TCP and upgrade together.
DIAL_DEADLINE = 10.0
#: Dials in a row before what has happened is looked at.
_BURST = 50


class FleetProcess(LineProcess[dict[str, Any]]):
    """The driver's side."""

    def __init__(self, reactor: Any, port: int, count: int, secret: str, per_second: float):
        super().__init__(reactor)
        self._arguments = [str(port), str(count), secret, str(per_second)]

    def parse(self, line: str) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(line)
        return event

    def start(self) -> FleetProcess:
        argv = [sys.executable, "-m", "tests.support.reconnecting_fleet", *self._arguments]
        self.spawn(argv, {"PYTHONPATH": str(ROOT)}, str(ROOT))
        return self

    async def online(self, *, since: int = 0, timeout: float) -> dict[str, Any]:
        """What it says once all are there."""
        return await self.wait_for(lambda _: True, since=since, timeout=timeout)


class Member:
    """One agent: its count of failures, and the connection it has or tries to have."""

    def __init__(self, agent: LoadAgent) -> None:
        self.agent = agent
        self.policy = ReconnectPolicy()
        self.opened_at = 0.0
        self.is_back = False


class Fleet:
    """All of them, and what has happened since they were last complete."""

    def __init__(self, load: Load, count: int, secret: str, per_second: float) -> None:
        self._load = load
        self._members = {
            name: Member(LoadAgent(name, secret))
            for name in (f"agent-{number:05d}" for number in range(count))
        }
        now = time.monotonic()
        self._due = [(now + number / per_second, name) for number, name in enumerate(self._members)]
        self._deadlines: deque[tuple[float, LoadConnection]] = deque()
        self._back = 0
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._began = now
        self._half = 0.0
        self._dials = 0
        self._answers: Counter[int] = Counter()
        self._codes: Counter[int] = Counter()
        self._errors: Counter[str] = Counter()

    def step(self) -> None:
        """Dial those whose wait is over, and let happen what can."""
        now = time.monotonic()
        for _ in range(_BURST):
            if not self._due or self._due[0][0] > now:
                break
            _, name = heapq.heappop(self._due)
            self._dials += 1
            connection = self._load.open(self._members[name].agent, self)
            self._deadlines.append((now + DIAL_DEADLINE, connection))
        while self._deadlines and self._deadlines[0][0] <= now:
            _, connection = self._deadlines.popleft()
            if not connection.is_open:
                connection.abort(OSError(errno.ETIMEDOUT, "no upgrade in time"))
        wait = self._due[0][0] - now if self._due else 1.0
        self._load.poll(min(wait, 0.05))

    # Events of the connections

    def opened(self, connection: LoadConnection) -> None:
        self._members[connection.agent.agent_id].opened_at = time.monotonic()
        connection.send(connection.agent.auth())
        connection.ping()

    def pong(self, connection: LoadConnection) -> None:
        member = self._members[connection.agent.agent_id]
        if member.is_back:
            return
        member.is_back = True
        self._back += 1
        if 2 * self._back >= len(self._members) and not self._half:
            self._half = time.monotonic() - self._began
        if self._back == len(self._members):
            self._report()

    def gone(self, connection: LoadConnection) -> None:
        now = time.monotonic()
        name = connection.agent.agent_id
        member = self._members[name]
        if member.is_back:
            if self._back == len(self._members):
                self._begin(now)
            member.is_back = False
            self._back -= 1
            if now - member.opened_at >= UNDISTURBED:
                member.policy.reset()
        answer = connection.answer
        if answer is not None and answer.status != 101:
            self._answers[answer.status] += 1
        elif connection.code is not None:
            self._codes[connection.code] += 1
        else:
            error = connection.error
            number = error.errno if error is not None else None
            self._errors[errno.errorcode.get(number or 0, str(error or "closed"))] += 1
        heapq.heappush(self._due, (now + member.policy.failed(_asked(connection)), name))

    def _report(self) -> None:
        print(
            json.dumps(
                {
                    "event": "online",
                    "seconds": round(time.monotonic() - self._began, 2),
                    "half": round(self._half, 2),
                    "dials": self._dials,
                    "answers": self._answers,
                    "codes": self._codes,
                    "errors": self._errors,
                }
            ),
            flush=True,
        )


def _asked(connection: LoadConnection) -> float | None:
    """How long the hub wants this one to stay away, as the agent's link reads it."""
    answer = connection.answer
    if answer is not None and answer.status in (429, 503):
        seconds = answer.headers.get("retry-after", "")
        return float(seconds) if seconds.isascii() and seconds.isdigit() else None
    if connection.code == TRY_AGAIN_LATER:
        words = connection.reason.strip()
        return float(words) if words.isascii() and words.isdigit() else MAX_DELAY
    return None


def main() -> None:
    port, count, secret, per_second = sys.argv[1:]
    raise_file_limit()
    load = Load(("127.0.0.1", int(port)))
    fleet = Fleet(load, int(count), secret, float(per_second))
    while not select.select([sys.stdin], [], [], 0)[0]:
        fleet.step()


if __name__ == "__main__":
    main()
