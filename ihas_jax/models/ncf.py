"""Neural collaborative filtering (He et al. 2017, arXiv 1708.05031)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import Network, Parts
from ihas_jax.nn.mlp import MLP, to_logit


class NCF(Network):
    """logit = w [e_user * e_item, MLP([e_1, ..., e_N])] + b."""

    mlp: MLP
    pair: tuple[int, int]
    prior: float

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e = self.aligned(vectors)
        user, item = self.pair
        parts = [e[:, user] * e[:, item], self.mlp(self.flat(vectors), train=train)]
        x = jnp.concatenate(parts, axis=1)
        return to_logit("output", x, self.mlp.init_rule, self.prior)


def build_ncf(parts: Parts) -> Model:
    """Builds the NCF.

    Raises:
      InputError: the log has too few fields for `config.ncf_pair`.
    """
    spec, pair = parts.embedding(), parts.config.ncf_pair
    if max(pair) >= len(parts.sizes):
        raise InputError(
            f"--model.ncf-pair {pair[0]} {pair[1]} names a field that the log does not have; its "
            f"fields are 0 to {len(parts.sizes) - 1}."
        )
    network = NCF(spec, parts.mlp(output=False), pair, parts.prior)
    return Model({EMBEDDING: spec}, network)
