"""The configuration file while the agent runs.

In: the configuration it started with. Out: the newest valid one, for the few members that may
change without a restart. Reads the file only when its ``stat`` changed; a broken edit never takes
anything away: the last good configuration stays.
"""

from __future__ import annotations

import os

from twisted.logger import Logger

from jetcamer.agent.config import AgentConfig, ConfigError, ConfigSource, read_config
from jetcamer.daemon.files import Signature, signature

log = Logger()

#: Attributes of :class:`AgentConfig` that take effect at once.
LIVE = frozenset({"ws_secret", "ws_api_url", "instance_id"})


class LiveConfig:
    def __init__(self, config: AgentConfig, source: ConfigSource) -> None:
        self._started_with = config
        self._config = config
        self._path = source.watched or source.path
        # None is "not there"; an errno is "cannot be looked at".
        self._seen: Signature | int | None = source.file_signature
        self._warned = set(source.warnings)
        self._needs_restart: tuple[str, ...] = ()

    def current(self) -> AgentConfig:
        """The newest valid configuration. Only its :data:`LIVE` attributes are to be used."""
        if self._path is None or (seen := _seen(self._path)) == self._seen:
            return self._config
        self._seen = seen
        try:
            config, source = read_config(self._path)
        except ConfigError as error:
            log.warn("{error}; the agent goes on with what it read before", error=str(error))
            return self._config
        self._seen = source.file_signature
        for warning in source.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                log.warn("{words}", words=warning)
        self._config = config
        self._tell_restart(config)
        return config

    def _tell_restart(self, config: AgentConfig) -> None:
        changed = tuple(
            member
            for member, name in zip(
                config.__struct_encode_fields__, config.__struct_fields__, strict=True
            )
            if name not in LIVE and getattr(config, name) != getattr(self._started_with, name)
        )
        if changed and changed != self._needs_restart:
            log.warn(
                "{path}: {members} changed; this takes effect when the agent is restarted",
                path=self._path,
                members=", ".join(changed),
            )
        self._needs_restart = changed


def _seen(path: str) -> Signature | int | None:
    try:
        return signature(os.stat(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.errno
