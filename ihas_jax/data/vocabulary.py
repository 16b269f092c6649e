"""The kinds and the vocabularies of a spooled log, one field at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from ihas_jax.data.canonical import fits_kind, read_numbers, read_times, spell
from ihas_jax.data.schema import CategoryKind, Field, FieldKind, Rule
from ihas_jax.data.spool import Spool
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
    """The field whose values were seen in `min_count` rows or more, by count, then by bytes.

    A quantile field has fewer bins where they would hold fewer rows, and keeps them all. A field
    with more values than fit in memory is counted in parts, by the values' hashes.

    Args:
      spool: The log.
      number: The column.
      name: The field's name.
      rule: How its raw values become categories.
      min_count: Values seen in fewer rows are left out.
      missing: Words that mean a missing value.
      train: [n] bool, the rows that the edges of bins are learnt from; None for all.
      bins: How many bins a quantile field has at most.
    """
    kind: FieldKind = find_kind(spool, number, missing) if rule == "category" else rule
    edges: tuple[float, ...] = ()
    if rule == "quantile":
        edges = find_edges(spool, number, missing, train, bins, min_count)
    least = 1 if rule == "quantile" else min_count
    kept, rows, known = [], 0, 0
    parts = 1 + spool.size(number) // _PART_BYTES
    for part in range(parts):
        spelled = _spelled(spool, number, kind, missing, edges, part, parts)
        counts = pl.concat(spelled).lazy().group_by("value").agg(pl.col("count").sum()).collect()
        rows += int(counts["count"].sum())
        kept.append(counts.filter(pl.col("count") >= least))
        known += int(kept[-1]["count"].sum())
    values = pl.concat(kept).sort("count", "value", descending=[True, False])["value"]
    return Field(name, tuple(values.to_list()), kind, edges, 1 - known / rows if rows else None)


def find_kind(spool: Spool, number: int, missing: tuple[str, ...] = ()) -> CategoryKind:
    """What the values of a column are, all of them: booleans, integers, floats, times, or text.

    A column of numbers is text where two of its spellings would be one number, such as the
    versions 1.1 and 1.10; spellings such as 3 and 3.0 aside.
    """
    kinds: list[CategoryKind] = ["boolean", "integer", "float", "time"]
    empty = True
    for texts in _texts(spool, number, missing):
        for some in (texts.head(_FIRST), texts):  # a few values rule out most kinds
            kinds = [kind for kind in kinds if fits_kind(some, kind)]
        if not kinds:
            return "text"
        empty = empty and not (spell(texts, kinds[0]) != "").any()
    if empty:
        return "text"
    if kinds[0] not in ("integer", "float"):
        return kinds[0]
    parts = 1 + spool.size(number) // _PART_BYTES
    for part in range(parts):
        pairs = pl.concat(
            _part(
                pl.DataFrame({"value": spell(t, kinds[0]), "text": spell(t, "text")}), part, parts
            )
            for t in _texts(spool, number, missing)
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
    """The inner edges that cut a column of numbers into bins of about equally many rows.

    A number that fills a bin alone is an edge, so that at most `bins` distinct numbers have a bin
    each. There are fewer bins where one would have fewer than `min_count` rows on average.
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
    counts = pl.concat(seen).filter(pl.col("number").is_not_null() & (pl.col("rows") > 0))
    counts = counts.group_by("number").agg(pl.col("rows").sum()).sort("number")
    below = counts["rows"].cum_sum().to_numpy()
    if not len(below):
        return ()
    bins = min(bins, max(int(below[-1]) // min_count, 1))
    places = np.searchsorted(below, below[-1] * np.arange(1, bins) / bins, side="right")
    return tuple(counts["number"].gather(np.unique(places[places > 0])).to_list())


def rank_column(spool: Spool, number: int, time_format: str | None = None) -> np.ndarray:
    """The place [n] uint32 of each row's value in the order of all: of numbers if all are.

    Raises:
      InputError: The values are numbers in some rows and times in others.
    """
    distinct = pl.concat(_texts(spool, number, ())).unique()
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


def _texts(spool: Spool, number: int, missing: tuple[str, ...]) -> Iterator[pl.Series]:
    """The distinct text of a column, chunk by chunk, but for what means a missing value."""
    for frame in spool.counts(number):
        texts = frame.filter(pl.col("count") > 0)["value"]
        yield texts.filter(~texts.is_in(missing)) if missing else texts


def _spelled(
    spool: Spool,
    number: int,
    kind: FieldKind,
    missing: tuple[str, ...],
    edges: tuple[float, ...],
    part: int,
    parts: int,
) -> Iterator[pl.DataFrame]:
    """The counts of a column's spelled values, chunk by chunk, of one part of the values."""
    for frame in spool.counts(number):
        seen = frame.filter(pl.col("count") > 0)
        values = spell(seen["value"], kind, missing=missing, edges=edges)
        yield _part(seen.with_columns(value=values), part, parts)


def _part(frame: pl.DataFrame, part: int, parts: int) -> pl.DataFrame:
    if parts == 1:
        return frame
    own = frame.filter(pl.col("value").hash(0) % parts == part)
    # text of its own, or the whole chunk's would stay in memory
    return own.with_columns(pl.concat_str(pl.col("value"), pl.lit("")))
