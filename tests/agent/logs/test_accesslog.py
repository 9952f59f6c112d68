r"""Lines of access logs: every server's shape, every kind of garbage, and any text at all."""

from __future__ import annotations

import importlib
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from jetcamer.agent.logs.accesslog import ACCESS_LINE, MAX_CUSTOM_LINE, Event, LineParser
from jetcamer.agent.logs.pattern_check import check_pattern

PATH = "/var/log/nginx/shop-access.log"
WHEN = "10/Oct/2000:13:55:36 -0700"
LINE = (
    '203.0.113.7 - - [10/Oct/2000:13:55:36 -0700] "GET /a.php?x=1 HTTP/1.1" 200 2326 '
    '"http://example.com/" "Mozilla/5.0 (X11; Linux x86_64)"'
)
EVENT: Event = {
    "ip": "203.0.113.7",
    "path": "/a.php?x=1",
    "method": "GET",
    "status": 200,
    "bytes": 2326,
    "ua": "Mozilla/5.0 (X11; Linux x86_64)",
    "referer": "http://example.com/",
    "ts": "2000-10-10T13:55:36-07:00",
    "source": "shop-access.log",
}


def parse(line: str) -> Event | None:
    return LineParser().parser_for(PATH)(line)


def changed(**members: str | int) -> Event:
    return {**EVENT, **members}


