"""Files, tail, takers and checkpoint together: whatever happens, every line is in the bucket once,
and the ledger is right.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.config import AgentConfig
from jetcamer.agent.logs import pipeline as module
from jetcamer.agent.logs.checkpoint import Checkpoint, CheckpointFile
from jetcamer.agent.logs.pipeline import Pipeline
from jetcamer.agent.send_queue import Counters, Outgoing, SendQueue
from tests.agent.logs.archive_world import Bucket, transient, without_syncing
from tests.agent.logs.tail_world import LogFiles, Watches
from tests.agent.logs.test_tail_history import KEEP, NAMES, World
from tests.support.logs import LogsMixin

path = st.sampled_from(NAMES)
happening = st.one_of(
    st.tuples(st.just("write"), path, st.integers(1, 30), st.sampled_from([0, 10, 100])),
    st.tuples(st.just("write"), path, st.integers(1, 30), st.sampled_from([0, 10, 100])),
    st.tuples(st.just("part"), path, st.integers(1, 90)),
    st.tuples(st.just("rename"), path, st.booleans()),
    st.tuples(st.just("copy"), path),
    st.tuples(st.just("delete"), path),
    st.tuples(st.just("wait"), st.sampled_from([0.25, 0.5, 1, 3, 12, 70])),
    st.tuples(st.just("link"), st.sampled_from(["open", "closed", "full"])),
    st.tuples(st.just("faults"), st.lists(st.sampled_from(["fail", "lose", "hang"]), max_size=3)),
    st.tuples(st.just("hung"), st.booleans()),
    st.tuples(st.just("credentials"), st.booleans()),
    st.tuples(st.just("restart")),
    st.tuples(st.just("kill")),
)


class Machine(LogFiles):
    """One with log files; the agent's part of it can be stopped, killed and started again."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder)
        self.folder = folder
        self.clock = Clock()
        self.bucket = Bucket()
        #: Messages of lines that the server got.
        self.received: list[str] = []
        self.said: list[tuple[str, str, str | None]] = []
        self.killed = False
        self.link = "open"
        self.credentials = True
        self.pipeline: Pipeline | None = None

    def start(self) -> None:
        self.queue = SendQueue(Counters())
        self.watches = Watches()
        file = CheckpointFile(self.path("state"))
        self.pipeline = Pipeline(
            self.clock,
            AgentConfig(
                state_dir=self.path("state"),
                collector_max_batch_size=10,
                collector_flush_interval_seconds=2,
                log_lines_per_second=40,
            ),
            [self.path("*.log")],
            file=file,
            restored=file.load() or Checkpoint(),
            archive_as="machine",
            queue=self.queue,
            say=lambda *words: self.said.append(words),
            metadata=dict,
            now=lambda: time.time() + self.clock.seconds(),
            watcher=self.watches,
        )
        self.pipeline.start()
        self.use_link(self.link)
        self.use_credentials(self.credentials)

    def use_link(self, state: str) -> None:
        assert self.pipeline is not None
        self.link = state
        self.queue.close()
        if state != "closed":
            self.queue.open(self.written)
        if state == "full":
            self.queue.producer.pauseProducing()
        self.pipeline.live.link_changed()

    def written(self, outgoing: Outgoing) -> None:
        payload = json.loads(outgoing.payload)
        if not payload["message"].startswith("…"):
            self.received.append(payload["message"])
        self.queue.sent(outgoing)

    def use_credentials(self, there: bool) -> None:
        assert self.pipeline is not None
        self.credentials = there
        self.pipeline.use(self.bucket if there else None)

    def kill(self) -> None:
        """SIGKILL: nothing more is written or said."""
        self.killed = True
        before, self.clock = self.clock, Clock()
        self.clock.advance(before.seconds())
        self._forget()

    def stop(self) -> None:
        """SIGTERM."""
        assert self.pipeline is not None
        failures: list[Any] = []
        stopped = Deferred.fromCoroutine(self.pipeline.stop()).addErrback(failures.append)
        self.clock.advance(1)
        assert stopped.called
        assert failures == []
        assert self.clock.getDelayedCalls() == []
        self._forget()

    def _forget(self) -> None:
        for fd in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{fd}").startswith(self.folder):
                    os.close(int(fd))
            except OSError:
                continue
        self.pipeline = None
        self.bucket.hanging.clear()

    def wait(self, seconds: float) -> None:
        while seconds > 0:
            self.clock.advance(min(0.25, seconds))
            for _ in range(20):
                now = self.clock.seconds()
                if all(call.getTime() > now for call in self.clock.getDelayedCalls()):
                    break
                self.clock.advance(0)
            seconds -= 0.25

    def see(self) -> None:
        """The agent notices what is there, and the checkpoint has it."""
        self.watches.fire()
        self.wait(10.5)  # a new file is found by the next scan


