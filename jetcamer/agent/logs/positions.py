"""Streams as the last checkpoint has them, and what there is to read them on from.

In: a stream's state. Out: its positions, or the count of what is lost. Opens nothing.
"""

from __future__ import annotations

from jetcamer.agent.logs.checkpoint import StreamState
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


def resume_archive(stream: Stream, state: StreamState | None) -> int:
    """The archive's place, and the objects it has planned; where it has none, it begins with
    what the live taker has not read. The number of planned lines that are no longer there."""
    if state is None or state.archive is None:
        stream.archived = stream.live.position
        stream.archive = Cursor(stream, stream.archived)
        return 0
    gone = 0
    base = stream.source.base
    for batch in state.batches:
        if batch.start >= base and batch.end <= stream.end:
            stream.batches.append(batch)
        else:
            gone += batch.lines
            if stream.source.head is None:  # the spool: what it has of them is given up as well
                stream.end = min(stream.end, batch.start)
    place = state.batches[-1].end if state.batches else state.archive
    stream.archive = Cursor(stream, max(base, min(place, stream.end)))
    stream.archived = stream.batches[0].start if stream.batches else stream.archive.position
    return gone


def planned_lines(state: StreamState) -> int:
    """The lines of the planned objects."""
    return sum(batch.lines for batch in state.batches)
