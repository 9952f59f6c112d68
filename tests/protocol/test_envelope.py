"""Structure: which member is at fault, and what is said about it."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.protocol import (
    AuthPayload,
    CommandPayload,
    CommandResultPayload,
    Envelope,
    HeartbeatPayload,
    LogPayload,
    MetricsPayload,
    ProtocolError,
    decode,
    decode_payload,
)

SIGNATURE = "0123456789abcdef" * 4
MESSAGE = (
    '{"type":"log","agentId":"agent-123","ts":1731819422000,"nonce":"n-1",'
    '"payload":{"level":"info","message":"hi"},"signature":"' + SIGNATURE + '"}'
)


class Envelopes(SynchronousTestCase):
    def refusal(self, text: str | bytes) -> tuple[str, str | None, str]:
        data = text if isinstance(text, bytes) else text.encode()
        with self.assertRaises(ProtocolError) as caught:
            decode(data)
        error = caught.exception
        return error.code, error.member, str(error)

    def test_decoded(self) -> None:
        for text in (MESSAGE, " " + MESSAGE, MESSAGE.replace(",", ",\n"), MESSAGE + "\r\n\t "):
            envelope = decode(text.encode())
            self.assertEqual(envelope.type, "log")
            self.assertEqual(envelope.agent_id, "agent-123")
            self.assertEqual(envelope.ts, 1731819422000)
            self.assertEqual(envelope.nonce, "n-1")
            self.assertEqual(envelope.signature, SIGNATURE)
            self.assertEqual(decode_payload(envelope, LogPayload), LogPayload("info", "hi"))

    def test_frozen(self) -> None:
        with self.assertRaises(AttributeError):
            decode(MESSAGE.encode()).ts = 1  # type: ignore[misc]

    def test_limits_of_the_strings_are_within(self) -> None:
        for old, new in (
            ('"log"', f'"{"é" * 64}"'),
            ('"log"', '""'),
            ('"agent-123"', f'"{"é" * 256}"'),
            ('"n-1"', f'"{"é" * 128}"'),
            ("1731819422000", str(2**53 - 1)),
            ('{"level":"info","message":"hi"}', "{}"),
        ):
            decode(MESSAGE.replace(old, new).encode())

    def test_wrong_members(self) -> None:
        payload = '{"level":"info","message":"hi"}'
        for old, new, code, member, words in [
            ('"log"', "1", "wrong_type", "type", "expected a string, got an integer"),
            ('"log"', "null", "wrong_type", "type", "expected a string, got null"),
            ('"log"', "[]", "wrong_type", "type", "expected a string, got an array"),
            ('"log"', "{}", "wrong_type", "type", "expected a string, got an object"),
            ('"log"', "true", "wrong_type", "type", "expected a string, got true or false"),
            ('"log"', f'"{"é" * 65}"', "invalid_value", "type", "not 0 to 64 characters long"),
            ('"agent-123"', '""', "invalid_value", "agentId", "not 1 to 256 characters long"),
            ('"agent-123"', f'"{"a" * 257}"', "invalid_value", "agentId", "not 1 to 256"),
            ('"agent-123"', r'"\ud800"', "invalid_value", "agentId", "half a surrogate pair"),
            ('"agent-123"', "7", "wrong_type", "agentId", "expected a string"),
            ('"n-1"', '""', "invalid_value", "nonce", "not 1 to 128 characters long"),
            ('"n-1"', f'"{"n" * 129}"', "invalid_value", "nonce", "not 1 to 128"),
            ('"n-1"', "null", "wrong_type", "nonce", "expected a string, got null"),
            ("1731819422000", '"1731819422000"', "wrong_type", "ts", "an integer, got a string"),
            ("1731819422000", "true", "wrong_type", "ts", "an integer, got true or false"),
            (
                "1731819422000",
                "1731819422000.0",
                "wrong_type",
                "ts",
                "got a number with a fraction",
            ),
            ("1731819422000", "1.7e12", "wrong_type", "ts", "got a number with a fraction"),
            ("1731819422000", "1e400", "wrong_type", "ts", "got a number with a fraction"),
            ("1731819422000", str(2**53), "invalid_timestamp", "ts", "out of range"),
            ("1731819422000", "-" + "9" * 17, "invalid_timestamp", "ts", "out of range"),
            ("1731819422000", "-0", "invalid_timestamp", "ts", "out of range"),
            ("1731819422000", "9" * 10_000, "invalid_timestamp", "ts", "out of range"),
            (payload, "[1]", "wrong_type", "payload", "expected an object, got an array"),
            (payload, '"x"', "wrong_type", "payload", "expected an object, got a string"),
            (payload, "null", "wrong_type", "payload", "expected an object, got null"),
            (SIGNATURE, SIGNATURE[1:], "invalid_signature", "signature", "not 64 lower-case"),
            (SIGNATURE, SIGNATURE.upper(), "invalid_signature", "signature", "not 64 lower-case"),
            (SIGNATURE, "g" * 64, "invalid_signature", "signature", "not 64 lower-case"),
            (SIGNATURE, "é" * 64, "invalid_signature", "signature", "not 64 lower-case"),
            (f'"{SIGNATURE}"', "1", "wrong_type", "signature", "expected a string, got an integer"),
        ]:
            found = self.refusal(MESSAGE.replace(old, new))
            self.assertEqual(found[:2], (code, member), new[:80])
            self.assertTrue(found[2].startswith(f"{member}: "), found)
            self.assertIn(words, found[2])

    def test_missing_unknown_and_twice(self) -> None:
        for name in ("type", "agentId", "ts", "nonce", "payload", "signature"):
            text = msgspec.json.decode(MESSAGE)
            del text[name]
            found = self.refusal(msgspec.json.encode(text))
            self.assertEqual(found, ("missing_member", name, f"{name}: missing"))
            found = self.refusal(MESSAGE.replace("{", f'{{"{name}":{{"a":1}},', 1))
            self.assertEqual(found[:2], ("duplicate_member", name))
        found = self.refusal(MESSAGE.replace('"type"', '"Type"'))
        self.assertEqual(found[:2], ("unknown_member", "Type"))
        found = self.refusal(MESSAGE.replace("{", '{"__proto__":1,', 1))
        self.assertEqual(found[:2], ("unknown_member", "__proto__"))
        self.assertEqual(self.refusal("{}")[:2], ("missing_member", "type"))

    def test_a_peers_name_is_short_and_plain_in_words(self) -> None:
        name = r"\u001b[31m\nSEVERE\ud800 " + "é" * 500
        for text in ("{", '{"type":"log",'):
            code, member, words = self.refusal(
                MESSAGE.replace(text, f'{text}"{name}":1,', 1)[:3000]
            )
            self.assertEqual(code, "unknown_member")
            assert member is not None
            self.assertLessEqual(len(member), 40)
            self.assertTrue(words.isascii() and words.isprintable(), words)

    def test_values_of_a_peer_are_not_in_words(self) -> None:
        for text in (MESSAGE, " " + MESSAGE):
            _, _, words = self.refusal(text.replace('"log"', '["hunter2"]'))
            self.assertNotIn("hunter2", words)
        envelope = decode(MESSAGE.replace('"info"', '["hunter2"]').encode())
        with self.assertRaises(ProtocolError) as caught:
            decode_payload(envelope, LogPayload)
        self.assertNotIn("hunter2", str(caught.exception))

    def test_not_a_message(self) -> None:
        for data, code in [
            (b"", "invalid_json"),
            (b" ", "invalid_json"),
            (b"{", "invalid_json"),
            (b"null", "wrong_type"),
            (b"[]", "wrong_type"),
            (b'"{}"', "wrong_type"),
            (b"1", "wrong_type"),
            (b"9" * 10_000, "wrong_type"),
            (b"1e400", "wrong_type"),
            (b"NaN", "invalid_json"),
            (b"-Infinity", "invalid_json"),
            (b"{} {}", "invalid_json"),
            (b"\xef\xbb\xbf" + MESSAGE.encode(), "invalid_json"),
            (MESSAGE.encode("utf-16"), "invalid_json"),
            (MESSAGE.encode() + b"\0", "invalid_json"),
            (MESSAGE.encode() + b"}", "invalid_json"),
            (MESSAGE.replace("hi", "h\x01i").encode(), "invalid_json"),
            (MESSAGE.replace("hi", "h\\xi").encode(), "invalid_json"),
            (MESSAGE.replace("hi", "h\\u00g0i").encode(), "invalid_json"),
            (MESSAGE.replace('"hi"', "01").encode(), "invalid_json"),
            (MESSAGE.replace('"hi"', "1.").encode(), "invalid_json"),
            (MESSAGE.replace('"hi"', "NaN").encode(), "invalid_json"),
            (MESSAGE.replace('"hi"', "[1,]").encode(), "invalid_json"),
            (MESSAGE.replace("hi", "\xe9").encode("latin-1"), "invalid_json"),
            (MESSAGE.encode().replace(b"hi", b"\xed\xa0\x80"), "invalid_json"),
            (MESSAGE.encode().replace(b"hi", b"\xc0\x80"), "invalid_json"),
            (MESSAGE.encode().replace(b"log", b"\xff"), "invalid_json"),
            (b"[" * 65 + b"]" * 65, "too_deep"),
            (b" " * ((1 << 20) + 1), "too_large"),
        ]:
            found = self.refusal(data)
            self.assertEqual(found[:2], (code, None), data[:80])
            self.assertNotIn("\n", found[2])


class Payloads(SynchronousTestCase):
    def envelope(self, payload: str) -> Envelope:
        return Envelope("x", "a", 0, "n", msgspec.Raw(payload.encode()), SIGNATURE)

    def read(self, payload: str, kind: type[msgspec.Struct]) -> msgspec.Struct:
        return decode_payload(self.envelope(payload), kind)

    def test_each_kind(self) -> None:
        for payload, value in [
            ('{"hostname":"a","version":"4.0.3"}', AuthPayload("a", "4.0.3")),
            (
                '{"hostname":"a","version":"5","capabilities":["logs","é:"],"zone":1}',
                AuthPayload("a", "5", ("logs", "é:")),
            ),
            ('{"cpuPercent":25.5,"memPercent":20,"swap":1}', MetricsPayload(25.5, 20.0)),
            ('{"diskUsage":null}', MetricsPayload()),
            ('{"cpuPercent":36893488147419103232}', MetricsPayload(2.0**65)),
            ('{"status":"alive"}', HeartbeatPayload("alive")),
            ("{}", HeartbeatPayload()),
            (
                '{"level":"info","message":"a: \\"b\\":","source":"s"}',
                LogPayload("info", 'a: "b":', "s"),
            ),
            ('{"command":"ping"}', CommandPayload("ping")),
            (
                ' { "command" : "ping" , "args" : { "a" : "b:" } } ',
                CommandPayload("ping", {"a": "b:"}),
            ),
            ('{"command":"ping","result":"pong"}', CommandResultPayload("ping", "pong")),
            (
                '{"command":"c","result":"r","error":"e","inReplyTo":"n","details":{"a":[1,{}]}}',
                CommandResultPayload("c", "r", "e", "n", {"a": [1, {}]}),
            ),
        ]:
            found = self.read(payload, type(value))
            self.assertEqual(found, value)
        metrics = self.read('{"memPercent":20}', MetricsPayload)
        assert isinstance(metrics, MetricsPayload)
        self.assertIsInstance(metrics.mem_percent, float)

    def test_args_are_not_shared(self) -> None:
        first, second = CommandPayload("a"), CommandPayload("b")
        self.assertIsNot(first.args, second.args)

    def test_refusals(self) -> None:
        auth, metrics, log = AuthPayload, MetricsPayload, LogPayload
        beat, command, result = HeartbeatPayload, CommandPayload, CommandResultPayload
        twice = "duplicate_member"
        for payload, kind, code, member, words in [
            ('{"level":1,"message":""}', log, "wrong_type", "payload.level", "got an integer"),
            ('{"level":"i"}', log, "missing_member", "payload.message", "missing"),
            ('{"level":"i","message":null}', log, "wrong_type", "payload.message", "got null"),
            ('{"cpuPercent":"9"}', metrics, "wrong_type", "payload.cpuPercent", "got a string"),
            ('{"cpuPercent":true}', metrics, "wrong_type", "payload.cpuPercent", "a number"),
            ('{"cpuPercent":1e400}', metrics, "invalid_value", "payload", "no double"),
            ('{"cpuPercent":%s}' % ("9" * 9999), metrics, "invalid_value", "payload", "no double"),
            ('{"command":"c","args":[]}', command, "wrong_type", "payload.args", "an object, got"),
            ('{"command":"c","args":{"a":1}}', command, "wrong_type", "payload.args", "a string"),
            ('{"command":"c","args":{"a":"b","a":"b"}}', command, twice, "a", "more than once"),
            ('{"command":"c","command":"d"}', command, twice, "command", "more than once"),
            ('{"command":"c","\\u0063ommand":"d"}', command, twice, "command", "more than once"),
            ('{"a":{"b":[{"c":1,"c":2}]}}', beat, twice, "c", "more than once"),
            ('{"a":"\\ud800","a":1}', beat, twice, "a", "more than once"),
            ('{"command":"c","result":{}}', result, "wrong_type", "payload.result", "an object"),
            ('{"hostname":"h","version":"5","capabilities":["a",1]}', auth, "wrong_type",
             "payload.capabilities[1]", "expected a string, got an integer"),
            ("[]", log, "wrong_type", "payload", "expected an object, got an array"),
            ('"x"', log, "wrong_type", "payload", "expected an object, got a string"),
            ("{", log, "invalid_json", None, "not JSON"),
            ("[" * 5000, log, "too_deep", None, "nested"),
        ]:  # fmt: skip
            with self.assertRaises(ProtocolError) as caught:
                self.read(payload, kind)
            error = caught.exception
            self.assertEqual((error.code, error.member), (code, member), payload[:80])
            self.assertIn(words, str(error))

    def test_bytes_that_are_not_utf8(self) -> None:
        envelope = Envelope("x", "a", 0, "n", msgspec.Raw(b'{"level":"\xff"}'), SIGNATURE)
        with self.assertRaises(ProtocolError) as caught:
            decode_payload(envelope, LogPayload)
        self.assertEqual(caught.exception.code, "invalid_json")

    def test_lone_surrogates(self) -> None:
        found = self.read(
            '{"command":"c","result":"\\ud800\\ud83d\\ude00","details":{"\\udc00":["\\udfff",1.5,null]}}',
            CommandResultPayload,
        )
        self.assertEqual(
            found,
            CommandResultPayload("c", "\ufffd😀", details={"\ufffd": ["\ufffd", 1.5, None]}),
        )


class Errors(SynchronousTestCase):
    def test_for_programs_and_for_people(self) -> None:
        error = ProtocolError("wrong_agent", "not the agent of this link", "agentId")
        self.assertIsInstance(error, ValueError)
        self.assertEqual((error.code, error.member), ("wrong_agent", "agentId"))
        self.assertEqual(str(error), "agentId: not the agent of this link")
        self.assertEqual(str(ProtocolError("too_large", "more than 5 bytes")), "more than 5 bytes")
