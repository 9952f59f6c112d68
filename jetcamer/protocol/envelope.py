"""Bytes → Envelope → the payload of each message type.

In: the bytes of one message. Out: frozen values, or ProtocolError naming the member at fault.
Nothing here verifies a signature: see signing.py. See docs/protocol.md, Envelope.

A message laid out as every peer in the field sends it (the members in the order of `Envelope`,
no white space) is split by msgspec and its payload left alone; any other text goes through the
careful reader of parsing.py, which also finds the words for what is wrong. Members that are there
twice are refused at the envelope's level always, inside a payload at the latest by
`decode_payload`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, TypeVar

import msgspec

from jetcamer.protocol.canonical import replace_surrogates
from jetcamer.protocol.errors import ProtocolError, excerpt
from jetcamer.protocol.parsing import MAX_DEPTH, MAX_MESSAGE, Member, check_limits, members, parse

__all__ = [
    "MAX_AGENT_ID",
    "MAX_DEPTH",
    "MAX_MESSAGE",
    "MAX_NONCE",
    "MAX_TYPE",
    "SIGNED_MEMBERS",
    "AuthPayload",
    "CommandPayload",
    "CommandResultPayload",
    "Envelope",
    "HeartbeatPayload",
    "LogPayload",
    "MetricsPayload",
    "check_strings",
    "decode",
    "decode_payload",
    "decode_plain",
    "envelope_of",
]

# Characters in each string of an envelope, and the largest ts either way: 2**53 - 1.
MAX_TYPE = 64
MAX_AGENT_ID = 256
MAX_NONCE = 128
MAX_TS = (1 << 53) - 1

#: What a signature covers, in the order in which it is hashed.
SIGNED_MEMBERS = ("type", "agentId", "ts", "nonce", "payload")

_SIGNATURE = b',"signature":"'
_SIGNATURE_DIGITS = 64
_METRICS_HEAD = b'{"type":"metrics","agentId":"'
_METRICS_COLONS = 9
#: Bytes from the comma before the signature member to the end of a message laid out as signed.
TAIL = len(_SIGNATURE) + _SIGNATURE_DIGITS + len('"}')
_HEAD_QUOTES = 16
#: How a signature is written. Digits of the other case are refused: one text, one signature.
_SIGNATURE_FORM = re.compile("[0-9a-f]{64}")

P = TypeVar("P", bound=msgspec.Struct)


class Envelope(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, gc=False):
    """One message. ``ts`` is in Unix milliseconds, ``payload`` the JSON text of an object."""

    type: Annotated[str, msgspec.Meta(max_length=MAX_TYPE)]
    agent_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_AGENT_ID)]
    ts: Annotated[int, msgspec.Meta(ge=-MAX_TS, le=MAX_TS)]
    nonce: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NONCE)]
    payload: msgspec.Raw
    signature: Annotated[
        str, msgspec.Meta(min_length=_SIGNATURE_DIGITS, max_length=_SIGNATURE_DIGITS)
    ]


class AuthPayload(msgspec.Struct, frozen=True, rename="camel"):
    hostname: str
    version: str
    capabilities: tuple[str, ...] = ()


class MetricsPayload(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Percentages. A reading that failed at the agent is absent: None."""

    cpu_percent: float | None = None
    mem_percent: float | None = None
    disk_usage: float | None = None


class MetricsMessage(
    msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, gc=False
):
    """A `metrics` message whole: what an `Envelope` and its `MetricsPayload` are together."""

    type: Annotated[str, msgspec.Meta(max_length=MAX_TYPE)]
    agent_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_AGENT_ID)]
    ts: Annotated[int, msgspec.Meta(ge=-MAX_TS, le=MAX_TS)]
    nonce: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NONCE)]
    payload: MetricsPayload
    signature: Annotated[
        str, msgspec.Meta(min_length=_SIGNATURE_DIGITS, max_length=_SIGNATURE_DIGITS)
    ]


