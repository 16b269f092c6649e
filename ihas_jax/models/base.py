"""What a click model is: embedding tables, and a Flax module over their looked-up vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from ihas_jax.nn.embedding import EmbeddingSpec, Vectors

VectorsByTable = dict[str, Vectors]
"""Looked-up vectors `[B, N_g, d_g]` of a batch by table and width group."""
Params = dict[str, Any]
"""Learnt arrays by subtree: `tables` and `network`, and what a selection method adds to them."""
Stats = dict[str, Any]
"""Arrays that training moves without a gradient, by owner: `network` (batch norm)."""
Constants = dict[str, Any]
"""Arrays that training leaves alone: `factors` and `values` of the embedding table."""

TABLES = "tables"
"""Name of the subtree of embedding tables, whose gradients are taken at the looked-up rows."""
EMBEDDING = "embedding"
"""Name of the table that selection methods act on; every model has it."""
LINEAR = "linear"
"""Name of the table of first-order weights, `[V, 1]`; selection methods leave it alone."""
NETWORK = "network"
"""Name of the network's parameters and statistics."""
SELECTOR = "selector"
"""Name of a selector's gates among the parameters of a search, and of its statistics."""
FACTORS = "factors"
"""Name of constants that multiply embeddings: arrays `[V_g, d_g]` or `[V_g, 1]` by width group. A
factor of 0 removes a coordinate or a whole row; gradients at looked-up vectors are then 0 too."""
VALUES = "values"
"""Name of constants that say which values have rows in the embedding table, where not all do: a
subset of the values of each width group. All other values share row 0."""
GROUPS = "groups"
"""Name of constants that say which group a row belongs to: `field`, and the group `of_value` of
each value of that field, `[V_n]` integers. Networks that know groups see the groups `[B]` as
vectors of that name."""
_NONE: dict[str, Any] = {}


class Variables(NamedTuple):
    """All arrays that a click model computes with.

    Attributes:
      params: what is learnt.
      stats: what training moves without a gradient.
      constants: what training leaves alone.
    """

    params: Params
    stats: Stats = _NONE
    constants: Constants = _NONE


@dataclass(frozen=True)
class Model:
    """A click model as static description; its parameters are passed in.

    Equal descriptions are equal, so that what is compiled for one serves the others.

    Attributes:
      tables: shape of each table.
      network: module called as `network(vectors, train=bool) -> logits [B]`, where `vectors` maps
        each table's name to its looked-up vectors.
      axis_name: mapped axis (pmap, vmap, shard_map) whose devices share each batch in training;
        steps of the model average over it.
    """

    tables: Mapping[str, EmbeddingSpec]
    network: nn.Module
    axis_name: str | None = None

    @property
    def embedding(self) -> EmbeddingSpec:
        """Shape of the table that selection methods act on."""
        return self.tables[EMBEDDING]

    def __hash__(self) -> int:
        """Hash of the tables' shapes and the network."""
        return hash((frozenset(self.tables.items()), self.network))


def fold_factors(variables: Variables) -> Variables:
    """Variables whose factors are multiplied into the embedding table.

    They give the same predictions as the given variables.
    """
    params, constants = variables.params, dict(variables.constants)
    factors = constants.pop(FACTORS, None)
    if factors is None:
        return variables
    table = {name: part * factors[name] for name, part in params["tables"][EMBEDDING].items()}
    tables = params["tables"] | {EMBEDDING: table}
    return Variables(params | {"tables": tables}, variables.stats, constants)


def count_parameters(params: Any) -> int:
    """Numbers in a tree of arrays, or of their shapes, which `optax.tree.size` will refuse."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
