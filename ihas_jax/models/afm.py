"""Attentional factorization machine (Xiao et al. 2017, arXiv 1708.04617)."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
from jax import Array

from ihas_jax.config.model import InitRule
from ihas_jax.models.base import EMBEDDING, LINEAR, Model, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.interactions import pair_products
from ihas_jax.nn.mlp import dense, to_logit


class AFM(Network):
    """logit = b + sum_n w[x_n] + v sum_(i<j) a_ij e_i * e_j + c.

    a is the softmax over pairs of u ReLU(W (e_i * e_j) + s) + t. Dropout acts on a and on the sum.
    """

    wide: Wide
    width: int
    dropout: float
    init_rule: InitRule
    freedom: ClassVar[Freedom] = Freedom(
        why="its attention reads products of vectors coordinate by coordinate"
    )

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        products = pair_products(self.aligned(vectors))
        hidden = nn.relu(dense(self.width, "attention", products, self.init_rule))
        weights = nn.softmax(dense(1, "projection", hidden, self.init_rule), axis=1)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        pooled = nn.Dropout(self.dropout, deterministic=not train)((weights * products).sum(axis=1))
        return self.wide(vectors) + to_logit("output", pooled, self.init_rule, 0.0)


def build_afm(parts: Parts) -> Model:
    """Builds the AFM."""
    spec, config = parts.embedding(), parts.config
    network = AFM(spec, parts.wide(), config.afm_attention, config.dropout, config.init)
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
