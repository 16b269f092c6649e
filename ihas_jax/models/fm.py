"""Factorization machine (Rendle 2010, "Factorization Machines")."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom, centre_products, others
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.interactions import pooled_products


class FM(Network):
    """logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j>."""

    wide: Wide
    freedom: ClassVar[Freedom] = Freedom("rotation", shift=True)

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        return self.wide(vectors) + pooled_products(self.aligned(vectors)).sum(axis=1)

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """First-order weights take on what inner products made of the means."""
        return centre_products(params, self.embedding, axes, others(axes.mean))


def build_fm(parts: Parts) -> Model:
    """Builds the FM."""
    spec = parts.embedding()
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, FM(spec, parts.wide()))
