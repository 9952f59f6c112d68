"""What writes to a server in a benchmark: agents' connections in a process of their own.

    python -m benchmarks.load HOST PORT [CA.pem]

Messages are signed and masked before they are sent, and no message is sent on a connection whose
last one the server may not have read: a round writes once on each connection, and the next begins
when a ping on the last one was answered. It obeys JSON lines (`LoadProcess` says which) and
answers each with one.
"""

from __future__ import annotations

import json
import select
import ssl
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

from jetcamer.daemon.limits import raise_file_limit  # noqa: E402
from tests.support.line_process import LineProcess  # noqa: E402
from tests.support.load import Load, LoadAgent, LoadConnection  # noqa: E402

#: Upgrades under way at once, so that no server's backlog or deadline is what is measured.
AT_ONCE = 64
#: Seconds that a server may take for anything. Then the run has failed.
DEADLINE = 60.0


def agent_id(number: int) -> str:
    return f"agent-{number:05d}"


def secrets(count: int) -> dict[str, str]:
    """Each agent has its own."""
    return {agent_id(number): f"the secret of agent {number}" for number in range(count)}


class LoadProcess(LineProcess[dict[str, Any]]):
    """The driver's side. Every method waits for the answer; any failure there ends the run."""

    def __init__(self, reactor: Any, port: int, ca: str | None = None) -> None:
        super().__init__(reactor)
        self._arguments = ["127.0.0.1", str(port), *([ca] if ca else [])]

    def parse(self, line: str) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(line)
        return event

    def start(self) -> LoadProcess:
        argv = [sys.executable, "-m", "benchmarks.load", *self._arguments]
        self.spawn(argv, {"PYTHONPATH": str(ROOT)}, str(ROOT))
        return self

    async def connect(self, first: int, count: int, per_second: float) -> dict[str, Any]:
        """Open and authenticate connections of agents `first` and following."""
        return await self._ask("connect", first=first, count=count, per_second=per_second)

    async def prepare(self, connections: int, rounds: int, batch: int) -> dict[str, Any]:
        """Sign what `run` is to send: a write of `batch` messages on each connection a round."""
        return await self._ask("prepare", connections=connections, rounds=rounds, batch=batch)

    async def run(self) -> dict[str, Any]:
        """Send it; back once the server has read it all: `messages`, `seconds`."""
        return await self._ask("run")

    async def close(self) -> dict[str, Any]:
        """Drop all connections."""
        return await self._ask("close")

    async def _ask(self, action: str, **members: Any) -> dict[str, Any]:
        before = len(self.events)
        self.write_line(json.dumps({"do": action, **members}))
        return await self.wait_for(lambda _: True, since=before, timeout=10 * DEADLINE)


class Generator:
    """The child's side. Each public method is an action, and returns its answer."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self._agents: dict[int, LoadAgent] = {}
        self._connections: list[LoadConnection] = []
        self._rounds: list[list[bytes]] = []
        self._pongs = 0
        self._opening = 0
        self._late: list[LoadAgent] = []
        self._closing = False
        self._turned_away = 0

    # Events of the connections

    def opened(self, connection: LoadConnection) -> None:
        self._opening -= 1
        self._connections.append(connection)
        connection.send(connection.agent.auth())

    def pong(self, connection: LoadConnection) -> None:
        self._pongs += 1

    def gone(self, connection: LoadConnection) -> None:
        answer = connection.answer
        if answer is not None and answer.status == 503:
            self._opening -= 1
            self._turned_away += 1
            self._late.append(connection.agent)
        elif not self._closing:
            status = answer.status if answer is not None else "none"
            raise SystemExit(
                f"{connection.agent.agent_id} was disconnected: answer {status}, code"
                f" {connection.code} {connection.reason}, error {connection.error}"
            )

    # Actions

    def connect(self, first: int, count: int, per_second: float) -> dict[str, Any]:
        waiting = [self._agent(number) for number in range(first + count - 1, first - 1, -1)]
        wanted = len(self._connections) + count
        began = time.monotonic()
        dialled = self._turned_away = 0
        while len(self._connections) < wanted:
            waiting += self._late
            self._late = []
            due = (time.monotonic() - began) * per_second
            while waiting and self._opening < AT_ONCE and dialled < due:
                self.load.open(waiting.pop(), self)
                self._opening += 1
                dialled += 1
            self.load.poll(0.002)
            self._check_deadline(began + count / per_second)
        self._barrier()
        return {"seconds": time.monotonic() - began, "turned_away": self._turned_away}

    def prepare(self, connections: int, rounds: int, batch: int) -> dict[str, Any]:
        chosen = self._connections[:connections]
        self._rounds = [
            [
                b"".join(each.agent.metrics(turn + number) for number in range(batch))
                for each in chosen
            ]
            for turn in range(rounds)
        ]
        return {"messages": connections * rounds * batch}

    def run(self) -> dict[str, Any]:
        began, used = time.monotonic(), time.process_time()
        for parts in self._rounds:
            connection = None
            for connection, data in zip(self._connections, parts, strict=False):
                connection.send(data)
            self._barrier(connection)
        self._rounds = []
        return {"seconds": time.monotonic() - began, "cpu": time.process_time() - used}

    def close(self) -> dict[str, Any]:
        self._closing = True
        for connection in self._connections:
            connection.abort()
        self._connections = []
        self._closing = False
        return {}

    def _agent(self, number: int) -> LoadAgent:
        found = self._agents.get(number)
        if found is None:
            name = agent_id(number)
            found = self._agents[number] = LoadAgent(name, f"the secret of agent {number}")
        return found

    def _barrier(self, connection: LoadConnection | None = None) -> None:
        """Until the server has read what was written before on this connection, the last one."""
        (connection or self._connections[-1]).ping()
        before, began = self._pongs, time.monotonic()
        while self._pongs == before:
            self.load.poll(0.1)
            self._check_deadline(began)

    def _check_deadline(self, began: float) -> None:
        if time.monotonic() - began > DEADLINE:
            raise SystemExit(f"the server did not do it within {DEADLINE:g} s")


def main() -> None:
    host, port, *authority = sys.argv[1:]
    raise_file_limit()
    context = ssl.create_default_context(cafile=authority[0]) if authority else None
    generator = Generator(Load((host, int(port)), context))
    while True:
        generator.load.poll(0.02)
        if select.select([sys.stdin], [], [], 0)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            action = json.loads(line)
            name = action.pop("do")
            answer = getattr(generator, name)(**action)
            print(json.dumps({"done": name, **answer}), flush=True)


if __name__ == "__main__":
    main()
