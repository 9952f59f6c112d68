"""The real reactor with time running faster, so that a test of minutes takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer


@implementer(IReactorTime)
class FastReactor:
    """Everything of `reactor`, but seconds are `speed` times as short.

    It also knows which of the delayed calls made through it are pending: the agent's own.
    """

    def __init__(self, reactor: Any, speed: float) -> None:
        self._reactor = reactor
        self._speed = speed
        self._calls: list[IDelayedCall] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def seconds(self) -> float:
        return self._reactor.seconds() * self._speed

    def callLater(
        self, delay: float, function: Callable[..., object], *args: object, **kwargs: object
    ) -> Any:
        call = _FastCall(
            self._reactor.callLater(delay / self._speed, function, *args, **kwargs), self._speed
        )
        self._calls = [*self.getDelayedCalls(), call]
        return call

    def getDelayedCalls(self) -> list[IDelayedCall]:
        return [call for call in self._calls if call.active()]


class _FastCall:
    """A delayed call whose times are those of the fast reactor."""

    def __init__(self, call: Any, speed: float) -> None:
        self._call = call
        self._speed = speed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def getTime(self) -> float:
        return self._call.getTime() * self._speed

    def reset(self, delay: float) -> None:
        self._call.reset(delay / self._speed)

    def delay(self, delay: float) -> None:
        self._call.delay(delay / self._speed)
