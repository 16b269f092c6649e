"""Neural factorization machine (He & Chua 2017, arXiv 1708.05027)."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, Model, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.interactions import pooled_products
from ihas_jax.nn.mlp import MLP, regularize


class NFM(Network):
    """logit = b + sum_n w[x_n] + MLP(sum_(i<j) e_i * e_j).

    The MLP's batch norm and dropout, if it has them, are applied to its input too.
    """

    wide: Wide
    mlp: MLP
    freedom: ClassVar[Freedom] = Freedom(
        why="its MLP reads products of vectors coordinate by coordinate"
    )

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        pooled = regularize("pooled_norm", pooled_products(self.aligned(vectors)), self.mlp, train)
        return self.wide(vectors) + self.mlp(pooled, train=train)


def build_nfm(parts: Parts) -> Model:
    """Builds the NFM."""
    spec = parts.embedding()
    network = NFM(spec, parts.wide(), parts.mlp())
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
