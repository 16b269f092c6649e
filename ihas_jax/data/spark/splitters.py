"""The splits of the rows of a part: those that `prepare` gives the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from ihas_jax.data.raw.canonical import read_numbers, read_times
from ihas_jax.data.raw.logs import Chunk
from ihas_jax.data.raw.vocabulary import time_order
from ihas_jax.data.spark.parts import Part
from ihas_jax.data.split import SPLITS, random_splits, split_counts

Splits = Iterator[tuple[Chunk, np.ndarray]]
"""Chunks, each with the split [n] uint8 of its rows."""


class Splitter(Protocol):
    """Puts every row into one of `SPLITS`."""

    def __call__(self, part: Part) -> Splits:
        """The chunks of a part and the splits of their rows."""


@dataclass(frozen=True)
class AllTest:
    """Puts every row into the test split."""

    def __call__(self, part: Part) -> Splits:
        """The chunks of a part and the splits of their rows."""
        for _, chunk in part.chunks():
            yield chunk, np.full(len(chunk.labels), SPLITS.index("test"), np.uint8)


@dataclass(frozen=True)
class AtRandom:
    """The splits of `assign_splits`; `cuts` are those of `random_cuts`."""

    seed: int
    cuts: tuple[int, int]

    def __call__(self, part: Part) -> Splits:
        """The chunks of a part and the splits of their rows."""
        for first, chunk in part.chunks():
            yield chunk, random_splits(first, len(chunk.labels), self.seed, self.cuts)


@dataclass(frozen=True)
class InOrder:
    """The earliest of `rows` rows are for training, and the latest for test."""

    rows: int

    def __call__(self, part: Part) -> Splits:
        """The chunks of a part and the splits of their rows."""
        train, valid, _ = split_counts(self.rows)
        for first, chunk in part.chunks():
            rows = first + np.arange(len(chunk.labels))
            yield chunk, (rows >= train).view(np.uint8) + (rows >= train + valid)


class Boundary(NamedTuple):
    """The place between two splits in the order of time.

    Attributes:
      key: The time at which the earlier split ends, in the form that sorts.
      within: The rows of that time that are in the earlier split.
    """

    key: Any
    within: int


@dataclass(frozen=True)
class ByTime:
    """The splits of `chronological_splits` by the last column of the chunks.

    Attributes:
      kind: The type of the form of times that sorts: Int128, Float64 or String.
      time_format: The format of times, in the letters of strftime, or None.
      boundaries: The ends of the training split and of the validation split.
      ties: For each part, the rows of earlier parts at the time of either boundary.
    """

    kind: pl.DataType
    time_format: str | None
    boundaries: tuple[Boundary, Boundary]
    ties: tuple[tuple[int, int], ...] = ()

    def __call__(self, part: Part) -> Splits:
        """The chunks of a part and the splits of their rows."""
        before = list(self.ties[part.number])
        for _, chunk in part.chunks():
            splits = np.zeros(len(chunk.labels), np.uint8)
            for place, (later, equal) in enumerate(self._compare(chunk)):
                numbers = before[place] + np.cumsum(equal) - 1
                splits += later | (equal & (numbers >= self.boundaries[place].within))
                before[place] += int(equal.sum())
            yield chunk, splits

    def count_ties(self, part: Part) -> tuple[int, int]:
        """The rows of a part at the time of either boundary."""
        ties = np.zeros(2, np.int64)
        for _, chunk in part.chunks():
            ties += [equal.sum() for _, equal in self._compare(chunk)]
        return int(ties[0]), int(ties[1])

    def _compare(self, chunk: Chunk) -> list[tuple[np.ndarray, np.ndarray]]:
        """Which rows [n] are later than a boundary, and which are at its time, for each."""
        codes, values = chunk.columns[-1]
        if self.kind == pl.String:
            keys = read_times(values, self.time_format)[1]
        else:
            keys = read_numbers(values) if self.kind == pl.Float64 else values.cast(pl.Int128)
        ends = (pl.Series([boundary.key], dtype=self.kind) for boundary in self.boundaries)
        return [((keys > end).to_numpy()[codes], (keys == end).to_numpy()[codes]) for end in ends]


def find_boundaries(times: pl.DataFrame, time_format: str | None) -> ByTime:
    """Finds the boundaries of the splits; ties are yet to be counted.

    Args:
      times: The distinct times as text, `value`, and the rows of each, `count`.
      time_format: The format of times, in the letters of strftime, or None.

    Raises:
      InputError: Some times are numbers, and others are not.
    """
    order = time_order(times["value"], time_format)
    counts = pl.DataFrame({"key": order, "count": times["count"]})
    counts = counts.group_by("key").agg(pl.col("count").sum()).sort("key")
    ends = counts["count"].cum_sum().to_numpy()
    train, valid, _ = split_counts(int(ends[-1]))
    places = np.searchsorted(ends, (train, train + valid), side="right")
    found = [
        Boundary(counts["key"][int(place)], int(row - ends[place] + counts["count"][int(place)]))
        for place, row in zip(places, (train, train + valid), strict=True)
    ]
    return ByTime(order.dtype, time_format, (found[0], found[1]))


def sum_ties(ties: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The sums of the ties of the parts before each part."""
    return tuple(_running(ties))


def _running(ties: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    first = second = 0
    for one, other in ties:
        yield first, second
        first, second = first + one, second + other
