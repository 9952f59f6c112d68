"""A planned batch on its way to S3.

In: a stream and the bounds of a batch. Out: the object's body, read and made when it is uploaded;
afterwards its lines in the ledger. Must never fail for what a line holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.logs.checkpoint import Batch
from jetcamer.agent.logs.lines import Block, split
from jetcamer.agent.logs.objects import CHUNK, render, rendered_size
from jetcamer.agent.logs.stream import Stream, held_size
from jetcamer.agent.logs.uploads import Content, MakeBody, Outcome

if TYPE_CHECKING:
    from jetcamer.agent.logs.archive import Archive

log = Logger()


def _no_parser(line: str) -> None:
    return None


def _lines(block: Block) -> Iterator[bytes]:
    """Not all at once: many short ones take far more memory than their bytes."""
    data, place = block.data, 0
    if len(data) < block.end - block.start:  # one overlong line
        yield from split(block)
        return
    while place < len(data):
        end = data.find(b"\n", place + CHUNK) + 1 or len(data)
        yield from split(Block(place, end, data[place:end]))
        place = end


class BatchUpload:
    """An `Upload` of a planned batch."""

    def __init__(self, archive: Archive, stream: Stream, batch: Batch) -> None:
        self.stream = stream
        self.batch = batch
        self.key = batch.key
        self.lines = batch.lines
        size = held_size(batch.start, batch.end)
        self.size = size + rendered_size(size, batch.lines)
        #: None until it is over.
        self.outcome: Outcome | None = None
        self.is_unreadable = False
        self._archive = archive
        self._unmatched = 0
        self._parser_failed: Failure | None = None

    def open(self) -> MakeBody | None:
        block = self.stream.block(self.batch.start, self.batch.end)
        if block is None:
            return None
        self.is_unreadable = False
        path = self.stream.path
        # A parser may remember things, and this one is for one thread.
        parse = self._archive.parser_for(path)
        source = path.rpartition("/")[2]

        def make_body() -> tuple[Content, int]:
            try:
                return render(_lines(block), parse, source)
            except Exception:  # it would fail for ever
                self._parser_failed = Failure()
                return render(_lines(block), _no_parser, source)

        return make_body

    def unreadable(self, error: OSError | None) -> None:
        if self.is_unreadable:
            return
        self.is_unreadable = True
        if error is not None:
            log.warn(
                "[logs] {path}: cannot be read: {why}", path=self.stream.path, why=error.strerror
            )
        self._archive.check(self.stream)

    def put_aside(self, body: Content) -> Deferred[bool]:
        return self._archive.put_aside(self.key, body)

    def finished(self, outcome: Outcome, unmatched: int, why: str) -> None:
        self._unmatched = unmatched
        if self._parser_failed is not None:
            log.failure("[logs] {path}: parsing failed", self._parser_failed, path=self.stream.path)
            self._parser_failed = None
        if self.outcome is None:
            self.outcome = outcome
            self._archive.settle(self, why)
        else:  # its stream was closed meanwhile, and it was counted as lost
            self.stream.ledger.given_up -= self.lines
            self.outcome = outcome
            self.count()
            self._archive.late()

    def count(self) -> None:
        """Into the ledger: when everything before it is there."""
        ledger = self.stream.ledger
        assert self.outcome is not None
        ledger.count(self.outcome, self.lines)
        if self.outcome == "archived":
            ledger.unmatched += self._unmatched
