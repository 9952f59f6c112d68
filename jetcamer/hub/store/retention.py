"""How long the store keeps what: a value, handed over by the configuration."""

from __future__ import annotations

import msgspec

DAY = 86_400


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that each kind of fact is kept. Open sessions, unfinished commands, agents, tokens
    and the audit trail are kept in any case."""

    raw_seconds: int = DAY
    minute_seconds: int = 30 * DAY
    hour_seconds: int = 730 * DAY
    log_seconds: int = 14 * DAY
    session_seconds: int = 90 * DAY
    command_seconds: int = 90 * DAY
    refusal_seconds: int = 30 * DAY
    #: Of the database file; 0: no limit. Beyond it the oldest goes first: raw metrics, then logs,
    #: refusals, one-minute metrics, commands, sessions, one-hour metrics.
    max_bytes: int = 0
