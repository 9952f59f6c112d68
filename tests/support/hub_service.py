"""``twistd jetcamer-hub`` as a child process, as a service manager runs it, and its API."""

from __future__ import annotations

import json
import re
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from tests.support.line_process import LineProcess
from tests.support.twistd import TWISTD, clean_environment

#: Seconds that it may take for one answer.
_DEADLINE = 30.0

#: The line that shows the admin token, or the file it is in.
_TOKEN = re.compile(r"shown this once: (?P<token>\S+)|admin token is in (?P<path>[^:]+)")


class HubService(LineProcess[str]):
    """The hub; its events are the lines it prints.

    :param folder: made if need be; holds the configuration, the state and the working directory.
    :param config: members of the configuration file over those that keep tests apart.
    :ivar token: the admin token that its first start printed; a later `HubService` over the same
        folder is given it.
    """

    def __init__(
        self, reactor: Any, folder: str | Path, config: dict[str, Any] | None = None, **environ: str
    ) -> None:
        super().__init__(reactor)
        self.folder = Path(folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = {
            "listen": ["tcp:0:interface=127.0.0.1"],
            "apiListen": "tcp:0:interface=127.0.0.1",
            "stateDir": str(self.folder / "state"),
            **(config or {}),
        }
        self.environ = clean_environment(**environ)
        #: Options of ``twistd`` itself.
        self.options: list[str] = []
        self.port = 0
        self.api_port = 0
        self.token = ""

    def parse(self, line: str) -> str:
        return line

    def write_config(self) -> list[str]:
        """Write the configuration; the command line that runs a hub with it."""
        path = self.folder / "hub.config.json"
        path.write_text(json.dumps(self.config), "utf-8")
        path.chmod(0o600)
        words = ["twistd", "--nodaemon", "--pidfile=", *self.options]
        return [*words, "jetcamer-hub", "--config", str(path)]

    async def start(self) -> HubService:
        """Spawn it; returns once it listens, with `port` and `api_port` known."""
        self._reactor.spawnProcess(
            self,
            sys.executable,
            args=[sys.executable, "-c", TWISTD, *self.write_config()[1:]],
            env=self.environ,
            path=str(self.folder),
        )
        self.port = await self._port("[hub] agents: ")
        self.api_port = await self._port("[hub] operators: ")
        if not self.token:
            found = _TOKEN.search(await self.wait_for(_TOKEN.search))
            assert found is not None
            self.token = found["token"] or Path(found["path"]).read_text("ascii").strip()
        return self

    async def _port(self, prefix: str) -> int:
        line = await self.wait_for(lambda said: said.startswith(prefix))
        found = re.search(r":(\d+)(/|$)", line.removeprefix(prefix))
        assert found is not None, line
        return int(found[1])

    async def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request to the API as its admin; the status and the JSON answer."""
        answer: tuple[int, Any] = await deferToThread(self._request, method, path, body)
        return answer

    async def status(self) -> dict[str, Any]:
        """``GET /api/status``."""
        code, answer = await self.request("GET", "/api/status")
        if code != 200:
            raise AssertionError(f"the hub's status: {code} {answer}")
        return dict(answer)

    async def enrol(self, secrets: dict[str, str]) -> None:
        """Make these agents known, each with its own secret."""
        await deferToThread(self._enrol, secrets)

    def _enrol(self, secrets: dict[str, str]) -> None:
        connection = HTTPConnection("127.0.0.1", self.api_port, timeout=_DEADLINE)
        for agent_id, secret in secrets.items():
            body = {"agentId": agent_id, "secret": secret}
            code, answer = self._exchange(connection, "POST", "/api/agents", body)
            if code != 201:
                raise AssertionError(f"{agent_id} is not enrolled: {code} {answer}")
        connection.close()

    def _request(self, method: str, path: str, body: object) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.api_port, timeout=_DEADLINE)
        try:
            return self._exchange(connection, method, path, body)
        finally:
            connection.close()

    def _exchange(
        self, connection: HTTPConnection, method: str, path: str, body: object
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
