"""The hub's figures as Prometheus reads them.

In: the fleet and the hub's own figures at the moment of asking; durations as they are measured.
Out: the text exposition format. The number of agents with series of their own is bounded, and
whoever asks does not hold up the reactor: long families are written a part at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import Counter as CounterMetric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from twisted.internet.task import deferLater

from jetcamer.hub.api.parts import HubParts

#: Agents that have series of their own, unless told otherwise.
MAX_AGENTS = 2_000
#: Samples written before the reactor gets a turn.
_AT_ONCE = 100

_STATES = ("online", "offline", "clock_wrong", "clone", "refused", "revoked", "never_seen")
_REQUEST_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
_COMMAND_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class _Seen(NamedTuple):
    """What is shown of one agent."""

    agent_id: str
    up: bool
    cpu: float | None
    memory: float | None
    disk: float | None
    last_seen: float | None


#: Name, help, and the value of one agent; None: no sample.
_AGENT_GAUGES: tuple[tuple[str, str, Callable[[_Seen], float | None]], ...] = (
    ("up", "Whether the agent is connected.", lambda seen: float(seen.up)),
    ("cpu_ratio", "Use of the processors, 0 to 1.", lambda seen: _ratio(seen.cpu)),
    ("memory_ratio", "Use of the memory, 0 to 1.", lambda seen: _ratio(seen.memory)),
    ("disk_ratio", "Use of the disk, 0 to 1.", lambda seen: _ratio(seen.disk)),
    (
        "last_seen_timestamp_seconds",
        "When the agent was last heard, by the hub's clock.",
        lambda seen: seen.last_seen,
    ),
)


class Exposition:
    """A registry of its own, and the text of it.

    :param max_agents: agents that have series of their own; the others are counted.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, parts: HubParts, *, max_agents: int = MAX_AGENTS) -> None:
        self._parts = parts
        self._max_agents = max_agents
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(HubCollector(parts))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._requests = CounterMetric(
            "jetcamer_api_requests",
            "Answers of the API.",
            ("method", "path", "status"),
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "jetcamer_api_request_duration_seconds",
            "How long the API took to answer.",
            ("method", "path"),
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._command_seconds = Histogram(
            "jetcamer_command_duration_seconds",
            "How long agents took to answer a command.",
            buckets=_COMMAND_BUCKETS,
            registry=self._registry,
        )

    def request_answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """`path` as in the table of operations, not as it was asked for."""
        self._requests.labels(method, path, str(status)).inc()
        self._request_seconds.labels(method, path).observe(seconds)

    def command_answered(self, seconds: float) -> None:
        """For `Commands.on_answer`."""
        self._command_seconds.observe(seconds)

    async def text(self) -> bytes:
        """All of it, as it is now."""
        parts = [generate_latest(self._registry)]
        agents = (agent for agent in self._parts.fleet if agent.revoked_ms is None)
        shown = [_seen(agent) for agent in islice(agents, self._max_agents)]
        left_out = GaugeMetricFamily(
            "jetcamer_agents_without_series", "Agents beyond the limit on series of their own."
        )
        left_out.add_metric((), sum(1 for _ in agents))
        parts.append(_family_text(left_out))
        for name, words, value_of in _AGENT_GAUGES:
            for start in range(0, max(1, len(shown)), _AT_ONCE):
                family = GaugeMetricFamily(f"jetcamer_agent_{name}", words, labels=("agent",))
                for seen in shown[start : start + _AT_ONCE]:
                    value = value_of(seen)
                    if value is not None:
                        family.add_metric((seen.agent_id,), value)
                text = _family_text(family)
                parts.append(_without_head(text) if start else text)
                await deferLater(self._parts.clock, 0)
        return b"".join(parts)


class HubCollector(Collector):
    """The hub's own figures, read when somebody asks."""

    def __init__(self, parts: HubParts) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        figures, store = self._parts.status, self._parts.store.health()
        now = self._parts.now_ms()
        states: Counter[str] = Counter(agent.state(now)[0] for agent in self._parts.fleet)
        yield _labelled(
            GaugeMetricFamily,
            "agents",
            "Agents that are known, by state.",
            "state",
            ((state, states[state]) for state in _STATES),
        )
        yield _labelled(
            GaugeMetricFamily,
            "build_info",
            "The hub's version.",
            "version",
            ((figures.version, 1),),
        )
        yield _gauge("start_time_seconds", "When the hub started.", figures.started_ms / 1000)
        yield _gauge("ready", "Whether the hub should get agents.", figures.ready)
        yield _gauge("connections", "Connections of agents that are open.", figures.connections)
        yield _gauge(
            "reactor_lag_seconds",
            "How late the reactor was at worst in the last seconds.",
            figures.reactor_lag,
        )
        yield _labelled(
            CounterMetricFamily,
            "messages",
            "Messages that verified.",
            "type",
            figures.messages_by_type.items(),
        )
        yield _labelled(
            CounterMetricFamily,
            "refusals",
            "Messages and connections that were refused.",
            "reason",
            figures.refusals.items(),
        )
        handshakes = CounterMetricFamily("jetcamer_handshakes", "WebSocket upgrades accepted.")
        handshakes.add_metric((), figures.handshakes)
        yield handshakes
        yield _labelled(
            CounterMetricFamily,
            "handshakes_refused",
            "WebSocket upgrades refused.",
            "status",
            ((str(status), count) for status, count in figures.handshakes_refused.items()),
        )
        yield _labelled(
            CounterMetricFamily,
            "commands",
            "Commands, by their last state.",
            "state",
            self._parts.commands.counts.items(),
        )
        yield _gauge("store_up", "Whether the last write to the database succeeded.", store.ok)
        yield _gauge(
            "store_lag_seconds", "How long the oldest fact not yet on disk has waited.", store.lag
        )
        yield _gauge("store_waiting", "Facts that wait for the disk.", store.waiting)
        yield _gauge("store_size_bytes", "The size of the database.", store.size)
        lost = CounterMetricFamily("jetcamer_store_lost", "Facts that were given up.")
        lost.add_metric((), store.lost)
        yield lost


class _Only(Collector):
    """One family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _family_text(family: Metric) -> bytes:
    return generate_latest(_Only(family))


def _without_head(text: bytes) -> bytes:
    """Without the two lines of help and type, which a family has once."""
    return text.split(b"\n", 2)[2]


def _gauge(name: str, words: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"jetcamer_{name}", words)
    family.add_metric((), float(value))
    return family


def _labelled(
    kind: Any, name: str, words: str, label: str, values: Iterable[tuple[str, float]]
) -> Metric:
    family: Metric = kind(f"jetcamer_{name}", words, labels=(label,))
    add: Any = family
    for value_label, value in values:
        add.add_metric((value_label,), value)
    return family


def _seen(agent: Any) -> _Seen:
    reading = agent.metrics
    return _Seen(
        agent.agent_id,
        agent.session is not None,
        None if reading is None else reading.cpu_percent,
        None if reading is None else reading.mem_percent,
        None if reading is None else reading.disk_usage,
        None if agent.last_seen_ms is None else agent.last_seen_ms / 1000,
    )


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
