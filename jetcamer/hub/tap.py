"""``twistd jetcamer-hub``: the command line of the hub, and what it is told before it starts.

A configuration that cannot be used ends the process here, with one line on standard error and
exit status 1, before anything has been started.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from jetcamer.daemon.logging import fail_start, in_words, observer_for
from jetcamer.daemon.options import DaemonOptions, ready_reactor

if TYPE_CHECKING:
    from jetcamer.hub.service import Hub


class Options(DaemonOptions):
    title = "JetCamer hub"
    synopsis = "[--config FILE] [--log-format text|json] [--new-admin-token]"
    longdesc = (
        "The JetCamer hub. Agents connect to it over WebSocket; it verifies what they say, keeps"
        " it, sends them commands and answers its operators over HTTP. It reads"
        " /etc/jetcamer/hub.config.json where that is there."
    )
    optParameters = (
        (
            "config",
            "c",
            None,
            "The configuration file (else JETCAMER_HUB_CONFIG, else"
            " /etc/jetcamer/hub.config.json).",
        ),
    )

    optFlags = (
        (
            "new-admin-token",
            None,
            "Make another admin token and show it, as at the first start: for who has lost it.",
        ),
    )

    def __init__(self) -> None:
        # Before anything imports a reactor; one that was chosen with --reactor stays.
        from jetcamer.daemon.epoll import install_unless_there_is_one

        install_unless_there_is_one()
        super().__init__()


def makeService(options: Options, reactor: Any = None) -> Hub:
    """The hub, not yet started.

    :raises SystemExit: with status 1, when the configuration cannot be used.
    """
    from jetcamer.daemon.limits import raise_file_limit
    from jetcamer.hub.config import ConfigError, load_config

    try:
        config, source = load_config(options["config"], os.environ)
        from jetcamer.hub.service import build_hub
    except ConfigError as error:
        raise fail_start(f"jetcamer-hub: {error}") from None
    except ModuleNotFoundError as error:
        words = f"{error.name} is not installed; pip install 'jetcamer[hub]' brings it"
        raise fail_start(f"jetcamer-hub: {words}") from None
    if reactor is None:
        reactor = ready_reactor()
        raise_file_limit()
    try:
        hub = build_hub(
            config,
            reactor=reactor,
            source=source,
            environ=os.environ,
            new_admin_token=bool(options["new-admin-token"]),
        )
    except (OSError, ValueError) as error:  # an endpoint that cannot be, a key that is not there
        raise fail_start(f"jetcamer-hub: {in_words(error)}") from None
    twistd = getattr(options, "parent", None) or {}
    hub.observer = observer_for(twistd, options["log-format"], os.environ, sys.stdout)
    return hub
