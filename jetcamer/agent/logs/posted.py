"""Events that were POSTed: on disk first, then in the bucket.

In: NDJSON. Out: the same as objects in the bucket, also when the agent was restarted before they
were uploaded. Only `max_planned` of them are known in memory, and none is held there.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.logs.archive_errors import ArchiveOff, SpoolFull
from jetcamer.agent.logs.checkpoint import CheckpointWriter, Run
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.objects import POSTED_PATH, count, flat_name, key_of, posted_key
from jetcamer.agent.logs.s3_errors import UploadError
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.uploads import MakeBody, Outcome, Uploads

log = Logger()


class Posted:
    """
    :param limit: objects known in memory.
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
        #: In the bucket and counted; removed when the count is on disk.
        self._done: set[str] = set()
        self._more_on_disk = True
        self._running = False

    def start(self) -> None:
        self._running = True
        self._load()

    def stop(self) -> None:
        self._running = False
        words = "the agent is stopping; the events are kept and uploaded when it runs again"
        for upload in tuple(self._known.values()):
            upload.tell(Failure(ArchiveOff(words)))

    def submit(self, machine_id: str, moment: float, body: bytes, lines: int) -> Deferred[int]:
        """See `Archive.submit`."""
        if not self._running:
            return fail(ArchiveOff("the agent is stopping"))
        name = flat_name(posted_key(machine_id, moment, body))
        if name in self._done:
            return succeed(lines)
        if name in self._known:
            return self._known[name].wait()
        upload = self._known[name] = PostedUpload(self, name, len(body), lines)
        waiter = upload.wait()
        self._keep(upload, body)
        return waiter

    def _keep(self, upload: PostedUpload, body: bytes) -> None:
        kept = False

        def keep() -> None:
            nonlocal kept
            kept = self._spool.put_object(upload.name, body)

        def has_run(result: Failure | None) -> None:
            if kept:
                upload.kept = True
                self._uploads.add(upload)
            else:
                del self._known[upload.name]
                words = str(result.value) if result else self._spool.last_error
                log.warn("[logs] POSTed events are not taken: {why}", why=words)
                upload.tell(Failure(SpoolFull(f"the events cannot be kept: {words}")))

        self._run(keep).addBoth(has_run)

    def left(self, upload: PostedUpload) -> None:
        """Nobody waits for it any more: where there are many it need not be known."""
        many = len(self._known) > self._limit
        if many and upload.kept and self._uploads.remove(upload):
            del self._known[upload.name]
            self._more_on_disk = True

    def _load(self) -> None:
        if not self._more_on_disk or len(self._known) > self._limit // 2 or not self._running:
            return
        free = self._limit - len(self._known)
        found = self._spool.objects(free, self._known.keys() | self._done)
        self._more_on_disk = len(found) == free
        for name, size in found.items():
            upload = self._known[name] = PostedUpload(self, name, size, 0)
            upload.kept = True
            self._uploads.add(upload)

    def finished(self, upload: PostedUpload, outcome: Outcome, why: str) -> None:
        name = upload.name
        del self._known[name]
        ledger = self._ledgers.setdefault(POSTED_PATH, Ledger())
        setattr(ledger, outcome, getattr(ledger, outcome) + upload.lines)
        if outcome == "archived":
            self._done.add(name)
            self._remove_counted(name)
            upload.tell(upload.lines)
        else:
            self._checkpoint.touch()
            what = "put aside in the spool" if outcome == "rejected" else "lost"
            self._lost(f"{upload.lines} POSTed events are {what}: {why}")
            upload.tell(Failure(UploadError(why, kind="refused")))
            if outcome == "given_up":
                self._remove(name)
        self._load()

    def gone(self, upload: PostedUpload) -> None:
        """Somebody else has removed it."""
        self._uploads.remove(upload)
        self.finished(upload, "given_up", "they are no longer in the spool")

    def _remove_counted(self, name: str) -> None:
        """Remove what was uploaded, when its count is on disk: so it is counted once."""
        # One call for each: the first write that has the count removes it.
        written = self._checkpoint.written()
        written.addCallbacks(self._counted, self._not_counted, (name,), errbackArgs=(name,))

    def _counted(self, ignored: None, name: str) -> None:
        self._remove(name)
        self._done.discard(name)

    def _not_counted(self, failure: Failure, name: str) -> None:
        if self._running:
            self._remove_counted(name)

    def _remove(self, name: str) -> None:
        try:
            self._spool.remove_object(name)
        except OSError as error:
            # It is uploaded once more after a restart, and overwrites itself.
            log.warn("[logs] spool: {name}: {why}", name=name, why=error.strerror)

    def read(self, name: str) -> bytes:
        return self._spool.read_object(name)

    def move_aside(self, name: str) -> bool:
        return self._spool.move_aside(name)


class PostedUpload:
    """An `Upload`."""

    def __init__(self, posted: Posted, name: str, size: int, lines: int) -> None:
        self.name = name
        self.key = key_of(name)
        self.size = size
        self.lines = lines
        #: On disk.
        self.kept = False
        self._posted = posted
        self._waiters: list[Deferred[int]] = []

    def wait(self) -> Deferred[int]:
        waiter: Deferred[int] = Deferred(self._leave)
        self._waiters.append(waiter)
        return waiter

    def _leave(self, waiter: Deferred[int]) -> None:
        self._waiters.remove(waiter)
        if not self._waiters:
            self._posted.left(self)

    def tell(self, result: int | Failure) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
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

    def put_aside(self, body: bytes) -> Deferred[bool]:
        return succeed(self._posted.move_aside(self.name))

    def finished(self, outcome: Outcome, unmatched: int, why: str) -> None:
        self._posted.finished(self, outcome, why)
