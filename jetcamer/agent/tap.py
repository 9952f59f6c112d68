"""``twistd jetcamer``: the command line of the agent, and what it is told before it starts.

A configuration that cannot be used ends the process here, with one line on standard error and
exit status 1, before anything has been started.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from jetcamer.daemon.logging import fail_start, observer_for
from jetcamer.daemon.options import DaemonOptions, ready_reactor

if TYPE_CHECKING:
    from jetcamer.agent.service import Agent


class Options(DaemonOptions):
    title = "JetCamer agent"
    synopsis = "[--config FILE] [--log-format text|json]"
    longdesc = (
        "The JetCamer agent. It opens one outbound WebSocket to its server, sends signed metrics"
        " and heartbeats and answers commands. It needs no configuration on EC2; elsewhere it"
        " reads /etc/jetcamer/agent.config.json."
    )
    optParameters = (
        (
            "config",
            "c",
            None,
            "The configuration file (else JETCAMER_AGENT_CONFIG, else"
            " /etc/jetcamer/agent.config.json).",
        ),
    )


def makeService(options: Options, reactor: Any = None) -> Agent:
    """The agent, not yet started.

    :raises SystemExit: with status 1, when the configuration cannot be used.
    """
    from jetcamer.agent.config import ConfigError, load_config
    from jetcamer.agent.service import build_agent
    from jetcamer.net.resolver import ThreadedResolver

    try:
        config, source = load_config(options["config"], os.environ)
    except ConfigError as error:
        raise fail_start(f"jetcamer: {error}") from None
    if reactor is None:
        reactor = ready_reactor()
        reactor.installNameResolver(ThreadedResolver(reactor))
    agent = build_agent(config, reactor=reactor, source=source, environ=os.environ)
    twistd = getattr(options, "parent", None) or {}
    agent.observer = observer_for(twistd, options["log-format"], os.environ, sys.stdout)
    return agent
