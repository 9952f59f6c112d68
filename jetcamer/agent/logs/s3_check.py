"""Can this machine archive to its bucket? Asked of S3 by a short-lived child of the agent.

In: a `Question` as JSON on standard input, secrets among it, which therefore never stand in an
argument or in the child's first environment. Out: on standard output, lines of JSON: ``waiting``,
what is being waited for, and at last ``findings``. Must never create or write anything in S3.

    python -m jetcamer.agent.logs.s3_check < question.json

The parent ends the child when it takes too long, and then says what it was waiting for. Does not
import Twisted: it has to start quickly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from jetcamer.agent.logs.s3_client import S3Access, make_client, make_session
from jetcamer.agent.logs.s3_errors import LIST, UploadError, explain, no_credentials

#: Seconds. Shorter than an upload's: the whole check has to end before the parent ends it.
CONNECT_TIMEOUT = READ_TIMEOUT = 3.0


class Keys(msgspec.Struct, frozen=True):
    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        return "Keys(<hidden>)"


class Question(msgspec.Struct, frozen=True):
    """What the child is to find out, as whom."""

    bucket: str
    region: str | None
    endpoint: str | None
    stored: Keys | None
    #: Only what starts with this is asked for.
    prefix: str
    #: Variables that botocore looks at. They hold credentials.
    environment: dict[str, str]

    def __repr__(self) -> str:
        return f"Question(bucket={self.bucket!r}, region={self.region!r}, <hidden>)"


class Findings(msgspec.Struct, frozen=True):
    """What came out. Without an error uploads may well work."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    #: Where the bucket is, as far as anybody knows.
    region: str | None = None
    bucket_exists: bool = False
    #: S3's or botocore's name for the error.
    code: str = ""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the child's output: either of the two."""

    #: Completed by "within … s".
    waiting: str | None = None
    findings: Findings | None = None


def examine(question: Question, waiting: Callable[[str], None]) -> Findings:
    """Ask S3. Never raises; tells `waiting` what it is about to wait for."""
    access = S3Access(question.bucket, question.region, question.endpoint, question.stored)
    try:
        waiting("botocore was not loaded")
        session = make_session(access)
        waiting(
            "no AWS credentials were found (environment, files, container and instance metadata "
            "service were asked)"
        )
        credentials = session.get_credentials()
        if credentials is None:
            raise no_credentials()
        credentials.get_frozen_credentials()
        waiting(f"there was no answer from {access.host}")
        client = make_client(
            session, access, connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT
        )
        answer = client.list_objects_v2(Bucket=access.bucket, Prefix=question.prefix, MaxKeys=1)
    except Exception as error:
        return _failed(explain(error, access, LIST), access)
    return _succeeded(answer, access)


def _succeeded(answer: dict[str, Any], access: S3Access) -> Findings:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or access.region_name
    if "Name" not in answer:
        words = f"what answers at {access.host} is not S3"
        return Findings(errors=(words,), region=access.region_name)
    warnings: tuple[str, ...] = ()
    if region != access.region_name:
        warnings = (
            f"bucket {access.bucket} is in region {region}, not {access.region_name}: set "
            f"awsRegion to {region} to save every upload a detour",
        )
    return Findings(region=region, bucket_exists=True, warnings=warnings)


def _failed(error: UploadError, access: S3Access) -> Findings:
    region = error.region or access.region_name
    if error.code == "NoSuchBucket":
        words = f"{error}: the first upload makes it, if the credentials allow s3:CreateBucket"
        return Findings(warnings=(words,), region=region, code=error.code)
    return Findings(
        errors=(str(error),),
        region=region,
        # S3 answers either only where there is such a bucket.
        bucket_exists=error.code == "AccessDenied" or error.region is not None,
        code=error.code,
    )


def main() -> None:
    with suppress(OSError):
        os.setsid()  # so that a helper which hands out credentials is ended with us
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    # Whatever a library prints must not come between our lines.
    os.dup2(2, 1)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    os.environ.update(question.environment)

    def say(line: Line) -> None:
        output.write(msgspec.json.encode(line) + b"\n")

    say(Line(findings=examine(question, lambda words: say(Line(waiting=words)))))


if __name__ == "__main__":
    main()
