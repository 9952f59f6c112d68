"""An answer that is larger than what a connection takes at once.

In: its bytes. Out: the same, a piece each time the client has read the one before, so that the
connection can tell a slow reader from one that does not read (`net/http_site.py`).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import Request
from zope.interface import implementer

#: Bytes of a piece: about what a transport takes before it says that it is full.
PIECE = 1 << 16


def write_body(request: Request, body: bytes) -> None:
    """Write `body` and finish `request`, now or as its client reads."""
    if len(body) <= PIECE:
        request.write(body)
        request.finish()
    else:
        _Body(request, body).begin()


@implementer(IPushProducer)
class _Body:
    def __init__(self, request: Request, body: bytes) -> None:
        self._request: Any = request
        self._left = memoryview(body)
        self._paused = False

    def begin(self) -> None:
        self._request.notifyFinish().addErrback(self._gone)
        self._request.registerProducer(self, True)
        self._write_on()

    def _write_on(self) -> None:
        while self._request is not None and not self._paused:
            if not self._left:
                request, self._request = self._request, None
                request.unregisterProducer()
                request.finish()
                return
            piece, self._left = bytes(self._left[:PIECE]), self._left[PIECE:]
            self._request.write(piece)

    def _gone(self, _: Failure) -> None:
        self._request = None
        self._left = memoryview(b"")

    # IPushProducer, called by the connection

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._write_on()

    def stopProducing(self) -> None: ...
