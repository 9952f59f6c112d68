from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.accesslog import LineParser
from jetcamer.agent.logs.objects import (
    count,
    flat_name,
    key_of,
    object_key,
    posted_key,
    render,
    rendered_size,
)
from tests.protocol.strategies import cases

#: 2026-11-23 04:05:06 UTC.
MOMENT = 1795406706.75

COMBINED = (
    b'203.0.113.9 - - [23/Nov/2026:04:05:06 +0000] "GET /a?b=\xc3\xa4 HTTP/1.1" 200 12'
    b' "https://example.org/" "Mozilla/5.0"'
)


def nothing(line: str) -> None:
    return None


class KeyTests(SynchronousTestCase):
    def test_key(self) -> None:
        self.assertEqual(
            object_key("0123abcd", MOMENT, "aabbccddeeff", 0, 4711),
            "0123abcd/2026-11-23/040506-aabbccddeeff-0-4711.ndjson",
        )

    def test_key_of_posted_events(self) -> None:
        key = posted_key("m", MOMENT, "0a1b")
        self.assertEqual(key, "m/2026-11-23/040506-batch-0a1b.ndjson")

    @cases(100)
    @given(st.text())
    def test_flat_name_goes_both_ways(self, key: str) -> None:
        name = flat_name(key)
        self.assertNotIn("/", name)
        self.assertEqual(key_of(name), key)


class RenderTests(SynchronousTestCase):
    def test_events_have_the_parsers_members_and_others_are_raw(self) -> None:
        parse = LineParser().parser_for("/var/log/nginx/access.log")
        body, unmatched = render([COMBINED, b"oops \x00\xff", b""], parse, "access.log")
        self.assertEqual(
            [json.loads(line) for line in body.splitlines()],
            [
                {
                    "ip": "203.0.113.9",
                    "path": "/a?b=ä",
                    "method": "GET",
                    "status": 200,
                    "bytes": 12,
                    "ua": "Mozilla/5.0",
                    "referer": "https://example.org/",
                    "ts": "2026-11-23T04:05:06Z",
                    "source": "access.log",
                },
                {"raw": "oops \x00\ufffd", "source": "access.log"},
                {"raw": "", "source": "access.log"},
            ],
        )
        self.assertEqual(unmatched, 2)

    @cases(100)
    @given(st.lists(st.binary().filter(lambda line: b"\n" not in line)))
    def test_one_line_of_json_for_each_line(self, lines: list[bytes]) -> None:
        body, unmatched = render(lines, nothing, "x.log")
        self.assertEqual(unmatched, len(lines))
        self.assertEqual(count(body), len(lines))
        self.assertEqual(
            [json.loads(line)["raw"] for line in body.split(b"\n")[:-1]],
            [line.decode("utf-8", "replace") for line in lines],
        )

    @cases(50)
    @given(st.binary(max_size=40), st.integers(1, 3000), st.booleans())
    def test_what_it_makes_is_bounded(self, line: bytes, many: int, known: bool) -> None:
        lines = [line.replace(b"\n", b"")] * many if not known else [COMBINED] * many
        parse = LineParser().parser_for("/var/log/access.log")
        body, unmatched = render(iter(lines), parse, "access.log")
        self.assertEqual(count(body), many)
        self.assertEqual(unmatched, 0 if known else many)
        self.assertLessEqual(len(body), rendered_size(sum(map(len, lines)), many))

    def test_count(self) -> None:
        for body, events in ((b"", 0), (b"{}", 1), (b"{}\n", 1), (b"{}\n{}", 2)):
            self.assertEqual(count(body), events)
