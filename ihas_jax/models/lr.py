"""Logistic regression (Richardson et al. 2007, "Predicting clicks")."""

from __future__ import annotations

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model
from ihas_jax.models.parts import Parts, RowsByTable, total
from ihas_jax.nn.embedding import EmbeddingSpec


class LR(nn.Module):
    """logit = b + sum_n w[x_n].

    The weights are embeddings of size 1, so a selection method chooses among fields.
    """

    prior: float

    @nn.compact
    def __call__(self, rows: RowsByTable, *, train: bool) -> Array:
        """Looked-up rows -> logits `[B]`."""
        bias = self.param("bias", nn.initializers.constant(self.prior), ())
        return total(rows[EMBEDDING]) + bias


def build_lr(parts: Parts) -> Model:
    """Builds LR."""
    spec = EmbeddingSpec(parts.sizes, 1, parts.kept, init=parts.config.linear_init, held=parts.held)
    return Model({EMBEDDING: spec}, LR(parts.bias))
