"""Under which name, with which secret and to which URL the agent links up.

In: configuration, stored credentials, environment, metadata service. Out: one
:class:`LinkCredentials`, found anew every few seconds, and told on when it changed. The order of
precedence is that of section "Credentials" of docs/protocol.md. Must never block, and must never
let a secret into a log line or a ``repr``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import msgspec
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from jetcamer.agent.config import AgentConfig, ConfigSource
from jetcamer.agent.credential_store import (
    FILE_NAME,
    LEGACY_PATH,
    CredentialStore,
    StoredCredentials,
)
from jetcamer.agent.live_config import LiveConfig
from jetcamer.net.timers import RepeatingTimer

if TYPE_CHECKING:
    from jetcamer.agent.ec2 import MetadataClient

__all__ = [
    "FILE_NAME",
    "LEGACY_PATH",
    "CredentialFinder",
    "CredentialStore",
    "CredentialWatcher",
    "LinkCredentials",
    "StoredCredentials",
]

log = Logger()

SecretSource = Literal["config", "stored-credentials", "environment-variables"]
_SECRET_NAME = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the variable's name


class LinkCredentials(msgspec.Struct, frozen=True):
    """Enough to link up, or not: see :attr:`missing`. Two that are equal make the same link."""

    agent_id: str
    url: str | None
    secret: str | None
    secret_source: SecretSource | None
    region: str | None = None

    @property
    def missing(self) -> Literal["secret", "apiURL"] | None:
        """What keeps the link from being made, in the words of the status endpoint."""
        if self.secret is None:
            return "secret"
        return "apiURL" if self.url is None else None

    def __repr__(self) -> str:
        secret = None if self.secret is None else "<hidden>"
        return (
            f"LinkCredentials(agent_id={self.agent_id!r}, url={self.url!r}, secret={secret}, "
            f"secret_source={self.secret_source!r}, region={self.region!r})"
        )


class AwsAccess(msgspec.Struct, frozen=True):
    """What requests to AWS are signed with: `stored` ones, or what `kind` (the status endpoint's
    ``credentialsType``) says and the AWS libraries find themselves."""

    kind: str
    stored: StoredCredentials | None
    region: str | None


class CredentialFinder:
    """Looks in every place, in order. ``last`` is what the last look found, None before one."""

    def __init__(
        self,
        config: AgentConfig,
        source: ConfigSource,
        store: CredentialStore,
        metadata: MetadataClient,
        environ: Mapping[str, str],
        hostname: str,
    ) -> None:
        self.last: LinkCredentials | None = None
        self._config = config
        self._live = LiveConfig(config, source)
        self._store = store
        self._metadata = metadata
        self._environ = environ
        self._hostname = hostname
        self._told: set[str] = set()

    async def look(self) -> LinkCredentials:
        """Find out anew. The metadata service is asked only for what nothing else says."""
        config = self._live.current()
        wanted = set()
        if config.ws_api_url is None:
            wanted.add("public_ipv4")
        if _instance_id(config) is None:
            wanted.add("instance_id")
        if wanted:
            if self._region() is None:
                wanted.add("region")
            await self._metadata.look(wanted)
        # The files may have changed while that took its time.
        self.last = self._found(self._live.current())
        return self.last

    def credentials_type(self) -> str:
        """Whose AWS credentials a request to S3 would be signed with: the status endpoint's
        ``credentialsType``. The role of an EC2 instance shows only after somebody looked for
        ``iam_role`` at the metadata service: the link does not need it."""
        environ = self._environ
        if self._store.load() is not None:
            return "stored-credentials"
        if environ.get("AWS_LAMBDA_FUNCTION_NAME"):
            return "lambda-execution-role"  # whose keys stand in the environment, too
        if environ.get("AWS_ACCESS_KEY_ID") and environ.get(_SECRET_NAME):
            return "environment-variables"
        if os.path.isfile(self._shared_file()):
            return "credentials-file"
        if environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") or environ.get(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI"
        ):
            return "ecs-task-role"
        if self._metadata.known.iam_role is not None:
            return "ec2-instance-role"
        return "not-detected"

    async def look_for_aws(self) -> AwsAccess | None:
        """Whose credentials S3 is asked with; None where there are none. Asks the metadata
        service for the instance's role where nothing else is found."""
        kind = self.credentials_type()
        wanted = set()
        if kind == "not-detected" or self._metadata.known.iam_role is not None:
            wanted.add("iam_role")
        if wanted and self.aws_region is None:
            wanted.add("region")
        if wanted:
            await self._metadata.look(wanted)
            kind = self.credentials_type()
        if kind == "not-detected":
            return None
        return AwsAccess(kind, self._store.load(), self.aws_region)

    @property
    def aws_region(self) -> str | None:
        return self._region() or self._metadata.known.region

    def _found(self, config: AgentConfig) -> LinkCredentials:
        known = self._metadata.known
        url = config.ws_api_url
        if url is None and known.public_ipv4 is not None:
            url = f"wss://{known.public_ipv4}/agent"
        if url is None and self._metadata.last_error is not None:
            self._tell_once(
                "no wsApiUrl is configured, and the EC2 metadata service gave no public address: "
                + self._metadata.last_error
            )
        secret, secret_source = self._secret(config)
        return LinkCredentials(
            agent_id=_instance_id(config) or known.instance_id or self._hostname,
            url=url,
            secret=secret,
            secret_source=secret_source,
            region=self.aws_region,
        )

    def _secret(self, config: AgentConfig) -> tuple[str | None, SecretSource | None]:
        if config.ws_secret is not None:
            return config.ws_secret, "config"
        stored = self._store.load()
        if stored is not None:
            return stored.secret_access_key, "stored-credentials"
        secret = self._environ.get(_SECRET_NAME)
        if not secret:
            return None, None
        try:
            secret.encode()
        except UnicodeEncodeError:
            self._tell_once(f"{_SECRET_NAME} is not UTF-8 text and is not used")
            return None, None
        return secret, "environment-variables"

    def _region(self) -> str | None:
        """The region, where anything but the metadata service names one."""
        stored = self._store.load()
        return (
            self._config.aws_region
            or (stored.region if stored is not None else None)
            or self._environ.get("AWS_REGION")
            or self._environ.get("AWS_DEFAULT_REGION")
            or None
        )

    def _shared_file(self) -> str:
        named = self._environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
        if named.startswith("~/"):
            return os.path.join(self._environ.get("HOME") or "/nonexistent", named[2:])
        return named

    def _tell_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            log.warn("{words}", words=words)


