"""The base click model: embeddings, flattened, into an MLP (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

from flax import linen as nn
from jax import Array

from ihas_jax.config import ModelConfig
from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.nn.embedding import EmbeddingSpec, Kept, Rows, flatten
from ihas_jax.nn.mlp import MLP


class DNN(nn.Module):
    """logit = MLP([e_1, ..., e_N]); FNN in the reference library."""

    embedding: EmbeddingSpec
    mlp: MLP

    def __call__(self, rows: Mapping[str, Rows], *, train: bool) -> Array:
        """Rows of the embedding table -> logits `[B]`."""
        return self.mlp(flatten(self.embedding, rows[EMBEDDING]), train=train)


def build_dnn(
    config: ModelConfig,
    sizes: tuple[int, ...],
    kept: Kept | None,
    prior: float,
    axis_name: str | None,
) -> Model:
    """Builds the DNN; see `ihas_jax.models.build_model`."""
    spec = EmbeddingSpec(sizes, config.dim, kept)
    mlp = MLP(
        config.hidden,
        config.batch_norm,
        config.dropout,
        config.init,
        prior=prior,
        axis_name=axis_name,
    )
    return Model({EMBEDDING: spec}, DNN(spec, mlp))
