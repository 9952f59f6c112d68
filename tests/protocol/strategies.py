"""What this package's tests draw: by hypothesis, which finds the smallest failure, and by a seeded
generator, which is a hundred times faster and so makes up the numbers."""

from __future__ import annotations

import random
import struct
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st


def cases(number: int) -> settings:
    """The same `number` of cases in every run, so that a failure can be seen again."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


# Every character, lone surrogates among them, the troublesome ones often.
_TROUBLESOME = (
    "\0\b\t\n\v\f\r\x1b\x1f \"'/\\<>&\x7f\x80\xa0é\ud800\udbff\udc00\udfff\u2028\u2029\ufeff"
    "\ufffd\uffff\U0001f600\U0010ffff"
)
characters = st.one_of(st.sampled_from(_TROUBLESOME), st.characters(exclude_categories=()))
texts = st.text(characters, max_size=12)
#: Text that UTF-8 can carry.
clean_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
_KEYS = (
    "", "__proto__", "constructor", "toJSON", "length", "0", "00", "-0", "-1", "1", "1.5", "1e3",
    "2", "10", "9", "4294967294", "4294967295", "4294967296", "99999999999", "١", "０", " 1",
)  # fmt: skip
keys = st.one_of(texts, st.sampled_from(_KEYS), st.integers(0, 1 << 33).map(str))
numbers = st.one_of(
    st.integers(-1000, 1000),
    st.integers(-(1 << 70), 1 << 70),
    st.integers(0, 400).map(lambda power: 10**power),
    st.sampled_from([(1 << 53) - 1, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1, 10**21, 10**21 - 1]),
    st.floats(),
    st.integers(-330, 310).map(lambda power: float(f"1e{power}")),
    st.sampled_from([-0.0, 20.0, 1e-7, 1.5e-7, 1e-6, 123456e-10, 1e21, 1e20, 5e-324, 1.5e300]),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=5)
        ),
        max_leaves=12,
    )


values = nested(scalars)
#: Payloads of every kind, and the flat ones that messages really carry.
payloads = st.one_of(
    st.dictionaries(keys, values, max_size=4),
    st.dictionaries(texts, st.one_of(numbers, texts), max_size=4),
)


def random_value(draw: random.Random, depth: int = 4) -> Any:
    """A value of the kinds that `values` holds, finite numbers only."""
    kind = draw.randrange(10 if depth else 7)
    if kind < 2:
        return _random_text(draw)
    if kind == 2:
        return draw.choice([None, True, False, 0, -0.0, 1e21, 1e-7, 20.0])
    if kind == 3:
        return round(draw.uniform(-1, 1) * 10 ** draw.randint(-8, 23), draw.randint(0, 4))
    if kind == 4:
        return draw.getrandbits(draw.randint(1, 90)) * draw.choice([1, -1])
    if kind < 7:
        number: float = struct.unpack("<d", draw.randbytes(8))[0]
        return number if number - number == 0 else None
    if kind == 7:
        return [random_value(draw, depth - 1) for _ in range(draw.randrange(4))]
    return random_object(draw, depth)


def random_object(draw: random.Random, depth: int = 4) -> dict[str, Any]:
    return {
        draw.choice([draw.choice(_KEYS), str(draw.getrandbits(34)), _random_text(draw)]): (
            random_value(draw, depth - 1)
        )
        for _ in range(draw.randrange(6))
    }


def _random_text(draw: random.Random) -> str:
    return "".join(
        chr(draw.randrange(draw.choice([0x80, 0x10000, 0x110000])))
        if draw.getrandbits(1)
        else draw.choice(_TROUBLESOME)
        for _ in range(draw.randrange(8))
    )
