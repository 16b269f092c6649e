"""A check that rows are spelled as in the log from which the vocabularies were counted.

Far more "other" values than in that log mean that a field comes from the wrong column, is spelled
in another way, or has changed its meaning. The look-up accepts such rows, since unknown values are
legal.
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
    """Far more values of a field are "other" than in the log of its vocabulary."""


class Drift(NamedTuple):
    """A field that looks wrong.

    Attributes:
      field: The name of the field.
      share: The share of "other" in the checked rows.
      counted: The share of "other" in the log of the vocabulary.
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

    A field is reported if there are 100 rows or more, the share of known values is less than half
    of the expected one, and the difference exceeds four standard deviations of chance.

    Args:
      schema: Its fields give the expected `other_share`; fields without one are not judged.
      shares: The share of "other" in the checked rows, per field.
      rows: The number of checked rows.
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
    """Describes the fields that `find_drift` found, in one paragraph."""
    return (
        f"{'; '.join(map(str, drifts))}. Is the column another one than in the log of the schema, "
        "or is it written in another way?"
    )