class HeartbeatPayload(msgspec.Struct, frozen=True, rename="camel", gc=False):
    status: str = "alive"


class LogPayload(msgspec.Struct, frozen=True, rename="camel", gc=False):
    level: str
    message: str
    source: str | None = None


class CommandPayload(msgspec.Struct, frozen=True, rename="camel"):
    command: str
    args: dict[str, str] = {}


class CommandResultPayload(msgspec.Struct, frozen=True, rename="camel"):
    """``in_reply_to`` is the nonce of the command; older peers send neither it nor details."""

    command: str
    result: str
    error: str = ""
    in_reply_to: str | None = None
    details: Any = None


def decode(data: bytes) -> Envelope:
    """The structure of a message alone; nothing about its signature but that it is one's form.

    Raises only ProtocolError.
    """
    envelope = decode_plain(data)
    return envelope_of(members(data)) if envelope is None else envelope


def decode_payload(envelope: Envelope, kind: type[P]) -> P:
    """The payload as `kind`; members that `kind` does not know are ignored.

    Raises ProtocolError, its ``member`` below ``payload``. The strings handed out always are
    text that UTF-8 can carry: a lone surrogate, which only JSON escapes can spell, is U+FFFD.
    """
    try:
        return msgspec.convert(_payload(bytes(envelope.payload)), kind)
    except msgspec.ValidationError as error:
        fault = str(error)
    raise _named(fault)


def decode_plain(data: bytes) -> Envelope | None:
    """The envelope of a message that is laid out exactly as it was hashed, else None.

    That is: without white space, the members of `Envelope` in their order and once each, their
    names and strings without escapes. Then the text that was signed is ``data[:-TAIL] + b"}"``.
    None may also mean that the message is wrong, which `members` and `envelope_of` find the words
    for. Raises ``too_large`` and ``too_deep``.
    """
    check_limits(data)
    try:
        envelope = _ENVELOPE.decode(data)
        if not data.isascii():
            data.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    head = (
        f'{{"type":"{envelope.type}","agentId":"{envelope.agent_id}","ts":{envelope.ts},'
        f'"nonce":"{envelope.nonce}","payload":{{'
    ).encode()
    # msgspec lets the last of two equal members win. Where `head`, made of what it took, is how
    # the text begins, no quote in it but those written here, and the payload and signature it
    # took fill the rest to the byte, there is no room for a second one.
    if (
        data.startswith(head)
        and data.startswith(_SIGNATURE, -TAIL)
        and len(data) == len(head) - 1 + len(envelope.payload) + TAIL
        and (b"\\" not in data or (head.count(b'"') == _HEAD_QUOTES and b"\\" not in head))
        and _SIGNATURE_FORM.fullmatch(envelope.signature)
    ):
        return envelope
    return None


def decode_metrics(data: bytes) -> MetricsMessage | None:
    """The message, where `data` is a `metrics` message of three readings laid out as most agents
    do; else None, whatever else it is.

    Like `decode_plain` and `decode_payload` together, in a third of their time: most messages are
    these. The text that was signed is ``data[:-TAIL] + b"}"``.
    """
    # Nine members, each with its colon: with no more colons than that, no member came twice.
    if not (
        data.startswith(_METRICS_HEAD)
        and data.startswith(_SIGNATURE, -TAIL)
        and data.count(b":") == _METRICS_COLONS
    ):
        return None
    try:
        message = _METRICS.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    payload = message.payload
    if payload.cpu_percent is None or payload.mem_percent is None or payload.disk_usage is None:
        return None
    return message


