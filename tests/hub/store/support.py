"""What the tests of the store share."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from jetcamer.hub.records import AgentRecord, APITokenRecord, CommandRecord, JoinTokenRecord
from jetcamer.hub.store.retention import Retention
from jetcamer.hub.store.sqlite import SQLiteStore

#: The wall clock of the tests.
NOW = 1_763_880_000_000


def agent_record(agent_id: str = "web-1", **members: object) -> AgentRecord:
    return AgentRecord(agent_id=agent_id, **{"created_ms": NOW, **members})


def command_record(command_id: str, **members: object) -> CommandRecord:
    values = {
        "agent_id": "web-1",
        "command": "ping",
        "args": {},
        "who": "alice",
        "state": "sent",
        "created_ms": NOW,
    }
    return CommandRecord(command_id=command_id, **{**values, **members})


def join_token(token_id="j1", uses=1, expires_ms=NOW + 1000):
    return JoinTokenRecord(
        token_id=token_id,
        digest=b"digest of " + token_id.encode(),
        who="alice",
        created_ms=NOW,
        expires_ms=expires_ms,
        uses_left=uses,
    )


def api_token(token_id, created_ms=NOW, **members):
    return APITokenRecord(
        token_id=token_id, name="ci", role="viewer", digest=b"d", created_ms=created_ms, **members
    )


class SQLiteCase(TestCase):
    """A database of the test's own, closed at its end."""

    timeout = 60

    def setUp(self):
        self.now = NOW
        self.path = f"{self.mktemp()}/hub.sqlite3"

    def make(self, path=None, retention=None, **options):
        store = SQLiteStore(
            reactor,
            path or self.path,
            now_ms=lambda: self.now,
            retention=retention or Retention(),
            **options,
        )
        self.addCleanup(store.close)
        return store

    async def opened(self, **options):
        store = self.make(**options)
        await store.open()
        return store
