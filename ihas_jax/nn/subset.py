"""Subsets of a table's values, to find stored rows at two bits per value instead of an int32.

An int32 per value would be 6 % of an embedding of 16 coordinates, for every value removed or not.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_BITS = 32


class Subset(NamedTuple):
    """Which of V values are chosen.

    Attributes:
      bits: `[ceil(V / 32)]` uint32; bit i of word w says whether value 32 w + i is chosen.
      ranks: `[ceil(V / 32)]` int32, the number of chosen values before each word.
    """

    bits: Array | np.ndarray
    ranks: Array | np.ndarray


def make_subset(chosen: np.ndarray) -> Subset:
    """The values where `chosen [V]` is true."""
    words = np.zeros((-(-len(chosen) // _BITS), _BITS), np.uint32)
    words.reshape(-1)[: len(chosen)] = chosen
    counts = words.sum(axis=1)
    bits = (words << np.arange(_BITS, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    return Subset(bits, (np.cumsum(counts) - counts).astype(np.int32))


def subset_bytes(values: int) -> int:
    """Bytes of a subset of `values` values."""
    return 8 * -(-values // _BITS)


def empty_subset(values: int) -> Subset:
    """A subset that has none of `values` values."""
    words = -(-values // _BITS)
    return Subset(jnp.zeros(words, jnp.uint32), jnp.zeros(words, jnp.int32))


def index_in(subset: Subset, values: Array) -> Array:
    """Index 1, 2, ... of chosen values in their order, 0 of others: int32 shaped as `values`."""
    value = values.astype(jnp.uint32)
    word, bit = value >> 5, value & (_BITS - 1)
    bits = jnp.asarray(subset.bits).at[word].get(mode="promise_in_bounds")
    ranks = jnp.asarray(subset.ranks).at[word].get(mode="promise_in_bounds")
    up_to = bits << (bit ^ (_BITS - 1))  # the value's own bit is the highest
    index = ranks + lax.population_count(up_to).astype(jnp.int32)
    return jnp.where(up_to >> (_BITS - 1) == 1, index, 0)
