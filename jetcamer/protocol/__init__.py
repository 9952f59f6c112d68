"""The language that agent and hub speak: pure functions and values, without I/O or a clock."""

from jetcamer.protocol.canonical import JSONValue, canonical, canonical_go
from jetcamer.protocol.envelope import (
    MAX_DEPTH,
    MAX_MESSAGE,
    AuthPayload,
    CommandPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsPayload,
    decode,
    decode_payload,
)
from jetcamer.protocol.errors import ProtocolError
from jetcamer.protocol.replay import ReplayGuard
from jetcamer.protocol.signing import SigningKey

__all__ = [
    "MAX_DEPTH",
    "MAX_MESSAGE",
    "AuthPayload",
    "CommandPayload",
    "CommandResultPayload",
    "Envelope",
    "HeartbeatPayload",
    "JSONValue",
    "LogPayload",
    "MetricsPayload",
    "ProtocolError",
    "ReplayGuard",
    "SigningKey",
    "canonical",
    "canonical_go",
    "decode",
    "decode_payload",
]
