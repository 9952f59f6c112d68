"""Somebody on the way between an agent and the hub, who hears everything and has no key.

In: what both say. Out: commands that come twice, and an `auth` said again over a connection of the
stranger's own. None of it may count.
"""

from __future__ import annotations

from collections import deque
from random import Random

from jetcamer.net.endpoint import WebSocketEndpoint
from jetcamer.net.tls import ClientTrust
from jetcamer.net.websocket import Disconnected, WebSocketConnection
from tests.support.simulation.agents import URL
from tests.support.simulation.clock import Time
from tests.support.simulation.network import MachineReactor, Network

#: Seconds that the stranger waits for what comes of it.
_PATIENCE = 60.0


class Eavesdropper:
    """Between an agent and the hub, without a key: it sees, and says things again."""

    def __init__(self, time: Time) -> None:
        self.auths: list[tuple[float, bytes]] = []
        self.commands: deque[bytes] = deque(maxlen=4)
        self.repeated = 0
        self._time = time

    def up(self, data: bytes) -> None:
        if data[:1] != b"\x81":
            return
        at = {126: 4, 127: 10}.get(data[1] & 0x7F, 2)
        mask, masked = data[at : at + 4], data[at + 4 :]
        text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(masked))
        if b'"type":"auth"' in text:
            self.auths.append((self._time.now, text))

    def down(self, data: bytes) -> bytes:
        """A command comes twice, and those before it come again."""
        if b'"type":"command"' not in data:
            return data
        again = b"".join(self.commands)
        self.repeated += len(self.commands) + 1
        self.commands.append(data)
        return data + again + data


def say_again(network: Network, address: str, data: bytes) -> None:
    """Send `data` as the first message of a connection from `address`."""
    reactor = MachineReactor(network.machine(address, Random(address)))
    dial = WebSocketEndpoint(reactor, URL, trust=ClientTrust()).connect(
        lambda connection: _Replay(connection, data)
    )
    dial.addCallbacks(_Replay.speak, lambda failure: None)
    network.time.callLater(_PATIENCE, _leave, reactor)


def _leave(reactor: MachineReactor) -> None:
    reactor.kill()
    for wire in list(reactor.machine.wires):
        if wire.client is not None:
            wire.client.died(quietly=False)


class _Replay:
    """The receiver of the stranger's connection: says what was heard, once."""

    def __init__(self, connection: WebSocketConnection, data: bytes) -> None:
        self._connection = connection
        self._data = data

    def message_received(self, data: bytes) -> None: ...
    def closing(self) -> None: ...
    def disconnected(self, reason: Disconnected) -> None: ...

    def speak(self) -> None:
        self._connection.send(self._data)
