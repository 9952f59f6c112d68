"""``twistd jetcamer`` as a child process, as a service manager runs it; other daemons, too."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from tests.support.line_process import LineProcess

TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


def clean_environment(**more: str) -> dict[str, str]:
    """Ours, without what would give an agent credentials, a proxy or a place in the cloud."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("AWS_", "JETCAMER", "NOTIFY_", "WATCHDOG_"))
        and not name.upper().endswith("_PROXY")
    }
    return kept | {"AWS_EC2_METADATA_DISABLED": "true"} | more


class TwistdDaemon(LineProcess[str]):
    """A daemon; its events are the lines it prints.

    :param folder: made if need be; holds the configuration, the state and the working directory.
    :param config: members of the configuration file over those that keep tests apart.
    """

    #: What ``twistd`` calls it, its file's name, and members that keep tests apart.
    plugin: str
    file_name: str
    apart: dict[str, Any]

    def __init__(
        self, reactor: Any, folder: str | Path, config: dict[str, Any] | None = None, **environ: str
    ) -> None:
        super().__init__(reactor)
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_path = self.folder / self.file_name
        self.config = {"stateDir": str(self.folder / "state"), **self.apart, **(config or {})}
        self.environ = clean_environment(**environ)
        #: Options of ``twistd`` itself, and Python to run before it.
        self.options: list[str] = []
        self.prelude = ""

    def parse(self, line: str) -> str:
        return line

    def write_config(self) -> None:
        self.config_path.write_text(json.dumps(self.config), "utf-8")
        self.config_path.chmod(0o600)

    def start(self, *arguments: str) -> Self:
        """Spawn it with these arguments of its own, by default ``--config`` with `config`."""
        if not arguments:
            self.write_config()
            arguments = ("--config", str(self.config_path))
        argv = [
            sys.executable,
            "-c",
            self.prelude + TWISTD,
            "--nodaemon",
            "--pidfile=",
            *self.options,
        ]
        self._reactor.spawnProcess(
            self,
            argv[0],
            args=[*argv, self.plugin, *arguments],
            env=self.environ,
            path=str(self.folder),
        )
        return self

    async def said(self, prefix: str, *, since: int = 0) -> str:
        """The first line that begins with `prefix`."""
        return await self.wait_for(lambda line: line.startswith(prefix), since=since)


class TwistdAgent(TwistdDaemon):
    plugin = "jetcamer"
    file_name = "agent.config.json"
    apart: ClassVar = {"webListen": "127.0.0.1:0"}

    async def web_port(self) -> int:
        """The port of the local interface."""
        line = await self.said("[http] listening on ")
        return int(line.rsplit(":", 1)[1])


async def http(
    reactor: Any, port: int, method: str, path: str, body: object = None, token: str | None = None
) -> tuple[int, Any]:
    """One request over a real socket; the status and the JSON answer."""
    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

    class Reader(Protocol):
        def __init__(self) -> None:
            self.data = b""
            self.done: Deferred[bytes] = Deferred()

        def dataReceived(self, data: bytes) -> None:
            self.data += data

        def connectionLost(self, reason: object = None) -> None:
            self.done.callback(self.data)

    content = b"" if body is None else json.dumps(body).encode()
    reader = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Reader())
    bearer = "" if token is None else f"Authorization: Bearer {token}\r\n"
    reader.transport.write(
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{bearer}"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    head, _, answer = (await reader.done).partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, json.loads(answer) if b"application/json" in head else answer.decode()
