"""The fleet, live, on a whole terminal: `top`.

In: the list of agents, events, keys. Out: a screen drawn anew when something changed. Where
standard output is no terminal: one table.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from jetcamer.cli.hub.arguments import Commands, add_command
from jetcamer.cli.hub.context import Context
from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.hub.output import make_console
from jetcamer.cli.hub.top_view import SORTS, TopView

if TYPE_CHECKING:
    from jetcamer.cli.hub.top_feed import Feed

#: Seconds between two looks at keys and events; at most so long is a change not seen.
_TICK = 0.25

#: Seconds after which the screen is drawn anew even where nothing came: times grow older.
_REDRAW = 1.0


def add_commands(commands: Commands) -> None:
    parser = add_command(
        commands,
        "top",
        top,
        "watch the fleet live",
        "Keys: c cpu, m memory, d disk, n name, s state, a last seen; r turns the order; q ends. "
        "Where standard output is no terminal, or a dumb one, one table is printed.",
    )
    parser.add_argument(
        "--sort", choices=sorted(SORTS.values()), default="cpu", help="what to sort by (cpu)"
    )
    parser.add_argument("--once", action="store_true", help="print one table and end")


def top(context: Context, args: argparse.Namespace) -> int:
    output = context.output
    output.expect_tables(otherwise="")
    view = TopView(output.terminal, sort=args.sort)
    listed = context.client.agents()
    view.agents_listed(listed["agents"])
    if output.as_json:
        output.document(listed)
    elif args.once or not output.terminal.is_tty or os.environ.get("TERM") == "dumb":
        output.write(view.snapshot(context.now_ms))
    else:
        _watch(context, view)
    return 0


def _watch(context: Context, view: TopView) -> None:
    from rich.live import Live

    from jetcamer.cli.hub.top_feed import Feed

    feed = Feed(context.client.settings)
    console = make_console(context.output.terminal, sys.stdout)
    live = Live(
        console=console,
        screen=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )

    def picture() -> None:
        width, height = console.size
        live.update(view.picture(width, height, context.now_ms), refresh=True)

    try:
        with keys_of(context.stdin) as read_key, live:
            run_loop(view, feed, read_key, picture)
    finally:
        feed.stop()


def run_loop(
    view: TopView, feed: Feed, read_key: Callable[[float], str], draw: Callable[[], None]
) -> None:
    """Until `q`. Raises `HubError` for what will not pass."""
    drawn = 0.0
    changed = True
    while True:
        if changed or time.monotonic() - drawn >= _REDRAW:
            draw()
            drawn = time.monotonic()
        changed = False
        key = read_key(_TICK)
        if key == "q":
            return
        changed = view.key_pressed(key) if key else False
        for arrival in feed.take(0.001):
            changed = True
            if isinstance(arrival, HubError):
                raise arrival
            if isinstance(arrival, str):
                view.trouble = arrival
            elif isinstance(arrival, list):
                view.agents_listed(arrival)
            elif view.event_came(arrival):
                feed.list_soon()


@contextmanager
def keys_of(stdin: TextIO) -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key and returns it, or "".

    The terminal is as it was afterwards, however this ends.
    """
    if not stdin.isatty():

        def no_keys(seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield no_keys
        return
    import termios
    import tty

    descriptor = stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read_key(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        if not ready:
            return ""
        data = os.read(descriptor, 32)
        # Nothing: the terminal has gone away. More than one byte: an arrow, or something pasted.
        return data.decode("ascii", "replace") if data else "q"

    try:
        tty.setcbreak(descriptor)
        yield read_key
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
