"""xDeepFM (Lian et al. 2018, arXiv 1803.05170)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.config.model import InitRule
from ihas_jax.models.base import EMBEDDING, LINEAR, Model, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.interactions import compress
from ihas_jax.nn.mlp import MLP, to_logit, torch_uniform


class CompressedInteractions(nn.Module):
    """h <- ReLU(W (e outer h) + b) per coordinate; returns all layers, summed over coordinates.

    `[B, N, D]` -> `[B, sum(widths)]`.

    Note: ReLU and biases are the reference library's; equation 6 of the paper has neither. With
    the rule 'balanced' the biases start at zero, since a negative one can leave a map dead for
    every row, as in an MLP.
    """

    widths: tuple[int, ...]
    init_rule: InitRule

    @nn.compact
    def __call__(self, e: Array) -> Array:
        """Applies the layers."""
        h, sums = e, []
        for i, width in enumerate(self.widths):
            shape = (e.shape[1], h.shape[1], width)
            uniform = torch_uniform(shape[0] * shape[1])
            kernel = self.param(f"kernel_{i}", uniform, shape)
            bias_init = uniform if self.init_rule == "torch" else nn.initializers.zeros
            h = nn.relu(compress(e, h, kernel, self.param(f"bias_{i}", bias_init, (width,))))
            sums.append(h.sum(axis=2))
        return jnp.concatenate(sums, axis=1)


class XDeepFM(Network):
    """logit = b + sum_n w[x_n] + v CIN(e_1, ..., e_N) + c + MLP([e_1, ..., e_N])."""

    wide: Wide
    mlp: MLP
    cin: CompressedInteractions
    freedom: ClassVar[Freedom] = Freedom(
        why="its interaction network multiplies vectors coordinate by coordinate"
    )

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        deep = self.mlp(self.flat(vectors), train=train)
        interactions = self.cin(self.aligned(vectors))
        return self.wide(vectors) + deep + to_logit("output", interactions, self.mlp.init_rule, 0.0)


def build_xdeepfm(parts: Parts) -> Model:
    """Builds xDeepFM."""
    spec = parts.embedding()
    cin = CompressedInteractions(parts.config.xdeepfm_cin, parts.config.init)
    network = XDeepFM(spec, parts.wide(), parts.mlp(), cin)
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
