"""Batch norm as a pure function, for selectors, which keep its weights themselves."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from ihas_jax.models.base import Params, Stats
from ihas_jax.nn.mlp import batch_norm


def fresh_norm(features: int, *, affine: bool = True, scale: float = 1.0) -> tuple[Params, Stats]:
    """What a batch norm of `features` learns, and its running statistics; see `batch_norm`."""
    norm = cast(Any, batch_norm(False, affine=affine, scale=scale))
    found = norm.init(jax.random.key(0), jnp.zeros((1, features)))  # the key draws nothing
    return found.get("params", {}), found["batch_stats"]


def normalize(
    x: Array,
    stats: Stats,
    affine: Params | None = None,
    *,
    train: bool,
    axis_name: str | None = None,
) -> tuple[Array, Stats]:
    """Applies a batch norm, see `batch_norm`.

    Args:
      x: `[..., features]`.
      stats: running statistics.
      affine: scale and bias; None for none.
      train: take the batch's statistics and update the running ones, rather than use those.
      axis_name: mapped axis over which batch statistics are averaged.

    Returns:
      x normalised, and the new running statistics.
    """
    norm = cast(Any, batch_norm(train, axis_name, affine=affine is not None))
    variables = {"params": affine or {}, "batch_stats": stats}
    x, updated = norm.apply(variables, x, mutable=["batch_stats"])
    return x, updated["batch_stats"]


def unit_product_scale(fields: int, dim: int) -> float:
    """Deviation of independent coordinates whose inner products add up to a variance of 1.

    The sum is over the D coordinates of all pairs of N fields. The deviation is at most 1.
    """
    pairs = fields * (fields - 1) // 2
    return float(max(1, dim * pairs)) ** -0.25
