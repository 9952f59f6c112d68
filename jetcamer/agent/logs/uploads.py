"""Objects on their way to S3: several at once, one after an outage, none without credentials.

In: objects whose place is known and which may be uploaded now. Out: for each, once, what became of
it. Only what is being uploaded is in memory, and that is bounded in bytes. Must never give an
object up because S3 or the network has trouble, nor hold up the others for one that has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.logs.blame import Blame
from jetcamer.agent.logs.outage import MAX_DELAY, Outage, back_off
from jetcamer.agent.logs.planner import ArchiveSettings
from jetcamer.agent.logs.s3_errors import Kind, UploadError
from jetcamer.net.timers import Timer, at_most

log = Logger()

#: Seconds that uploads which are under way have left at the end.
STOP_SECONDS = 1.0

#: What became of an object; the name of its count in the ledger.
Outcome = Literal["archived", "rejected", "given_up"]

Content = bytes | bytearray

#: Makes an object's body, in a thread, and counts its lines that are of no known format.
MakeBody = Callable[[], tuple[Content, int]]


class Uploader(Protocol):
    """`jetcamer.agent.logs.s3.S3Uploader`, which is imported only where there is one."""

    def put(
        self, key: str, make_body: Callable[[], Content], metadata: Mapping[str, str]
    ) -> Deferred[None]:
        """Fires when the object is in the bucket, made or overwritten.

        Fails with `UploadError`, with what `make_body` raised, or with ``CancelledError`` when
        the uploader was stopped. `make_body` runs in a thread. Cancelling does not take an
        upload back that has begun.
        """


class Upload(Protocol):
    """One object. Compared by identity."""

    @property
    def key(self) -> str: ...

    @property
    def lines(self) -> int: ...

    @property
    def size(self) -> int:
        """Bytes that it holds in memory while it is uploaded, at the most."""

    def open(self) -> MakeBody | None:
        """Read it; None where that is not possible now. Raises ``OSError`` as well."""

    def unreadable(self, error: OSError | None) -> None:
        """It was, and waits for `Uploads.try_again`."""

    def put_aside(self, body: Content) -> Deferred[bool]:
        """S3 does not take it. Whether there was room for it; where this fails, it is uploaded
        once more."""

    def finished(self, outcome: Outcome, unmatched: int, why: str) -> None:
        """The last call."""


class Uploads:
    """
    :param metadata: of every object.
    :param random: returns a number in [0, 1).
    """

    def __init__(
        self,
        clock: IReactorTime,
        settings: ArchiveSettings,
        metadata: Callable[[], Mapping[str, str]],
        random: Callable[[], float],
    ) -> None:
        #: Objects in the bucket since the start.
        self.objects = 0
        #: Whether the last upload succeeded.
        self.succeeded = False
        #: Bytes in memory now, at the most.
        self.in_flight_bytes = 0
        self._clock = clock
        self._settings = settings
        self._metadata = metadata
        self._uploader: Uploader | None = None
        self._random = random
        self._outage = Outage(clock, random)
        self._ready: deque[Upload] = deque()
        self._unreadable: list[Upload] = []
        self._blame = Blame(clock)
        #: Those that fail for their own sake, and when each is due to be tried again.
        self._resting: dict[Upload, float] = {}
        self._in_flight: set[Upload] = set()
        self._probe: Upload | None = None
        self._withdrawn: set[Upload] = set()
        self._running = False
        self._starting = False
        self._retry = Timer(clock)
        self._stopped: Deferred[None] | None = None

    @property
    def uploader(self) -> Uploader | None:
        return self._uploader

    @uploader.setter
    def uploader(self, uploader: Uploader | None) -> None:
        """What is under way with the one before goes on."""
        self._uploader = uploader
        self._outage.retry_now()
        self._probe = None
        self._ready.extend(self._resting)
        self._resting.clear()
        self._go_on()

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def last_error(self) -> str | None:
        """Why the last upload failed, or why one does that holds nothing up; else None."""
        return self._outage.words or self._blame.words

    @property
    def retry_seconds(self) -> float | None:
        """Seconds to the next try, while nothing is tried."""
        until = self._outage.until
        return None if until is None else max(0.0, until - self._clock.seconds())

    @property
    def waiting_lines(self) -> int:
        return sum(upload.lines for upload in (*self._ready, *self._resting, *self._in_flight))

    def start(self) -> None:
        self._running = True
        self._go_on()

    def stop(self) -> Deferred[None]:
        """Fires when what is under way is over, after a second at the latest."""
        self._running = False
        self._retry.stop()
        if not self._in_flight:
            return succeed(None)
        self._stopped = Deferred()
        return at_most(self._clock, STOP_SECONDS, self._stopped).addCallback(lambda _: None)

    def _has_stopped(self) -> None:
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    def add(self, upload: Upload) -> None:
        self._ready.append(upload)
        self._go_on()

    def remove(self, upload: Upload) -> bool:
        """Forget `upload`, unless it is under way: then False."""
        if upload in self._in_flight:
            return False
        self._blame.forget(upload)
        self._resting.pop(upload, None)
        if upload in self._ready:
            self._ready.remove(upload)
        if upload in self._unreadable:
            self._unreadable.remove(upload)
        return True

    def withdraw(self, upload: Upload) -> None:
        """Do not try it again; if it is under way and succeeds, `Upload.finished` is called."""
        if not self.remove(upload):
            self._withdrawn.add(upload)

    def try_again(self) -> None:
        """To be called every few seconds, and when objects that could not be read may be there
        again."""
        self._ready.extendleft(reversed(self._unreadable))
        self._unreadable.clear()
        now = self._clock.seconds()
        for upload in [upload for upload, due in self._resting.items() if due <= now]:
            del self._resting[upload]
            self._ready.append(upload)
        self._go_on()

    # One after the other

    def _go_on(self) -> None:
        if self._starting:
            return
        self._starting = True
        try:
            while self._may_begin():
                self._begin(self._ready.popleft())
        finally:
            self._starting = False

    def _may_begin(self) -> bool:
        if not self._running or self._uploader is None or not self._ready:
            return False
        if self._is_waiting() or (self._outage.lasts and self._probe is not None):
            return False
        if len(self._in_flight) >= self._settings.max_uploads:
            return False
        total = self.in_flight_bytes + self._ready[0].size
        return not self._in_flight or total <= self._settings.max_in_flight_bytes

    def _is_waiting(self) -> bool:
        """Whether it is too early after a failure; arranges for when it is not."""
        delay = self.retry_seconds
        if delay is None or delay < 0.001:
            self._outage.until = None
            return False
        if not self._retry.running:
            self._retry.start(delay, self._go_on)
        return True

    def _begin(self, upload: Upload) -> None:
        error = None
        try:
            make_body = upload.open()
        except OSError as caught:
            make_body, error = None, caught
        if make_body is None:
            self._unreadable.append(upload)
            upload.unreadable(error)
            return
        uploader = self._uploader
        assert uploader is not None
        size = upload.size
        self.in_flight_bytes += size
        if self._outage.lasts:
            self._probe = upload
        self._in_flight.add(upload)
        done = Deferred.fromCoroutine(self._upload(upload, uploader, _Body(make_body)))
        done.addErrback(self._broke, upload).addBoth(self._ended, upload, size)

    def _broke(self, failure: Failure, upload: Upload) -> None:
        log.failure("[s3] {key}: the end of an upload failed", failure, key=upload.key)
        self._rest(upload, MAX_DELAY)

    def _ended(self, ignored: object, upload: Upload, size: int) -> None:
        self._in_flight.remove(upload)
        self.in_flight_bytes -= size
        if upload in self._withdrawn:
            self._withdrawn.discard(upload)
            self._blame.forget(upload)
        if self._probe is upload:
            self._probe = None
        if not self._in_flight:
            self._has_stopped()
        self._go_on()

    async def _upload(self, upload: Upload, uploader: Uploader, body: _Body) -> None:
        began = self._outage.round
        words: str
        kind: Kind = "transient"
        retry_after = None
        try:
            await uploader.put(upload.key, body, self._metadata())
        except UploadError as error:
            words, kind, retry_after = str(error), error.kind, error.retry_after
        except CancelledError:
            if uploader is not self._uploader or not self._running:  # it was stopped
                self._again(upload)
                return
            words = "the upload was cancelled"
        except Exception as error:
            words = f"the upload failed: {type(error).__name__}"
            if words != self.last_error:
                log.failure("[s3] {key}: the upload failed", key=upload.key)
        else:
            self.objects += 1
            self.succeeded = True
            self._blame.accepted(upload)
            self._outage.succeeded(began, self.waiting_lines)
            self._finish(upload, "archived", body.unmatched, "")
            return
        self.succeeded = False
        verdict = self._blame.failed(upload, kind, words)
        if verdict == "shared" or retry_after is not None:
            self._outage.failed(began, words, retry_after, self.waiting_lines)
            self._again(upload)
        elif verdict == "own":
            tries = self._blame.tries(upload)
            self._rest(upload, back_off(tries, self._random))
            if tries == 2:
                log.warn(
                    "[s3] {why}, but others are taken: {key} is tried again by itself",
                    why=words,
                    key=upload.key,
                )
        elif upload not in self._withdrawn:
            aside = await upload.put_aside(body())
            self._blame.forget(upload)
            if upload not in self._withdrawn:
                self._finish(upload, "rejected" if aside else "given_up", body.unmatched, words)

    def _finish(self, upload: Upload, outcome: Outcome, unmatched: int, why: str) -> None:
        try:
            upload.finished(outcome, unmatched, why)
        except Exception:  # it has noted its outcome, and must not be uploaded again
            log.failure("[s3] {key}: what follows an upload failed", key=upload.key)

    def _again(self, upload: Upload) -> None:
        # At the end: if only this one has trouble, it is another's turn to find out.
        if upload not in self._withdrawn:
            self._ready.append(upload)

    def _rest(self, upload: Upload, seconds: float) -> None:
        if upload not in self._withdrawn:
            self._resting[upload] = self._clock.seconds() + seconds


class _Body:
    """Made once, from what is not held any longer then; also for an object that has to be put
    aside."""

    def __init__(self, make: MakeBody) -> None:
        self.unmatched = 0
        self._make: MakeBody | None = make
        self._content: Content = b""

    def __call__(self) -> Content:
        if self._make is not None:
            self._content, self.unmatched = self._make()
            self._make = None
        return self._content
