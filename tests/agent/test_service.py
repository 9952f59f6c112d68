"""The whole agent in this process, and a hub's own code at the other end of a real socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from jetcamer.agent.config import AgentConfig
from jetcamer.agent.service import Agent, build_agent
from jetcamer.daemon.clock import wall_clock_ms
from jetcamer.hub.gateway import Gateway
from jetcamer.hub.registry import AgentRegistry
from jetcamer.hub.session import AgentSession
from jetcamer.hub.session_interfaces import Policy, RateLimit
from tests.hub.doubles import RecordingListener, keys
from tests.support.doubles import SECRET
from tests.support.twistd import clean_environment


class ServiceTests(TestCase):
    timeout = 20

    def hub(self, policy: Policy) -> str:
        """A hub; its URL."""
        registry = AgentRegistry(reactor, RecordingListener())
        known = keys({"agent-1": SECRET})
        gateway = Gateway(
            reactor,
            "tcp:0:interface=127.0.0.1",
            lambda connection: AgentSession(connection, known, registry, wall_clock_ms, policy),
        )
        gateway.startService()
        self.addCleanup(gateway.stopService)
        return f"ws://127.0.0.1:{gateway.port}/agent"

    def agent(self, folder: Path, **config: Any) -> Agent:
        agent = build_agent(
            AgentConfig(
                state_dir=str(folder / "state"),
                instance_id="agent-1",
                ws_secret=SECRET,
                web_listen="127.0.0.1:0",
                archive="off",
                **config,
            ),
            reactor=reactor,
            environ=clean_environment(),
        )
        agent.privilegedStartService()
        agent.startService()
        self.addCleanup(agent.stopService)
        return agent

    def logged(self, prefix: str) -> Deferred[str]:
        """Fires with the first line from now on that begins so."""
        line: Deferred[str] = Deferred()

        def observe(event: LogEvent) -> None:
            words = formatEvent(event)
            if words.startswith(prefix) and not line.called:
                line.callback(words)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return line

    async def test_a_hub_that_limits_messages_is_sent_fewer_lines(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        log = folder / "access.log"
        log.touch()
        online = self.logged("[ws] ✓ auth message sent")
        limited = self.logged("[logs] the server limits messages")
        agent = self.agent(
            folder,
            ws_api_url=self.hub(Policy(RateLimit(per_second=10, burst=20))),
            log_paths=[str(log)],
        )
        await online
        log.write_text("line\n" * 60)
        self.assertEqual(
            await limited,
            "[logs] the server limits messages: sending at most 100 lines a second",
        )
        status = agent.ws_status()
        self.assertEqual(status["logs"]["linesPerSecond"], 100)
        self.assertEqual((status["state"], status["attempt"]), ("backing off", 1))
        self.assertEqual(status["lastError"], "closed by the server: 1008 rate_limited")
