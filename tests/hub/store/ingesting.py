"""A program that a test kills: it ingests all the time and says what is on disk.

Out: a line with the number of each round of facts that a flush has confirmed.
"""

from __future__ import annotations

import sys
import time

from twisted.internet import reactor

from jetcamer.hub.store.retention import Retention
from jetcamer.hub.store.sqlite import SQLiteStore
from tests.hub.store.support import agent_record, command_record

AGENTS = 50


def main(path: str) -> None:
    def now_ms() -> int:
        return int(time.time() * 1000)

    store = SQLiteStore(reactor, path, now_ms=now_ms, retention=Retention())
    given = [0]

    def give() -> None:
        start = given[0]
        for number in range(start, start + AGENTS):
            agent_id = f"agent-{number % AGENTS}"
            store.add_metrics(agent_id, now_ms(), float(number % 100), 1.5, None)
        given[0] += AGENTS
        store.add_log("agent-0", now_ms(), now_ms(), "info", str(start), None, None)
        store.put_command(command_record(f"c{start}"))
        store.audit("alice", "command.send", str(start), {})
        if start % (AGENTS * 20) == 0:
            store.upkeep().addErrback(lambda _: None)
        if start % (AGENTS * 7) == 0:
            store.flush().addCallback(lambda _: print(start, flush=True))
        reactor.callLater(0.005, give)

    def opened(_: object) -> None:
        store.session_started(agent_record("agent-0"), "p:1", now_ms())
        give()

    store.open().addCallback(opened)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
