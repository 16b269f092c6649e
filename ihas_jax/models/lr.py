"""Logistic regression (Richardson et al. 2007, "Predicting clicks")."""

from __future__ import annotations

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import Parts, total
from ihas_jax.nn.embedding import EmbeddingSpec


class LR(nn.Module):
    """logit = b + sum_n w[x_n].

    The weights are embeddings of size 1, so a selection method chooses among fields.
    """

    prior: float

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        bias = self.param("bias", nn.initializers.constant(self.prior), ())
        return total(vectors[EMBEDDING]) + bias


def build_lr(parts: Parts) -> Model:
    """Builds LR."""
    spec = EmbeddingSpec(
        parts.sizes, 1, parts.kept, init=parts.config.linear_init, stored_values=parts.stored_values
    )
    return Model({EMBEDDING: spec}, LR(parts.bias))
