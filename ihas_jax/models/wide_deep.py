"""Wide & Deep (Cheng et al. 2016, arXiv 1606.07792)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, NETWORK, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom, first_layer, reading, turned_layer, with_leaves
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.mlp import MLP


class WideDeep(Network):
    """logit = b + sum_n w[x_n] + MLP([e_1, ..., e_N])."""

    wide: Wide
    mlp: MLP
    freedom: ClassVar[Freedom] = Freedom("own", shift=True)

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        return self.wide(vectors) + self.mlp(self.flat(vectors), train=train)

    @nn.nowrap
    def readings(self, params: Params) -> np.ndarray:
        """The weights of the MLP's first layer."""
        return reading(params[NETWORK], f"mlp/{first_layer(self.mlp)}", self.embedding)

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """The first layer takes on the map, and its bias the mean."""
        network = params[NETWORK]
        leaves = turned_layer(network, f"mlp/{first_layer(self.mlp)}", axes)
        return params | {NETWORK: with_leaves(network, leaves)}


def build_wide_deep(parts: Parts) -> Model:
    """Builds Wide & Deep."""
    spec = parts.embedding()
    network = WideDeep(spec, parts.wide(), parts.mlp())
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
