"""A real agent and a hub process over TLS that is restarted, killed, frozen and resumed.

Seconds of the agent are `SPEED` times as short. The order of events is drawn from a seed; a failure
prints it, and JETCAMER_SEED runs it again.
"""

from __future__ import annotations

import os
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from jetcamer.agent.config import AgentConfig
from jetcamer.agent.reconnect import UNDISTURBED
from jetcamer.agent.service import build_agent
from tests.support.case import ProcessCase
from tests.support.certs import TestCA
from tests.support.fast_reactor import FastReactor
from tests.support.hub_process import HubProcess

SPEED = 15.0
STEPS = 7
AGENT = "agent-1"
SECRET = "the secret of the chaos test"


class Watch:
    """Follows the link from outside and notes every state, with the attempt it shows."""

    def __init__(self, link: object, clock: FastReactor) -> None:
        self.link = link
        self.clock = clock
        self.history: list[tuple[float, str, int]] = []
        self.waiting: list[tuple[str, Deferred[None]]] = []

    def changed(self) -> None:
        status = self.link.status()
        self.history.append((self.clock.seconds(), status["state"], status["attempt"]))
        due = [item for item in self.waiting if item[0] == status["state"]]
        self.waiting = [item for item in self.waiting if item not in due]
        for _, done in due:
            done.callback(None)

    def reaches(self, state: str, seconds: float) -> Deferred[None]:
        """Fires when the link is in `state`; fails after so many seconds of the agent's."""
        done: Deferred[None] = Deferred()
        if self.link.state == state:
            done.callback(None)
        else:
            self.waiting.append((state, done))
            done.addTimeout(seconds / SPEED, reactor)
        return done


class ChaosTests(ProcessCase):
    timeout = 100

    async def test_in_any_order(self) -> None:
        seed = int(os.environ.get("JETCAMER_SEED", "0")) or int.from_bytes(os.urandom(4), "big")
        try:
            await self.run_seed(Random(seed))
        except BaseException as error:
            error.add_note(f"JETCAMER_SEED={seed}; steps: {self.steps}; {self.watch.history}")
            raise

    async def run_seed(self, random: Random) -> None:
        self.steps: list[str] = []
        authority = TestCA(self.mktemp())
        self.certificate = authority.issue(ips=["127.0.0.1"])
        self.hubs: list[HubProcess] = []
        self.addCleanup(self.stop_hubs)
        hub = await self.new_hub(0)
        self.clock = clock = FastReactor(reactor, SPEED)
        agent = build_agent(
            AgentConfig(
                ws_api_url=f"wss://127.0.0.1:{hub.port}/agent",
                ws_secret=SECRET,
                ws_ca_file=authority.path_cert,
                instance_id=AGENT,
                web_listen="127.0.0.1:0",
                state_dir=self.mktemp(),
            ),
            reactor=clock,
            environ={},
        )
        self.watch = Watch(agent.link, clock)
        agent.link.on_change(self.watch.changed)
        agent.privilegedStartService()
        agent.startService()
        try:
            await self.watch.reaches("online", 30)
            for _ in range(STEPS):
                step = random.choice(["restart", "kill", "freeze", "blink", "calm"])
                self.steps.append(step)
                hub = await getattr(self, step)(hub, random)
            # After whatever happened: back by itself, within the longest wait and one dial.
            await self.watch.reaches("online", 60 + 10 + 5)
            await self.pause(12)
        finally:
            await agent.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])
        await self.pause(5)
        self.check_attempts()
        for each in self.hubs:
            self.check_messages(each)

    # What can happen to a hub. Durations are the agent's seconds.

    async def restart(self, hub: HubProcess, random: Random) -> HubProcess:
        """Stopped in order (1012), away for a moment, back."""
        hub.signal("TERM")
        await hub.when_ended()
        await self.pause(random.uniform(0, 8))
        return await self.new_hub(hub.port)

    async def kill(self, hub: HubProcess, random: Random) -> HubProcess:
        """Gone at once, and away for longer."""
        hub.signal("KILL")
        await hub.when_ended()
        await self.pause(random.uniform(0, 20))
        return await self.new_hub(hub.port)

    async def freeze(self, hub: HubProcess, random: Random) -> HubProcess:
        """Half open: TCP goes on and nobody answers; longer than a ping and its deadline."""
        await self.watch.reaches("online", 90)
        hub.signal("STOP")
        await self.watch.reaches("backing off", 20 + 10 + 5)
        await self.pause(random.uniform(0, 15))
        hub.signal("CONT")
        return hub

    async def blink(self, hub: HubProcess, random: Random) -> HubProcess:
        """Frozen for less than anybody notices."""
        hub.signal("STOP")
        await self.pause(random.uniform(0.5, 4))
        hub.signal("CONT")
        return hub

    async def calm(self, hub: HubProcess, random: Random) -> HubProcess:
        """Nothing; at times for long enough to count as undisturbed."""
        await self.pause(random.choice([5, 20, 70]))
        return hub

    # What must hold whatever happened.

    def check_attempts(self) -> None:
        """One more for each failure in a row; from one again after 60 s undisturbed."""
        expected, online_since = 0, None
        for moment, state, attempt in self.watch.history:
            if state == "online":
                online_since = moment
            elif state == "backing off":
                if online_since is not None and moment - online_since >= UNDISTURBED:
                    expected = 0
                expected, online_since = expected + 1, None
                self.assertEqual(attempt, expected)

    def check_messages(self, hub: HubProcess) -> None:
        """Everything verified, `auth` first, and one set of timers for each connection."""
        self.assertEqual([e for e in hub.events if e["event"] == "refused"], [])
        connections: dict[int, list[dict]] = {}
        for event in hub.events[1:]:
            connections.setdefault(event["connection"], []).append(event)
        for events in connections.values():
            self.assertEqual(events[0]["event"], "authenticated")
            self.assertEqual([e["event"] for e in events].count("authenticated"), 1)
            for name, interval in (("metrics", 5.0), ("heartbeat", 30.0)):
                times = [e["ts"] for e in events if e["event"] == name]
                if not times:
                    continue
                # Whole multiples after `auth`, however late the machine was with any one of them.
                elapsed = (times[-1] - events[0]["ts"]) / 1000 * SPEED
                self.assertLessEqual(len(times), elapsed / interval + 1, f"{name}: {times}")

    async def new_hub(self, port: int) -> HubProcess:
        hub = HubProcess(
            reactor, port, self.certificate.path_cert, self.certificate.path_key, AGENT, SECRET
        )
        self.hubs.append(hub)
        return await hub.start()

    async def stop_hubs(self) -> None:
        for hub in self.hubs:
            await hub.stop()

    def pause(self, seconds: float) -> Deferred[None]:
        return deferLater(reactor, seconds / SPEED)
