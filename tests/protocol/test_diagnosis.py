"""A wrong signature is explained: one case for each form that programs sign by mistake."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.protocol import SigningKey, canonical, canonical_go, dialects
from jetcamer.protocol.diagnosis import explain_signature
from tests.protocol.strategies import cases, nested, scalars

SECRET = "the-secret-that-nobody-may-see"
OLD = "the-old-secret-that-nobody-may-see"
KEYS = {
    "the agent's secret": SigningKey(SECRET),
    "its old secret": SigningKey(OLD),
    "the agent's secret with a line break at its end": SigningKey(SECRET + "\n"),
}
NAMES = ("type", "agentId", "ts", "nonce", "payload")
PAYLOAD = {"level": "info", "message": "é <a> & b/c", "z": 20.0, "a": 1e-7, "10": 1, "9": 2}
#: What came closest where the secret is another one.
NONE = "none of the forms we know matches: the secret is probably another one"
NOT_SENT = "which is not what was sent"
AS_SENT = "sign the very bytes that are sent"
ORDER = "sign type, agentId, ts, nonce, payload, in this order"


def envelope(payload: Any = PAYLOAD) -> dict[str, Any]:
    return {
        "type": "log",
        "agentId": "server-01",
        "ts": 1_731_819_422_123,
        "nonce": "8b1a1f5e-52b6-4a29-9a57-000000000001",
        "payload": payload,
    }


def raw(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), **options)


def mac(text: str | bytes, secret: str = SECRET, digest: str = "sha256") -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return hmac.digest(secret.encode(), text, digest)


def message(signature: str, payload: Any = PAYLOAD, text: str | None = None) -> bytes:
    """As it is sent: `text`, or the usual writing of the envelope, and the signature."""
    text = raw(envelope(payload)) if text is None else text
    return f'{text[:-1]},"signature":{json.dumps(signature)}}}'.encode()


def without(name: str) -> str:
    return raw({key: value for key, value in envelope().items() if key != name})


class DiagnosisTests(SynchronousTestCase):
    def explained(self, data: bytes) -> str:
        words = explain_signature(data, KEYS)
        self.assertNotIn("\n", words)
        for hidden in (SECRET, OLD, "server-01", "8b1a1f5e", "é <a>"):
            self.assertNotIn(hidden, words)
        return words

    def signed(self, text: str | bytes, words: str, *, payload: Any = PAYLOAD) -> None:
        """A message over whose usual writing `text` was signed instead."""
        said = self.explained(message(mac(text).hex(), payload))
        self.assertEqual(said, f"signed with the agent's secret {words}")

    def test_another_key(self) -> None:
        text = raw(envelope())
        for secret, label in zip((SECRET, OLD, SECRET + "\n"), KEYS, strict=True):
            self.assertEqual(
                self.explained(message(mac(text, secret).hex())),
                f"signed with {label} in the right form",
            )
        self.assertEqual(self.explained(message(mac(text, "unknown").hex())), NONE)
        self.assertEqual(explain_signature(message(mac(text).hex()), {}), NONE)

    def test_another_key_and_another_form(self) -> None:
        self.assertEqual(
            self.explained(message(mac(json.dumps(envelope()), OLD).hex())),
            "signed with its old secret over text with characters outside ASCII escaped (\\u00e9) "
            f"and a space after ':' and ','; {AS_SENT}",
        )

    def test_layouts(self) -> None:
        whole = envelope()
        joined = [whole["type"], whole["agentId"], str(whole["ts"]), whole["nonce"],
                  raw(whole["payload"])]  # fmt: skip
        table: list[tuple[str, str, str]] = [
            (raw(dict(sorted(whole.items()))), "the members sorted by name", ORDER),
            (
                raw({"payload": whole["payload"]} | whole),
                "the members with payload first",
                ORDER,
            ),
            (
                raw(whole | {"signature": ""}),
                'a signature "" beside the other members',
                ORDER,
            ),
            (raw(whole | {"signature": None}), "a signature null beside the other members", ORDER),
            (
                raw(dict(sorted((whole | {"signature": ""}).items()))),
                'a signature "", the members sorted',
                ORDER,
            ),
            (raw(whole | {"ts": str(whole["ts"])}), "the members with ts as a string", ORDER),
            (raw(whole | {"ts": 1_731_819_422}), "the members with ts in seconds", ORDER),
            (raw(whole | {"ts": 1_731_819_422.123}), "the members with ts in seconds", ORDER),
            (
                raw(whole | {"ts": "1731819422"}),
                "the members with ts in seconds, as a string",
                ORDER,
            ),
            (
                raw(whole | {"ts": 1_731_819_422_123.0}),
                "the members with ts with a fraction",
                ORDER,
            ),
            (joined[4], "the payload alone", ORDER),
            (joined[4] + "\n", "the payload alone and a line break", ORDER),
            (raw(whole) + "\n", "text with a line break at its end", "sign it without"),
            (raw(whole) + "\r\n", "text with a line break at its end", "sign it without"),
            *((without(name), f"the members without {name}", ORDER) for name in NAMES),
            ("".join(joined), "the values joined by nothing", ORDER),
            (".".join(joined), "the values joined by '.'", ORDER),
            ("\n".join(joined), "the values joined by lines", ORDER),
        ]
        for text, words, advice in table:
            self.signed(text, f"over {words}; {advice}")

    def test_the_order_in_which_they_were_sent(self) -> None:
        swapped = {"ts": 1, "type": "log", "payload": {}, "agentId": "server-01", "nonce": "n"}
        said = self.explained(message(mac(raw(swapped)).hex(), text=raw(swapped)))
        self.assertIn("over the members in the order in which they were sent", said)

    def test_an_empty_signature_where_it_was_sent(self) -> None:
        text = raw({"signature": ""} | envelope())
        data = text.replace('""', f'"{mac(text).hex()}"', 1).encode()
        self.assertIn('a signature "" beside the other members', self.explained(data))

    def test_spaces(self) -> None:
        plain = {"level": "info", "message": 'a: "b, c" \\'}
        spaced = json.dumps(envelope(plain))
        words = "over text with a space after ':' and ','; send it without spaces"
        self.signed(spaced, words, payload=plain)
        self.signed(
            json.dumps({"payload": plain} | envelope(plain)),
            "over the members with payload first and with a space after ':' and ','; "
            f"{ORDER}, without spaces",
            payload=plain,
        )

    def test_other_ways_to_write_the_values(self) -> None:
        whole = envelope()
        text = raw(whole)
        ascii_only = json.dumps(whole, separators=(",", ":"))
        go_old = canonical_go(whole["payload"], before_1_22=True).decode()
        table: list[tuple[str, str]] = [
            (ascii_only, "text with characters outside ASCII escaped (\\u00e9)"),
            (
                ascii_only.replace("\\u00e9", "\\u00E9"),
                "text with characters outside ASCII escaped (\\u00E9)",
            ),
            (canonical(whole).decode(), f"text as JSON.stringify writes it, {NOT_SENT}"),
            (
                text.replace(raw(whole["payload"]), go_old),
                f"text as Go's encoding/json writes it, {NOT_SENT}",
            ),
            (
                text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"),
                "text with '<', '>', '&' and U+2028 escaped (\\u003c)",
            ),
            (
                text.replace("<", "\\u003C").replace(">", "\\u003E").replace("&", "\\u0026")
                .replace("é", "\\u00E9"),
                "text with '<', '>', '&', \"'\" and '+' escaped (\\u003C)",
            ),
            (text.replace("/", "\\/"), "text with '/' escaped (\\/)"),
            (
                ascii_only.replace("/", "\\/"),
                "text with '/' and characters outside ASCII escaped",
            ),
            (raw(whole, sort_keys=True), "text with the keys sorted"),
            (
                json.dumps(whole, sort_keys=True),
                "text with the keys sorted, characters outside ASCII escaped (\\u00e9) and "
                "a space after ':' and ','",
            ),
        ]  # fmt: skip
        for signed, words in table:
            self.signed(signed, f"over {words}; {AS_SENT}")

    def test_numbers(self) -> None:
        sent = '{"a":1e-7,"b":20,"c":20.5,"d":1e+21,"e":-0,"f":1.25e-9,"g":12345678.5}'
        table = [
            (
                '{"a":1e-7,"b":20,"c":20.5,"d":1e+21,"e":0,"f":1.25e-9,"g":12345678.5}',
                f"text as JSON.stringify writes it, {NOT_SENT}",
            ),
            (
                '{"a":1e-07,"b":20,"c":20.5,"d":1e+21,"e":-0,"f":1.25e-09,"g":12345678.5}',
                "text with numbers as Python writes them (1e-07, 20.0)",
            ),
            (
                '{"a":1e-07,"b":20.0,"c":20.5,"d":1e+21,"e":-0.0,"f":1.25e-09,"g":12345678.5}',
                "text with whole numbers with a fraction (20.0)",
            ),
            (
                '{"a":1.0E-7,"b":20,"c":20.5,"d":1.0E21,"e":-0,"f":1.25E-9,"g":1.23456785E7}',
                "text with numbers as Java writes them (1.0E-7, 20.0)",
            ),
            (
                '{"a":1.0E-7,"b":20.0,"c":20.5,"d":1.0E21,"e":-0.0,"f":1.25E-9,"g":1.23456785E7}',
                "text with numbers as Java writes them, whole ones with a fraction (20.0)",
            ),
            (
                '{"a":1E-07,"b":20,"c":20.5,"d":1E+21,"e":-0,"f":1.25E-09,"g":12345678.5}',
                "text with numbers as .NET writes them (1E-07)",
            ),
        ]
        text = raw(envelope("PAYLOAD")).replace('"PAYLOAD"', "%s")
        for signed, words in table:
            said = self.explained(message(mac(text % signed).hex(), text=text % sent))
            self.assertEqual(said, f"signed with the agent's secret over {words}; {AS_SENT}")
        # Sent as Go writes it from a number that was spelled otherwise, keys in the order sent.
        said = self.explained(
            message(mac(text % '{"b":-0,"a":1e-7}').hex(), text=text % '{"b":-0.0,"a":1.0e-7}')
        )
        self.assertIn("numbers as Go writes them (-0)", said)

    def test_how_the_signature_is_written(self) -> None:
        text = raw(envelope())
        right = mac(text)
        spaced = mac(json.dumps(envelope({}), ensure_ascii=False))
        lower = "send 64 lower-case hexadecimal digits"
        for signature, words in (
            (right.hex().upper(), "in upper-case digits"),
            (base64.b64encode(right).decode(), "in base64"),
            (base64.urlsafe_b64encode(right).decode().rstrip("="), "in base64"),
            ("sha256=" + right.hex(), "preceded by sha256="),
            ("0x" + right.hex(), "preceded by 0x"),
            (right.hex() + "\n", "surrounded by white space"),
        ):
            self.assertEqual(
                self.explained(message(signature)),
                "signed with the agent's secret in the right form; "
                f"the signature is {words}: {lower}",
            )
        self.assertEqual(
            self.explained(message(spaced.hex().upper(), {})),
            "signed with the agent's secret over text with a space after ':' and ','; "
            f"send it without spaces; the signature is in upper-case digits: {lower}",
        )
        wrong = mac(text, "unknown").hex()
        self.assertEqual(
            self.explained(message(wrong.upper())),
            f"{NONE}; and the signature is in upper-case digits",
        )

    def test_other_algorithms(self) -> None:
        text = raw(envelope()).encode()
        for name, digest in (
            ("SHA-256", hashlib.sha256(text)),
            ("SHA-1", hashlib.sha1(text)),
            ("MD5", hashlib.md5(text)),
        ):
            self.assertEqual(
                self.explained(message(digest.hexdigest())),
                f"a plain {name} without the secret; expected HMAC-SHA256 keyed with it",
            )
        for name, length, words in (
            ("md5", 16, "as MD5 gives"),
            ("sha1", 20, "as SHA-1 gives"),
            ("sha384", 48, "as SHA-384 gives"),
            ("sha512", 64, "as SHA-512 gives"),
        ):
            self.assertEqual(
                self.explained(message(mac(text, digest=name).hex())),
                f"the signature is {length} bytes long ({words}); expected HMAC-SHA256, 32 bytes",
            )

    def test_what_is_no_signature(self) -> None:
        missing = "there is no signature: expected a string of 64 lower-case hexadecimal digits"
        text = raw(envelope())
        self.assertEqual(self.explained(text.encode()), missing)
        for value in ("null", "1", '""', "{}"):
            self.assertEqual(self.explained(f'{text[:-1]},"signature":{value}}}'.encode()), missing)
        for signature in ("?", "no signature at all", "\ud800", "x" * 64, "0" * 63, "١" * 64):
            self.assertIn("64 lower-case hexadecimal digits", self.explained(message(signature)))
        self.assertIn("bytes long (no SHA-256)", self.explained(message("0" * 62)))

    def test_what_is_no_message(self) -> None:
        for data in (b"", b"\xff", b"{", b"[]", b"null", b'{"a":1,"a":2}', b'{"a":NaN}'):
            self.assertIn("the message cannot be read", self.explained(data))
        deep = b'{"payload":' + b"[" * 500 + b"]" * 500 + b"}"
        self.assertEqual(
            self.explained(deep), "the message cannot be read: nested more than 64 deep"
        )
        self.assertEqual(
            self.explained(b" " * (1 << 14) + b"{}"),
            "the message is longer than 16384 bytes: what was signed is not looked for",
        )
        self.assertEqual(
            self.explained(b'{"payload":[' + b"0," * 2001 + b"0]}"),
            "the message holds more than 2000 values: what was signed is not looked for",
        )

    def test_members_that_are_missing_or_of_another_type(self) -> None:
        text = '{"type":null,"ts":"1731819422123","payload":[1e999,"\\ud800",true]}'
        self.assertEqual(
            self.explained(message(mac(text).hex(), text=text)),
            "signed with the agent's secret in the right form",
        )
        self.assertEqual(self.explained(message(mac("").hex(), text=text)), NONE)
        alone = '{"signature":"' + mac(b"{}").hex() + '"}'
        self.assertIn("in the right form", self.explained(alone.encode()))

    def test_gson(self) -> None:
        payload = {"message": "a='<&>'", "a": 20.0, "b": 1e-7}
        text = raw(envelope(payload))
        for character in "=<>&'":
            text = text.replace(character, f"\\u{ord(character):04x}")
        words = "text with '<', '>', '&', '=' and \"'\" escaped (\\u003d)"
        self.signed(text, f"over {words}; {AS_SENT}", payload=payload)
        self.signed(
            text.replace("1e-07", "1.0E-7"),
            "over text with numbers as Java writes them (1.0E-7, 20.0) and "
            f"{words.removeprefix('text with ')}; {AS_SENT}",
            payload=payload,
        )

    def test_large_messages_of_known_writers(self) -> None:
        """What the usual libraries do by default is found in messages of 5 kB, too."""
        payload = {
            "level": "info",
            "message": "é <a> & b/c'+" * 200,
            "event": {f"key {number}": number + 0.5 for number in range(30)},
        }
        text = raw(envelope(payload))
        self.assertGreater(len(text), 3000)
        for signed, words in (
            (json.dumps(envelope(payload), separators=(",", ":")), "outside ASCII escaped"),
            (json.dumps(envelope(payload)), "and a space after"),
            (text.replace(raw(payload), canonical_go(payload).decode()), "Go's encoding/json"),
            (raw(envelope(payload) | {"ts": 1_731_819_422}), "ts in seconds"),
            (text.replace("/", "\\/"), "'/' escaped"),
            (raw(envelope(payload), sort_keys=True), "sorted"),
        ):
            for secret in (SECRET, OLD):
                self.assertIn(words, self.explained(message(mac(signed, secret).hex(), payload)))

    def test_the_cost_is_bounded(self) -> None:
        """Whatever a message holds: in bytes hashed, and in characters written for that."""
        hashed: list[int] = []
        escaped: list[str] = []

        class Counting(SigningKey):
            __slots__ = ()

            def sign(self, text: bytes) -> str:
                hashed.append(len(text))
                return super().sign(text)

        plain = dialects._escape

        def counting(text: str, *args: Any, **options: Any) -> str:
            escaped.append(text)
            return plain(text, *args, **options)

        self.patch(dialects, "_escape", counting)
        keys = {label: Counting(label) for label in "abcdefghijkl"}
        everything = "é<&/'+`"
        for payload in (
            {"a": [everything, 1.5e-9] * 10},
            {"a": [everything * 10, 1.5e-9] * 40},
            {"a": [everything, 1.5e-9] * 90},
            {"a": [everything, 1.5e-9] * 300},
            {f"{everything}{number}": number + 0.5 for number in range(60)},
            {"a": "".join(map(chr, range(0x4E00, 0x4E00 + 4000)))},
            {"a": "".join(map(chr, range(0x4E00, 0x4E00 + 300)))},
            {"a": [everything * 200] * 8},
            {"a": [int("9" * 3000)] * 4},
            {"a": [0] * 1900},
            {"a": "x" * 15_000},
        ):
            for count in (1, 4, 12):
                hashed.clear()
                escaped.clear()
                some = dict(list(keys.items())[:count])
                self.assertIn("matches", explain_signature(message("0" * 64, payload), some))
                self.assertLess(sum(hashed), 3 << 19)
                # Beginning each costs something, too.
                self.assertLess(len(hashed), 1500)
                self.assertLessEqual(sum(hashed), count << 18)
                self.assertLessEqual(sum(map(len, escaped)), 1 << 16)
                self.assertLessEqual(sum(len(set(text)) for text in escaped), 2000)
        # Texts of many pieces, though short.
        hashed.clear()
        some = {"a": keys["a"]}
        explain_signature(message("0" * 64, {"a": [everything, *[1.5e-9, 20] * 45]}), some)
        self.assertLess(len(hashed), 90)
        hashed.clear()
        explain_signature(message("0" * 64, {"a": "é</" * 5500}), keys)
        self.assertEqual(hashed, [])

    def test_what_is_not_tried_is_not_denied(self) -> None:
        """That nothing matches is only said where everything was tried."""
        some = "the message is long, and none of the likeliest forms matches"
        for payload in ({"a": "x" * 15_000}, {"a": [[]] * 150}, {"a": [*range(50)]}):
            self.assertEqual(self.explained(message("0" * 64, payload)), some)
        self.assertEqual(self.explained(message("0" * 64, {"a": [*range(10)]})), NONE)

    def test_numbers_within_strings_stay(self) -> None:
        """A '+' in a number is not one that .NET escapes."""
        sent = '{"a":1e+21,"b":"1+1"}'
        text = raw(envelope("PAYLOAD")).replace('"PAYLOAD"', "%s")
        signed = text % '{"a":1E+21,"b":"1\\u002B1"}'
        self.assertIn(
            "numbers as .NET writes them (1E-07)",
            self.explained(message(mac(signed).hex(), text=text % sent)),
        )

    @given(nested(scalars), st.sampled_from([raw, json.dumps, lambda v: raw(v, sort_keys=True)]))
    @cases(150)
    def test_what_any_payload_holds(self, value: Any, write: Callable[[Any], str]) -> None:
        """It never raises; what our forms cover is found whatever the payload is."""
        text = write(envelope({"a": value})).encode("utf-8", "surrogatepass")
        sent = raw(envelope({"a": value})).encode("utf-8", "surrogatepass")
        data = b'%b,"signature":"%b"}' % (sent[:-1], mac(text).hex().encode())
        said = explain_signature(data, KEYS)
        if "cannot be read" not in said:
            self.assertIn("signed with the agent's secret", said)

    def test_never_raises(self) -> None:
        draw = random.Random(4)
        data = message(mac(b"x").hex())
        for _ in range(300):
            changed = bytearray(data)
            for _ in range(draw.randint(1, 4)):
                changed[draw.randrange(len(changed))] = draw.choice(b'"\\{}[]:,0e-.\xffntf')
            self.assertIsInstance(explain_signature(bytes(changed), KEYS), str)
