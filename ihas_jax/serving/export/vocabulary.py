"""The vocabularies of a bundle as JSON, for encoders in any language."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from ihas_jax.data.raw.canonical import bin_names, read_numbers, spell
from ihas_jax.data.schema import Field, Schema


def vocabulary(schema: Schema) -> dict[str, Any]:
    """The fields in the order of the ids, JSON-ready.

    Each has its `name` and `kind`, `ids` by the spelling of a value, and the id of all `other`
    values. A field of floats has `numbers` too, pairs of a number and its id; a quantile field has
    the `edges` of its bins and the id of each of the `bins` between them.
    """
    return {"missing": schema.missing, "fields": [_field(field) for field in schema.fields]}


def _field(field: Field) -> dict[str, Any]:
    ids = {value: number for number, value in enumerate(field.values)}
    bins = bin_names(field.edges) if field.kind == "quantile" else []
    return {
        "name": field.name,
        "kind": field.kind,
        "other": field.other,
        "edges": field.edges,
        "bins": [ids.get(name, field.other) for name in bins],
        "numbers": _numbers(ids) if field.kind == "float" else [],
        "ids": ids,
    }


def _numbers(ids: dict[str, int]) -> list[tuple[float, int]]:
    """The numbers that are spelled as a value: the one that it says, and that as a Float32.

    A Float32 has the same spelling as the Float64 that it was made of.
    """
    said = read_numbers(pl.Series([*ids], dtype=pl.String)).drop_nulls().unique()
    with np.errstate(over="ignore"):
        narrow = said.cast(pl.Float32).cast(pl.Float64)
    numbers = [n for n in {*said.to_list(), *narrow.to_list()} if np.isfinite(n)]
    spelled = spell(pl.Series(map(repr, sorted(numbers)), dtype=pl.String), "float")
    found = zip(sorted(numbers), spelled.to_list(), strict=True)
    return [(number, ids[text]) for number, text in found if text in ids]
