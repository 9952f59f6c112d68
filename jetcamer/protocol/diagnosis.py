"""A signature that does not match → words for a person: what was most likely signed instead.

In: a message, and the keys its sender may have used. Out: one line. Nothing is accepted here: it is
called once a message was refused. It tries what programs in other languages sign when nobody tells
them better, the likeliest first. Strangers can make it run, so its cost is bounded whatever the
message holds, to a few milliseconds. It never raises, and shows neither a secret nor a signature
nor anything else of the message. See docs/protocol.md, Signature.
"""

from __future__ import annotations

import itertools
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import md5, sha1, sha256
from hmac import compare_digest
from typing import Any, NamedTuple

from jetcamer.protocol.canonical import canonical, canonical_go
from jetcamer.protocol.dialects import Style
from jetcamer.protocol.envelope import SIGNED_MEMBERS
from jetcamer.protocol.errors import ProtocolError
from jetcamer.protocol.parsing import Member, check_limits, compact, members
from jetcamer.protocol.rewriting import Rewriting
from jetcamer.protocol.signing import SigningKey

__all__ = ["explain_signature"]

#: Bytes in the longest message that is looked into, and signs that part its values.
_MAX_LENGTH = 1 << 14
_MAX_SIGNS = 2_000
#: The same of one whose values are written anew.
_MAX_REWRITTEN_SIGNS = 160

#: Bytes that are hashed at most, for all texts and keys together, and what beginning a hash costs.
_MAX_HASHED = 3 << 19
_HASH_COST = 1_024
#: Bytes in all texts together.
_MAX_TEXT = 1 << 18

_NONE = "none of the forms we know matches: the secret is probably another one"
_NOT_LOOKED_FOR = "what was signed is not looked for"
_SIGNS = (b",", b":", b"[", b"{")
_SOME = "the message is long, and none of the likeliest forms matches"


def explain_signature(data: bytes, keys: Mapping[str, SigningKey]) -> str:
    """Which key and which form the signature of `data` matches, in one line.

    `keys` maps what a person calls a key ("the agent's secret", "its old secret") to it.
    """
    if len(data) > _MAX_LENGTH:
        return f"the message is longer than {_MAX_LENGTH} bytes: {_NOT_LOOKED_FOR}"
    if sum(map(data.count, _SIGNS)) > _MAX_SIGNS:
        return f"the message holds more than {_MAX_SIGNS} values: {_NOT_LOOKED_FOR}"
    try:
        check_limits(data)
        return _explain(members(data), keys)
    except ProtocolError as error:
        return f"the message cannot be read: {error}"
    except (ValueError, ArithmeticError, RecursionError):
        return _NONE


def _explain(found: Mapping[str, Member], keys: Mapping[str, SigningKey]) -> str:
    signature = found["signature"].value if "signature" in found else None
    if not isinstance(signature, str) or not signature:
        return "there is no signature: expected a string of 64 lower-case hexadecimal digits"
    digest, spelling = _digest(signature)
    if digest is None:
        return f"the signature is {spelling}; expected 64 lower-case hexadecimal digits"
    if len(digest) not in _LENGTHS:
        return f"the signature is {len(digest)} bytes long (no SHA-256); {_EXPECTED}"
    name, plain = _LENGTHS[len(digest)]
    keyed = keys if len(digest) == 32 else {}
    hashes = len(keyed) + (plain is not None)
    cut_short = False
    hashed = length = 0
    seen = set()
    for form, text in _forms(found) if hashes else ():
        if form is None:
            cut_short = True
            continue
        if text in seen:
            continue
        seen.add(text)
        hashed += hashes * (len(text) + _HASH_COST)
        length += len(text)
        if hashed > _MAX_HASHED or length > _MAX_TEXT:
            return _SOME
        for label, key in keyed.items():
            if compare_digest(bytes.fromhex(key.sign(text)), digest):
                return _words(label, form, spelling)
        if plain is not None and compare_digest(plain(text), digest):
            return f"a plain {name} without the secret; expected HMAC-SHA256 keyed with it"
    if len(digest) != 32:
        return f"the signature is {len(digest)} bytes long (as {name} gives); {_EXPECTED}"
    if cut_short:
        return _SOME
    return _NONE if not spelling else f"{_NONE}; and the signature is {spelling}"


def _words(label: str, form: _Form, spelling: str) -> str:
    parts = [f"signed with {label}"]
    if form.words:
        parts.append(f"over {form.words}; {form.advice}")
    else:
        parts.append("in the right form")
    words = " ".join(parts)
    if spelling:
        words += f"; the signature is {spelling}: send 64 lower-case hexadecimal digits"
    return words


class _Form(NamedTuple):
    """What was signed, and what to do about it; both "" for the right one."""

    words: str = ""
    advice: str = ""


