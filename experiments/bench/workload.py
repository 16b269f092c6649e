"""Random logs with the shape of full Avazu and Criteo, on which benchmarks run, and configs."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.config import Config
from ihas_jax.config.training import TableUpdates
from ihas_jax.data.dataset import Dataset, Split
from ihas_jax.data.schema import Field, Schema

Shape = Literal["criteo", "avazu"]
UPDATES: tuple[TableUpdates, ...] = ("dense", "rowwise")
"""The updates of tables that stages and several devices are measured with."""

# Values of each field. Criteo: those seen at least ten times in the whole log. Avazu: those seen at
# least four times, where the two largest fields are shortened so that all are 645,394, the number
# of values seen at least ten times.
SIZES: dict[Shape, tuple[int, ...]] = {
    "criteo": (
        *(49, 101, 126, 45, 223, 118, 84, 76, 95, 9, 30, 40, 75, 1458, 555, 193949, 138801, 306),
        *(19, 11970, 634, 4, 42646, 5178, 192773, 3175, 27, 11422, 181075, 11, 4654, 2032, 5),
        *(189657, 18, 16, 59697, 86, 45571),
    ),
    "avazu": (
        *(241, 8, 8, 3697, 4614, 25, 5481, 329, 31, 119209, 501682, 6793, 6, 5, 2509, 9, 10, 432),
        *(5, 68, 169, 63),
    ),
}
ROWS: dict[Shape, int] = {"criteo": 45_840_617, "avazu": 40_428_967}

_BLOCK = 1 << 20


def sizes_of(shape: Shape, shrink: int) -> tuple[int, ...]:
    """Vocabularies of a shape, divided by `shrink`."""
    return tuple(max(2, size // shrink) for size in SIZES[shape])


def configure(tables: TableUpdates, config: Config | None = None) -> Config:
    """A config with another table update."""
    config = config or Config()
    return replace(config, optimizer=replace(config.optimizer, tables=tables))


def draw_split(sizes: tuple[int, ...], rows: int, seed: int = 0) -> Split:
    """Rows whose value frequencies fall as 1 / rank (Zipf's law), and their clicks."""
    ids = np.empty((rows, len(sizes)), np.int32)
    labels = np.empty(rows, np.uint8)
    for block, start in enumerate(range(0, rows, _BLOCK)):
        part = slice(start, min(start + _BLOCK, rows))
        key = jax.random.fold_in(jax.random.key(seed), block)
        drawn = jax.device_get(_draw_block(key, jnp.array(sizes, jnp.float32)))
        ids[part], labels[part] = (array[: part.stop - start] for array in drawn)
    return Split(ids, labels)


@jax.jit
def _draw_block(key: Array, sizes: Array) -> tuple[Array, Array]:
    ids_key, label_key = jax.random.split(key)
    # the integer part of a log-uniform number k has probability proportional to log(1 + 1/k)
    uniform = jax.random.uniform(ids_key, (_BLOCK, len(sizes)))
    ids = jnp.minimum(jnp.exp(uniform * jnp.log(sizes + 1)) - 1, sizes - 1).astype(jnp.int32)
    # every third field moves the clicks
    effects = jnp.sin(12.9898 * (ids[:, ::3] + 1) + jnp.arange(0, len(sizes), 3))
    logits = 0.6 * effects.sum(axis=1) - 1.5
    clicks = jax.random.uniform(label_key, (_BLOCK,)) < jax.nn.sigmoid(logits)
    return ids, clicks.astype(jnp.uint8)


def draw_log(sizes: tuple[int, ...], rows: int, seed: int = 0) -> Dataset:
    """A whole log, split 80/10/10; its vocabularies are numbers."""
    ids, labels = draw_split(sizes, rows, seed)
    ends = (int(0.8 * rows), int(0.9 * rows))
    parts = [Split(ids[a:b], labels[a:b]) for a, b in zip((0, *ends), (*ends, rows), strict=True)]
    fields = tuple(
        Field(f"field_{n}", tuple(str(value) for value in range(size - 1)))
        for n, size in enumerate(sizes)
    )
    return Dataset(Schema("click", fields), *parts)
