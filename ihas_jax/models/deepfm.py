"""DeepFM (Guo et al. 2017, arXiv 1703.04247)."""

from __future__ import annotations

from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import LINEAR, Network, Parts, Wide
from ihas_jax.nn.interactions import pooled_products
from ihas_jax.nn.mlp import MLP


class DeepFM(Network):
    """logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j> + MLP([e_1, ..., e_N])."""

    wide: Wide
    mlp: MLP

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        second = pooled_products(self.aligned(vectors)).sum(axis=1)
        return self.wide(vectors) + second + self.mlp(self.flat(vectors), train=train)


def build_deepfm(parts: Parts) -> Model:
    """Builds DeepFM."""
    spec = parts.embedding()
    network = DeepFM(spec, parts.wide(), parts.mlp())
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
