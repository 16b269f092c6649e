"""DeepFM (Guo et al. 2017, arXiv 1703.04247)."""

from __future__ import annotations

from jax import Array

from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.models.parts import LINEAR, Network, Parts, RowsByTable, Wide
from ihas_jax.nn.interactions import pooled_products
from ihas_jax.nn.mlp import MLP


class DeepFM(Network):
    """logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j> + MLP([e_1, ..., e_N])."""

    wide: Wide
    mlp: MLP

    def __call__(self, rows: RowsByTable, *, train: bool) -> Array:
        """Looked-up rows -> logits `[B]`."""
        second = pooled_products(self.vectors(rows)).sum(axis=1)
        return self.wide(rows) + second + self.mlp(self.flat(rows), train=train)


def build_deepfm(parts: Parts) -> Model:
    """Builds DeepFM."""
    spec = parts.embedding()
    network = DeepFM(spec, parts.wide(), parts.mlp())
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
