"""Many processes for the price of one: Python and the libraries are loaded once, then forked.

In: what to load, and programs. Out: how each ended and what it wrote. Each program runs in a whole
process of its own and ends as Python ends; the first is no parent of a reactor.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.twistd import clean_environment

_PARENT = """
import gc, importlib, json, os, sys
asked = json.load(sys.stdin)
for name in asked["load"]:
    importlib.import_module(name)
assert "twisted.internet.reactor" not in sys.modules, "a child would share it"
gc.collect()
gc.freeze()  # so that the children share what is there
children = []
for number, program in enumerate(asked["programs"]):
    child = os.fork()
    if not child:
        for fd, kind in (0, None), (1, "out"), (2, "err"):
            path = os.devnull if kind is None else f"{number}.{kind}"
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(file, fd)
            os.close(file)
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
        break
    children.append(child)
else:
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children]))
"""


@dataclass(frozen=True)
class Ended:
    """:ivar status: negative for a signal."""

    status: int
    out: str
    err: str


def run_forked(folder: str | Path, load: Sequence[str], programs: Sequence[str]) -> list[Ended]:
    """Run all of `programs` at once; returns when all have ended.

    :param folder: made if need be; their working directory.
    :param load: modules that are there before the programs begin, none of which takes a reactor.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _PARENT],
        cwd=folder,
        env=clean_environment(),
        input=json.dumps({"load": list(load), "programs": list(programs)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"status {done.returncode}:\n{done.stdout}{done.stderr}")
    return [
        Ended(
            status, *((folder / f"{number}.{kind}").read_text("utf-8") for kind in ("out", "err"))
        )
        for number, status in enumerate(json.loads(done.stdout))
    ]
