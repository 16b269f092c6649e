"""Random numbers of the rows of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def row_keys(key: Array, rows: int, first_row: Array | int = 0) -> Array:
    """Keys `[rows]`; row i has `fold_in(key, first_row + i)`.

    A row then draws the same noise whichever device has it.

    Args:
      key: PRNG key of the whole batch.
      rows: rows on this device.
      first_row: place of the first of them in the whole batch.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first_row + jnp.arange(rows))


def fixed_draws(index: Array) -> Array:
    """Numbers `[B, N]` float32 from 0 to 1 (excluded) that look random, a function of each row.

    A row has the same numbers in every batch. They are a hash of 32 bits: a sum of the row times
    odd numbers, one of which marks the column, and the last steps of MurmurHash3.

    Args:
      index: `[B, N]` int32, such as the index of the row's values in the table.
    """
    columns = np.arange(1, index.shape[1] + 1, dtype=np.uint64) * 0x9E3779B1 | 1
    odd = jnp.asarray(columns.astype(np.uint32))
    bits = jnp.asarray(index).astype(jnp.uint32) * odd
    bits = bits.sum(axis=1, keepdims=True, dtype=jnp.uint32) ^ odd
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return ((bits ^ (bits >> 16)) >> 8).astype(jnp.float32) / 2**24
