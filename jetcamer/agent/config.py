"""The agent's configuration file: JSON in, one frozen value or one line of complaint out.

A wrong member never passes in silence and never becomes a traceback: every fault is a
:class:`ConfigError` whose text is a single line that names the file and the member. Values of
members that hold secrets appear in no text. Section "Configuration" of docs/protocol.md lists the
members; those that only the Go agent knew are accepted without a word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from jetcamer.agent import config_checks as checks
from jetcamer.daemon.config_file import (
    ConfigError,
    ConfigSchema,
    ConfigSource,
    find_config,
    mode_warnings,
    read_file,
    source_of,
)
from jetcamer.daemon.json_document import excerpt, kind, quoted

__all__ = [
    "AgentConfig",
    "ConfigError",
    "ConfigSource",
    "DeclaredCommand",
    "decode_config",
    "load_config",
    "read_config",
]

DEFAULT_PATH = "/etc/jetcamer/agent.config.json"
#: Names the file where ``--config`` does not.
ENVIRONMENT_NAME = "JETCAMER_AGENT_CONFIG"


class DeclaredCommand(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A command the operator declared. `args` maps each argument to the pattern (a regular
    expression) it must match whole; without `timeout_seconds`, ``commandTimeoutSeconds`` holds."""

    argv: tuple[str, ...]
    timeout_seconds: float | None = None
    args: dict[str, str] = {}


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every member by its documented name in snake_case. Intervals are seconds."""

    log_paths: tuple[str, ...] = ()
    web_listen: str = "127.0.0.1:9811"
    instance_id: str | None = None
    site_id: str = "default"
    env: str = "prod"
    aws_region: str | None = None
    collector_flush_interval_seconds: float = 10.0
    collector_max_batch_size: int = 500
    ws_api_url: str | None = None
    ws_secret: str | None = None

    state_dir: str = "/var/lib/jetcamer"
    ws_ca_file: str | None = None
    ws_server_name: str | None = None
    ws_proxy: str | None = None
    ws_reconnect_jitter: float = 0.5
    metrics_interval_seconds: float = 5.0
    metrics_extended: bool = False
    heartbeat_interval_seconds: float = 30.0
    credential_poll_seconds: float = 10.0
    command_timeout_seconds: float = 30.0
    commands: dict[str, DeclaredCommand] = {}
    s3_bucket: str = "cyber-agent-logs"
    web_allow_remote: bool = False
    web_token: str | None = None
    forward_own_logs: bool = False

    archive: Literal["auto", "on", "off"] = "auto"
    log_formats: dict[str, str] = {}
    log_lines_per_second: int = 200
    spool_max_bytes: int = 256 << 20

    def listen_address(self) -> tuple[str, int]:
        """Host and port of ``webListen``; the host is an IP address, or "" for every IPv4 one."""
        return checks.listen_address(self.web_listen)

    def __repr__(self) -> str:
        shown = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name in ("ws_secret", "web_token") and value is not None:
                shown.append(f"{name}=<hidden>")
            elif name == "ws_proxy" and value is not None:
                shown.append(f"{name}={checks.redact_userinfo(value)!r}")
            else:
                shown.append(f"{name}={value!r}")
        return f"AgentConfig({', '.join(shown)})"


def load_config(
    path: str | None, environ: Mapping[str, str], *, default_path: str = DEFAULT_PATH
) -> tuple[AgentConfig, ConfigSource]:
    """Read `path`, else the file the environment names, else the default one, which alone may be
    missing. Raises `ConfigError`."""
    path, is_there = find_config(
        path, environ, variable=ENVIRONMENT_NAME, default_path=default_path
    )
    if not is_there:
        return AgentConfig(), ConfigSource(path=None, watched=path)
    return read_config(path)


def read_config(path: str) -> tuple[AgentConfig, ConfigSource]:
    """Read exactly this file. Raises `ConfigError`."""
    data, status = read_file(path)
    config, warnings = decode_config(data, path)
    secret = config.ws_secret or config.web_token
    if config.ws_proxy is not None and checks.has_password(config.ws_proxy):
        secret = config.ws_proxy
    warnings.extend(mode_warnings(path, status, bool(secret)))
    return config, source_of(path, status, warnings)


def decode_config(data: bytes, path: str) -> tuple[AgentConfig, list[str]]:
    """The configuration in `data`, and the warnings; `path` is the name the texts give it.
    Raises `ConfigError`."""
    members, warnings = _SCHEMA.members(data, path)
    if isinstance(members.get("commands"), dict):
        members["commands"] = _commands(path, members["commands"])
    if isinstance(formats := members.get("logFormats"), dict) and formats:
        _check_log_formats(path, formats)
    config = _SCHEMA.convert(members, path)
    _check_web(path, config)
    if config.ws_api_url is not None and not checks.websocket_url(config.ws_api_url):
        warnings.append(f"{path}: wsApiUrl: ws:// to another machine is not encrypted; use wss://")
    return config, warnings


_SCHEMA = ConfigSchema(
    AgentConfig,
    expected={
        **dict.fromkeys(("metricsExtended", "webAllowRemote", "forwardOwnLogs"), "true or false"),
        "logPaths": "an array of strings",
        "commands": "an object of declared commands",
        "logFormats": "an object of regular expressions (strings)",
        "archive": '"auto", "on" or "off"',
    },
    limits={
        "collectorFlushIntervalSeconds": (1, 86400, "a number of seconds"),
        "collectorMaxBatchSize": (1, 100_000, "a whole number"),
        "wsReconnectJitter": (0, 0.5, "a number"),
        "metricsIntervalSeconds": (1, 86400, "a number of seconds"),
        "heartbeatIntervalSeconds": (1, 86400, "a number of seconds"),
        "credentialPollSeconds": (1, 86400, "a number of seconds"),
        "commandTimeoutSeconds": (1, 86400, "a number of seconds"),
        "logLinesPerSecond": (0, 10_000, "a whole number"),
        "spoolMaxBytes": (1 << 20, 1 << 40, "a whole number of bytes"),
    },
    checks={
        "logPaths": checks.log_paths,
        "webListen": checks.listen_address,
        "instanceId": checks.identifier,
        "siteId": checks.identifier,
        "env": checks.identifier,
        "awsRegion": checks.region,
        "wsApiUrl": checks.websocket_url,
        "stateDir": checks.absolute,
        "wsCaFile": checks.ca_file,
        "wsServerName": checks.server_name,
        "wsProxy": checks.proxy,
        "s3Bucket": checks.bucket,
        "webToken": checks.web_token,
    },
    # No message quotes these.
    hidden=frozenset({"wsSecret", "webToken", "wsProxy", "wsApiUrl"}),
    unused=re.compile(
        r"collectorUrl$|collectorApiKey$|security|geoLite|firewall|awsNetworkAcl", re.IGNORECASE
    ),
    known=("collectorUrl", "collectorApiKey"),
)


def _commands(path: str, declared: dict[str, Any]) -> dict[str, DeclaredCommand]:
    if not declared:
        return {}
    from jetcamer.agent.commands.declared import compile_declared

    commands = {}
    for name, value in declared.items():
        command = _declared(path, f"commands.{quoted(name)}", value)
        try:
            compile_declared(name, command.argv, command.timeout_seconds, command.args)
        except ValueError as error:  # which names the member itself
            member, _, words = str(error).partition(": ")
            raise ConfigError(path, member, words) from None
        commands[name] = command
    return commands


def _declared(path: str, where: str, value: Any) -> DeclaredCommand:
    """What the members must be; `compile_declared` says what they may hold."""

    def fault(member: str, expected: str, got: Any) -> ConfigError:
        return ConfigError(path, where + member, f"expected {expected}, got {kind(got)}")

    if not isinstance(value, dict):
        raise fault("", "an object", value)
    for name in value:
        if name not in DeclaredCommand.__struct_encode_fields__:
            words = "unknown member; a command has argv, timeoutSeconds and args"
            raise ConfigError(path, f"{where}.{quoted(name)}", words)
    argv, timeout, args = (value.get(name) for name in DeclaredCommand.__struct_encode_fields__)
    if argv is None:
        raise ConfigError(path, f"{where}.argv", "missing; expected an array of strings")
    if not isinstance(argv, list):
        raise fault(".argv", "an array of strings", argv)
    for index, item in enumerate(argv):
        if not isinstance(item, str):
            raise fault(f".argv[{index}]", "a string", item)
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise fault(".timeoutSeconds", "a number of seconds", timeout)
        timeout = float(max(-1, min(timeout, 1 << 40)))  # too large stays too large
    args = {} if args is None else args
    if not isinstance(args, dict):
        raise fault(".args", "an object of patterns (strings)", args)
    for name, pattern in args.items():
        if not isinstance(pattern, str):
            raise fault(f".args.{quoted(name)}", "a pattern (a string)", pattern)
    return DeclaredCommand(tuple(argv), timeout, args)


def _check_log_formats(path: str, formats: dict[str, Any]) -> None:
    from jetcamer.agent.logs.pattern_check import check_pattern

    for glob, regex in formats.items():
        if not glob:
            raise ConfigError(path, "logFormats", "holds an empty path")
        if not isinstance(regex, str):
            words = f"expected a regular expression (a string), got {kind(regex)}"
            raise ConfigError(path, f"logFormats.{excerpt(glob)}", words)
        try:
            check_pattern(regex)
        except ValueError as error:
            raise ConfigError(path, f"logFormats.{excerpt(glob)}", str(error)) from None


def _check_web(path: str, config: AgentConfig) -> None:
    host, _ = config.listen_address()
    if not checks.is_loopback(host) and not config.web_allow_remote:
        words = (
            "can be reached from other machines; listen on 127.0.0.1, "
            'or set "webAllowRemote": true and a webToken'
        )
        raise ConfigError(path, "webListen", words)
    if config.web_allow_remote and config.web_token is None:
        raise ConfigError(path, "webToken", "missing; webAllowRemote needs one")
