"""Host names → addresses, by the system's own resolver, in threads that nobody waits for.

In: a name. Out: addresses for an `IResolutionReceiver`. A name server that does not answer keeps
``getaddrinfo`` for half a minute. Twisted's resolver runs it in the reactor's thread pool, which
is joined at the end, so that the process would not stop before; nor can its look-ups be cancelled.
Threads here are daemons, live for one look-up, and those for the same name share it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any, Literal

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()

_FAMILIES = {IPv4Address: socket.AF_INET, IPv6Address: socket.AF_INET6}

#: What distinguishes look-ups: name, port, family, type of socket.
_Key = tuple[str, int, int, int]


@implementer(IHostResolution)
class _Resolution:
    """One caller's interest in a look-up."""

    def __init__(self, name: str, receiver: IResolutionReceiver) -> None:
        self.name = name
        self.receiver: IResolutionReceiver | None = receiver

    def cancel(self) -> None:
        """Forget it: the receiver hears nothing more. The look-up itself cannot be ended."""
        self.receiver = None


@implementer(IHostnameResolver)
class ThreadedResolver:
    """For ``reactor.installNameResolver``.

    :param reactor: calls back in its own thread with ``callFromThread``.
    """

    def __init__(
        self, reactor: Any, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo
    ) -> None:
        self._reactor = reactor
        self._getaddrinfo = getaddrinfo
        self._waiting: dict[_Key, list[_Resolution]] = {}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution(hostName, resolutionReceiver)
        resolutionReceiver.resolutionBegan(resolution)
        families = {_FAMILIES[each] for each in addressTypes or () if each in _FAMILIES}
        family = families.pop() if len(families) == 1 else socket.AF_UNSPEC
        kind = socket.SOCK_DGRAM if transportSemantics == "UDP" else socket.SOCK_STREAM
        key = (hostName, portNumber, int(family), int(kind))
        waiting = self._waiting.setdefault(key, [])
        waiting.append(resolution)
        if len(waiting) == 1:
            thread = Thread(target=self._look_up, args=(key,), name="resolver", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more threads
                log.warn("no thread to look up {host}: {error}", host=hostName, error=str(error))
                self._found(key, [])
        return resolution

    def _look_up(self, key: _Key) -> None:
        """In the thread."""
        try:
            found = self._getaddrinfo(*key)
        except Exception:
            # Not found, no name at all, no memory: whatever it is, others wait for this look-up.
            found = []
        self._reactor.callFromThread(self._found, key, found)

    def _found(self, key: _Key, found: list[Any]) -> None:
        for resolution in self._waiting.pop(key):
            for family, kind, *_, address in found:
                if resolution.receiver is not None and family in _FAMILIES.values():
                    transport: Literal["TCP", "UDP"] = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
                    made = IPv4Address if family == socket.AF_INET else IPv6Address
                    resolution.receiver.addressResolved(made(transport, *address))
            if resolution.receiver is not None:
                resolution.receiver.resolutionComplete()
