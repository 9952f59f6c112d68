"""What went wrong with S3, in words a person can act on.

In: an exception of botocore's, and what was asked of S3. Out: an `UploadError`. Imports neither
botocore, whose exceptions it knows by their names, nor Twisted: the short-lived child uses this
too. Must never raise, nor let a secret into the words: of what S3 says only codes are quoted.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jetcamer.agent.logs.s3_client import S3Access

Kind = Literal["transient", "environment", "refused", "too_large"]

PUT, LIST, CREATE = "s3:PutObject", "s3:ListBucket", "s3:CreateBucket"

#: Codes of S3 and its imitators, by what they mean.
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_REGION = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidRegion",
}
_DENIED = {"AccessDenied", "AccessDeniedException", "Forbidden", "UnauthorizedAccess", "403"}
_TRANSIENT = {
    "BadDigest",
    "BandwidthLimitExceeded",
    "IncompleteBody",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
_TRANSIENT_STATUS = {408, 409, 425, 429}
#: Statuses that may be about this object alone, unless a code says otherwise.
_REFUSED_STATUS = {400, 411, 412, 431}
_TOO_LARGE = {"EntityTooLarge", "KeyTooLongError", "MaxMessageLengthExceeded"}
_TOO_LARGE_STATUS = {413, 414}
#: What imitators call a bucket or a disk that is full, each in its own way.
_FULL = re.compile("Quota|StorageFull|InsufficientStorage")
_ENVIRONMENT = {
    "AuthorizationQueryParametersError",
    "InvalidBucketName",
    "InvalidBucketState",
    "InvalidLocationConstraint",
    "InvalidSecurity",
    "InvalidStorageClass",
    "MissingAuthenticationToken",
    "MissingSecurityHeader",
    "NotSignedUp",
}
_NOT_HANDED_OUT = {
    "CredentialRetrievalError",
    "InvalidConfigError",
    "MetadataRetrievalError",
    "SSOError",
    "TokenRetrievalError",
}

_ACTION = re.compile(r"perform: ([a-z0-9-]{1,32}:[A-Za-z*]{1,64})")
_NETWORK = {
    errno.ECONNREFUSED: "refuses the connection",
    errno.ENETUNREACH: "cannot be reached: no route to it",
    errno.EHOSTUNREACH: "cannot be reached: no route to it",
    errno.ECONNRESET: "closed the connection before it had answered",
    errno.EPIPE: "closed the connection before it had answered",
    errno.ETIMEDOUT: "does not answer",
}


class UploadError(Exception):
    """An upload failed. The text is one line for a person and holds no secret."""

    kind: Kind
    """``transient``: the network, or S3 has trouble. ``environment``: credentials, permissions,
    bucket, region or clock, so that nothing else could be uploaded either. ``refused``: the
    request; whether for the object's own sake shows when S3 takes others. ``too_large``: the
    object, for its own sake."""

    retry_after: float | None
    """Seconds that S3 asks for."""

    code: str
    """What S3 or botocore calls it: ``NoSuchBucket``, ``ReadTimeoutError``."""

    region: str | None
    """Where the bucket really is, when S3 said so."""

    def __init__(
        self,
        words: str,
        *,
        kind: Kind,
        code: str = "",
        retry_after: float | None = None,
        region: str | None = None,
    ) -> None:
        super().__init__(words)
        self.kind = kind
        self.code = code
        self.retry_after = retry_after
        self.region = region


def explain(error: Exception, access: S3Access, action: str = PUT) -> UploadError:
    """What `error`, raised while `action` was asked of S3, means."""
    if isinstance(error, UploadError):
        return error
    name = type(error).__name__
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ClientError" in kinds:
        response: Mapping[str, Any] = getattr(error, "response", {})
        return _Answered(response, access, action).explain()
    words = _credentials(kinds, getattr(error, "kwargs", {}))
    if words is not None:
        return UploadError(words, kind="environment", code=name)
    if kinds & {"ResponseParserError", "ResponseStreamingError"}:
        words = f"what answers at {access.host} is not S3, or its answer was cut off"
        return UploadError(words, kind="transient", code=name)
    if kinds & {"ConnectionError", "HTTPClientError", "OSError"}:
        return _not_answered(error, kinds, access)
    if "ImportError" in kinds:
        words = f"botocore cannot be imported ({name})"
    elif "ParamValidationError" in kinds:
        words = f"botocore does not accept the request for bucket {access.bucket}"
        if action == PUT and "bucket" not in str(error).lower():
            return UploadError(words, kind="refused", code=name)
    elif "InvalidRegionError" in kinds:
        words = f"{access.region_name!r} is not the name of a region (awsRegion)"
    elif "ValueError" in kinds or "Endpoint" in name:
        words = f"botocore cannot use the endpoint {access.host} with bucket {access.bucket}"
        if access.endpoint is not None and "://" not in access.endpoint:
            words = "AWS_ENDPOINT_URL_S3 is no URL: it has to begin with http:// or https://"
    else:
        words = f"botocore cannot ask {access.host} ({name})"
    return UploadError(words, kind="environment", code=name)


def no_credentials() -> UploadError:
    return UploadError(
        "no AWS credentials were found: store them (PUT /internal/set-aws-config), or give the "
        "agent environment variables, a credentials file or an instance role",
        kind="environment",
        code="NoCredentialsError",
    )


class _Answered:
    """An error that S3 itself, or what stands in its place, answered with."""

    def __init__(self, response: Mapping[str, Any], access: S3Access, action: str) -> None:
        self._access = access
        self._action = action
        metadata = response.get("ResponseMetadata", {})
        self._error: Mapping[str, Any] = response.get("Error", {})
        self._status = int(metadata.get("HTTPStatusCode") or 0)
        self._headers: Mapping[str, str] = metadata.get("HTTPHeaders", {})
        self._code = _excerpt(self._error.get("Code"), 64) or str(self._status)

    def explain(self) -> UploadError:
        code, status = self._code, self._status
        words = self._known()
        if words is not None:
            return self._failed("environment", words)
        if code in _REGION or status in (301, 302, 307, 308):
            return self._failed("environment", self._wrong_region())
        if code in _DENIED or status in (401, 403):
            return self._failed("environment", self._denied())
        if code in _TRANSIENT or status in _TRANSIENT_STATUS or (status >= 500 and status != 501):
            slow = "asks to slow down" if code == "SlowDown" else "has trouble"
            return self._failed("transient", f"{self._access.host} {slow} ({self._named()})")
        if (
            code in {"400", "404"}
            or status == 404
            or code in _ENVIRONMENT
            or code.startswith("KMS")
        ):
            return self._failed("environment", self._refuses("the request"))
        if self._action == PUT:
            if code in _TOO_LARGE or status in _TOO_LARGE_STATUS:
                return self._failed("too_large", self._refuses("the object"))
            if status in _REFUSED_STATUS:
                return self._failed("refused", self._refuses("the request"))
        return self._failed("environment", self._refuses("the request"))

    def _failed(self, kind: Kind, words: str) -> UploadError:
        after = self._headers.get("retry-after", "")
        return UploadError(
            words,
            kind=kind,
            code=self._code,
            retry_after=float(after) if after.isascii() and after.isdigit() else None,
            region=self._region(),
        )

    def _known(self) -> str | None:
        code, bucket = self._code, self._access.bucket
        if code in _EXPIRED:
            return (
                "the AWS credentials have expired: renew them where they come from (environment, "
                "file or role), or store others (PUT /internal/set-aws-config)"
            )
        if code == "InvalidToken":
            return f"{self._access.host} does not accept the session token of the AWS credentials"
        if code == "InvalidAccessKeyId":
            return (
                f"{self._access.host} does not know the access key id: it is mistyped, deleted, "
                "inactive, or of another kind of S3"
            )
        if code == "SignatureDoesNotMatch":
            return "the secret access key is wrong: it is not the one of the access key id"
        if code == "RequestTimeTooSkewed":
            return self._skew()
        if code == "NoSuchBucket":
            return f"bucket {bucket} does not exist at {self._access.host}"
        if code == "BucketAlreadyExists":
            return (
                f"bucket {bucket} belongs to another account, and these credentials may not use "
                "it: choose another name (s3Bucket)"
            )
        if _FULL.search(code):
            return f"bucket {bucket} is full, or a quota is used up ({self._named()})"
        return None

    def _denied(self) -> str:
        said = _ACTION.search(str(self._error.get("Message", "")))
        action = self._action if said is None else said[1]
        if self._action == CREATE:
            return (
                f"bucket {self._access.bucket} does not exist, and these credentials may not "
                f"make it: create it, or allow {action}"
            )
        words = f"these AWS credentials lack the permission {action} on bucket"
        # Without S3's own code it may be somebody on the way who refuses.
        where = "" if self._code in _DENIED - {"403"} else f" ({self._named()})"
        return f"{words} {self._access.bucket}{where}"

    def _wrong_region(self) -> str:
        region, used = self._region(), self._access.region_name
        if region is None and self._code == "AuthorizationHeaderMalformed":
            return f"{self._access.host} cannot read the signature: the access key id looks wrong"
        bucket = self._access.bucket
        if region is None:
            return f"bucket {bucket} is not in region {used}: set awsRegion to the right one"
        return f"bucket {bucket} is in region {region}, not {used}: set awsRegion to {region}"

    def _region(self) -> str | None:
        region = self._headers.get("x-amz-bucket-region") or self._error.get("Region")
        return _excerpt(region, 64) or None

    def _skew(self) -> str:
        from email.utils import parsedate_to_datetime

        try:
            theirs = parsedate_to_datetime(self._headers["date"]).timestamp()
        except (KeyError, ValueError):
            return "this machine's clock is too far from S3's: set it (NTP)"
        off = round(time.time() - theirs)
        side = "ahead of" if off > 0 else "behind"
        return f"this machine's clock is {abs(off)} s {side} S3's: set it (NTP)"

    def _refuses(self, what: str) -> str:
        # What speaks for the port of another protocol, or a web server.
        if self._code in {"400", "404"}:
            return f"what answers at {self._access.host} is not S3 ({self._named()})"
        return f"{self._access.host} refuses {what} ({self._named()})"

    def _named(self) -> str:
        code, status = self._code, str(self._status)
        return f"status {status}" if code == status else f"{status} {code}"


def _credentials(kinds: set[str], given: Mapping[str, Any]) -> str | None:
    """Words for what keeps botocore from having credentials at all."""
    if "NoCredentialsError" in kinds:
        return str(no_credentials())
    if "PartialCredentialsError" in kinds:
        missing = _excerpt(given.get("cred_var"), 64)
        return f"the AWS credentials are incomplete: {missing} is missing"
    if "ProfileNotFound" in kinds:
        profile = _excerpt(given.get("profile"), 64)
        return f"the AWS profile {profile} (AWS_PROFILE) does not exist"
    if kinds & {"ConfigParseError", "ConfigNotFound"}:
        path = _excerpt(given.get("path"), 256)
        return f"the AWS configuration file {path} cannot be read"
    found = kinds & _NOT_HANDED_OUT
    if found:
        return f"the AWS credentials cannot be had from where they are kept ({min(found)})"
    return None


def _not_answered(error: Exception, kinds: set[str], access: S3Access) -> UploadError:
    """No answer came, or none that is one."""
    given = getattr(error, "kwargs", {})
    host = host_of(given.get("endpoint_url")) or access.host
    if "ProxyConnectionError" in kinds:
        host = f"the proxy {host_of(given.get('proxy_url'))}"
    if "ConnectTimeoutError" in kinds:
        words = f"{host} does not answer: no connection in time"
    elif "ReadTimeoutError" in kinds:
        words = f"{host} does not answer: connected, and silent"
    else:
        words = _cause(error, host)
    kind: Kind = "environment" if "SSLError" in kinds else "transient"
    return UploadError(words, kind=kind, code=type(error).__name__)


def _cause(error: Exception, host: str) -> str:
    for cause in _causes(error):
        if type(cause).__name__ == "CertificateError":  # urllib3 compares the names itself
            return f"TLS with {host} failed: {_excerpt(cause, 200)}"
        if isinstance(cause, ssl.SSLCertVerificationError):
            words = cause.verify_message
            own = "" if "expired" in words else " (AWS_CA_BUNDLE names a CA of yours)"
            return f"TLS with {host} failed: {words}{own}"
        if isinstance(cause, ssl.SSLError) and cause.reason:
            plain = " (it may not speak TLS)" if cause.reason == "WRONG_VERSION_NUMBER" else ""
            return f"TLS with {host} failed: {cause.reason.replace('_', ' ').lower()}{plain}"
        if isinstance(cause, socket.gaierror):
            return f"the name {host} cannot be resolved: {cause.strerror}"
        if isinstance(cause, OSError) and cause.errno in _NETWORK:
            return f"{host} {_NETWORK[cause.errno]}"
        if isinstance(cause, OSError) and cause.strerror:
            return f"{host} cannot be asked: {cause.strerror}"
    if type(error).__name__ == "ConnectionClosedError":
        return f"{host} closed the connection before it had answered"
    return f"{host} cannot be asked: {type(error).__name__}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The chain from botocore's exception through urllib3's down to the system's."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inner = getattr(found, "kwargs", {}).get("error"), getattr(found, "reason", None)
        waiting += [*inner, *found.args, found.__cause__, found.__context__]


def host_of(url: object) -> str:
    """``name:port`` of a URL, without what else may stand there: a proxy's has a password, and
    in that a slash, where somebody forgot to encode it."""
    rest = str(url or "").partition("://")[2]
    return re.split("[/?#]", rest.rpartition("@")[2], maxsplit=1)[0]


def _excerpt(text: object, limit: int) -> str:
    """The printable part of what a peer said."""
    return "".join(c for c in str(text or "")[:limit] if c.isprintable())
