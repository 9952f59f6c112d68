"""How many files may be open."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from jetcamer.daemon.limits import raise_file_limit

INFINITY = resource.RLIM_INFINITY


class RaiseTests(SynchronousTestCase):
    def raised(self, soft: int, hard: int, error: Exception | None = None) -> tuple[int, object]:
        """What it gives, and the limits it set."""
        found: list[object] = []

        def set_limit(what: int, limits: object) -> None:
            if error is not None:
                raise error
            found.append(limits)

        self.patch(resource, "getrlimit", lambda what: (soft, hard))
        self.patch(resource, "setrlimit", set_limit)
        limit = raise_file_limit(65536)
        return limit, found[0] if found else None

    def test_as_far_as_it_may_be(self) -> None:
        self.assertEqual(self.raised(1024, 524288), (65536, (65536, 524288)))
        self.assertEqual(self.raised(1024, 4096), (4096, (4096, 4096)))
        self.assertEqual(self.raised(1024, INFINITY), (65536, (65536, INFINITY)))

    def test_never_lowered(self) -> None:
        self.assertEqual(self.raised(100000, 524288), (100000, None))
        self.assertEqual(self.raised(INFINITY, INFINITY), (65536, None))

    def test_refused(self) -> None:
        self.assertEqual(self.raised(1024, 4096, ValueError()), (1024, None))
        self.assertEqual(self.raised(1024, 4096, PermissionError()), (1024, None))
