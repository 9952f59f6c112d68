"""Lines written under load while Debian's logrotate rotates: none is lost, none comes twice."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from tests.integration.test_log_shipping import ShippingCase
from tests.support.line_process import LineProcess
from tests.support.shipping import Shipping, access_line
from tests.support.tools import require_program

REQUEST = re.compile(r'"GET /(\S+) HTTP')


async def run(*argv: str) -> str:
    """What the program printed. Fails where it ends with another status than 0."""
    out, err, code = await getProcessOutputAndValue(argv[0], argv[1:], env=None)
    if code:
        raise AssertionError(f"{argv}: status {code}: {(out + err).decode()}")
    return out.decode()


class Logrotate:
    """Debian's, with a configuration and a state of its own.

    :param how: further lines of the configuration of the one file.
    """

    def __init__(self, file: Path, *how: str) -> None:
        self._program = require_program("logrotate")
        self._config = file.parent.parent / f"{file.name}.logrotate.conf"
        self._state = file.parent.parent / f"{file.name}.logrotate.state"
        lines = ["rotate 20", "missingok", "su root root", *how]
        self._config.write_text(f"{file} {{\n" + "\n".join(f"  {line}" for line in lines) + "\n}\n")
        self._config.chmod(0o600)
        file.parent.chmod(0o755)

    async def rotate(self) -> None:
        await run(self._program, "--force", "--state", str(self._state), str(self._config))


def requested(shipping: Shipping) -> list[str]:
    """The requested paths in all files of the folder of logs, sorted."""
    text = "".join(path.read_text("utf-8") for path in shipping.logs.iterdir())
    return sorted(REQUEST.findall(text))


def pause(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)


class Way:
    """A file that is written, and rotated in one way.

    :param how: lines of logrotate's configuration.
    :param follow_name: it is opened anew by its name now and then, as by a daemon that is told to.
    :param every: so many lines.
    """

    def __init__(self, name: str, *how: str, follow_name: bool = True, every: int = 300) -> None:
        self.name, self.how, self.follow_name, self.every = name, how, follow_name, every
        self.written: list[str] = []

    def begin(self, logs: Path) -> None:
        self.file = logs / f"{self.name}.log"
        self.log = self.file.open("a", encoding="utf-8")
        self._logrotate = Logrotate(self.file, *self.how)

    async def write(self, number: int) -> None:
        """A line, and a rotation where it is time for one."""
        if self.follow_name and not number % 50:
            self.log.close()
            self.log = self.file.open("a", encoding="utf-8")
        line = f"{self.name}-{number}"
        self.log.write(access_line(line))
        self.log.flush()
        self.written.append(line)
        if not number % self.every:
            # Names with dates differ by the second.
            await pause(1 if "dateext" in self.how else 0)
            await self._logrotate.rotate()


class LogrotateTests(ShippingCase):
    """A writer of ours, so that it is known what was written."""

    async def ship_and_rotate(self, *ways: Way, killed: bool) -> None:
        shipping = self.ship()
        for way in ways:
            way.begin(shipping.logs)
        await shipping.start()
        await shipping.following(*(way.file.name for way in ways))
        for number in range(1, 1501):
            for way in ways:
                await way.write(number)
            if not number % 20:
                await pause(0.01)
            if number == 700 and killed:
                await shipping.kill()
            if number == 1100 and killed:
                await shipping.start()
        for way in ways:
            way.log.close()
        written = [line for way in ways for line in way.written]
        status = await shipping.archived(len(written))
        self.assertEqual(await shipping.paths(), sorted(written))
        self.assertEqual(status["totals"]["archived"], len(written))
        self.assertEqual(status["totals"]["missedBytes"], 0)
        self.assertEqual(status["totals"]["givenUp"], 0)

    async def test_renaming_with_and_without_dates_and_copytruncate(self) -> None:
        """Three files, each rotated in its way, of an agent that is killed and started again."""
        await self.ship_and_rotate(
            Way("numbers", "create"),
            Way("dates", "create", "dateext", "dateformat -%Y%m%d-%s", every=500),
            Way("copies", "copytruncate", follow_name=False),
            killed=True,
        )

    async def test_renaming_with_compression(self) -> None:
        # Not killed: what is compressed while nobody looks is gone.
        await self.ship_and_rotate(
            Way("access", "create", "compress", "delaycompress"), killed=False
        )


NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.txt;
events {{ worker_connections 256; }}
http {{
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  access_log {folder}/logs/access.log combined;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok\\n"; }} }}
}}
"""

#: Each request asks for another path, on each connection some hundred a second.
WRK = """
local thread = 0
function setup(t) t:set("id", thread); thread = thread + 1 end
function delay() return 2 end
local n = 0
function request()
  n = n + 1
  return wrk.format("GET", "/" .. id .. "-" .. n)
end
"""


class Nginx(LineProcess[str]):
    """A real one, as our user, logging to ``logs/access.log`` in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(reactor)
        self._program = require_program("nginx")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config = folder / "nginx.conf"
        self._config.write_text(NGINX.format(folder=folder, port=self.port))
        self.pid_file = folder / "nginx.pid"

    def parse(self, line: str) -> str:
        return line

    def quit(self) -> Deferred[None]:
        """Requests that are being answered are, and logged."""
        if self.transport is not None and self.exit_code is None:
            self.signal("QUIT")
            return self.when_ended()
        return succeed(None)

    async def start(self) -> None:
        self.spawn([self._program, "-p", str(self._config.parent), "-c", str(self._config)])
        while not (self.pid_file.exists() and self.pid_file.read_text().strip()):
            await pause(0.02)


class NginxTests(ShippingCase):
    async def test_under_load_and_rotated(self) -> None:
        wrk = require_program("wrk")
        shipping = self.ship("access.log", collectorMaxBatchSize=5000)
        nginx = Nginx(shipping.folder)
        self.addCleanup(nginx.quit)
        script = shipping.folder / "wrk.lua"
        script.write_text(WRK)
        logrotate = Logrotate(
            shipping.logs / "access.log",
            "create",
            "sharedscripts",
            "postrotate",
            f"kill -USR1 $(cat {nginx.pid_file})",
            "endscript",
        )
        await nginx.start()
        await shipping.start()
        await shipping.following("access.log")
        url = f"http://127.0.0.1:{nginx.port}"
        load = run(wrk, "-t2", "-c4", "-d3s", "-s", str(script), url)
        done = Deferred.fromCoroutine(load)
        for _ in range(4):
            await pause(0.6)
            await logrotate.rotate()
        await done
        await nginx.quit()
        written = requested(shipping)
        self.assertGreater(len(written), 1000)
        self.assertEqual(len(set(shipping.logs.iterdir())), 5)
        status = await shipping.archived(len(written))
        self.assertEqual(await shipping.paths(), written)
        self.assertEqual(status["totals"]["archived"], len(written))
        self.assertEqual(status["totals"]["unmatched"], 0)
        self.assertEqual(status["totals"]["missedBytes"], 0)
