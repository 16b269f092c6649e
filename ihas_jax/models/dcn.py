"""Deep & cross network (Wang et al. 2017, arXiv 1708.05123)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.models.parts import Network, Parts, RowsByTable
from ihas_jax.nn.interactions import cross
from ihas_jax.nn.mlp import MLP, to_logit, torch_uniform


class CrossDeep(Network):
    """logit = w [x_L, MLP(x_0)] + b: a cross network beside an MLP, x_0 = [e_1, ..., e_N].

    Attributes:
      crosses: module `[B, K]` -> `[B, K]`, x_0 to x_L.
    """

    mlp: MLP
    crosses: nn.Module
    prior: float

    @nn.compact
    def __call__(self, rows: RowsByTable, *, train: bool) -> Array:
        """Looked-up rows -> logits `[B]`."""
        flat = self.flat(rows)
        x = jnp.concatenate([self.crosses(flat), self.mlp(flat, train=train)], axis=1)
        return to_logit("output", x, self.mlp.init_rule, self.prior)


class Crosses(nn.Module):
    """x <- x_0 (w x) + b + x, so many times."""

    layers: int

    @nn.compact
    def __call__(self, x0: Array) -> Array:
        """`[B, K]` -> `[B, K]`."""
        size, x = x0.shape[1], x0
        for i in range(self.layers):
            weight = self.param(f"weight_{i}", torch_uniform(size), (size,))
            x = cross(x0, x, weight, self.param(f"bias_{i}", nn.initializers.zeros, (size,)))
        return x


class DCN(CrossDeep):
    """logit = w [x_L, MLP(x_0)] + b, with x <- x_0 (w x) + b + x and x_0 = [e_1, ..., e_N].

    Note: a bias makes a coordinate of x that is zero in x_0 another than zero. In a compact model
    a removed coordinate is not there at all, so it equals the full model with the coordinate
    masked and its biases at zero, where they start.
    """


def build_dcn(parts: Parts) -> Model:
    """Builds DCN."""
    spec = parts.embedding()
    crosses = Crosses(parts.config.cross_layers)
    return Model({EMBEDDING: spec}, DCN(spec, parts.mlp(output=False), crosses, parts.prior))
