"""Answers of a hub, as its API gives them. Times are near `NOW`."""

from __future__ import annotations

import time
from typing import Any

NOW = round(time.time() * 1000)
MINUTE = 60_000

#: What a peer may call itself: markup, an escape sequence, a new line, a turned direction.
EVIL = "[red]x[/red]\x1b[2J\n\u202e"
EVIL_SHOWN = "[red]x[/red]\\x1b[2J\\n\\u202e"


def agent(agent_id: str = "web-01", **more: Any) -> dict[str, Any]:
    return {
        "agentId": agent_id,
        "state": "online",
        "words": "online for 2 h",
        "hostname": f"host-of-{agent_id}",
        "version": "5.0.0",
        "capabilities": ["metrics", "logs"],
        "address": "192.0.2.7",
        "connectedAt": NOW - 120 * MINUTE,
        "lastSeen": NOW - 3 * MINUTE,
        "clockSkewMs": None,
        "legacy": False,
        "createdAt": NOW - 3000 * MINUTE,
        "metrics": {"cpuPercent": 12.5, "memPercent": 80.0, "diskUsage": 95.04, "ts": NOW},
        **more,
    }


def command(command_id: str = "c1", **more: Any) -> dict[str, Any]:
    return {
        "id": command_id,
        "agentId": "web-01",
        "command": "ping",
        "args": {},
        "who": "alice",
        "state": "done",
        "createdAt": NOW - MINUTE,
        "sentAt": NOW - MINUTE,
        "endedAt": NOW - MINUTE + 12,
        "milliseconds": 12,
        "expiresAt": None,
        "result": "pong",
        "error": None,
        "details": None,
        "batchId": None,
        **more,
    }


def log(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "ts": 1_700_000_000_000 + number * 1000,
        "receivedAt": 1_700_000_000_000 + number * 1000 + 5,
        "level": "info",
        "message": f"line {number}",
        "source": None,
        "event": None,
        **more,
    }


def session(**more: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "peer": "192.0.2.7:40000",
        "hostname": "host",
        "version": "5.0.0",
        "startedAt": NOW - 60 * MINUTE,
        "endedAt": NOW - 55 * MINUTE,
        "ending": "closed by the agent: 1000",
        "messages": 120,
        "refused": 0,
        **more,
    }


def refusal(**more: Any) -> dict[str, Any]:
    return {
        "ts": NOW - 5 * MINUTE,
        "agentId": "web-01",
        "address": "192.0.2.9",
        "reason": "invalid_signature",
        "words": "signed with another key",
        **more,
    }


def points(count: int = 3) -> list[dict[str, Any]]:
    return [
        {
            "ts": NOW - (count - number) * MINUTE,
            "count": 12,
            "cpuPercent": {"avg": 10.0 * number, "min": 1.0, "max": 99.0},
            "memPercent": {"avg": 50.0, "min": 50.0, "max": 50.0},
            "diskUsage": None,
        }
        for number in range(count)
    ]


STATUS: dict[str, Any] = {
    "version": "5.0.0",
    "startedAt": NOW - 90 * MINUTE,
    "ready": True,
    "why": None,
    "draining": False,
    "connections": 12,
    "agentsOnline": 11,
    "agentsKnown": 14,
    "messages": 123456,
    "refusals": {"invalid_signature": 3},
    "store": {"ok": True, "words": None, "lagSeconds": 0.4, "waiting": 5, "lost": 0, "size": 5e7},
    "reactorLagSeconds": 0.003,
}
