"""What the counted values of a column tell: its kind, its bins, and the order of its vocabulary.

The values may come in any number of frames, from one process or from many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from ihas_jax.data.raw.canonical import fits_kind, read_numbers, spell
from ihas_jax.data.schema import CategoryKind, FieldKind

KINDS: tuple[CategoryKind, ...] = ("integer", "boolean", "float", "time")
"""The kinds that a column may have if all its values fit, in order; any values fit text."""
_FIRST = 100


def fitting_kinds(texts: pl.Series, kinds: Sequence[CategoryKind] = KINDS) -> list[CategoryKind]:
    """Those of the kinds that fit all texts."""
    fitting = list(kinds)
    for some in (texts.head(_FIRST), texts):  # a few values rule out most kinds
        fitting = [kind for kind in fitting if fits_kind(some, kind)]
    return fitting


def holds_values(texts: pl.Series, kind: CategoryKind) -> bool:
    """Whether any of the texts, which fit the kind, is no missing value."""
    return bool((spell(texts, kind) != "").any())


def number_pairs(texts: pl.Series, kind: CategoryKind) -> pl.DataFrame:
    """The distinct pairs of the `value` of a number and the `text` that it would be as text."""
    pairs = pl.DataFrame({"value": spell(texts, kind), "text": spell(texts, "text")})
    return pairs.filter(pl.col("value") != "").unique()


def spelled_counts(
    frame: pl.DataFrame, kind: FieldKind, missing: tuple[str, ...], edges: tuple[float, ...]
) -> pl.DataFrame:
    """Spells the counted values; reading has spelled the values of numeric fields already."""
    values = frame["value"]
    spelled = values
    if kind != "numeric":
        spelled = spell(values, kind, missing=missing, edges=edges)
    return frame if spelled is values else frame.with_columns(value=spelled)


def merged_counts(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """One frame with each distinct `value` of some frames, and the sums of the other columns."""
    return pl.concat(frames).lazy().group_by("value").agg(pl.all().sum()).collect()


def vocabulary(kept: Sequence[pl.DataFrame]) -> tuple[str, ...]:
    """The distinct values of some frames, by `count`, the largest first, and then by bytes."""
    ordered = pl.concat(kept).sort("count", "value", descending=[True, False])
    return tuple(ordered["value"].to_list())


def number_counts(texts: pl.Series, rows: pl.Series, missing: tuple[str, ...]) -> pl.DataFrame:
    """The `number` that texts stand for and its `rows`, without missing values and empty counts.

    Args:
      texts: [n], distinct or not.
      rows: [n] integers, the rows of each text.
      missing: Words that mean a missing value; numbers among them are compared by value.
    """
    frame = pl.DataFrame({"text": texts, "rows": rows})
    frame = frame.filter(~pl.col("text").is_in(missing)) if missing else frame
    numbers = frame.select("rows", number=read_numbers(frame["text"]))
    absent = read_numbers(pl.Series(missing, dtype=pl.String)).drop_nulls()
    used = pl.col("number").is_not_null() & (pl.col("rows") > 0)
    numbers = numbers.filter(used & ~pl.col("number").is_in(absent.implode()))
    return numbers.group_by("number").agg(pl.col("rows").sum())


def cut_edges(counts: Sequence[pl.DataFrame], bins: int, min_count: int = 1) -> tuple[float, ...]:
    """The inner edges that cut numbers into bins of about equally many rows.

    A number that fills a bin alone is an edge, so that up to `bins` distinct numbers have a bin
    each. There are fewer bins if they would have fewer than `min_count` rows on average.

    Args:
      counts: Frames of `number` and `rows`, as `number_counts` makes them.
      bins: The largest number of bins.
      min_count: The fewest rows of a bin, on average.
    """
    merged = pl.concat(counts).group_by("number").agg(pl.col("rows").sum()).sort("number")
    below = merged["rows"].cum_sum().to_numpy()
    if not len(below):
        return ()
    bins = min(bins, max(int(below[-1]) // min_count, 1))
    places = np.searchsorted(below, below[-1] * np.arange(1, bins) / bins, side="right")
    return tuple(merged["number"].gather(np.unique(places[places > 0])).to_list())
