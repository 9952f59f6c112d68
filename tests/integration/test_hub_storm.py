"""A hub that restarts under thousands of agents, which come back by their own policy."""

from __future__ import annotations

from resource import RLIMIT_NOFILE, getrlimit
from unittest import SkipTest

from twisted.internet import reactor
from twisted.logger import Logger

from jetcamer.daemon.limits import raise_file_limit
from tests.support.case import ProcessCase
from tests.support.hub_service import HubService
from tests.support.reconnecting_fleet import FleetProcess

log = Logger()

AGENTS = 5000
SECRET = "the secret that they all share"

#: Seconds from the first connection lost until the last is back.
REQUIRED = 60.0


class HubStormTests(ProcessCase):
    timeout = 180

    def hub(self, folder: str, **config: object) -> HubService:
        hub = HubService(reactor, folder, {"legacySecret": SECRET, **config})
        self.addCleanup(hub.stop)
        return hub

    async def test_all_are_back_within_a_minute_of_a_restart(self) -> None:
        if raise_file_limit() < AGENTS + 200:
            raise SkipTest(f"no {AGENTS} files may be open here: {getrlimit(RLIMIT_NOFILE)}")
        folder = self.mktemp()
        # Only to fill it sooner: the one that they come back to has the default.
        first = await self.hub(folder, handshakesPerSecond=100_000).start()
        fleet = FleetProcess(reactor, first.port, AGENTS, SECRET, per_second=1500).start()
        self.addCleanup(fleet.stop)
        filled = await fleet.online(timeout=REQUIRED)
        self.assertEqual((filled["answers"], filled["codes"]), ({}, {}))
        self.assertEqual((await first.status())["agentsOnline"], AGENTS)

        first.signal("TERM")
        await first.when_ended()
        self.assertEqual(first.exit_code, 0, first.stderr)
        second = self.hub(folder, listen=[f"tcp:{first.port}:interface=127.0.0.1"])
        second.token = first.token
        await second.start()

        back = await fleet.online(since=1, timeout=2 * REQUIRED)
        log.info("the storm: {back}", back=back)
        self.assertLessEqual(back["seconds"], REQUIRED, str(back))
        # Each was told to come again, and those that came too many at once were, with a time.
        self.assertEqual(back["codes"], {"1012": AGENTS}, str(back))
        self.assertEqual(set(back["answers"]), {"503"}, str(back))
        status = await second.status()
        self.assertEqual(status["agentsOnline"], AGENTS)
        self.assertEqual(status["refusals"], {})
