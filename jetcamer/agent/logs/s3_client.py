"""botocore's client, made the way the archive wants it.

In: an `S3Access`. Out: a client. The functions import botocore, which takes half a second and
20 MB: call them in a thread of an agent that archives, or in a child. Knows nothing of Twisted.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from jetcamer import __version__
from jetcamer.agent.logs.s3_errors import CREATE, PUT, UploadError, explain, host_of

DEFAULT_REGION = "us-east-1"

#: Seconds.
CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 20.0


class KeyPair(Protocol):
    """What `jetcamer.agent.credential_store.StoredCredentials` is."""

    @property
    def access_key_id(self) -> str: ...

    @property
    def secret_access_key(self) -> str: ...


class S3Access(msgspec.Struct, frozen=True):
    """Where to, and as whom. Two that are equal reach the same bucket in the same way."""

    bucket: str
    #: None: `DEFAULT_REGION`.
    region: str | None = None
    #: A URL, for what is not AWS; None: botocore finds it.
    endpoint: str | None = None
    #: None: botocore looks in its own places, from the environment to the instance's role.
    stored: KeyPair | None = None

    @property
    def region_name(self) -> str:
        return self.region or DEFAULT_REGION

    @property
    def host(self) -> str:
        """Who is asked, for a message."""
        if self.endpoint is None:
            return f"s3.{self.region_name}.amazonaws.com"
        return host_of(self.endpoint) or "the configured endpoint"

    def __repr__(self) -> str:
        stored = None if self.stored is None else "<hidden>"
        return (
            f"S3Access(bucket={self.bucket!r}, region={self.region!r}, host={self.host!r}, "
            f"stored={stored})"
        )


def make_session(access: S3Access) -> Any:
    """A botocore session that has the credentials, or will look for them."""
    from botocore.session import Session

    session = Session()
    if access.stored is not None:
        session.set_credentials(access.stored.access_key_id, access.stored.secret_access_key)
    return session


def make_client(
    session: Any,
    access: S3Access,
    *,
    connect_timeout: float = CONNECT_TIMEOUT,
    read_timeout: float = READ_TIMEOUT,
    connections: int = 1,
) -> Any:
    """A client that tries once: whoever uses it has a back-off of its own. Threads may share it.

    Looks for credentials where the session has none yet.
    """
    from botocore.config import Config

    options: dict[str, Any] = {}
    if access.endpoint is not None:
        # Other makers of S3 often know neither the bucket in the name nor AWS's newer checksums.
        options["s3"] = {"addressing_style": "path"}
        options["request_checksum_calculation"] = "when_required"
        options["response_checksum_validation"] = "when_required"
    config = Config(
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=connections,
        user_agent=f"JetCamer/{__version__}",
        **options,
    )
    return session.create_client(
        "s3", region_name=access.region_name, endpoint_url=access.endpoint, config=config
    )


def put_object(
    client: Any, access: S3Access, key: str, body: bytes | bytearray, metadata: dict[str, str]
) -> None:
    """Upload one object. Raises `UploadError`."""
    try:
        answer = client.put_object(
            Bucket=access.bucket,
            Key=key,
            Body=body,
            ContentType="application/x-ndjson",
            Metadata=metadata,
        )
    except Exception as error:
        raise explain(error, access, PUT) from None
    if not answer.get("ETag"):
        # A portal, a proxy or a web server that says 200 to everything stores nothing.
        words = f"what answers at {access.host} is not S3: it names no ETag for what it took"
        raise UploadError(words, kind="environment", code="NoETag")


def create_bucket(client: Any, access: S3Access) -> None:
    """Make the bucket, unless it is there and ours. Raises `UploadError`."""
    constraint = {"CreateBucketConfiguration": {"LocationConstraint": access.region_name}}
    try:
        client.create_bucket(
            Bucket=access.bucket, **({} if access.region_name == DEFAULT_REGION else constraint)
        )
    except Exception as error:
        explained = explain(error, access, CREATE)
        if explained.code != "BucketAlreadyOwnedByYou":
            raise explained from None
