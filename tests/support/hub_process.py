"""The hub's gateway over TLS in a process of its own, to be killed, frozen and started again.

    python -m tests.support.hub_process PORT CERT.pem KEY.pem AGENT_ID SECRET

Prints one JSON object a line: ``{"event": "listening", "port"}``, then ``authenticated``,
``metrics``, ``heartbeat``, ``command_result`` and ``disconnected`` with the number of the
connection and the message's ``ts``, and ``refused`` with the reason.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.support.line_process import LineProcess
from tests.support.tools import ROOT


class HubProcess(LineProcess[dict[str, Any]]):
    """The driver's side. With a `port` of 0, `port` is the chosen one once it has started."""

    def __init__(self, reactor: Any, port: int, cert: str, key: str, agent_id: str, secret: str):
        super().__init__(reactor)
        self.port = port
        self._arguments = [cert, key, agent_id, secret]

    def parse(self, line: str) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(line)
        return event

    async def start(self) -> HubProcess:
        argv = [sys.executable, "-m", "tests.support.hub_process", str(self.port)]
        self.spawn([*argv, *self._arguments], {"PYTHONPATH": str(ROOT)}, str(ROOT))
        listening = await self.wait_for(lambda event: event["event"] == "listening")
        self.port = listening["port"]
        return self


class Printer:
    """A `SessionListener` that prints."""

    def __init__(self) -> None:
        self.numbers: dict[object, int] = {}

    def say(self, event: str, **members: object) -> None:
        print(json.dumps({"event": event, **members}), flush=True)

    def number(self, session: object) -> int:
        return self.numbers.setdefault(session, len(self.numbers) + 1)

    def __getattr__(self, name: str) -> Any:
        def heard(session: object, envelope: Any, payload: object) -> None:
            self.say(name, connection=self.number(session), ts=envelope.ts)

        return heard

    def disconnected(self, session: object, words: str) -> None:
        self.say("disconnected", connection=self.number(session), words=words)

    def refused(self, refusal: Any) -> None:
        self.say("refused", reason=refusal.reason)


def main() -> None:
    from twisted.internet import reactor

    from jetcamer.daemon.clock import wall_clock_ms
    from jetcamer.hub.gateway import Gateway
    from jetcamer.hub.registry import AgentRegistry
    from jetcamer.hub.session import AgentSession
    from tests.hub.doubles import keys

    port, cert, key, agent_id, secret = sys.argv[1:]
    printer = Printer()
    registry = AgentRegistry(reactor, printer)
    fleet = keys({agent_id: secret})
    gateway = Gateway(
        reactor,
        f"ssl:{port}:interface=127.0.0.1:certKey={cert}:privateKey={key}",
        lambda connection: AgentSession(connection, fleet, registry, wall_clock_ms),
    )
    gateway.startService()
    printer.say("listening", port=gateway.port)
    reactor.addSystemEventTrigger("before", "shutdown", gateway.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
