"""What an agent costs the machine it runs on: memory, CPU, threads, children, time to `auth`.

Our agent and a minimal Node agent are connected over TLS to the same server, a Node process, in the
same run. Needs Linux, Node, and the packages of tests/support/node (``make node-peers``).

    python benchmarks/agent_footprint.py [--seconds 100] [--starts 5]

Memory is the resident set in MB of 2^20 bytes, as `ps` and `top` divide it, and the proportional
set beside it, in which a page that others share counts in part. CPU is exact run time of all
threads and children, not clock ticks. The agent runs as it is installed: its bytecode
compiled, with the environment of the shipped unit.
"""

from __future__ import annotations

import argparse
import compileall
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from twisted.internet import reactor  # noqa: E402
from twisted.internet.task import react  # noqa: E402

from benchmarks.processes import (  # noqa: E402
    children,
    cpu,
    memory,
    pause,
    threads,
    unit_environment,
)
from tests.support.certs import TestCA  # noqa: E402
from tests.support.node_peer import NodeAgent, NodePeer  # noqa: E402
from tests.support.twistd import TwistdAgent, http  # noqa: E402

SECRET = "the secret of a benchmark"

#: What the issue asks of our agent.
REQUIRED = {"CPU s/min": 0.03, "memory MB": 56.0, "threads": 1, "children": 0, "start s": 1.0}


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = TestCA(folder)
        self.ca = authority.path_cert
        certificate = authority.issue(ips=["127.0.0.1"])
        self.server = NodePeer(
            reactor,
            {"jetcamer": SECRET, "node": SECRET},
            tls=(certificate.path_key, certificate.path_cert),
        )
        self.count = 0
        for package in ("jetcamer", "twisted"):
            compileall.compile_dir(ROOT / package, quiet=2)  # as pip does when it installs

    def jetcamer(self, **environ: str) -> TwistdAgent:
        self.count += 1
        return TwistdAgent(
            reactor,
            self.folder / str(self.count),
            {
                "wsApiUrl": self.server.url,
                "wsSecret": SECRET,
                "wsCaFile": str(self.ca),
                "instanceId": "jetcamer",
            },
            **environ,
        )

    def node(self) -> NodeAgent:
        return NodeAgent(reactor, self.server.url, "node", SECRET, ca=self.ca)

    async def start(self, agent: Any, agent_id: str) -> float:
        """Seconds from the spawn until the server has the `auth` message."""
        before = len(self.server.events)
        started = time.monotonic()
        begun = agent.start()
        if not isinstance(agent, TwistdAgent):
            await begun
        await self.server.wait_for_event("message", type="auth", agentId=agent_id, since=before)
        return time.monotonic() - started

    async def median_start(self, make: Any, agent_id: str, times: int) -> float:
        taken = []
        for _ in range(times):
            agent = make()
            taken.append(await self.start(agent, agent_id))
            await agent.stop()
        return statistics.median(taken)

    async def exercise(self, agent: TwistdAgent) -> None:
        """Use what rarely is: the local interface, and each kind of command."""
        port = await agent.web_port()
        for _ in range(3):
            for path in ("/internal/ws-status", "/health", "/version"):
                await http(reactor, port, "GET", path)
        for command in ("ping", "get_status", "run_health_check"):
            await self.server.ask("jetcamer", command)


async def measure(seconds: float, starts: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        await bench.server.start()
        unit = unit_environment()
        makers = {
            "JetCamer": ("jetcamer", lambda: bench.jetcamer(**unit)),
            "Node ws": ("node", bench.node),
        }
        rows = {
            label: {"agent": label, "start s": await bench.median_start(make, agent_id, starts)}
            for label, (agent_id, make) in makers.items()
        }
        running = {label: make() for label, (_, make) in makers.items()}
        for label, agent in running.items():
            await bench.start(agent, makers[label][0])
        await pause(8)  # the first metrics, and what is done only once
        before = {label: cpu(agent.pid) for label, agent in running.items()}
        began = time.monotonic()
        samples: dict[str, list[tuple[float, float, int, int]]] = {label: [] for label in running}
        while time.monotonic() - began < seconds:
            await pause(2.5)
            for label, agent in running.items():
                pid = agent.pid
                samples[label].append((*memory(pid), threads(pid), children(pid)))
        minutes = (time.monotonic() - began) / 60
        for label, agent in running.items():
            resident, proportional, tasks, kids = zip(*samples[label], strict=True)
            rows[label] |= {
                "CPU s/min": (cpu(agent.pid) - before[label]) / minutes,
                "memory MB": max(resident),
                "PSS MB": max(proportional),
                "threads": max(tasks),
                "children": max(kids),
            }
        ours = running["JetCamer"]
        assert isinstance(ours, TwistdAgent)
        await bench.exercise(ours)
        await pause(1)
        rows["JetCamer"]["all used MB"] = memory(ours.pid)[0]
        for agent in (*running.values(), bench.server):
            await agent.stop()
        return list(rows.values())


def show(rows: list[dict[str, Any]], seconds: float) -> None:
    names = [
        "agent",
        "memory MB",
        "all used MB",
        "PSS MB",
        "CPU s/min",
        "threads",
        "children",
        "start s",
    ]
    digits = {"CPU s/min": 4, "start s": 2, "threads": 0, "children": 0}
    print(f"\n{seconds:g} s of steady state over TLS, metrics every 5 s, a heartbeat every 30 s\n")
    print("| " + " | ".join(names) + " |")
    print("|" + " --- |" * len(names))
    for row in rows:
        cells = [
            row[name] if isinstance(row.get(name), str)
            else "–" if name not in row
            else f"{row[name]:.{digits.get(name, 1)}f}"
            for name in names
        ]  # fmt: skip
        print("| " + " | ".join(cells) + " |")
    ours, node = rows
    print(
        "\nagainst Node: memory {:.2f}, CPU {:.2f}".format(
            ours["memory MB"] / node["memory MB"], ours["CPU s/min"] / node["CPU s/min"]
        )
    )
    for name, limit in REQUIRED.items():
        worst = max(ours[name], ours["all used MB"]) if name == "memory MB" else ours[name]
        verdict = "ok" if worst <= limit else "OVER"
        print(f"required: {name} at most {limit:g}: {worst:.3f} {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the rows, for a program")
    options = parser.parse_args()

    async def run(_: object) -> None:
        rows = await measure(options.seconds, options.starts)
        if options.json:
            print(json.dumps(rows))
        else:
            show(rows, options.seconds)

    react(run)


if __name__ == "__main__":
    main()
