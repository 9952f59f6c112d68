"""What follows log files in a benchmark: our agent, and rsyslog.

Each is started on a folder, says when it has dealt with so many lines, and checks that it was each
of them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from benchmarks.processes import pause, unit_environment
from tests.support.certs import TestCA
from tests.support.hub_process import HubProcess
from tests.support.line_process import LineProcess
from tests.support.s3_sink import S3Sink
from tests.support.twistd import TwistdAgent, http

SECRET = "the secret of a benchmark"

RSYSLOG = """\
global(workDirectory="{work}" maxMessageSize="64k")
module(load="imfile" mode="inotify")
{template}
ruleset(name="taken") {{
{parse}
action(type="omfile" file="{output}" template="out")
}}
input(type="imfile" file="{logs}/*.log" tag="access" addMetadata="off" ruleset="taken")
"""
COPY = 'template(name="out" type="string" string="%msg%\\n")'
TO_JSON = """\
module(load="mmnormalize")
template(name="out" type="list" option.jsonf="on") {
    property(outname="ip" name="$!ip" format="jsonf")
    property(outname="path" name="$!path" format="jsonf")
    property(outname="method" name="$!method" format="jsonf")
    property(outname="status" name="$!status" format="jsonf")
    property(outname="bytes" name="$!bytes" format="jsonf")
    property(outname="ua" name="$!ua" format="jsonf")
    property(outname="referer" name="$!referer" format="jsonf")
    property(outname="ts" name="$!ts" format="jsonf")
}
"""
PARSE = 'action(type="mmnormalize" rulebase="{}")'
RULES = """\
version=2
rule=:%ip:word% %-:word% %-:word% [%ts:char-to:]%] "%method:word% %path:word% %-:char-to:"%" \
%status:word% %bytes:word% "%referer:char-to:"%" "%ua:char-to:"%"
"""


class Rsyslog(LineProcess[str]):
    """A rsyslogd of our own, which writes what it follows to one file.

    :param parsing: take the lines apart and write them as JSON, as the archive does.
    """

    def __init__(self, folder: Path, *, parsing: bool = False) -> None:
        super().__init__(reactor)
        self.label = "rsyslog, to JSON" if parsing else "rsyslog"
        self._folder = folder
        self._parsing = parsing
        self._output = folder / "output"
        self._counted = self._size = 0

    def parse(self, line: str) -> str:
        return line

    async def start(self, logs: Path) -> None:
        work = self._folder / "work"
        work.mkdir(parents=True)
        rules = self._folder / "access.rulebase"
        rules.write_text(RULES)
        configuration = self._folder / "rsyslog.conf"
        configuration.write_text(
            RSYSLOG.format(
                work=work,
                output=self._output,
                logs=logs,
                template=TO_JSON if self._parsing else COPY,
                parse=PARSE.format(rules) if self._parsing else "",
            )
        )
        program = shutil.which("rsyslogd") or "rsyslogd"
        pid_file = self._folder / "rsyslogd.pid"
        self.spawn([program, "-n", "-f", str(configuration), "-i", str(pid_file)])
        while not pid_file.exists():
            if self.exit_code is not None:
                raise SystemExit(f"rsyslogd does not start: {self.stderr}")
            await pause(0.05)

    async def has_taken(self, count: int) -> bool:
        if self._output.exists():
            with self._output.open("rb") as reading:
                reading.seek(self._size)
                while text := reading.read(1 << 20):
                    self._size += len(text)
                    self._counted += text.count(b"\n")
        return self._counted >= count

    async def check(self, count: int) -> None:
        """That it took each line."""
        await self.has_taken(count)
        if self._counted != count:
            raise SystemExit(f"{self.label}: {self._counted} of {count} lines")
        self._output.unlink()


class Agent:
    """Our agent, with the server it sends to and, when it archives, its S3.

    :param batch: lines of an object; 0: nothing is archived.
    :param slow: bytes a second that S3 takes.
    """

    def __init__(
        self, folder: Path, label: str, batch: int, *, slow: float = 0, flush: float = 10
    ) -> None:
        self.label = label
        self._folder = folder
        self._batch = batch
        self._flush = flush
        self._sink = S3Sink(reactor, slow) if batch else None
        self._processes: list[LineProcess[Any]] = []

    async def start(self, logs: Path) -> None:
        self._folder.mkdir(parents=True)
        authority = TestCA(self._folder)
        certificate = authority.issue(ips=["127.0.0.1"])
        self.hub = HubProcess(
            reactor, 0, certificate.path_cert, certificate.path_key, "agent", SECRET
        )
        self._processes.append(self.hub)
        await self.hub.start()
        environ = unit_environment()
        if self._sink is not None:
            self._processes.append(self._sink)
            await self._sink.start()
            environ |= {
                "AWS_ENDPOINT_URL_S3": self._sink.url,
                "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
                "AWS_SECRET_ACCESS_KEY": "no secret at all",
            }
        config = {
            "logPaths": [str(logs / "*.log")],
            "archive": "on" if self._batch else "off",
            "collectorMaxBatchSize": self._batch or 500,
            "collectorFlushIntervalSeconds": self._flush,
            "awsRegion": "us-east-1",
            "wsApiUrl": f"wss://127.0.0.1:{self.hub.port}/agent",
            "wsSecret": SECRET,
            "wsCaFile": str(authority.path_cert),
            "instanceId": "agent",
        }
        self.process = TwistdAgent(reactor, self._folder / "agent", config, **environ)
        self._processes.append(self.process)
        self.process.start()
        self._port = await self.process.web_port()
        await self.hub.wait_for(lambda event: event["event"] == "authenticated")

    @property
    def pid(self) -> int:
        return self.process.pid

    async def logs(self) -> dict[str, Any]:
        _, status = await http(reactor, self._port, "GET", "/internal/ws-status")
        logs: dict[str, Any] = status["logs"]
        return logs

    async def has_taken(self, count: int) -> bool:
        if self._sink is not None and (await self._sink.totals())["lines"] < count:
            return False  # asked first: it costs the agent nothing
        totals = (await self.logs())["totals"]
        live = totals["sent"] + totals["suppressed"]
        return live >= count and (self._sink is None or totals["archived"] >= count)

    async def check(self, count: int) -> None:
        """That it accounts for each line, and S3 has it."""
        logs = await self.logs()
        totals = logs["totals"]
        seen = [totals["sent"] + totals["suppressed"]]
        if self._sink is not None:
            seen += [totals["archived"], (await self._sink.totals())["lines"]]
        if seen != [count] * len(seen):
            raise SystemExit(f"{self.label}: {count} lines, not {seen}: {logs}")

    async def stop(self) -> None:
        for process in self._processes:
            await process.stop()


Tailer = Rsyslog | Agent
