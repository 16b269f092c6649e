"""MaskNet with parallel blocks (Wang, She & Zhang 2021, arXiv 2102.07619)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import Network, Parts
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.mlp import MLP, dense, torch_uniform


class MaskBlock(nn.Module):
    """ReLU(LayerNorm(W (V * mask))), with mask = W_2 ReLU(W_1 [e_1, ..., e_N] + b_1) + b_2.

    Attributes:
      width: width of the output.
      ratio: width of the mask's hidden layer over the width of its input.
    """

    width: int
    ratio: float

    @nn.compact
    def __call__(self, flat: Array, normed: Array) -> Array:
        """Flat embeddings, raw and normalised, `[B, K]` each -> `[B, width]`."""
        size = flat.shape[1]
        hidden = nn.relu(dense(max(1, round(self.ratio * size)), "aggregation", flat, "torch"))
        mask = dense(size, "projection", hidden, "torch")
        # no bias: the norm has one
        kernel_init = torch_uniform(size)
        x = nn.Dense(self.width, use_bias=False, kernel_init=kernel_init, name="hidden")(
            normed * mask
        )
        return nn.relu(nn.LayerNorm(epsilon=1e-5, name="norm")(x))


class MaskNet(Network):
    """logit = MLP([block_1, ..., block_L]), all blocks on the layer-normalised embeddings.

    Note: the paper does not say where the mask of a removed coordinate goes. Fields are normalised
    over all D coordinates, zeros at removed ones included, so that a compact model computes what
    the masked full one does.
    """

    mlp: MLP
    blocks: int
    width: int
    ratio: float
    freedom: ClassVar[Freedom] = Freedom(why="its layer norm and its masks act on each coordinate")

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e = self.aligned(vectors)
        norm = nn.LayerNorm(
            epsilon=1e-5,
            use_fast_variance=False,
            reduction_axes=-1,
            feature_axes=(-2, -1),
            name="norm",
        )
        normed = norm(e)
        flat, normed = (part.reshape(e.shape[0], -1) for part in (e, normed))
        hidden = [
            MaskBlock(self.width, self.ratio, name=f"block_{i}")(flat, normed)
            for i in range(self.blocks)
        ]
        return self.mlp(jnp.concatenate(hidden, axis=1), train=train)


def build_masknet(parts: Parts) -> Model:
    """Builds MaskNet."""
    spec, config = parts.embedding(), parts.config
    mlp, blocks = parts.mlp(prior=parts.prior), config.masknet_blocks
    network = MaskNet(spec, mlp, blocks, config.masknet_width, config.masknet_ratio)
    return Model({EMBEDDING: spec}, network)
