"""An agent that speaks as the Go agents in the field do.

It writes what Go's ``encoding/json`` writes, by that package's documentation and not by any code of
ours: ``<``, ``>``, ``&`` and U+2028/2029 escaped, map keys sorted by their bytes, ``-0``, ``1e-7``.
It leaves out an empty ``error``, knows no ``inReplyTo``, answers in the order it was asked, and
dials again 2, 4, 8 … seconds after it lost its connection.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol

from tests.hub.raw_websocket import CLOSE, PING, PONG, TEXT, frame, frames, request

VERSION = "go-2.3.1"

#: What ``systemctl status`` prints: full of what the dialects write differently.
STATUS = '● agent.service - "the <Go> agent" & friends\n\tLoaded: /usr/lib \u2028 unité 🛰'

_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_ESCAPED = "<>&\u2028\u2029"


def go_string(text: str) -> str:
    """A string as ``json.Marshal`` writes it."""
    written = []
    for character in text:
        if character in _SHORT:
            written.append(_SHORT[character])
        elif character < " " or character in _ESCAPED:
            written.append(f"\\u{ord(character):04x}")
        elif "\ud800" <= character <= "\udfff":
            written.append("\ufffd")
        else:
            written.append(character)
    return '"' + "".join(written) + '"'


def go_float(value: float) -> str:
    """A float64 as ``json.Marshal`` writes it: ES6's form, but for minus zero."""
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    digits = Decimal(repr(value))
    if 1e-6 <= abs(value) < 1e21:
        text = format(digits, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    sign, figures, _ = digits.normalize().as_tuple()
    exponent = digits.normalize().adjusted()
    rest = "".join(map(str, figures[1:]))
    mantissa = f"{figures[0]}.{rest}" if rest else f"{figures[0]}"
    return f"{'-' if sign else ''}{mantissa}e{'+' if exponent > 0 else '-'}{abs(exponent)}"


class Fields(dict[str, Any]):
    """A struct: its members in the order in which they are declared."""


def go_json(value: object) -> str:
    """What ``json.Marshal`` makes of strings, booleans, numbers, lists, maps and structs."""
    if isinstance(value, str):
        return go_string(value)
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return go_float(value)
    if isinstance(value, Mapping):
        members = list(value.items())
        if not isinstance(value, Fields):
            members.sort(key=lambda member: member[0].encode("utf-8", "replace"))
        return "{" + ",".join(f"{go_string(k)}:{go_json(v)}" for k, v in members) + "}"
    assert isinstance(value, list | tuple), value
    return "[" + ",".join(map(go_json, value)) + "]"


def seal(secret: str, kind: str, agent_id: str, payload: object) -> bytes:
    """One signed message."""
    envelope = Fields(
        type=kind,
        agentId=agent_id,
        ts=int(time.time() * 1000),
        nonce=str(uuid4()),
        payload=payload,
    )
    text = go_json(envelope)
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return go_json(Fields(envelope, signature=signature)).encode()


class _Socket(Protocol):
    """One connection. What is longer than a read is waited for; nothing comes in fragments."""

    def __init__(self, agent: GoAgent) -> None:
        self._agent = agent
        self._data = b""
        self._open = False
        self.ending = (1006, "")

    def send_text(self, data: bytes) -> None:
        self.transport.write(frame(TEXT, data, mask=os.urandom(4)))

    def connectionMade(self) -> None:
        self.transport.write(request())

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if not self._open:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head:
                self.transport.loseConnection()
                return
            self._open, self._data = True, rest
            self._agent.opened(self)
        while len(self._data) >= (size := _frame_size(self._data)):
            (opcode, payload), self._data = frames(self._data[:size])[0], self._data[size:]
            if opcode == TEXT:
                self._agent.message_received(payload)
            elif opcode == PING:
                self.transport.write(frame(PONG, payload, mask=os.urandom(4)))
            elif opcode == CLOSE:
                self.ending = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
                self.transport.write(frame(CLOSE, payload[:2], mask=os.urandom(4)))

    def connectionLost(self, reason: Any = None) -> None:
        self._agent.connection_lost(self)


def _frame_size(data: bytes) -> int:
    """Of the first frame, unmasked; 2 at the least."""
    if len(data) < 4:
        return max(2, 2 + data[1]) if len(data) > 1 else 2
    length = data[1] & 0x7F
    if length == 126:
        return 4 + int.from_bytes(data[2:4], "big")
    return 10 + int.from_bytes(data[2:10], "big") if length == 127 else 2 + length


class GoAgent:
    """An agent that stays connected until it is stopped."""

    def __init__(self, reactor: Any, port: int, agent_id: str, secret: str) -> None:
        self.agent_id = agent_id
        self._reactor = reactor
        self._port = port
        self._secret = secret
        self._socket: _Socket | None = None
        self._dialling: Deferred[Any] | None = None
        self._attempt = 0
        self._retry: IDelayedCall | None = None
        self._stopped = False
        #: Commands it was given, in order.
        self.commands: list[str] = []
        #: While True it takes commands and answers none.
        self.mute = False
        self._unanswered: list[dict[str, Any]] = []
        #: Close code and reason of each connection that ended.
        self.endings: list[tuple[int, str]] = []

    def start(self) -> GoAgent:
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", self._port)
        self._dialling = connectProtocol(endpoint, _Socket(self))
        self._dialling.addErrback(lambda _: self._wait())
        return self

    def stop(self) -> None:
        self._stopped = True
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._dialling is not None:
            self._dialling.cancel()
        if self._socket is not None:
            self._socket.transport.abortConnection()

    def opened(self, socket: _Socket) -> None:
        self._socket = socket
        self.send("auth", Fields(hostname="go <host>", version=VERSION))

    def connection_lost(self, socket: _Socket) -> None:
        self.endings.append(socket.ending)
        self._socket = None
        self._wait()

    def _wait(self) -> None:
        if not self._stopped:
            self._attempt += 1
            self._retry = self._reactor.callLater(min(60, 2**self._attempt), self.start)

    def send(self, kind: str, payload: object) -> None:
        if self._socket is not None:
            self._socket.send_text(seal(self._secret, kind, self.agent_id, payload))

    def send_metrics(self, cpu: float, memory: float, disk: float) -> None:
        self.send("metrics", Fields(cpuPercent=cpu, memPercent=memory, diskUsage=disk))

    def send_log(self, message: str) -> None:
        self.send("log", Fields(level="warn", message=message, source="go"))

    def message_received(self, data: bytes) -> None:
        """A command is run as it comes, and never verified."""
        envelope = json.loads(data)
        if envelope["type"] == "command":
            self.commands.append(envelope["payload"]["command"])
            self._unanswered.append(envelope["payload"])
            if not self.mute:
                self.answer()

    def answer(self) -> None:
        """Answer what has not been answered, in the order in which it was asked."""
        self.mute = False
        waiting, self._unanswered = self._unanswered, []
        for asked in waiting:
            command = asked["command"]
            results = {"ping": "pong", "get_status": STATUS, "get_version": VERSION}
            if command == "echo":
                result = Fields(command=command, result=go_json(asked["args"]))
            elif command in results:
                result = Fields(command=command, result=results[command])
            else:
                result = Fields(command=command, result="unknown_command")
                result["error"] = "command not recognized"
            self.send("command_result", result)
