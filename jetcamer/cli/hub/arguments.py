"""The words of `jetcamer hub`: what several commands share.

A wrong word ends in one line that says what is wrong, and status 2.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NoReturn, Protocol

from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.settings import DEFAULT_URL

_UNITS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(ms|s|m|min|h|d|w|)", re.ASCII)

Handler = Callable[[Context, argparse.Namespace], int]


class Commands(Protocol):
    """What `add_subparsers` returns."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


class Parser(argparse.ArgumentParser):
    """Takes options between positional words, and no abbreviations: scripts would break later."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})
        self._mixing = False

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")

    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        if self._mixing:
            return super().parse_known_args(args, namespace)
        # What follows `--` is no option, which the intermixed parser does not know.
        if self._subparsers is not None or "--" in (args or ()):
            found, unknown = super().parse_known_args(args, namespace)
        else:
            self._mixing = True
            try:
                found, unknown = self.parse_known_intermixed_args(args, namespace)
            finally:
                self._mixing = False
        # Here, where it is known whose words they are.
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def add_common(parser: argparse.ArgumentParser) -> None:
    """How the hub is reached, and JSON: before the command's name or after it."""
    group = parser.add_argument_group("the hub")
    absent = argparse.SUPPRESS
    group.add_argument(
        "--url", default=absent, help=f"the hub's API (JETCAMER_HUB_URL, else {DEFAULT_URL})"
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        default=absent,
        help="the API token (else JETCAMER_HUB_TOKEN, else ~/.config/jetcamer/hub-token)",
    )
    group.add_argument(
        "--ca-file",
        metavar="FILE",
        default=absent,
        help="trust only these authorities, PEM (JETCAMER_HUB_CA_FILE)",
    )
    group.add_argument(
        "--insecure-http",
        action="store_true",
        default=absent,
        help="allow http:// to another machine: the token travels readable",
    )
    group.add_argument("--json", action="store_true", default=absent, help="print JSON")


def add_command(
    commands: Commands, name: str, handler: Handler, words: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words, description=sentence(words), epilog=epilog)
    add_common(parser)
    parser.set_defaults(handler=handler, parser=parser)
    return parser


def add_group(commands: Commands, name: str, words: str) -> Commands:
    """A command that has commands of its own."""
    parser = commands.add_parser(name, help=words, description=sentence(words))
    return parser.add_subparsers(
        dest=f"{name}_command", metavar="ACTION", required=True, parser_class=Parser
    )


def sentence(words: str) -> str:
    """What `help` says in a list, as a sentence of its own."""
    return words[:1].upper() + words[1:] + "."


def add_yes(parser: argparse.ArgumentParser, *, asks: bool = True) -> None:
    words = "do not ask" if asks else "nothing is asked here: for scripts that always say it"
    parser.add_argument("--yes", action="store_true", help=words)


def add_agent(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    parser.add_argument(
        "agent", metavar="ID", nargs="?" if optional else None, help="the agent's id"
    )


def add_limit(parser: argparse.ArgumentParser, default: int = 50, *, again: bool = False) -> None:
    """:param again: the command above has it, too: what was said there holds."""
    parser.add_argument(
        "-n",
        "--limit",
        type=count,
        default=argparse.SUPPRESS if again else default,
        metavar="N",
        help=f"at most so many, the newest ({default})",
    )


def add_range(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from",
        dest="begin",
        type=time_ms,
        metavar="TIME",
        help="a duration ago (2h) or a time (2026-01-31T08:00)",
    )
    parser.add_argument("--to", dest="end", type=time_ms, metavar="TIME", help="likewise")


def duration(words: str) -> float:
    """Seconds of `90s`, `15m`, `1h`, `7d`; a bare number is seconds."""
    match = _DURATION.fullmatch(words.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{words!r} is not a duration: 90s, 15m, 1h, 7d")
    return seconds


def whole_seconds(words: str) -> int:
    return max(1, round(duration(words)))


def grace(words: str) -> int:
    """Seconds, and 0 for none at all."""
    return 0 if words in ("0", "0s") else whole_seconds(words)


def time_ms(words: str) -> int:
    """Unix ms of a time, local unless it says otherwise, or of that long ago."""
    if words == "now":
        return round(time.time() * 1000)
    if _DURATION.fullmatch(words.strip()) and not words.isdecimal():
        return round((time.time() - duration(words)) * 1000)
    if words.isdecimal() and 12 <= len(words) <= 14:
        return int(words)
    try:
        return round(datetime.fromisoformat(words).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{words!r} is neither a duration (2h) nor a time (2026-01-31T08:00)"
        ) from None


def count(words: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", words) or not 1 <= int(words) <= 100_000:
        raise argparse.ArgumentTypeError(f"{words!r} is not a number from 1 to 100000")
    return int(words)


def names(words: str) -> list[str]:
    """The parts of `a,b`."""
    listed = [word.strip() for word in words.split(",") if word.strip()]
    if not listed:
        raise argparse.ArgumentTypeError("names nothing")
    return listed
