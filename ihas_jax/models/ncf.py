"""Neural collaborative filtering (He et al. 2017, arXiv 1708.05031)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, NETWORK, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts
from ihas_jax.models.turning import Freedom, turned_layer, with_leaves
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.mlp import MLP, to_logit


class NCF(Network):
    """logit = w [e_user * e_item, MLP([e_1, ..., e_N])] + b."""

    mlp: MLP
    pair: tuple[int, int]
    prior: float
    freedom: ClassVar[Freedom] = Freedom("own", shift=True)

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e = self.aligned(vectors)
        user, item = self.pair
        parts = [e[:, user] * e[:, item], self.mlp(self.flat(vectors), train=train)]
        x = jnp.concatenate(parts, axis=1)
        return to_logit("output", x, self.mlp.init_rule, self.prior)

    @nn.nowrap
    def before_coordinates(self) -> int:
        """The products stand before embeddings that an MLP without hidden layers passes on."""
        return 0 if self.mlp.hidden else self.embedding.dim

    @nn.nowrap
    def free_vectors(self) -> np.ndarray:
        """Those of fields outside the pair, which is multiplied coordinate by coordinate."""
        fields = np.arange(len(self.embedding.sizes))
        return ~np.isin(fields, self.pair)[:, None]

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """The first layer takes on the map, and its bias the mean."""
        network = params[NETWORK]
        if self.mlp.hidden:
            leaves = turned_layer(network, "mlp/hidden_0", axes)
        else:  # the MLP passes embeddings on
            leaves = turned_layer(network, "output", axes, self.embedding.dim)
        return params | {NETWORK: with_leaves(network, leaves)}


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
