"""FinalMLP (Mao et al. 2023, arXiv 2304.00902)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, NETWORK, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts
from ihas_jax.models.turning import Freedom, Tree, leaf, reading, turned_layer, with_leaves
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.interactions import bilinear_fusion
from ihas_jax.nn.mlp import MLP, dense, to_logit, torch_uniform


class FeatureGate(nn.Module):
    """x * 2 sigmoid(W_2 ReLU(W_1 c + b_1) + b_2), with a learnt context c.

    Note: the paper's context is a user's or an item's features, or learnt where there are none;
    ours is learnt.
    """

    context: int
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, K]` -> `[B, K]`."""
        context = self.param("context", nn.initializers.zeros, (self.context,))
        hidden = nn.relu(dense(self.width, "hidden", context, "torch"))
        return x * 2 * nn.sigmoid(dense(x.shape[1], "output", hidden, "torch"))


class FinalMLP(Network):
    """logit = b + w [o_1, o_2] + sum_h o_1h W_h o_2h, with o_s = MLP_s(gate_s([e_1, ..., e_N])).

    Two streams whose gates weigh the coordinates differently, and a bilinear fusion in heads.
    """

    first: MLP
    second: MLP
    heads: int
    gate_width: int
    prior: float
    freedom: ClassVar[Freedom] = Freedom("own", shift=True)

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        flat, dim = self.flat(vectors), self.embedding.dim
        x = self.first(FeatureGate(dim, self.gate_width, name="first_gate")(flat), train=train)
        y = self.second(FeatureGate(dim, self.gate_width, name="second_gate")(flat), train=train)
        rule = self.first.init_rule
        shape = (self.heads, x.shape[1] // self.heads, y.shape[1] // self.heads)
        kernel = self.param("fusion", torch_uniform(shape[1]), shape)
        linear = to_logit("output", jnp.concatenate([x, y], axis=1), rule, self.prior)
        return linear + bilinear_fusion(x, y, kernel)

    @nn.nowrap
    def readings(self, params: Params) -> np.ndarray:
        """The weights of both first layers, each after its gates."""
        merged = with_leaves(params[NETWORK], merge_gates(params[NETWORK]))
        layers = [reading(merged, f"{name}/hidden_0", self.embedding) for name in _STREAMS]
        return np.concatenate(layers, axis=2)

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """Both first layers take on gates and map, and their biases the mean; gates become 1."""
        leaves = merge_gates(params[NETWORK])
        merged = with_leaves(params[NETWORK], leaves)
        for name in _STREAMS:
            leaves |= turned_layer(merged, f"{name}/hidden_0", axes)
        return params | {NETWORK: with_leaves(params[NETWORK], leaves)}


_STREAMS = ("first", "second")


def merge_gates(network: Tree) -> dict[str, np.ndarray]:
    """Leaves with which the gates, the same for all rows, are 1 and act in the first layers."""
    leaves = {}
    for name in _STREAMS:
        gate, kernel = f"{name}_gate", f"{name}/hidden_0/kernel"
        layers = {
            layer: [leaf(network, f"{gate}/{layer}/{part}") for part in ("kernel", "bias")]
            for layer in ("hidden", "output")
        }
        context = leaf(network, f"{gate}/context")
        hidden = np.maximum(context @ layers["hidden"][0] + layers["hidden"][1], 0)
        logits = hidden @ layers["output"][0] + layers["output"][1]
        leaves[kernel] = leaf(network, kernel) * (1 + np.tanh(logits / 2))[:, None]
        leaves[f"{gate}/output/bias"] = -hidden @ layers["output"][0]
    return leaves


def build_finalmlp(parts: Parts) -> Model:
    """Builds FinalMLP; both streams have the widths of `config.hidden`."""
    spec, config = parts.embedding(), parts.config
    first, second = parts.mlp(output=False), parts.mlp(output=False)
    network = FinalMLP(
        spec, first, second, config.finalmlp_heads, config.finalmlp_gate, parts.prior
    )
    return Model({EMBEDDING: spec}, network)
