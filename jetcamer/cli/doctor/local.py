"""What can be seen without leaving this machine: configuration, credentials, signature, disk.

In: the configuration's path and the environment. Out: rows, and what later checks build upon. A
secret is only ever reported as set or not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from jetcamer.agent.config import AgentConfig, ConfigError, ConfigSource, load_config
from jetcamer.agent.credential_store import CredentialStore
from jetcamer.agent.credentials import CredentialFinder, LinkCredentials
from jetcamer.agent.ec2 import CONNECT_SECONDS, DEFAULT_BASE, Ec2Metadata, MetadataClient
from jetcamer.agent.health import (
    HealthCheck,
    check_clock,
    check_disk,
    check_log_files,
    check_memory,
    check_state_directory,
)
from jetcamer.agent.short_http import direct_agent
from jetcamer.cli.doctor.report import Findings
from jetcamer.net.proxy import Proxy
from jetcamer.protocol.canonical import canonical
from jetcamer.protocol.errors import ProtocolError
from jetcamer.protocol.signing import SigningKey

#: A message signed by another implementation (``openssl dgst -sha256 -hmac``).
_KNOWN_KEY = "your-shared-secret-key"
_KNOWN = (
    b'{"type":"heartbeat","agentId":"agent-123","ts":1731819422000,'
    b'"nonce":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","payload":{"status":"alive"},'
    b'"signature":"ba851afd1efdd60e9af34241f63751d77e8fd147cee3b3a8e9b19fd70ec920e7"}'
)

#: A secret with fewer characters can be guessed.
_SHORT = 16

_SOURCES = {
    "config": "wsSecret in the configuration file",
    "stored-credentials": "the stored credentials",
    "environment-variables": "AWS_SECRET_ACCESS_KEY in the environment",
}

#: What to do about a check of `jetcamer.agent.health` that is not well.
_HINTS = {
    "clock": "set the clock right: timedatectl set-ntp true",
    "disk": "free some space: df -h /",
    "state_disk": "free some space on the state directory's file system",
    "memory": "see what uses it: ps aux --sort=-rss | head",
    "state_directory": "give it to the service's user (chown jetcamer), and run this as that user",
    "log_files": "add the service's user to the group that reads them (adm), or correct logPaths",
}


def read_configuration(
    findings: Findings, path: str | None, environ: Mapping[str, str]
) -> tuple[AgentConfig, ConfigSource] | None:
    """The configuration, or None where the agent would not start; rows ``configuration``."""
    try:
        config, source = load_config(path, environ)
    except ConfigError as error:
        findings.fail("configuration", str(error), _configuration_advice(str(error)))
        return None
    findings.hide(config.ws_secret, config.web_token)
    if config.ws_proxy is not None:
        findings.hide(Proxy.parse(config.ws_proxy).password)
    if source.path is None:
        findings.ok("configuration", f"no file {source.watched}: the defaults hold")
    else:
        findings.ok("configuration", f"{source.path} is valid")
    for warning in source.warnings:
        hint = "chmod o-rw it" if "everybody may" in warning else "correct the file"
        findings.warn("configuration", warning, hint)
    return config, source


def _configuration_advice(words: str) -> str:
    if words.endswith("no such file"):
        return (
            "write it, or correct --config or JETCAMER_AGENT_CONFIG: the agent does not start "
            "without a file that was named"
        )
    if ": cannot be read: " in words:
        return (
            "run this as root or as the service does (sudo -u jetcamer jetcamer doctor); the "
            "service's user must be able to read it"
        )
    return "correct it: the agent does not start with it, and a running one goes on with the old"


async def look_at_metadata(
    reactor: Any, findings: Findings, environ: Mapping[str, str], needed: bool
) -> MetadataClient:
    """Ask the metadata service; row ``metadata``.

    :param needed: whether the agent has no URL without it.
    """
    base = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or DEFAULT_BASE
    recorder = _Recorder(reactor, base)
    client = MetadataClient(reactor, environ, recorder)
    off = client.last_error
    known = await client.look()
    if off is not None:
        if needed:
            findings.warn("metadata", off, "turn it on, or set wsApiUrl")
        else:
            findings.skip("metadata", off)
    elif known == Ec2Metadata():
        refused = re.search(r"HTTP status 40[13]\b", client.last_error or "")
        if refused:
            words = f"the EC2 metadata service refuses ({client.last_error})"
            hint = "let this machine use it (aws ec2 modify-instance-metadata-options)"
        else:
            words = f"no EC2 metadata service ({client.last_error})"
            hint = "only EC2 instances find the URL themselves"
        if needed:
            findings.warn("metadata", words, f"set wsApiUrl; {hint}")
        else:
            findings.skip("metadata", f"{words}; none is needed")
    else:
        version = "IMDSv2" if recorder.gave_token else "IMDSv1"
        words = (
            f"{version}: instance {known.instance_id or '?'} in {known.region or '?'}, "
            f"public address {known.public_ipv4 or 'none'}"
        )
        if needed and known.public_ipv4 is None:
            findings.warn("metadata", words, "give the instance a public address, or set wsApiUrl")
        else:
            findings.ok("metadata", words)
    return client


@implementer(IAgent)
class _Recorder:
    """The metadata client's own kind of agent; remembers whether the service gives tokens."""

    def __init__(self, reactor: Any, base: str) -> None:
        self.gave_token = False
        self._reactor = reactor
        self._base = base

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Any = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        agent = direct_agent(self._reactor, self._base, CONNECT_SECONDS)
        answer: Deferred[IResponse] = agent.request(method, uri, headers, bodyProducer)
        return answer.addCallback(self._saw, method)

    def _saw(self, response: Any, method: bytes) -> IResponse:
        self.gave_token = self.gave_token or (method == b"PUT" and response.code == 200)
        answer: IResponse = response
        return answer


