"""The order of the checks, and which of them need which.

In: a reactor, the environment, where the configuration is. Out: one `Report`. A check whose ground
is missing is skipped with the reason, so that the first failure is the one to look at.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from jetcamer import __version__
from jetcamer.agent.config import AgentConfig, ConfigSource
from jetcamer.agent.credentials import FILE_NAME, LEGACY_PATH, CredentialStore, LinkCredentials
from jetcamer.cli.doctor.local import (
    check_machine,
    check_server_time,
    check_signature,
    find_credentials,
    look_at_metadata,
    read_configuration,
)
from jetcamer.cli.doctor.network import WatchedTrust, connect_tcp, look_up, open_websocket
from jetcamer.cli.doctor.report import Findings, Report
from jetcamer.cli.doctor.running import ask_agent
from jetcamer.cli.doctor.server_time import ask_time
from jetcamer.cli.doctor.time_limit import TimeLimit
from jetcamer.net.endpoint import Proxy, WebSocketURL, proxy_from_environment

#: Seconds for all checks together.
TIMEOUT = 20.0


class Examination:
    """One look at this machine.

    :param config_path: as the agent's ``--config``; None looks where the agent does.
    :param timeout: seconds for all checks together; each has a shorter limit of its own.
    :param hostname: the agent's id where nothing else gives one.
    :param legacy_credentials: where the Go agent kept its credentials.
    """

    def __init__(
        self,
        reactor: Any,
        environ: Mapping[str, str],
        config_path: str | None = None,
        timeout: float = TIMEOUT,
        *,
        hostname: str | None = None,
        legacy_credentials: str | None = LEGACY_PATH,
    ) -> None:
        self._reactor = reactor
        self._environ = environ
        self._config_path = config_path
        self._hostname = hostname or socket.gethostname()
        self._legacy_credentials = legacy_credentials
        self._findings = Findings()
        self._limit = TimeLimit(reactor, timeout)

    async def run(self) -> Report:
        findings = self._findings
        read = read_configuration(findings, self._config_path, self._environ)
        if read is None:
            for check in ("metadata", "credentials", "websocket", "agent"):
                findings.skip(check, "the configuration cannot be used")
            check_signature(findings)
        else:
            config, source = read
            found = await self._find_credentials(config, source)
            check_signature(findings)
            await self._connect(config, found)
            check_machine(findings, config)
            await ask_agent(self._reactor, findings, config, found, self._limit)
        return findings.report(__version__)

    async def _find_credentials(self, config: AgentConfig, source: ConfigSource) -> LinkCredentials:
        metadata = await look_at_metadata(
            self._reactor, self._findings, self._environ, needed=config.ws_api_url is None
        )
        path = os.path.join(config.state_dir, FILE_NAME)
        store = CredentialStore(path, self._legacy_credentials)
        return await find_credentials(
            self._findings, config, source, store, metadata, self._environ, self._hostname
        )

    async def _connect(self, config: AgentConfig, found: LinkCredentials) -> None:
        """Rows ``proxy`` to ``clock``."""
        findings = self._findings
        if found.url is None:
            findings.skip("websocket", "no URL to connect to")
            return
        target = WebSocketURL.parse(found.url)
        try:
            proxy = self._proxy(config, found.url)
        except ValueError as error:
            findings.fail("proxy", str(error), "correct the variable, or set wsProxy")
            findings.skip("websocket", "the proxy cannot be used")
            return
        trust = WatchedTrust(config.ws_ca_file, config.ws_server_name)
        towards = proxy or target
        addresses = await look_up(self._reactor, findings, towards, self._limit)
        if not addresses or not await connect_tcp(
            self._reactor, findings, addresses, towards, self._limit
        ):
            what = towards.authority if proxy is None else f"the proxy {towards.authority}"
            findings.skip("websocket", f"{what} is not reached")
            return
        date = await open_websocket(self._reactor, findings, found.url, trust, proxy, self._limit)
        if date is None:
            date = await ask_time(self._reactor, target, trust, proxy, self._limit)
        if date is None:
            findings.skip("clock", "the server has not told its time")
        else:
            check_server_time(findings, time.time(), date)

    def _proxy(self, config: AgentConfig, url: str) -> Proxy | None:
        """The proxy that the agent would use, given this environment."""
        proxy = (
            Proxy.parse(config.ws_proxy)
            if config.ws_proxy
            else proxy_from_environment(url, self._environ)
        )
        if proxy is None:
            self._findings.ok("proxy", "none is configured")
        else:
            self._findings.hide(proxy.password)
        return proxy


async def diagnose(
    reactor: Any,
    environ: Mapping[str, str],
    config_path: str | None = None,
    timeout: float = TIMEOUT,
) -> Report:
    """Examine this machine; see `Examination`."""
    return await Examination(reactor, environ, config_path, timeout).run()
