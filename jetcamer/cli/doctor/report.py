"""What the doctor found, as rows, and the two ways to show them.

In: findings in the order of the checks. Out: text for a person or one JSON object. A secret that
was named to `Findings.hide` is in neither, whatever text a check took over from somewhere else.
"""

from __future__ import annotations

import json
from typing import Literal

import msgspec

Status = Literal["ok", "warn", "fail", "skip"]

_MARKS: dict[Status, str] = {"ok": "[ ok ]", "warn": "[warn]", "fail": "[FAIL]", "skip": "[skip]"}

#: The exit status of the program; a report is never "skip" as a whole.
_EXIT: dict[Status, int] = {"ok": 0, "warn": 1, "fail": 2}

HIDDEN = "(hidden)"

#: A shorter secret is not looked for: it is part of ordinary words.
_LEAST_HIDDEN = 8

#: What a peer says may neither forge a line nor drive a terminal.
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160), 8232, 8233), " ")


class Check(msgspec.Struct, frozen=True):
    """One row: what was looked at, how it is, in words, and what to do about it."""

    check: str
    status: Status
    words: str
    hint: str = ""


class Report(msgspec.Struct, frozen=True):
    """Every row of one examination."""

    version: str
    checks: tuple[Check, ...]

    @property
    def status(self) -> Status:
        """The worst of all rows; a skipped row always has a cause in another."""
        found = {row.status for row in self.checks}
        return "fail" if "fail" in found else "warn" if "warn" in found else "ok"

    @property
    def exit_status(self) -> int:
        """0 when all is well, 1 for warnings only, 2 when something failed."""
        return _EXIT[self.status]

    def as_json(self) -> str:
        """One object: ``status``, ``version``, ``checks`` (``check status words hint``)."""
        rows = [msgspec.to_builtins(row) for row in self.checks]
        return json.dumps({"status": self.status, "version": self.version, "checks": rows})

    def as_text(self) -> str:
        """A line for each check, the hints below what is not well, and what to do first."""
        width = max((len(row.check) for row in self.checks), default=0)
        lines = []
        for row in self.checks:
            lines.append(f"{_MARKS[row.status]} {row.check:<{width}}  {row.words}")
            if row.hint and row.status != "ok":
                lines.append(" " * (width + 9) + row.hint)
        return "\n".join([*lines, "", self.conclusion])

    @property
    def conclusion(self) -> str:
        """What to do first, in one sentence."""
        if self.status == "ok":
            return "Everything is in order."
        first = next(row for row in self.checks if row.status == self.status)
        opening = "Do this first" if self.status == "fail" else "It can work; look at this first"
        return f"{opening} ({first.check}): {first.hint or first.words}"


class Findings:
    """Collects the rows of one examination, and the secrets that none of them may show."""

    def __init__(self) -> None:
        self._rows: list[Check] = []
        self._secrets: set[str] = set()

    def hide(self, *secrets: str | None) -> None:
        """Never show these, in any row before or after.

        No check writes a secret into its words; this is for those of others, such as a server
        that sends back what it was sent.
        """
        self._secrets.update(
            secret for secret in secrets if secret is not None and len(secret) >= _LEAST_HIDDEN
        )

    def ok(self, check: str, words: str) -> None:
        self._rows.append(Check(check, "ok", words))

    def warn(self, check: str, words: str, hint: str = "") -> None:
        self._rows.append(Check(check, "warn", words, hint))

    def fail(self, check: str, words: str, hint: str = "") -> None:
        self._rows.append(Check(check, "fail", words, hint))

    def skip(self, check: str, words: str) -> None:
        """Not looked at, and why."""
        self._rows.append(Check(check, "skip", words))

    def report(self, version: str) -> Report:
        return Report(version, tuple(self._redacted(row) for row in self._rows))

    def _redacted(self, row: Check) -> Check:
        words, hint = row.words, row.hint
        # The longest first: a secret may be part of another one.
        for secret in sorted(self._secrets, key=len, reverse=True):
            words, hint = words.replace(secret, HIDDEN), hint.replace(secret, HIDDEN)
        return Check(row.check, row.status, words.translate(_CONTROLS), hint.translate(_CONTROLS))
