"""What the agent that runs on this machine says of its link.

In: where its local interface listens, and its token. Out: rows ``agent``. Only reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.web.client import readBody
from twisted.web.http_headers import Headers

from jetcamer import __version__
from jetcamer.agent.config import AgentConfig
from jetcamer.agent.credentials import LinkCredentials
from jetcamer.agent.health import check_link
from jetcamer.agent.short_http import direct_agent
from jetcamer.cli.doctor.advice import advice
from jetcamer.cli.doctor.report import Findings
from jetcamer.cli.doctor.time_limit import TimeLimit
from jetcamer.net.url import join_authority

#: Seconds for the agent's answer.
ANSWER_SECONDS = 3.0

#: Every address of the machine is none to ask at.
_ASKED_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

_RESTART = "sudo systemctl restart jetcamer-agent"


async def ask_agent(
    reactor: Any,
    findings: Findings,
    config: AgentConfig,
    found: LinkCredentials | None,
    limit: TimeLimit,
) -> None:
    """Rows ``agent``.

    :param found: what this command would link up with, to be compared with what the agent uses.
    """
    host, port = config.listen_address()
    base = f"http://{join_authority(_ASKED_AT.get(host, host), port)}"
    asking = Deferred.fromCoroutine(_get(reactor, base, config.web_token))
    try:
        status, told = await limit.within(ANSWER_SECONDS, asking)
    except TimeoutError as late:
        findings.fail("agent", f"{base}: {late}: it hangs", _RESTART)
    except ConnectError:
        findings.warn(
            "agent", f"no agent runs at {base}", "start it: sudo systemctl start jetcamer-agent"
        )
    except Exception as error:
        findings.fail("agent", f"{base} gives no HTTP answer ({type(error).__name__})", _PORT_TAKEN)
    else:
        if told is None:
            findings.fail("agent", f"{base} is not a JetCamer agent (HTTP {status})", _PORT_TAKEN)
        else:
            _tell_link(findings, told)
            _compare(findings, told, found)


_PORT_TAKEN = "see what listens there (ss -ltnp), or set another webListen"


async def _get(reactor: Any, base: str, token: str | None) -> tuple[int, dict[str, Any] | None]:
    """The HTTP status, and the agent's status where that is what came."""
    headers = Headers({"Authorization": [f"Bearer {token}"]} if token is not None else {})
    agent = direct_agent(reactor, base, ANSWER_SECONDS)
    url = f"{base}/internal/ws-status".encode()
    response: Any = await agent.request(b"GET", url, headers, None)
    text = await readBody(response)
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    ours = response.code == 200 and isinstance(told, dict) and "hasConnection" in told
    return response.code, told if ours else None


def _tell_link(findings: Findings, told: Mapping[str, Any]) -> None:
    version = told.get("version", __version__)
    if version != __version__:
        words = f"version {version} runs, and {__version__} is installed"
        findings.warn("agent", words, _RESTART)
    link = check_link(told)
    error = str(told.get("lastError") or "")
    if link.status == "ok":
        findings.ok("agent", f"{link.words}, to {told.get('apiURL')}")
    elif link.status == "warn":
        findings.warn("agent", link.words, "see credentials above; it looks again by itself")
    elif told.get("state") == "connecting" and not told.get("attempt"):
        findings.warn("agent", "connecting right now", "look again in ten seconds")
    else:
        findings.fail("agent", link.words, advice(error))


def _compare(findings: Findings, told: Mapping[str, Any], found: LinkCredentials | None) -> None:
    if found is None:
        return
    differing = [
        f"{what} {theirs or 'none'}, not {ours or 'none'}"
        for what, theirs, ours in (
            ("the URL", told.get("apiURL"), found.url),
            ("the agentId", told.get("agentID"), found.agent_id),
            ("a secret from", told.get("secretSource", found.secret_source), found.secret_source),
        )
        if (theirs or None) != (ours or None)
    ]
    if differing:
        findings.warn(
            "agent",
            f"the running agent uses {'; '.join(differing)}",
            "run this as the service does, with its user and environment: "
            "sudo -u jetcamer jetcamer doctor",
        )
