"""What a message, a connection and a handshake cost the hub, beside Node servers in the same run.

    python benchmarks/hub_ingest.py [--quick] [--only plain tls store memory]

The servers are `twistd jetcamer-hub`; the customer's own, word for word, where its document is at
hand (it checks neither time nor nonce, speaks no TLS, and prints each message, here to nowhere);
and one on Node with `ws` that does the same as the hub and prints nothing. Agents are raw sockets
in another process, their messages signed and masked beforehand. CPU is the server process's, all
threads, kernel included. The servers take turns, so that a busy machine burdens them alike; figures
are medians, a ratio is the median of the ratios of neighbours. What is required is held against
the customer's server, and against the other where that was not measured. A server that has not
verified every message ends the run.
Needs Linux, Node, and the packages of tests/support/node (``make node-peers``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from unittest import SkipTest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from twisted.internet import reactor  # noqa: E402
from twisted.internet.task import react  # noqa: E402

from benchmarks.hub_peers import DocumentHub, Hub, Instructions, NodeHub, Server  # noqa: E402
from benchmarks.load import LoadProcess  # noqa: E402
from benchmarks.processes import cpu, memory, pause  # noqa: E402
from jetcamer.daemon.limits import raise_file_limit  # noqa: E402
from tests.support.certs import TestCA  # noqa: E402

SECTIONS = ("plain", "tls", "store", "memory")

ONE = "one message a read, µs"
BATCH = "batches of 64, µs"
HANDSHAKE = "handshake and auth, ms"
IDLE = "memory of an idle connection, kB"
TLS = ", TLS"
STORE = ", store on"

#: Those that a row is compared to.
OTHERS = (NodeHub.label, DocumentHub.label)

#: The most that the hub may cost, of what the customer's server does.
REQUIRED = {
    ONE: 0.5,
    BATCH: 0.4,
    HANDSHAKE: 1.0,
    ONE + TLS: 0.8,
    HANDSHAKE + TLS: 1.0,
    ONE + STORE: 0.7,
    IDLE: 1.0,
    IDLE + TLS: 1.0,
}


class Peer:
    """A server, the connections to it, and what it is known to have verified."""

    def __init__(self, server: Server, load: LoadProcess) -> None:
        self.server = server
        self.load = load
        self.expected = 0

    async def check(self, messages: int) -> None:
        """That it has verified so many more."""
        self.expected += messages
        deadline = time.monotonic() + 10
        while (verified := await self.server.verified()) != self.expected:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"invalid: {self.server.label} verified {verified} of {self.expected} messages"
                )
            await pause(0.05)


class Bench:
    def __init__(self, folder: Path, *, quick: bool, options: Sequence[str]) -> None:
        self.folder = folder
        self.options = options
        self.connections = 300 if quick else 1000
        self.repeats = 2 if quick else 5
        self.rounds = 20
        self.steps = (1000,) if quick else (2500, 5000)
        self.settle = 1.0 if quick else 8.0
        self.authority = TestCA(folder)
        self.certificate = self.authority.issue(ips=["127.0.0.1"])
        self.instructions = Instructions()
        #: Measure → server → its samples.
        self.samples: dict[str, dict[str, list[float]]] = {}
        self._running: list[Any] = []
        self._folders = 0

    # Servers

    def _servers(self, agents: int, *, tls: bool = False, store: bool = False) -> list[Server]:
        certificate = self.certificate if tls else None
        servers: list[Server] = [
            NodeHub(self._folder(), agents, certificate),
            Hub(self._folder(), agents, certificate, store=store, options=self.options),
        ]
        if not tls:
            try:
                servers.append(DocumentHub(self._folder(), agents))
            except SkipTest as reason:
                print(f"without the document's server: {reason}", file=sys.stderr)
        return servers

    def _folder(self) -> Path:
        self._folders += 1
        folder = self.folder / str(self._folders)
        folder.mkdir()
        return folder

    async def _start(self, servers: Sequence[Server], *, tls: bool = False) -> list[Peer]:
        peers = []
        for server in servers:
            self._running.append(server)
            await server.start()
            ca = str(self.authority.path_cert) if tls else None
            load = LoadProcess(reactor, server.port, ca).start()
            self._running.append(load)
            peers.append(Peer(server, load))
        return peers

    async def stop(self) -> None:
        while self._running:
            await self._running.pop().stop()

    # Sections

    async def plain(self) -> None:
        peers = await self._start(self._servers(self.connections))
        await self._handshakes(peers, HANDSHAKE)
        await self._messages(peers, ONE, self.rounds, 1)
        await self._messages(peers, BATCH, 1, 64)

    async def tls(self) -> None:
        peers = await self._start(self._servers(self.connections, tls=True), tls=True)
        await self._handshakes(peers, HANDSHAKE + TLS)
        await self._messages(peers, ONE + TLS, self.rounds, 1)

    async def store(self) -> None:
        peers = await self._start(self._servers(self.connections, store=True))
        for peer in peers:
            await peer.load.connect(0, self.connections, peer.server.per_second)
            await peer.check(self.connections)
        await self._messages(peers, ONE + STORE, self.rounds, 1)

    async def memory(self) -> None:
        await self._idle(IDLE)
        await self.stop()
        await self._idle(IDLE + TLS, tls=True)

    async def _handshakes(self, peers: Sequence[Peer], measure: str) -> None:
        """Leaves the connections open."""
        for repeat in range(1 + self.repeats):  # the first to warm up
            for peer in peers:
                if repeat:
                    await peer.load.close()
                    await pause(1.0)  # until they are gone there, too
                spent = await self._spend(
                    peer,
                    lambda peer=peer: peer.load.connect(
                        0, self.connections, peer.server.per_second
                    ),
                    self.connections,
                )
                if repeat:
                    self._note(measure, peer, spent * 1e3)

    async def _messages(self, peers: Sequence[Peer], measure: str, rounds: int, batch: int) -> None:
        for repeat in range(1 + self.repeats):
            for peer in peers:
                prepared = await peer.load.prepare(self.connections, rounds, batch)
                messages = prepared["messages"]
                perf = await self.instructions.start(peer.server.pid) if repeat else None
                spent = await self._spend(peer, peer.load.run, messages)
                counted = self.instructions.stop(perf)
                if repeat:
                    self._note(measure, peer, spent * 1e6)
                if counted is not None:
                    self._note(f"{measure}: instructions", peer, counted / messages)

    async def _idle(self, measure: str, *, tls: bool = False) -> None:
        """How much larger than with none a server is, for each of its connections."""
        most = self.steps[-1]
        certificate = self.certificate if tls else None
        servers: list[Server] = [
            NodeHub(self._folder(), most, certificate),
            Hub(self._folder(), most, certificate, options=self.options),
            NodeHub(self._folder(), most, certificate, collects=True),
        ]
        peers = await self._start(servers, tls=tls)
        for peer in peers:  # what the first ones have it load and compile
            await peer.load.connect(0, 100, peer.server.per_second)
            await peer.check(100)
            await peer.load.close()
        empty = await self._weigh(peers)
        opened = 0
        for step in self.steps:
            for peer in peers:
                await peer.load.connect(opened, step - opened, peer.server.per_second)
                await peer.check(step - opened)
            opened = step
            for peer, full in (await self._weigh(peers)).items():
                self._note(measure, peer, (full - empty[peer]) * 1024 / opened)

    async def _weigh(self, peers: Sequence[Peer]) -> dict[Peer, float]:
        """MB of each, after a rest."""
        await pause(self.settle)
        for peer in peers:
            await peer.server.rest()
        return {peer: memory(peer.server.pid)[1] for peer in peers}

    async def _spend(
        self, peer: Peer, work: Callable[[], Awaitable[object]], messages: int
    ) -> float:
        """Seconds of the server's CPU for each of the messages that `work` has it verify."""
        before = cpu(peer.server.pid)
        await work()
        await peer.server.finished()
        spent = cpu(peer.server.pid) - before
        await peer.check(messages)
        return spent / messages

    def _note(self, measure: str, peer: Peer, value: float) -> None:
        self.samples.setdefault(measure, {}).setdefault(peer.server.label, []).append(value)


