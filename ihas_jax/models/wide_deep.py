"""Wide & Deep (Cheng et al. 2016, arXiv 1606.07792)."""

from __future__ import annotations

from jax import Array

from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.models.parts import LINEAR, Network, Parts, RowsByTable, Wide
from ihas_jax.nn.mlp import MLP


class WideDeep(Network):
    """logit = b + sum_n w[x_n] + MLP([e_1, ..., e_N])."""

    wide: Wide
    mlp: MLP

    def __call__(self, rows: RowsByTable, *, train: bool) -> Array:
        """Looked-up rows -> logits `[B]`."""
        return self.wide(rows) + self.mlp(self.flat(rows), train=train)


def build_wide_deep(parts: Parts) -> Model:
    """Builds Wide & Deep."""
    spec = parts.embedding()
    network = WideDeep(spec, parts.wide(), parts.mlp())
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