class PipelineTests(LogsMixin, SynchronousTestCase):
    def setUp(self) -> None:
        self.capture_logs()
        without_syncing(self)
        self.patch(module, "run_in_thread", lambda reactor, call, name: maybeDeferred(call))

    @settings(
        max_examples=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(story=st.lists(happening, min_size=6, max_size=40))
    def test_every_line_is_in_the_bucket_once_and_the_ledger_is_right(
        self, story: list[Any]
    ) -> None:
        machine = Machine(os.path.realpath(self.mktemp()))
        world = World(machine)  # type: ignore[arg-type]
        for name in NAMES:
            machine.write(name, "")
        machine.start()
        machine.wait(1)
        try:
            for what, *how in story:
                self.happen(machine, world, what, *how)
            self.finish(machine, world)
            machine.stop()
            self.check(machine, Counter(world.lines()))
        except AssertionError as error:  # trial does not show what hypothesis has to add
            raise AssertionError(f"{story!r}: {error}") from None
        finally:
            if machine.pipeline is not None:
                machine.stop()

    def happen(self, machine: Machine, world: World, what: str, *how: Any) -> None:
        if what in {"write", "part"}:
            getattr(world, what)(*how)
        elif what in {"rename", "copy", "delete"}:
            if what == "delete" or os.path.exists(machine.path(f"{how[0]}.{KEEP}")):
                machine.see()  # nobody misses what nobody saw
            getattr(world, what)(*how)
            machine.see()
        elif what == "wait":
            machine.wait(*how)
        elif what == "link":
            machine.use_link(*how)
        elif what == "credentials":
            machine.use_credentials(*how)
        elif what == "faults":
            faults = {"fail": transient(), "lose": ("lose", transient()), "hang": "hang"}
            machine.bucket.faults += [faults[fault] for fault in how[0]]
        elif what == "hung":
            for key in tuple(machine.bucket.hanging):
                (machine.bucket.land if how[0] else machine.bucket.drop)(key)
        else:
            (machine.kill if what == "kill" else machine.stop)()
            machine.start()
        machine.watches.fire()

    def finish(self, machine: Machine, world: World) -> None:
        for name in NAMES:
            world.write(name, 1, 0)
        machine.bucket.faults.clear()
        for key in tuple(machine.bucket.hanging):
            machine.bucket.land(key)
        machine.use_link("open")
        machine.use_credentials(False)
        machine.use_credentials(True)
        machine.see()
        machine.wait(300)
        machine.see()

    def check(self, machine: Machine, written: Counter[str]) -> None:
        self.assertEqual(machine.bucket.lines(), written)
        machine.start()
        assert machine.pipeline is not None
        totals = machine.pipeline.totals()
        machine.stop()
        self.assertEqual(totals["archived"], written.total())
        self.assertEqual((totals["givenUp"], totals["missedBytes"], totals["rejected"]), (0, 0, 0))
        self.assertEqual(totals["sent"] + totals["suppressed"], written.total())
        received = Counter(machine.received)
        self.assertLessEqual(set(received), set(written))
        if not machine.killed:
            self.assertEqual(received.total(), totals["sent"])
            self.assertLessEqual(received, written)
        self.assertEqual(
            os.listdir(machine.path("state")),
            ["logs.checkpoint.json"]
            + (["spool"] if os.path.exists(machine.path("state/spool")) else []),
        )
