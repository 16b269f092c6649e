"""Compact embedding tables cut from full-size ones: the kept coordinates and their values."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.nn.embedding import EmbeddingSpec, Kept, Table


def carry_kept(kept: Kept, source: EmbeddingSpec, target: EmbeddingSpec) -> Kept:
    """The coordinates to keep in another model's table, given those kept in one.

    If the target has several vectors of the source's size side by side, each vector keeps these
    coordinates. If it has a single number per field, fields that keep nothing lose their number.

    Raises:
      ValueError: the source has several vectors per field and the target has other ones, or the
        target's vectors are of another size.
    """
    if target.dim == 1:
        return tuple((0,) if field else () for field in kept)
    if (source.dim, source.vectors_per_field) == (target.dim, target.vectors_per_field):
        return kept
    if source.vectors_per_field > 1:
        raise ValueError(f"it has {source.vectors_per_field} vectors for each field, not one")
    if source.dim * target.vectors_per_field != target.dim:
        raise ValueError(
            f"its vectors have {source.dim} coordinates, "
            f"not {target.dim // target.vectors_per_field}"
        )
    return tuple(
        tuple(v * source.dim + j for v in range(target.vectors_per_field) for j in field)
        for field in kept
    )


def slice_table(
    source: EmbeddingSpec,
    table: Table,
    target: EmbeddingSpec,
    values: np.ndarray | None = None,
) -> Table:
    """The kept part of a uniform table as the arrays of a compact one (warm start).

    Args:
      source: shape of the uniform table.
      table: its only array; if it is a NumPy array, those of the result are, too.
      target: shape of the compact one.
      values: `[V]` of bool, the values that have a row in the compact table; None if all have.
        The other values share a row of zeros.

    Raises:
      ValueError: `source` is not uniform or has other sizes, or `values` does not fit `target`.
    """
    uniform = source.kept is None and source.stored_values is None
    if not uniform or source.sizes != target.sizes or source.dim != target.dim:
        raise ValueError("slice_table needs a uniform source of the target's sizes and dim")
    if (values is None) != (target.stored_values is None):
        raise ValueError("slice_table needs values where the target lacks some, and only there")
    full = table[source.groups[0].name]
    starts = np.concatenate([[0], np.cumsum(source.sizes)])
    kept = target.kept or (tuple(range(target.dim)),) * len(target.sizes)

    def of_field(n: int) -> Array:
        part = slice(starts[n], starts[n + 1])
        rows = full[part] if values is None else full[part][values[part]]
        return rows[:, np.array(kept[n])]

    on_host = isinstance(full, np.ndarray)
    join: Any = np.concatenate if on_host else jnp.concatenate
    zeros: Any = np.zeros if on_host else jnp.zeros
    return {
        group.name: join(
            [zeros((0 if target.stored_values is None else 1, group.width), full.dtype)]
            + [of_field(n) for n in group.fields]
        )
        for group in target.groups
    }
