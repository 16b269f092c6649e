"""A subset of a table's rows at two bits for each row, and the place of every row in it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_BITS = 32


class Subset(NamedTuple):
    """Which of V rows are chosen.

    Attributes:
      bits: `[ceil(V / 32)]` uint32; bit i of word w says whether row 32 w + i is chosen.
      ranks: `[ceil(V / 32)]` int32, the chosen rows before those of each word.
    """

    bits: Array | np.ndarray
    ranks: Array | np.ndarray


def make_subset(chosen: np.ndarray) -> Subset:
    """The rows where `chosen [V]` is true."""
    words = np.zeros((-(-len(chosen) // _BITS), _BITS), np.uint32)
    words.reshape(-1)[: len(chosen)] = chosen
    counts = words.sum(axis=1)
    bits = (words << np.arange(_BITS, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    return Subset(bits, (np.cumsum(counts) - counts).astype(np.int32))


def subset_bytes(rows: int) -> int:
    """Bytes of a subset of so many rows."""
    return 8 * -(-rows // _BITS)


def empty_subset(rows: int) -> Subset:
    """None of so many rows."""
    words = -(-rows // _BITS)
    return Subset(jnp.zeros(words, jnp.uint32), jnp.zeros(words, jnp.int32))


def places_in(subset: Subset, rows: Array) -> Array:
    """1, 2, ... for the chosen rows in their order, 0 for others: int32 of the shape of `rows`."""
    word, bit = rows // _BITS, (rows % _BITS).astype(jnp.uint32)
    bits = jnp.asarray(subset.bits).at[word].get(mode="promise_in_bounds")
    ranks = jnp.asarray(subset.ranks).at[word].get(mode="promise_in_bounds")
    up_to = bits << (_BITS - 1 - bit)  # the row's own bit is the highest
    place = ranks + lax.population_count(up_to).astype(jnp.int32)
    return jnp.where(up_to >> (_BITS - 1) == 1, place, 0)
