"""What to do about a cause that the network, a server or a running agent names.

In: the words of a `ConnectFailed` or of ``lastError``. Out: one sentence, or nothing. The causes
are those that docs/troubleshooting.md explains at length.
"""

from __future__ import annotations

import re

_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"\binvalid_signature\b",
        "the server has another secret for this agent: compare both, to the last character",
    ),
    (
        r"\bunknown_agent\b",
        "the server does not know this agentId: register it there, or set instanceId",
    ),
    (
        r"\binvalid_timestamp\b",
        "the clocks differ by more than 5 minutes: set this one right (timedatectl)",
    ),
    (
        r"\breplaced_by_new_connection\b",
        "another agent connected with the same agentId: give each machine its own instanceId",
    ),
    (r"\bauth_timeout\b", "the auth message did not arrive: look for a proxy that holds it back"),
    (
        r"names no host|no subjectAltName",
        "issue the certificate anew, with the host that the URL names as its SAN: it has none",
    ),
    (
        r"not valid for|subjectAltName|names cannot be used",
        "issue the certificate for the host that the URL names, or set wsServerName to a name that "
        "the certificate carries",
    ),
    (
        r"wsCaFile does not hold it",
        "add the certificate of the authority that issued the server's to the file of wsCaFile",
    ),
    (
        r"self-signed certificate|unknown certificate authority",
        "set wsCaFile to the certificate of the authority that issued the server's",
    ),
    (r"\bexpired on\b", "renew the server's certificate; if it is not that old, set this clock"),
    (r"not valid before", "set this machine's clock (timedatectl)"),
    (r"does not speak TLS", "check the port; a server without TLS needs ws:// in place of wss://"),
    (r"refused the handshake", "the server wants other TLS settings: look into its log"),
    (r"^TLS:", "look at the server's certificate: openssl s_client -connect HOST:PORT"),
    (r"\b407\b", "put the proxy's user name and password into wsProxy or HTTPS_PROXY"),
    (r"^proxy\b", "check wsProxy, or HTTPS_PROXY and NO_PROXY; ask who runs the proxy"),
    (
        r"\bHTTP 404\b",
        "the server has no WebSocket at that path: the URL usually ends in /agent",
    ),
    (
        r"\bHTTP 400\b",
        "the server does not take this request: the path is usually /agent, and a port for TLS "
        "wants wss://",
    ),
    (r"\bHTTP 40[13]\b", "the server, or a gateway before it, refuses: look into its log"),
    (
        r"\bHTTP (429|502|503|504)\b|\b101[23]\b|draining",
        "the server is busy or being restarted: wait; the agent tries again by itself",
    ),
    (r"\bHTTP 30\d\b", "set wsApiUrl to the address that the server points to"),
    (r"\bHTTP \d\d\d\b", "the server does not answer as a WebSocket server: check wsApiUrl"),
    (
        r"answered in TLS",
        "write wss:// in place of ws:// in wsApiUrl, or take the port without TLS",
    ),
    (
        r"during the (TLS handshake|WebSocket upgrade)",
        "the server hangs up instead of answering: check the port, ws:// or wss://, and its log",
    ),
    (
        r"no answer to the (TLS handshake|WebSocket upgrade)",
        "something accepts the connection and says nothing: check the port, ws:// or wss://, and "
        "whether the server hangs (its log)",
    ),
    (
        r"no pong",
        "nothing to do: the server or its connection was gone, and the agent connects anew; if it "
        "happens often, look for what drops connections on the way",
    ),
    (r"does not speak WebSocket|upgrade answer", "another service listens there: check wsApiUrl"),
    (r"\brefused\b", "nothing listens there, or a firewall refuses: check address and port"),
    (r"name not found", "check the spelling of wsApiUrl, and this machine's DNS"),
    (r"unreachable|no route", "check the routes and the firewall of this machine and its network"),
    (
        r"no answer|timed out",
        "packets vanish on the way: allow outbound traffic to that port",
    ),
    (r"\bclosed by the server\b", "the server's log says why it closes"),
)

_PATTERNS = tuple((re.compile(pattern), advice) for pattern, advice in _CAUSES)


def advice(words: str) -> str:
    """What to do about `words`; empty where nothing is known."""
    return next((hint for pattern, hint in _PATTERNS if pattern.search(words)), "")
