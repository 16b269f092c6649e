"""Whether rows are spelled as the log was that a schema was counted on.

A field in which far more rows are "other" than in that log is read from the wrong column, spelled
in another way, or has changed its meaning; the look-up itself can't tell, since a value that it
does not know is a legal one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ihas_jax.data.schema import Schema

FEWEST_ROWS = 100
_DEVIATIONS = 4.0


class OtherShareWarning(UserWarning):
    """Far more values of a field are "other" than when its values were counted."""


class Drift(NamedTuple):
    """A field that looks wrong.

    Attributes:
      field: Its name.
      share: The share of "other" in the rows at hand.
      counted: The share of "other" in the rows that its values were counted on.
    """

    field: str
    share: float
    counted: float

    def __str__(self) -> str:
        return f"{self.field}: {self.share:.1%} of the rows are other, {self.counted:.1%} expected"


def find_drift(schema: Schema, shares: Sequence[float], rows: int) -> list[Drift]:
    """The fields with far more "other" than expected.

    The rule: of 100 rows or more, fewer than half as many have a value with an id of its own as
    the counted share lets expect, and the difference is above four standard deviations of chance.

    Args:
      schema: Its fields' `other_share` is what to expect; fields without one are not judged.
      shares: The share of "other" in the rows at hand, per field.
      rows: How many rows these are.
    """
    if rows < FEWEST_ROWS:
        return []
    found = []
    for field, share in zip(schema.fields, shares, strict=True):
        counted = field.other_share
        if counted is None:
            continue
        chance = _DEVIATIONS * math.sqrt(counted * (1 - counted) / rows)
        if 1 - share < (1 - counted) / 2 and share - counted > chance:
            found.append(Drift(field.name, share, counted))
    return found


def describe_drift(drifts: Sequence[Drift]) -> str:
    """One paragraph on the fields that `find_drift` found."""
    return (
        f"{'; '.join(map(str, drifts))}. Is the column another one, or written in another way, "
        "than in the log that the schema was prepared from?"
    )
