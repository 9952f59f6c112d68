"""Signing and verifying: with a real Node server's code, through every layout, against forgers."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.protocol import (
    MAX_MESSAGE,
    CommandPayload,
    MetricsPayload,
    ProtocolError,
    SigningKey,
    canonical,
    canonical_go,
    decode,
    decode_payload,
)
from jetcamer.protocol.envelope import decode_plain
from tests.protocol.strategies import cases, clean_texts, payloads, random_object
from tests.support.node_json import NodeRefused, node_json

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY = SigningKey(SECRET)
TS = 1731819422000
NONCE = "8b1a1f5e-52b6-4a29-9a57-0f6b0a2a0b11"
METRICS = b'{"cpuPercent":25.5,"memPercent":45.2,"diskUsage":60.1}'
SIGNED = ("type", "agentId", "ts", "nonce", "payload")


def seal(payload: bytes = METRICS, **changes: Any) -> bytes:
    members = {"type": "metrics", "agent_id": "agent-123", "ts": TS, "nonce": NONCE, **changes}
    return KEY.seal(payload=payload, **members)


def spelled(**changes: bytes) -> dict[str, bytes]:
    """The members of a message, each as its token is spelled, in the signing order."""
    return {
        "type": b'"metrics"',
        "agentId": b'"agent-123"',
        "ts": b"%d" % TS,
        "nonce": b'"%b"' % NONCE.encode(),
        "payload": METRICS,
        **changes,
    }


def joined(members: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(b'"%b":%b' % (k.encode(), v) for k, v in members.items()) + b"}"


def signed(members: dict[str, bytes], text: bytes | None = None) -> dict[str, bytes]:
    """`members` and the signature of a peer that hashed `text`, or their compact form."""
    text = joined(members) if text is None else text
    digits = hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
    return {**members, "signature": b'"%b"' % digits.encode()}


TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\[\]{}:,"\s]+')


def spaced(text: bytes, draw: random.Random) -> bytes:
    """`text` with white space drawn between all its tokens, and around them."""
    gaps = [b"", b" ", b"\n", b"\r\n\t", b"    "]
    tokens = [token for match in TOKEN.findall(text) for token in (match, draw.choice(gaps))]
    return draw.choice(gaps) + b"".join(tokens)


def shuffled(members: dict[str, bytes], draw: random.Random) -> dict[str, bytes]:
    return {name: members[name] for name in draw.sample(list(members), len(members))}


def doubles(text: bytes | msgspec.Raw) -> Any:
    """The value of JSON text to a reader that has no integers."""
    return json.loads(bytes(text), parse_int=float)


class Base(SynchronousTestCase):
    def refused(self, data: bytes, code: str | None = None, member: str | None = None) -> None:
        with self.assertRaises(ProtocolError) as caught:
            KEY.open(data)
        if code is not None:
            self.assertEqual((caught.exception.code, caught.exception.member), (code, member))
        self.assertNotIn(SECRET, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def opens(self, data: bytes, payload: bytes = METRICS) -> None:
        envelope = KEY.open(data)
        self.assertEqual((envelope.agent_id, envelope.ts), ("agent-123", TS))
        self.assertEqual(doubles(envelope.payload), doubles(payload))


class Keys(Base):
    def test_is_hmac_sha256(self) -> None:
        # RFC 4231, test case 2
        self.assertEqual(
            SigningKey("Jefe").sign(b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        )
        for length in (1, 2, 63, 64, 65, 66, 200):
            for letter in "aé😀\0":
                secret, text = letter * length, b"x" * length
                self.assertEqual(
                    SigningKey(secret).sign(text),
                    hmac.new(secret.encode(), text, hashlib.sha256).hexdigest(),
                )

    def test_many_signatures_with_one_key(self) -> None:
        self.assertEqual(KEY.sign(b"a"), KEY.sign(b"a"))
        self.assertNotEqual(KEY.sign(b"a"), KEY.sign(b"b"))

    def test_secrets_that_cannot_be(self) -> None:
        for secret in ("", "s3cr\udce9t"):
            with self.assertRaises(ValueError) as caught:
                SigningKey(secret)
            error = caught.exception
            self.assertNotIn("s3cr", f"{error!r} {error.__context__!r} {error.__cause__!r}")

    def test_keeps_the_secret_to_itself(self) -> None:
        self.assertEqual(repr(KEY), "<SigningKey>")
        self.assertNotIn(SECRET, str(KEY))
        self.assertFalse(hasattr(KEY, "__dict__"))
        self.assertRaises(TypeError, pickle.dumps, KEY)
        self.assertNotEqual(KEY, SigningKey(SECRET))


class Sealing(Base):
    def test_layout(self) -> None:
        members = signed(spelled())
        self.assertEqual(seal(), joined(members))
        self.opens(seal())

    def test_takes_the_fast_way_when_it_comes_back(self) -> None:
        self.assertIsNotNone(decode_plain(seal()))
        self.assertIsNotNone(decode_plain(seal(agent_id="Größe 😀", nonce="\x7f\u2028")))
        self.assertIsNone(decode_plain(seal(agent_id='a"b')))

    def test_what_no_peer_would_take(self) -> None:
        for changes, code, member in [
            ({"type": "t" * 65}, "invalid_value", "type"),
            ({"agent_id": ""}, "invalid_value", "agentId"),
            ({"agent_id": "a" * 257}, "invalid_value", "agentId"),
            ({"agent_id": "\ud800"}, "invalid_value", "agentId"),
            ({"nonce": ""}, "invalid_value", "nonce"),
            ({"nonce": "n" * 129}, "invalid_value", "nonce"),
            ({"ts": 1 << 53}, "invalid_timestamp", "ts"),
            ({"payload": b"[1]"}, "wrong_type", "payload"),
            ({"payload": b""}, "wrong_type", "payload"),
            ({"payload": b'{"a":"%b"}' % (b"a" * MAX_MESSAGE)}, "too_large", None),
            ({"payload": b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"}, "too_deep", None),
        ]:
            with self.assertRaises(ProtocolError) as caught:
                seal(**changes)
            self.assertEqual((caught.exception.code, caught.exception.member), (code, member))

    def test_the_longest_and_deepest_open_again(self) -> None:
        for payload in (
            b'{"a":' + b"[" * 62 + b"]" * 62 + b"}",
            b'{"a":"%b"}' % (b"a" * (MAX_MESSAGE - len(seal(b'{"a":""}')))),
        ):
            message = seal(payload)
            self.assertEqual(bytes(KEY.open(message).payload), payload)
        self.assertEqual(len(message), MAX_MESSAGE)
        self.refused(message + b" ", "too_large")

    @cases(80)
    @given(
        clean_texts,
        clean_texts.filter(bool),
        clean_texts.filter(bool),
        st.integers(-(2**53) + 1, 2**53 - 1),
        payloads,
    )
    def test_opens_here_and_verifies_in_node(
        self, kind: str, agent_id: str, nonce: str, ts: int, payload: dict[str, Any]
    ) -> None:
        text = canonical(payload)
        message = KEY.seal(kind, agent_id, text, ts=ts, nonce=nonce)
        self.assertTrue(node_json().verifies(SECRET, message))
        self.assertEqual(node_json().rewrite(message), message)
        envelope = KEY.open(message)
        self.assertEqual(
            (
                envelope.type,
                envelope.agent_id,
                envelope.nonce,
                envelope.ts,
                bytes(envelope.payload),
            ),
            (kind, agent_id, nonce, ts, text),
        )
        self.assertEqual(decode(message).signature, envelope.signature)


class NodePeer(Base):
    """Messages that a real Node process signed, in every layout."""

    def test_thousands_of_payloads(self) -> None:
        for seed in range(500):
            draw = random.Random(seed)
            payload = json.dumps(random_object(draw)).encode()
            message = node_json().sign(SECRET, joined(spelled(payload=payload)))
            try:
                self.assertEqual(node_json().rewrite(payload), bytes(KEY.open(message).payload))
                # The same from a peer that signs so, and then sends it in another spelling.
                members = json.loads(message)
                members = {name: members[name] for name in draw.sample(list(members), 6)}
                self.opens(json.dumps(members, indent=draw.choice([None, 1])).encode(), payload)
            except BaseException:
                print(f"seed {seed}")
                raise

    def test_refused_by_both(self) -> None:
        message = seal().replace(b"25.5", b"25.6")
        self.assertFalse(node_json().verifies(SECRET, message))
        self.refused(message, "invalid_signature", "signature")


class GoPeer(Base):
    PAYLOAD = r'{"a":"systemctl \u0026\u0026 \u003cb\u003e \u2028","z":-0,"é":1e-9}'.encode()

    def test_over_the_bytes_received(self) -> None:
        self.opens(joined(signed(spelled(payload=self.PAYLOAD))), self.PAYLOAD)

    def test_spelled_anew_on_the_way(self) -> None:
        for payload in (
            self.PAYLOAD,
            rb'{"a":"\b\f"}',
            rb'{"a":"\b\u0026"}',
            rb'{"a":"\u0008\u000c\n"}',
            b'{"a":1e+21}',
        ):
            members = signed(spelled(payload=payload))
            respelled = {name: json.loads(text) for name, text in members.items()}
            respelled["payload"] = doubles(payload)
            for seed in range(20):
                draw = random.Random(seed)
                order = draw.sample(list(respelled), 6)
                text = json.dumps({name: respelled[name] for name in order}, ensure_ascii=False)
                self.opens(text.encode(), payload)

    def test_maps_are_sorted_and_the_envelope_is_not(self) -> None:
        payload = {"b": 1, "a": {"10": 1, "9": 2}}
        text = joined(spelled(payload=canonical_go(payload)))
        members = signed(spelled(payload=canonical(payload)), text)
        self.opens(spaced(joined(members), random.Random(1)), canonical(payload))


class Layouts(Base):
    def test_respaced_and_reordered(self) -> None:
        """Whatever spelling a peer signs in compact form, it may space and order as it likes."""
        spellings: list[Callable[[dict[str, Any]], bytes]] = [
            canonical,
            lambda value: json.dumps(value, separators=(",", ":")).encode(),
            lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(
                errors="replace"
            ),
        ]
        for seed in range(400):
            draw = random.Random(seed)
            payload = draw.choice(spellings)(random_object(draw, 3))
            agent = draw.choice([b'"agent-123"', rb'"agent\u002d123"'])
            members = signed(spelled(payload=payload, agentId=agent))
            try:
                self.opens(joined(members), payload)
                self.opens(joined(shuffled(members, draw)), payload)
                self.opens(spaced(joined(members), draw), payload)
                inside = members | {"payload": spaced(payload, draw).strip()}
                self.opens(joined(inside), payload)
                self.opens(spaced(joined(shuffled(members, draw)), draw), payload)
            except BaseException:
                print(f"seed {seed}")
                raise

    def test_long_messages_are_not_written_anew(self) -> None:
        """Respacing is accepted up to any length, another spelling of the values up to 64 KiB."""
        for length, accepted in ((60_000, True), (70_000, False)):
            payload = b'{"a":"%b"}' % (b"a" * length)
            members = signed(spelled(payload=payload))
            self.opens(spaced(joined(members), random.Random(1)), payload)
            data = b" " + joined(members).replace(b'{"a"', rb'{"\u0061"')
            if accepted:
                self.opens(data, payload)
            else:
                self.refused(data, "invalid_signature", "signature")

    def test_names_spelled_with_escapes(self) -> None:
        self.opens(joined(signed(spelled())).replace(b'"nonce"', rb'"\u006eonce"'))

    def test_signed_in_the_order_sent(self) -> None:
        members = shuffled(spelled(), random.Random(3))
        self.assertNotEqual(tuple(members), SIGNED)
        self.opens(joined(signed(members)))

    def test_other_values_in_any_layout_are_refused(self) -> None:
        for name, text in [
            ("type", b'"log"'),
            ("agentId", b'"agent-124"'),
            ("ts", b"%d" % (TS + 1)),
            ("nonce", b'"x"'),
            ("payload", METRICS.replace(b"25.5", b"25.6")),
            ("payload", b"{}"),
            ("signature", b'"%b"' % KEY.sign(b"").encode()),
        ]:
            members = signed(spelled()) | {name: text}
            draw = random.Random(5)
            self.refused(joined(members), "invalid_signature", "signature")
            self.refused(
                joined(members).replace(b":25.", b": 25."), "invalid_signature", "signature"
            )
            self.refused(spaced(joined(members), draw), "invalid_signature", "signature")
            self.refused(joined(shuffled(members, draw)), "invalid_signature", "signature")

    def test_no_second_guess_where_the_bytes_are_there(self) -> None:
        """What was signed is there to be hashed, so another spelling of it is another message."""
        payload = b'{"a":1e-7,"b":"\\u001f"}'
        for members in (signed(spelled(payload=payload)), signed(spelled(agentId=rb'"a\u001fb"'))):
            message = joined(members)
            KEY.open(message)
            for old, new in ((b"1e-7", b"1E-7"), (rb"\u001f", rb"\u001F")):
                if old in message:
                    self.refused(message.replace(old, new), "invalid_signature", "signature")

    def test_a_number_that_go_cannot_read(self) -> None:
        members = signed(spelled(payload=b'{"a":1e400}'))
        self.opens(b" " + joined(members), b'{"a":1e400}')
        wrong = joined(members | {"nonce": b'"x"'})
        self.refused(b" " + wrong, "invalid_signature", "signature")

    def test_another_key(self) -> None:
        message = SigningKey("another").seal("log", "a", b"{}", ts=1, nonce="n")
        self.refused(message, "invalid_signature", "signature")


class Forgers(Base):
    def test_every_bit_of_one_message(self) -> None:
        for message in (seal(), seal(agent_id='\x1f"é\\')):
            for place in range(len(message) * 8):
                flipped = bytearray(message)
                flipped[place // 8] ^= 1 << place % 8
                self.refused(bytes(flipped))

    @cases(60)
    @given(clean_texts.filter(bool), payloads, st.randoms(use_true_random=False))
    def test_bits_of_any_message(self, agent: str, payload: dict[str, Any], draw: Any) -> None:
        message = seal(canonical(payload), agent_id=agent)
        for _ in range(8):
            place = draw.randrange(len(message) * 8)
            flipped = bytearray(message)
            flipped[place // 8] ^= 1 << place % 8
            self.refused(bytes(flipped))

    def test_members_that_are_there_twice(self) -> None:
        members = signed(spelled())
        message = joined(members)
        for name, value in members.items():
            twin = b'"%b":%b' % (name.encode(), value)
            for data in (
                b"{" + twin + b"," + message[1:],
                message[:-1] + b"," + twin + b"}",
                message.replace(b',"signature"', b"," + twin + b',"signature"'),
                message.replace(b',"ts"', b"," + twin + b',"ts"'),
                b"{ " + twin + b" , " + message[1:],
                message[:-1] + b"," + twin.replace(b'"', rb'"\u00%02x' % name.encode()[0], 1)[:7]
                + twin[2:] + b"}",
            ):  # fmt: skip
                with self.assertRaises(ProtocolError) as caught:
                    decode(data)
                self.assertEqual(caught.exception.code, "duplicate_member", data)
                self.assertEqual(caught.exception.member, name)
                self.refused(data, "duplicate_member", name)

    def test_strings_that_look_like_members(self) -> None:
        """Quotes inside a string must not pass for the end of it."""
        for name in ("type", "agentId", "nonce"):
            value = json.dumps('x","ts":1,"payload":{},"y":"').encode()
            members = signed(spelled(**{name: value}))
            envelope = KEY.open(joined(members))
            self.assertIn('"payload"', f"{envelope.type} {envelope.agent_id} {envelope.nonce}")
            self.refused(joined(members | {name: b'"x","ts":1,"payload":{},"y":""'}))

    def test_what_a_signature_must_look_like(self) -> None:
        members = signed(spelled())
        digits = members["signature"][1:-1]
        for text in (b"", digits[:-1], digits + b"0", digits[:-1] + b"g", digits.upper()):
            for data in (
                joined(members | {"signature": b'"%b"' % text}),
                spaced(joined(members | {"signature": b'"%b"' % text}), random.Random(1)),
            ):
                for read in (KEY.open, decode):
                    with self.assertRaises(ProtocolError) as caught:
                        read(data)
                    self.assertEqual(caught.exception.code, "invalid_signature")
                    self.assertIn("not 64 lower-case hexadecimal digits", str(caught.exception))
        for text in ("é" * 32, "é" * 64, "\\u0061" + "a" * 63, "\0" * 64, "\udc61" * 64):
            self.refused(
                joined(members | {"signature": b'"%b"' % text.encode(errors="surrogatepass")})
            )
        for text in (b"null", b"12", b"[]", b"{}", b"true"):
            self.refused(joined(members | {"signature": text}), "wrong_type", "signature")


class Payloads(Base):
    def test_of_a_verified_message(self) -> None:
        self.assertEqual(
            decode_payload(KEY.open(seal()), MetricsPayload), MetricsPayload(25.5, 45.2, 60.1)
        )

    def test_lone_surrogates_are_replaced_only_after_the_signature(self) -> None:
        payload = rb'{"command":"say","args":{"a\ud800":"\udc00b \ud83d\ude00"}}'
        node = node_json().sign(SECRET, joined(spelled(payload=payload)))
        self.assertEqual(
            decode_payload(KEY.open(node), CommandPayload),
            CommandPayload("say", {"a\ufffd": "\ufffdb 😀"}),
        )


def attempt(data: bytes) -> None:
    """Read `data` in every way; anything raised but ProtocolError is a failure of the test."""
    words = []
    for read in (KEY.open, decode):
        try:
            envelope = read(data)
        except ProtocolError as error:
            words.append(str(error))
            continue
        for kind in (CommandPayload, MetricsPayload):
            try:
                decode_payload(envelope, kind)
            except ProtocolError as error:
                words.append(str(error))
    for line in words:
        assert line.isprintable(), line
        assert len(line) < 200


class AnyBytes(Base):
    """No input raises anything but ProtocolError."""

    @cases(150)
    @given(st.binary(max_size=300))
    def test_random(self, data: bytes) -> None:
        attempt(data)

    def test_every_prefix(self) -> None:
        for length in range(len(seal())):
            self.refused(seal()[:length])

    def test_mutated(self) -> None:
        pieces = [
            b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"\0", b"\xff", b"\xed\xa0\x80", b"-",
            b"0", b"1e400", b"9" * 400, b"9" * 5000, b"\\u", b"\\ud800", b"\xef\xbb\xbf", b"NaN",
            b"Infinity", b"null", b"true", b'"ts"', b'"payload"', b" ", b"\n", b"[" * 70,
            b'{"":' * 70, b"\x1f", b"/*",
        ]  # fmt: skip
        texts = [seal(), seal(b'{"command":"x","args":{"a":"b"}}'), joined(spelled())]
        for seed in range(3000):
            draw = random.Random(seed)
            data = bytearray(draw.choice(texts))
            for _ in range(draw.randint(1, 4)):
                start = draw.randrange(len(data) + 1)
                data[start : start + draw.choice([0, 0, 1, 3, 20])] = draw.choice(pieces)
            try:
                attempt(bytes(data))
            except BaseException:
                print(f"seed {seed}")
                raise

    def test_a_signed_payload_that_is_no_json_is_refused_as_node_refuses_it(self) -> None:
        pieces = [
            b'"a"', b"1", b"-", b"0", b".5", b"e5", b"E+", b"[", b"]", b"{", b"}", b":", b",",
            b"\x0c", b"\xa0", b"null", b"nul", b"tru", b'"\\x"', b'"\\u00e9"', b'"\\ud800"',
            b'"\x01"', b'"\x7f"', b"\xc3", "é".encode(), b"+1", b"//",
        ]  # fmt: skip
        verdicts = set()
        for seed in range(2000):
            draw = random.Random(seed)
            middle = b"".join(draw.choice(pieces) for _ in range(draw.randint(0, 4)))
            payload = b'{"x":%b}' % middle
            members = signed(spelled(payload=payload))
            try:
                json.loads(payload.decode(), parse_constant=int)
                node_json().rewrite(payload)
                right = True
            except (NodeRefused, ValueError):
                right = False
            for data in (joined(members), joined(shuffled(members, draw))):
                try:
                    KEY.open(data)
                    opened = True
                except ProtocolError as error:
                    opened = error.code == "duplicate_member"
                self.assertEqual(opened, right, f"seed {seed}: {data!r}")
            verdicts.add(right)
        self.assertEqual(verdicts, {True, False})

    def test_huge(self) -> None:
        room = MAX_MESSAGE - len(seal())
        for filling in (
            b"[",
            b"{",
            b'{"a":',
            b"[]",
            b"[],",
            b'"',
            b"\\",
            b"9",
            b" ",
            b"\xff",
            b",",
            b"-",
        ):
            text = filling * (room // len(filling))
            attempt(text)
            attempt(seal().replace(b"25.5", text))
            attempt(b" " + seal().replace(b"25.5", text))
            attempt(seal().replace(b"%d" % TS, text))
            attempt(seal().replace(b"metrics", text))
        self.refused(b"[" * MAX_MESSAGE, "too_deep")
        self.refused(b"[" * (MAX_MESSAGE + 1), "too_large")

    def test_brackets_inside_strings_are_no_nesting(self) -> None:
        payload = rb'{"a":"[[{{\"[[\\","b":[%b]}' % (b",".join([b'["[{"]'] * 200))
        self.opens(seal(payload), payload)
        self.opens(b" " + seal(payload), payload)
        deep = b'{"a":["\\"]",' + b"[" * 62 + b"]" * 62 + b"]}"
        self.refused(joined(signed(spelled(payload=deep))), "too_deep")


class MetricsTests(SynchronousTestCase):
    """The short way for the message that is most of them all."""

    def both(self, data: bytes) -> bool:
        """Whether the short way takes `data`; if so it finds what the long way does."""
        found = KEY.open_metrics(data)
        if found is None:
            return False
        envelope = KEY.open(data)
        for name in ("type", "agent_id", "ts", "nonce", "signature"):
            self.assertEqual(getattr(found, name), getattr(envelope, name))
        self.assertEqual(found.payload, decode_payload(envelope, MetricsPayload))
        return True

    def seal(
        self, payload: bytes = METRICS, agent: str = "agent-1", type: str = "metrics"
    ) -> bytes:
        return KEY.seal(type, agent, payload, ts=TS, nonce=NONCE)

    def test_taken(self) -> None:
        for payload in (
            METRICS,
            b'{"diskUsage":1e2,"cpuPercent":0,"memPercent":-0.5}',
            canonical({"cpuPercent": 1e-7, "memPercent": 99.99999999, "diskUsage": 100}),
        ):
            self.assertTrue(self.both(self.seal(payload)), payload)
        for agent in ("é", "a b", 'quo"te', "back\\slash", "\n"):
            self.assertTrue(self.both(self.seal(agent=agent)), agent)

    def test_left_to_the_long_way(self) -> None:
        """What is rare, or wrong: the long way finds out which."""
        good = self.seal()
        for name, data in {
            "another type": self.seal(type="metric"),
            "a reading less": self.seal(b'{"cpuPercent":1,"memPercent":2}'),
            "no reading": self.seal(b'{"cpuPercent":1,"memPercent":null,"diskUsage":3}'),
            "not a number": self.seal(b'{"cpuPercent":"1","memPercent":2,"diskUsage":3}'),
            "too large a number": self.seal(b'{"cpuPercent":1e999,"memPercent":2,"diskUsage":3}'),
            "one more": self.seal(b'{"cpuPercent":1,"memPercent":2,"diskUsage":3,"load":4}'),
            "twice": self.seal(b'{"cpuPercent":1,"memPercent":2,"memPercent":3,"diskUsage":4}'),
            "twice, one less": self.seal(b'{"cpuPercent":1,"memPercent":2,"memPercent":3}'),
            "a colon in the id": self.seal(agent="arn:aws"),
            "half a character": self.seal().replace(b"agent-1", b"\\ud800"),
            "changed": good.replace(b"25.5", b"25.6"),
            "not UTF-8": good.replace(b"agent-1", b"agent\xff1"),
            "another key": SigningKey("no").seal("metrics", "agent-1", METRICS, ts=TS, nonce=NONCE),
            "upper case": good[:-66] + good[-66:-2].upper() + good[-2:],
            "cut": good[:-1],
            "more behind": good + b" ",
            "nothing": b"",
        }.items():
            self.assertFalse(self.both(data), name)

    def test_members_twice(self) -> None:
        """Signed or not, a member that is there twice is never taken."""
        text = self.seal()[: -len(',"signature":""}') - 64]
        for member in (b'"type":"metrics"', b'"agentId":"x"', b'"ts":1', b'"nonce":"n"'):
            twice = text.replace(b',"payload"', b"," + member + b',"payload"') + b"}"
            data = twice[:-1] + b',"signature":"' + KEY.sign(twice).encode() + b'"}'
            self.assertFalse(self.both(data), member)

    @given(st.binary(max_size=3), st.integers(0, 300), st.integers(0, 3))
    def test_changed_anywhere(self, by: bytes, at: int, take: int) -> None:
        """No change of a signed text gets through, and none is an exception."""
        good = self.seal()
        changed = good[:at] + by + good[at + take :]
        if changed != good:
            self.assertFalse(self.both(changed))
