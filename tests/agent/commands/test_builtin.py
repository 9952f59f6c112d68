"""The five commands that every agent has."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from jetcamer import __version__
from jetcamer.agent.commands import (
    BUILTIN_NAMES,
    CommandDispatcher,
    CommandOutcome,
    CommandRegistry,
    ProcessRunner,
    builtin_commands,
)
from jetcamer.agent.commands.builtin import GetStatus
from jetcamer.agent.health import HealthCheck, Status
from jetcamer.agent.machine import read_machine_id
from tests.agent.commands.support import ProcessTestCase


class BuiltinTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine_id = lambda: "0123456789abcdef"
        self.checks: list[HealthCheck] = []

    def answer(self, name: str) -> dict[str, Any]:
        async def check_health() -> list[HealthCheck]:
            return await succeed(self.checks)

        commands = builtin_commands(
            version=__version__,
            machine_id=self.machine_id,
            check_health=check_health,
            runner=ProcessRunner(reactor, {}),
        )
        self.assertEqual({command.name for command in commands}, BUILTIN_NAMES)
        dispatcher = CommandDispatcher(reactor, CommandRegistry(commands))
        payload = self.successResultOf(dispatcher.submit(name, {"ignored": "1"}, ""))
        self.assertEqual(payload.pop("command"), name)
        return payload

    def test_ping(self) -> None:
        self.assertEqual(self.answer("ping"), {"result": "pong", "error": ""})

    def test_version(self) -> None:
        self.assertEqual(self.answer("get_version"), {"result": __version__, "error": ""})

    def test_machine_id(self) -> None:
        expected = {"result": "0123456789abcdef", "error": ""}
        self.assertEqual(self.answer("get_machine_id"), expected)
        self.machine_id = lambda: read_machine_id("/no/such/machine-id")
        self.assertEqual(
            self.answer("get_machine_id"),
            {"result": "", "error": "cannot read /no/such/machine-id: No such file or directory"},
        )

    def test_health(self) -> None:
        statuses: dict[tuple[Status, ...], str] = {
            (): "health_unknown",
            ("unknown",): "health_unknown",
            ("unknown", "ok"): "health_ok",
            ("ok", "warn"): "health_degraded",
            ("unknown", "fail"): "health_degraded",
        }
        for found, result in statuses.items():
            self.checks = [HealthCheck("disk", status, "words") for status in found]
            payload = self.answer("run_health_check")
            self.assertEqual((payload["result"], payload["error"]), (result, ""))
            self.assertEqual(
                payload["details"]["checks"],
                [{"name": "disk", "status": status, "words": "words"} for status in found],
            )


class GetStatusTests(ProcessTestCase):
    """Against a ``systemctl`` that shows how it was called and ends as it is told."""

    async def status(self, exit_status: int, systemd_runs: str | None = None) -> CommandOutcome:
        program = self.folder / "systemctl"
        program.write_text(
            f'#!/bin/sh\necho "$@"; echo "colors=$SYSTEMD_COLORS" >&2\nexit {exit_status}\n'
        )
        program.chmod(0o755)
        runner = ProcessRunner(reactor, {"PATH": f"{self.folder}:{os.environ['PATH']}"})
        command = GetStatus(runner, systemd_runs or str(self.folder))
        return await Deferred.fromCoroutine(command.run({}))

    def pids(self) -> list[int]:
        return []

    async def test_running_and_not_running(self) -> None:
        for exit_status in (0, 3):
            outcome = await self.status(exit_status)
            self.assertEqual(outcome.error, "")
            self.assertEqual(outcome.result, "status jetcamer-agent --no-pager -l\ncolors=0\n")
            self.assertEqual(outcome.details["exitStatus"], exit_status)

    async def test_failures(self) -> None:
        for exit_status, error in [
            (4, "systemd knows no unit jetcamer-agent"),
            (1, "exit status 1"),
        ]:
            outcome = await self.status(exit_status)
            self.assertEqual(outcome.error, error)
            self.assertIn("status jetcamer-agent", outcome.result)

    async def test_no_systemd(self) -> None:
        outcome = await self.status(0, "/no/such/folder")
        self.assertEqual(
            (outcome.result, outcome.error), ("", "this machine is not run by systemd")
        )
