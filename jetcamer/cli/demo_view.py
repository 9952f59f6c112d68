"""What a person sees of the demo, and what the demo asks of its agent.

In: verified messages, as the `SessionListener` of the demo's hub. Out: lines on a terminal, and
commands: `ping` and `run_health_check` as soon as the agent is there, `ping` again every half
minute. It prints nothing that was not verified, but refusals, and marks those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from jetcamer.cli.terminal import UNBROKEN, Terminal
from jetcamer.hub.records import RefusalRecord
from jetcamer.hub.registry import CommandError
from jetcamer.hub.session import AgentSession
from jetcamer.net.timers import RepeatingTimer
from jetcamer.protocol.envelope import (
    AuthPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsMessage,
    MetricsPayload,
)

#: Sends a command to an agent: see `AgentRegistry.send_command`.
Ask = Callable[[str, str, Mapping[str, str], float], Deferred[CommandResultPayload]]

#: Seconds between two pings, and seconds an answer may take.
PING_INTERVAL = 30.0
ANSWER_TIMEOUT = 30.0

#: What has to be seen before the demo has shown what it is there to show.
_TO_SEE = frozenset({"metrics", "ping", "run_health_check"})

_BAR_LONGEST, _BAR_SHORTEST = 12, 4

#: Under the text of a line, past its time of day.
_INDENT = 10

_STATUS_STYLE = {"ok": "good", "warn": "warn", "fail": "bad"}

Part = str | tuple[str, str]


class DemoView:
    """The demo's `SessionListener`.

    :param on_complete: called once, when metrics and both answers have been seen.
    :param on_broken: called once, when nobody reads the terminal any more.
    """

    def __init__(
        self,
        clock: IReactorTime,
        terminal: Terminal,
        *,
        on_complete: Callable[[], None],
        on_broken: Callable[[], None],
        example_id: str = "demo",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._terminal = terminal
        self._on_complete = on_complete
        self._on_broken = on_broken
        self._example_id = example_id
        self._now = now
        self._began = clock.seconds()
        self._seen: set[str] = set()
        self._verified = 0
        self._refused = 0
        self._answers = 0
        self._broken: OSError | None = None
        self._ping_timer = RepeatingTimer(clock, PING_INTERVAL, self._ping, name="demo ping")
        self._agent_id: str | None = None
        #: Set before the first agent comes.
        self.ask: Ask | None = None

    @property
    def complete(self) -> bool:
        """Whether metrics and both answers have been seen."""
        return self._seen >= _TO_SEE

    # What the demo itself reports.

    def listening(self, url: str, api_url: str, token: str, program: str) -> None:
        """Where agents and operators reach the hub, and what to try in another terminal.

        The token is the demo's own: it opens nothing but this hub, for as long as it runs.
        """
        self._write(
            ("JetCamer demo", "strong"), ": a hub and an agent in one process, on loopback."
        )
        self._write("Every line marked ", self._mark(), " is a message that verified.")
        self._write("Press Ctrl-C to end. In another terminal you are its operator:")
        self._write()
        for line in (
            f"export JETCAMER_HUB_URL={api_url}",
            f"export JETCAMER_HUB_TOKEN={token}",
            f"{program} hub agents",
            f"{program} hub send {self._example_id} get_version",
            f"{program} hub events",
        ):
            self._write("  ", (line, "strong"))
        self._write()
        self._line("hub", f"listening on {url}")

    def problem(self, words: str) -> None:
        self._line("demo", (words, "bad"))

    def logged(self, text: str, *, warning: bool) -> None:
        """A line of the log, of either side."""
        for line in text.splitlines():
            self._write(" " * _INDENT, (line, "warn" if warning else "dim"))

    def stop(self) -> None:
        """Ask nothing more."""
        self._ping_timer.stop()
        self._agent_id = None

    def summary(self) -> None:
        seconds = self._clock.seconds() - self._began
        self._write()
        self._write(
            ("JetCamer demo", "strong"),
            f": {_count(self._verified, 'message')} verified, {self._refused} refused,"
            f" {_count(self._answers, 'command')} answered, in {seconds:.0f} s.",
        )

    def raise_if_broken(self) -> None:
        """Raise what ended the output, if something did."""
        if self._broken is not None:
            raise self._broken

    # SessionListener

    def authenticated(
        self, session: AgentSession, envelope: Envelope, payload: AuthPayload
    ) -> None:
        words = f"authenticated: host {payload.hostname}, version {payload.version}"
        self._verified_line(envelope, words)
        self._agent_id = envelope.agent_id
        self._send("ping")
        self._send("run_health_check")
        self._ping_timer.stop()
        self._ping_timer.start()

    def metrics(
        self, session: AgentSession, envelope: Envelope | MetricsMessage, payload: MetricsPayload
    ) -> None:
        readings = (
            ("cpu", payload.cpu_percent),
            ("mem", payload.mem_percent),
            ("disk", payload.disk_usage),
        )
        bar = self._bar_width(envelope.agent_id, [name for name, _ in readings])
        parts: list[Part] = []
        for name, percent in readings:
            parts += ["  "] if parts else []
            if percent is None:
                parts.append(f"{name} no reading")
                continue
            parts.append(f"{name} ")
            if bar:
                parts.append((self._terminal.bar(percent, bar), _load_style(percent)))
            parts.append(f"{percent:5.1f}%")
        self._verified_line(envelope, *parts)
        self._saw("metrics")

    def heartbeat(
        self, session: AgentSession, envelope: Envelope, payload: HeartbeatPayload
    ) -> None:
        self._verified_line(envelope, f"heartbeat: {payload.status}")

    def log(self, session: AgentSession, envelope: Envelope, payload: LogPayload) -> None:
        self._verified_line(envelope, f"log, {payload.level}: {payload.message}")

    def command_result(
        self, session: AgentSession, envelope: Envelope, payload: CommandResultPayload
    ) -> None:
        """Counted here; shown where the command was sent, with the time it took."""
        self._verified += 1

    def disconnected(self, session: AgentSession, words: str) -> None:
        self._ping_timer.stop()
        self._line(session.agent_id or "?", f"left: {words}")

    def refused(self, refusal: RefusalRecord) -> None:
        self._refused += 1
        words = f"refused a message from {refusal.address}: {refusal.reason}: {refusal.words}"
        self._line("hub", (words, "bad"))

    def _bar_width(self, agent_id: str, names: list[str]) -> int:
        """How long a bar for each name may be where all must fit one line; 0 for none."""
        if not self._terminal.is_tty:
            return 0
        plain = "  ".join(f"{name} 100.0%" for name in names)
        fixed = len(f"00:00:00  {agent_id:<4}  {plain}  {self._signed()}")
        room = (self._terminal.width - fixed) // len(names)
        return min(room, _BAR_LONGEST) if room >= _BAR_SHORTEST else 0

    # Commands

    def _ping(self) -> None:
        self._send("ping")

    def _send(self, command: str) -> None:
        agent_id = self._agent_id
        if agent_id is None or self.ask is None:
            return
        sent = self._clock.seconds()
        self._line("hub", f"{self._terminal.mark('→', '->')} {agent_id}: {command}")

        def answered(payload: CommandResultPayload) -> None:
            took = (self._clock.seconds() - sent) * 1000
            self._answers += 1
            text = payload.error or payload.result
            words = f"{command}: {text}, after {took:.0f} ms  "
            self._line(agent_id, words, self._mark())
            self._details(payload.details)
            self._saw(command)

        def failed(failure: Any) -> None:
            failure.trap(CommandError)
            if self._agent_id is not None:
                self._line("hub", (f"{command}: {failure.value}", "bad"))

        self.ask(agent_id, command, {}, ANSWER_TIMEOUT).addCallbacks(answered, failed)

    def _details(self, details: Any) -> None:
        """The single checks of `run_health_check`."""
        listed = details.get("checks") if isinstance(details, dict) else None
        checks = [check for check in listed if isinstance(check, dict)] if listed else []
        longest = max((len(str(check.get("name"))) for check in checks), default=0)
        for check in checks:
            status, name = str(check.get("status")), str(check.get("name"))
            self._write(
                " " * _INDENT,
                (f"{status:<8}", _STATUS_STYLE.get(status, "dim")),
                f"{name:<{longest}}  {check.get('words')}",
            )

    # Lines

    def _verified_line(self, envelope: Envelope | MetricsMessage, *parts: Part) -> None:
        """A line about one message, with the mark at its end. `parts` bring their own spaces."""
        self._verified += 1
        self._line(envelope.agent_id, *parts, "  ", self._mark())

    def _line(self, who: str, *parts: Part) -> None:
        clock = time.strftime("%H:%M:%S", time.localtime(self._now()))
        self._write((clock, "dim"), "  ", (f"{who:<4}", "strong"), "  ", *parts)

    def _mark(self) -> Part:
        return (self._signed(), "good")

    def _signed(self) -> str:
        return self._terminal.mark("✓ signature ok", "signature ok").replace(" ", UNBROKEN)

    def _write(self, *parts: Part) -> None:
        if self._broken is not None:
            return
        try:
            self._terminal.line(*parts, indent=_INDENT)
        except OSError as error:
            self._broken = error
            self._on_broken()

    def _saw(self, what: str) -> None:
        before = self.complete
        self._seen.add(what)
        if self.complete and not before:
            self._on_complete()


def _load_style(percent: float) -> str:
    return "bad" if percent >= 90 else "warn" if percent >= 75 else "good"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
