"""The servers that a hub benchmark compares: each started, counted and stopped in the same way.

`NodeHub` does on Node, with `ws`, what the hub does; `DocumentHub` is the server of the customer's
own document, where that lies beside the checkout; `Hub` is ``twistd jetcamer-hub``.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from twisted.internet import reactor

from benchmarks.load import secrets
from benchmarks.processes import pause
from tests.support.certs import Certificate
from tests.support.customer_server import CustomerServer, server_source
from tests.support.hub_service import HubService
from tests.support.node_peer import _JSONLines
from tests.support.tools import NODE_PEERS, ROOT, require_npm_package, require_program

#: Seconds that a server may take to start, or to have dealt with what it was sent.
DEADLINE = 30.0


class Server(Protocol):
    """One server, running alone in its process.

    :ivar label: its row in the table.
    :ivar per_second: handshakes that it takes without turning any away.
    """

    label: str
    per_second: float

    @property
    def pid(self) -> int: ...
    @property
    def port(self) -> int: ...
    async def start(self) -> Any: ...
    async def finished(self) -> None:
        """Fires when nothing is left to do about messages that it has read."""

    async def verified(self) -> int:
        """Messages accepted since the start; raises SystemExit where one was not."""

    async def rest(self) -> None:
        """Let go of what it holds without need, where it can be told to."""

    def stop(self) -> Any: ...


class NodeHub(_JSONLines):
    """`tests/support/node/hub.js`.

    :param collects: `rest` collects its garbage, as no server in the field is told to.
    """

    label = "Node"

    def __init__(
        self, folder: Path, agents: int, tls: Certificate | None = None, *, collects: bool = False
    ) -> None:
        super().__init__(reactor)
        if collects:
            self.label = "Node, garbage collected"
        self._collects = collects
        self.per_second = 1000.0
        self.port = 0
        self._tls = tls
        self._agents = agents
        self._path = folder / "node-secrets.json"

    async def start(self) -> NodeHub:
        require_npm_package("ws")
        self._path.write_text(json.dumps(secrets(self._agents)))
        argv = [require_program("node"), "--expose-gc", "hub.js", "--secrets", str(self._path)]
        if self._tls is not None:
            argv += ["--key", self._tls.path_key, "--cert", self._tls.path_cert]
        self.spawn(argv, {"NODE_ENV": "production"}, str(NODE_PEERS))
        self.port = (await self.wait_for_event("listening"))["port"]
        return self

    async def finished(self) -> None:
        pass

    async def verified(self) -> int:
        return int((await self._status("status"))["verified"])

    async def rest(self) -> None:
        if self._collects:
            await self._status("collect")

    async def _status(self, action: str) -> dict[str, Any]:
        before = len(self.events)
        self.do(action)
        status = await self.wait_for_event("status", since=before, timeout=DEADLINE)
        if status["refused"]:
            raise SystemExit(f"{self.label} refused {status['refused']} messages")
        return status


#: What it prints is counted, and the lines that are ours go to us.
_CONSOLE = """
// ---- For benchmarks.
import { writeSync } from 'fs';
const print = console.log;
let verified = 0;
console.log = (text: string, ...more: unknown[]) => {
  if (/^.server. (Metrics|Agent auth)/.test(text)) verified += 1;
  if (text.startsWith('[console]')) writeSync(3, text + '\\n');
  else print(text, ...more);
};
process.on('SIGUSR2', () => console.log(`[console] verified ${verified}`));
"""


class DocumentHub(CustomerServer):
    """The document's own server, word for word; what it prints of each message is not kept."""

    label = "Node, the customer's"

    def __init__(self, folder: Path, agents: int) -> None:
        super().__init__(reactor, {})
        self.per_second = 1000.0
        self._folder = folder
        self._source = server_source(secrets(agents)) + _CONSOLE  # SkipTest where there is none

    async def start(self) -> DocumentHub:
        folder = self._folder / "document"
        folder.mkdir()
        (folder / "node_modules").symlink_to(NODE_PEERS / "node_modules")
        (folder / "server.ts").write_text(self._source, "utf-8")
        environ = {"PORT": "0", "NODE_ENV": "production"}
        node = [require_program("node"), "--import", "tsx", "server.ts"]
        argv = ["/bin/sh", "-c", 'exec "$@" 3>&1 >/dev/null', "sh", *node]
        self.spawn(argv, environ, str(folder))
        line = await self.wait_for(lambda said: said.startswith("[console] listening on "))
        self.port = int(line.rsplit(" ", 1)[1])
        return self

    async def finished(self) -> None:
        pass

    async def verified(self) -> int:
        before = len(self.events)
        self.signal("USR2")
        line = await self.wait_for(
            lambda said: said.startswith("[console] verified "), since=before, timeout=DEADLINE
        )
        if self.stderr:
            raise SystemExit(f"{self.label} says: {self.stderr[-500:]}")
        return int(line.rsplit(" ", 1)[1])

    async def rest(self) -> None:
        pass


