"""How freely the embeddings of a click model may be turned, and how its network absorbs that.

A model whose table has new coordinates `(e - mean) @ forward` computes what it did before, if its
network takes on the inverse map. Each network says which maps it can absorb (`Freedom`), and does
so in its `absorb`, with the functions of this module: pure functions of trees of arrays, in
float64 on the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ihas_jax.errors import InputError
from ihas_jax.models.base import EMBEDDING, LINEAR, NETWORK, Params
from ihas_jax.nn.axes import Axes
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.nn.mlp import MLP

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Freedom:
    """The maps of embeddings that leave a model's function as it is.

    Attributes:
      maps: 'own': any invertible map for each field; 'paired': one for each pair of fields, whose
        two vectors get it and the inverse of its transpose; 'common': one invertible map for all
        fields; 'rotation': one rotation for all fields; 'none'.
      shift: whether a mean may be subtracted first.
      why: why nothing is free, where that is so: the end of a sentence.
    """

    maps: Literal["own", "paired", "common", "rotation", "none"] = "none"
    shift: bool = False
    why: str = ""

    @property
    def any(self) -> bool:
        """Whether there is any map."""
        return self.shift or self.maps != "none"

    def check(self) -> None:
        """Raises: InputError: nothing is free."""
        if not self.any:
            raise InputError(
                f"The embeddings of this click model can't be turned to other axes, since "
                f"{self.why}. Choose another --model, or leave --search.rotate and --cluster.axes "
                "out."
            )


def first_layer(mlp: MLP) -> str:
    """Name of the layer of an MLP that reads its input."""
    return "hidden_0" if mlp.hidden else "output"


def leaf(tree: Tree, path: str) -> np.ndarray:
    """The array at a path such as 'mlp/hidden_0/kernel', in float64."""
    found: Any = tree
    for name in path.split("/"):
        found = found[name]
    return np.asarray(found, np.float64)


def with_leaves(tree: Tree, leaves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The tree with other arrays at some paths, in the dtypes of the old ones."""

    def changed(path: Any, old: jax.Array) -> jax.Array:
        name = "/".join(entry.key for entry in path)
        return jnp.asarray(leaves[name], old.dtype) if name in leaves else old

    return jax.tree.map_with_path(changed, dict(tree))


def turn_rows(rows: np.ndarray, axes: Axes) -> np.ndarray:
    """Weights of raw coordinates `[K, ...]` -> those of new ones, for one vector per field."""
    fields, _, dim = axes.mean.shape
    return (axes.backward[:, 0] @ rows.reshape(fields, dim, -1)).reshape(rows.shape)


def turned_layer(tree: Tree, layer: str, axes: Axes, first: int = 0) -> dict[str, np.ndarray]:
    """Kernel and bias of a dense layer that reads flat embeddings, for new coordinates.

    Args:
      tree: the network's parameters.
      layer: path of the layer.
      axes: the new coordinates; their mean must be zero where the layer has no bias.
      first: place of the first coordinate in the layer's input.
    """
    kernel, bias = (leaf(tree, f"{layer}/{name}") for name in ("kernel", "bias"))
    rows = slice(first, first + axes.mean.size)
    bias = bias + axes.mean.ravel() @ kernel[rows]
    kernel = kernel.copy()
    kernel[rows] = turn_rows(kernel[rows], axes)
    return {f"{layer}/kernel": kernel, f"{layer}/bias": bias}


def reading(tree: Tree, layer: str, spec: EmbeddingSpec) -> np.ndarray:
    """The weights of a dense layer that reads flat embeddings alone, `[N, D, H]`."""
    return leaf(tree, f"{layer}/kernel").reshape(len(spec.sizes), spec.dim, -1)


def centre_products(
    params: Params, spec: EmbeddingSpec, axes: Axes, partners: np.ndarray
) -> Params:
    """Moves to first-order weights and bias what inner products made of the means.

    An inner product of e_i and e_j is that of their deviations, plus one linear term of each, which
    belongs to the first-order weight of its value, plus one constant.

    Args:
      params: the parameters before the embedding table is turned.
      spec: shape of the embedding table.
      axes: the new coordinates.
      partners: `[N, M, d]`, the sum of the means of the vectors that each vector meets.
    """
    (table,) = params["tables"][EMBEDDING].values()
    (group, weights), *_ = params["tables"][LINEAR].items()
    fields = np.split(np.asarray(table), np.cumsum(spec.sizes)[:-1])
    slopes, means = (part.reshape(len(fields), -1) for part in (partners, axes.mean))
    terms = [(e - m) @ p for e, m, p in zip(fields, means, slopes, strict=True)]
    constant = (means * slopes).sum() / 2
    moved = np.asarray(weights) + np.concatenate(terms)[:, None]
    on_host: Any = np.asarray if isinstance(weights, np.ndarray) else jnp.asarray
    linear = {group: on_host(moved, weights.dtype)}
    bias = leaf(params[NETWORK], "wide/bias") + constant
    return params | {
        "tables": params["tables"] | {LINEAR: linear},
        NETWORK: with_leaves(params[NETWORK], {"wide/bias": bias}),
    }


def others(mean: np.ndarray) -> np.ndarray:
    """The sum of the means `[N, M, d]` of all other fields."""
    return mean.sum(axis=0) - mean
