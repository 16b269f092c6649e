"""PRNG keys of the rows of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
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
