"""``jetcamer demo``: a hub and a real agent in one process, over loopback, with a key made for it.

In: nothing but time. Out: lines that a person understands, each of them about a message whose
signature was verified. It listens on 127.0.0.1 only, keeps its state in a temporary folder, reads
no configuration of the machine, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from jetcamer.agent.config import AgentConfig
from jetcamer.agent.service import build_agent
from jetcamer.cli.demo_view import DemoView
from jetcamer.cli.terminal import Terminal
from jetcamer.daemon.clock import use_monotonic_time

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENT_ID = "demo"

#: `--once` gives up after this. Seconds.
_ONCE_DEADLINE = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--once",
        action="store_true",
        help="end as soon as metrics and the answers of two commands have come",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        metavar="N",
        help="end after N seconds; like --once, exit with 1 if something did not come",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show what the agent and the hub log, too"
    )


def run(args: argparse.Namespace) -> int:
    """Run until Ctrl-C, or as `--once` and `--seconds` say. Raises BrokenPipeError when standard
    output is closed."""
    from twisted.internet import reactor

    use_monotonic_time(reactor)
    demo = Demo(reactor, Terminal(sys.stdout, os.environ), verbose=args.verbose, once=args.once)
    deadline = args.seconds if args.seconds is not None else _ONCE_DEADLINE if args.once else None
    with TemporaryDirectory(prefix="jetcamer-demo-") as folder:
        status = demo.run(folder, deadline)
    demo.view.raise_if_broken()
    return status


class Demo:
    """The demo's services, and the reactor that runs them."""

    def __init__(self, reactor: Any, terminal: Terminal, *, verbose: bool, once: bool) -> None:
        self._reactor = reactor
        self._verbose = verbose
        self._once = once
        self._services: list[IService] = []
        self._failed = False
        self.view = DemoView(reactor, terminal, on_complete=self._completed, on_broken=self._end)

    def run(self, folder: str, deadline: float | None) -> int:
        """Start everything, run the reactor to its end, and return the exit status.

        :param folder: where the agent keeps its state.
        :param deadline: seconds after which it ends by itself.
        """
        globalLogBeginner.beginLoggingTo(
            [_LogLines(self.view, self._verbose)], redirectStandardIO=False, discardBuffer=True
        )
        reactor = self._reactor
        reactor.callWhenRunning(self._start, folder)
        reactor.addSystemEventTrigger(
            "before", "shutdown", lambda: Deferred.fromCoroutine(self._stop())
        )
        if deadline is not None:
            reactor.callLater(deadline, self._end)
        reactor.run()
        ends_by_itself = self._once or deadline is not None
        return int(self._failed or (ends_by_itself and not self.view.complete))

    def _start(self, folder: str) -> None:
        def cannot(failure: Failure) -> None:
            self._failed = True
            self.view.problem(f"the demo cannot start: {failure.getErrorMessage()}")
            self._end()

        Deferred.fromCoroutine(self._start_services(folder)).addErrback(cannot)

    async def _start_services(self, folder: str) -> None:
        try:
            from jetcamer.hub.config import HubConfig
            from jetcamer.hub.service import build_hub
        except ModuleNotFoundError as error:
            words = f"{error.name} is not installed; pip install 'jetcamer[hub]' brings it"
            raise RuntimeError(words) from None
        tokens: list[str] = []
        hub = build_hub(
            HubConfig(
                listen=("tcp:0:interface=127.0.0.1",),
                api_listen=("tcp:0:interface=127.0.0.1",),
                state_dir=os.path.join(folder, "hub"),
                drain_seconds=0.0,
            ),
            reactor=self._reactor,
            environ={},
            listener=self.view,
        )
        hub.on_first_token = tokens.append
        self.view.ask = hub.registry.send_command
        self._services.append(hub)
        hub.startService()
        await hub.when_ready()
        secret = await hub.enrolment.add(AGENT_ID, who="demo")
        url = f"ws://127.0.0.1:{hub.gateway.port}/agent"
        self.view.listening(url, hub.api.url, tokens[0], _program())
        config = AgentConfig(
            ws_api_url=url,
            ws_secret=secret,
            instance_id=AGENT_ID,
            web_listen="127.0.0.1:0",
            state_dir=folder,
            archive="off",  # whose AWS account that would be nobody asked
        )
        agent = build_agent(config, reactor=self._reactor, environ=_environment(os.environ))
        self._services.append(agent)
        agent.startService()

    async def _stop(self) -> None:
        """The agent takes its leave first, so that the hub sees how it went."""
        self.view.stop()
        for service in reversed(self._services):
            await maybeDeferred(service.stopService)
        self.view.summary()

    def _completed(self) -> None:
        if self._once:
            self._end()

    def _end(self) -> None:
        if self._reactor.running:
            self._reactor.callLater(0, self._stop_reactor)

    def _stop_reactor(self) -> None:
        if self._reactor.running:
            self._reactor.stop()


@implementer(ILogObserver)
class _LogLines:
    """Shows warnings and errors, and with `verbose` all that is logged."""

    def __init__(self, view: DemoView, verbose: bool) -> None:
        self._view = view
        self._verbose = verbose

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level < (LogLevel.info if self._verbose else LogLevel.warn):
            return
        text = formatEvent(event)
        failure = event.get("log_failure")
        if self._verbose and failure is not None:
            text += "\n" + failure.getTraceback()
        self._view.logged(text, warning=level >= LogLevel.warn)


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the agent sees of the environment: no credentials, no proxy, no metadata service."""
    kept = {name: environ[name] for name in ("PATH", "HOME", "LANG") if name in environ}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true"}


def _program() -> str:
    """This program as the person in front of it may type it."""
    folder, name = os.path.split(sys.argv[0])
    if name != "jetcamer" or folder in os.environ.get("PATH", "").split(os.pathsep):
        return "jetcamer"
    path = os.path.relpath(sys.argv[0])
    return sys.argv[0] if path.startswith("..") else path


def _positive(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds
