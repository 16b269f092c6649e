"""AutoInt with a deep part, AutoInt+ (Song et al. 2019, arXiv 1810.11921)."""

from __future__ import annotations

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import LINEAR, Network, Parts, Wide
from ihas_jax.nn.interactions import attend, attention_weights
from ihas_jax.nn.mlp import MLP, dense, to_logit, torch_uniform, uniform


class SelfAttention(nn.Module):
    """Multi-head self-attention over fields with biases, as in torch, `[B, N, A]` -> `[B, N, A]`.

    Xavier-uniform projections (the three of the input as one matrix `[A, 3 A]`), zero biases.

    Note: the reference library's. The paper's attention is not scaled, has no biases and no
    output projection, and adds its residual in each layer.
    """

    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Applies the layer."""
        width = x.shape[-1]
        xavier = uniform((6.0 / (4 * width)) ** 0.5)
        query, key, value = (
            nn.Dense(width, kernel_init=xavier, name=name)(x) for name in ("query", "key", "value")
        )
        weights = attention_weights(query, key, self.heads)
        weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
        summed = attend(weights, value)
        return nn.Dense(width, kernel_init=torch_uniform(width), name="output")(summed)


class AutoInt(Network):
    """logit = b + sum_n w[x_n] + v ReLU(attention^L(W e + s) + U e + t) + c + MLP([e_1, ..., e_N]).

    The residual U e + t is added once, after the last layer of attention.
    """

    wide: Wide
    mlp: MLP
    width: int
    heads: int
    layers: int

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e, rule = self.aligned(vectors), self.mlp.init_rule
        x = dense(self.width, "projection", e, rule)
        for i in range(self.layers):
            layer = SelfAttention(self.heads, self.mlp.dropout, name=f"attention_{i}")
            x = layer(x, train=train)
        x = nn.relu(x + dense(self.width, "residual", e, rule))
        attended = to_logit("output", x.reshape(len(x), -1), rule, 0.0)
        return self.wide(vectors) + attended + self.mlp(self.flat(vectors), train=train)


def build_autoint(parts: Parts) -> Model:
    """Builds AutoInt."""
    spec, config = parts.embedding(), parts.config
    width, heads, layers = config.autoint_width, config.autoint_heads, config.autoint_layers
    network = AutoInt(spec, parts.wide(), parts.mlp(), width, heads, layers)
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