async def find_credentials(
    findings: Findings,
    config: AgentConfig,
    source: ConfigSource,
    store: CredentialStore,
    metadata: MetadataClient,
    environ: Mapping[str, str],
    hostname: str,
) -> LinkCredentials:
    """What the agent would link up with; rows ``credentials`` and ``url``."""
    finder = CredentialFinder(config, source, store, metadata, environ, hostname)
    found = await finder.look()
    stored = store.load()
    findings.hide(found.secret, environ.get("AWS_SECRET_ACCESS_KEY"))
    if stored is not None:
        findings.hide(stored.secret_access_key, stored.access_key_id)
    for warning in store.warnings:
        findings.warn("credentials", warning, _stored_advice(warning))
    if found.secret is None:
        findings.fail(
            "credentials",
            "no secret: not in the configuration, the stored credentials or the environment",
            "PUT the AWS credentials to /internal/set-aws-config, or set wsSecret; the service's "
            "environment may hold what this command's does not",
        )
    else:
        _judge_secret(findings, found)
    if found.url is None:
        findings.fail("url", "no URL of a server", "set wsApiUrl to wss://SERVER/agent")
    else:
        findings.ok("url", found.url)
    return found


def _stored_advice(words: str) -> str:
    if ": cannot be read: " in words:
        return "run this as the service's user (sudo -u jetcamer jetcamer doctor), who owns it"
    if ": is not used: " in words:
        return "store the credentials anew: PUT them to /internal/set-aws-config"
    return "chmod 600 the file"


def _judge_secret(findings: Findings, found: LinkCredentials) -> None:
    secret = found.secret or ""
    where = _SOURCES[found.secret_source or "config"]
    if secret != secret.strip():
        findings.warn(
            "credentials",
            f"the secret from {where} begins or ends with white space, which counts",
            "store it anew without the line break, unless the server's has it too",
        )
    elif len(secret) < _SHORT:
        findings.warn(
            "credentials",
            f"the secret from {where} has fewer than {_SHORT} characters",
            "take one that cannot be guessed: openssl rand -base64 32",
        )
    else:
        words = f'a secret is set, from {where}; the agent is "{found.agent_id}"'
        findings.ok("credentials", words)


def check_signature(findings: Findings) -> None:
    """Does this installation sign and verify as others do? Row ``signature``."""
    key = SigningKey(_KNOWN_KEY)
    try:
        known = key.open(_KNOWN)
        sealed = key.seal(
            known.type,
            known.agent_id,
            canonical({"status": "alive"}),
            ts=known.ts,
            nonce=known.nonce,
        )
        problem = "" if sealed == _KNOWN else "a message is sealed in other bytes than it should be"
    except ProtocolError as error:
        problem = f"a message with a right signature is refused: {error}"
    if not problem:
        try:
            key.open(_KNOWN.replace(b"alive", b"Alive"))
            problem = "a message that was changed on the way is accepted"
        except ProtocolError:
            pass
    if problem:
        findings.fail("signature", problem, "this installation is damaged: install it anew")
    else:
        findings.ok("signature", "signs and verifies as it should")


def check_server_time(findings: Findings, now: float, date: float) -> None:
    """Row ``clock``: `date` is the server's Unix time, a second or so ago, and `now` is ours."""
    _add(findings, check_clock(now, date, 0))


def check_machine(findings: Findings, config: AgentConfig) -> None:
    """Room and permissions, as the command ``run_health_check`` sees them, for this user."""
    if os.geteuid() == 0:
        findings.skip(
            "user", "root: what the service's own user may do shows with sudo -u jetcamer"
        )
    _add(findings, check_disk("disk", "/"))
    if os.path.isdir(config.state_dir):
        _add(findings, check_disk("state_disk", config.state_dir))
        _add(findings, check_state_directory(config.state_dir))
    else:
        findings.warn(
            "state_directory",
            f"{config.state_dir} is not there",
            "the service makes it at its first start; without systemd: install -d -m 0700",
        )
    _add(findings, check_memory())
    _add(findings, check_log_files(config.log_paths))


def _add(findings: Findings, check: HealthCheck) -> None:
    if check.status == "unknown":
        findings.skip(check.name, check.words)
    elif check.status == "ok":
        findings.ok(check.name, check.words)
    else:
        tell = findings.warn if check.status == "warn" else findings.fail
        tell(check.name, check.words, _HINTS.get(check.name, ""))
