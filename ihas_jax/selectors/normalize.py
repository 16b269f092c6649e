"""Batch norm as a pure function, for selectors, which keep its weights themselves."""

from __future__ import annotations

from typing import Any, cast

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import Params, Stats


def fresh_stats(features: int) -> Stats:
    """Running statistics `[features]`: mean 0 and variance 1."""
    return {"mean": jnp.zeros(features), "var": jnp.ones(features)}


def fresh_affine(features: int, scale: float = 1.0) -> Params:
    """What is learnt of a batch norm, `[features]`: a scale and bias 0."""
    return {"scale": jnp.full(features, scale, float), "bias": jnp.zeros(features)}


def normalize(
    x: Array,
    stats: Stats,
    affine: Params | None = None,
    *,
    train: bool,
    axis_name: str | None = None,
) -> tuple[Array, Stats]:
    """Batch norm over all axes but the last: epsilon 1e-5, momentum 0.9.

    Note: running variances use the batch's biased variance, as in `nn.mlp.batch_norm`; torch's
    are larger by a factor of n / (n - 1), n numbers having been averaged.

    Args:
      x: `[..., features]`.
      stats: running statistics, see `fresh_stats`.
      affine: scale and bias, see `fresh_affine`; None for none.
      train: take the batch's statistics and update the running ones, rather than use those.
      axis_name: mapped axis over which batch statistics are averaged.

    Returns:
      x normalised, and the new running statistics.
    """
    norm = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        use_scale=affine is not None,
        use_bias=affine is not None,
        axis_name=axis_name,
    )
    variables = {"params": affine or {}, "batch_stats": stats}
    x, updated = cast(Any, norm).apply(variables, x, mutable=["batch_stats"])
    return x, updated["batch_stats"]
