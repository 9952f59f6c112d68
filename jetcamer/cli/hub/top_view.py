"""What `top` shows: agents in an order, drawn to fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jetcamer.cli.hub.output import STATES, Cell, Column, draw, make_table, natural_width
from jetcamer.cli.hub.stream import GAP, Event
from jetcamer.cli.hub.words import ago, counted, percent, reading, text
from jetcamer.cli.terminal import Terminal, visible

if TYPE_CHECKING:
    from rich.console import Group

#: Key → what is sorted by.
SORTS = {"c": "cpu", "m": "mem", "d": "disk", "n": "name", "s": "state", "a": "seen"}

_MEMBERS = {"cpu": "cpuPercent", "mem": "memPercent", "disk": "diskUsage"}

#: What needs a person comes first.
_STATE_ORDER = ("clone", "refused", "clock_wrong", "online", "offline", "never_seen", "revoked")

_WARN, _BAD = 75.0, 90.0

#: From how many characters on each column is seen; AGENT and CPU always are.
_WIDTH_WITH = {"STATE": 36, "MEM": 46, "DISK": 56, "SEEN": 66, "HOST": 80}
_WIDTH_WITH_BARS = 95

#: What can be pressed, in full and in short.
_KEYS = "sort: c cpu · m mem · d disk · n name · s state · a age   r reverse   q quit"
_KEYS_IN_SHORT = "q quit   r reverse   sort: c m d n s a"

#: A peer's word must not push the others away.
_MOST = {"STATE": 20, "SEEN": 10}

Agent = dict[str, Any]


class TopView:
    def __init__(self, terminal: Terminal, *, sort: str) -> None:
        self._terminal = terminal
        self._agents: dict[str, Agent] = {}
        self._sort = sort
        self._reverse = False
        #: What keeps the picture from being fresh, for a person; "" for nothing.
        self.trouble = ""

    def agents_listed(self, agents: Sequence[Mapping[str, Any]]) -> None:
        self._agents = {str(agent.get("agentId")): dict(agent) for agent in agents}
        self.trouble = ""

    def event_came(self, event: Event) -> bool:
        """True where the list of agents is to be asked for again."""
        self.trouble = ""
        agent = self._agents.get(str(event.data.get("agentId")))
        if event.kind != "metrics" or agent is None:
            return event.kind in ("agent", "metrics", GAP)
        agent["metrics"] = event.data
        agent["lastSeen"] = event.data.get("ts")
        return False

    def key_pressed(self, key: str) -> bool:
        """True where it changed something."""
        if key == "r":
            self._reverse = not self._reverse
        elif key in SORTS:
            self._sort, self._reverse = SORTS[key], False
        else:
            return False
        return True

    def sorted(self) -> list[Agent]:
        """Most of a percentage first, names from a to z, the last seen first."""
        key: Callable[[Agent], Any]
        if self._sort in _MEMBERS:
            member = _MEMBERS[self._sort]

            def key(agent: Agent) -> Any:
                value = reading(agent.get("metrics"), member)
                # What is away has old readings: they come after the living.
                here = agent.get("state") == "online"
                return not here, value is None, -(value or 0.0)
        elif self._sort == "state":

            def key(agent: Agent) -> Any:
                state = agent.get("state")
                return _STATE_ORDER.index(state) if state in _STATE_ORDER else len(_STATE_ORDER)
        elif self._sort == "seen":

            def key(agent: Agent) -> Any:
                return -(agent.get("lastSeen") or 0)
        else:

            def key(agent: Agent) -> Any:
                return 0

        agents = sorted(self._agents.values(), key=lambda agent: str(agent.get("agentId")))
        agents.sort(key=key)
        if self._reverse:
            agents.reverse()
        return agents

    def snapshot(self, now_ms: int) -> str:
        """Every agent, once, as lines; to a terminal, lines that fit."""
        agents = self.sorted()
        columns, rows = self._table(agents, self._terminal.width, now_ms)
        if not self._terminal.is_tty:
            columns = [column._replace(width=None) for column in columns]
        head = self._summary() + "\n"
        return head + draw(self._terminal, columns, rows) if rows else head

    def picture(self, width: int, height: int, now_ms: int) -> Group:
        """At most `height` lines: the agents that come first, and how many there are beside."""
        from rich.console import Group
        from rich.text import Text

        agents = self.sorted()
        room = max(1, height - 4)
        columns, rows = self._table(agents[:room], width, now_ms)
        more = f"; {len(agents) - room} more below" if len(agents) > room else ""
        order = f"; by {self._sort}{', reversed' if self._reverse else ''}"
        head = f"{self._summary()}{order}{more}"
        keys = _KEYS if len(_KEYS) <= width else _KEYS_IN_SHORT
        foot = keys.replace(" ·", self._terminal.mark(" ·", ","))
        return Group(
            Text(head, style="bold", no_wrap=True, overflow="crop"),
            Text(visible(self.trouble), style="yellow", no_wrap=True, overflow="crop"),
            make_table(self._terminal, columns, rows),
            Text(foot, style="dim", no_wrap=True, overflow="crop"),
        )

    def _table(
        self, agents: Sequence[Agent], width: int, now_ms: int
    ) -> tuple[list[Column], list[list[Cell]]]:
        """The columns that `width` has room for, one line to an agent."""
        bar = max(0, min(20, (width - 80) // 3)) if width >= _WIDTH_WITH_BARS else 0
        table: list[tuple[Column, list[Cell]]] = [
            (Column("AGENT"), [text(agent.get("agentId")) for agent in agents])
        ]
        if width >= _WIDTH_WITH["STATE"]:
            table.append((Column("STATE"), [_state(agent) for agent in agents]))
        if width >= _WIDTH_WITH["HOST"]:
            table.append((Column("HOST"), [text(agent.get("hostname")) for agent in agents]))
        for name, member in (("CPU", "cpu"), ("MEM", "mem"), ("DISK", "disk")):
            if width >= _WIDTH_WITH.get(name, 0):
                column = Column(name, right=True, width=bar + bool(bar) + 6)
                table.append((column, [self._reading(agent, member, bar) for agent in agents]))
        if width >= _WIDTH_WITH["SEEN"]:
            table.append((Column("SEEN"), [ago(agent.get("lastSeen"), now_ms) for agent in agents]))
        columns = _widths(table, width)
        return columns, [list(row) for row in zip(*(cells for _, cells in table), strict=True)]

    def _reading(self, agent: Agent, name: str, bar: int) -> Cell:
        value = reading(agent.get("metrics"), _MEMBERS[name])
        drawn = self._terminal.bar(value, bar) + " " if value is not None and bar else ""
        return f"{drawn}{percent(value):>6}", _style(value)

    def _summary(self) -> str:
        states = Counter(str(agent.get("state")) for agent in self._agents.values())
        parts = [f"{number} {state.replace('_', ' ')}" for state, number in states.most_common()]
        return visible(": ".join([counted(len(self._agents), "agent"), ", ".join(parts)]))


def _state(agent: Agent) -> Cell:
    state = text(agent.get("state"))
    marked = " (legacy)" if agent.get("legacy") else ""
    return state.replace("_", " ") + marked, STATES.get(state, "")


def _widths(table: Sequence[tuple[Column, Sequence[Cell]]], width: int) -> list[Column]:
    """Readings and short words as wide as they are; ids and hosts share what is left."""
    found: dict[str, int] = {}
    for column, cells in table:
        found[column.name] = column.width or natural_width(column, cells)
    for name, most in _MOST.items():
        if name in found:
            found[name] = min(found[name], most)
    left = width - 2 * (len(table) - 1)
    left -= sum(taken for name, taken in found.items() if name not in ("AGENT", "HOST"))
    host = found.get("HOST", 0)
    found["AGENT"] = max(1, min(found["AGENT"], max(left // 2, left - host)))
    if host:
        found["HOST"] = max(1, min(host, left - found["AGENT"]))
    return [column._replace(width=found[column.name]) for column, _ in table]


def _style(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "dim"
    return "bad" if value >= _BAD else "warn" if value >= _WARN else "good"
