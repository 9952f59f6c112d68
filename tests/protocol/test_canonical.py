"""The two dialects: against a real Node process, and against what Go is known to write."""

from __future__ import annotations

import enum
import json
import random
import struct
from math import inf, isfinite, nan
from typing import Any

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.protocol import ProtocolError, canonical, canonical_go
from tests.protocol.strategies import cases, numbers, random_value, texts, values
from tests.support.node_json import node_json


def finite(value: Any) -> Any:
    """`value` with null for what JSON cannot write, so that json.dumps can take it to Node."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value


class NodeProperties(SynchronousTestCase):
    """Node is asked twice: what it writes for our text, and for json.dumps' of the same value."""

    def check(self, value: Any) -> None:
        node = node_json()
        text = canonical(value)
        self.assertEqual(node.rewrite(text), text)
        self.assertEqual(node.rewrite(json.dumps(finite(value)).encode()), text)

    @cases(120)
    @given(values)
    def test_every_value(self, value: Any) -> None:
        self.check(value)

    def test_thousands_of_values(self) -> None:
        for first in range(0, 4000, 20):
            values = [random_value(random.Random(seed)) for seed in range(first, first + 20)]
            try:
                self.check(values)
            except BaseException:
                for seed, value in enumerate(values, first):
                    print(f"seed {seed}")
                    self.check(value)
                raise

    @cases(150)
    @given(numbers)
    def test_every_number(self, value: float) -> None:
        self.check(value)

    @cases(150)
    @given(texts)
    def test_every_text(self, value: str) -> None:
        self.check(value)

    def test_numbers_of_every_magnitude(self) -> None:
        seed = 20240607
        draw = random.Random(seed)
        doubles = [struct.unpack("<d", draw.randbytes(8))[0] for _ in range(20_000)]
        decimals = [round(draw.uniform(-1, 1) * 10 ** draw.randint(-8, 23), 2) for _ in range(5000)]
        integers = [draw.getrandbits(draw.randint(1, 80)) for _ in range(5000)]
        edges = [
            sign * (base * 10.0**power + step)
            for sign in (1, -1)
            for power in range(-24, 25)
            for base in (1, 1.5, 9.999999999999999)
            for step in (0, 1)
        ]
        self.check([number for number in doubles + decimals if isfinite(number)])
        self.check(integers + edges)

    def test_every_code_unit(self) -> None:
        self.check({chr(code): chr(code) for code in range(0x10000)})

    def test_thousands_of_keys_that_are_numbers(self) -> None:
        draw = random.Random(7)
        self.check({str(draw.getrandbits(draw.randint(1, 34))): None for _ in range(50_000)})

    def test_nesting(self) -> None:
        value: Any = 1.0
        for level in range(64):
            value = [value] if level % 2 else {"0": value}
        self.check(value)


