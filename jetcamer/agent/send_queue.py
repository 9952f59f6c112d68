"""What the agent wants to tell the server, from the moment it is said to the moment it is sent.

In: a message type and a payload. Out: canonical payload text in a bounded outbox which outlives
connections; the session of the moment seals and sends it. What is dropped is counted and said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger

from jetcamer.net.outbox import Keep, Outbox
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.errors import ProtocolError

log = Logger()

#: Bytes that may wait to be sent.
OUTBOX_LIMIT = 1 << 20

#: A longer payload would not fit a message of 1 MiB with the envelope around it.
MAX_PAYLOAD = (1 << 20) - (1 << 13)

#: Bytes that a message costs beside its payload while it waits.
OVERHEAD = 256


class Outgoing(msgspec.Struct, frozen=True):
    """One message that waits: sealed only when it is sent, with the key of that moment."""

    type: str
    #: Canonical text.
    payload: bytes
    #: Unix milliseconds of what it reports; None: the time of sending counts.
    ts: int | None
    #: The log line for when it has been sent.
    words: str
    #: Told once what became of it: written, or dropped.
    told: Callable[[bool], None] | None = None


class Counters:
    """What happened on the link since the agent started, by kind. Shown by ``ws-status``."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.connections = 0
        self.failures = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "connections": self.connections,
            "failures": self.failures,
            "sent": dict(self.sent),
            "dropped": dict(self.dropped),
            "received": dict(self.received),
            "refused": dict(self.refused),
        }


class SendQueue:
    """The one way to the server for everything but ``auth``.

    Metrics and heartbeats are `Keep.LIVE`, log messages `Keep.QUEUED`, command results
    `Keep.ASSURED`.
    """

    def __init__(self, counters: Counters, limit: int = OUTBOX_LIMIT) -> None:
        self._counters = counters
        self._outbox: Outbox[Outgoing] = Outbox(limit, self._dropped)
        self._dropping = 0
        self._closing = False

    def __len__(self) -> int:
        """Messages that wait now."""
        return len(self._outbox)

    @property
    def producer(self) -> IPushProducer:
        """What the connection's transport pauses while it is full."""
        return self._outbox

    @property
    def size(self) -> int:
        """Bytes that wait now."""
        return self._outbox.size

    @property
    def is_open(self) -> bool:
        """Whether there is a session to send with."""
        return self._outbox.is_open

    @property
    def flowing(self) -> bool:
        """Whether what is put now is written now."""
        return self._outbox.flowing

    def metrics(self, payload: Mapping[str, Any], ts: int, words: str) -> None:
        self._put(Outgoing("metrics", canonical(dict(payload)), ts, words), Keep.LIVE)

    def heartbeat(self, ts: int) -> None:
        payload = canonical({"status": "alive"})
        self._put(Outgoing("heartbeat", payload, ts, "[ws] heartbeat sent"), Keep.LIVE)

    def log_message(
        self,
        level: str,
        message: str,
        source: str | None,
        event: Mapping[str, Any] | None = None,
        told: Callable[[bool], None] | None = None,
    ) -> bool:
        """False when it is too long or there is no room for it, which is counted.

        :param event: what a parser made of the message; an addition to the protocol.
        :param told: called once, with whether it was written.
        """
        payload: dict[str, Any] = {"level": level, "message": message}
        if source is not None:
            payload["source"] = source
        if event is not None:
            payload["event"] = dict(event)
        return self._put(Outgoing("log", canonical(payload), None, "", told), Keep.QUEUED)

    def command_result(self, payload: Mapping[str, Any]) -> None:
        """Queue a result. One that cannot be sent as it is becomes an error that says why."""
        words = f"[ws] command result sent: {payload.get('command')}"
        try:
            text = canonical(dict(payload))
        except ProtocolError as error:
            text = _instead(payload, f"the result cannot be sent: {error}")
        if len(text) > MAX_PAYLOAD:
            text = _instead(payload, f"the result is too large: {len(text)} bytes")
        if self._put(Outgoing("command_result", text, None, words), Keep.ASSURED):
            return
        text = _instead(payload, f"no room for the result: {self.size} bytes wait for the server")
        outgoing = Outgoing("command_result", text, None, words)
        if not self._put(outgoing, Keep.ASSURED):
            self._dropped(outgoing)

    def open(self, write: Callable[[Outgoing], None]) -> None:
        """The session is authenticated: everything goes through `write` from now on."""
        self._outbox.open(write)

    def close(self) -> None:
        """The session is over; results and log messages wait for the next."""
        self._closing = True
        self._outbox.close()
        self._closing = False

    def when_empty(self) -> Deferred[None]:
        return self._outbox.when_empty()

    def sent(self, outgoing: Outgoing) -> None:
        """To be called by the session once it has written a message."""
        self._counters.sent[outgoing.type] += 1
        if outgoing.told is not None:
            outgoing.told(True)
        if self._dropping and not self._outbox:
            log.info(
                "[ws] the server keeps up again; {count} messages dropped", count=self._dropping
            )
            self._dropping = 0

    def _put(self, outgoing: Outgoing, keep: Keep) -> bool:
        if len(outgoing.payload) > MAX_PAYLOAD:
            self._counters.dropped[outgoing.type] += 1
            log.warn(
                "[ws] {type} message dropped: {size} bytes are too many",
                type=outgoing.type,
                size=len(outgoing.payload),
            )
            if outgoing.told is not None:
                outgoing.told(False)
            return False
        return self._outbox.put(outgoing, len(outgoing.payload) + OVERHEAD, keep)

    def _dropped(self, outgoing: Outgoing) -> None:
        self._counters.dropped[outgoing.type] += 1
        if outgoing.told is not None:
            outgoing.told(False)
        if self._closing:
            return  # it was of that moment, and the moment is over
        self._dropping += 1
        if self._dropping == 1:
            log.warn(
                "[ws] dropping messages, oldest first: the server does not take them"
                " (first: {type}, {size} bytes wait)",
                type=outgoing.type,
                size=self.size,
            )


def _instead(payload: Mapping[str, Any], error: str) -> bytes:
    return canonical(
        {
            "command": str(payload.get("command", "")),
            "result": "",
            "error": error,
            "inReplyTo": str(payload.get("inReplyTo", "")),
        }
    )
