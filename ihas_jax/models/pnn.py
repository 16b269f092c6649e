"""Product-based neural networks (Qu et al. 2016, arXiv 1611.00144)."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, Model, VectorsByTable
from ihas_jax.models.parts import Network, Parts
from ihas_jax.nn.interactions import inner_products, outer_products
from ihas_jax.nn.mlp import MLP, uniform


class InnerPNN(Network):
    """logit = MLP([e_1, ..., e_N, <e_i, e_j> for i < j]).

    Note: the reference library's PNN also makes a first-order table `[V, D]` that it never uses;
    ours does not.
    """

    mlp: MLP

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        products = inner_products(self.aligned(vectors))
        return self.mlp(jnp.concatenate([self.flat(vectors), products], axis=1), train=train)


class OuterPNN(Network):
    """logit = MLP([e_1, ..., e_N, e_i' K_ij e_j for i < j]), with a matrix K_ij per pair.

    The matrices are those of the reference library and of Qu et al. 2018 (arXiv 1807.00311); the
    paper of 2016 has outer products of sums.
    """

    mlp: MLP

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e = self.aligned(vectors)
        fields, dim = e.shape[1:]
        shape = (dim, fields * (fields - 1) // 2, dim)
        # torch's Xavier bound for three axes takes the last one as the receptive field
        xavier = uniform((6.0 / (dim * (shape[0] + shape[1]))) ** 0.5)
        products = outer_products(e, self.param("kernel", xavier, shape))
        return self.mlp(jnp.concatenate([self.flat(vectors), products], axis=1), train=train)


def build_ipnn(parts: Parts) -> Model:
    """Builds the PNN of inner products."""
    spec = parts.embedding()
    return Model({EMBEDDING: spec}, InnerPNN(spec, parts.mlp(prior=parts.prior)))


def build_opnn(parts: Parts) -> Model:
    """Builds the PNN of outer products."""
    spec = parts.embedding()
    return Model({EMBEDDING: spec}, OuterPNN(spec, parts.mlp(prior=parts.prior)))