class NodeDialect(SynchronousTestCase):
    def test_table(self) -> None:
        for value, text in [
            (None, "null"),
            (True, "true"),
            (20.0, "20"),
            (25.5, "25.5"),
            (-0.0, "0"),
            (1e-7, "1e-7"),
            (1.5e-9, "1.5e-9"),
            (1e-6, "0.000001"),
            (-1.25e-5, "-0.0000125"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (5e-324, "5e-324"),
            (1 << 53, "9007199254740992"),
            ((1 << 53) + 1, "9007199254740992"),
            (1 << 60, "1152921504606847000"),
            (10**400, "null"),
            (-(10**400), "null"),
            (inf, "null"),
            (nan, "null"),
            ("<>&'/", '"<>&\'/"'),
            ("é\u2028\u2029\x7f😀", '"é\u2028\u2029\x7f😀"'),
            ('\0\b\t\n\v\f\r\x1f"\\', r'"\u0000\b\t\n\u000b\f\r\u001f\"\\"'),
            ("\ud800", r'"\ud800"'),
            ("a\udfff", r'"a\udfff"'),
            ("\ud83d\ude00", '"😀"'),
            ("\ude00\ud83d\ude00\ud83d", r'"\ude00😀\ud83d"'),
            ((1, [2, ()]), "[1,[2,[]]]"),
            ({"b": 1, "10": 2, "9": 3, "a": 4}, '{"9":3,"10":2,"b":1,"a":4}'),
            ({"4294967295": 1, "4294967294": 2}, '{"4294967294":2,"4294967295":1}'),
            ({"b": 1, "01": 2, "-1": 3, "": 4}, '{"b":1,"01":2,"-1":3,"":4}'),
            ({"9" * 5000: 1, "1": 2}, '{"1":2,"' + "9" * 5000 + '":1}'),
            ({"__proto__": {"a": 1}}, '{"__proto__":{"a":1}}'),
            ({"\ud83d\ude00": 1, "a": 2, "😀": 3}, '{"😀":3,"a":2}'),
        ]:
            self.assertEqual(canonical(value), text.encode(), repr(value))

    def test_derived_types_are_written_as_what_they_derive_from(self) -> None:
        class Level(enum.StrEnum):
            WARN = "warn"

        class Code(enum.IntEnum):
            ONE = 1

        class Percent(float):
            def __repr__(self) -> str:
                return "many"

        class Names(dict[str, int]):
            pass

        self.assertEqual(canonical({"a": Level.WARN, Level.WARN: 1}), b'{"a":"warn","warn":1}')
        self.assertEqual(canonical([Code.ONE, Percent(2.0), Names(x=1)]), b'[1,2,{"x":1}]')

    def test_what_is_not_json(self) -> None:
        for write in (canonical, canonical_go):
            for value in (b"a", {1: 2}, {None: 1}, [object()], {"a": {1, 2}}, 1j, {("a",): 1}):
                with self.assertRaises(ProtocolError) as caught:
                    write(value)  # type: ignore[arg-type]
                self.assertEqual(caught.exception.code, "not_json", repr(value))

    def test_nested_too_deep(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        deep: Any = {}
        for _ in range(63):
            deep = {"a": deep}
        for write in (canonical, canonical_go):
            write(deep)
            for value in (circle, [deep], {"a": deep}, (deep,)):
                with self.assertRaises(ProtocolError) as caught:
                    write(value)
                self.assertEqual(caught.exception.code, "too_deep")


class GoDialect(SynchronousTestCase):
    def test_table(self) -> None:
        for value, text in [
            (None, "null"),
            (False, "false"),
            (20.0, "20"),
            (-0.0, "-0"),
            (0, "0"),
            (1e-7, "1e-7"),
            (1e-6, "0.000001"),
            (1.5e-10, "1.5e-10"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1 << 60, "1152921504606847000"),
            ("<a & b>", r'"\u003ca \u0026 b\u003e"'),
            ("é\u2028\u2029\x7f😀'/", '"é\\u2028\\u2029\x7f😀\'/"'),
            ('\0\b\t\n\v\f\r\x1f"\\', r'"\u0000\b\t\n\u000b\f\r\u001f\"\\"'),
            ("\ud800a\udc00\ud83d\ude00", '"\ufffda\ufffd😀"'),
            ({"b": 1, "10": 2, "9": 3, "&": 4}, r'{"\u0026":4,"10":2,"9":3,"b":1}'),
            ({"\U0001f600": 1, "\uffff": 2, "é": 3}, '{"é":3,"\uffff":2,"\U0001f600":1}'),
            ({"\ud800": 1, "\ufffe": 2, "z": 3}, '{"z":3,"\ufffd":1,"\ufffe":2}'),
            ({"a": [{"d": (), "c": {}}]}, '{"a":[{"c":{},"d":[]}]}'),
        ]:
            self.assertEqual(canonical_go(value), text.encode(), repr(value))

    def test_before_1_22(self) -> None:
        text = canonical_go({"\b": "\f\n\r\t\\b"}, before_1_22=True)
        self.assertEqual(text, rb'{"\u0008":"\u000c\n\r\t\\b"}')

    def test_a_number_that_is_not_finite(self) -> None:
        for value in (inf, -inf, nan, 10**400):
            with self.assertRaises(ProtocolError) as caught:
                canonical_go([value])
            self.assertEqual(caught.exception.code, "not_json")

    @cases(60)
    @given(values)
    def test_says_the_same_as_the_other_dialect(self, value: Any) -> None:
        """Where there is no lone surrogate, Node reads the same value out of both."""
        try:
            text = canonical_go(value)
        except ProtocolError:
            return
        if b"\xef\xbf\xbd" in text:
            return

        def in_order(value: Any) -> Any:
            return json.loads(json.dumps(value, sort_keys=True))

        self.assertEqual(in_order(json.loads(text)), in_order(json.loads(canonical(value))))
