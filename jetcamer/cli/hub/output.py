"""What a command prints: JSON for programs, lines and tables for people.

In: what the hub answered. Out: standard output holds the answer, standard error everything else.
What a peer said is never markup and never drives the terminal. `rich` is imported by the first
table only.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, NamedTuple, TextIO

from jetcamer.cli.hub.errors import HubError
from jetcamer.cli.terminal import Terminal, visible
from jetcamer.daemon.visible import visible_lines

if TYPE_CHECKING:
    from rich.console import Console, OverflowMethod
    from rich.table import Table

#: Text, or text and one of the terminal's styles.
Cell = str | tuple[str, str]

#: Between two columns, and what a long one needs to be read, where it is not shorter; and in a
#: table that is narrow on purpose.
_GAP = 2
_LONG_LEAST = 12
_NARROW_LEAST = 8

#: For a pipe: as wide as the rows are.
_UNLIMITED = 100_000

_RICH_STYLES = {"good": "green", "bad": "red", "warn": "yellow", "dim": "dim", "strong": "bold"}

#: How each state of an agent and of a command looks.
STATES = {
    "online": "good",
    "offline": "dim",
    "clock_wrong": "warn",
    "clone": "bad",
    "refused": "bad",
    "revoked": "dim",
    "never_seen": "dim",
    "done": "good",
    "failed": "bad",
    "timeout": "bad",
    "expired": "bad",
    "lost": "bad",
    "queued": "warn",
    "sent": "warn",
}

LEVELS = {"error": "bad", "fatal": "bad", "warn": "warn", "warning": "warn", "debug": "dim"}


#: What a table shows: its columns, and its rows.
Rows = tuple[Sequence["Column"], Sequence[Sequence[Cell]]]


class Column(NamedTuple):
    name: str
    #: Numbers stand at the right.
    right: bool = False
    #: Where the terminal is narrow, this one goes on below.
    long: bool = False
    #: Characters it has; None: as many as it takes.
    width: int | None = None


def state_cell(state: object) -> Cell:
    words = visible(str(state or "-"))
    return words.replace("_", " "), STATES.get(words, "")


class Output:
    """:param as_json: `document` and `item` print JSON."""

    def __init__(
        self, stdout: TextIO, stderr: TextIO, environ: Mapping[str, str], *, as_json: bool
    ) -> None:
        self.as_json = as_json
        self.terminal = Terminal(stdout, environ)
        self.notes = Terminal(stderr, environ)
        self._stdout = stdout
        self._stderr = stderr

    def document(self, value: object) -> None:
        """The one JSON document of a command."""
        # ASCII: what a peer said stays escaped in a terminal, too.
        self._stdout.write(json.dumps(value, indent=2) + "\n")
        self._stdout.flush()

    def item(self, value: object) -> None:
        """One JSON object of many, on a line of its own."""
        self._stdout.write(json.dumps(value, separators=(",", ":")) + "\n")
        self._stdout.flush()

    def line(self, *parts: Cell, indent: int = 0) -> None:
        self.terminal.line(*parts, indent=indent)

    def done(self, answer: object, *parts: Cell) -> None:
        """What came of a change: the hub's answer as JSON, or one line for a person."""
        if self.as_json:
            self.document(answer)
        else:
            self.line(*parts)

    def text(self, value: str) -> None:
        """Several lines as they are: nothing but their breaks and tabs does what it says."""
        for line in value.removesuffix("\n").replace("\r\n", "\n").split("\n"):
            self._stdout.write(visible_lines(line.expandtabs()).rstrip() + "\n")
        self._stdout.flush()

    @property
    def more(self) -> str:
        """What stands where a text goes on that is not shown."""
        return self.terminal.mark(" …", " ...")

    def note(self, *parts: Cell) -> None:
        """A line that is not the answer: to standard error."""
        self.notes.line(*parts)

    def progress(self, words: str) -> None:
        """A line that the next one replaces, on a terminal only; "" takes it away."""
        if self.notes.is_tty:
            self._stderr.write(f"\r{visible(words)[: self.notes.width - 1]}\x1b[K")
            self._stderr.flush()

    def fields(self, rows: Iterable[tuple[str, Cell]]) -> None:
        """A name and what is known of it, a line each."""
        listed = list(rows)
        width = max((len(name) for name, _ in listed), default=0) + 2
        for name, cell in listed:
            self.line((f"{name:<{width}}", "dim"), cell, indent=width)

    def expect_tables(self, otherwise: str = " (or use --json, which does not)") -> None:
        """Raises `HubError` where tables cannot be drawn: before anything is asked or changed.

        :param otherwise: what does as well.
        """
        if not self.as_json and not _has_rich():
            raise HubError(f"tables need rich: pip install 'jetcamer[hub]'{otherwise}")

    def table(
        self,
        columns: Sequence[Column],
        rows: Iterable[Sequence[Cell]],
        none: str,
        *,
        narrow: Callable[[], Rows] | None = None,
    ) -> None:
        """
        :param none: said, on standard error, where there are no rows.
        :param narrow: the same in shorter words, for a terminal that has no room for these.
        """
        listed = list(rows)
        if not listed:
            self.note((none, "dim"))
            return
        width = self.terminal.width
        if not self.terminal.is_tty or _fits(columns, listed, width):
            self.write(draw(self.terminal, columns, listed))
            return
        if narrow is not None:
            short_columns, short_rows = narrow()
            if _fits(short_columns, short_rows, width, _NARROW_LEAST):
                self.write(draw(self.terminal, short_columns, short_rows))
                return
        for number, row in enumerate(listed):
            if number:
                self.line()
            names = [column.name.lower() for column in columns]
            self.fields(zip(names, row, strict=True))

    def write(self, lines: str) -> None:
        """Whole lines that are visible and fit already."""
        self._stdout.write(lines)
        self._stdout.flush()


