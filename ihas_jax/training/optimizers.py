"""Adam as torch defines it, and how it updates embedding tables: densely or row by row."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import PartitionSpec

from ihas_jax.config import AdamConfig, OptimizerConfig
from ihas_jax.nn.split import is_split, on_blocks, padded_rows, read_rows
from ihas_jax.training.missed import BETA1, BETA2, EPSILON
from ihas_jax.training.row_tables import RowwiseState, init_rows, read_tables, write_tables


def l2_adam(config: AdamConfig) -> optax.GradientTransformation:
    """Adam whose L2 term is part of the gradient (torch's `weight_decay`, not AdamW).

    Moments 0.9 and 0.999, epsilon 1e-8 outside the square root.
    """
    return optax.chain(
        optax.add_decayed_weights(config.l2),
        optax.adam(config.learning_rate, b1=BETA1, b2=BETA2, eps=EPSILON),
    )


LARGE = 2_000_000
"""Numbers in a model's tables beyond which `auto` defers: about where deferred steps are faster on
two CPU cores, in batches of 2,048 rows; counted with the padding of `ihas_jax.nn.split`, so that
tables that devices split are treated alike."""


class TableOptimizer(NamedTuple):
    """Updates tables from gradients at looked-up rows.

    Attributes:
      init: tables -> state.
      read: (tables, state, index of rows, pace, axis_name=None) -> (vectors, reading). Index and
        vectors are trees like the tables, with leaves `[B, N_g]` and `[B, N_g, d_g]`; the pace `[]`
        is a factor of the learning rate; the reading is what `update` of the same tables needs to
        know.
      update: (tables, state, reading, gradients, pace, axis_name=None) -> (tables, state). Over the
        devices of a mapped axis the update is that of the mean gradient.
    """

    init: Callable[[Any], Any]
    read: Callable[..., tuple[Any, Any]]
    update: Callable[..., tuple[Any, Any]]


def make_table_optimizer(config: OptimizerConfig) -> TableOptimizer:
    """The update of `config.tables`."""
    if config.tables == "auto":
        return tables_by_size(config)
    if config.tables == "dense":
        return dense_tables(l2_adam(config))
    return rowwise_tables(config, deferred=config.tables == "deferred")


def dense_tables(optimizer: optax.GradientTransformation) -> TableOptimizer:
    """The paper's update: the optimiser visits every row at every step.

    Momentum and L2 move rows that are not in the batch. The devices of a mapped axis average the
    dense gradient.
    """

    def scatter(table: Array, index: Array, gradients: Array) -> Array:
        return jnp.zeros_like(table).at[index].add(gradients, mode="drop")

    def gradient(table: Array, index: Array, gradients: Array) -> Array:
        index, gradients = _flat(index, gradients)
        if is_split(table):
            return on_blocks(scatter, table, *_on_all((index, gradients)))
        return scatter(table, index, gradients)

    def read(
        tables: Any, state: optax.OptState, index: Any, pace: Array, axis_name: str | None = None
    ) -> tuple[Any, Any]:
        return jax.tree.map(read_rows, tables, index), index

    def update(
        tables: Any,
        state: optax.OptState,
        index: Any,
        gradients: Any,
        pace: Array,
        axis_name: str | None = None,
    ) -> tuple[Any, optax.OptState]:
        dense = jax.tree.map(gradient, tables, index, gradients)
        if axis_name is not None:
            dense = lax.pmean(dense, axis_name)
        updates, state = optimizer.update(dense, state, tables)
        updates = jax.tree.map(lambda leaf: pace * leaf, updates)
        return optax.apply_updates(tables, updates), state

    return TableOptimizer(partial(init_beside, optimizer.init), read, update)


def rowwise_tables(config: AdamConfig, *, deferred: bool = False) -> TableOptimizer:
    """Adam that reads and writes the rows of a batch alone.

    With `deferred` a row makes up for the steps that it has missed when it is next read, so that
    tables are those of dense Adam, but for the error of `ihas_jax.training.missed`.

    Note: without `deferred` it is not the paper's optimiser. Rows outside the batch keep their
    moments and are neither moved by momentum nor shrunk by L2.
    """

    def init(tables: Any) -> RowwiseState:
        return init_rows(tables, config.learning_rate, config.l2, deferred=deferred)

    return TableOptimizer(partial(init_beside, init), read_tables, write_tables)


def tables_by_size(config: AdamConfig) -> TableOptimizer:
    """Dense Adam, whose updates are deferred where tables have more than `LARGE` numbers."""
    dense, deferred = dense_tables(l2_adam(config)), rowwise_tables(config, deferred=True)

    def init(tables: Any) -> Any:
        numbers = sum(
            padded_rows(leaf.shape[0]) * math.prod(leaf.shape[1:])
            for leaf in jax.tree.leaves(tables)
        )
        return (deferred if numbers > LARGE else dense).init(tables)

    def of_state(state: Any) -> TableOptimizer:
        return deferred if isinstance(state, RowwiseState) else dense

    def read(
        tables: Any, state: Any, index: Any, pace: Array, axis_name: str | None = None
    ) -> tuple[Any, Any]:
        return of_state(state).read(tables, state, index, pace, axis_name)

    def update(
        tables: Any,
        state: Any,
        reading: Any,
        gradients: Any,
        pace: Array,
        axis_name: str | None = None,
    ) -> tuple[Any, Any]:
        return of_state(state).update(tables, state, reading, gradients, pace, axis_name)

    return TableOptimizer(init, read, update)


def init_beside(init: Callable[[Any], Any], weights: Any) -> Any:
    """`init(weights)` of an optimiser, on the host where weights are NumPy arrays.

    Such weights are those that devices split, and no device is to hold the optimiser's either.
    """
    if not any(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(weights)):
        return init(weights)
    few = jax.tree.map(lambda leaf: leaf[:1], weights)
    if any(map(np.any, jax.tree.leaves(init(few)))):
        return init(weights)  # an optimiser of another kind, which does not begin with zeros
    shapes = jax.eval_shape(init, weights)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def _flat(index: Array, gradients: Array) -> tuple[Array, Array]:
    """`[B, N]` and `[B, N, d]` as `[P]` and `[P, d]`."""
    return index.reshape(-1), gradients.reshape(-1, gradients.shape[-1])


def _on_all(parts: tuple[Any, Any]) -> tuple[Any, Any]:
    """Rows and gradients of the whole batch on each device of the mesh."""
    gathered: tuple[Any, Any] = lax.with_sharding_constraint(parts, PartitionSpec())
    return gathered
