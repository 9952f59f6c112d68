"""Uploads to S3, in threads of their own.

In: keys, and functions that make the bodies. Out: Deferreds that fire when S3 has the object.
botocore is imported in those threads, with the first upload. Must never make anything wait: the
threads are daemons, which nobody joins, also not at the end of the process.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.logs.s3_client import (
    READ_TIMEOUT,
    S3Access,
    create_bucket,
    make_client,
    make_session,
    put_object,
)
from jetcamer.agent.logs.s3_errors import UploadError, explain
from jetcamer.agent.logs.uploads import Content

__all__ = ["S3Access", "S3Uploader", "UploadError", "explain"]

log = Logger()

#: Seconds after which a thread that has nothing to do ends.
IDLE_SECONDS = 60.0

#: Characters of one value of the metadata: S3 takes 2 KiB for all of them.
MAX_METADATA = 400
_PRINTABLE = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "%")
_HALF_ESCAPE = re.compile("%.?$")

_Body = Callable[[], Content]


class S3Uploader:
    """An `uploads.Uploader` with botocore. Makes an absent bucket where that is allowed."""

    def __init__(
        self,
        reactor: Any,
        access: S3Access,
        *,
        threads: int = 4,
        idle: float = IDLE_SECONDS,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        """
        :param reactor: IReactorFromThreads
        :param threads: uploads at the same time; the rest waits its turn
        :param idle: seconds after which a thread without work ends
        :param read_timeout: seconds that S3 may be silent
        """
        self.access = access
        self._reactor = reactor
        self._limit = threads
        self._idle_seconds = idle
        self._read_timeout = read_timeout
        # Of the reactor's thread alone:
        self._waiting: set[_Job] = set()
        # Of all threads, under `_changed`:
        self._changed = threading.Condition()
        self._queue: deque[_Job] = deque()
        self._threads = 0
        self._idle = 0
        self._stopped = False
        # Of the upload threads:
        self._client: Any = None
        self._client_lock = threading.Lock()
        self._bucket_lock = threading.Lock()

    def put(self, key: str, make_body: _Body, metadata: Mapping[str, str]) -> Deferred[None]:
        if self._stopped:
            return fail(CancelledError("the uploader is stopped"))
        job = _Job(key, make_body, plain_metadata(metadata), self._forget)
        self._waiting.add(job)
        with self._changed:
            self._queue.append(job)
            if self._idle < len(self._queue) and self._threads < self._limit:
                self._start_thread()
            self._changed.notify()
            if not self._threads:
                self._queue.remove(job)
                self._waiting.remove(job)
                words = "the system gives no thread to upload in"
                return fail(UploadError(words, kind="transient", code="RuntimeError"))
        return job.done

    def _start_thread(self) -> None:
        self._threads += 1
        name = f"jetcamer-s3-{self._threads}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # those that run take what waits
            self._threads -= 1

    def stop(self) -> None:
        """What waits fails with ``CancelledError`` now; what is under way ends when it ends, and
        nobody hears of it."""
        with self._changed:
            self._stopped = True
            self._queue.clear()
            self._changed.notify_all()
        waiting, self._waiting = self._waiting, set()
        for job in waiting:
            job.done.errback(CancelledError("the uploader is stopped"))

    def _forget(self, job: _Job) -> None:
        """Its Deferred was cancelled."""
        self._waiting.discard(job)
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)

    def _finished(self, job: _Job, failure: Failure | None) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
            if failure is None:
                job.done.callback(None)
            else:
                job.done.errback(failure)

    # In the threads

    def _work(self) -> None:
        while (job := self._next()) is not None:
            failure: Failure | None = None
            try:
                self._upload(job)
            except BaseException as error:
                # Without its traceback, which would keep the body in memory.
                failure = Failure(error.with_traceback(None), type(error), None)
            self._reactor.callFromThread(self._finished, job, failure)
            del job

    def _next(self) -> _Job | None:
        """The next job; None when this thread is to end."""
        with self._changed:
            while not self._queue:
                if self._stopped:
                    break
                self._idle += 1
                woken = self._changed.wait(self._idle_seconds)
                self._idle -= 1
                if not woken and not self._queue:
                    break
            else:
                return self._queue.popleft()
            self._threads -= 1
            return None

    def _upload(self, job: _Job) -> None:
        body = job.make_body()
        client = self._get_client()
        try:
            self._put(client, job, body)
        except UploadError as error:
            if error.kind == "environment":
                # The next try shall see credentials that were renewed where botocore finds them.
                self._drop_client(client)
            raise

    def _put(self, client: Any, job: _Job, body: Content) -> None:
        if self._has_bucket(client, job, body):
            return
        with self._bucket_lock:
            # Another thread may have made it meanwhile.
            if not self._has_bucket(client, job, body):
                create_bucket(client, self.access)
                self._reactor.callFromThread(self._bucket_made)
                put_object(client, self.access, job.key, body, job.metadata)

    def _has_bucket(self, client: Any, job: _Job, body: Content) -> bool:
        """Upload, unless there is no bucket."""
        try:
            put_object(client, self.access, job.key, body, job.metadata)
        except UploadError as error:
            if error.code != "NoSuchBucket":
                raise
            return False
        return True

    def _bucket_made(self) -> None:
        log.info("[s3] bucket {bucket} created", bucket=self.access.bucket)

    def _get_client(self) -> Any:
        with self._client_lock:
            if self._client is None:
                try:
                    session = make_session(self.access)
                    self._client = make_client(
                        session,
                        self.access,
                        read_timeout=self._read_timeout,
                        connections=self._limit,
                    )
                except Exception as error:
                    raise explain(error, self.access) from None
            return self._client

    def _drop_client(self, client: Any) -> None:
        with self._client_lock:
            if self._client is client:
                self._client = None


class _Job:
    """One object on its way. Compared by identity."""

    def __init__(
        self,
        key: str,
        make_body: _Body,
        metadata: dict[str, str],
        forget: Callable[[_Job], None],
    ) -> None:
        self.key = key
        self.make_body = make_body
        self.metadata = metadata
        self.done: Deferred[None] = Deferred(lambda _: forget(self))


def plain_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """As S3 takes it: ASCII, the rest percent-encoded (and ``%`` itself, so that it can be read
    back), of bounded length."""
    return {name: _plain(value) for name, value in metadata.items()}


def _plain(value: str) -> str:
    text = quote(value, safe=_PRINTABLE, errors="backslashreplace")
    if len(text) > MAX_METADATA:
        text = _HALF_ESCAPE.sub("", text[:MAX_METADATA])
    return text.strip()
