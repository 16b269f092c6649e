"""Field-aware neural factorization machine (Zhang et al. 2019, arXiv 1902.09096)."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, Model, VectorsByTable
from ihas_jax.models.ffm import by_field
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.interactions import field_aware_products
from ihas_jax.nn.mlp import MLP, regularize


class FNFM(Network):
    """logit = b + sum_n w[x_n] + MLP([T_j[x_i] * T_i[x_j] for i < j]).

    The MLP's batch norm and dropout, if it has them, are applied to its input too. The tables T_m
    are those of the FFM.
    """

    wide: Wide
    mlp: MLP
    freedom: ClassVar[Freedom] = Freedom(
        why="its MLP reads products of vectors coordinate by coordinate"
    )

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        products = field_aware_products(by_field(self.aligned(vectors)))
        flat = regularize("pairs_norm", products.reshape(products.shape[0], -1), self.mlp, train)
        return self.wide(vectors) + self.mlp(flat, train=train)


def build_fnfm(parts: Parts) -> Model:
    """Builds the FNFM."""
    spec = parts.embedding(len(parts.sizes), separate_init=True)
    network = FNFM(spec, parts.wide(), parts.mlp())
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
