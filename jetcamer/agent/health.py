"""Is the agent well, and the machine it is on?

In: what the agent knows of itself (`HealthInputs`), and the file system. Out: one `HealthCheck`
for each thing looked at, in words for a person. A check changes nothing (but for a file that is
gone again when it returns), waits for nothing on the network, raises nothing and shows no secret.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import psutil
from twisted.logger import Logger

from jetcamer.agent.logs.discovery import DEFAULT_LOG_PATHS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jetcamer.agent.credentials import LinkCredentials

log = Logger()

Status = Literal["ok", "warn", "fail", "unknown"]

#: Seconds between our clock and the server's. From five minutes on, every message is refused.
CLOCK_WARN = 30.0
CLOCK_FAIL = 300.0

#: Percent of space, of inodes and of memory that is left.
LEFT_WARN = 10.0
LEFT_FAIL = 3.0


class HealthCheck(msgspec.Struct, frozen=True):
    """What one check found. `words` is one line."""

    name: str
    status: Status
    words: str


class HealthInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks need to be told."""

    now: float
    """Unix time in seconds, by the clock that stamps our messages."""
    state_dir: str
    link: Mapping[str, Any] | None = None
    """What `AgentLink.status` says; None where no agent runs."""
    credentials: LinkCredentials | None = None
    """The last answer of the `CredentialFinder`."""
    server_date: float | None = None
    """The ``Date`` of the server's upgrade answer, Unix time in seconds."""
    server_date_age: float = 0.0
    """Seconds since that answer came, by a clock that is never set (``time.monotonic``)."""
    config_path: str | None = None
    config_has_secret: bool = False
    log_paths: Sequence[str] = ()
    """File names and glob patterns; empty for `DEFAULT_LOG_PATHS`."""


def overall(checks: Iterable[HealthCheck]) -> str:
    """``health_degraded`` for any warning or failure, ``health_unknown`` if nothing is known."""
    found = {check.status for check in checks}
    if found & {"warn", "fail"}:
        return "health_degraded"
    return "health_ok" if "ok" in found else "health_unknown"


def check_health(inputs: HealthInputs) -> tuple[HealthCheck, ...]:
    """All checks, in a fixed order. Takes a millisecond or so, on the caller's thread."""
    checks: tuple[tuple[str, Callable[[], HealthCheck]], ...] = (
        ("link", lambda: check_link(inputs.link)),
        ("credentials", lambda: check_credentials(inputs.credentials)),
        (
            "clock",
            lambda: check_clock(inputs.now, inputs.server_date, inputs.server_date_age),
        ),
        ("disk", lambda: check_disk("disk", "/")),
        ("state_disk", lambda: check_disk("state_disk", inputs.state_dir)),
        ("memory", check_memory),
        ("state_directory", lambda: check_state_directory(inputs.state_dir)),
        ("configuration", lambda: check_config(inputs.config_path, inputs.config_has_secret)),
        ("log_files", lambda: check_log_files(inputs.log_paths)),
    )
    return tuple(_guarded(name, check) for name, check in checks)


def check_link(link: Mapping[str, Any] | None) -> HealthCheck:
    """Is there a connection?"""
    if link is None:
        return HealthCheck("link", "unknown", "the agent does not run")
    if link.get("hasConnection"):
        since = link.get("connectedSince")
        return HealthCheck("link", "ok", f"online since {since}" if since else "online")
    missing = link.get("missing")
    if missing:
        return HealthCheck("link", "warn", f"not started: missing {missing}")
    words = f"not connected: {link.get('state') or 'no state'}"
    if link.get("attempt"):
        words += f", attempt {link['attempt']}"
    if link.get("lastError"):
        words += f", last error: {link['lastError']}"
    return HealthCheck("link", "fail", words)


def check_credentials(credentials: LinkCredentials | None) -> HealthCheck:
    """Is there a secret to sign with and a URL to dial?"""
    if credentials is None:
        return HealthCheck("credentials", "unknown", "not looked for yet")
    if credentials.missing == "secret":
        words = "no secret in the configuration, the stored credentials or the environment"
        return HealthCheck("credentials", "fail", words)
    if credentials.missing is not None:
        words = "no wsApiUrl, and the metadata service gives no public address"
        return HealthCheck("credentials", "fail", words)
    return HealthCheck("credentials", "ok", f"secret from {credentials.secret_source}")


