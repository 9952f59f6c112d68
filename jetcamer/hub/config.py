"""The hub's configuration file (docs/hub.md, Configuration). Without one, everything has a value.

In: JSON. Out: one frozen value, or `ConfigError`: one line that names the file and the member.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from jetcamer.daemon.config_file import (
    ConfigError,
    ConfigSchema,
    ConfigSource,
    find_config,
    mode_warnings,
    read_file,
    source_of,
)
from jetcamer.daemon.json_document import quoted
from jetcamer.net.url import WebSocketURL

__all__ = ["ConfigError", "ConfigSource", "HubConfig", "load_config", "read_config"]

DEFAULT_PATH = "/etc/jetcamer/hub.config.json"
#: Names the file where ``--config`` does not.
ENVIRONMENT_NAME = "JETCAMER_HUB_CONFIG"

_DAY = 86_400


class HubConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Every member by its documented name in snake_case."""

    #: Where agents connect: server endpoints as Twisted describes them.
    listen: tuple[str, ...] = ("tcp:9810:backlog=1024",)
    #: Where operators and their programs connect.
    api_listen: tuple[str, ...] = ("tcp:9812:interface=127.0.0.1",)
    #: Host names, beside localhost and addresses, that the API answers to.
    api_names: tuple[str, ...] = ()
    #: The URL that agents are told to connect to.
    agent_url: str | None = None
    state_dir: str = "/var/lib/jetcamer-hub"
    store: Literal["sqlite", "off"] = "sqlite"
    #: One secret for every agent without one of its own.
    legacy_secret: str | None = None
    #: The key that secrets on disk are encrypted with; None: ``secret.key`` in the state directory.
    secret_key_file: str | None = None
    #: Addresses and networks of proxies whose ``X-Forwarded-For`` is believed.
    trusted_proxies: tuple[str, ...] = ()

    max_message_bytes: int = 1 << 20
    handshake_timeout_seconds: float = 10.0
    auth_timeout_seconds: float = 30.0
    idle_timeout_seconds: float = 75.0
    ping_interval_seconds: float = 25.0
    handshakes_per_second: float = 500.0
    max_unsent_bytes: int = 256 << 10
    messages_per_second: float = 50.0
    message_burst: int = 500
    bad_attempts_per_minute: int = 10
    drain_seconds: float = 3.0

    raw_metrics_hours: float = 24.0
    minute_metrics_days: float = 30.0
    hour_metrics_days: float = 730.0
    log_days: float = 14.0
    session_days: float = 90.0
    command_days: float = 90.0
    refusal_days: float = 30.0
    #: What the database may grow to; 0: no limit.
    max_database_bytes: int = 0
    #: Agents that have gauges of their own at ``/metrics``.
    metrics_max_agents: int = 2_000

    @property
    def database_path(self) -> str:
        return os.path.join(self.state_dir, "hub.sqlite3")

    @property
    def key_path(self) -> str:
        return self.secret_key_file or os.path.join(self.state_dir, "secret.key")

    @property
    def backup_dir(self) -> str:
        return os.path.join(self.state_dir, "backups")

    def __repr__(self) -> str:
        shown = [
            f"{name}=<hidden>" if name == "legacy_secret" and value else f"{name}={value!r}"
            for name in self.__struct_fields__
            for value in (getattr(self, name),)
        ]
        return f"HubConfig({', '.join(shown)})"


def load_config(
    path: str | None, environ: Mapping[str, str], *, default_path: str = DEFAULT_PATH
) -> tuple[HubConfig, ConfigSource]:
    """Read `path`, else the file the environment names, else the default one, which alone may be
    missing. Raises `ConfigError`."""
    path, is_there = find_config(
        path, environ, variable=ENVIRONMENT_NAME, default_path=default_path
    )
    return read_config(path) if is_there else (HubConfig(), ConfigSource(path=None))


