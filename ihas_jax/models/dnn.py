"""The base click model: embeddings, flattened, into an MLP (paper section 3.2)."""

from __future__ import annotations

from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import Network, Parts
from ihas_jax.nn.mlp import MLP


class DNN(Network):
    """logit = MLP([e_1, ..., e_N]).

    FNN in the reference library (Zhang et al. 2016, arXiv 1601.02376), without pretraining.
    """

    mlp: MLP

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        return self.mlp(self.flat(vectors), train=train)


def build_dnn(parts: Parts) -> Model:
    """Builds the DNN."""
    spec = parts.embedding()
    return Model({EMBEDDING: spec}, DNN(spec, parts.mlp(prior=parts.prior)))
