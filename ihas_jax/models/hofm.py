"""Higher-order factorization machine (Blondel et al. 2016, arXiv 1607.07195)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom, centre_products, others
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.interactions import anova, pooled_products


class HOFM(Network):
    """logit = b + sum_n w[x_n] + sum_(t=2..order) ANOVA_t of the t-th vectors.

    ANOVA_t sums the products of t different fields' vectors. Each order has separate vectors, which
    lie side by side in one table `[V, (order - 1) D]`.
    """

    wide: Wide
    order: int
    freedom: ClassVar[Freedom] = Freedom("rotation", shift=True)

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e = self.aligned(vectors)
        slices = e.reshape(*e.shape[:2], self.order - 1, -1)
        pooled = pooled_products(slices[:, :, 0])
        for t in range(3, self.order + 1):
            pooled += anova(slices[:, :, t - 2], t)
        return self.wide(vectors) + pooled.sum(axis=1)

    @nn.nowrap
    def free_vectors(self) -> np.ndarray:
        """Those of the second order; products of three and more have no inner product."""
        return np.arange(self.order - 1) == np.zeros((len(self.embedding.sizes), 1))

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """First-order weights take on what inner products made of the means."""
        partners = others(axes.mean) * self.free_vectors()[..., None]
        return centre_products(params, self.embedding, axes, partners)


def build_hofm(parts: Parts) -> Model:
    """Builds the HOFM."""
    order = parts.config.hofm_order
    spec = parts.embedding(order - 1)
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, HOFM(spec, parts.wide(), order))
