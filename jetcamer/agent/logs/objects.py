"""What lies in the bucket: the key of an object, and its body.

In: lines and what they are of. Out: text that the reader in the field understands: plain NDJSON
under ``{machine-id}/``. The same lines give the same key and body, so that an upload that is
repeated overwrites itself. Pure.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from jetcamer.agent.logs.lines import Parser, text

#: The path under which the ledger counts events that were POSTed; no log file has it.
POSTED_PATH = "/internal/batch"

#: Bytes, roughly, of the events that are taken apart before they are encoded.
CHUNK = 1 << 15
#: What an event takes beside its line's bytes, roughly: in memory, and as JSON at the most.
_EVENT_SIZE, _JSON_SIZE = 512, 256

_encoder = msgspec.json.Encoder()


def object_key(machine_id: str, moment: float, identity: str, start: int, end: int) -> str:
    """The key for the lines of stream `identity` from offset `start` to `end`.

    :param moment: Unix seconds; the day and time in the key are UTC.
    """
    return f"{_prefix(machine_id, moment)}-{identity}-{start}-{end}.ndjson"


def posted_key(machine_id: str, moment: float, unique: str) -> str:
    """The key for events that were POSTed at `moment`; `unique` is another for each POST."""
    return f"{_prefix(machine_id, moment)}-batch-{unique}.ndjson"


def _prefix(machine_id: str, moment: float) -> str:
    return f"{machine_id}/{time.strftime('%Y-%m-%d/%H%M%S', time.gmtime(moment))}"


def flat_name(key: str) -> str:
    """A file name for `key`, from which `key_of` gets it back."""
    return key.replace("%", "%25").replace("/", "%2F")


def key_of(name: str) -> str:
    return name.replace("%2F", "/").replace("%25", "%")


def render(lines: Iterable[bytes], parse: Parser, source: str) -> tuple[bytearray, int]:
    """The body for `lines`, and how many of them `parse` does not know: those are
    ``{"raw": …, "source": …}``.

    :param source: the log file's base name.
    """
    body = bytearray()
    unmatched = size = 0
    events: list[Mapping[str, Any]] = []
    for line in lines:
        words = text(line)
        event = parse(words)
        if event is None:
            unmatched += 1
            event = {"raw": words, "source": source}
        events.append(event)
        size += len(line) + _EVENT_SIZE
        if size > CHUNK:
            body += _encoder.encode_lines(events)
            events.clear()
            size = 0
    body += _encoder.encode_lines(events)
    return body, unmatched


def rendered_size(size: int, lines: int) -> int:
    """What `render` makes of so many bytes and lines at the most: of a NUL, six bytes."""
    return size * 6 + lines * _JSON_SIZE


def count(body: bytes) -> int:
    """Events in NDJSON."""
    return body.count(b"\n") + (body != b"" and not body.endswith(b"\n"))
