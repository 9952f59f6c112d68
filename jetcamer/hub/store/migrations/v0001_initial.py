"""Version 1: everything.

Times are Unix milliseconds. Readings are whole thousandths of a percent, so that sums stay exact.
Rows about agents in bulk hold the agent's number instead of its id.
"""

from __future__ import annotations

_READINGS = """
    n INTEGER NOT NULL,
    cpu_n INTEGER NOT NULL, cpu_sum INTEGER, cpu_min INTEGER, cpu_max INTEGER,
    mem_n INTEGER NOT NULL, mem_sum INTEGER, mem_min INTEGER, mem_max INTEGER,
    disk_n INTEGER NOT NULL, disk_sum INTEGER, disk_min INTEGER, disk_max INTEGER,
"""

STATEMENTS: tuple[str, ...] = (
    "CREATE TABLE numbers (number INTEGER PRIMARY KEY, agent_id TEXT NOT NULL UNIQUE)",
    """CREATE TABLE agents (
        agent_id TEXT PRIMARY KEY,
        created_ms INTEGER NOT NULL,
        legacy INTEGER NOT NULL,
        revoked_ms INTEGER,
        hostname TEXT NOT NULL,
        version TEXT NOT NULL,
        capabilities TEXT NOT NULL,
        address TEXT NOT NULL,
        last_seen_ms INTEGER,
        replay_floor_ms INTEGER
    ) WITHOUT ROWID""",
    """CREATE TABLE secrets (
        id INTEGER PRIMARY KEY,
        agent_id TEXT NOT NULL REFERENCES agents (agent_id) ON DELETE CASCADE,
        sealed BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER
    )""",
    "CREATE INDEX secrets_of_agent ON secrets (agent_id)",
    """CREATE TABLE sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        agent INTEGER NOT NULL,
        peer TEXT NOT NULL,
        hostname TEXT NOT NULL,
        version TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER,
        ending TEXT,
        messages INTEGER NOT NULL DEFAULT 0,
        refused INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE TABLE runs (id INTEGER PRIMARY KEY, started_ms INTEGER NOT NULL, ended_ms INTEGER)",
    "CREATE INDEX sessions_of_agent ON sessions (agent)",
    "CREATE INDEX sessions_open ON sessions (id) WHERE ended_ms IS NULL",
    "CREATE INDEX sessions_ended ON sessions (ended_ms) WHERE ended_ms IS NOT NULL",
    # Metrics: appended to `metrics_recent`; moved from there, many at a time and sorted by agent,
    # to `metrics_raw` and added to both roll-ups. `metrics_merge` has a row while that goes on:
    # rows up to `last_id` of agents up to number `agent` have been moved.
    """CREATE TABLE metrics_recent (
        id INTEGER PRIMARY KEY,
        agent INTEGER NOT NULL,
        ts INTEGER NOT NULL,
        cpu INTEGER,
        mem INTEGER,
        disk INTEGER
    )""",
    "CREATE TABLE metrics_merge (last_id INTEGER NOT NULL, agent INTEGER NOT NULL)",
    # `rows`: n offsets into the hour in ms, unsigned, then n of each reading, signed (-2^31:
    # absent); all of 32 bits, little-endian.
    """CREATE TABLE metrics_raw (
        id INTEGER PRIMARY KEY,
        hour INTEGER NOT NULL,
        agent INTEGER NOT NULL,
        n INTEGER NOT NULL,
        rows BLOB NOT NULL
    )""",
    "CREATE INDEX metrics_raw_by_hour ON metrics_raw (hour, agent)",
    f"""CREATE TABLE metrics_minute (
        agent INTEGER NOT NULL, span INTEGER NOT NULL, {_READINGS} PRIMARY KEY (agent, span)
    ) WITHOUT ROWID""",
    f"""CREATE TABLE metrics_hour (
        agent INTEGER NOT NULL, span INTEGER NOT NULL, {_READINGS} PRIMARY KEY (agent, span)
    ) WITHOUT ROWID""",
    # From which span on a resolution is whole, where the size cap took some: 'raw' (in hours) and
    # 'minute'.
    """CREATE TABLE metrics_floors (
        resolution TEXT PRIMARY KEY, span INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE logs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        agent INTEGER NOT NULL,
        ts INTEGER NOT NULL,
        received_ms INTEGER NOT NULL,
        level TEXT NOT NULL,
        message TEXT NOT NULL,
        source TEXT,
        event TEXT
    )""",
    "CREATE INDEX logs_of_agent ON logs (agent, received_ms)",
    "CREATE INDEX logs_of_level ON logs (agent, level, received_ms)",
    """CREATE TABLE refusals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        ts_ms INTEGER NOT NULL,
        agent_id TEXT,
        address TEXT NOT NULL,
        reason TEXT NOT NULL,
        words TEXT NOT NULL,
        own INTEGER NOT NULL,
        skew_ms INTEGER
    )""",
    "CREATE INDEX refusals_of_agent ON refusals (agent_id)",
    "CREATE INDEX refusals_own ON refusals (agent_id) WHERE own",
    "CREATE INDEX refusals_of_address ON refusals (address)",
    "CREATE INDEX refusals_by_time ON refusals (ts_ms)",
    """CREATE TABLE commands (
        command_id TEXT PRIMARY KEY,
        agent_id TEXT NOT NULL,
        command TEXT NOT NULL,
        args TEXT NOT NULL,
        who TEXT NOT NULL,
        state TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        sent_ms INTEGER,
        ended_ms INTEGER,
        expires_ms INTEGER,
        result TEXT,
        error TEXT,
        details TEXT,
        batch_id TEXT,
        timeout_seconds REAL NOT NULL
    )""",
    "CREATE INDEX commands_by_time ON commands (created_ms)",
    "CREATE INDEX commands_of_agent ON commands (agent_id, created_ms)",
    "CREATE INDEX commands_of_batch ON commands (batch_id, created_ms) WHERE batch_id IS NOT NULL",
    """CREATE INDEX commands_unfinished ON commands (created_ms)
        WHERE state IN ('queued', 'sent')""",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        ts_ms INTEGER NOT NULL,
        who TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        details TEXT NOT NULL,
        previous TEXT NOT NULL,
        hash TEXT NOT NULL
    )""",
    """CREATE TRIGGER audit_only_grows BEFORE INSERT ON audit
        WHEN new.id <= (SELECT max(id) FROM audit)
        BEGIN SELECT raise(ABORT, 'the audit trail only grows'); END""",
    """CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
        BEGIN SELECT raise(ABORT, 'the audit trail only grows'); END""",
    """CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
        BEGIN SELECT raise(ABORT, 'the audit trail only grows'); END""",
    """CREATE TABLE api_tokens (
        token_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        digest BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        last_used_ms INTEGER
    )""",
    """CREATE TABLE join_tokens (
        token_id TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        who TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER NOT NULL,
        uses_left INTEGER NOT NULL
    )""",
)
