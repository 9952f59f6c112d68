r"""Lines of web servers' access logs, taken apart.

In: the text of one line. Out: an event, a flat dictionary of texts and whole numbers, or None where
the line has another shape. Built in are the common and the combined format of Apache and nginx,
also with an Apache virtual host in front (``%v:%p``) or with more fields after the user agent, as
in nginx.org's ``main``. Other formats are regular expressions with named groups; section
"Configuration" of docs/protocol.md describes them. Must never raise, whatever a line holds, and
never take more than linear time over it by a pattern of its own.

Quoted fields stay as they were logged: ``\"`` and ``\x22`` are not undone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta

#: ``ip``, ``path``, ``method``, ``ua``, ``referer``, ``ts`` (RFC 3339) and ``source`` are texts,
#: ``status`` and ``bytes`` whole numbers.
Event = dict[str, str | int]

#: Characters. What is longer does not match a regular expression of the configuration: those were
#: tried on texts of this length and no longer ones.
MAX_CUSTOM_LINE = 8192

# Here nothing is tried twice. Every repeat is possessive (``*+``, ``++``), so that it gives nothing
# back once it has matched. The one that is not, the lazy repeat before the date, stops at the first
# date in an atomic group, ``(?>…)``: it moves on by one character after a look of bounded length,
# and is never resumed. So the time is linear in the length of the line.
#
# A field mostly ends at its first quote, which is found four times as fast by itself.
_QUOTED = r'"((?>[^"]*+(?<!\\)(?=")|[^"\\]*+(?:\\.[^"\\]*+)*+))"'
ACCESS_LINE = (
    r"(?:[^ :\[\]]++:[0-9]{1,5}+ (?=[^ .:]*+[.:]))?+"  # the virtual host: a second host follows
    r"([^ ,]++)(?:, ?+[^ ,]++)*+"  # the client, and the proxies on its way
    # A user's name may hold spaces and brackets, but no quote that is not escaped.
    r' [^ ]++(?>.*? \[([0-9]{2}/[A-Z][a-z]{2}/[^\] ]{13} [+-][0-9]{4})\] (?="))'
    rf"{_QUOTED} ([0-9]{{3}}) ([0-9]{{1,18}}+|-)(?: {_QUOTED} {_QUOTED}(?: .*+)?+)?+\s*+\Z"
)
_ACCESS_LINE = re.compile(ACCESS_LINE, re.DOTALL)
_CLF_DATE = re.compile(
    r"([0-9]{2})/([A-Z][a-z]{2})/([0-9]{4}):([0-9]{2}:[0-9]{2}:[0-9]{2}) ([+-][0-9]{2})([0-9]{2})"
)
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110 §5.6.2
_PLAIN_METHOD = re.compile(r"[A-Z]{2,20}")
_KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_NUMBER = re.compile(r"[0-9]{1,18}")
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}


class LineParser:
    """Knows which format the lines of a file have.

    :param formats: for a glob pattern of paths (`fnmatch`; ``*`` matches a slash, too), a regular
        expression that `check_pattern` has accepted. The first pattern that matches wins.
    """

    def __init__(self, formats: Mapping[str, str] | None = None) -> None:
        self._formats = [(glob, re.compile(regex)) for glob, regex in (formats or {}).items()]

    def parser_for(self, path: str) -> Callable[[str], Event | None]:
        """What parses a line of the file at `path`, without its line end."""
        source = path.rpartition("/")[2]
        if self._formats:
            from fnmatch import fnmatchcase

            for glob, pattern in self._formats:
                if fnmatchcase(path, glob):
                    return _custom(pattern, source)
        return _built_in(source)


def _built_in(source: str) -> Callable[[str], Event | None]:
    match = _ACCESS_LINE.match
    last_date = last_ts = ""

    def parse(line: str) -> Event | None:
        nonlocal last_date, last_ts
        found = match(line)
        if found is None:
            return None
        ip, when, request, status, size, referer, ua = found.groups("")
        if when != last_date:  # many lines of the same second follow each other
            ts = _from_clf(when)
            if ts is None:
                return None
            last_date, last_ts = when, ts
        method, _, rest = request.partition(" ")
        target, _, version = rest.rpartition(" ")
        if method not in _KNOWN_METHODS or not target or version[:5] != "HTTP/":
            method, target = _request(request)
        return {
            "ip": ip,
            "path": target,
            "method": method,
            "status": int(status),
            "bytes": 0 if size == "-" else int(size),
            "ua": ua,
            "referer": referer,
            "ts": last_ts,
            "source": source,
        }

    return parse


def _request(request: str) -> tuple[str, str]:
    """Method and target of a request line; a method of "" and the whole where it is none."""
    method, _, rest = request.partition(" ")
    target, _, version = rest.rpartition(" ")
    if target and version.startswith("HTTP/"):
        if _METHOD.fullmatch(method):
            return method, target
    elif rest and not version.startswith("HTTP/") and _PLAIN_METHOD.fullmatch(method):
        return method, rest  # HTTP/0.9, or a server that leaves the version out
    return "", request


def _custom(pattern: re.Pattern[str], source: str) -> Callable[[str], Event | None]:
    match = pattern.match

    def parse(line: str) -> Event | None:
        if len(line) > MAX_CUSTOM_LINE:
            return None
        found = match(line)
        if found is None:
            return None
        event: Event = dict(found.groupdict(""))
        for name in ("status", "bytes"):
            if name in event:
                text = found[name]
                if not text or text == "-":
                    event[name] = 0
                elif _NUMBER.fullmatch(text):
                    event[name] = int(text)
                else:
                    return None
        if "ts" in event:
            event["ts"] = _timestamp(found["ts"] or "")
        event["source"] = source
        return event

    return parse


def _from_clf(text: str) -> str | None:
    """RFC 3339 for ``10/Oct/2000:13:55:36 -0700``; None where there is no such moment."""
    found = _CLF_DATE.fullmatch(text)
    if found is None:
        return None
    day, month, year, time, hours, minutes = found.groups()
    try:
        date(int(year), _MONTHS[month], int(day))
    except (KeyError, ValueError):
        return None
    if time[:2] > "23" or time[3:5] > "59" or time[6:] > "59":
        return None
    if hours[1:] > "23" or minutes > "59":
        return None
    offset = f"{hours}:{minutes}"
    return f"{year}-{_MONTHS[month]:02}-{day}T{time}{'Z' if offset == '+00:00' else offset}"


def _timestamp(text: str) -> str:
    """RFC 3339 where `text` names a moment; else `text`. A time of no zone names none."""
    ts = _from_clf(text)
    if ts is not None:
        return ts
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    offset = moment.utcoffset()
    if offset is None or offset % timedelta(minutes=1):
        return text
    ts = moment.isoformat()
    return ts[:-6] + "Z" if ts.endswith("+00:00") else ts