def check_clock(now: float, server_date: float | None, age: float) -> HealthCheck:
    """How far is our clock from the server's?

    :param now: our clock; :param server_date: the server's, `age` seconds ago.
    """
    if server_date is None:
        return HealthCheck("clock", "unknown", "the server has not told its time")
    skew = now - (server_date + age)
    direction = "ahead of" if skew > 0 else "behind"
    words = f"{abs(skew):.0f} s {direction} the server"
    if abs(skew) > CLOCK_FAIL:
        return HealthCheck("clock", "fail", f"{words}: messages are refused from 5 min on")
    if abs(skew) > CLOCK_WARN:
        return HealthCheck("clock", "warn", words)
    return HealthCheck("clock", "ok", "in step with the server")


def check_disk(
    name: str, path: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs
) -> HealthCheck:
    """Is there room, in bytes and in inodes, on the file system of `path`, for us (not root)?"""
    try:
        found = statvfs(path)
    except OSError as error:
        return HealthCheck(name, "unknown", f"{path}: {error.strerror}")
    used = found.f_blocks - found.f_bfree
    if used + found.f_bavail <= 0:
        return HealthCheck(name, "unknown", f"{path}: the file system tells no size")
    space = 100 * found.f_bavail / (used + found.f_bavail)
    words = f"{path}: {space:.1f} % free ({_size(found.f_bavail * found.f_frsize)})"
    left = space
    if found.f_files > 0:  # btrfs has no fixed number of inodes and says 0
        inodes = 100 * found.f_favail / found.f_files
        if inodes < LEFT_WARN:
            words += f", {inodes:.1f} % of its inodes free"
        left = min(left, inodes)
    return HealthCheck(name, _left(left), words)


def check_memory(psutil: Any = psutil) -> HealthCheck:
    """Is there memory that a new process could get without swapping?"""
    memory = psutil.virtual_memory()
    left = 100 * memory.available / memory.total
    return HealthCheck("memory", _left(left), f"{left:.1f} % available ({_size(memory.available)})")


def check_state_directory(path: str) -> HealthCheck:
    """Can we write where credentials and positions are kept? Tries it."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\n")
    except OSError as error:
        return HealthCheck(
            "state_directory", "fail", f"{path} is not writable: {error.strerror or error}"
        )
    return HealthCheck("state_directory", "ok", f"{path} is writable")


def check_config(path: str | None, has_secret: bool) -> HealthCheck:
    """Can others change our configuration, or read a secret in it?"""
    name = "configuration"
    if path is None:
        words = "no file; given by the program" if has_secret else "no file; defaults"
        return HealthCheck(name, "ok", words)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return HealthCheck(name, "unknown", f"{path}: {error.strerror}")
    shown = f"{path} (mode {stat.S_IMODE(mode):04o})"
    if mode & stat.S_IWOTH:
        return HealthCheck(name, "fail", f"anyone can change {shown}; chmod o-w")
    if has_secret and mode & stat.S_IROTH:
        return HealthCheck(name, "warn", f"anyone can read the secret in {shown}; chmod o-r")
    return HealthCheck(name, "ok", shown)


def check_log_files(
    patterns: Sequence[str], defaults: Sequence[str] = DEFAULT_LOG_PATHS
) -> HealthCheck:
    """Can we read the access logs? Of those the configuration does not name, none need be there."""
    import glob

    readable = 0
    faults = []
    for pattern in patterns or defaults:
        folder = os.path.dirname(pattern)
        files = glob.glob(pattern)
        for file in files:
            if os.access(file, os.R_OK, effective_ids=True):
                readable += 1
            else:
                faults.append(f"{file} is not readable")
        if not files and os.path.isdir(folder) and not _listable(folder):
            faults.append(f"{folder} cannot be listed")
        elif not files and patterns:
            faults.append(f"{pattern} is not there")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        return HealthCheck("log_files", "warn", "; ".join(faults[:3]) + more)
    if not readable:
        return HealthCheck("log_files", "unknown", "no access logs found")
    return HealthCheck("log_files", "ok", f"{readable} readable")


def _guarded(name: str, check: Callable[[], HealthCheck]) -> HealthCheck:
    try:
        return check()
    except Exception as error:
        log.failure("health check {name} failed", name=name)
        return HealthCheck(name, "unknown", f"the check failed: {type(error).__name__}")


def _left(percent: float) -> Status:
    if percent < LEFT_FAIL:
        return "fail"
    return "warn" if percent < LEFT_WARN else "ok"


def _listable(folder: str) -> bool:
    return os.access(folder, os.R_OK | os.X_OK, effective_ids=True)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
