"""Deep & cross networks: DCN (Wang et al. 2017), DCN-v2 (2021), GDCN (Wang et al. 2023)."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.models.parts import Network, Parts, RowsByTable
from ihas_jax.nn.interactions import cross, cross_gated, cross_matrix
from ihas_jax.nn.mlp import MLP, to_logit, torch_uniform

Cross = Literal["vector", "matrix", "gated"]


class CrossNetwork(nn.Module):
    """Layers x <- x_0 ... + x over flat embeddings, `[B, K]` -> `[B, K]`.

    * 'vector' (DCN): x_0 (w x) + b + x
    * 'matrix' (DCN-v2): x_0 * (W x + b) + x
    * 'gated' (GDCN): x_0 * (W x + b) * sigmoid(G x) + x
    """

    layers: int
    kind: Cross

    @nn.compact
    def __call__(self, x0: Array) -> Array:
        """Applies the layers."""
        size = x0.shape[1]
        uniform, zeros = torch_uniform(size), nn.initializers.zeros
        x = x0
        for i in range(self.layers):
            bias = self.param(f"bias_{i}", zeros, (size,))
            if self.kind == "vector":
                x = cross(x0, x, self.param(f"weight_{i}", uniform, (size,)), bias)
                continue
            kernel = self.param(f"kernel_{i}", uniform, (size, size))
            if self.kind == "matrix":
                x = cross_matrix(x0, x, kernel, bias)
            else:
                gate = self.param(f"gate_{i}", uniform, (size, size))
                x = cross_gated(x0, x, kernel, bias, gate)
        return x


class DCN(Network):
    """logit = w [cross([e_1, ..., e_N]), MLP([e_1, ..., e_N])] + b, the two side by side.

    Note: in DCN a bias makes a coordinate of x that is zero in x_0 another than zero. In a
    compact model a removed coordinate is not there at all, so it equals the full model with the
    coordinate masked and its biases at zero, where they start.
    """

    mlp: MLP
    crosses: CrossNetwork
    prior: float

    @nn.compact
    def __call__(self, rows: RowsByTable, *, train: bool) -> Array:
        """Looked-up rows -> logits `[B]`."""
        flat = self.flat(rows)
        x = jnp.concatenate([self.crosses(flat), self.mlp(flat, train=train)], axis=1)
        return to_logit("output", x, self.mlp.init_rule, self.prior)


def build_dcn(parts: Parts) -> Model:
    """Builds DCN."""
    return _build(parts, "vector")


def build_dcnv2(parts: Parts) -> Model:
    """Builds DCN-v2, its cross network of full rank."""
    return _build(parts, "matrix")


def build_gdcn(parts: Parts) -> Model:
    """Builds GDCN-P, the variant whose two networks lie side by side."""
    return _build(parts, "gated")


def _build(parts: Parts, kind: Cross) -> Model:
    spec = parts.embedding()
    crosses = CrossNetwork(parts.config.cross_layers, kind)
    return Model({EMBEDDING: spec}, DCN(spec, parts.mlp(output=False), crosses, parts.prior))
