"""DCN-v2, its cross network of full rank (Wang et al. 2021, arXiv 2008.13535)."""

from __future__ import annotations

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.models.dcn import CrossDeep
from ihas_jax.models.parts import Parts
from ihas_jax.nn.interactions import cross_matrix
from ihas_jax.nn.mlp import torch_uniform


class MatrixCrosses(nn.Module):
    """x <- x_0 * (W x + b) + x, so many times."""

    layers: int

    @nn.compact
    def __call__(self, x0: Array) -> Array:
        """`[B, K]` -> `[B, K]`."""
        size, x = x0.shape[1], x0
        for i in range(self.layers):
            kernel = self.param(f"kernel_{i}", torch_uniform(size), (size, size))
            bias = self.param(f"bias_{i}", nn.initializers.zeros, (size,))
            x = cross_matrix(x0, x, kernel, bias)
        return x


class DCNv2(CrossDeep):
    """logit = w [x_L, MLP(x_0)] + b, with x <- x_0 * (W x + b) + x and x_0 = [e_1, ..., e_N].

    The paper's parallel structure.
    """


def build_dcnv2(parts: Parts) -> Model:
    """Builds DCN-v2."""
    spec = parts.embedding()
    crosses = MatrixCrosses(parts.config.cross_layers)
    return Model({EMBEDDING: spec}, DCNv2(spec, parts.mlp(output=False), crosses, parts.prior))
