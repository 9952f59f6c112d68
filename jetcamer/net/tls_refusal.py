"""Why TLS with a client failed: the words for our log, and what the client is told.

Nothing here depends on what a client sent beyond OpenSSL's name for the error.
"""

from __future__ import annotations

import ssl

#: A fatal alert no_application_protocol (RFC 7301, 3.2) in a record of its own.
NO_APPLICATION_PROTOCOL = b"\x15\x03\x03\x00\x02\x02\x78"

_HINT = b"This port speaks TLS: use https:// or wss://\n"
_PLAIN_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_HINT), _HINT)
)

_WORDS = {
    "HTTP_REQUEST": "the client speaks plain HTTP",
    "UNSUPPORTED_PROTOCOL": "the client offers no TLS of 1.2 or later",
    "VERSION_TOO_LOW": "the client offers no TLS of 1.2 or later",
    "NO_SHARED_CIPHER": "the client offers no cipher that is accepted here",
    "NO_SUITABLE_KEY_SHARE": "the client offers no key exchange that is accepted here",
    "WRONG_VERSION_NUMBER": "the client does not speak TLS",
    "PACKET_LENGTH_TOO_LONG": "the client does not speak TLS",
    "UNKNOWN_PROTOCOL": "the client does not speak TLS",
}


def explain(error: ssl.SSLError) -> str:
    """Words for an error of the `ssl` module, in one line."""
    reason = error.reason
    if not reason:
        return f"TLS failed ({type(error).__name__})"
    if reason in _WORDS:
        return _WORDS[reason]
    _, alert, what = reason.partition("_ALERT_")
    if alert:
        return "the client refused: " + what.replace("_", " ").lower()
    return f"TLS failed ({reason.replace('_', ' ').lower()})"


def plain_answer(error: ssl.SSLError) -> bytes:
    """What is said, outside of TLS, to who asked without it; else nothing."""
    return _PLAIN_HTTP_ANSWER if error.reason == "HTTP_REQUEST" else b""