_AS_SENT = "sign the very bytes that are sent"
_ORDER = "sign type, agentId, ts, nonce, payload, in this order"
_COMPACT = "send it without spaces"

# Signatures.

_HEX = re.compile("(?:0[xX])?((?:[0-9a-fA-F]{2})+)", re.ASCII)
_BASE64 = re.compile("[A-Za-z0-9+/_-]{43}=?", re.ASCII)  # of 32 bytes
_STANDARD = str.maketrans("-_", "+/")


def _md5(text: bytes) -> bytes:
    return md5(text, usedforsecurity=False).digest()


def _sha1(text: bytes) -> bytes:
    return sha1(text, usedforsecurity=False).digest()


def _sha256(text: bytes) -> bytes:
    return sha256(text).digest()


#: By the length of what they give; None: we have none of that length.
_LENGTHS: dict[int, tuple[str, Callable[[bytes], bytes] | None]] = {
    16: ("MD5", _md5),
    20: ("SHA-1", _sha1),
    28: ("SHA-224", None),
    32: ("SHA-256", _sha256),
    48: ("SHA-384", None),
    64: ("SHA-512", None),
}
_EXPECTED = "expected HMAC-SHA256, 32 bytes"


def _digest(signature: str) -> tuple[bytes | None, str]:
    """The bytes of a signature, and what is odd about how it is written."""
    bare = signature.strip()
    oddity = "" if bare == signature else "surrounded by white space"
    if bare.startswith("sha256="):
        bare, oddity = bare.removeprefix("sha256="), "preceded by sha256="
    digits = _HEX.fullmatch(bare)
    if digits is not None and len(bare) <= 140:
        if digits[1] != bare:
            oddity = "preceded by 0x"
        elif bare != bare.lower():
            oddity = "in upper-case digits"
        return bytes.fromhex(digits[1]), oddity
    if _BASE64.fullmatch(bare):
        return b64decode(bare.rstrip("=").translate(_STANDARD) + "="), "in base64"
    return None, "neither hexadecimal digits nor base64"


# Forms, the likeliest first.


#: What text holds where Go's versions may differ.
_GO_CHANGED = ("\\b", "\\f", "\\u000")


_FormMaker = Callable[[str, Iterable[str], Mapping[str, str]], tuple[_Form, bytes]]


def _forms(found: Mapping[str, Member]) -> Iterator[tuple[_Form | None, bytes]]:
    """What may have been signed; None in place of forms that would cost too much."""
    spelled = {name: compact(member.text) for name, member in found.items()}
    in_order = [name for name in SIGNED_MEMBERS if name in found]
    yield _Form(), _object(in_order, spelled)
    yield from _orders(found, in_order, spelled)
    spaced = {name: _spaced(text) for name, text in spelled.items()}
    words = "text with a space after ':' and ','"
    yield _Form(words, _COMPACT), _object(in_order, spaced, spaced=True)
    signs = sum(text.count(sign.decode()) for text in spelled.values() for sign in _SIGNS)
    rewriting = Rewriting({name: found[name].text for name in in_order})
    rewritten = signs <= _MAX_REWRITTEN_SIGNS
    if rewritten:
        has_controls = any(map("".join(spelled.values()).__contains__, _GO_CHANGED))
        values = {name: found[name].value for name in in_order}
        yield from _written_anew(values, (False, True) if has_controls else (False,))
        yield from _styles(rewriting, in_order, numbers_too=False)
    else:
        yield None, b""
    yield from _layouts(found, in_order, spelled)
    if rewritten:
        yield from _styles(rewriting, in_order, numbers_too=True)
    yield from _orders(found, in_order, spaced, spaced=True)
    yield from _layouts(found, in_order, spaced, spaced=True)


def _orders(
    found: Mapping[str, Member],
    in_order: list[str],
    texts: Mapping[str, str],
    *,
    spaced: bool = False,
) -> Iterator[tuple[_Form, bytes]]:
    """The members in another order, or with one more, each spelled as in `texts`."""
    form = _form_maker(texts, spaced)
    received = [name for name in found if name != "signature"]
    yield form("the members in the order in which they were sent", received, {})
    yield form("the members sorted by name", sorted(in_order), {})
    yield form("the members with payload first", _payload_first(in_order), {})
    for empty, words in (('""', 'a signature ""'), ("null", "a signature null")):
        other = {"signature": empty}
        yield form(f"{words} beside the other members", [*in_order, "signature"], other)
        yield form(f"{words} beside the other members", found, other)
        yield form(f"{words}, the members sorted", sorted([*in_order, "signature"]), other)


def _of_spaced(spaced: bool) -> tuple[str, str]:
    """What is added to the words, and the advice."""
    if spaced:
        return " and with a space after ':' and ','", f"{_ORDER}, without spaces"
    return "", _ORDER


