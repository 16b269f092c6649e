"""DeepFM (Guo et al. 2017, arXiv 1703.04247)."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, NETWORK, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import (
    Freedom,
    centre_products,
    first_layer,
    others,
    turned_layer,
    with_leaves,
)
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.interactions import pooled_products
from ihas_jax.nn.mlp import MLP


class DeepFM(Network):
    """logit = b + sum_n w[x_n] + sum_(i<j) <e_i, e_j> + MLP([e_1, ..., e_N])."""

    wide: Wide
    mlp: MLP
    freedom: ClassVar[Freedom] = Freedom("rotation", shift=True)

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        second = pooled_products(self.aligned(vectors)).sum(axis=1)
        return self.wide(vectors) + second + self.mlp(self.flat(vectors), train=train)

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """As FM and MLP do: first-order weights and the first layer share the means."""
        params = centre_products(params, self.embedding, axes, others(axes.mean))
        leaves = turned_layer(params[NETWORK], f"mlp/{first_layer(self.mlp)}", axes)
        return params | {NETWORK: with_leaves(params[NETWORK], leaves)}


def build_deepfm(parts: Parts) -> Model:
    """Builds DeepFM."""
    spec = parts.embedding()
    network = DeepFM(spec, parts.wide(), parts.mlp())
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
