"""Adam as torch defines it, and how it updates embedding tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from ihas_jax.config import OptimizerConfig


def l2_adam(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam whose L2 term is part of the gradient (torch's `weight_decay`, not AdamW).

    Moments 0.9 and 0.999, epsilon 1e-8 outside the square root.
    """
    return optax.chain(
        optax.add_decayed_weights(config.l2),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
        optax.scale(-config.learning_rate),
    )


class TableOptimizer(NamedTuple):
    """Updates tables from gradients at looked-up rows.

    Attributes:
      init: tables -> state.
      update: (tables, state, row numbers, row gradients) -> (tables, state). The last two are
        trees like the tables, with leaves `[B, N_g]` and `[B, N_g, d_g]`.
    """

    init: Callable[[Any], optax.OptState]
    update: Callable[[Any, optax.OptState, Any, Any], tuple[Any, optax.OptState]]


def dense_tables(
    optimizer: optax.GradientTransformation, axis_name: str | None = None
) -> TableOptimizer:
    """The paper's update: the optimiser visits every row at every step.

    Momentum and L2 move rows that are not in the batch. With `axis_name` the dense gradient
    is averaged over the mapped axis.
    """

    def scatter(table: Array, rows: Array, gradients: Array) -> Array:
        return jnp.zeros_like(table).at[rows].add(gradients, mode="promise_in_bounds")

    def update(
        tables: Any, state: optax.OptState, rows: Any, gradients: Any
    ) -> tuple[Any, optax.OptState]:
        dense = jax.tree.map(scatter, tables, rows, gradients)
        if axis_name is not None:
            dense = lax.pmean(dense, axis_name)
        updates, state = optimizer.update(dense, state, tables)
        return optax.apply_updates(tables, updates), state

    return TableOptimizer(optimizer.init, update)
