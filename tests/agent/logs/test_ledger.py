from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.ledger import Ledger, total


class LedgerTests(SynchronousTestCase):
    def test_names(self) -> None:
        self.assertEqual(
            Ledger(sent=1, suppressed=2, archived=3, given_up=4, missed_bytes=5).as_dict(),
            {
                "sent": 1,
                "suppressed": 2,
                "archived": 3,
                "rejected": 0,
                "givenUp": 4,
                "unmatched": 0,
                "missedBytes": 5,
            },
        )

    def test_kept_without_what_is_zero(self) -> None:
        ledger = Ledger(given_up=4)
        data = msgspec.json.encode(ledger)
        self.assertEqual(data, b'{"givenUp":4}')
        self.assertEqual(msgspec.json.decode(data, type=Ledger), ledger)

    def test_total(self) -> None:
        sums = total([Ledger(sent=1, missed_bytes=10), Ledger(sent=2, unmatched=3), Ledger()])
        self.assertEqual(sums, Ledger(sent=3, missed_bytes=10, unmatched=3))
        self.assertEqual(total([]), Ledger())
