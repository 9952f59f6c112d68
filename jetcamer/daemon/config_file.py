"""A daemon's configuration file: JSON in, one frozen value or one line of complaint out.

A wrong member never passes in silence and never becomes a traceback: every fault is a
`ConfigError` whose text is a single line that names the file and the member. Values of members
that hold secrets appear in no text.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from jetcamer.daemon import json_document
from jetcamer.daemon.files import Signature, read_whole, signature
from jetcamer.daemon.json_document import excerpt, kind, quoted

MAX_SIZE = 1 << 20

C = TypeVar("C", bound=msgspec.Struct)


class ConfigError(Exception):
    """The text is one line for a person; `member` is the dotted name of the member, if one is."""

    def __init__(self, path: str, member: str | None, words: str) -> None:
        text = ": ".join(part for part in (path, member, words) if part)
        super().__init__(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        )
        self.path = path
        self.member = member


class ConfigSource(msgspec.Struct, frozen=True):
    """Where a configuration came from: `path` is None where there was no file, and `watched` is
    then the place where one would be found. `file_signature` is that of the file as it was read.
    Each warning is one line that begins with the file's name."""

    path: str | None
    warnings: tuple[str, ...] = ()
    watched: str | None = None
    file_signature: Signature | None = None


def find_config(
    path: str | None, environ: Mapping[str, str], *, variable: str, default_path: str
) -> tuple[str, bool]:
    """The file to read: `path`, else what the environment's `variable` names, else the default
    one; and whether it is there, which only of the default one is not taken for granted."""
    path = path or environ.get(variable) or None
    if path is None:
        try:
            os.lstat(default_path)
        except FileNotFoundError:
            return default_path, False
        except OSError:
            pass  # reading it says what is wrong
        path = default_path
    # A daemon changes its working directory; the file is looked at again later.
    return os.path.abspath(path), True


def read_file(path: str) -> tuple[bytes, os.stat_result]:
    """Raises `ConfigError`."""
    try:
        return read_whole(path, MAX_SIZE)
    except FileNotFoundError:
        raise ConfigError(path, None, "no such file") from None
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(path, None, f"cannot be read: {words}") from None


def source_of(path: str, status: os.stat_result, warnings: Collection[str]) -> ConfigSource:
    return ConfigSource(
        path=path, warnings=tuple(warnings), watched=path, file_signature=signature(status)
    )


def mode_warnings(path: str, status: os.stat_result, holds_secret: bool) -> list[str]:
    """What is wrong with who may read and change the file."""
    mode = stat.S_IMODE(status.st_mode)
    warnings = []
    if holds_secret and mode & stat.S_IROTH:
        warnings.append(f"{path}: holds a secret and everybody may read it (mode {mode:04o})")
    if mode & stat.S_IWOTH:
        warnings.append(f"{path}: everybody may change it (mode {mode:04o})")
    return warnings


class ConfigSchema(Generic[C]):
    """What the members of one kind of configuration file must be.

    :param expected: what is expected of a member, for a person, where that is not a string or a
        number with limits
    :param limits: lower and upper bound of each number, and what it counts
    :param checks: raise ``ValueError``, with words without the value, for one of the right type
        that will not do
    :param hidden: members that may be, or hold, a secret
    :param unused: names of other programs' members, accepted without a word
    :param known: more names to suggest for one that nobody knows
    """

    def __init__(
        self,
        struct: type[C],
        *,
        expected: Mapping[str, str],
        limits: Mapping[str, tuple[float, float, str]],
        checks: Mapping[str, Callable[[Any], object]],
        hidden: Collection[str] = (),
        unused: re.Pattern[str] | None = None,
        known: Collection[str] = (),
    ) -> None:
        self._struct = struct
        self._expected = {
            **dict.fromkeys(struct.__struct_encode_fields__, "a string"),
            **{name: f"{noun}, at least {low}" for name, (low, _, noun) in limits.items()},
            **expected,
        }
        self._limits = limits
        self._checks = checks
        self._hidden = hidden
        self._unused = unused
        self._known = (*self._expected, *known)
        #: An empty string counts as not set in these.
        self._strings = {
            name for name, words in self._expected.items() if words.startswith(("a string", '"'))
        }

    def members(self, data: bytes, path: str) -> tuple[dict[str, Any], list[str]]:
        """The members of the document that are set, each text and number in its limits, and the
        warnings; `path` is the name the texts give the file. Raises `ConfigError`."""
        try:
            document = json_document.parse(data)
        except json_document.DocumentError as error:
            raise ConfigError(path, error.member, error.words) from None
        warnings = []
        members: dict[str, Any] = {}
        for name, value in document.items():
            if name not in self._expected:
                if self._unused is None or not self._unused.match(name):
                    words = f"unknown member, ignored{self._nearest(name)}"
                    warnings.append(f"{path}: {quoted(name)}: {words}")
            elif value == "" and name in self._strings:
                # The old program could not tell an empty string from a missing member, and files
                # say "" for it.
                if name in self._hidden:
                    warnings.append(f"{path}: {name}: is empty and counts as not set")
            elif value is not None:  # null is not set either
                try:
                    json_document.check_text(value)
                except ValueError as error:
                    raise ConfigError(path, name, str(error)) from None
                members[name] = value
        for name, value in members.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if name in self._limits and is_number:
                self._check_limits(path, name, value)
        return members, warnings

    def convert(self, members: Mapping[str, Any], path: str) -> C:
        """The value of `members`, each checked. Raises `ConfigError`."""
        try:
            config = msgspec.convert(members, self._struct)
        except msgspec.ValidationError as error:
            found = re.search(r"at `\$\.(\w+)", str(error))
            if found is None:
                raise ConfigError(path, None, str(error)) from None
            name = found[1]
            raise self._unexpected(path, name, self._expected[name], members[name]) from None
        for name, attribute in zip(
            config.__struct_encode_fields__, config.__struct_fields__, strict=True
        ):
            value = getattr(config, attribute)
            if name in members and name in self._checks and value is not None:
                try:
                    self._checks[name](value)
                except ValueError as error:
                    raise ConfigError(path, name, str(error)) from None
        return config

    def _check_limits(self, path: str, name: str, value: float) -> None:
        low, high, noun = self._limits[name]
        if value < low:
            raise self._unexpected(path, name, f"{noun}, at least {low}", value)
        if not value <= high:
            raise self._unexpected(path, name, f"{noun}, at most {high}", value)

    def _unexpected(self, path: str, name: str, expected: str, value: Any) -> ConfigError:
        got = kind(value) if name in self._hidden else excerpt(value)
        return ConfigError(path, name, f"expected {expected}, got {got}")

    def _nearest(self, name: str) -> str:
        import difflib

        known = {known.lower(): known for known in self._known}
        close = difflib.get_close_matches(name.lower()[:64], known, n=1)
        return f"; did you mean {known[close[0]]}?" if close else ""
