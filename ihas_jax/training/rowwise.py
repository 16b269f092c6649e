"""Row-wise Adam: an embedding table's update that reads and writes only the rows of a batch.

A dense update works on the whole `[V, d]` table at every step. A row-wise update works on the
distinct rows of the batch, so its time does not grow with V. Rows that occur several times are
found without a sort: each position writes its number into a `[V]` scratch vector, and the position
that reads its own number back represents the row.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
_CHUNK_ROWS = 4096


class RowAdam(NamedTuple):
    """One table and its Adam moments.

    Attributes:
      table: `[V, d]`.
      mean: `[V, d]` running mean of the gradients.
      square: `[V, d]` running mean of their squares.
      scratch: `[V]` int32, of any content; a new one per step would touch all V rows.
    """

    table: Array
    mean: Array
    square: Array
    scratch: Array


def init_row_adam(table: Array) -> RowAdam:
    """A table with fresh moments."""
    scratch = jnp.zeros(table.shape[0], jnp.int32)
    return RowAdam(table, jnp.zeros_like(table), jnp.zeros_like(table), scratch)


def update_rows(
    state: RowAdam,
    index: Array,
    gradients: Array,
    count: Array,
    learning_rate: Array | float,
    l2: float,
) -> RowAdam:
    """One step of Adam on the rows that occur in a batch.

    Gradients of equal rows are summed first. Moments of other rows do not decay, and L2 is
    added to the gradients of the batch's rows only. With `l2` 0 this is torch's SparseAdam, but
    for epsilon, which is added after the bias correction, as in torch's Adam.

    Args:
      state: the table and its moments.
      index: `[P]` int32, the rows of a batch, each in 0..V-1, or V for one that is left out.
      gradients: `[P, d]` gradient at each position.
      count: `[]` number of this step, from 1 on, for the bias correction.
      learning_rate: `[]`, the learning rate.
      l2: the coefficient of the L2 term.
    """
    bias = jnp.sqrt(1 - BETA2 ** count.astype(gradients.dtype))
    rate = learning_rate * bias / (1 - BETA1 ** count.astype(gradients.dtype))
    # dividing bias through: m / c1 / (sqrt(v) / bias + eps) = m * (bias / c1) / (sqrt(v) + ...)
    scales = jnp.stack([rate, EPSILON * bias])[None]
    return RowAdam(*_update(l2)(*state, index, gradients, scales))


def _update(l2: float) -> custom_vmap:
    """`(table, mean, square, scratch, index, gradients, scales) -> (table, ...)`.

    The table may be S tables of V / S rows on top of each other, then `scales` is `[S, 2]`. So a
    `vmap` over seeds is one update of one larger table; batching the loop itself would copy
    every table in each of its rounds.
    """

    @custom_vmap
    def update(
        table: Array,
        mean: Array,
        square: Array,
        scratch: Array,
        index: Array,
        gradients: Array,
        scales: Array,
    ) -> tuple[Array, ...]:
        size = len(index)
        scratch, first, chosen, number, chunk = _deduplicate(scratch, index)
        # each representative adds the gradients of its row's other positions to its own
        others = jnp.where(first == jnp.arange(size, dtype=jnp.int32), size, first)
        totals = gradients.at[others].add(gradients, mode="drop")

        def body(start: Array, tables: list[Array]) -> list[Array]:
            place = lax.dynamic_slice(chosen, (start,), (chunk,))
            source, g = (_read(leaf, jnp.minimum(place, size - 1)) for leaf in (index, totals))
            target = jnp.where(place < size, source, len(scratch))
            w, m, v = (_read(leaf, source) for leaf in tables)
            g = g + l2 * w
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * g * g
            scale = scales[source // (len(scratch) // len(scales))]
            w = w - scale[:, :1] * m / (jnp.sqrt(v) + scale[:, 1:])
            return [
                old.at[target].set(new, mode="drop")
                for old, new in zip(tables, (w, m, v), strict=True)
            ]

        tables = [table, mean, square]
        if chunk == len(chosen):
            return (*body(jnp.int32(0), tables), scratch)
        _, tables = lax.while_loop(
            lambda carry: carry[0] < number,
            lambda carry: (carry[0] + chunk, body(*carry)),
            (jnp.int32(0), tables),
        )
        return (*tables, scratch)

    @update.def_vmap
    def over_tables(
        axis_size: int, in_batched: list[bool], *arguments: Array
    ) -> tuple[tuple[Array, ...], tuple[bool, ...]]:
        stacked = [
            leaf if batched else jnp.broadcast_to(leaf, (axis_size, *leaf.shape))
            for leaf, batched in zip(arguments, in_batched, strict=True)
        ]
        table, index = stacked[0], stacked[4]
        rows = table.shape[1]
        places = index + rows * jnp.arange(axis_size, dtype=index.dtype)[:, None]
        stacked[4] = jnp.where(index < rows, places, axis_size * rows)
        merged = update(*(leaf.reshape(-1, *leaf.shape[2:]) for leaf in stacked))
        split = tuple(leaf.reshape(axis_size, -1, *leaf.shape[1:]) for leaf in merged)
        return split, (True,) * len(split)

    return update


def _read(leaf: Array, places: Array) -> Array:
    return leaf.at[places].get(mode="promise_in_bounds")


def _deduplicate(scratch: Array, index: Array) -> tuple[Array, Array, Array, Array, int]:
    """Chooses one position of each distinct row of a batch.

    Returns:
      The scratch vector; `[P]` the chosen position of each position's row; the chosen positions,
      padded to whole chunks with P; how many they are; and the length of a chunk.
    """
    size, chunk = len(index), _CHUNK_ROWS
    # a loop of unknown length costs an accelerator more than the padding
    if jax.default_backend() != "cpu" or size < chunk:
        chunk = size
    positions = jnp.arange(size, dtype=jnp.int32)
    scratch = scratch.at[index].set(positions, mode="drop")
    first = scratch.at[index].get(mode="fill", fill_value=size)
    ranks = jnp.cumsum(first == positions, dtype=jnp.int32)
    padded = -(-size // chunk) * chunk
    places = jnp.where(first == positions, ranks - 1, padded)
    chosen = jnp.full(padded, size, jnp.int32).at[places].set(positions, mode="drop")
    return scratch, first, chosen, ranks[-1], chunk
