"""The vocabularies of a spooled log, one field at a time."""

from __future__ import annotations

import numpy as np
import polars as pl

from ihas_jax.data.schema import Field, FieldKind
from ihas_jax.data.spool import Spool
from ihas_jax.errors import InputError

_PART_BYTES = 1 << 28


def count_field(spool: Spool, number: int, name: str, kind: FieldKind, min_count: int) -> Field:
    """The field whose values were seen in `min_count` rows or more, by count, then by bytes.

    A field with more values than fit in memory is counted in parts, by the values' hashes.
    """
    parts = 1 + spool.size(number) // _PART_BYTES
    kept = []
    for part in range(parts):
        seen = pl.concat(_part(frame, part, parts) for frame in spool.counts(number))
        counts = seen.lazy().group_by("value").agg(pl.col("count").sum())
        kept.append(counts.filter(pl.col("count") >= min_count).collect())
    values = pl.concat(kept).sort("count", "value", descending=[True, False])["value"]
    return Field(name, tuple(values.to_list()), kind)


def rank_column(spool: Spool, number: int) -> np.ndarray:
    """The place [n] uint32 of each row's value in the order of all: of numbers if all are.

    Raises:
      InputError: The values are numbers in some rows and text, or nothing, in others.
    """
    seen = pl.concat(spool.counts(number)).filter(pl.col("count") > 0)
    distinct = seen["value"].unique()
    # whole numbers first: nanoseconds since 1970 have more digits than a Float64
    order = distinct.cast(pl.Int64, strict=False)
    if order.null_count():
        order = distinct.cast(pl.Float64, strict=False).fill_nan(None)
    if 0 < order.null_count() < len(distinct) or (distinct == "").any():
        odd = "" if (distinct == "").any() else distinct.filter(order.is_null())[0]
        raise InputError(
            f"the column of the time holds numbers, but also {odd!r}; a chronological split needs "
            "numbers, or text that sorts, in every row"
        )
    if order.null_count():
        order = distinct
    ranks = pl.DataFrame({"value": distinct, "rank": order.rank("dense").cast(pl.UInt32)})
    parts = []
    for codes, values in spool.column(number):
        placed = values.to_frame("value").join(ranks, on="value", how="left", maintain_order="left")
        parts.append(placed["rank"].to_numpy()[codes])
    return np.concatenate(parts)


def _part(frame: pl.DataFrame, part: int, parts: int) -> pl.DataFrame:
    if parts == 1:
        return frame
    own = frame.filter(pl.col("value").hash(0) % parts == part)
    # text of its own, or the whole chunk's would stay in memory
    return own.with_columns(pl.concat_str(pl.col("value"), pl.lit("")))
