"""Whether rows are spelled as the log was that a schema was counted on.

A field in which far more rows are "other" than in that log is read from the wrong column, spelled
in another way, or has changed its meaning; the look-up itself can't tell, since a value that it
does not know is a legal one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ihas_jax.data.dataset import Dataset
from ihas_jax.data.schema import Schema

FEWEST_ROWS = 100
_DEVIATIONS = 4.0
_BLOCK_ROWS = 1 << 18


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


def with_shares(data: Dataset) -> Schema:
    """The schema of a data set; fields that lack an `other_share` get that of the training rows."""
    fields, ids = data.schema.fields, data.train.ids
    if not len(ids) or all(field.other_share is not None for field in fields):
        return data.schema
    other = np.array([field.other for field in fields])
    counts = sum(
        (ids[start : start + _BLOCK_ROWS] == other).sum(0)
        for start in range(0, len(ids), _BLOCK_ROWS)
    )
    shares = (counts / len(ids)).tolist()
    return replace(
        data.schema,
        fields=tuple(
            field if field.other_share is not None else replace(field, other_share=share)
            for field, share in zip(fields, shares, strict=True)
        ),
    )


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