def ratios(found: dict[str, list[float]], label: str, other: str) -> list[float]:
    """Of the samples taken one after the other."""
    return [ours / theirs for ours, theirs in zip(found[label], found[other], strict=False)]


def show(bench: Bench) -> bool:
    """The table; whether all that was measured is within the limits."""
    head = ("CPU or memory", "server", "median", "least to most")
    head += ("of Node's", "of the customer's", "required")
    print(f"\n| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    met = True
    for measure, found in bench.samples.items():
        for label, values in found.items():
            of = {other: median(ratios(found, label, other)) for other in OTHERS if other in found}
            limit = REQUIRED.get(measure) if label == Hub.label else None
            verdict = ""
            if limit is not None:
                ratio = of.get(DocumentHub.label, of[NodeHub.label])
                met &= ratio <= limit
                verdict = f"{limit:g} {'ok' if ratio <= limit else 'OVER'}"
            cells = [f"{median(values):,.2f}", f"{min(values):,.2f} to {max(values):,.2f}"]
            cells += [f"{of[other]:.2f}" if other in of else "–" for other in OTHERS]
            print(f"| {' | '.join((measure, label, *cells, verdict))} |")
    if not bench.instructions.counted:
        print("\ninstructions: not counted here (perf has no counter for them)")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer connections and repeats")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS, metavar="SECTION")
    parser.add_argument(
        "--twistd", action="append", default=[], help="one more option of twistd for the hub"
    )
    parser.add_argument("--json", action="store_true", help="the samples, for a program")
    options = parser.parse_args()
    raise_file_limit()

    async def run(_: object) -> None:
        bench = Bench(Path(name), quick=options.quick, options=options.twistd)
        try:
            for section in options.only:
                began = time.monotonic()
                await getattr(bench, section)()
                await bench.stop()
                print(f"measured: {section}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        except BaseException:
            show(bench)  # what was measured before is as good
            raise
        finally:
            await bench.stop()
        if options.json:
            print(json.dumps(bench.samples))
        elif not show(bench):
            raise SystemExit(1)

    with tempfile.TemporaryDirectory() as name:
        react(run)


if __name__ == "__main__":
    main()
