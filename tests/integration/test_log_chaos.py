"""Everything goes wrong, in an order that hypothesis draws from a seed; and every line is in the
bucket, once.

Real processes: the agent is killed with SIGKILL, files are rotated under it, and between it and
moto's S3 stands a proxy that fails. A failure prints the seed; ``JETCAMER_CHAOS_SEED`` plays it
again, ``JETCAMER_CHAOS_STORIES`` plays more of them.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from random import SystemRandom
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.integration.test_log_shipping import ShippingCase
from tests.support.shipping import Shipping, access_line

FAULTS = ("refuse", "cut", "500", "503", "hang", "lost", "slow")

STEP = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(["a", "b"]), st.integers(1, 400)),
    st.tuples(st.just("write"), st.sampled_from(["a", "b"]), st.integers(1, 400)),
    st.tuples(st.just("part"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("rename"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("copy"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("faults"), st.lists(st.sampled_from(FAULTS), min_size=1, max_size=3)),
    st.tuples(st.just("outage"), st.booleans()),
    st.tuples(st.just("wait"), st.floats(0.05, 1.5)),
    st.tuples(st.just("kill"), st.floats(0, 0.4)),
    st.tuples(st.just("restart"), st.floats(0, 0.4)),
)

Story = list[tuple[Any, ...]]


def draw(number: int, count: int) -> list[Story]:
    """So many stories, by the seed `number`."""
    stories: list[Story] = []

    @seed(number)
    @settings(
        max_examples=count + 1,  # the first one is always the simplest there is
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(STEP, min_size=14, max_size=18))
    def collect(story: Story) -> None:
        stories.append(story)

    collect()
    return stories[-count:]


class Files:
    """What is written, and to which file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.written: list[str] = []
        self.part: dict[str, str] = {}
        for name in ("a", "b"):
            self.path(name).touch()

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def append(self, name: str, text: str) -> None:
        with self.path(name).open("a", encoding="utf-8") as log:
            log.write(text)

    def line(self) -> str:
        self.number += 1
        self.written.append(str(self.number))
        return access_line(str(self.number))

    def finish_part(self, name: str) -> None:
        if name in self.part:
            self.append(name, self.part.pop(name))

    def write(self, name: str, count: int) -> None:
        self.finish_part(name)
        self.append(name, "".join(self.line() for _ in range(count)))

    def write_part(self, name: str) -> None:
        self.finish_part(name)
        line = self.line()
        self.append(name, line[:40])
        self.part[name] = line[40:]

    def shift(self, name: str) -> None:
        self.finish_part(name)
        for number in range(30, 0, -1):
            old = self.folder / f"{name}.log.{number}"
            if old.exists():
                old.rename(self.folder / f"{name}.log.{number + 1}")

    def rename(self, name: str) -> None:
        self.shift(name)
        self.path(name).rename(self.folder / f"{name}.log.1")
        self.path(name).touch()

    def copy(self, name: str) -> None:
        self.shift(name)
        shutil.copyfile(self.path(name), self.folder / f"{name}.log.1")
        os.truncate(self.path(name), 0)


class ChaosTests(ShippingCase):
    timeout = 300

    async def play(self, story: Story) -> None:
        shipping = self.ship(collectorMaxBatchSize=50)
        files = Files(shipping.logs)
        await shipping.start()
        await shipping.following("a.log", "b.log")
        for what, *how in story:
            await self.happen(shipping, files, what, *how)
        files.finish_part("a")
        files.finish_part("b")
        shipping.proxy.faults.clear()
        shipping.proxy.mode = "ok"
        # A credential is looked at again, which ends a back-off of up to a minute.
        await shipping.kill()
        await shipping.start()
        status = await shipping.archived(len(files.written))
        self.assertEqual(Counter(await shipping.paths()), Counter(files.written))
        self.assertEqual(status["totals"]["archived"], len(files.written))
        self.assertEqual(status["totals"]["givenUp"], 0)
        self.assertEqual(status["totals"]["missedBytes"], 0)

    async def happen(self, shipping: Shipping, files: Files, what: str, *how: Any) -> None:
        if what == "write":
            files.write(*how)
        elif what == "part":
            files.write_part(*how)
        elif what == "rename":
            files.rename(*how)
        elif what == "copy":
            files.copy(*how)
        elif what == "faults":
            shipping.proxy.faults.extend(*how)
        elif what == "outage":
            shipping.proxy.mode = "503" if how[0] else "ok"
        elif what == "wait":
            await deferLater(reactor, how[0])
        elif what == "kill":
            await shipping.kill()
            await deferLater(reactor, how[0])
            await shipping.start()
        else:
            await shipping.terminate()
            self.assertEqual(shipping.agent.exit_code, 0)
            await deferLater(reactor, how[0])
            await shipping.start()

    async def test_every_line_is_in_the_bucket_once(self) -> None:
        number = int(os.environ.get("JETCAMER_CHAOS_SEED") or SystemRandom().randrange(1 << 32))
        count = int(os.environ.get("JETCAMER_CHAOS_STORIES") or 1)
        for story in draw(number, count):
            try:
                await self.play(story)
            except Exception as error:
                words = f"JETCAMER_CHAOS_SEED={number} JETCAMER_CHAOS_STORIES={count}: {story}"
                raise AssertionError(f"{words}\n{error}") from error
