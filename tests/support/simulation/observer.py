"""What the hub acts upon, as it does, and what may not happen at any moment.

In: the events of a run. Out: `problems`, one line for each thing that was not as it must be, and
`history`.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from jetcamer.hub.records import CommandRecord, RefusalRecord
from jetcamer.net.websocket import Disconnected
from tests.support.simulation.agents import SimulatedAgent
from tests.support.simulation.clock import Time
from tests.support.simulation.hub import Hub
from tests.support.simulation.network import Network

#: How the hub ends a connection.
ENDINGS = (
    (1000, "replaced_by_new_connection"),
    (1008, "auth_timeout"),
    (1008, "invalid_timestamp"),
    (1012, "service_restart"),
)


class Command:
    """One command an operator asked for, and what he was told."""

    def __init__(self, command_id: str, agent: SimulatedAgent) -> None:
        self.command_id = command_id
        self.agent = agent
        #: What the hub told of it at last, or why it could not be asked; neither: the hub died.
        self.record: CommandRecord | None = None
        self.failure: str | None = None


def _ordinal(hostname: str) -> int:
    """The number of the connection that gave this name."""
    return int(hostname.removeprefix("host-"))


class Observer:
    """The state of a run, and the `Watch` of its hubs."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.time = Time()
        self.network = Network(self.time)
        self.problems: list[str] = []
        self.history: list[tuple[float, str, str]] = []
        self.counts: Counter[str] = Counter()
        self.commands: list[Command] = []
        self.agents: dict[str, SimulatedAgent] = {}
        self.clones: list[SimulatedAgent] = []
        self.most_open = 0
        self._strangers: set[str] = set()
        self._wrong_clocks: set[str] = set()
        self._set_back: set[str] = set()
        #: Addresses whose connections may stay open without a word.
        self._disturbed: set[str] = set()
        self._doubted: dict[str, str] = {}
        self._newest: dict[str, int] = {}
        self._newest_at: dict[str, float] = {}
        self._connected: set[str] = set()
        self._logged: set[str] = set()
        self._last_metrics: dict[str, float] = {}
        self.hub: Hub | None = None

    def authenticated(self, agent_id: str, hostname: str, address: str) -> None:
        self.history.append((self.time.now, f"authenticated {hostname}", agent_id))
        if address in self._strangers:
            self.problems.append(f"a stranger is taken for {agent_id} at {self.time.now:.3f} s")
        if agent_id in self._connected:
            self.problems.append(f"{agent_id} is present twice at {self.time.now:.3f} s")
        self._connected.add(agent_id)
        self._newest[agent_id] = _ordinal(hostname)
        self._newest_at[agent_id] = self.time.now

    def metrics(self, agent_id: str, cpu_percent: float | None) -> None:
        self.counts["metrics"] += 1
        assert cpu_percent is not None
        ordinal = round(cpu_percent * 100)
        self._last_metrics[agent_id] = self.time.now
        if ordinal != self._newest.get(agent_id) or agent_id not in self._connected:
            self.problems.append(
                f"{agent_id}: metrics of connection {ordinal} while"
                f" {self._newest.get(agent_id)} is the newest, at {self.time.now:.3f} s"
            )

    def log(self, agent_id: str, message: str) -> None:
        self.counts["log"] += 1
        name = f"{agent_id}/{message}"
        if message.startswith("late") and name in self._logged:
            self.problems.append(f"{name} came twice")
        self._logged.add(name)

    def disconnected(self, agent_id: str, hostname: str, words: str) -> None:
        if agent_id not in self._connected:
            self.problems.append(f"{agent_id} left and was not there")
        if _ordinal(hostname) != self._newest.get(agent_id):
            self.problems.append(
                f"{agent_id}: the end of {hostname} counts while"
                f" {self._newest.get(agent_id)} is the newest, at {self.time.now:.3f} s"
            )
        self._connected.discard(agent_id)

    def _closed(
        self, agent: SimulatedAgent, ordinal: int, opened: float, reason: Disconnected
    ) -> None:
        """How a connection ended to its agent. The hub closes none without one of its reasons."""
        if not reason.by_peer or reason.code is None:
            return
        said = (reason.code, reason.reason.partition(":")[0])
        if said not in ENDINGS:
            self.problems.append(f"{agent.agent_id} was sent away with {said}")
        elif said[0] == 1000 and opened > self._newest_at.get(agent.agent_id, 0.0):
            self.problems.append(
                f"{agent.agent_id}: connection {ordinal} was closed for an older one,"
                f" {self._newest.get(agent.agent_id)}, at {self.time.now:.3f} s"
            )

    def refused(self, refusal: RefusalRecord) -> None:
        self.counts[f"refused {refusal.reason}"] += 1
        if refusal.address in self._strangers:
            allowed = refusal.reason in ("replayed_nonce", "invalid_timestamp")
        elif refusal.reason == "auth_timeout":
            # Connected, and the way broke before the next word.
            allowed = refusal.address in self._disturbed
        elif refusal.agent_id in self._wrong_clocks or refusal.agent_id in self._set_back:
            # After a restart the hub takes nothing older than what it remembers.
            allowed = refusal.reason == "invalid_timestamp"
        else:
            allowed = False
        if not allowed:
            self.problems.append(
                f"refused {refusal.reason} of {refusal.agent_id} at {self.time.now:.3f} s:"
                f" {refusal.words}"
            )