def envelope_of(found: Mapping[str, Member]) -> Envelope:
    """The envelope whose members were `found` in a text; raises ProtocolError."""
    for name in found:
        if name not in _NAMES:
            raise ProtocolError("unknown_member", "not a member of a message", excerpt(name))
    for name, wanted in _NAMES.items():
        if name not in found:
            raise ProtocolError("missing_member", "missing", name)
        if not isinstance(found[name].value, wanted) or isinstance(found[name].value, bool):
            if name == "ts" and _DIGITS.fullmatch(found[name].text):
                raise ProtocolError("invalid_timestamp", "out of range", "ts")
            words = f"expected {_WORDS[wanted]}, got {_kind(found[name].value)}"
            raise ProtocolError("wrong_type", words, name)
    values = {name: member.value for name, member in found.items()}
    if not -MAX_TS <= values["ts"] <= MAX_TS:
        raise ProtocolError("invalid_timestamp", "out of range", "ts")
    check_strings(values["type"], values["agentId"], values["nonce"])
    if not _SIGNATURE_FORM.fullmatch(values["signature"]):
        raise ProtocolError(
            "invalid_signature", "not 64 lower-case hexadecimal digits", "signature"
        )
    return Envelope(
        values["type"],
        values["agentId"],
        values["ts"],
        values["nonce"],
        msgspec.Raw(found["payload"].text.encode()),
        values["signature"],
    )


def check_strings(type: str, agent_id: str, nonce: str) -> None:  # noqa: A002
    """Raise ``invalid_value`` for a string that no envelope may carry."""
    for name, text, least, most in (
        ("type", type, 0, MAX_TYPE),
        ("agentId", agent_id, 1, MAX_AGENT_ID),
        ("nonce", nonce, 1, MAX_NONCE),
    ):
        if not least <= len(text) <= most:
            raise ProtocolError("invalid_value", f"not {least} to {most} characters long", name)
        if _LONE.search(text):
            raise ProtocolError("invalid_value", "holds half a surrogate pair", name)


def _payload(text: bytes) -> Any:
    try:
        value = _ANY.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # A lone surrogate, a number beyond a double, or text that is wrong.
        return _tidy(parse(text))
    # There are at least as many colons as members, so in an object of plain values as many
    # colons as names means that no name was there twice.
    if not isinstance(value, dict) or text.count(b":") != len(value):
        parse(text)
    return value


def _tidy(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, dict):
        return {replace_surrogates(name): _tidy(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        raise ProtocolError("invalid_value", "a number that no double can hold", "payload")
    return value


def _named(fault: str) -> ProtocolError:
    """The error for msgspec's words, such as "Expected `str`, got `int` - at `$.level`"."""
    words, _, path = fault.partition(" - at `")
    member = "payload" + path.rstrip("`").removeprefix("$").replace("[...]", "")
    missing = _MISSING.fullmatch(words)
    if missing is not None:
        return ProtocolError("missing_member", "missing", f"{member}.{missing[1]}")
    expected = _EXPECTED.fullmatch(words)
    if expected is not None:
        names = [_NAMED.get(name, name) for name in expected[1].split(" | ")]
        words = f"expected {' or '.join(names)}, got {_NAMED.get(expected[2], expected[2])}"
    return ProtocolError("wrong_type", words, member)


def _kind(value: object) -> str:
    return "true or false" if isinstance(value, bool) else _WORDS.get(type(value), "null")


_ENVELOPE = msgspec.json.Decoder(Envelope)
_ANY = msgspec.json.Decoder()
_METRICS = msgspec.json.Decoder(MetricsMessage)
_DIGITS = re.compile("-?[0-9]+", re.ASCII)
_LONE = re.compile("[\ud800-\udfff]")
_NAMES: dict[str, type] = {
    "type": str,
    "agentId": str,
    "ts": int,
    "nonce": str,
    "payload": dict,
    "signature": str,
}
_WORDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number with a fraction or exponent",
    dict: "an object",
    list: "an array",
}
_MISSING = re.compile("Object missing required field `([^`]*)`")
_EXPECTED = re.compile("Expected `([^`]*)`, got `([^`]*)`")
_NAMED = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "an array",
    "null": "null",
}
