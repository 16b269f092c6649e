"""Adam as torch defines it, and how it updates embedding tables: densely or row by row."""

from __future__ import annotations

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
from ihas_jax.nn.split import is_split, on_blocks
from ihas_jax.training.rowwise import BETA1, BETA2, EPSILON, RowAdam, init_row_adam, update_rows


def l2_adam(config: AdamConfig) -> optax.GradientTransformation:
    """Adam whose L2 term is part of the gradient (torch's `weight_decay`, not AdamW).

    Moments 0.9 and 0.999, epsilon 1e-8 outside the square root.
    """
    return optax.chain(
        optax.add_decayed_weights(config.l2),
        optax.adam(config.learning_rate, b1=BETA1, b2=BETA2, eps=EPSILON),
    )


class TableOptimizer(NamedTuple):
    """Updates tables from gradients at looked-up rows.

    Attributes:
      init: tables -> state.
      update: (tables, state, index of rows, gradients, pace, axis_name=None) -> (tables, state).
        Index and gradients are trees like the tables, with leaves `[B, N_g]` and `[B, N_g, d_g]`;
        the pace `[]` is a factor of the learning rate. Over the devices of a mapped axis the update
        is that of the mean gradient.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]


def make_table_optimizer(config: OptimizerConfig) -> TableOptimizer:
    """The update of `config.tables`."""
    if config.tables == "rowwise":
        return rowwise_tables(config)
    return dense_tables(l2_adam(config))


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

    return TableOptimizer(partial(init_beside, optimizer.init), update)


class RowwiseState(NamedTuple):
    """State of `rowwise_tables`.

    Attributes:
      steps: `[]` int32, steps taken.
      mean: first moments, a tree like the tables.
      square: second moments, a tree like the tables.
      scratch: vectors `[V_g]`, one per table.
    """

    steps: Array
    mean: Any
    square: Any
    scratch: Any


def rowwise_tables(config: OptimizerConfig) -> TableOptimizer:
    """Adam on the rows of the batch alone; see `ihas_jax.training.rowwise`.

    The devices of a mapped axis, or of the mesh of `jax.set_mesh`, gather the rows and gradients of
    the whole batch.

    Note: not the paper's optimiser. Rows outside the batch keep their moments and are neither
    moved by momentum nor shrunk by L2.
    """

    def init(tables: Any) -> RowwiseState:
        leaves, tree = jax.tree.flatten(tables)
        fresh = [init_row_adam(leaf) for leaf in leaves]
        return RowwiseState(jnp.zeros((), jnp.int32), *_columns(tree, fresh)[1:])

    def update(
        tables: Any,
        state: RowwiseState,
        index: Any,
        gradients: Any,
        pace: Array,
        axis_name: str | None = None,
    ) -> tuple[Any, RowwiseState]:
        if axis_name is not None:
            index, gradients = lax.all_gather((index, gradients), axis_name, tiled=True)
            devices = lax.psum(1, axis_name)
            gradients = jax.tree.map(lambda leaf: leaf / devices, gradients)
        elif jax.sharding.get_abstract_mesh().size > 1:
            # on their parts devices would exchange rows in each pass of the loop over them
            index, gradients = _on_all((index, gradients))
        steps = state.steps + 1
        rate = jnp.asarray(pace, jax.tree.leaves(tables)[0].dtype) * config.learning_rate
        tree = jax.tree.structure(tables)
        parts = (tables, state.mean, state.square, state.scratch, index, gradients)

        def step(
            own: RowAdam, index: Array, gradients: Array, count: Array, rate: Array
        ) -> RowAdam:
            return update_rows(own, index, gradients, count, rate, config.l2)

        updated = []
        for *leaves, leaf_index, g in zip(*map(jax.tree.leaves, parts), strict=True):
            own, batch = RowAdam(*leaves), (*_flat(leaf_index, g), steps, rate)
            split = is_split(own.table)
            updated.append(on_blocks(step, own, *batch) if split else step(own, *batch))
        tables, *moments = _columns(tree, updated)
        return tables, RowwiseState(steps, *moments)

    return TableOptimizer(partial(init_beside, init), update)


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


def _columns(tree: Any, states: list[RowAdam]) -> list[Any]:
    return [jax.tree.unflatten(tree, column) for column in zip(*states, strict=True)]
