"""The distinct values of the columns of a log, counted by many processes.

Each distinct value of a column belongs to a share of the column, by its hash, and all its counts
come together in one process. The values of the log need not fit in the memory of any process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ihas_jax.data.raw.counted import merged_counts
from ihas_jax.data.spark.cluster import exchange, shares, spread, to_bytes
from ihas_jax.data.spark.parts import Part
from ihas_jax.data.spark.splitters import Splitter
from ihas_jax.data.spark.spooling import Spooled
from ihas_jax.data.split import SPLITS

if TYPE_CHECKING:
    from pyspark import RDD, SparkContext

SHARE_BYTES = 1 << 27
Counted = tuple[int, bytes]
"""The number of a column, and a frame of `value`, `count` and perhaps `train`, training rows."""


@dataclass(frozen=True)
class Keys:
    """Numbers the shares of all columns.

    Attributes:
      counts: The shares of each column.
      tasks: The number of tasks that work on them.
    """

    counts: tuple[int, ...]
    tasks: int

    def column(self, key: int) -> int:
        """The column of a share."""
        return int(np.searchsorted(np.cumsum(self.counts), key, side="right"))

    def pairs(self, column: int, frame: pl.DataFrame) -> Iterator[tuple[int, bytes]]:
        """The rows of a frame by the key of their share."""
        before = [0, *accumulate(self.counts)][column]
        for share, rows in shares(frame, self.counts[column]):
            yield before + share, to_bytes(rows)


def share_out(context: SparkContext, units: Sequence[Spooled], columns: Sequence[int]) -> Keys:
    """The shares of some columns by the memory of their values; other columns have none."""
    sizes = np.sum([unit.bytes for unit in units], axis=0)
    counts = [1 + int(size) // SHARE_BYTES if n in columns else 0 for n, size in enumerate(sizes)]
    large = 1 + int(sizes[list(columns)].sum()) // SHARE_BYTES
    return Keys(tuple(counts), min(sum(counts), max(large, context.defaultParallelism)))


def count_values(
    context: SparkContext,
    parts: Sequence[Part],
    splitter: Splitter,
    columns: Sequence[int],
    quantile: Sequence[int],
    keys: Keys,
) -> RDD[Counted]:
    """Counts the distinct values of columns, and the training rows of those in `quantile`.

    The bins of a quantile field whose training rows are not counted come from all rows.
    """
    work = partial(_count_part, splitter, tuple(columns), frozenset(quantile), keys)
    counted = spread(context.parallelize(parts, len(parts)), work)
    return exchange(counted, keys.tasks, partial(_merge, keys, merged_counts))


def _count_part(
    splitter: Splitter,
    columns: tuple[int, ...],
    quantile: frozenset[int],
    keys: Keys,
    part: Part,
) -> Iterator[tuple[int, bytes]]:
    """The counts of the values of a part, by the keys of their shares."""
    frames: dict[int, list[pl.DataFrame]] = {number: [] for number in columns}
    for chunk, splits in splitter(part):
        train = splits == SPLITS.index("train")
        for number in columns:
            codes, values = chunk.columns[number]
            counts = {"value": values, "count": np.bincount(codes, minlength=len(values))}
            if number in quantile:
                counts["train"] = np.bincount(codes[train], minlength=len(values))
            frames[number].append(pl.DataFrame(counts).filter(pl.col("count") > 0))
    for number, own in frames.items():
        if own:
            yield from keys.pairs(number, merged_counts(own))


def _merge(
    keys: Keys,
    merge: Callable[[Sequence[pl.DataFrame]], pl.DataFrame],
    key: int,
    frames: Sequence[pl.DataFrame],
) -> Counted:
    return keys.column(key), to_bytes(merge(frames))