class CredentialWatcher:
    """Looks at once and then every `interval` seconds; `on_change` is told the first answer and
    each that differs from the one it was told last.

    A look that fails is logged, and the next one comes in its time. An `on_change` that raises
    is told the same again after the next look.
    """

    def __init__(
        self,
        clock: IReactorTime,
        interval: float,
        finder: CredentialFinder,
        on_change: Callable[[LinkCredentials], None],
    ) -> None:
        self._timer = RepeatingTimer(clock, interval, self._tick, name="credential look")
        self._finder = finder
        self._on_change = on_change
        self._given: LinkCredentials | None = None
        self._looking = False
        self._running: Deferred[None] | None = None
        self._waiting: list[Deferred[LinkCredentials]] = []
        self._stopped = False

    def start(self) -> None:
        self._stopped = False
        self._timer.start(now=True)

    def stop(self) -> None:
        """End the timer and a look that is running; who waits for one gets CancelledError."""
        self._stopped = True
        self._timer.stop()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.errback(CancelledError())
        if self._running is not None:
            self._running.cancel()

    def look_now(self) -> Deferred[LinkCredentials]:
        """The answer of a look that begins after this call; several callers share one.

        Fires after `on_change` was told, so that what the answer set going has begun. Fails with
        what the look failed with.
        """
        if self._stopped:
            return fail(CancelledError())
        waiter: Deferred[LinkCredentials] = Deferred(self._leave)
        self._waiting.append(waiter)
        if not self._looking:
            self._begin()
        return waiter

    def _leave(self, waiter: Deferred[LinkCredentials]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _tick(self) -> None:
        if not self._looking:
            self._begin()

    def _begin(self) -> None:
        served, self._waiting = self._waiting, []
        self._looking = True
        self._running = Deferred.fromCoroutine(self._look(served))
        self._running.addBoth(self._ended)

    async def _look(self, served: list[Deferred[LinkCredentials]]) -> None:
        try:
            found = await self._finder.look()
        except CancelledError:
            self._give(served, Failure())
            return
        except Exception:
            log.failure("looking for credentials failed")
            self._give(served, Failure())
            return
        if self._stopped:
            self._give(served, Failure(CancelledError()))
            return
        if found != self._given:
            try:
                self._on_change(found)
            except Exception:
                log.failure("taking up changed credentials failed")
            else:
                self._given = found
        self._give(served, found)

    def _give(
        self, served: list[Deferred[LinkCredentials]], result: LinkCredentials | Failure
    ) -> None:
        for waiter in served:
            if not waiter.called:
                if isinstance(result, Failure):
                    waiter.errback(result)
                else:
                    waiter.callback(result)

    def _ended(self, result: Failure | None) -> None:
        if isinstance(result, Failure):
            log.failure("looking for credentials failed", result)
        self._looking = False
        self._running = None
        if self._waiting and not self._stopped:
            self._begin()


def _instance_id(config: AgentConfig) -> str | None:
    """The configured name; the old installer wrote "auto" where there was none."""
    name = config.instance_id
    return None if name is None or name.strip() in ("", "auto") else name
