"""Adaptive factorization network (Cheng et al. 2020, arXiv 1909.03276)."""

from __future__ import annotations

from typing import ClassVar

from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, LINEAR, Model, VectorsByTable
from ihas_jax.models.parts import Network, Parts, Wide
from ihas_jax.models.turning import Freedom
from ihas_jax.nn.interactions import logarithmic
from ihas_jax.nn.mlp import MLP, torch_uniform


class AFN(Network):
    """logit = b + sum_n w[x_n] + MLP([ReLU(prod_n (1 + |e_n|)^W_hn - 1) for h]).

    Each logarithmic neuron is a product of all fields' embeddings in powers that it learns.

    Note: the MLP sees a coordinate of all neurons, then the next; the reference library's sees all
    coordinates of a neuron, then the next. It is the same model with its weights in another order.
    """

    wide: Wide
    mlp: MLP
    neurons: int
    freedom: ClassVar[Freedom] = Freedom(why="it takes the logarithm of each coordinate")

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        e = self.aligned(vectors)
        fields = e.shape[1]
        weight = self.param("powers", torch_uniform(fields), (self.neurons, fields))
        crossed = logarithmic(e, weight)
        return self.wide(vectors) + self.mlp(crossed.reshape(crossed.shape[0], -1), train=train)


def build_afn(parts: Parts) -> Model:
    """Builds the AFN."""
    spec = parts.embedding()
    network = AFN(spec, parts.wide(), parts.mlp(), parts.config.afn_neurons)
    return Model({EMBEDDING: spec, LINEAR: parts.linear()}, network)
