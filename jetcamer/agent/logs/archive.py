"""Log lines to S3: the taker that reads as fast as S3 takes them.

In: streams, and events that were POSTed. Out: objects in the bucket, each line in exactly one.
A batch is planned by counting lines; its bounds and its key are on disk before its upload begins,
and its bytes are read again for it. So after a crash the same objects are made again and
overwrite themselves. What is done counts, and moves `Stream.archived`, only in the order of the
stream. Must never upload a batch whose plan is not on disk, nor hold lines in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from random import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.logs.batch_upload import BatchUpload
from jetcamer.agent.logs.checkpoint import Batch, CheckpointWriter, Run, run_here
from jetcamer.agent.logs.ledger import Ledger
from jetcamer.agent.logs.lines import Parser
from jetcamer.agent.logs.objects import POSTED_PATH, flat_name, object_key
from jetcamer.agent.logs.outage import back_off
from jetcamer.agent.logs.planner import ArchiveSettings, Planner
from jetcamer.agent.logs.posted import Posted, Stored
from jetcamer.agent.logs.registry import Say
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.stream import Stream
from jetcamer.agent.logs.uploads import Content, Uploader, Uploads
from jetcamer.net.timers import RepeatingTimer, Timer

__all__ = ["Archive", "ArchiveSettings"]

log = Logger()

#: Seconds between two looks at what could not be read.
LOOK_INTERVAL = 10.0


def _unheard(stream: Stream) -> None:
    """The tail finds it out by itself, a little later."""


class Archive:
    """A taker (see `tail.Taker`) that uploads.

    :param now: Unix seconds, for the keys.
    :param parser_for: gives a parser for the lines of a path; it is used in one thread.
    :param ledgers: gets an entry for the events that were POSTed.
    :param metadata: of every object.
    :param say: called when lines were lost or put aside.
    :param counted: `Checkpoint.counted`, as it was written last.
    :param run: for writing to the disk.
    :param check: `tail.Tail.check`.
    :param random: returns a number in [0, 1), for the back-off.
    """

    def __init__(
        self,
        clock: IReactorTime,
        *,
        now: Callable[[], float],
        settings: ArchiveSettings,
        machine_id: str,
        parser_for: Callable[[str], Parser],
        spool: Spool,
        ledgers: dict[str, Ledger],
        checkpoint: CheckpointWriter,
        metadata: Callable[[], Mapping[str, str]],
        say: Say,
        counted: Iterable[str] = (),
        run: Run = run_here,
        check: Callable[[Stream], None] = _unheard,
        random: Callable[[], float] = random,
    ) -> None:
        self.parser_for = parser_for
        self.spool = spool
        self.check = check
        self._now = now
        self._machine_id = machine_id
        self._checkpoint = checkpoint
        self._say = say
        self._run = run
        self._random = random
        self._uploads = Uploads(clock, settings, metadata, random)
        self._planner = Planner(
            clock, settings, seal=self._sealed, turn_over=self._turn_over, stale=check
        )
        self._posted = Posted(
            spool,
            self._uploads,
            ledgers,
            checkpoint,
            limit=settings.max_planned,
            counted=counted,
            run=run,
            lost=self._lost_posted,
        )
        #: Of each stream what `Stream.batches` holds.
        self._planned: dict[str, deque[BatchUpload]] = {}
        #: Planned, and not on disk yet.
        self._unsaved: list[BatchUpload] = []
        self._failed_saves = 0
        self._save_timer = Timer(clock)
        self._timer = RepeatingTimer(clock, LOOK_INTERVAL, self._look_again, name="[logs] archive")
        self._running = False

    @property
    def uploader(self) -> Uploader | None:
        """None while there are no credentials: everything waits. Another one is tried at once."""
        return self._uploads.uploader

    @uploader.setter
    def uploader(self, uploader: Uploader | None) -> None:
        self._uploads.uploader = uploader

    @property
    def uploaded(self) -> bool:
        """Whether the last upload succeeded."""
        return self._uploads.succeeded

    @property
    def last_error(self) -> str | None:
        """Why the last upload failed, or why none is begun; None when all is well."""
        return self._uploads.last_error or self._checkpoint.last_error

    def start(self) -> None:
        self._running = True
        self._timer.start()
        self._planner.start()
        self._posted.start()
        self._uploads.start()

    def stop(self) -> Deferred[None]:
        """Begin nothing more. Fires when what is under way is over, after a second at the latest;
        the checkpoint is to be written after that."""
        self._running = False
        self._timer.stop()
        self._save_timer.stop()
        self._planner.stop()
        self._posted.stop()
        return self._uploads.stop()

    def submit(self, body: bytes, lines: int) -> Deferred[Stored]:
        """Archive events that were POSTed; `body` is their NDJSON.

        Fires when they are on disk, where they survive a restart. Fails with `SpoolFull` or
        `ArchiveOff`. Cancelling, here or there, changes nothing of what becomes of them.
        """
        return self._posted.submit(self._machine_id, self._now(), body, lines)

    @property
    def counted(self) -> tuple[str, ...]:
        """For `Checkpoint.counted`."""
        return self._posted.counted

    def status(self) -> dict[str, Any]:
        retry = self._uploads.retry_seconds
        error = self.last_error
        state = "on"
        if self.uploader is None:
            state, error = "waiting", error or "no credentials"
        elif retry:
            state = "backing off"
        elif self._save_timer.running:
            state, retry = "backing off", self._save_timer.remaining
        return {
            "state": state,
            "lastError": error,
            "nextRetrySeconds": round(retry, 1) if retry else None,
            "planned": self._planner.planned,
            "uploading": self._uploads.in_flight,
            "objects": self._uploads.objects,
            "spoolBytes": self.spool.used,
            "spoolLimit": self.spool.limit,
            "asideObjects": self.spool.aside,
        }

    # A taker

    def opened(self, stream: Stream) -> None:
        uploads = self._planned[stream.id] = deque(
            BatchUpload(self, stream, batch) for batch in stream.batches
        )
        for upload in uploads:
            self._uploads.add(upload)
        self._planner.opened(stream)

    def more(self, stream: Stream) -> None:
        self._planner.more(stream)
        if any(upload.is_unreadable for upload in self._planned[stream.id]):
            self._uploads.try_again()

    def closed(self, stream: Stream) -> None:
        """Planned batches that cannot be read any more are given up."""
        self._planner.closed(stream)
        uploads = self._planned.pop(stream.id)
        self._planner.settled(len(uploads))
        stream.batches.clear()
        lost = 0
        for upload in uploads:
            if upload.outcome is None:
                # One that is under way may yet succeed; then `finished` takes it back.
                self._uploads.withdraw(upload)
                upload.outcome = "given_up"
                lost += upload.lines
            upload.count()
        if lost:
            self._lost(stream.path, f"{lost} lines are not archived and lost: the file is gone")
        self._checkpoint.touch()

    def _lost_posted(self, words: str) -> None:
        self._lost(POSTED_PATH, words)

    def _lost(self, path: str, words: str) -> None:
        log.error("[logs] {path}: {words}", path=path, words=words)
        self._say("warn", words, path)

    # From a plan to an upload

    def _sealed(self, stream: Stream, start: int, end: int, lines: int) -> None:
        key = object_key(self._machine_id, self._now(), stream.id, start, end)
        batch = Batch(start, end, lines, key)
        stream.batches.append(batch)
        upload = BatchUpload(self, stream, batch)
        self._planned[stream.id].append(upload)
        self._unsaved.append(upload)

    def _turn_over(self) -> None:
        if not self._save_timer.running:
            self._save()

    def _save(self) -> None:
        uploads, self._unsaved = self._unsaved, []
        written = self._checkpoint.written()
        written.addCallbacks(self._saved, self._not_saved, (uploads,), errbackArgs=(uploads,))

    def _saved(self, ignored: None, uploads: list[BatchUpload]) -> None:
        self._failed_saves = 0
        for upload in uploads:
            if upload.outcome is None:  # its stream is not closed
                self._uploads.add(upload)

    def _not_saved(self, failure: Failure, uploads: list[BatchUpload]) -> None:
        """Nothing of it may be uploaded: after a crash it would be planned otherwise."""
        self._unsaved[:0] = uploads
        if self._running and not self._save_timer.running:
            self._failed_saves += 1
            self._save_timer.start(back_off(self._failed_saves, self._random), self._save)

    def _look_again(self) -> None:
        self._planner.try_again()
        self._uploads.try_again()

    # From an upload to the ledger

    def settle(self, upload: BatchUpload, why: str) -> None:
        """`upload` is over."""
        stream = upload.stream
        uploads = self._planned[stream.id]
        before = len(uploads)
        while uploads and uploads[0].outcome is not None:
            done = uploads.popleft()
            stream.batches.popleft()
            stream.archived = done.batch.end
            done.count()
        if len(uploads) < before:
            self._checkpoint.touch()
            self._planner.settled(before - len(uploads))
        if upload.outcome != "archived":
            what = "put aside in the spool" if upload.outcome == "rejected" else "lost"
            self._lost(stream.path, f"{upload.lines} lines are not archived, but {what}: {why}")

    def put_aside(self, key: str, body: Content) -> Deferred[bool]:
        kept = False

        def keep() -> None:
            nonlocal kept
            kept = self.spool.put_aside(flat_name(key), body)

        return self._run(keep).addCallback(lambda _: kept)

    def late(self) -> None:
        """A ledger changed after its stream was closed."""
        self._checkpoint.touch()
