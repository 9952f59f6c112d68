"""Streams as the last checkpoint has them, and what there is to read them on from.

In: a stream's state. Out: its positions, or the count of what is lost. Opens nothing.
"""

from __future__ import annotations

from jetcamer.agent.logs.checkpoint import StreamState
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.stream import Cursor, Stream


def slowest(state: StreamState) -> int:
    """The offset of the first byte that a taker has neither settled nor planned."""
    archive = state.batches[-1].end if state.batches else state.archive
    return state.live if archive is None else min(state.live, archive)


def first_needed(state: StreamState) -> int:
    """The offset of the first byte that has to be read again."""
    return state.live if state.archive is None else min(state.live, state.archive)


def resume_live(stream: Stream, state: StreamState) -> None:
    """The live taker's place, but within what is there."""
    place = max(stream.source.base, min(state.live, stream.end))
    stream.live = Cursor(stream, place)
    stream.live_settled = place


def resume_archive(stream: Stream, state: StreamState | None) -> None:
    """The archive's place, and the objects it has planned; where it has none, it begins with
    what the live taker has not read. What is no longer there is given up."""
    if state is None or state.archive is None:
        stream.archived = stream.live.position
        stream.archive = Cursor(stream, stream.archived)
        return
    base = stream.source.base
    for batch in state.batches:
        if batch.start >= base and batch.end <= stream.end:
            stream.batches.append(batch)
        else:
            stream.ledger.given_up += batch.lines
    place = state.batches[-1].end if state.batches else state.archive
    stream.archive = Cursor(stream, max(base, min(place, stream.end)))
    stream.archived = stream.batches[0].start if stream.batches else stream.archive.position


def give_up(ledger: Ledger, state: StreamState) -> None:
    """Count the lines of the planned objects, which can no longer be made."""
    ledger.given_up += sum(batch.lines for batch in state.batches)
