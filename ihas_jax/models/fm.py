"""Factorization machine (Rendle 2010, "Factorization Machines")."""

from __future__ import annotations

from jax import Array

from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.models.parts import LINEAR, Network, Parts, RowsByTable, Wide
from ihas_jax.nn.interactions import pooled_products


class FM(Network):
    """logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j>."""

    wide: Wide

    def __call__(self, rows: RowsByTable, *, train: bool) -> Array:
        """Looked-up rows -> logits `[B]`."""
        return self.wide(rows) + pooled_products(self.vectors(rows)).sum(axis=1)


def build_fm(parts: Parts) -> Model:
    """Builds the FM."""
    spec = parts.embedding()
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, FM(spec, parts.wide()))
