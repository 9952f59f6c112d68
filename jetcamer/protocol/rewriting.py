"""A message's values, written anew in the styles of dialects.py, each text made from few parts.

In: JSON texts. Out: one object of them in another style, or nothing where that would cost too much:
what is done for one message is bounded by counts, whatever it holds. Only for finding out what was
signed by mistake; see diagnosis.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from jetcamer.protocol.dialects import FEW, Style, writers

__all__ = ["Rewriting"]

#: Characters that are looked at for escapes, at most. One that may be escaped counts twice, with
#: more for each that is another than those before; all count more where many are different.
_MAX_ESCAPED = 1 << 16
_OTHER_COST, _MANY_COST = 24, 8
#: Pieces that texts are put together from, at most, for all of them.
_MAX_PIECES = 2_000
_LEAST_PIECES = 8
#: Numbers that are written anew, and their characters.
_MAX_NUMBERS = 40
_MAX_NUMBERS_LENGTH = 1_024

#: Stand for a number, a comma and a colon: JSON text holds no such characters.
_NUMBER, _COMMA, _COLON = "\0", "\1", "\2"

_ESCAPED = re.compile("[\x7f-\U0010ffff<>&'+`=/]")


class _Number(NamedTuple):
    """A number of the payload, as it was spelled."""

    text: str


_TREE = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_Number)


class Rewriting:
    """:param texts: the members of the object. Raises ValueError for what is no JSON."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        whole = "".join(texts.values())
        #: Those that are worth trying.
        self.writers = writers(whole)
        self._values = {name: _TREE.decode(text) for name, text in texts.items()}
        specials = _ESCAPED.findall(whole)
        different = len(set(specials))
        self._cost = len(specials) + _OTHER_COST * different
        self._cost_of_each = _MANY_COST if different > FEW else 1
        self._escaped = self._pieces = 0
        self._walked: dict[tuple[str, ...], tuple[str, list[_Number | str]]] = {}
        self._templates: dict[tuple[str, ...], str | None] = {}
        self._spelled: dict[str, dict[str, str] | None] = {"": {}}

    def text(
        self, names: Sequence[str], sort: bool, strings: Style, number: Style, spaced: bool
    ) -> str | None:
        """The members `names`, in this order; None where it would cost too much.

        :param sort: the keys of objects within them.
        :param number: of the numbers in the payload; others stay as they are spelled.
        :param spaced: with a space after commas and colons.
        """
        key = (str(sort), *names)
        if key not in self._walked:
            self._walked[key] = self._walk(names, sort)
        text, numbers = self._walked[key]
        self._pieces += len(numbers) + _LEAST_PIECES
        if self._pieces > _MAX_PIECES:
            return None
        template = self._template(key, text, strings)
        spelled = self._numbers(numbers, number)
        if template is None or spelled is None:
            return None
        comma, colon = (", ", ": ") if spaced else (",", ":")
        parts = template.replace(_COMMA, comma).replace(_COLON, colon).split(_NUMBER)
        filled = [
            spelled.get(each.text, each.text) if isinstance(each, _Number) else each
            for each in numbers
        ]
        return "".join(chain.from_iterable(zip(parts, [*filled, ""], strict=True)))

    def _walk(self, names: Sequence[str], sort: bool) -> tuple[str, list[_Number | str]]:
        """The object with marks for numbers, commas and colons; and the numbers."""
        found: list[_Number | str] = []
        parts = []
        for name in names:
            numbers: list[_Number] = []
            parts.append(f'"{name}"{_COLON}{_marked(self._values[name], sort, numbers)}')
            found += numbers if name == "payload" else [each.text for each in numbers]
        return "{" + _COMMA.join(parts) + "}", found

    def _template(self, key: tuple[str, ...], text: str, strings: Style) -> str | None:
        key = (strings.words, *key)
        if key not in self._templates:
            if strings.words:
                self._escaped += self._cost_of_each * len(text) + self._cost
            affordable = self._escaped <= _MAX_ESCAPED
            self._templates[key] = strings.apply(text) if affordable else None
        return self._templates[key]

    def _numbers(self, numbers: list[_Number | str], style: Style) -> dict[str, str] | None:
        """What each of the payload's is in that style; all that are missing are unchanged."""
        if style.words not in self._spelled:
            few = {each.text for each in numbers if isinstance(each, _Number)}
            affordable = len(few) <= _MAX_NUMBERS and sum(map(len, few)) <= _MAX_NUMBERS_LENGTH
            found = {text: style.apply(text) for text in few} if affordable else None
            self._spelled[style.words] = found
        return self._spelled[style.words]


def _marked(value: Any, sort: bool, numbers: list[_Number]) -> str:
    """`value` with marks; its numbers are added to `numbers`."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, _Number):
        numbers.append(value)
        return _NUMBER
    if isinstance(value, dict):
        names = sorted(value) if sort else value
        parts = (
            json.dumps(name, ensure_ascii=False) + _COLON + _marked(value[name], sort, numbers)
            for name in names
        )
        return "{" + _COMMA.join(parts) + "}"
    if isinstance(value, list):
        return "[" + _COMMA.join([_marked(each, sort, numbers) for each in value]) + "]"
    return "null" if value is None else "true" if value else "false"
