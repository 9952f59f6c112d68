"""The receiving server of the customer's own document, word for word, as a child process.

The document is not part of this project: where it does not lie beside the checkout, the tests
that want it are skipped. Of its TypeScript nothing is changed but the one example entry of the
table of secrets; below it stand a few lines of ours that call its `sendCommand` for each line of
standard input, as an operator at its console would.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest import SkipTest

from tests.support.line_process import LineProcess
from tests.support.tools import NODE_PEERS, ROOT, require_npm_package, require_program

DOCUMENT = ROOT.parent / "shared" / "spec" / "WEBSOCKET.md"

_EXAMPLE_ENTRY = "  'agent-001': 'your-aws-secret-key-here',\n"

_CONSOLE = """
// ---- Below: not the document's. Each line of standard input is [agentId, command, args?].
import { createInterface } from 'readline';
server.on('listening', () => {
  console.log(`[console] listening on ${(server.address() as any).port}`);
});
createInterface({ input: process.stdin }).on('line', (line) => {
  const [agentId, command, args] = JSON.parse(line);
  console.log(`[console] sendCommand: ${sendCommand(agentId, command, args)}`);
});
"""


def server_source(secrets: Mapping[str, str]) -> str:
    """The document's server with these agents; skips the test where there is no document."""
    if not DOCUMENT.is_file():
        raise SkipTest("the customer's document does not lie beside the checkout")
    blocks = re.findall(r"^```typescript\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.M | re.S)
    servers = [block for block in blocks if "new WebSocketServer(" in block]
    if len(servers) != 1 or servers[0].count(_EXAMPLE_ENTRY) != 1:
        raise AssertionError("the document's example server is not what it was")
    entries = "".join(f"  {json.dumps(k)}: {json.dumps(v)},\n" for k, v in secrets.items())
    return servers[0].replace(_EXAMPLE_ENTRY, entries) + _CONSOLE


class CustomerServer(LineProcess[str]):
    """The running server; its events are the lines it prints.

    ``[server] Agent authenticated: ID …``, ``[server] Metrics from ID: …``,
    ``[server] Command result from ID: …`` (an object as `util.inspect` shows it, perhaps over
    several lines), ``[server] Invalid signature from ID``.
    """

    def __init__(self, reactor: Any, secrets: Mapping[str, str]) -> None:
        super().__init__(reactor)
        self._secrets = dict(secrets)
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/agent"

    def parse(self, line: str) -> str:
        return line

    async def start(self) -> CustomerServer:
        """Spawn it on a free port; returns once it listens."""
        source = server_source(self._secrets)
        node = require_program("node")
        require_npm_package("ws")
        require_npm_package("tsx")
        folder = Path(mkdtemp(prefix="customer-server-"))
        self._ended.addCallback(lambda _: _remove(folder))
        (folder / "node_modules").symlink_to(NODE_PEERS / "node_modules")
        (folder / "server.ts").write_text(source, "utf-8")
        self.spawn([node, "--import", "tsx", "server.ts"], {"PORT": "0"}, str(folder))
        line = await self.wait_for(lambda said: said.startswith("[console] listening on "))
        self.port = int(line.rsplit(" ", 1)[1])
        return self

    def send_command(
        self, agent_id: str, command: str, args: Mapping[str, str] | None = None
    ) -> None:
        """Call the document's `sendCommand`."""
        self.write_line(json.dumps([agent_id, command, dict(args or {})]))


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
