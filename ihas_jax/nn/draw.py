"""Rows of a random array that is too large to be drawn as a whole.

JAX draws number i of an array from the key and i alone (`jax_threefry_partitionable`), so a device
can draw its own rows, and they are those of the whole array to the last bit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.random import threefry_2x32

from ihas_jax.errors import InputError

_HALF = 16


def bits_of_rows(key: Array, first: Array, shape: tuple[int, int], before: int = 0) -> Array:
    """`jax.random.bits(key, (n,))` at the numbers of some rows, `[rows, width]` uint32.

    Args:
      key: a PRNG key of JAX's default kind.
      first: `[]`, the first of the rows.
      shape: the number of rows, and their width, less than 2^16.
      before: numbers of the draw before row 0.

    Raises:
      InputError: the key is of another kind.
    """
    kind = str(jax.random.key_impl(key))
    if kind != "threefry2x32":
        raise InputError(
            f"Tables that devices split are drawn with keys of the kind threefry2x32, not {kind}. "
            "Set jax_default_prng_impl to threefry2x32, or --train.table-sharding replicated."
        )
    rows, width = shape
    row = first.astype(jnp.uint32) + jnp.arange(rows, dtype=jnp.uint32)
    # row * width in two words, since there is no uint64
    upper, lower = (row >> _HALF) * width, (row & (1 << _HALF) - 1) * width
    low = (upper << _HALF) + lower
    high = (upper >> _HALF) + (low < lower)
    column = jnp.arange(width, dtype=jnp.uint32)
    place = low[:, None] + column
    high = high[:, None] + (place < column)
    start = np.uint32(before & 0xFFFFFFFF)
    number = place + start
    high = high + np.uint32(before >> 32) + (number < start)
    words = jnp.concatenate([high.ravel(), number.ravel()]).astype(jnp.uint32)
    drawn = threefry_2x32(jax.random.key_data(key), words).reshape(2, rows, width)
    return drawn[0] ^ drawn[1]


def as_uniform(bits: Array, low: float, high: float) -> Array:
    """What `jax.random.uniform` makes of random bits: float32 in `[low, high)`."""
    numbers = lax.bitcast_convert_type((bits >> 9) | np.uint32(0x3F800000), jnp.float32) - 1
    least, most = np.float32(low), np.float32(high)
    return jnp.maximum(least, numbers * (most - least) + least)


def as_normal(bits: Array) -> Array:
    """What `jax.random.normal` makes of random bits: float32."""
    least = float(np.nextafter(np.float32(-1), np.float32(0)))
    return np.float32(np.sqrt(2)) * lax.erf_inv(as_uniform(bits, least, 1.0))
