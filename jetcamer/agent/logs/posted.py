"""Events that were POSTed: on disk first, then in the bucket.

In: NDJSON. Out: the same as objects in the bucket, also when the agent was restarted before they
were uploaded. Only `max_planned` of them are known in memory, beside those that somebody waits
for, and none is held there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import msgspec
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.logs.archive_errors import ArchiveOff, SpoolFull
from jetcamer.agent.logs.checkpoint import CheckpointWriter, Run
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.objects import POSTED_PATH, count, flat_name, key_of, posted_key
from jetcamer.agent.logs.s3_errors import UploadError
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.uploads import Content, MakeBody, Outcome, Uploads

log = Logger()


class Stored(msgspec.Struct, frozen=True):
    """Events that are on disk."""

    #: Fires with their number when they are in the bucket. Fails with `UploadError` where S3 does
    #: not take them, and with `ArchiveOff` when the agent stops: they are uploaded when it runs
    #: again. To be cancelled by who waits no longer; that changes nothing else.
    uploaded: Deferred[int]


class Posted:
    """
    :param limit: objects known in memory.
    :param counted: `Checkpoint.counted`, as it was written last.
    :param run: for writing to the disk.
    :param lost: called with words, when events were put aside or given up.
    """

    def __init__(
        self,
        spool: Spool,
        uploads: Uploads,
        ledgers: dict[str, Ledger],
        checkpoint: CheckpointWriter,
        *,
        limit: int,
        counted: Iterable[str],
        run: Run,
        lost: Callable[[str], None],
    ) -> None:
        self._spool = spool
        self._uploads = uploads
        self._ledgers = ledgers
        self._checkpoint = checkpoint
        self._limit = limit
        self._run = run
        self._lost = lost
        self._known: dict[str, PostedUpload] = {}
        #: In the bucket and in the ledger; removed when that is on disk.
        self._counted = set(counted)
        self._more_on_disk = True
        self._running = False

    @property
    def counted(self) -> tuple[str, ...]:
        """For `Checkpoint.counted`: after a crash they are not to be counted again."""
        return tuple(self._counted)

    def start(self) -> None:
        self._running = True
        for name in self.counted:
            self._is_counted(None, name)
        self._load()

    def stop(self) -> None:
        self._running = False
        for upload in tuple(self._known.values()):
            upload.tell(_stopping())

    def submit(self, machine_id: str, moment: float, body: bytes, lines: int) -> Deferred[Stored]:
        """See `Archive.submit`."""
        if not self._running:
            return fail(ArchiveOff("the agent is stopping"))
        # The name holds the key: each try, also after a restart, is of the same object.
        name = flat_name(posted_key(machine_id, moment, os.urandom(6).hex()))
        upload = self._known[name] = PostedUpload(self, name, len(body), lines)
        stored: Deferred[Stored] = Deferred()
        kept = False

        def keep() -> None:
            nonlocal kept
            kept = self._spool.put_object(name, body)

        def has_run(result: Failure | None) -> None:
            if kept:
                self._kept(upload, stored)
                return
            del self._known[name]
            words = str(result.value) if result else self._spool.last_error
            log.warn("[logs] POSTed events are not taken: {why}", why=words)
            stored.errback(SpoolFull(f"the events cannot be kept: {words}"))

        maybeDeferred(self._run, keep).addBoth(has_run)
        return stored

    def _kept(self, upload: PostedUpload, stored: Deferred[Stored]) -> None:
        uploaded = upload.wait()
        self._uploads.add(upload)
        if not self._running:
            upload.tell(_stopping())
        if stored.called:  # it was cancelled
            uploaded.addErrback(lambda failure: failure.trap(CancelledError, ArchiveOff))
            uploaded.cancel()
        else:
            stored.callback(Stored(uploaded))

    def left(self, upload: PostedUpload) -> None:
        """Nobody waits for it any more: where there are many it need not be known."""
        if len(self._known) > self._limit and self._uploads.remove(upload):
            del self._known[upload.name]
            self._more_on_disk = True

    def _load(self) -> None:
        if not self._more_on_disk or len(self._known) > self._limit // 2 or not self._running:
            return
        free = self._limit - len(self._known)
        found = self._spool.objects(free, self._known.keys() | self._counted)
        self._more_on_disk = len(found) == free
        for name, size in found.items():
            upload = self._known[name] = PostedUpload(self, name, size, 0)
            self._uploads.add(upload)

    def finished(self, upload: PostedUpload, outcome: Outcome, why: str) -> None:
        name = upload.name
        del self._known[name]
        ledger = self._ledgers.setdefault(POSTED_PATH, Ledger())
        ledger.count(outcome, upload.lines)
        if outcome == "archived":
            self._counted.add(name)
            self._remove_counted(name)
            upload.tell(upload.lines)
        else:
            self._checkpoint.touch()
            if outcome == "given_up":
                self._remove(name)
            upload.tell(Failure(UploadError(why, kind="refused")))
            what = "put aside in the spool" if outcome == "rejected" else "lost"
            self._lost(f"{upload.lines} POSTed events are {what}: {why}")
        self._load()

    def gone(self, upload: PostedUpload) -> None:
        """Somebody else has removed it."""
        self._uploads.remove(upload)
        self.finished(upload, "given_up", "they are no longer in the spool")

    def _remove_counted(self, name: str) -> None:
        """Remove what was uploaded, when its count is on disk: so it is counted once."""
        # One call for each: the first write that has the count removes it.
        written = self._checkpoint.written()
        written.addCallbacks(self._is_counted, self._not_counted, (name,), errbackArgs=(name,))

    def _is_counted(self, ignored: None, name: str) -> None:
        if self._remove(name):
            self._counted.discard(name)

    def _not_counted(self, failure: Failure, name: str) -> None:
        if self._running:
            self._remove_counted(name)

    def _remove(self, name: str) -> bool:
        try:
            self._spool.remove_object(name)
        except OSError as error:
            log.warn("[logs] spool: {name}: {why}", name=name, why=error.strerror)
            return False
        return True

    def read(self, name: str) -> bytes:
        return self._spool.read_object(name)

    def move_aside(self, name: str) -> bool:
        return self._spool.move_aside(name)


def _stopping() -> Failure:
    words = "the agent is stopping; the events are kept and uploaded when it runs again"
    return Failure(ArchiveOff(words))


class PostedUpload:
    """An `Upload`."""

    def __init__(self, posted: Posted, name: str, size: int, lines: int) -> None:
        self.name = name
        self.key = key_of(name)
        self.size = size
        self.lines = lines
        self._posted = posted
        self._waiter: Deferred[int] | None = None

    def wait(self) -> Deferred[int]:
        self._waiter = Deferred(self._leave)
        return self._waiter

    def _leave(self, waiter: Deferred[int]) -> None:
        self._waiter = None
        self._posted.left(self)

    def tell(self, result: int | Failure) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if isinstance(result, Failure):
            waiter.errback(result)
        else:
            waiter.callback(result)

    def open(self) -> MakeBody | None:
        body = self._posted.read(self.name)
        self.lines = self.lines or count(body)
        return lambda: (body, 0)

    def unreadable(self, error: OSError | None) -> None:
        if isinstance(error, FileNotFoundError):
            self._posted.gone(self)
        else:
            why = error and error.strerror
            log.warn("[logs] spool: {name} cannot be read: {why}", name=self.name, why=why)

    def put_aside(self, body: Content) -> Deferred[bool]:
        return succeed(self._posted.move_aside(self.name))

    def finished(self, outcome: Outcome, unmatched: int, why: str) -> None:
        self._posted.finished(self, outcome, why)
