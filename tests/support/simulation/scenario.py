"""What befalls a fleet and its hub, drawn from a seed, and what must hold all the same.

In: a seed and a size. Out: `problems`, one line for each thing that was not as it must be; what
happened, in `history`. Each agent's events are drawn by a generator of its own, so that a run can
be had again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from twisted.python.failure import Failure

from jetcamer.hub.records import CommandRecord
from jetcamer.hub.registry import CommandError
from tests.support.simulation.agents import SimulatedAgent
from tests.support.simulation.checks import (
    ALWAYS_WRONG,
    ARRIVING,
    LEAVES,
    QUIET,
    TROUBLED,
    WRONG_CLOCK,
    Checks,
)
from tests.support.simulation.eavesdropper import Eavesdropper, say_again
from tests.support.simulation.hub import Disk, Hub
from tests.support.simulation.network import MachineReactor
from tests.support.simulation.observer import Command

#: Seconds between two comparisons of the registry with the truth.
LOOKS_EVERY = 4.0

#: One in so many of these looks is at every timer.
TIMERS_EVERY = 3


class Simulation(Checks):
    """See the module's text. `run` once."""

    def __init__(self, seed: int, size: int) -> None:
        super().__init__(seed)
        self._troubled: list[tuple[float, SimulatedAgent]] = []
        self._looks = 0
        for number in range(size):
            self._make_agent(number)
        self.disk = Disk({agent.agent_id: agent.secret for agent in self.agents.values()})

    # Drawing.

    def _make_agent(self, number: int) -> None:
        random = Random(f"{self.seed}/{number}")
        machine = self.network.machine(f"10.{1 + number // 250}.{number % 250}.7", random)
        agent_id = f"agent-{number}"
        skew = random.choice((0.0, random.uniform(-4, 4), random.uniform(-200, 200)))
        if number % WRONG_CLOCK == 3:
            skew = random.choice((-1, 1)) * random.uniform(320, 4000)
            self._wrong_clocks.add(agent_id)
        agent = SimulatedAgent(machine, agent_id, f"secret of {agent_id}", skew, random)
        agent.on_closed = self._closed
        self.agents[agent_id] = agent
        self._at(random.uniform(0, ARRIVING), agent.start)
        end = ARRIVING + TROUBLED
        if agent_id in self._wrong_clocks:
            if number % ALWAYS_WRONG != 3:
                self._at(random.uniform(40, end), self._correct_clock, agent)
        elif number % LEAVES == 1:
            self._at(random.uniform(20, end), self._leave, agent)
        elif number % 4 == 0:
            self._draw_trouble(agent, random, end)
        if number % 20 == 8:
            self._listen_in(agent)
            self._at(random.uniform(20, end), self._say_again, agent)

    def _draw_trouble(self, agent: SimulatedAgent, random: Random, end: float) -> None:
        for _ in range(random.choice((1, 1, 2, 3))):
            when = random.uniform(15, end - 40)
            what = random.choice(
                (
                    self._partition,
                    self._partition,
                    self._half_open,
                    self._linger,
                    self._linger,
                    self._restart,
                    self._crash,
                    self._flap,
                    self._clone,
                    self._set_clock_back,
                )
            )
            self._at(when, what, agent)
            self._troubled.append((when, agent))

    def _draw_commands(self, count: int) -> None:
        """Half to anybody at any time, half to agents that something happens to just then."""
        random = self.random
        agents = list(self.agents.values())
        end = ARRIVING + TROUBLED + QUIET - 40
        for number in range(count):
            if number % 2 and self._troubled:
                moment, agent = random.choice(self._troubled)
                when = max(5.0, moment + random.uniform(-6, 6))
            else:
                when, agent = random.uniform(5, end), random.choice(agents)
            seconds = random.choice((0.0, 0.3, 3.0, 20.0))
            # Every third may wait for an agent that is away, some for longer than it is.
            queue_seconds = random.choice((5.0, 60.0, 300.0)) if number % 3 == 0 else None
            self._at(when, self._command, Command(f"c{number}", agent), seconds, queue_seconds)

    def _at(self, when: float, what: Callable[..., object], *arguments: object) -> None:
        self.time.callLater(when, what, *arguments)

    def _in(self, delay: float, what: Callable[..., object], *arguments: object) -> None:
        self.time.callLater(delay, what, *arguments)

    def _note(self, what: str, agent: SimulatedAgent | None = None) -> None:
        self.counts[what] += 1
        self.history.append((self.time.now, what, "" if agent is None else agent.agent_id))

    # What can happen to an agent.

    def _partition(self, agent: SimulatedAgent) -> None:
        """One direction or both, held or lost, for a moment or longer than anybody waits."""
        random = agent.random
        up, down = random.choice(
            (
                ("held", "held"),
                ("held", "flows"),
                ("flows", "held"),
                ("lost", "lost"),
                ("lost", "flows"),
                ("flows", "lost"),
            )
        )
        self._note(f"partition {up}/{down}", agent)
        self._disturbed.add(agent.machine.address)
        agent.machine.set(up, down)
        self._in(random.choice((2, 15, 45, 60)), self._heal, agent, random.random() < 0.3)

    def _heal(self, agent: SimulatedAgent, resets: bool) -> None:
        agent.machine.set("flows", "flows")
        if resets:
            agent.machine.reset()

    def _half_open(self, agent: SimulatedAgent) -> None:
        """One end loses its connection; the other hears nothing of it."""
        self._note("half open", agent)
        self._disturbed.add(agent.machine.address)
        for wire in list(agent.machine.wires):
            wire.up.broken = wire.down.broken = True
            end = wire.client if agent.random.random() < 0.7 else wire.server
            if end is not None:
                end.vanish()

    def _linger(self, agent: SimulatedAgent) -> None:
        """An old connection's last bytes and its end come when a newer one is there."""
        self._note("linger", agent)
        self._disturbed.add(agent.machine.address)
        for wire in list(agent.machine.wires):
            if wire.client is None:
                continue
            wire.stuck = True
            if agent.process is not None:
                for number in range(3):
                    line = f"late {number} {agent.ordinal} at {self.time.now}"
                    agent.process.link.send_log("info", line)
            wire.client.vanish(last_word=True)
            self._in(agent.random.uniform(1, 20), wire.unstick)

    def _restart(self, agent: SimulatedAgent) -> None:
        self._note("restart", agent)
        agent.stop()
        self._in(agent.random.choice((3.0, 20.0)), agent.start)

    def _crash(self, agent: SimulatedAgent) -> None:
        self._note("crash", agent)
        self._disturbed.add(agent.machine.address)
        agent.crash(quietly=agent.random.random() < 0.5)
        self._in(agent.random.choice((0.5, 5.0, 20.0)), agent.start)

    def _leave(self, agent: SimulatedAgent) -> None:
        """For good: stopped, dead without a word, or cut off."""
        how = agent.random.choice(("stopped", "dead", "cut off"))
        self._note(f"leaves {how}", agent)
        if how == "stopped":
            agent.stop()
        elif how == "dead":
            agent.crash(quietly=True)
        else:
            agent.machine.set("lost", "lost")
            self._disturbed.add(agent.machine.address)

    def _flap(self, agent: SimulatedAgent) -> None:
        self._note("flap", agent)
        moment = 0.0
        for _ in range(6):
            moment += agent.random.uniform(0.05, 6)
            self._in(moment, agent.machine.reset)

    def _clone(self, agent: SimulatedAgent) -> None:
        """Another machine with the same id and secret, for some time."""
        self._note("clone", agent)
        random = Random(f"{self.seed}/{agent.agent_id}/clone")
        address = agent.machine.address.removesuffix(".7") + ".8"
        machine = self.network.machine(address, random)
        clone = SimulatedAgent(machine, agent.agent_id, agent.secret, agent.skew, random)
        clone.ordinal = 5000
        clone.on_closed = self._closed
        self.clones.append(clone)
        clone.start()
        self._in(random.uniform(5, 30), clone.stop)

    def _set_clock_back(self, agent: SimulatedAgent) -> None:
        self._note("clock set back", agent)
        self._set_back.add(agent.agent_id)
        agent.skew -= agent.random.uniform(0, 20)

    def _correct_clock(self, agent: SimulatedAgent) -> None:
        self._note("clock corrected", agent)
        agent.skew = agent.random.uniform(-2, 2)

    # What a stranger can do.

    def _listen_in(self, agent: SimulatedAgent) -> None:
        ear = Eavesdropper(self.time)
        agent.machine.ear = ear
        # A process that has no memory of what another ran can be told it again.
        agent.on_start = ear.commands.clear

    def _say_again(self, agent: SimulatedAgent) -> None:
        """A connection of the stranger's own, with an `auth` that was heard."""
        ear = agent.machine.ear
        if ear is None or not ear.auths or ear.auths[-1][0] > self.time.now - 5:
            return
        self._note("auth said again", agent)
        address = agent.machine.address.removesuffix(".7") + ".66"
        self._strangers.add(address)
        say_again(self.network, address, ear.auths[-1][1])

    # What the operator does.

    def _command(
        self, command: Command, seconds: float, queue_seconds: float | None = None
    ) -> None:
        self.commands.append(command)
        if self.hub is None:
            command.failure = "no hub"
            return
        agent_id = command.agent.agent_id
        args = {"id": command.command_id, "for": agent_id, "seconds": str(seconds)}
        done = self.hub.command(agent_id, args, queue_seconds)
        done.addCallbacks(self._answered, self._unanswered, (command,), None, (command,))

    def _answered(self, record: CommandRecord, command: Command) -> None:
        """What became of it, or that it waits: then the disk knows more later."""
        if command.record is not None or command.failure is not None:
            self.problems.append(f"{command.command_id} was answered twice")
        command.record = record

    def _unanswered(self, failure: Failure, command: Command) -> None:
        failure.trap(CommandError)
        command.failure = f"{type(failure.value).__name__}: {failure.value}"

    # What happens to the hub.

    def _start_hub(self) -> None:
        self._note("hub starts")
        self._connected.clear()
        self.hub = Hub(self.network, self.disk, self)
        self.hub.start()
        if self.time.now:
            # Nobody is back yet, and some are asked for something already.
            for number in range(len(self.agents) // 20):
                agent = self.random.choice(list(self.agents.values()))
                command = Command(f"q{len(self.history)}-{number}", agent)
                self._in(self.random.uniform(0.05, 1.5), self._command, command, 0.3, 60.0)

    def _restart_hub(self) -> None:
        assert self.hub is not None
        self._note("hub drains")
        self.hub.stop().addCallback(self._hub_stopped)

    def _hub_stopped(self, _: object) -> None:
        assert self.hub is not None
        left = self.hub.reactor.getDelayedCalls()
        if left:
            self.problems.append(f"timers of a hub that stopped: {left[:3]}")
        if list(self.hub.present()):
            self.problems.append("agents are present in a hub that stopped")
        self.hub = None
        self._in(self.random.uniform(0.3, 1.5), self._start_hub)

    def _crash_hub(self, quietly: bool) -> None:
        if self.hub is None:  # it is away just now
            self._in(1.0, self._crash_hub, quietly)
            return
        self._note("hub crashes")
        self.hub.crash(quietly)
        self.hub = None
        self._in(self.random.uniform(0.3, 1.5), self._start_hub)

    # The run.

    def run(self) -> None:
        troubled = ARRIVING + TROUBLED
        self._start_hub()
        self._at(self.random.uniform(22, 26), self._restart_hub)
        # While the fleet comes back from the restart, or when all is calm again.
        when = self.random.choice((self.random.uniform(29, 31), self.random.uniform(42, 46)))
        self._at(when, self._crash_hub, self.random.random() < 0.5)
        self._draw_commands(len(self.agents))
        self._advance(troubled)
        self._end_troubles()
        self._advance(troubled + QUIET)
        self._check_truth()
        self._stop()
        self._check_commands()
        self._check_dials()

    def _advance(self, until: float) -> None:
        while self.time.now < until:
            self.time.advance_to(min(until, self.time.now + LOOKS_EVERY))
            self._check_present()
            self._check_connected()
            self._looks += 1
            if self._looks % TIMERS_EVERY == 0:
                self._check_timers()
            if self.hub is not None:
                self.most_open = max(self.most_open, len(self._connected))

    def _end_troubles(self) -> None:
        """What was drawn has happened, or is ended now; who left stays away."""
        for agent in self.agents.values():
            left = agent.machine.up == "lost" and agent.machine.down == "lost"
            if not left or int(agent.agent_id.removeprefix("agent-")) % LEAVES != 1:
                agent.machine.set("flows", "flows")

    def _stop(self) -> None:
        """All agents, then the hub: nothing may be left."""
        waiting = []
        for agent in [*self.agents.values(), *self.clones]:
            agent.machine.set("flows", "flows")
            waiting.append(agent.stop())
        self._advance(self.time.now + 5)
        if not all(each.called for each in waiting):
            self.problems.append("an agent does not stop")
        left = [
            call for call in self.time.getDelayedCalls() if isinstance(call.owner, MachineReactor)
        ]
        if left:
            self.problems.append(f"{len(left)} timers of agents that stopped: {left[:3]}")
        hub, self.hub = self.hub, None
        assert hub is not None
        self._advance(self.time.now + 1)
        if list(hub.present()):
            self.problems.append(f"ghosts: {list(hub.present())[:5]}")
        stopped = hub.stop()
        self._advance(self.time.now + 10)
        if not stopped.called:
            self.problems.append("the hub does not stop")
        timers = self.time.getDelayedCalls()
        if timers:
            self.problems.append(f"{len(timers)} timers are left: {timers[:3]}")
        if self.network.connections:
            self.problems.append(f"{len(self.network.connections)} connections are left")
