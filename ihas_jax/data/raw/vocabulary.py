"""The kinds and the vocabularies of a spooled log, one field at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from ihas_jax.data.raw.canonical import read_times
from ihas_jax.data.raw.counted import (
    KINDS,
    cut_edges,
    fitting_kinds,
    holds_values,
    merged_counts,
    number_counts,
    number_pairs,
    spelled_counts,
    vocabulary,
)
from ihas_jax.data.raw.spool import Spool
from ihas_jax.data.schema import CategoryKind, Field, FieldKind, Rule
from ihas_jax.errors import InputError

_PART_BYTES = 1 << 28


def count_field(
    spool: Spool,
    number: int,
    name: str,
    rule: Rule,
    *,
    min_count: int,
    missing: tuple[str, ...] = (),
    train: np.ndarray | None = None,
    bins: int = 64,
) -> Field:
    """Makes a field of the values seen in `min_count` rows or more, sorted by count, then by bytes.

    A quantile field keeps all its bins; it has fewer if they would hold fewer rows than that.

    Args:
      spool: The log.
      number: The column.
      name: The name of the field.
      rule: The rule by which raw values become categories.
      min_count: Values seen in fewer rows are not kept.
      missing: Words that mean a missing value.
      train: [n] bool, the rows from which the edges of bins are computed; None for all.
      bins: The largest number of bins of a quantile field.
    """
    seen = _Seen(spool, number)
    kind: FieldKind = find_kind(seen, missing) if rule == "category" else rule
    edges: tuple[float, ...] = ()
    if rule == "quantile":
        edges = find_edges(spool, number, missing, train, bins, min_count)
    least = 1 if rule == "quantile" else min_count
    kept, rows, known = [], 0, 0
    for part in range(seen.parts):
        spelled = [
            seen.share(spelled_counts(frame, kind, missing, edges), part) for frame in seen.frames()
        ]
        counts = seen.merge(spelled)
        rows += int(counts["count"].sum())
        kept.append(counts.filter(pl.col("count") >= least))
        known += int(kept[-1]["count"].sum())
    return Field(name, vocabulary(kept), kind, edges, 1 - known / rows if rows else None)


class _Seen:
    """The distinct values of a spooled column and their counts.

    Values that do not fit in memory are read chunk by chunk and counted in parts, by their hashes.
    """

    def __init__(self, spool: Spool, number: int) -> None:
        self._spool, self._number = spool, number
        self.parts = 1 + spool.size(number) // _PART_BYTES
        self._merged: pl.DataFrame | None = None
        if self.parts == 1:
            self._merged = self.merge([*self._chunks()])

    def frames(self) -> Iterator[pl.DataFrame]:
        """The `value` and `count`, in one frame or several."""
        return self._chunks() if self._merged is None else iter((self._merged,))

    def texts(self, missing: tuple[str, ...] = ()) -> Iterator[pl.Series]:
        """The values without the words for a missing value."""
        for frame in self.frames():
            texts = frame["value"]
            yield texts.filter(~texts.is_in(missing)) if missing else texts

    def share(self, frame: pl.DataFrame, part: int) -> pl.DataFrame:
        """The rows of a frame whose `value` belongs to a part."""
        if self.parts == 1:
            return frame
        own = frame.filter(pl.col("value").hash(0) % self.parts == part)
        # a copy of the text, since views would keep the text of the whole chunk in memory
        return own.with_columns(pl.concat_str(pl.col("value"), pl.lit("")))

    def merge(self, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Merges frames into one with distinct values."""
        if len(frames) == 1 and frames[0] is self._merged:
            return frames[0]
        return merged_counts(frames)

    def _chunks(self) -> Iterator[pl.DataFrame]:
        for frame in self._spool.counts(self._number):
            yield frame.filter(pl.col("count") > 0)


def find_kind(seen: _Seen, missing: tuple[str, ...] = ()) -> CategoryKind:
    """Finds the kind that fits all values of a column: integer, boolean, float, time, or text.

    Truth values and the numbers 0 and 1 in one column are booleans. A column of numbers is text
    if two of its spellings would be one number, such as the versions 1.1 and 1.10 (but not 3 and
    3.0).
    """
    kinds, empty = list(KINDS), True
    for texts in seen.texts(missing):
        kinds = fitting_kinds(texts, kinds)
        if not kinds:
            return "text"
        empty = empty and not holds_values(texts, kinds[0])
    if empty:
        return "text"
    if kinds[0] not in ("integer", "float"):
        return kinds[0]
    for part in range(seen.parts):
        pairs = pl.concat(seen.share(number_pairs(t, kinds[0]), part) for t in seen.texts(missing))
        if pairs.unique()["value"].is_duplicated().any():
            return "text"
    return kinds[0]


def find_edges(
    spool: Spool,
    number: int,
    missing: tuple[str, ...],
    train: np.ndarray | None,
    bins: int,
    min_count: int = 1,
) -> tuple[float, ...]:
    """Finds the inner edges of the bins of a column of numbers, see `cut_edges`."""
    seen, done = [], 0
    for codes, values in spool.column(number):
        here = slice(done, done + len(codes))
        used = codes if train is None else codes[train[here]]
        weights = np.bincount(used, minlength=len(values))
        seen.append(number_counts(values, pl.Series(weights), missing))
        done = here.stop
    return cut_edges(seen, bins, min_count)


def rank_column(spool: Spool, number: int, time_format: str | None = None) -> np.ndarray:
    """The rank [n] uint32 of the value of each row, by number if all values are numbers.

    Raises:
      InputError: The values are numbers in some rows and times in others.
    """
    distinct = pl.concat(_Seen(spool, number).texts()).unique()
    order = time_order(distinct, time_format)
    ranks = pl.DataFrame({"value": distinct, "rank": order.rank("dense").cast(pl.UInt32)})
    parts = []
    for codes, values in spool.column(number):
        placed = values.to_frame("value").join(ranks, on="value", how="left", maintain_order="left")
        parts.append(placed["rank"].to_numpy()[codes])
    return np.concatenate(parts)


def time_order(texts: pl.Series, time_format: str | None = None) -> pl.Series:
    """Numbers or text of the length of `texts` that sort as the times that these are.

    Raises:
      InputError: The values are numbers in some rows and times in others.
    """
    numbers, times = read_times(texts, time_format)
    order = times if numbers.null_count() else numbers
    if order.null_count():
        number, time = (texts.filter(kind.is_not_null())[0] for kind in (numbers, times))
        raise InputError(
            f"the column of the time holds numbers, such as {number!r}, and times, such as "
            f"{time!r}; a chronological split needs one kind in every row"
        )
    return order
