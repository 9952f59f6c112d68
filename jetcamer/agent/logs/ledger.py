"""What became of every line of one path, counted.

For each of the two takers: lines read = what became of them + those that wait. Kept in the
checkpoint beside the positions it belongs to, so that after a crash both go back together.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Ledger(msgspec.Struct, rename="camel", omit_defaults=True):
    """Counts since the path was first seen, over all its rotations.

    Live: lines read = `sent` + `suppressed` + those that wait. Archive: lines read = `archived` +
    `rejected` + `given_up` + those planned.
    """

    #: Lines written to the link as `log` messages.
    sent: int = 0
    #: Lines that were not sent: over the rate, or too old when the link came back.
    suppressed: int = 0
    #: Lines in objects that S3 has confirmed, those of `unmatched` among them.
    archived: int = 0
    #: Lines of batches that S3 refused for their own sake; they lie in the spool, put aside.
    rejected: int = 0
    #: Lines that were read, could neither be uploaded nor be put aside, and are lost.
    given_up: int = 0
    #: Archived lines that the access-log parser does not know.
    unmatched: int = 0
    #: Bytes that went with a rotation or deletion before the slower taker had read them, as far
    #: as they were seen to be there.
    missed_bytes: int = 0

    def count(self, name: str, number: int) -> None:
        """Add to the count of that name."""
        setattr(self, name, getattr(self, name) + number)

    def add(self, other: Ledger) -> None:
        """Add each of its counts to ours."""
        for name in self.__struct_fields__:
            self.count(name, getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """All the counts by their documented names."""
        names = zip(self.__struct_encode_fields__, self.__struct_fields__, strict=True)
        return {wire: getattr(self, name) for wire, name in names}


def total(ledgers: Iterable[Ledger]) -> Ledger:
    """The sums over several paths."""
    sums = Ledger()
    for ledger in ledgers:
        sums.add(ledger)
    return sums