def read_config(path: str) -> tuple[HubConfig, ConfigSource]:
    """Read exactly this file. Raises `ConfigError`."""
    data, status = read_file(path)
    members, warnings = _SCHEMA.members(data, path)
    for name in ("listen", "apiListen"):
        if isinstance(members.get(name), str):
            members[name] = [members[name]]
    config = _SCHEMA.convert(members, path)
    ping, idle = config.ping_interval_seconds, config.idle_timeout_seconds
    if ping and idle <= ping:
        # An agent with nothing to say is heard when it answers a ping.
        words = f"must be more than pingIntervalSeconds ({ping:g}), unless that is 0"
        raise ConfigError(path, "idleTimeoutSeconds", words)
    warnings.extend(mode_warnings(path, status, config.legacy_secret is not None))
    return config, source_of(path, status, warnings)


def _absolute(path: str) -> None:
    if not os.path.isabs(path):
        raise ValueError("expected an absolute path")


def _endpoints(descriptions: tuple[str, ...]) -> None:
    if not descriptions:
        raise ValueError("is empty: nobody could connect")
    for description in descriptions:
        _endpoint(description)


def _endpoint(description: str) -> None:
    if not re.match(r"[a-z][a-z0-9]*:.", description):
        raise ValueError('expected an endpoint, as in "tcp:9810:interface=127.0.0.1"')
    kind, *arguments = re.split(r"(?<!\\):", description)
    named = [each.removeprefix("port=") for each in arguments if each.startswith("port=")]
    port = (*arguments[:1], *named)[-1]
    if kind in ("tcp", "tcp6", "ssl") and not _is_port(port):
        raise ValueError(f"{quoted(description)}: a port is a number from 0 to 65535")


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and int(text) <= 65535


def _networks(texts: tuple[str, ...]) -> None:
    for text in texts:
        if text == "unix":
            continue
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError("expected IP addresses and networks") from None


def _names(names: tuple[str, ...]) -> None:
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", name):
            raise ValueError("expected host names, without port and scheme")


def _secret(text: str) -> None:
    if len(text) < 16:
        raise ValueError("expected at least 16 characters")


def _seconds(most: float) -> tuple[float, float, str]:
    return (0.1, most, "a number of seconds")


_SCHEMA = ConfigSchema(
    HubConfig,
    expected={
        "listen": "an array of endpoints (strings)",
        "apiListen": "an array of endpoints (strings)",
        "apiNames": "an array of host names (strings)",
        "trustedProxies": "an array of addresses (strings)",
        "store": '"sqlite" or "off"',
    },
    limits={
        "maxMessageBytes": (1024, 1 << 20, "a whole number of bytes"),
        "handshakeTimeoutSeconds": _seconds(300),
        "authTimeoutSeconds": _seconds(3600),
        "idleTimeoutSeconds": _seconds(_DAY),
        "pingIntervalSeconds": (0, 3600, "a number of seconds"),
        "handshakesPerSecond": (1, 1_000_000, "a number"),
        "maxUnsentBytes": (1024, 1 << 30, "a whole number of bytes"),
        "messagesPerSecond": (0.1, 1_000_000, "a number"),
        "messageBurst": (1, 10_000_000, "a whole number"),
        "badAttemptsPerMinute": (1, 1_000_000, "a whole number"),
        "drainSeconds": (0, 300, "a number of seconds"),
        "rawMetricsHours": (1, 24 * 3650, "a number of hours"),
        "minuteMetricsDays": (1, 3650, "a number of days"),
        "hourMetricsDays": (1, 36500, "a number of days"),
        "logDays": (0.01, 3650, "a number of days"),
        "sessionDays": (0.01, 3650, "a number of days"),
        "commandDays": (0.01, 3650, "a number of days"),
        "refusalDays": (0.01, 3650, "a number of days"),
        "maxDatabaseBytes": (0, 1 << 50, "a whole number of bytes"),
        "metricsMaxAgents": (0, 1_000_000, "a whole number"),
    },
    checks={
        "listen": _endpoints,
        "apiListen": _endpoints,
        "apiNames": _names,
        "agentUrl": WebSocketURL.parse,
        "stateDir": _absolute,
        "secretKeyFile": _absolute,
        "legacySecret": _secret,
        "trustedProxies": _networks,
    },
    hidden=frozenset({"legacySecret"}),
)
