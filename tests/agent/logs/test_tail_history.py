"""Whatever happens to files, in any order: each line arrives once, and what is lost is counted."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.agent.logs.tail_world import TailCase

NAMES = ("a.log", "b.log")
KEEP = 4

path = st.sampled_from(NAMES)
happening = st.one_of(
    st.tuples(st.just("write"), path, st.integers(1, 5), st.sampled_from([0, 10, 100, 400])),
    st.tuples(st.just("part"), path, st.integers(1, 90)),
    st.tuples(st.just("late"), path),
    st.tuples(st.just("rename"), path, st.booleans()),
    st.tuples(st.just("copy"), path),
    st.tuples(st.just("delete"), path),
    st.tuples(st.just("compress"), path),
    st.tuples(st.just("age")),
    st.tuples(st.just("wait"), st.sampled_from([0.25, 0.5, 1, 3, 6, 12, 70])),
    st.tuples(st.just("pause")),
    st.tuples(st.just("upload"), st.integers(1, 3)),
    st.tuples(st.just("resume")),
    st.tuples(st.just("store")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("down"), st.lists(st.integers(0, 3), max_size=4)),
)


class World:
    """The files' true story: what was in each from its birth to its end."""

    def __init__(self, case: TailCase) -> None:
        self.case = case
        self.number = 0
        self.now = dict.fromkeys(NAMES, "")
        self.over: list[str] = []
        #: Of the newest rotated file that its writer may still have open: its place in `over`.
        self.late: dict[str, int] = {}
        self.rotated_at: dict[str, float] = {}

    def text(self, size: int) -> str:
        self.number += 1
        return f"{self.number:06}{'x' * size}"

    def write(self, name: str, count: int, size: int) -> None:
        text = "".join(self.text(size) + "\n" for _ in range(count))
        self.case.write(name, text)
        self.now[name] += text

    def part(self, name: str, size: int) -> None:
        text = self.text(size)
        self.case.write(name, text)
        self.now[name] += text

    def write_late(self, name: str) -> None:
        # Later than that, a line of which a part was there has been taken for whole.
        if self.case.clock.seconds() - self.rotated_at.get(name, 0) > 50:
            self.late.pop(name, None)
        if name in self.late and os.path.exists(self.case.path(f"{name}.1")):
            text = self.text(3) + "\n"
            self.case.write(f"{name}.1", text)
            self.over[self.late[name]] += text

    def end(self, name: str) -> None:
        self.over.append(self.now[name])
        self.now[name] = ""

    def shift(self, name: str) -> None:
        case = self.case
        for number in range(KEEP, 0, -1):
            if os.path.exists(case.path(f"{name}.{number}")):
                if number == KEEP:
                    case.remove(f"{name}.{number}")
                else:
                    case.rename(f"{name}.{number}", f"{name}.{number + 1}")

    def rename(self, name: str, create: bool) -> None:
        if os.path.exists(self.case.path(name)):
            self.shift(name)
            self.case.rename(name, f"{name}.1")
            self.end(name)
            self.late[name] = len(self.over) - 1
            self.rotated_at[name] = self.case.clock.seconds()
            if create:
                self.case.write(name, "")

    def copy(self, name: str) -> None:
        if os.path.exists(self.case.path(name)):
            self.shift(name)
            self.case.copy_and_truncate(name, f"{name}.1")
            self.end(name)
            self.late.pop(name, None)

    def delete(self, name: str) -> None:
        if os.path.exists(self.case.path(name)):
            self.case.remove(name)
            self.end(name)

    def compress(self, name: str) -> None:
        for number in range(1, KEEP + 1):
            if os.path.exists(self.case.path(f"{name}.{number}")):
                self.case.rename(f"{name}.{number}", f"{name}.{number}.gz")
                self.case.remove(f"{name}.{number}.gz")
                self.late.pop(name, None)

    def age(self) -> None:
        for name in os.listdir(self.case.folder):
            if not name.endswith(".log"):
                self.case.age(name)
        self.late.clear()

    def lines(self) -> list[str]:
        contents = [*self.over, *self.now.values()]
        return [line for content in contents for line in content.split("\n") if line]