def _has_rich() -> bool:
    from importlib.util import find_spec

    return find_spec("rich") is not None


def natural_width(column: Column, cells: Iterable[Cell]) -> int:
    """What the column takes where there is room."""
    from rich.cells import cell_len

    texts = (visible(cell if isinstance(cell, str) else cell[0]) for cell in cells)
    return max(len(column.name), *(cell_len(each) for each in texts), 0)


def _fits(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    width: int,
    least: int = _LONG_LEAST,
) -> bool:
    """Whether a table leaves each long column enough to be read."""
    taken = 0
    for number, column in enumerate(columns):
        natural = natural_width(column, (row[number] for row in rows))
        taken += _GAP + (min(natural, least) if column.long else natural)
    return taken - _GAP <= width


def draw(terminal: Terminal, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> str:
    """A table as wide as its rows, or as the terminal."""
    drawn = io.StringIO()
    width = terminal.width if terminal.is_tty else _UNLIMITED
    make_console(terminal, drawn, width).print(make_table(terminal, columns, rows))
    return "".join(line.rstrip() + "\n" for line in drawn.getvalue().splitlines())


def make_console(terminal: Terminal, file: IO[str], width: int | None = None) -> Console:
    """:param width: None: as wide as `file`'s terminal is at each time."""
    from rich.console import Console

    return Console(
        file=file,
        width=width,
        force_terminal=terminal.is_tty if width is None else terminal.colour,
        color_system="standard" if terminal.colour else None,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
        # Which colours there are is decided above.
        _environ={},
    )


def make_table(
    terminal: Terminal, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]
) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    cut: OverflowMethod = "ellipsis" if terminal.unicode else "crop"
    for column in columns:
        table.add_column(
            Text(column.name),
            justify="right" if column.right else "left",
            overflow="fold" if column.long else cut,
            no_wrap=not column.long,
            width=column.width,
        )
    for row in rows:
        table.add_row(
            *(
                Text(visible(cell))
                if isinstance(cell, str)
                else Text(visible(cell[0]), style=_RICH_STYLES.get(cell[1], ""))
                for cell in row
            )
        )
    return table
