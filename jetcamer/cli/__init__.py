"""`jetcamer`, for people at a terminal: it parses the command line and hands over.

In: the words of the command line. Out: an exit status: 0 for done, 1 for not, 2 for words it does
not understand. Each command's module is imported only when that command is asked for, so that
help and version come at once; nothing here imports a reactor.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
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

#: How writing to a file ends that cannot take more.
_CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line that says what is wrong, one that says where the rest stands; status 2."""
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")

    def parse_known_args(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        namespace: argparse.Namespace | None = None,
    ) -> tuple[argparse.Namespace, list[str]]:
        """A word that is not known is said here, where it is known which command's it is."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Raises SystemExit for usage errors (2), `--help` and `--version` (0).

    :param argv: the words after the program's name; None means those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        _never_fail_to_encode(stream)
    try:
        status = _run(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return _BROKEN_PIPE
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        _give_up_output()
        with suppress(OSError):
            sys.stderr.write(f"jetcamer: the output cannot be written: {error.strerror}\n")
        return 1
    return status


def _open_what_is_closed() -> None:
    """What the shell has closed (`<&-`, `>&-`) is empty, and takes all."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _give_up_output() -> None:
    """Python would say once more, when it flushes at exit, that it cannot write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    parser = _Parser(prog="jetcamer", description="JetCamer at the command line.")
    parser.add_argument("--version", action="version", version=f"jetcamer {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, module, words_for_help in _COMMANDS:
        sentence = f"{words_for_help[0].upper()}{words_for_help[1:]}."
        command = commands.add_parser(name, help=words_for_help, description=sentence)
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