class HistoryCase(TailCase):
    archive = True
    limit = 1 << 30

    def wait(self, seconds: float = 0.25) -> None:
        """A checkpoint follows each change in less than a second."""
        while seconds > 0:
            before = self.changes
            super().wait(min(seconds, 0.5))
            seconds -= 0.5
            if self.changes != before:
                self.store()

    def see(self) -> None:
        """The agent notices what is there: what nobody saw nobody can miss."""
        self.watches.fire()
        self.wait(10.25)

    def happen(self, world: World, what: str, *how: Any) -> None:
        if what == "write":
            world.write(*how)
        elif what == "part":
            world.part(*how)
        elif what == "late":
            world.write_late(*how)
        elif what in {"rename", "copy"}:
            last = os.path.exists(self.path(f"{how[0]}.{KEEP}"))
            if last:
                self.see()
            getattr(world, what)(*how)
            if last:
                self.see()
        elif what in {"delete", "compress"}:
            self.see()
            getattr(world, what)(*how)
            self.see()
        elif what == "age":
            self.see()
            world.age()
        elif what == "wait":
            self.wait(*how)
            if how[0] > 50:
                world.late.clear()
        elif what == "pause":
            self.uploader.paused = True
        elif what == "upload":
            for stream in tuple(self.uploader.streams.values()):
                self.uploader.paused = False
                self.uploader.upload(stream, *how)
                self.uploader.paused = True
        elif what == "resume":
            self.uploader.go_on()
        elif what == "store":
            self.store()
        self.watches.fire()


class CleanRestartTests(HistoryCase):
    """The agent is stopped in order."""

    @settings(
        max_examples=60,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(story=st.lists(happening, min_size=4, max_size=40))
    def test_each_line_arrives_once(self, story: list[Any]) -> None:
        self.end()
        self.fresh()
        for name in NAMES:  # what comes and goes between two scans is never seen
            self.write(name, "")
        self.start()
        world = World(self)
        for what, *how in story:
            if what == "restart":
                self.restart()
            elif what == "down":
                self.store()
                self.die()
                for number in how[0]:
                    name = NAMES[number % 2]
                    world.write(name, 2, 40)
                    if not os.path.exists(self.path(f"{name}.{KEEP}")):
                        (world.copy if number > 1 else lambda name: world.rename(name, True))(name)
                    world.write(name, 1, 70)
                self.start()
            else:
                self.happen(world, what, *how)
        self.check(story, world)
        self.assertEqual(Counter(self.reader.all()), Counter(world.lines()))
        for lines in self.reader.by_stream.values():
            self.assertEqual(lines, sorted(lines))

    def check(self, story: list[Any], world: World) -> None:
        try:
            self.finish(world)
        except AssertionError as error:  # trial does not show what hypothesis has to add
            raise AssertionError(f"{story!r}: {error}") from None

    def finish(self, world: World) -> None:
        for name in NAMES:
            world.write(name, 1, 0)
        self.see()
        self.uploader.go_on()
        self.store()
        self.uploader.go_on()
        self.wait(200)
        self.store()
        self.uploader.go_on()
        self.wait(20)
        self.assertEqual(Counter(self.uploader.all()), Counter(world.lines()))
        for ledger in self.ledgers.values():
            self.assertEqual((ledger.given_up, ledger.missed_bytes), (0, 0))
        self.assertLessEqual(len(self.tail.streams), len(NAMES))
        self.assertEqual(self.spool.used, 0)


class KillTests(CleanRestartTests):
    """The agent is killed; only plans that are on disk are uploaded."""

    @settings(
        max_examples=60,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(story=st.lists(happening, min_size=4, max_size=40))
    def test_each_line_arrives_once(self, story: list[Any]) -> None:
        self.end()
        self.fresh()
        for name in NAMES:  # what comes and goes between two scans is never seen
            self.write(name, "")
        self.uploader.saved = set()
        self.start()
        self.store()
        world = World(self)
        for what, *how in story:
            if what in {"restart", "down"}:
                self.die()
                self.start()
            else:
                self.happen(world, what, *how)
                if what in {"rename", "copy", "delete", "compress"}:
                    self.see()
                    self.store()  # as every change of streams does, within a second
        self.check(story, world)
        self.assertEqual(set(self.reader.all()), set(world.lines()))
