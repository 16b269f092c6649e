"""The kinds and the vocabularies of a spooled log, one field at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from ihas_jax.data.raw.canonical import fits_kind, read_numbers, read_times, spell
from ihas_jax.data.raw.spool import Spool
from ihas_jax.data.schema import CategoryKind, Field, FieldKind, Rule
from ihas_jax.errors import InputError

_PART_BYTES = 1 << 28
_FIRST = 100


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
            seen.share(_spelled(frame, kind, missing, edges), part) for frame in seen.frames()
        ]
        counts = seen.merge(spelled)
        rows += int(counts["count"].sum())
        kept.append(counts.filter(pl.col("count") >= least))
        known += int(kept[-1]["count"].sum())
    values = pl.concat(kept).sort("count", "value", descending=[True, False])["value"]
    return Field(name, tuple(values.to_list()), kind, edges, 1 - known / rows if rows else None)


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
        return pl.concat(frames).lazy().group_by("value").agg(pl.col("count").sum()).collect()

    def _chunks(self) -> Iterator[pl.DataFrame]:
        for frame in self._spool.counts(self._number):
            yield frame.filter(pl.col("count") > 0)


def find_kind(seen: _Seen, missing: tuple[str, ...] = ()) -> CategoryKind:
    """Finds the kind that fits all values of a column: integer, boolean, float, time, or text.

    Truth values and the numbers 0 and 1 in one column are booleans. A column of numbers is text
    if two of its spellings would be one number, such as the versions 1.1 and 1.10 (but not 3 and
    3.0).
    """
    kinds: list[CategoryKind] = ["integer", "boolean", "float", "time"]
    empty = True
    for texts in seen.texts(missing):
        for some in (texts.head(_FIRST), texts):  # a few values rule out most kinds
            kinds = [kind for kind in kinds if fits_kind(some, kind)]
        if not kinds:
            return "text"
        empty = empty and not (spell(texts, kinds[0]) != "").any()
    if empty:
        return "text"
    if kinds[0] not in ("integer", "float"):
        return kinds[0]
    for part in range(seen.parts):
        pairs = pl.concat(
            seen.share(pl.DataFrame({"value": spell(t, kinds[0]), "text": spell(t, "text")}), part)
            for t in seen.texts(missing)
        ).filter(pl.col("value") != "")
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
    """Finds the inner edges that cut a column of numbers into bins of about equally many rows.

    A number that fills a bin alone is an edge, so that up to `bins` distinct numbers have a bin
    each. There are fewer bins if they would have fewer than `min_count` rows on average.
    """
    seen, done = [], 0
    for codes, values in spool.column(number):
        here = slice(done, done + len(codes))
        used = codes if train is None else codes[train[here]]
        weights = np.bincount(used, minlength=len(values))
        frame = pl.DataFrame({"text": values, "rows": weights})
        frame = frame.filter(~pl.col("text").is_in(missing)) if missing else frame
        seen.append(frame.select("rows", number=read_numbers(frame["text"])))
        done = here.stop
    absent = read_numbers(pl.Series(missing, dtype=pl.String)).drop_nulls()
    used_rows = pl.col("number").is_not_null() & (pl.col("rows") > 0)
    counts = pl.concat(seen).filter(used_rows & ~pl.col("number").is_in(absent.implode()))
    counts = counts.group_by("number").agg(pl.col("rows").sum()).sort("number")
    below = counts["rows"].cum_sum().to_numpy()
    if not len(below):
        return ()
    bins = min(bins, max(int(below[-1]) // min_count, 1))
    places = np.searchsorted(below, below[-1] * np.arange(1, bins) / bins, side="right")
    return tuple(counts["number"].gather(np.unique(places[places > 0])).to_list())


def rank_column(spool: Spool, number: int, time_format: str | None = None) -> np.ndarray:
    """The rank [n] uint32 of the value of each row, by number if all values are numbers.

    Raises:
      InputError: The values are numbers in some rows and times in others.
    """
    distinct = pl.concat(_Seen(spool, number).texts()).unique()
    numbers, times = read_times(distinct, time_format)
    order = times if numbers.null_count() else numbers
    if order.null_count():
        number, time = (distinct.filter(kind.is_not_null())[0] for kind in (numbers, times))
        raise InputError(
            f"the column of the time holds numbers, such as {number!r}, and times, such as "
            f"{time!r}; a chronological split needs one kind in every row"
        )
    ranks = pl.DataFrame({"value": distinct, "rank": order.rank("dense").cast(pl.UInt32)})
    parts = []
    for codes, values in spool.column(number):
        placed = values.to_frame("value").join(ranks, on="value", how="left", maintain_order="left")
        parts.append(placed["rank"].to_numpy()[codes])
    return np.concatenate(parts)


def _spelled(
    frame: pl.DataFrame, kind: FieldKind, missing: tuple[str, ...], edges: tuple[float, ...]
) -> pl.DataFrame:
    """Spells the counted values; reading has spelled the values of numeric fields already."""
    values = frame["value"]
    spelled = values
    if kind != "numeric":
        spelled = spell(values, kind, missing=missing, edges=edges)
    return frame if spelled is values else frame.with_columns(value=spelled)
