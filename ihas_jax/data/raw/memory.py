"""Ids of the values of single rows that were seen before.

Spelling and looking up a row by data frames takes a millisecond, however few values it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_PLAIN = frozenset({str, int, float, bool, type(None)})
_MOST, _LONGEST = 1 << 14, 64
"""How many values of a field are remembered, and the characters of the longest."""


class Memory:
    """The ids of values of each field, as an encoder found them."""

    def __init__(self, names: Sequence[str], warned: Sequence[bool]) -> None:
        """An empty memory.

        Args:
          names: The names of the N fields.
          warned: For each field, whether a missing value may be worth a warning; such values are
            not remembered.
        """
        self._fields = [(name, dict[tuple[type, Any], int]()) for name in names]
        self._warned = warned

    def recall(self, row: Mapping[str, Any]) -> tuple[np.ndarray, list[int]] | None:
        """The ids [1, N] int32 of one row, and the numbers of the fields that lack theirs.

        None where a value is missing or no plain scalar, as in a mapping of columns.
        """
        ids, unknown = np.empty((1, len(self._fields)), np.int32), []
        for number, (name, known) in enumerate(self._fields):
            value = row.get(name, _PLAIN)
            if type(value) not in _PLAIN:
                return None
            found = known.get(_key(value))
            if found is None:
                unknown.append(number)
            else:
                ids[0, number] = found
        return ids, unknown

    def remember(self, row: Mapping[str, Any], ids: np.ndarray, numbers: Sequence[int]) -> None:
        """Remembers some of the ids [N] of one row, by the numbers of their fields."""
        for number in numbers:
            name, known = self._fields[number]
            value = row[name]
            kind, spelled = _key(value)
            missing = spelled is None and self._warned[number]
            if missing or (isinstance(value, str) and len(value) > _LONGEST):
                continue
            if len(known) >= _MOST:
                known.clear()
            known[kind, spelled] = int(ids[number])


def _key(value: Any) -> tuple[type, Any]:
    """A scalar apart from equal ones of other types; a NaN, which equals nothing, as None."""
    return type(value), value if value == value else None
