"""Product-based neural networks (Qu et al. 2016, arXiv 1611.00144)."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, NETWORK, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts
from ihas_jax.models.turning import Freedom, Tree, first_layer, leaf, turn_rows, with_leaves
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.interactions import inner_products, outer_products, pairs
from ihas_jax.nn.mlp import MLP, uniform


class InnerPNN(Network):
    """logit = MLP([e_1, ..., e_N, <e_i, e_j> for i < j]).

    Note: the reference library's PNN also makes a first-order table `[V, D]` that it never uses;
    ours does not.
    """

    mlp: MLP
    freedom: ClassVar[Freedom] = Freedom("rotation", shift=True)

    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        products = inner_products(self.aligned(vectors))
        return self.mlp(jnp.concatenate([self.flat(vectors), products], axis=1), train=train)

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """The first layer takes on the rotation and what products made of the means."""
        network, dim = params[NETWORK], self.embedding.dim
        number = len(pairs(len(self.embedding.sizes))[0])
        forms = np.broadcast_to(np.eye(dim)[:, None], (dim, number, dim))
        leaves = turned_products(network, f"mlp/{first_layer(self.mlp)}", axes, forms)
        return params | {NETWORK: with_leaves(network, leaves)}


class OuterPNN(Network):
    """logit = MLP([e_1, ..., e_N, e_i' K_ij e_j for i < j]), with a matrix K_ij per pair.

    The matrices are those of the reference library and of Qu et al. 2018 (arXiv 1807.00311); the
    paper of 2016 has outer products of sums.
    """

    mlp: MLP
    freedom: ClassVar[Freedom] = Freedom("own", shift=True)

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

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """Matrices and first layer take on the map, and the first layer what the means made."""
        network, (i, j) = params[NETWORK], pairs(len(self.embedding.sizes))
        forms, back = leaf(network, "kernel"), axes.backward[:, 0]
        leaves = turned_products(network, f"mlp/{first_layer(self.mlp)}", axes, forms)
        leaves["kernel"] = np.einsum("pad,dpc,pbc->apb", back[j], forms, back[i], optimize=True)
        return params | {NETWORK: with_leaves(network, leaves)}


def turned_products(
    network: Tree, layer: str, axes: Axes, forms: np.ndarray
) -> dict[str, np.ndarray]:
    """Kernel and bias of a layer that reads flat embeddings and products, for new coordinates.

    A product of e_i and e_j is that of their deviations, plus a linear term of each, which the
    layer reads with the flat embeddings, plus a constant.

    Args:
      network: the network's parameters.
      layer: path of the layer.
      axes: the new coordinates.
      forms: `[D, P, D]`, the matrices of the products, as in `outer_products`.
    """
    kernel, bias = (leaf(network, f"{layer}/{name}") for name in ("kernel", "bias"))
    size, mean = axes.mean.size, axes.mean[:, 0]
    i, j = pairs(len(mean))
    products = kernel[size:]  # [P, H]
    of_first = np.einsum("dpc,pd->pc", forms, mean[j])
    of_second = np.einsum("dpc,pc->pd", forms, mean[i])
    bias = bias + mean.ravel() @ kernel[:size]
    bias = bias + np.einsum("pc,pc,ph->h", of_first, mean[i], products)
    terms = np.zeros((*mean.shape, kernel.shape[1]))
    np.add.at(terms, i, of_first[:, :, None] * products[:, None])
    np.add.at(terms, j, of_second[:, :, None] * products[:, None])
    rows = turn_rows(kernel[:size] + terms.reshape(size, -1), axes)
    return {f"{layer}/kernel": np.concatenate([rows, products]), f"{layer}/bias": bias}


def build_ipnn(parts: Parts) -> Model:
    """Builds the PNN of inner products."""
    spec = parts.embedding()
    return Model({EMBEDDING: spec}, InnerPNN(spec, parts.mlp(prior=parts.prior)))


def build_opnn(parts: Parts) -> Model:
    """Builds the PNN of outer products."""
    spec = parts.embedding()
    return Model({EMBEDDING: spec}, OuterPNN(spec, parts.mlp(prior=parts.prior)))
