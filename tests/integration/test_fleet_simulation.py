"""Two thousand agents and a hub, all of it the project's own code, on simulated time and wires.

What happens is drawn from a seed; a failure prints it, and JETCAMER_SEED runs it again.
"""

from __future__ import annotations

import gc
import os
import random

from autobahn.websocket import protocol as autobahn_protocol
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.support.simulation.scenario import Simulation

#: Agents of the fleet, and connections that must have been open at once.
FLEET = 2060
OPEN_AT_ONCE = 2000

#: Agents of a fleet that is run twice.
SMALL_FLEET = 60

SEED = 20_261_123


def _say_nothing(*ignored: object, **values: object) -> None: ...


class FleetSimulationTests(SynchronousTestCase):
    def setUp(self) -> None:
        # A hundred thousand lines that nobody reads; what went wrong still counts.
        for name in ("debug", "info", "warn"):
            self.patch(Logger, name, _say_nothing)
        # What Autobahn paints for a log that is off is a third of the agents' time.
        for name in ("pformat", "hltype", "hlval"):
            self.patch(autobahn_protocol, name, str)
        self.addCleanup(random.setstate, random.getstate())
        # Going through all these objects again and again takes another third, and frees nothing.
        gc.disable()
        self.addCleanup(gc.enable)

    def run_seed(self, seed: int, size: int) -> Simulation:
        """One run, its waits and the hub's own chances drawn from `seed`."""
        random.seed(seed)
        simulation = Simulation(seed, size)
        simulation.run()
        problems = simulation.problems + [
            error.getTraceback() for error in self.flushLoggedErrors()
        ]
        if problems:
            more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
            lines = "\n  ".join(problems[:20])
            self.fail(
                f"JETCAMER_SEED={seed}: {len(problems)} problems in a fleet of {size}:"
                f"\n  {lines}{more}\n{dict(simulation.counts)}"
            )
        return simulation

    def test_the_hub_knows_the_truth_and_no_command_runs_twice(self) -> None:
        simulation = self.run_seed(int(os.environ.get("JETCAMER_SEED", SEED)), FLEET)
        self.assertGreaterEqual(simulation.most_open, OPEN_AT_ONCE)
        # That it was no calm sea: each kind of thing has happened, each end a command may have.
        for kind in KINDS:
            self.assertIn(kind, simulation.counts)

    def test_a_seed_draws_the_same_again(self) -> None:
        first = self.run_seed(SEED, SMALL_FLEET)
        again = self.run_seed(SEED, SMALL_FLEET)
        self.assertEqual(first.history, again.history)
        self.assertEqual(first.counts, again.counts)


#: What a run of the whole fleet holds, whatever the seed.
KINDS = (
    "half open",
    "linger",
    "flap",
    "clone",
    "restart",
    "crash",
    "hub drains",
    "hub crashes",
    "clock corrected",
    "clock set back",
    "auth said again",
    "leaves cut off",
    "refused invalid_timestamp",
    "refused replayed_nonce",
    "agents refused replayed_nonce",
    "commands done",
    "commands lost",
    "commands queued",
    "commands expired",
    "commands NotConnectedError",
)
