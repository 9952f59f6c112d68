"""Sign and verify: text ↔ HMAC-SHA256, and whole messages with it.

In: a secret, once; then texts and messages. Out: signatures, messages ready to send, or the
envelope of a message whose signature was right. The secret itself is not kept, and nothing of it
may reach a repr, an error or a log. See docs/protocol.md, Signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from hmac import compare_digest
from json.encoder import encode_basestring

from jetcamer.protocol.canonical import canonical, canonical_go
from jetcamer.protocol.envelope import (
    MAX_TS,
    SIGNED_MEMBERS,
    TAIL,
    Envelope,
    MetricsMessage,
    check_strings,
    decode_metrics,
    decode_plain,
    envelope_of,
)
from jetcamer.protocol.errors import ProtocolError
from jetcamer.protocol.parsing import Member, check_limits, compact, members

__all__ = ["SigningKey"]

_BLOCK = 64  # bytes in a block of SHA-256
#: Bytes in the longest message that is written anew to be verified. It bounds what an unsigned
#: message can cost (some 0.1 s); what peers in the field send needs no writing anew at all.
_MAX_REWRITTEN = 1 << 16


class SigningKey:
    """A shared secret, ready to sign and to verify with.

    The key schedule is computed once, here: the two SHA-256 states of the padded key.
    Raises ValueError for a secret that is empty or that UTF-8 cannot carry.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, secret: str) -> None:
        # An encoding error would carry the secret, hence "replace" and the comparison.
        key = secret.encode("utf-8", "replace")
        if not key:
            raise ValueError("the secret is empty")
        if key.decode() != secret:
            raise ValueError("the secret is not text that UTF-8 can carry")
        if len(key) > _BLOCK:
            key = hashlib.sha256(key).digest()
        key = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key)).copy
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key)).copy

    def __repr__(self) -> str:
        return "<SigningKey>"

    def sign(self, text: bytes) -> str:
        """The signature of `text`: 64 lower-case hexadecimal digits."""
        inner = self._inner()
        inner.update(text)
        outer = self._outer()
        outer.update(inner.digest())
        return outer.hexdigest()

    def seal(
        self,
        type: str,  # noqa: A002
        agent_id: str,
        payload: bytes,
        *,
        ts: int,
        nonce: str,
    ) -> bytes:
        """The whole message, signed and ready to send.

        `payload` is the text of an object, from `canonical`; `ts` is in Unix milliseconds.
        Raises ProtocolError for what no peer would take: a string too long or empty, ``ts`` out
        of range, a payload that is not an object, a message too large or too deep.
        """
        check_strings(type, agent_id, nonce)
        if not -MAX_TS <= ts <= MAX_TS:
            raise ProtocolError("invalid_timestamp", "out of range", "ts")
        if not (payload.startswith(b"{") and payload.endswith(b"}")):
            raise ProtocolError("wrong_type", "not the text of an object", "payload")
        head = (
            f'{{"type":{encode_basestring(type)},"agentId":{encode_basestring(agent_id)},'
            f'"ts":{ts:d},"nonce":{encode_basestring(nonce)},"payload":'
        )
        text = head.encode() + payload
        signature = self.sign(text + b"}")
        message = b'%b,"signature":"%b"}' % (text, signature.encode())
        check_limits(message)
        return message

    def open(self, data: bytes, plain: Envelope | None = None) -> Envelope:
        """The envelope of a message with a right signature; else ProtocolError, whatever `data` is.

        The signature is over the bytes received, less the signature member. Only where the
        members came in another order than `Envelope`'s, or with white space between tokens, what
        was signed is not there to be hashed as it stands. Then these are tried: the tokens as
        they were spelled, without the white space, in the signing order and in the order
        received; then, of a message up to 64 KiB, the values written anew as Node writes them,
        and as Go does.

        :param plain: what `decode_plain` found in `data`, where it was asked before and did.
        """
        envelope = decode_plain(data) if plain is None else plain
        if envelope is not None and self._matches(data[:-TAIL] + b"}", envelope.signature):
            return envelope
        # Wrong, laid out otherwise, or with white space inside the payload: all the slow way.
        found = members(data)
        envelope = envelope_of(found)
        for text in _signed_texts(data, found):
            if self._matches(text, envelope.signature):
                return envelope
        raise ProtocolError("invalid_signature", "does not match the message", "signature")

    def open_metrics(self, data: bytes) -> MetricsMessage | None:
        """The message, where `data` is a `metrics` message as most agents send them and its
        signature is right; else None, and `open` finds out what it is."""
        message = decode_metrics(data)
        if message is None:
            return None
        inner = self._inner()
        inner.update(data[:-TAIL] + b"}")
        outer = self._outer()
        outer.update(inner.digest())
        return message if compare_digest(outer.hexdigest(), message.signature) else None

    def _matches(self, text: bytes, signature: str) -> bool:
        return compare_digest(self.sign(text), signature)


def _signed_texts(data: bytes, found: Mapping[str, Member]) -> Iterator[bytes]:
    """What the sender of these members may have hashed, the likeliest first."""
    spelled = {name: f'"{name}":{compact(member.text)}' for name, member in found.items()}
    received = _object(spelled.values())
    yield _object(spelled[name] for name in SIGNED_MEMBERS)
    if tuple(spelled)[:-1] == SIGNED_MEMBERS and received == data:
        return  # that was the text as it was signed: nothing to guess
    del spelled["signature"]
    yield _object(spelled.values())
    if len(data) > _MAX_REWRITTEN:
        return
    values = {name: found[name].value for name in SIGNED_MEMBERS}
    yield canonical(values)
    # Go's encoder keeps the order of a struct's members and sorts only what is inside a map.
    for before_1_22 in (False, True):
        try:
            text = _object(
                f'"{name}":{canonical_go(value, before_1_22=before_1_22).decode()}'
                for name, value in values.items()
            )
        except ProtocolError:
            return  # a number beyond a double: no Go program can have written this
        yield text
        if b"\\b" not in text and b"\\f" not in text:
            return


def _object(spelled: Iterable[str]) -> bytes:
    return ("{" + ",".join(spelled) + "}").encode()
