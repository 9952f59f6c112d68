"""``twistd jetcamer``: the command line of the agent, and what it is told before it starts.

A configuration that cannot be used ends the process here, with one line on standard error and
exit status 1, before anything has been started.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, cast

from twisted.python import usage

from jetcamer import __version__
from jetcamer.daemon.logging import FORMATS, fail_start, observer_for

if TYPE_CHECKING:
    from jetcamer.agent.service import Agent


class Options(usage.Options):
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
        ("log-format", None, "text", "What is printed: text for people, json for machines."),
    )

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"JetCamer agent {__version__}\n")
        raise SystemExit(0)

    def postOptions(self) -> None:
        if self["log-format"] not in FORMATS:
            raise usage.UsageError("--log-format: one of " + ", ".join(FORMATS))


def makeService(options: Options, reactor: Any = None) -> Agent:
    """The agent, not yet started.

    :raises SystemExit: with status 1, when the configuration cannot be used.
    """
    from jetcamer.agent.config import ConfigError, load_config
    from jetcamer.agent.service import build_agent
    from jetcamer.daemon.clock import use_monotonic_time
    from jetcamer.daemon.memory import settle_when_started
    from jetcamer.daemon.signals import stop_on_sigterm
    from jetcamer.net.resolver import ThreadedResolver

    try:
        config, source = load_config(options["config"], os.environ)
    except ConfigError as error:
        raise fail_start(f"jetcamer: {error}") from None
    if reactor is None:
        from twisted.internet import reactor as global_reactor

        reactor = cast(Any, global_reactor)
        use_monotonic_time(reactor)
        stop_on_sigterm(reactor)
        settle_when_started(reactor)
        reactor.installNameResolver(ThreadedResolver(reactor))
    agent = build_agent(config, reactor=reactor, source=source, environ=os.environ)
    twistd = getattr(options, "parent", None) or {}
    agent.observer = observer_for(twistd, options["log-format"], os.environ, sys.stdout)
    return agent
