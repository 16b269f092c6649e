"""Higher-order factorization machine (Blondel et al. 2016, arXiv 1607.07195)."""

from __future__ import annotations

from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import LINEAR, Network, Parts, Wide
from ihas_jax.nn.interactions import anova, pooled_products


class HOFM(Network):
    """logit = b + sum_n w[x_n] + sum_(t=2..order) ANOVA_t of the t-th vectors.

    ANOVA_t sums the products of t different fields' vectors. Each order has separate vectors, which
    lie side by side in one table `[V, (order - 1) D]`.
    """

    wide: Wide
    order: int

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e = self.aligned(vectors)
        slices = e.reshape(*e.shape[:2], self.order - 1, -1)
        pooled = pooled_products(slices[:, :, 0])
        for t in range(3, self.order + 1):
            pooled += anova(slices[:, :, t - 2], t)
        return self.wide(vectors) + pooled.sum(axis=1)


def build_hofm(parts: Parts) -> Model:
    """Builds the HOFM."""
    order = parts.config.hofm_order
    spec = parts.embedding(order - 1)
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, HOFM(spec, parts.wide(), order))
