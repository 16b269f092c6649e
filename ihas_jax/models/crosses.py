"""The three deep & cross networks: a cross network beside an MLP.

* DCN (Wang et al. 2017, arXiv 1708.05123).
* DCN-v2, its cross network of full or low rank (Wang et al. 2021, arXiv 2008.13535).
* GDCN-P, whose crosses have gates (Wang et al. 2023, arXiv 2311.04635).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from ihas_jax.models.base import EMBEDDING, NETWORK, Model, Params, VectorsByTable
from ihas_jax.models.parts import Network, Parts
from ihas_jax.models.turning import (
    Freedom,
    leaf,
    turn_rows,
    turned_layer,
    with_leaves,
)
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.interactions import Factors, cross, cross_gated, cross_matrix
from ihas_jax.nn.mlp import MLP, to_logit, torch_uniform

Cross = Literal["vector", "matrix", "gated"]


class Crosses(nn.Module):
    """x_0 to x_L of a cross network, `[B, K]` -> `[B, K]`.

    * 'vector': x <- x_0 (w x) + b + x
    * 'matrix': x <- x_0 * (W x + b) + x
    * 'gated': x <- x_0 * (W x + b) * sigmoid(G x) + x

    With a rank r, W and G are products of a `[K, r]` and an `[r, K]` matrix (DCN-v2, section 5).

    Note: with 'vector' a bias makes a coordinate of x that is zero in x_0 other than zero. A
    compact model lacks removed coordinates altogether, so it equals the full model with these
    coordinates masked and their biases at zero, where they start.
    """

    kind: Cross
    layers: int
    rank: int = 0

    @nn.compact
    def __call__(self, x0: Array) -> Array:
        """Applies the layers."""
        size, x = x0.shape[1], x0
        for i in range(self.layers):
            shape = (size,) if self.kind == "vector" else (size, size)
            weight = self._factors(f"weight_{i}", shape)
            gate = self._factors(f"gate_{i}", shape) if self.kind == "gated" else ()
            bias = self.param(f"bias_{i}", nn.initializers.zeros, (size,))
            if self.kind == "vector":
                x = cross(x0, x, weight[0], bias)
            elif self.kind == "matrix":
                x = cross_matrix(x0, x, weight, bias)
            else:
                x = cross_gated(x0, x, weight, gate, bias)
        return x

    def _factors(self, name: str, shape: tuple[int, ...]) -> Factors:
        """A vector or a square matrix, or the two factors of a matrix of lower rank."""
        size, rank = shape[0], self.rank
        if not rank or len(shape) == 1:
            return (self.param(name, torch_uniform(size), shape),)
        narrow = self.param(f"{name}_in", torch_uniform(size), (size, rank))
        return narrow, self.param(f"{name}_out", torch_uniform(rank), (rank, size))


class CrossDeep(Network):
    """logit = w [x_L, MLP(x_0)] + b, with x_0 = [e_1, ..., e_N] and x_L of `Crosses`.

    The two networks lie side by side, as in DCN, the parallel structure of DCN-v2, and GDCN-P.
    """

    mlp: MLP
    crosses: Crosses
    prior: float
    freedom: ClassVar[Freedom] = Freedom(
        why="its crosses multiply embeddings coordinate by coordinate"
    )

    @nn.compact
    def __call__(self, vectors: VectorsByTable, *, train: bool) -> Array:
        """Looked-up vectors -> logits `[B]`."""
        flat = self.flat(vectors)
        x = jnp.concatenate([self.crosses(flat), self.mlp(flat, train=train)], axis=1)
        return to_logit("output", x, self.mlp.init_rule, self.prior)


class DCN(CrossDeep):
    """The cross network whose layers multiply all coordinates of x_0 by one number."""

    freedom: ClassVar[Freedom] = Freedom("own")

    @nn.nowrap
    def absorb(self, params: Params, axes: Axes) -> Params:
        """All layers take on the map; biases of crosses are turned as embeddings are."""
        network, size = params[NETWORK], self.embedding.coordinates
        leaves = turned_layer(network, "output", axes)
        if self.mlp.hidden:
            leaves |= turned_layer(network, "mlp/hidden_0", axes)
        else:  # the MLP passes embeddings on
            leaves |= turned_layer(with_leaves(network, leaves), "output", axes, size)
        for i in range(self.crosses.layers):
            weight, bias = f"crosses/weight_{i}", f"crosses/bias_{i}"
            leaves[weight] = turn_rows(leaf(network, weight), axes)
            blocks = leaf(network, bias).reshape(axes.mean.shape)
            leaves[bias] = (blocks @ axes.forward[:, 0]).ravel()
        return params | {NETWORK: with_leaves(network, leaves)}


def build_dcn(parts: Parts) -> Model:
    """Builds DCN."""
    return _build(parts, "vector")


def build_dcnv2(parts: Parts) -> Model:
    """Builds DCN-v2."""
    return _build(parts, "matrix")


def build_gdcn(parts: Parts) -> Model:
    """Builds GDCN."""
    return _build(parts, "gated")


def _build(parts: Parts, kind: Cross) -> Model:
    spec = parts.embedding()
    crosses = Crosses(kind, parts.config.cross_layers, parts.config.cross_rank)
    network = DCN if kind == "vector" else CrossDeep
    return Model({EMBEDDING: spec}, network(spec, parts.mlp(output=False), crosses, parts.prior))
