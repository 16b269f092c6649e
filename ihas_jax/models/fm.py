"""Factorization machine (Rendle 2010, "Factorization Machines")."""

from __future__ import annotations

from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import LINEAR, Network, Parts, Wide
from ihas_jax.nn.interactions import pooled_products


class FM(Network):
    """logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j>."""

    wide: Wide

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        return self.wide(vectors) + pooled_products(self.aligned(vectors)).sum(axis=1)


def build_fm(parts: Parts) -> Model:
    """Builds the FM."""
    spec = parts.embedding()
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, FM(spec, parts.wide()))
