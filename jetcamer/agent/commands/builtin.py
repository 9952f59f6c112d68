"""The commands every agent has (docs/protocol.md, Commands).

In: what they need to know, as values and functions. Out: text.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from zope.interface import implementer

from jetcamer.agent.commands.interfaces import CommandOutcome, ICommand
from jetcamer.agent.commands.process import ProcessRunner

if TYPE_CHECKING:
    from jetcamer.agent.health import HealthCheck

UNIT = "jetcamer-agent"

#: sd_booted(3): this folder is there if and only if systemd runs the machine.
SYSTEMD_RUNS = "/run/systemd/system"

#: What `systemctl status` ends with for a unit that runs, and for one that does not.
_STATUS_KNOWN = (0, 3)
_NO_SUCH_UNIT = 4


@implementer(ICommand)
class Ping:
    name = "ping"

    def run(self, args: Mapping[str, str]) -> str:
        return "pong"


@implementer(ICommand)
class GetVersion:
    name = "get_version"

    def __init__(self, version: str) -> None:
        self._version = version

    def run(self, args: Mapping[str, str]) -> str:
        return self._version


@implementer(ICommand)
class GetMachineId:
    """:param machine_id: raises ``OSError`` where the id cannot be read."""

    name = "get_machine_id"

    def __init__(self, machine_id: Callable[[], str]) -> None:
        self._machine_id = machine_id

    def run(self, args: Mapping[str, str]) -> CommandOutcome:
        try:
            return CommandOutcome(result=self._machine_id())
        except OSError as error:
            return CommandOutcome(error=f"cannot read {error.filename}: {error.strerror}")


@implementer(ICommand)
class GetStatus:
    """The text of ``systemctl status``, also that of a unit that does not run."""

    name = "get_status"

    def __init__(self, runner: ProcessRunner, systemd_runs: str = SYSTEMD_RUNS) -> None:
        self._runner = runner
        self._systemd_runs = systemd_runs

    async def run(self, args: Mapping[str, str]) -> CommandOutcome:
        if not os.path.isdir(self._systemd_runs):
            return CommandOutcome(error="this machine is not run by systemd")
        ended = await self._runner.run(
            ["systemctl", "status", UNIT, "--no-pager", "-l"],
            {"SYSTEMD_COLORS": "0", "SYSTEMD_URLIFY": "0"},
        )
        outcome = ended.outcome()
        error = outcome.error
        if ended.exit_status in _STATUS_KNOWN:
            error = ""
        elif ended.exit_status == _NO_SUCH_UNIT:
            error = f"systemd knows no unit {UNIT}"
        return CommandOutcome(result=outcome.result, error=error, details=outcome.details)


@implementer(ICommand)
class RunHealthCheck:
    """:param check: see `jetcamer.agent.health.check_health`."""

    name = "run_health_check"
    shows_result = True

    def __init__(self, check: Callable[[], Awaitable[Sequence[HealthCheck]]]) -> None:
        self._check = check

    async def run(self, args: Mapping[str, str]) -> CommandOutcome:
        from jetcamer.agent.health import overall

        checks = await self._check()
        return CommandOutcome(
            result=overall(checks),
            details={
                "checks": [
                    {"name": check.name, "status": check.status, "words": check.words}
                    for check in checks
                ]
            },
        )


def builtin_commands(
    *,
    version: str,
    machine_id: Callable[[], str],
    check_health: Callable[[], Awaitable[Sequence[HealthCheck]]],
    runner: ProcessRunner,
) -> list[ICommand]:
    """One of each. Their names are `BUILTIN_NAMES`."""
    return [
        Ping(),
        GetVersion(version),
        GetMachineId(machine_id),
        GetStatus(runner),
        RunHealthCheck(check_health),
    ]
