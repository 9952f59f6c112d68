"""Whether an object fails for its own sake, or S3 has trouble with everything.

In: which objects failed and which were accepted. Out: a verdict on each failure. An S3 that takes
nothing says so in many ways, also by refusing each object as if it were malformed. So an object is
blamed only by contrast: when S3 took several others since it first failed. Pure but for the clock.
"""

from __future__ import annotations

from typing import Literal

from twisted.internet.interfaces import IReactorTime

from jetcamer.agent.logs.s3_errors import Kind

#: So many others, for each object that fails, have to be accepted since.
OTHERS = 3

#: Tries of an object that S3 refuses.
MAX_REFUSALS = 3

#: Tries of one that fails in another way while others are accepted, and seconds from the first.
MAX_TRIES, MIN_SECONDS = 20, 3600.0

#: ``shared``: nothing speaks against the object. ``own``: the others may go on without it.
#: ``hopeless``: it is never going to be accepted.
Verdict = Literal["shared", "own", "hopeless"]


class _Failing:
    """:param accepted_before: objects that were accepted before it failed first."""

    def __init__(self, accepted_before: int) -> None:
        self.accepted_before = accepted_before
        #: The first, and those that count against it.
        self.tries = 1
        #: When it was first its own fault.
        self.since: float | None = None
        self.words = ""


class Blame:
    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._accepted = 0
        self._failing: dict[object, _Failing] = {}

    @property
    def words(self) -> str | None:
        """Why an object fails that is to blame itself."""
        return next((it.words for it in self._failing.values() if it.since is not None), None)

    def tries(self, upload: object) -> int:
        """See `_Failing.tries`."""
        return self._failing[upload].tries

    def accepted(self, upload: object) -> None:
        self._accepted += 1
        self.forget(upload)

    def forget(self, upload: object) -> None:
        self._failing.pop(upload, None)

    def failed(self, upload: object, kind: Kind, words: str) -> Verdict:
        it = self._failing.get(upload)
        if it is None:
            self._failing[upload] = _Failing(self._accepted)
            return "shared"
        own = self._accepted - it.accepted_before >= OTHERS * len(self._failing)
        if own and it.since is None:
            it.since = self._clock.seconds()
        if own or kind == "too_large":
            it.tries += 1
            it.words = words
            if self._is_hopeless(it, kind):
                return "hopeless"
        return "own" if own else "shared"

    def _is_hopeless(self, it: _Failing, kind: Kind) -> bool:
        if kind in ("refused", "too_large"):
            return it.tries >= MAX_REFUSALS
        if it.since is None or it.tries < MAX_TRIES:
            return False
        return self._clock.seconds() - it.since >= MIN_SECONDS
