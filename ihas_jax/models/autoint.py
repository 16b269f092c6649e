"""AutoInt with a deep part, AutoInt+ (Song et al. 2019, arXiv 1810.11921)."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, NETWORK, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom, first_layer, leaf, turned_layer, with_leaves
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.mlp import MLP, dense, to_logit, torch_uniform, uniform


def self_attention(heads: int, width: int, dropout: float, name: str) -> nn.Module:
    """Multi-head self-attention over fields with biases, as in torch, `[B, N, A]` -> `[B, N, A]`.

    Projections of the input are Xavier-uniform (the three as one matrix `[A, 3 A]`) and biases
    zero.

    Note: the layer is the reference library's. The paper's attention is not scaled, has no biases
    and no output projection, and adds its residual in each layer.
    """
    return nn.MultiHeadDotProductAttention(
        heads,
        kernel_init=uniform((6.0 / (4 * width)) ** 0.5),
        out_kernel_init=torch_uniform(width),
        dropout_rate=dropout,
        broadcast_dropout=False,
        name=name,
    )


class AutoInt(Network):
    """logit = b + sum_n w[x_n] + v ReLU(attention^L(W e + s) + U e + t) + c + MLP([e_1, ..., e_N]).

    The residual U e + t is added once, after the last layer of attention.
    """

    wide: Wide
    mlp: MLP
    width: int
    heads: int
    layers: int
    freedom: ClassVar[Freedom] = Freedom("common")

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e, rule = self.aligned(vectors), self.mlp.init_rule
        x = dense(self.width, "projection", e, rule)
        for i in range(self.layers):
            layer = self_attention(self.heads, self.width, self.mlp.dropout, f"attention_{i}")
            x = layer(x, deterministic=not train)
        x = nn.relu(x + dense(self.width, "residual", e, rule))
        attended = to_logit("output", x.reshape(x.shape[0], -1), rule, 0.0)
        return self.wide(vectors) + attended + self.mlp(self.flat(vectors), train=train)

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """The projections, which fields share, and the first layer take on the map."""
        network, back = params[NETWORK], axes.backward[0, 0]
        leaves = turned_layer(network, f"mlp/{first_layer(self.mlp)}", axes)
        for name in ("projection/kernel", "residual/kernel"):
            leaves[name] = back @ leaf(network, name)
        return params | {NETWORK: with_leaves(network, leaves)}


def build_autoint(parts: Parts) -> Model:
    """Builds AutoInt."""
    spec, config = parts.embedding(), parts.config
    width, heads, layers = config.autoint_width, config.autoint_heads, config.autoint_layers
    network = AutoInt(spec, parts.wide(), parts.mlp(), width, heads, layers)
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
