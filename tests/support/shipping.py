"""An agent that ships logs, with all that it talks to: a server, and moto's S3 behind a proxy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.support.aws import NOTHING
from tests.support.moto_server import KEY_ID, SECRET, shared_moto
from tests.support.s3_proxy import S3Proxy
from tests.support.twistd import TwistdAgent, http

MACHINE_ID = "0123456789abcdef0123456789abcdef"

#: Seconds until what is awaited must have happened; a deadline, never a measure.
DEADLINE = 45.0

_MACHINE_ID = """
import jetcamer.agent.machine as machine
machine.read_machine_id.__defaults__ = ({path!r},)
"""


def access_line(name: str) -> str:
    """A line in the combined format that asks for /`name`."""
    return (
        f'203.0.113.7 - - [23/Nov/2026:05:00:00 +0000] "GET /{name} HTTP/1.1" 200 5 "-" "curl/8"\n'
    )


class Shipping:
    """One folder of logs, one bucket, one agent that may be killed and started again.

    :param logs: patterns, relative to `folder`.
    """

    def __init__(self, folder: Path, *logs: str, **config: Any) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True)
        machine_id = folder / "machine-id"
        machine_id.write_text(MACHINE_ID + "\n")
        self.moto = shared_moto()
        self.bucket = self.moto.new_name()
        self.proxy = S3Proxy(reactor, self.moto.port)
        self._prelude = _MACHINE_ID.format(path=str(machine_id))
        self._config = {
            "logPaths": [str(self.logs / pattern) for pattern in logs],
            "s3Bucket": self.bucket,
            "collectorFlushIntervalSeconds": 1,
            **config,
        }
        self._agents = 0
        self.agent: TwistdAgent

    async def start(self) -> None:
        """The agent, for the first time or again; returns when its local interface listens."""
        endpoint = self.proxy.listen() if self._agents == 0 else self.proxy.endpoint
        self._agents += 1
        self.agent = TwistdAgent(
            reactor,
            self.folder,
            self._config,
            **{
                **NOTHING,
                "AWS_ACCESS_KEY_ID": KEY_ID,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_ENDPOINT_URL_S3": endpoint,
                "AWS_REGION": "us-east-1",
            },
        )
        self.agent.prelude = self._prelude
        self.agent.start()
        self.port = await self.agent.web_port()

    async def kill(self) -> None:
        """SIGKILL."""
        await self.agent.stop()

    async def terminate(self) -> None:
        self.agent.signal("TERM")
        await self.agent.when_ended()

    async def stop(self) -> None:
        if self._agents:
            await self.agent.stop()
        await self.proxy.close()

    async def status(self) -> dict[str, Any]:
        """The member ``logs`` of ``ws-status``."""
        _, answer = await http(reactor, self.port, "GET", "/internal/ws-status")
        logs: dict[str, Any] = answer["logs"]
        return logs

    async def until(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first status for which it holds. Fails after `DEADLINE` seconds, with the last."""
        for _ in range(round(DEADLINE / 0.1)):
            status = await self.status()
            if holds(status):
                return status
            await deferLater(reactor, 0.1)
        said = "\n".join(self.agent.events[-20:])
        raise AssertionError(f"not within {DEADLINE:g} s: {json.dumps(status, indent=1)}\n{said}")

    async def following(self, *names: str) -> None:
        """Returns when these files of the folder of logs are followed, and that is on disk."""
        paths = {str(self.logs / name) for name in names}
        checkpoint = self.folder / "state" / "logs.checkpoint.json"
        await self.until(
            lambda status: (
                paths <= {file["path"] for file in status["files"]} and checkpoint.exists()
            )
        )

    async def archived(self, lines: int) -> dict[str, Any]:
        """Returns when so many lines are said to be in the bucket."""
        return await self.until(lambda status: status["totals"].get("archived", 0) >= lines)

    async def objects(self) -> dict[str, list[dict[str, Any]]]:
        """What is in the bucket: the events of each key."""
        found = await deferToThread(self.moto.objects, self.bucket)
        return {
            key: [json.loads(line) for line in body.splitlines()] for key, body in found.items()
        }

    async def paths(self) -> list[str]:
        """The requested paths of all events in the bucket, sorted, without their slashes."""
        objects = await self.objects()
        return sorted(
            event["path"].removeprefix("/") if "path" in event else event["raw"]
            for events in objects.values()
            for event in events
        )
