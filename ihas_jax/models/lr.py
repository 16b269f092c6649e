"""Logistic regression (Richardson et al. 2007, "Predicting clicks")."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, NETWORK, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts, total
from ihas_jax.models.turning import Freedom, leaf, with_leaves
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.embedding import EmbeddingSpec


class LR(Network):
    """logit = b + sum_n w[x_n].

    The weights are embeddings of size 1, so a selection method chooses among fields.
    """

    prior: float
    freedom: ClassVar[Freedom] = Freedom(shift=True)

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        bias = self.param("bias", nn.initializers.constant(self.prior), ())
        return total(vectors[EMBEDDING]) + bias

    @nn.nowrap
    def readings(self, params: Params) -> np.ndarray:
        """The logit reads each weight once."""
        return np.ones((len(self.embedding.sizes), 1, 1))

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """The bias takes the means."""
        network = params[NETWORK]
        bias = leaf(network, "bias") + axes.mean.sum()
        return params | {NETWORK: with_leaves(network, {"bias": bias})}


def build_lr(parts: Parts) -> Model:
    """Builds LR."""
    spec = EmbeddingSpec(
        parts.sizes, 1, parts.kept, init=parts.config.linear_init, stored_values=parts.stored_values
    )
    return Model({EMBEDDING: spec}, LR(spec, parts.bias))
