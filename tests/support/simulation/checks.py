"""What must hold while a fleet runs, and what must be true in the end.

In: an `Observer` that has seen it all, and the fleet and the hub as they are. Out: more `problems`.
"""

from __future__ import annotations

from collections import Counter

from jetcamer.agent.reconnect import MAX_DELAY
from tests.support.simulation.agents import METRICS_INTERVAL, answer_to
from tests.support.simulation.hub import Disk
from tests.support.simulation.observer import Observer

#: Seconds. The fleet comes up, things happen to it, nothing happens to it.
ARRIVING = 8.0
TROUBLED = 84.0
#: The longest wait of an agent, a dial that fails, a ping without its pong, and some.
QUIET = MAX_DELAY + 10.0 + 35.0 + 10.0

#: More dials of one process than this within `DIAL_SPAN` seconds are no back-off: the waits are at
#: least 1, 2, 4, 8, 16, 30 s.
MOST_DIALS = 7
DIAL_SPAN = 55.0

#: What an agent may answer instead of running a command to its end.
EXCUSES = ("the agent is stopping", "busy")

#: One agent in so many: clock wrong at first, clock wrong for good, gone for good.
WRONG_CLOCK = 40
ALWAYS_WRONG = 200
LEAVES = 25


class Checks(Observer):
    """Each looks at one thing."""

    disk: Disk

    def _check_present(self) -> None:
        """Never two of one id, and nobody whom the hub did not announce."""
        if self.hub is None:
            return
        present = [agent_id for agent_id, _ in self.hub.present()]
        if len(present) != len(set(present)) or set(present) != self._connected:
            self.problems.append(
                f"at {self.time.now:.0f} s the registry differs from what it told:"
                f" {sorted(set(present) ^ self._connected)[:5]}"
            )

    def _check_connected(self) -> None:
        """Whoever is connected, and by a way that is whole, is here by that connection."""
        doubted, self._doubted = self._doubted, {}
        if self.hub is None:
            return
        present = dict(self.hub.present())
        cloned = {clone.agent_id for clone in self.clones if clone.process is not None}
        for agent_id, agent in self.agents.items():
            truth = f"host-{agent.ordinal}"
            if present.get(agent_id) == truth or agent_id in cloned or not agent.is_settled():
                continue
            # For a moment a word may be on its way; not for two looks.
            self._doubted[agent_id] = truth
            if doubted.get(agent_id) == truth:
                self.problems.append(
                    f"{agent_id} is {present.get(agent_id)} in the registry at"
                    f" {self.time.now:.0f} s, in truth {truth}"
                )

    def _check_timers(self) -> None:
        """An agent that waits for its next attempt has one timer: that of its wait."""
        counts = Counter(call.owner for call in self.time.getDelayedCalls())
        for agent_id, agent in self.agents.items():
            process = agent.process
            if process is None or process.link.state != "backing off" or process.running:
                continue
            if counts[process.reactor] != 1:
                self.problems.append(
                    f"{agent_id} waits with {counts[process.reactor]} timers"
                    f" at {self.time.now:.0f} s"
                )

    def _check_truth(self) -> None:
        """The registry holds who is connected, each by its newest session, and nobody else."""
        assert self.hub is not None
        present = dict(self.hub.present())
        truth = {
            agent_id: f"host-{agent.ordinal}"
            for agent_id, agent in self.agents.items()
            if agent.online and agent.machine.up == agent.machine.down == "flows"
        }
        away = {
            agent_id
            for agent_id in self.agents
            if self._number(agent_id) % LEAVES == 1
            or (agent_id in self._wrong_clocks and self._number(agent_id) % ALWAYS_WRONG == 3)
        }
        for agent_id in self.agents:
            is_there, should = present.get(agent_id), truth.get(agent_id)
            if is_there != should:
                self.problems.append(f"{agent_id} is {is_there} in the registry, in truth {should}")
            if (should is None) != (agent_id in away):
                state = "connected" if should else "not connected"
                self.problems.append(f"{agent_id} is {state} after {QUIET:.0f} s of quiet")
        for agent_id in truth:
            if self.time.now - self._last_metrics.get(agent_id, -1e9) > METRICS_INTERVAL + 2:
                age = self.time.now - self._last_metrics.get(agent_id, 0)
                if age > METRICS_INTERVAL + MAX_DELAY:
                    self.problems.append(f"{agent_id} sent no metrics for {age:.0f} s")

    @staticmethod
    def _number(agent_id: str) -> int:
        return int(agent_id.removeprefix("agent-"))

    def _check_commands(self) -> None:
        """None ran twice; each that was answered ran once, and the answer is its own."""
        clones: dict[str, Counter[str]] = {}
        for clone in self.clones:
            clones.setdefault(clone.agent_id, Counter()).update(clone.runs)
        nobody: Counter[str] = Counter()
        for command in self.commands:
            agent_id, name = command.agent.agent_id, command.command_id
            runs = command.agent.runs[name] + clones.get(agent_id, nobody)[name]
            record = command.record
            if record is not None and record.state == "queued":
                record = self.disk.commands.get(record.command_id, record)
                self.counts["commands queued"] += 1
            state = record.state if record is not None else (command.failure or "hub died")
            self.counts[f"commands {state.partition(':')[0]}"] += 1
            if runs > 1:
                self.problems.append(f"{name} ran {runs} times")
            if record is None:
                if runs and command.failure is not None:
                    self.problems.append(f"{name} ran and {command.failure}")
            elif record.state == "done":
                if record.result != answer_to(name) or runs != 1:
                    self.problems.append(f"{name} ran {runs} times, its answer {record.result!r}")
            elif record.state == "failed":
                # Cut short by a stop, or never begun.
                if record.error not in EXCUSES:
                    self.problems.append(f"{name} failed: {record.error}")
            elif record.state in ("queued", "expired") and runs:
                self.problems.append(f"{name} ran and is {record.state}")
        known = Counter(command.command_id for command in self.commands)
        for agent in [*self.agents.values(), *self.clones]:
            self.problems += agent.wrong
            self.problems += [f"{name} is nobody's" for name in agent.runs if name not in known]
            for reason, times in agent.refused.items():
                self.counts[f"agents refused {reason}"] += times
                ear = agent.machine.ear
                if ear is None or reason != "replayed_nonce" or times > ear.repeated:
                    self.problems.append(f"{agent.agent_id} refused {reason} {times} times")

    def _check_dials(self) -> None:
        """Whatever happens, an agent backs off."""
        for agent in [*self.agents.values(), *self.clones]:
            for dials in agent.dials:
                for first, later in zip(dials, dials[MOST_DIALS:], strict=False):
                    if later - first < DIAL_SPAN:
                        self.problems.append(
                            f"{agent.agent_id} dialled {MOST_DIALS + 1} times in"
                            f" {later - first:.1f} s, from {first:.1f} s on"
                        )
                        break