class Shapes(SynchronousTestCase):
    def test_combined(self) -> None:
        self.assertEqual(parse(LINE), EVENT)

    def test_common(self) -> None:
        common = LINE.partition(' "http')[0]
        self.assertEqual(parse(common), changed(ua="", referer=""))

    def test_more_fields_after_the_user_agent(self) -> None:
        for more in (' "-"', ' "203.0.113.7, 10.0.0.1"', " 0.003 0.001 .", ' "a" b "', " ", " \\"):
            self.assertEqual(parse(LINE + more), EVENT, more)

    def test_what_is_another_format(self) -> None:
        common = LINE.partition(' "http')[0]
        for line in (
            "",
            "-",
            "2000/10/10 13:55:36 [error] 7#7: *1 open() failed",
            common + ' "-"',
            common + " 17",
            LINE + "x",
            LINE[:-1],
            " " + LINE,
            LINE.replace(" 200 ", " 20 "),
            LINE.replace(" 200 ", " 2000 "),
            LINE.replace(" 200 ", " - "),
            LINE.replace(" 2326 ", " 23k "),
            LINE.replace(" 2326 ", " -1 "),
            LINE.replace(" 2326 ", f" {10**18} "),  # more than any JSON reader takes
            LINE.replace(" 2326 ", " ٣ "),
            LINE.replace(" 2326 ", "  "),
            LINE.replace('"GET', "GET"),
            LINE.replace("[", "").replace("]", ""),
            LINE.replace(" - - ", " "),
        ):
            self.assertIsNone(parse(line), line)

    def test_who_asked(self) -> None:
        for who, ip in [
            ("2001:db8::7", "2001:db8::7"),
            ("::1", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[2001:db8::7]:4711", "[2001:db8::7]:4711"),
            ("client.example.org", "client.example.org"),
            ("unix:", "unix:"),
            ("-", "-"),
            ("198.51.100.1, 10.0.0.1", "198.51.100.1"),
            ("198.51.100.1,2001:db8::1, 10.0.0.1", "198.51.100.1"),
            ("198.51.100.1:4711", "198.51.100.1:4711"),
            ("www.example.org:443 198.51.100.1", "198.51.100.1"),
            ("www.example.org:443 2001:db8::7", "2001:db8::7"),
            ("127.0.1.1:80 ::1", "::1"),
            ("localhost:80 client.example.org", "client.example.org"),
        ]:
            self.assertEqual(parse(LINE.replace("203.0.113.7", who)), changed(ip=ip), who)

    def test_users(self) -> None:
        for user in (
            "frank",
            "Frank N. Furter",
            "",
            '""',
            "a [b] c",
            "[",
            r"x\"y",
            f'x [{WHEN}] \\"GET /fake HTTP/1.1\\" 500 1',
            "Ünal",
        ):
            line = LINE.replace(" - - ", f" - {user} ")
            self.assertEqual(parse(line), EVENT, user)

    def test_quoted_fields_stay_as_logged(self) -> None:
        for text in (r"a\"b", r"\"", r"\\", r"a\\\"", r"\x22x\x5C", r"C:\\dir\\", "é \t", "-", ""):
            line = LINE.replace("http://example.com/", text)
            self.assertEqual(parse(line), changed(referer=text), text)
            line = LINE.replace("Mozilla/5.0 (X11; Linux x86_64)", text)
            self.assertEqual(parse(line), changed(ua=text), text)
            self.assertEqual(
                parse(LINE.replace("/a.php?x=1", "/" + text)), changed(path="/" + text), text
            )

    def test_requests(self) -> None:
        for request, method, path in [
            ("GET / HTTP/1.0", "GET", "/"),
            ("GET / HTTP/2.0", "GET", "/"),
            ("POST /x HTTP/3", "POST", "/x"),
            ("PROPFIND /dav HTTP/1.1", "PROPFIND", "/dav"),
            ("M-SEARCH * HTTP/1.1", "M-SEARCH", "*"),
            ("OPTIONS * HTTP/1.1", "OPTIONS", "*"),
            ("CONNECT example.com:443 HTTP/1.1", "CONNECT", "example.com:443"),
            ("GET http://example.com/ HTTP/1.1", "GET", "http://example.com/"),
            ("GET /with some spaces  HTTP/1.1", "GET", "/with some spaces "),
            ("GET /HTTP/1.1 HTTP/1.1", "GET", "/HTTP/1.1"),
            ("GET /", "GET", "/"),
            ("GET /two words", "GET", "/two words"),
            ("GET  HTTP/1.1", "", "GET  HTTP/1.1"),
            ("GET HTTP/1.1", "", "GET HTTP/1.1"),
            ("GET", "", "GET"),
            ("GET ", "", "GET "),
            ("-", "", "-"),
            ("", "", ""),
            (" ", "", " "),
            (r"\x16\x03\x01", "", r"\x16\x03\x01"),
            (r"\x16\x03\x01 a HTTP/1.1", "", r"\x16\x03\x01 a HTTP/1.1"),
            (
                r"\x03\x00\x00/*\xE0 Cookie: mstshash=x",
                "",
                r"\x03\x00\x00/*\xE0 Cookie: mstshash=x",
            ),
            ("SSH-2.0-Go", "", "SSH-2.0-Go"),
            ("t3 12.1.2", "", "t3 12.1.2"),
        ]:
            line = LINE.replace("GET /a.php?x=1 HTTP/1.1", request)
            self.assertEqual(parse(line), changed(method=method, path=path), request)

    def test_garbage_on_port_80(self) -> None:
        self.assertEqual(
            parse(rf'1.2.3.4 - - [{WHEN}] "\x16\x03\x01" 400 157 "-" "-"'),
            changed(
                ip="1.2.3.4", method="", path=r"\x16\x03\x01", status=400, bytes=157, ua="-",
                referer="-",
            ),
        )  # fmt: skip

    def test_bytes(self) -> None:
        self.assertEqual(parse(LINE.replace(" 2326 ", " - ")), changed(bytes=0))
        self.assertEqual(parse(LINE.replace(" 2326 ", " 0 ")), changed(bytes=0))
        large = 10**18 - 1
        self.assertEqual(parse(LINE.replace(" 2326 ", f" {large} ")), changed(bytes=large))
        self.assertEqual(parse(LINE.replace(" 200 ", " 000 ")), changed(status=0))

    def test_dates(self) -> None:
        for when, ts in [
            ("01/Jan/2026:00:00:00 +0000", "2026-01-01T00:00:00Z"),
            ("31/Dec/2026:23:59:59 +0530", "2026-12-31T23:59:59+05:30"),
            ("29/Feb/2024:12:00:00 -0330", "2024-02-29T12:00:00-03:30"),
            ("29/Feb/2023:12:00:00 +0000", None),
            ("31/Feb/2024:12:00:00 +0000", None),
            ("31/Apr/2024:12:00:00 +0000", None),
            ("00/Jan/2024:12:00:00 +0000", None),
            ("32/Jan/2024:12:00:00 +0000", None),
            ("01/Jan/0000:12:00:00 +0000", None),
            ("01/13/2024:12:00:00 +0000", None),
            ("01/Foo/2024:12:00:00 +0000", None),
            ("01/jan/2024:12:00:00 +0000", None),
            ("01/Jan/2024:24:00:00 +0000", None),
            ("01/Jan/2024:23:60:00 +0000", None),
            ("01/Jan/2024:23:59:60 +0000", None),
            ("01/Jan/2024:23:59:59 +2400", None),
            ("01/Jan/2024:23:59:59 +0060", None),
            ("01/Jan/2024:23:59:59", None),
            ("01/Jan/2024:23:59:5٣ +0000", None),
            ("2024-01-01T00:00:00+00:00", None),
        ]:
            event = parse(LINE.replace(WHEN, when))
            self.assertEqual(event, ts and changed(ts=ts), when)

    def test_a_parser_is_not_confused_by_the_last_date(self) -> None:
        parser = LineParser().parser_for(PATH)
        bad = LINE.replace("10/Oct", "32/Oct")
        later = LINE.replace("13:55:36", "13:55:37")
        expected = [EVENT, None, EVENT, changed(ts="2000-10-10T13:55:37-07:00"), None, EVENT]
        self.assertEqual([parser(line) for line in (LINE, bad, LINE, later, bad, LINE)], expected)

    def test_source(self) -> None:
        for path, source in [("/a/b.log", "b.log"), ("b.log", "b.log"), ("/a/ü b", "ü b")]:
            self.assertEqual(LineParser().parser_for(path)(LINE), changed(source=source))


class Linear(SynchronousTestCase):
    """By its construction, which no run can show: nothing that repeats can be resumed."""

    def test_repeats_are_possessive(self) -> None:
        parser = importlib.import_module("re._parser")
        found: list[str] = []

        def walk(nodes: Any, atomic: bool) -> None:
            for op, value in nodes:
                name = str(op)
                if name.endswith("_REPEAT"):
                    low, high, inner = value
                    if name != "POSSESSIVE_REPEAT" and low != high:
                        found.append(f"{name} {'inside' if atomic else 'outside of'} a group (?>")
                    walk(inner, atomic)
                elif name == "BRANCH":
                    for branch in value[1]:
                        walk(branch, atomic)
                    found.extend([] if atomic else ["BRANCH"])
                elif name == "SUBPATTERN":
                    walk(value[3], atomic)
                elif name == "ATOMIC_GROUP":
                    walk(value, True)
                elif name in ("ASSERT", "ASSERT_NOT"):
                    walk(value[1], atomic)
                else:
                    self.assertIn(name, ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"))

        walk(parser.parse(ACCESS_LINE), False)
        # The lazy one before the date; and "a number or a dash", which differ at once.
        self.assertEqual(found, ["MIN_REPEAT inside a group (?>", "BRANCH"])

    def test_the_check_of_patterns_agrees(self) -> None:
        check_pattern(f"(?P<x>{ACCESS_LINE})")


PIECES = st.sampled_from(
    ['"', "\\", '\\"', "[", "]", " ", "- ", "a", ":", ",", ", ", f"[{WHEN}] ", f' [{WHEN}] "',
     '" 200 1 "', '" 200 1', LINE, LINE[:60], "1.2.3.4 - - ", "x:1 ", "\n", "\0", "é", "\U0001f600"]
)  # fmt: skip


class AnyText(SynchronousTestCase):
    def check(self, line: str) -> None:
        event = parse(line)
        if event is not None:
            self.assertEqual(event.keys(), EVENT.keys())
            for name, value in event.items():
                self.assertIs(type(value), int if name in ("status", "bytes") else str)

    @settings(max_examples=150, deadline=None)
    @given(st.text(max_size=80) | st.lists(PIECES, max_size=12).map("".join))
    def test_short(self, line: str) -> None:
        self.check(line)

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(PIECES | st.text(max_size=3), max_size=4).map("".join),
        st.lists(PIECES, min_size=1, max_size=4).map("".join),
        st.lists(PIECES, max_size=3).map("".join),
    )
    def test_long_and_hostile(self, start: str, pump: str, end: str) -> None:
        """A test for what would never end; how long it takes is not looked at."""
        self.check((start + pump * (65536 // len(pump)))[: 65536 - len(end)] + end)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, len(LINE)), PIECES | st.characters(), st.integers(0, 3))
    def test_a_line_with_a_fault(self, at: int, piece: str, cut: int) -> None:
        self.check(LINE[:at] + piece + LINE[at + cut :])


ESCAPED = st.lists(
    st.sampled_from([r"\"", r"\\", r"\x22", " ", "[", "]", "/", "HTTP/1.1"])
    | st.characters(exclude_characters='"\\', exclude_categories=["Cs"]),
    max_size=12,
).map("".join)
TOKENS = st.text("abcz019.:-_%", min_size=1, max_size=12)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@st.composite
def events(draw: Any) -> tuple[Event, str]:
    """An event, and the line in which a server would log it."""
    moment = draw(
        st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31), timezones=ZONES)
    ).replace(microsecond=0)
    method = draw(st.sampled_from(["GET", "POST", "PROPFIND", "M-SEARCH"]))
    path = "/" + draw(ESCAPED)
    size = draw(st.none() | st.integers(0, 10**18 - 1))
    pair = draw(st.none() | st.tuples(ESCAPED, ESCAPED))
    ip = draw(st.ip_addresses().map(str) | st.just("client.example.org"))
    event: Event = {
        "ip": ip,
        "path": path,
        "method": method,
        "status": draw(st.integers(100, 599)),
        "bytes": size or 0,
        "ua": pair[1] if pair else "",
        "referer": pair[0] if pair else "",
        "ts": re.sub(r"\+00:00$", "Z", moment.isoformat()),
        "source": "shop-access.log",
    }
    host = draw(st.sampled_from(["", "www.example.org:443 "])) + ip
    host += draw(st.sampled_from(["", ", 10.0.0.1", ", 10.0.0.1, 10.0.0.2"]))
    user = draw(st.sampled_from(["-", "frank", "two words", "a [b"]))
    date = moment.strftime("%d/%b/") + f"{moment.year:04}" + moment.strftime(":%H:%M:%S %z")
    version = draw(st.sampled_from(["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/3.0"]))
    line = f'{host} - {user} [{date}] "{method} {path} {version}" {event["status"]} '
    line += "-" if size is None else str(size)
    if pair:
        line += f' "{pair[0]}" "{pair[1]}"' + draw(st.sampled_from(["", ' "-"', " 0.1 x"]))
    return event, line


class RoundTrip(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(events())
    def test_an_event_comes_back_from_its_line(self, drawn: tuple[Event, str]) -> None:
        event, line = drawn
        self.assertEqual(parse(line), event, line)


class Custom(SynchronousTestCase):
    def event(self, regex: str, line: str) -> Event | None:
        check_pattern(regex)
        return LineParser({"*": regex}).parser_for("/srv/app.log")(line)

    def test_choice_by_path(self) -> None:
        parser = LineParser(
            {"/srv/*/app.log": "(?P<first>.*)", "/srv/*": "(?P<second>.*)", "/x[12]": "(?P<x>.)"}
        )
        for path, member in [
            ("/srv/a/app.log", "first"),
            ("/srv/a/b/app.log", "first"),
            ("/srv/a/App.log", "second"),
            ("/x1", "x"),
            ("/x3", None),
            ("/var/srv/a", None),
        ]:
            event = parser.parser_for(path)("l")
            self.assertEqual(event and set(event) - {"source"}, member and {member}, path)

    def test_members(self) -> None:
        regex = (
            r"(?P<ip>\S+)\|(?P<method>\w*)\|(?P<path>[^|]*)\|(?P<status>[^|]*)\|(?P<bytes>[^|]*)"
            r"\|(?P<ts>[^|]*)\|(?P<host>[^|]*)(?:\|(?P<ua>[^|]*))?(?P<referer>r)?"
        )
        self.assertEqual(
            self.event(regex, f"::1|GET|/x|200|17|{WHEN}|example.org|curl"),
            {
                "ip": "::1",
                "method": "GET",
                "path": "/x",
                "status": 200,
                "bytes": 17,
                "ts": "2000-10-10T13:55:36-07:00",
                "host": "example.org",
                "ua": "curl",
                "referer": "",
                "source": "app.log",
            },
        )

    def test_numbers(self) -> None:
        regex = "(?P<x>x)(?P<status>[^ ]*)(?: (?P<bytes>.*))?"
        for line, status, size in [
            ("x200 5", 200, 5),
            ("x- -", 0, 0),
            ("x ", 0, 0),
            ("x", 0, 0),
            (f"x1 {10**18 - 1}", 1, 10**18 - 1),
        ]:
            self.assertEqual(
                self.event(regex, line),
                {"x": "x", "status": status, "bytes": size, "source": "app.log"},
            )
        for line in ("x2.5", "x200 5k", "x-1", "x² 1", "x٣", f"x1 {10**18}", "x1  5", "x+1"):
            self.assertIsNone(self.event(regex, line), line)

    def test_times(self) -> None:
        for text, ts in [
            (WHEN, "2000-10-10T13:55:36-07:00"),
            ("2026-11-23T05:17:25+00:00", "2026-11-23T05:17:25Z"),
            ("2026-11-23T05:17:25Z", "2026-11-23T05:17:25Z"),
            ("2026-11-23 05:17:25.5+01:00", "2026-11-23T05:17:25.500000+01:00"),
            ("2026-11-23T05:17:25,123-0330", "2026-11-23T05:17:25.123000-03:30"),
            ("20261123T051725Z", "2026-11-23T05:17:25Z"),
            # No zone, no such moment, something else: as it stands.
            *((text, text) for text in (
                "2026-11-23T05:17:25", "2026-11-23", "2026-13-23T05:17:25Z", "1763875045", "", "x",
                "31/Feb/2024:12:00:00 +0000", "2026-11-23 05:17:25+00:00:30", "Nov 23 05:17:25",
            )),
        ]:  # fmt: skip
            self.assertEqual(self.event("(?P<ts>.*)", text), {"ts": ts, "source": "app.log"}, text)

    def test_source_is_ours(self) -> None:
        self.assertEqual(self.event("(?P<source>.*)", "x"), {"source": "app.log"})

    def test_anchored_at_the_start_only(self) -> None:
        self.assertIsNone(self.event("(?P<x>b)", "ab"))
        self.assertEqual(self.event("(?P<x>a)", "ab"), {"x": "a", "source": "app.log"})

    def test_length(self) -> None:
        self.assertIsNotNone(self.event("(?P<x>a)", "a" * MAX_CUSTOM_LINE))
        self.assertIsNone(self.event("(?P<x>a)", "a" * (MAX_CUSTOM_LINE + 1)))

    @settings(max_examples=150, deadline=None)
    @given(st.text(max_size=40))
    def test_any_text(self, line: str) -> None:
        self.event("(?P<ts>[^|]*)(?:.(?P<status>[^|]*))?(?:.(?P<bytes>.*))?", line)
