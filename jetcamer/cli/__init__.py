"""`jetcamer`, for people at a terminal: it parses the command line and hands over.

In: the words of the command line. Out: an exit status: 0 for done, 1 for not, 2 for words it does
not understand. Each command's module is imported only when that command is asked for, so that
help and version come at once; nothing here imports a reactor.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn, TextIO

from jetcamer import __version__

__all__ = ["main"]

#: Name, module and what `jetcamer --help` says of each. A module has `add_arguments(parser)` and
#: `run(args) -> int`.
_COMMANDS = (
    ("demo", "jetcamer.cli.demo", "run a hub and an agent on this machine and watch them talk"),
    ("doctor", "jetcamer.cli.doctor", "find out why the agent does not work, and what to do"),
    ("hub", "jetcamer.cli.hub", "ask a hub, and tell it what to do: agents, commands, logs"),
    ("join", "jetcamer.cli.join", "make this machine an agent of a hub, with a join token"),
    ("version", "jetcamer.cli.version", "print the version"),
)

#: What a shell reports of a program that wrote to a pipe nobody reads, and of one interrupted.
_BROKEN_PIPE = 128 + 13
_INTERRUPTED = 128 + 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line that says what is wrong, one that says where the rest stands; status 2."""
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Raises SystemExit for usage errors (2), `--help` and `--version` (0).

    :param argv: the words after the program's name; None means those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if sys.stdout is None:  # closed by the shell: `>&-`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    try:
        status = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more. Python would say so again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return status


def _run(words: list[str]) -> int:
    parser = _Parser(prog="jetcamer", description="JetCamer at the command line.")
    parser.add_argument("--version", action="version", version=f"jetcamer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, module, words_for_help in _COMMANDS:
        command = commands.add_parser(name, help=words_for_help, description=words_for_help + ".")
        if name == asked:
            loaded = import_module(module)
            loaded.add_arguments(command)
            command.set_defaults(run=loaded.run)
    args = parser.parse_args(words)
    return int(args.run(args))


def _never_fail_to_encode(stream: TextIO) -> None:
    """A character that the terminal's encoding lacks becomes `?`, not a traceback."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