class Instructions:
    """What `perf` counts of a process between `start` and `stop`; None where it counts nothing.

    Virtual machines often have no counter for it.
    """

    def __init__(self) -> None:
        try:
            done = subprocess.run(
                [*self._argv(), "true"], capture_output=True, text=True, check=False
            )
            self.counted = self._read(done.stderr) is not None
        except FileNotFoundError:
            self.counted = False

    async def start(self, pid: int) -> subprocess.Popen[str] | None:
        if not self.counted:
            return None
        perf = subprocess.Popen([*self._argv(), "-p", str(pid)], stderr=subprocess.PIPE, text=True)
        await pause(0.3)  # it does not say when it has begun
        return perf

    def stop(self, perf: subprocess.Popen[str] | None) -> float | None:
        if perf is None:
            return None
        perf.send_signal(signal.SIGINT)
        return self._read(perf.communicate(timeout=DEADLINE)[1])

    @staticmethod
    def _argv() -> list[str]:
        return ["perf", "stat", "-x,", "-e", "instructions"]

    @staticmethod
    def _read(text: str) -> float | None:
        """The sum of the lines: a machine with two kinds of core has two."""
        counts = [line.split(",")[0] for line in text.splitlines() if "instructions" in line]
        numbers = [float(count) for count in counts if count.replace(".", "").isdigit()]
        return sum(numbers) if numbers else None


def unit() -> tuple[list[str], dict[str, str]]:
    """Options of ``twistd`` and variables with which the shipped systemd unit starts the hub."""
    options: list[str] = []
    variables = {}
    for line in (ROOT / "etc" / "jetcamer-hub.service").read_text("utf-8").splitlines():
        name, _, value = line.partition("=")
        if name == "ExecStart":
            words = shlex.split(value)
            options = words[1 : words.index("jetcamer-hub")]
        elif name == "Environment":
            variables.update(word.split("=", 1) for word in shlex.split(value))
    return options, variables


class Hub(HubService):
    """``twistd jetcamer-hub``, as its unit starts it.

    :param store: keep what is received, in SQLite.
    :param options: of ``twistd``, beside the unit's.
    """

    label = "JetCamer"

    def __init__(
        self,
        folder: Path,
        agents: int,
        tls: Certificate | None = None,
        *,
        store: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        config: dict[str, Any] = {
            "store": "sqlite" if store else "off",
            # Limits that the agents of a benchmark exceed and those in the field do not.
            "handshakesPerSecond": 100_000,
            "messagesPerSecond": 100_000,
            "messageBurst": 1_000_000,
        }
        if tls is not None:
            key, cert = tls.path_key, tls.path_cert
            config["listen"] = [f"ssl:0:interface=127.0.0.1:certKey={cert}:privateKey={key}"]
        unit_options, variables = unit()
        super().__init__(reactor, folder, config, **variables)
        self.options = [*unit_options, *options]
        self.per_second = 1000.0
        self._agents = agents

    async def start(self) -> Hub:
        await super().start()
        await self.enrol(secrets(self._agents))
        return self

    async def finished(self) -> None:
        if self.config["store"] == "off":
            return
        deadline = time.monotonic() + DEADLINE
        while (await self.status())["store"]["waiting"]:
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.label} has not stored what it received")
            await pause(0.2)

    async def verified(self) -> int:
        status = await self.status()
        if status["refusals"]:
            raise SystemExit(f"{self.label} refused messages: {status['refusals']}")
        return int(status["messages"])

    async def rest(self) -> None:
        pass
