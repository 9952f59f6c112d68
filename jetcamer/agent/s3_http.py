"""The two routes of the local HTTP interface that are about S3: ``/internal/s3-validate`` and
``/internal/batch`` (docs/protocol.md, Local HTTP).

In: requests, and an agent that can be asked how it archives, and given events. Out: JSON, within
5 s, and what the disk needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import CancelledError, Deferred

from jetcamer.agent.logs.archive_errors import ArchiveOff, SpoolFull
from jetcamer.agent.logs.s3_check import Findings
from jetcamer.agent.logs.s3_errors import UploadError
from jetcamer.agent.logs.s3_validate import S3Check, S3Question, verdict
from jetcamer.agent.logs.shipping import has_botocore, install_command
from jetcamer.net.http import Answer, HTTPError, json_text, read_json

if TYPE_CHECKING:
    from twisted.web.http import Request

    from jetcamer.agent.logs.posted import Stored

#: Seconds that a batch which is on disk waits to be able to say that it was uploaded.
BATCH_SECONDS = 3.0

_BATCH_MEMBERS = ("env", "instanceId", "siteId")


class S3View(Protocol):
    def s3_question(self) -> S3Question: ...

    def upload_batch(self, body: bytes, count: int) -> Deferred[Stored]: ...


class S3Handlers:
    """One method a route; each gives what `jetcamer.net.http.Handler` may give."""

    def __init__(self, reactor: Any, view: S3View) -> None:
        self._reactor = reactor
        self._view = view
        self._check = S3Check(reactor)

    async def s3_validate(self, request: Request) -> Answer:
        question = self._view.s3_question()
        if not has_botocore():
            words = f"botocore is not installed: {install_command()}"
            findings = Findings(errors=(words,), region=question.access.region_name)
        else:
            findings = await self._check.ask(question)
        answer = verdict(question, findings)
        return Answer(json_text(answer), 200 if answer["valid"] else 503)

    async def batch(self, request: Request) -> object:
        try:
            events = parse_batch(read_json(request))
            body = b"".join(json_text(event) for event in events)
        except (ValueError, RecursionError) as error:
            raise HTTPError(400, _words_of(error)) from None
        if not events:
            return {"status": "ok", "message": "no events to upload"}
        try:
            stored = await self._view.upload_batch(body, len(events))
            uploaded = await self._in_time(stored.uploaded)
        except ArchiveOff as error:
            raise HTTPError(503, str(error)) from None
        except (SpoolFull, UploadError) as error:
            raise HTTPError(500, str(error)) from None
        if uploaded is None:
            return {
                "status": "ok",
                "uploaded": 0,
                "queued": len(events),
                "message": "stored on disk, uploaded when S3 takes it",
            }
        return {"status": "ok", "uploaded": uploaded}

    async def _in_time(self, uploaded: Deferred[int]) -> int | None:
        """None where it is not, or not yet: that the events are on disk is worth an answer."""
        timer = self._reactor.callLater(BATCH_SECONDS, uploaded.cancel)
        try:
            return await uploaded
        except ArchiveOff:
            return None
        except CancelledError:
            if timer.active():
                raise
            return None
        finally:
            if timer.active():
                timer.cancel()


def parse_batch(body: object) -> list[dict[str, Any]]:
    """The events in the body of a request to ``/internal/batch``, each complete.

    Raises ``ValueError``, one line for the caller.
    """
    common: dict[str, str] = {}
    events = body
    if isinstance(body, dict):
        events = body.get("events")
        for name in _BATCH_MEMBERS:
            value = body.get(name)
            if isinstance(value, str):
                common[name] = value
            elif value is not None:
                raise ValueError(f"{name} must be a string")
    if not isinstance(events, list):
        raise ValueError("events must be an array of objects")
    for index, event in enumerate(events):
        if not isinstance(event, dict):
            raise ValueError(f"events[{index}] must be an object")
        for name, value in common.items():
            event.setdefault(name, value)
    return events


def _words_of(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the events are nested too deeply"
    if "not JSON compliant" in str(error):
        return "an event holds a number that is too large"
    return str(error)
