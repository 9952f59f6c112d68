r"""Whether a regular expression may be let loose on log lines.

In: a regular expression from the configuration. Out: nothing, or ``ValueError`` in one line. What
stands in a log line is chosen by whoever sends a request, and the agent matches in its one thread:
an expression such as ``(a+)+$`` would stand still for longer than the universe has lasted. So it is
tried first on texts that are made for it: for each repeat in it, the least that leads there, then
what it and its neighbours accept, many times, then an end that fits nothing. That finds the faults
people make; it proves nothing about an expression made to pass.

Runs as a program, too, with an expression on standard input: exit status 1 means too slow. Needs
the standard library only. Not imported by an agent that has no expression in its configuration.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any

MAX_PATTERN = 4096

#: Seconds of CPU time for one text, and for all of them together; not wall time, of which other
#: programs take their part. A fit expression needs less than a hundredth of the first.
TEXT_LIMIT = 0.05
TOTAL_LIMIT = 0.5

_LENGTHS = (24, 512, 8192)
_MAX_PREFIXES = 24
_MAX_ALPHABET = 12
# What characters are looked for in, where an expression says only what they are not.
_COMMON = "a0 \"-/.:[]_=,;\\'A(){}|&?%#@!~+*<>^$`\té\x01"
_LOG_LINE = '203.0.113.7 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.1" 200 1 "-" "x" "y"'


class _TooSlowError(Exception):
    """The CPU time is used up."""


@functools.lru_cache(maxsize=64)  # a configuration is read again whenever it changes
def check_pattern(regex: str) -> None:
    """Takes up to half a second of CPU time.

    :raises ValueError: no regular expression, or one without a named group, or too slow; one line.
    """
    if len(regex) > MAX_PATTERN:
        raise ValueError(f"longer than {MAX_PATTERN} characters")
    try:
        pattern = _compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        words = str(error) if isinstance(error, re.error) else "too deep or too large"
        raise ValueError(f"not a regular expression: {words}") from None
    if not pattern.groupindex:
        raise ValueError(r"has no named group; name what is to be kept, as in (?P<ip>\S+)")
    # Signals, which alone can stop a match, go to the main thread of a process.
    in_main_thread = threading.current_thread() is threading.main_thread()
    if (is_slow if in_main_thread else _is_slow_in_child)(regex):
        raise ValueError(
            "takes too long on some lines; repeat only what cannot stand for the text that follows "
            r"it, as [^\"]* before a quote, and do not repeat a repeat"
        )


def is_slow(regex: str) -> bool:
    """Whether a text was found on which it is; only in the main thread."""
    pattern = _compile(regex)
    never = _never_matching(regex, pattern)

    def work(arm: Callable[[], bool]) -> None:
        for length, text, broken in hostile_texts(regex, pattern.flags):
            if not arm():
                if length == _LENGTHS[-1]:
                    return  # a slow machine; each text by itself was read in time
                raise _TooSlowError
            pattern.match(text)
            if length == _LENGTHS[0] and not broken and never is not None:
                arm()
                never.match(text)

    return not _in_time(work)


def hostile_texts(regex: str, flags: int = 0) -> Iterator[tuple[int, str, bool]]:
    """Length class, text, and whether an end that fits nothing was added; short texts first."""
    shape = _Shape(regex, flags)
    pairs = ["".join(pair) for pair in itertools.combinations(shape.alphabet, 2)]
    whole = [text for text in (shape.example[:-1], shape.example, "".join(shape.alphabet)) if text]
    for length in _LENGTHS:
        # Pairs double the work with each character more, and find their faults early.
        pumps = [*shape.alphabet, *whole, *(pairs if length < _LENGTHS[-1] else ())]
        for prefix, pump in itertools.product(shape.prefixes, pumps):
            text = prefix + (pump * length)[: max(length - len(prefix), 16)]
            yield length, text, False
            yield length, text + shape.stranger, True


class _Shape:
    """What `hostile_texts` are made of: ways into the expression, and its characters."""

    def __init__(self, regex: str, flags: int) -> None:
        # CPython's own parser. It is private, and has been the same since Python 1.6.
        parser = importlib.import_module("re._parser")
        self._classes: dict[str, tuple[str, Any]] = {}
        self._ways: dict[str, None] = {"": None}
        self._groups: dict[int, str] = {}
        self.example = self._walk(parser.parse(regex, flags), "")
        cuts = (_LOG_LINE.index(end) + len(end) for end in ('"GET /a', '1 "', '"x" "'))
        ways = [way[:2048] for way in self._ways][:_MAX_PREFIXES]
        self.prefixes = [*ways, *(_LOG_LINE[:cut] for cut in cuts)]
        self.alphabet, self.stranger = self._choose()

    def _choose(self) -> tuple[list[str], str]:
        """One character for each set of classes that share it, those in most classes first; and
        one that is in the fewest."""
        kinds: dict[tuple[bool, ...], str] = {}
        for char in "".join(_members(*node) for node in self._classes.values()) + _COMMON:
            kind = tuple(_accepts(*node, char) for node in self._classes.values())
            kinds.setdefault(kind, char)
        ordered = sorted(kinds, key=sum, reverse=True)
        alphabet = [kinds[kind] for kind in ordered if any(kind)] or ["a"]
        return alphabet[:_MAX_ALPHABET], kinds[ordered[-1]] if ordered else "\x01"

    def _walk(self, nodes: Any, before: str) -> str:
        """A short text for these nodes; notes the way to each repeat that begins among them."""
        text = ""
        for op, value in nodes:
            text += self._node(str(op), value, before + text)
        return text

    def _node(self, op: str, value: Any, before: str) -> str:
        if op in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            self._classes[f"{op} {value}"] = (op, value)
            candidates = _members(op, value) + _COMMON
            return next((char for char in candidates if _accepts(op, value, char)), "")
        if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            low, _, inner = value
            self._ways[before] = None
            groups = self._groups.copy()
            text = self._walk(inner, before)
            if not low:
                self._groups = groups
            return text * min(int(low), 64)
        if op == "SUBPATTERN":
            number, _, _, inner = value
            text = self._walk(inner, before)
            if number is not None:
                self._groups[number] = text
            return text
        if op == "BRANCH":
            texts = [self._walk(branch, before) for branch in value[1]]
            return texts[0]
        if op == "GROUPREF":
            return self._groups.get(value, "")
        if op == "GROUPREF_EXISTS":
            number, yes, no = value
            texts = [self._walk(branch or (), before) for branch in (no, yes)]
            return texts[number in self._groups]
        if op == "ATOMIC_GROUP":
            return self._walk(value, before)
        if op in ("ASSERT", "ASSERT_NOT"):
            self._walk(value[1], before)
        return ""


def _members(op: str, value: Any) -> str:
    """Some characters that the class names."""
    if op == "IN":
        return "".join(_members(str(inner), of) for inner, of in value)
    if op in ("LITERAL", "NOT_LITERAL"):
        return chr(value)
    return chr(value[0]) + chr(value[1]) if op == "RANGE" else ""


def _accepts(op: str, value: Any, char: str) -> bool:
    if op == "IN":
        negated = str(value[0][0]) == "NEGATE"
        return negated != any(_accepts(str(inner), of, char) for inner, of in value)
    if op == "CATEGORY":
        inside = {"DIGIT": char.isdecimal(), "SPACE": char.isspace()}
        kind = str(value).removeprefix("CATEGORY_")
        word = char.isalnum() or char == "_"
        return inside.get(kind.removeprefix("NOT_"), word) != kind.startswith("NOT_")
    if op == "RANGE":
        return bool(value[0] <= ord(char) <= value[1])
    return op == "ANY" or (op != "NEGATE" and (ord(char) == value) == (op == "LITERAL"))


def _compile(regex: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return re.compile(regex)


def _never_matching(regex: str, pattern: re.Pattern[str]) -> re.Pattern[str] | None:
    r"""The same with an end at which it must fail, and so tries every way there is.

    There is no text that ``(\S+\s*)+$`` does not match, so that by itself it is never slow; its
    many ways are a mistake all the same, and wait for the next change to it.
    """
    body = re.sub(r"\A\(\?[aiLmsux]+\)", "", regex)
    try:
        return re.compile(
            f"(?:{body}\n)(?!)" if pattern.flags & re.X else f"(?:{body})(?!)", pattern.flags
        )
    except (re.error, RecursionError, OverflowError):
        return None


def _in_time(work: Callable[[Callable[[], bool]], None]) -> bool:
    """Run `work` with a function that it calls before each text, and that answers whether there is
    time left for all of them. Whether `work` ended, and each text kept its limit.

    ``re`` looks for signals while it matches, so a timer's handler can stop it.
    """

    def stop(signum: int, frame: object) -> None:
        raise _TooSlowError

    def arm() -> bool:
        signal.setitimer(signal.ITIMER_VIRTUAL, TEXT_LIMIT)
        return thread_time() - began < TOTAL_LIMIT

    began = thread_time()
    timer_before = signal.getitimer(signal.ITIMER_VIRTUAL)
    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        try:
            work(arm)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _TooSlowError:
        return False
    finally:
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL if before is None else before)
        signal.setitimer(signal.ITIMER_VIRTUAL, *timer_before)
    return True


def _is_slow_in_child(regex: str) -> bool:
    import subprocess

    try:
        child = subprocess.run(  # noqa: S603 - our own file
            [sys.executable, "-I", "-S", __file__],
            input=regex.encode("utf-8", "surrogatepass"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ValueError(f"cannot be tried out: {type(error).__name__}") from None
    return child.returncode != 0


if __name__ == "__main__":
    sys.exit(is_slow(sys.stdin.buffer.read().decode("utf-8", "surrogatepass")))
