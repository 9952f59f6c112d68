"""Log shipping as a service: whether there is anything to follow, and whether to archive it.

In: the configuration, the link, and every few seconds the AWS credentials of the moment. Out: a
`Pipeline` once it has work, and what the status shows of it. An agent that finds no log file and
archives nothing imports no more than this.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.config import AgentConfig
from jetcamer.agent.logs.archive_errors import ArchiveOff
from jetcamer.agent.logs.discovery import DEFAULT_LOG_PATHS, Discovery
from jetcamer.net.timers import RepeatingTimer

if TYPE_CHECKING:
    from jetcamer.agent.credentials import AwsAccess
    from jetcamer.agent.logs.archive import Archive
    from jetcamer.agent.logs.checkpoint import Checkpoint, CheckpointFile
    from jetcamer.agent.logs.live import Queue
    from jetcamer.agent.logs.pipeline import Pipeline
    from jetcamer.agent.logs.posted import Stored
    from jetcamer.agent.logs.registry import Say
    from jetcamer.agent.logs.s3 import S3Uploader
    from jetcamer.agent.logs.s3_client import S3Access

log = Logger()

#: Seconds between two looks for credentials, and for log files as long as there are none.
LOOK_INTERVAL = 10.0

#: `checkpoint.FILE_NAME`, without importing it; a test holds them together.
CHECKPOINT_NAME = "logs.checkpoint.json"


class Finder(Protocol):
    """`jetcamer.agent.credentials.CredentialFinder`."""

    async def look_for_aws(self) -> AwsAccess | None: ...


def install_command() -> str:
    """What makes archiving possible for the interpreter that runs the agent."""
    return f"{shlex.quote(sys.executable)} -m pip install 'jetcamer[s3]'"


def has_botocore() -> bool:
    """Does not import it."""
    return find_spec("botocore") is not None


class LogShipping(Service):
    """Follows the log files for as long as it runs.

    :param queue: the link's.
    :param say: `AgentLink.send_log`.
    :param environ: ``AWS_ENDPOINT_URL_S3`` and ``AWS_ENDPOINT_URL`` are looked at.
    :param machine_id: raises ``OSError`` where there is none; nothing is archived then.
    :param metadata: of every object, at the moment of its upload.
    """

    name = "logs"

    def __init__(
        self,
        reactor: Any,
        config: AgentConfig,
        *,
        queue: Queue,
        say: Say,
        finder: Finder,
        environ: Mapping[str, str],
        machine_id: Callable[[], str],
        metadata: Callable[[], Mapping[str, str]],
        now: Callable[[], float],
        can_archive: Callable[[], bool] = has_botocore,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._queue = queue
        self._say = say
        self._finder = finder
        self._environ = environ
        self._machine_id = machine_id
        self._metadata = metadata
        self._now = now
        self._can_archive = can_archive
        self._patterns = config.log_paths or DEFAULT_LOG_PATHS
        self._discovery = Discovery(self._patterns)
        self._checkpoint = os.path.join(config.state_dir, CHECKPOINT_NAME)
        self._timer = RepeatingTimer(reactor, LOOK_INTERVAL, self._look, name="[logs] look")
        self._looking: Deferred[None] | None = None
        self._looked = False
        #: Why nothing is uploaded; None when something may be.
        self._why_not: str | None = "credentials have not been looked for yet"
        self._broken: str | None = None
        self._said: str | None = None
        self._access: S3Access | None = None
        self._uploader: S3Uploader | None = None
        self._pipeline: Pipeline | None = None

    def startService(self) -> None:
        super().startService()
        self._timer.start(now=True)

    def stopService(self) -> Deferred[None]:
        """Fires when the positions are on disk: in a second or so."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._timer.stop()
        if self._looking is not None:
            self._looking.cancel()
        if self._pipeline is not None:
            await self._pipeline.stop()
            self._pipeline = None
        if self._uploader is not None:
            self._uploader.stop()

    @property
    def _archive(self) -> Archive | None:
        return None if self._pipeline is None else self._pipeline.archive

    # What the agent tells it and asks it

    def link_changed(self) -> None:
        """The link was opened or lost."""
        if self._pipeline is not None:
            self._pipeline.live.link_changed()

    def server_limits(self) -> None:
        """The server closed the link because of too many messages."""
        if self._pipeline is not None:
            self._pipeline.live.server_limits()

    def look_now(self) -> None:
        """The credentials may have changed."""
        if self.running:
            self._look()

    def upload_batch(self, body: bytes, count: int) -> Deferred[Stored]:
        """Archive events that were POSTed; see `Archive.submit`. Fails with `ArchiveOff` too."""
        archive = self._archive
        if archive is None:
            return fail(ArchiveOff(f"nothing is archived: {self._why_not}"))
        return archive.submit(body, count)

    @property
    def last_error(self) -> str | None:
        """Why the archive's last upload failed; None where it did not."""
        archive = self._archive
        return archive.last_error if archive is not None and self._access is not None else None

    @property
    def why_not(self) -> str | None:
        """Why nothing is archived; None where something is, be it later."""
        return self._why_not if self._archive is None else None

    @property
    def uploads_work(self) -> bool:
        """Whether an upload has succeeded, and none failed since."""
        archive = self._archive
        return archive is not None and archive.uploaded

    def access(self, found: AwsAccess | None) -> S3Access:
        """How S3 is reached with these credentials."""
        from jetcamer.agent.logs.s3_client import S3Access

        return S3Access(
            bucket=self._config.s3_bucket,
            region=found.region if found else self._config.aws_region,
            endpoint=self._environ.get("AWS_ENDPOINT_URL_S3")
            or self._environ.get("AWS_ENDPOINT_URL")
            or None,
            stored=found.stored if found else None,
        )

    def totals(self) -> dict[str, int]:
        """The sums over all files; empty where there is none."""
        return self._pipeline.totals() if self._pipeline is not None else {}

    def status(self) -> dict[str, Any]:
        """The member ``logs`` of ``ws-status``; see docs/logs.md, The ledger."""
        archive: dict[str, Any] = {"state": "off", "why": self._why_not}
        if self._pipeline is None:
            status: dict[str, Any] = {"files": [], "archive": archive}
            return status if self._broken is None else {**status, "error": self._broken}
        if self._pipeline.archive is not None:
            archive = {
                **self._pipeline.archive.status(),
                "bucket": self._config.s3_bucket,
                "region": self._access.region_name if self._access else None,
            }
            if self._access is None:
                archive["lastError"] = self._why_not
        return {**self._pipeline.status(), "archive": archive}

    # The look, every few seconds

    def _look(self) -> None:
        if self._looking is None:
            looking = self._looking = Deferred.fromCoroutine(self._look_around())
            looking.addErrback(_unless_cancelled)
            looking.addBoth(self._has_looked)

    def _has_looked(self, ignored: object) -> None:
        self._looking = None
        if self._pipeline is not None and self._config.archive == "off":
            self._timer.stop()  # the tail looks for files itself

    async def _look_around(self) -> None:
        access = await self._find_access()
        pipeline = self._pipeline
        if pipeline is None and (self._wanted(access) or self._is_there_anything()):
            pipeline = self._start_pipeline(access)
        elif pipeline is not None and pipeline.archive is None:
            machine_id = self._archive_as(access, archived_before=False)
            if machine_id is not None:
                pipeline.add_archive(machine_id)
        self._use(access)
        self._say_archiving()
        self._looked = True

    def _is_there_anything(self) -> bool:
        """Files, or what may be or have been some: the tail says what is wrong with them."""
        if self._config.log_paths or os.path.lexists(self._checkpoint):
            return True
        return bool(self._discovery.look() or self._discovery.unlisted)

    def _start_pipeline(self, access: S3Access | None) -> Pipeline | None:
        from jetcamer.agent.logs.checkpoint import Checkpoint, CheckpointFile

        file = CheckpointFile(self._config.state_dir)
        try:
            restored = file.load()
        except OSError as error:
            # Without it lines would be lost or doubled. The next look tries again.
            words = f"{self._checkpoint}: {error.strerror}"
            if words != self._broken:
                log.error("[logs] no file is followed: {why}", why=words)
            self._broken = words
            return None
        if restored is None:
            # What was not there when we looked first is new when it appears.
            restored = Checkpoint(patterns=tuple(self._patterns) if self._looked else ())
        archived_before = any(state.archive is not None for state in restored.streams)
        archive_as = self._archive_as(access, archived_before)
        pipeline = self._make_pipeline(file, restored, archive_as)
        try:
            pipeline.start()
        except BaseException:
            pipeline.abandon()
            raise
        self._broken = None
        self._pipeline = pipeline
        return pipeline

    def _make_pipeline(
        self, file: CheckpointFile, restored: Checkpoint, archive_as: str | None
    ) -> Pipeline:
        from jetcamer.agent.logs.pipeline import Pipeline
        from jetcamer.agent.logs.watch import FileWatcher

        return Pipeline(
            self._reactor,
            self._config,
            self._patterns,
            file=file,
            restored=restored,
            archive_as=archive_as,
            queue=self._queue,
            say=self._say,
            metadata=self._metadata,
            now=self._now,
            watcher=FileWatcher(self._reactor),
        )

    async def _find_access(self) -> S3Access | None:
        why = None
        found = None
        if self._config.archive == "off":
            why = "the configuration turns it off"
        elif not self._can_archive():
            why = f"botocore is not installed: {install_command()}"
        else:
            found = await self._finder.look_for_aws()
            if found is None:
                why = "no AWS credentials were found"
        self._why_not = why
        return None if found is None else self.access(found)

    def _wanted(self, access: S3Access | None) -> bool:
        """Whether to archive, be it once there are credentials."""
        if self._config.archive == "auto":
            return access is not None
        return self._config.archive == "on" and self._can_archive()

    def _archive_as(self, access: S3Access | None, archived_before: bool) -> str | None:
        """The machine id, if lines are to be archived from now on; else None."""
        # Whoever has archived goes on, and waits for credentials, rather than lose lines.
        goes_on = archived_before and self._config.archive != "off" and self._can_archive()
        if not (goes_on or self._wanted(access)):
            return None
        try:
            machine_id = self._machine_id()
        except OSError as error:
            self._why_not = f"the machine id cannot be read: {error.strerror}"
            return None
        return machine_id

    def _say_archiving(self) -> None:
        """Whether lines are archived, each time that changes."""
        bucket, why = self._config.s3_bucket, self._why_not
        if self._archive is None:
            words = f"nothing is archived: {why}"
        elif why is not None:
            words = f"lines wait to be archived in s3://{bucket}: {why}"
        else:
            words = f"archiving to s3://{bucket}"
        if words == self._said:
            return
        self._said = words
        if why is not None and self._config.archive == "on":
            log.error("[logs] {words}", words=words)
        elif self._pipeline is not None:
            log.info("[logs] {words}", words=words)

    def _use(self, access: S3Access | None) -> None:
        """Upload with these credentials from now on."""
        before = None
        if access != self._access:
            self._access = access
            before, self._uploader = self._uploader, None
            if access is not None:
                from jetcamer.agent.logs.s3 import S3Uploader

                self._uploader = S3Uploader(self._reactor, access)
        if self._pipeline is not None:
            self._pipeline.use(self._uploader)
        if before is not None:
            before.stop()


def _unless_cancelled(failure: Failure) -> None:
    if not failure.check(CancelledError):
        log.failure("[logs] looking for log files failed", failure)
