"""The Node peers of `tests/support/node`, driven from a trial test.

``NodePeer`` is a receiving server, ``NodeAgent`` an agent; what they print and obey stands at the
head of their files. Both skip the test where Node or its packages are missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.line_process import DEADLINE, LineProcess
from tests.support.tools import NODE_PEERS, require_npm_package, require_program

Event = dict[str, Any]


class _JSONLines(LineProcess[Event]):
    def parse(self, line: str) -> Event:
        event: Event = json.loads(line)
        return event

    def do(self, action: str, **members: Any) -> None:
        """Send one control line; a member that is None is left out."""
        self.write_line(
            json.dumps({"do": action, **{k: v for k, v in members.items() if v is not None}})
        )

    async def wait_for_event(
        self, event: str, *, since: int = 0, timeout: float = DEADLINE, **members: Any
    ) -> Event:
        """The first event of that name whose members have these values."""
        return await self.wait_for(
            lambda seen: (
                seen["event"] == event and all(seen.get(k) == v for k, v in members.items())
            ),
            since=since,
            timeout=timeout,
        )


class NodePeer(_JSONLines):
    """A receiving server on Node, verifying as the servers in the field do.

    :param secrets: agent id to shared secret.
    :param tls: the files of a private key and a certificate, PEM.
    """

    def __init__(
        self,
        reactor: Any,
        secrets: Mapping[str, str],
        *,
        tls: tuple[Path | str, Path | str] | None = None,
        port: int = 0,
        mute_pongs: bool = False,
    ) -> None:
        super().__init__(reactor)
        self._secrets = dict(secrets)
        self._tls = tls
        self.port = port
        self._mute_pongs = mute_pongs

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}/agent"

    async def start(self) -> NodePeer:
        """Spawn it; returns once it listens, with `port` and `url` known."""
        require_npm_package("ws")
        argv = [require_program("node"), "peer.js", "--port", str(self.port)]
        if self._tls is not None:
            argv += ["--key", str(self._tls[0]), "--cert", str(self._tls[1])]
        if self._mute_pongs:
            argv.append("--mute-pongs")
        self.spawn(argv, {"PEER_SECRETS": json.dumps(self._secrets)}, str(NODE_PEERS))
        self.port = (await self.wait_for_event("listening"))["port"]
        return self

    async def message(self, type: str, *, since: int = 0, timeout: float = DEADLINE) -> Event:
        """The first message of that type that verified."""
        return await self.wait_for_event("message", type=type, since=since, timeout=timeout)

    async def ask(
        self, agent_id: str, command: str, args: Mapping[str, str] | None = None
    ) -> Event:
        """Send a command; returns the payload of its answer, found by `inReplyTo`."""
        before = len(self.events)
        self.do("command", agentId=agent_id, command=command, args=args)
        sent = await self.wait_for_event("sent", since=before)
        answer = await self.wait_for(
            lambda seen: (
                seen["event"] == "message"
                and seen["type"] == "command_result"
                and seen["payload"].get("inReplyTo") == sent["nonce"]
            ),
            since=before,
        )
        payload: Event = answer["payload"]
        return payload


class NodeAgent(_JSONLines):
    """A minimal agent on Node. Intervals in seconds; they may be fractions.

    :param ca: the file of a CA certificate to trust, PEM.
    :param silent: it says nothing of its own accord, not even `auth`.
    """

    def __init__(
        self,
        reactor: Any,
        url: str,
        agent_id: str,
        secret: str,
        *,
        ca: Path | str | None = None,
        metrics: float = 5.0,
        heartbeat: float = 30.0,
        silent: bool = False,
    ) -> None:
        super().__init__(reactor)
        self._secret = secret
        self._options = ["--url", url, "--id", agent_id, "--control"]
        self._options += ["--metrics", str(metrics), "--heartbeat", str(heartbeat)]
        if ca is not None:
            self._options += ["--ca", str(ca)]
        if silent:
            self._options.append("--silent")

    async def start(self) -> NodeAgent:
        """Spawn it; returns at once, its connection is the test's to see."""
        require_npm_package("ws")
        argv = [require_program("node"), "agent.js", *self._options]
        self.spawn(argv, {"AGENT_SECRET": self._secret}, str(NODE_PEERS))
        return self