def _form_maker(texts: Mapping[str, str], spaced: bool) -> _FormMaker:
    """What makes a form of its words, its members, and texts that stand for those in `texts`."""
    suffix, advice = _of_spaced(spaced)

    def form(words: str, names: Iterable[str], other: Mapping[str, str]) -> tuple[_Form, bytes]:
        return _Form(words + suffix, advice), _object(names, {**texts, **other}, spaced)

    return form


def _layouts(
    found: Mapping[str, Member],
    in_order: list[str],
    texts: Mapping[str, str],
    *,
    spaced: bool = False,
) -> Iterator[tuple[_Form, bytes]]:
    """The members put together in rarer ways, each spelled as in `texts`."""
    suffix, advice = _of_spaced(spaced)
    form = _form_maker(texts, spaced)
    ts = texts.get("ts", "")
    bare = ts.strip('"')
    times = [("ts as a string", f'"{bare}"'), ("ts as a number", bare)]
    if re.fullmatch("-?[0-9]{4,17}", bare, re.ASCII):
        seconds = int(bare) / 1000
        times += [
            ("ts in seconds", str(int(bare) // 1000)),
            ("ts in seconds", repr(seconds)),
            ("ts in seconds, as a string", f'"{int(bare) // 1000}"'),
            ("ts with a fraction", f"{bare}.0"),
        ]
    for words, text in times:
        yield form(f"the members with {words}", in_order, {"ts": text})
    payload = texts.get("payload", "")
    for ending, words in (("", ""), ("\n", " and a line break")):
        yield _Form(f"the payload alone{words}{suffix}", advice), _bytes(payload + ending)
    for ending in ("\n", "\r\n"):
        whole = _object(in_order, texts, spaced) + ending.encode()
        yield _Form(f"text with a line break at its end{suffix}", "sign it without"), whole
    for left_out in in_order:
        names = [name for name in in_order if name != left_out]
        yield form(f"the members without {left_out}", names, {})
    values = [_bare(found[name], texts[name]) for name in in_order]
    for joint, words in (("", "nothing"), (".", "'.'"), (":", "':'"), ("|", "'|'"), ("\n", "lines"),
                         (",", "','"), ("&", "'&'")):  # fmt: skip
        yield _Form(f"the values joined by {words}{suffix}", _ORDER), _bytes(joint.join(values))


def _payload_first(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: name != "payload")


def _bare(member: Member, text: str) -> str:
    return member.value if isinstance(member.value, str) else text


def _written_anew(
    values: dict[str, Any], go_versions: Iterable[bool]
) -> Iterator[tuple[_Form, bytes]]:
    """As the two programs in the field write what they have parsed.

    :param go_versions: for Go, each: whether it is from before 1.22.
    """
    words = "text as JSON.stringify writes it, which is not what was sent"
    yield _Form(words, _AS_SENT), canonical(values)
    words = "text as Go's encoding/json writes it, which is not what was sent"
    for before_1_22 in go_versions:
        try:
            texts = {
                name: canonical_go(value, before_1_22=before_1_22).decode()
                for name, value in values.items()
            }
        except ProtocolError:
            return  # a number that Go cannot hold
        yield _Form(words, _AS_SENT), _object(values, texts)


def _styles(
    rewriting: Rewriting, in_order: list[str], *, numbers_too: bool
) -> Iterator[tuple[_Form | None, bytes]]:
    """The values written anew, in the ways of known languages that make a difference.

    :param numbers_too: with the numbers in other styles; else, with none of them so.
    """
    orders = [("", in_order, False), (_SORTED, in_order, True), (_SORTED, sorted(in_order), True)]
    ways = itertools.product(orders, (False, True), rewriting.writers)
    for (order, names, sort), spaced, writer in ways:
        if spaced and not writer.spaced:
            continue
        for number in writer.numbers if numbers_too else (_UNCHANGED,):
            style = [order, number.words, writer.strings.words, _WITH_SPACE if spaced else ""]
            form = _Form("text with " + _and(filter(None, style)), _AS_SENT)
            text = rewriting.text(names, sort, writer.strings, number, spaced)
            yield (None, b"") if text is None else (form, _bytes(text))


_UNCHANGED = Style("", str)
_SORTED = "the keys sorted"
_WITH_SPACE = "a space after ':' and ','"


# Texts.

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[:,]', re.DOTALL)


def _spaced(text: str) -> str:
    """Compact JSON text with a space after each colon and comma."""
    return _TOKEN.sub(lambda match: match[0] + " " if match[0] in ":," else match[0], text)


def _object(names: Iterable[str], texts: Mapping[str, str], spaced: bool = False) -> bytes:
    comma, colon = (", ", ": ") if spaced else (",", ":")
    return _bytes("{" + comma.join(f'"{name}"{colon}{texts[name]}' for name in names) + "}")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _and(parts: Iterable[str]) -> str:
    *most, last = [*parts] or ["the values written anew"]
    return f"{', '.join(most)} and {last}" if most else last
