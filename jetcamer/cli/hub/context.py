"""What every command is handed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from jetcamer.cli.hub.client import HubClient
    from jetcamer.cli.hub.output import Output


class Context:
    """:param sleep: waits for so many seconds."""

    def __init__(
        self,
        client: HubClient,
        output: Output,
        stdin: TextIO,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self.output = output
        self.stdin = stdin
        self.sleep = sleep
        self._now = now

    @property
    def now_ms(self) -> int:
        return round(self._now() * 1000)
