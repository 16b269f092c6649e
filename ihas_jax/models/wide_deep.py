"""Wide & Deep (Cheng et al. 2016, arXiv 1606.07792)."""

from __future__ import annotations

from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import LINEAR, Network, Parts, Wide
from ihas_jax.nn.mlp import MLP


class WideDeep(Network):
    """logit = b + sum_n w[x_n] + MLP([e_1, ..., e_N])."""

    wide: Wide
    mlp: MLP

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        return self.wide(vectors) + self.mlp(self.flat(vectors), train=train)


def build_wide_deep(parts: Parts) -> Model:
    """Builds Wide & Deep."""
    spec = parts.embedding()
    network = WideDeep(spec, parts.wide(), parts.mlp())
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
