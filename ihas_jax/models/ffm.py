"""Field-aware factorization machine (Juan et al. 2016, doi 10.1145/2959100.2959134)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom, centre_products
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.interactions import field_aware_products


class FFM(Network):
    """logit = b + sum_n w[x_n] + sum_(i<j) <T_j[x_i], T_i[x_j]>.

    The N tables T_m `[V, D]` are one table of N D coordinates, so that a batch is one look-up. T_n
    has rows for field n itself, as in the reference library, though nothing reads them.
    """

    wide: Wide
    freedom: ClassVar[Freedom] = Freedom("paired", shift=True)

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        return self.wide(vectors) + field_aware_products(by_field(self.aligned(vectors))).sum(
            (1, 2)
        )

    @nn.nowrap
    def free_vectors(self) -> np.ndarray:
        """All but those of a field for itself, which nothing reads."""
        return ~np.eye(len(self.embedding.sizes), dtype=bool)

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """First-order weights take on what inner products made of the means."""
        partners = axes.mean.swapaxes(0, 1) * self.free_vectors()[..., None]
        return centre_products(params, self.embedding, axes, partners)


def by_field(e: Array) -> Array:
    """Vectors side by side, `[B, N, N D]` -> `[B, N, N, D]`: those of each field for each field."""
    return e.reshape(*e.shape[:2], e.shape[1], -1)


def build_ffm(parts: Parts) -> Model:
    """Builds the FFM."""
    spec = parts.embedding(len(parts.sizes), separate_init=True)
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, FFM(spec, parts.wide()))
