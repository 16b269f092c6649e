"""Gated deep & cross network (Wang et al. 2023, arXiv 2311.04635)."""

from __future__ import annotations

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.models.dcn import CrossDeep
from ihas_jax.models.parts import Parts
from ihas_jax.nn.interactions import cross_gated
from ihas_jax.nn.mlp import torch_uniform


class GatedCrosses(nn.Module):
    """x <- x_0 * (W x + b) * sigmoid(G x) + x, so many times."""

    layers: int

    @nn.compact
    def __call__(self, x0: Array) -> Array:
        """`[B, K]` -> `[B, K]`."""
        size, x = x0.shape[1], x0
        for i in range(self.layers):
            kernel = self.param(f"kernel_{i}", torch_uniform(size), (size, size))
            gate = self.param(f"gate_{i}", torch_uniform(size), (size, size))
            bias = self.param(f"bias_{i}", nn.initializers.zeros, (size,))
            x = cross_gated(x0, x, kernel, bias, gate)
        return x


class GDCN(CrossDeep):
    """logit = w [x_L, MLP(x_0)] + b, with x <- x_0 * (W x + b) * sigmoid(G x) + x.

    x_0 = [e_1, ..., e_N]; GDCN-P, the variant whose two networks lie side by side.
    """


def build_gdcn(parts: Parts) -> Model:
    """Builds GDCN."""
    spec = parts.embedding()
    crosses = GatedCrosses(parts.config.cross_layers)
    return Model({EMBEDDING: spec}, GDCN(spec, parts.mlp(output=False), crosses, parts.prior))
