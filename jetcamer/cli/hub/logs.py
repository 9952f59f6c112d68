"""What an agent wrote to its log: `logs`, and as it writes: `logs -f`."""

from __future__ import annotations

import argparse
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from jetcamer.cli.hub.arguments import Commands, add_agent, add_command, add_limit, add_range, names
from jetcamer.cli.hub.client import path_of
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.events import broken
from jetcamer.cli.hub.output import LEVELS
from jetcamer.cli.hub.stream import GAP, EventStream
from jetcamer.cli.hub.words import moment, text

Log = Mapping[str, Any]

#: Lines by which an event and a row of the history are told to be one.
_REMEMBERED = 1000


def add_commands(commands: Commands) -> None:
    parser = add_command(commands, "logs", logs, "print an agent's log, the newest last")
    add_agent(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parser.add_argument("--level", type=names, metavar="A,B", help="only these levels")
    parser.add_argument("--source", metavar="S", help="only from this source")
    parser.add_argument("--contains", metavar="TEXT", help="only messages with TEXT in them")
    add_range(parser)
    add_limit(parser)


def logs(context: Context, args: argparse.Namespace) -> int:
    if args.follow and args.end is not None:
        args.parser.error("--follow has no --to")
    if args.follow:
        _Follower(context, args).run()
        return 0
    listed = _history(context, args, args.begin)
    if context.output.as_json:
        context.output.document(listed)
        return 0
    for log in reversed(listed["logs"]):
        _print(context, log)
    if not listed["logs"]:
        asked = (args.level, args.source, args.contains, args.begin, args.end)
        matches = "" if all(each is None for each in asked) else " match"
        context.output.note((f"no log lines of {args.agent}{matches}", "dim"))
    return 0


class _Follower:
    """The history, then what comes; after a gap, the history of the gap. Each line once."""

    def __init__(self, context: Context, args: argparse.Namespace) -> None:
        self._context = context
        self._args = args
        #: Lines of the history that may come as events, too.
        self._of_history: Counter[tuple[object, ...]] = Counter()
        #: The last lines shown, which the history of a gap may begin with.
        self._recent: deque[tuple[object, ...]] = deque(maxlen=_REMEMBERED)
        #: When the hub received the last one; None: as far back as was asked for.
        self._latest: int | None = args.begin

    def run(self) -> None:
        """Until it is interrupted. Raises `HubError`."""
        stream = EventStream(
            self._context.client,
            {"kinds": "log", "agents": self._args.agent},
            sleep=self._context.sleep,
            on_break=lambda words, seconds: broken(self._context, words, seconds),
        )
        try:
            # The stream first: what comes while the history is read is not lost.
            stream.open()
            self._show_history()
            for event in stream:
                if event.kind == GAP:
                    self._fill_gap()
                else:
                    self._show_event(event.data)
        finally:
            stream.close()

    def _show_event(self, log: Log) -> None:
        line = _same(log)
        if self._of_history[line] > 0:
            self._of_history[line] -= 1
        elif _wanted(log, self._args):
            self._show(log)

    def _show_history(self) -> bool:
        """True where it holds all there is since the last line shown."""
        listed = _history(self._context, self._args, self._latest)
        known = Counter(self._recent)
        self._of_history.clear()
        for log in reversed(listed["logs"]):
            line = _same(log)
            if known[line] > 0:
                known[line] -= 1
            else:
                self._of_history[line] += 1
                self._show(log)
        return listed["next"] is None

    def _fill_gap(self) -> None:
        try:
            whole = self._show_history()
        except HubError as error:
            if not error.passes:
                raise
            whole = False
        if not whole:
            self._context.output.note(("some lines were missed here", "warn"))

    def _show(self, log: Log) -> None:
        received = log.get("receivedAt")
        if isinstance(received, int):
            self._latest = max(received, self._latest or 0)
        self._recent.append(_same(log))
        _print(self._context, log)


def _history(context: Context, args: argparse.Namespace, begin_ms: int | None) -> dict[str, Any]:
    return context.client.pages(
        path_of("agents", args.agent, "logs"),
        "logs",
        query={
            "level": ",".join(args.level) if args.level else None,
            "source": args.source,
            "contains": args.contains,
            "from": begin_ms,
            "to": args.end,
        },
        limit=args.limit,
    )


def _print(context: Context, log: Log) -> None:
    if context.output.as_json:
        context.output.item(log)
        return
    level = text(log.get("level"))
    source = log.get("source")
    context.output.line(
        (f"{moment(log.get('ts'))}  ", "dim"),
        (f"{level:<5}  ", LEVELS.get(level.lower(), "")),
        text(log.get("message")),
        (f"  ({text(source)})" if source else "", "dim"),
        indent=21,
    )


def _same(log: Log) -> tuple[object, ...]:
    """What a line has in the history and in an event alike."""
    return tuple(str(log.get(member)) for member in ("ts", "level", "source", "message"))


def _wanted(log: Log, args: argparse.Namespace) -> bool:
    """The hub's filters, which its events do not know."""
    if args.level and log.get("level") not in args.level:
        return False
    if args.source is not None and log.get("source") != args.source:
        return False
    # As the hub's database has it: a and A are one, ä and Ä are not.
    return args.contains is None or _lower(args.contains) in _lower(str(log.get("message")))


def _lower(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").lower()
