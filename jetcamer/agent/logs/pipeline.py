"""From the files to the takers: what there is once there is something to follow or to archive.

In: the configuration, and what the last checkpoint says. Out: a tail, its takers, and a checkpoint
that holds all their positions and counts together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from jetcamer.agent.config import AgentConfig
from jetcamer.agent.logs.checkpoint import (
    Checkpoint,
    CheckpointFile,
    CheckpointWriter,
    PathState,
    run_here,
)
from jetcamer.agent.logs.ledger import total
from jetcamer.agent.logs.lines import Parser
from jetcamer.agent.logs.live import Live, Queue
from jetcamer.agent.logs.registry import Say
from jetcamer.agent.logs.spool import Spool
from jetcamer.agent.logs.stream import Stream
from jetcamer.agent.logs.tail import Tail, TailSettings
from jetcamer.agent.logs.watch import Watcher
from jetcamer.daemon.threads import run_in_thread
from jetcamer.net.timers import at_most

if TYPE_CHECKING:
    from jetcamer.agent.logs.archive import Archive
    from jetcamer.agent.logs.uploads import Uploader

log = Logger()

#: Seconds that the last positions have to get to the disk.
STOP_SECONDS = 1.0

#: Files that the status shows one by one.
MAX_SHOWN = 200


class Pipeline:
    """
    :param reactor: IReactorTime; with an archive, IReactorFromThreads.
    :param file: where positions are kept; :param restored: what it says.
    :param archive_as: the machine id to archive under; None: nothing is archived for now.
    :param say: tells the server: level, words, path.
    """

    def __init__(
        self,
        reactor: Any,
        config: AgentConfig,
        patterns: Sequence[str],
        *,
        file: CheckpointFile,
        restored: Checkpoint,
        archive_as: str | None,
        queue: Queue,
        say: Say,
        metadata: Callable[[], Mapping[str, str]],
        now: Callable[[], float],
        watcher: Watcher | None,
        settings: TailSettings = TailSettings(),  # noqa: B008 - it is frozen
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._say = say
        self._metadata = metadata
        self._now = now
        self._line_parser: Any = None
        self._file = file
        self._counted = restored.counted
        #: By path. The tail adds and takes away.
        self.ledgers = {path: state.ledger for path, state in restored.paths.items()}
        self._checkpoint = CheckpointWriter(reactor, self._write, self._snapshot, run=self._run)
        self._spool = Spool(os.path.join(config.state_dir, "spool"), config.spool_max_bytes)
        self.live = Live(
            reactor,
            queue,
            rate=config.log_lines_per_second,
            parser_for=self._parser_for,
            changed=self._checkpoint.touch,
        )
        self.archive = None if archive_as is None else self._make_archive(archive_as)
        self.tail = Tail(
            reactor,
            patterns,
            takers=[self.live] if self.archive is None else [self.live, self.archive],
            archive=self.archive is not None,
            ledgers=self.ledgers,
            restored=restored,
            changed=self._checkpoint.touch,
            spool=self._spool,
            watcher=watcher,
            defaults=not config.log_paths,
            say=say,
            settings=settings,
            now=now,
        )

    def start(self) -> None:
        self.tail.start()
        if self.archive is not None:
            self.archive.start()

    def add_archive(self, archive_as: str) -> None:
        """Archive from now on."""
        self.archive = self._make_archive(archive_as)
        self.tail.add_archive(self.archive)
        self.archive.start()

    def use(self, uploader: Uploader | None) -> None:
        """Upload with this from now on."""
        if self.archive is not None and self.archive.uploader is not uploader:
            self.archive.uploader = uploader

    async def stop(self) -> None:
        """In two seconds at the most."""
        self.live.stop()
        if self.archive is not None:
            await self.archive.stop()
        written = Deferred.fromCoroutine(self._checkpoint.stop())
        if not await at_most(self._reactor, STOP_SECONDS, written):
            log.error("[logs] the positions could not be kept in time: the disk hangs")
        self.abandon()

    def abandon(self) -> None:
        """Close every file, and leave what is on disk as it is."""
        self.tail.stop()

    def totals(self) -> dict[str, int]:
        """The ledger's sums over all paths."""
        return total(self.ledgers.values()).as_dict()

    def status(self) -> dict[str, Any]:
        """The members of ``logs`` in ``ws-status`` but for the archive's."""
        files = [
            {
                "path": stream.path,
                "rotated": stream.rotated_at is not None,
                "size": stream.end,
                "live": stream.live_settled,
                "archive": None if stream.archive is None else stream.archived,
            }
            for stream in self.tail.streams.values()
        ]
        return {
            "files": files[:MAX_SHOWN],
            "fileCount": len(files),
            "ledger": {
                path: ledger.as_dict() for path, ledger in list(self.ledgers.items())[:MAX_SHOWN]
            },
            "totals": self.totals(),
            "waiting": self.live.waiting,
            "linesPerSecond": self.live.rate,
            "ignored": dict(list(self.tail.ignored.items())[:MAX_SHOWN]),
            "checkpointError": self._checkpoint.last_error,
        }

    def _make_archive(self, machine_id: str) -> Archive:
        from jetcamer.agent.logs.archive import Archive, ArchiveSettings

        return Archive(
            self._reactor,
            now=self._now,
            settings=ArchiveSettings(
                max_batch=self._config.collector_max_batch_size,
                flush_interval=self._config.collector_flush_interval_seconds,
            ),
            machine_id=machine_id,
            parser_for=self._parser_for,
            spool=self._spool,
            ledgers=self.ledgers,
            checkpoint=self._checkpoint,
            metadata=self._metadata,
            say=self._say,
            counted=self._counted,
            run=self._run,
            check=self._check,
        )

    def _check(self, stream: Stream) -> None:
        self.tail.check(stream)  # which is made after its takers

    def _parser_for(self, path: str) -> Parser:
        if self._line_parser is None:
            from jetcamer.agent.logs.accesslog import LineParser

            self._line_parser = LineParser(self._config.log_formats)
        parser: Parser = self._line_parser.parser_for(path)
        return parser

    def _snapshot(self) -> Checkpoint:
        streams, paths = self.tail.state()
        for path, ledger in self.ledgers.items():
            if path not in paths:  # of what was POSTed
                paths[path] = PathState(ledger=ledger)
        return Checkpoint(
            patterns=self.tail.patterns,
            streams=streams,
            paths=paths,
            counted=self._counted if self.archive is None else self.archive.counted,
        )

    def _write(self, data: bytes) -> None:
        # Live lines may be sent twice after a power failure; archived ones never.
        self._file.write(data, durable=self.archive is not None)

    def _run(self, function: Callable[[], None]) -> Deferred[None]:
        # Where nothing is archived the disk is written seldom, and threads cost memory.
        if self.archive is None:
            return run_here(function)
        return run_in_thread(self._reactor, function, name="logs")
