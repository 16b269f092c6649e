"""What every click model is: embedding tables, and a Flax module over their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from ihas_jax.nn.embedding import EmbeddingSpec, Rows, Table, init_table, lookup, positions
from ihas_jax.nn.subset import empty_subset, places_in

Params = dict[str, Any]
"""`{"tables": {name: Table}, "network": {...}}`, the two subtrees of a click model."""
BatchStats = dict[str, Any]

EMBEDDING = "embedding"
"""Name of the table that selection methods act on; every model has it."""
SELECTOR = "selector"
"""Name of what a selection method adds to parameters, network and statistics in a search."""
FACTORS = "factors"
"""Name of constants among the statistics that multiply embeddings: see `factored`."""
VALUES = "values"
"""Name of subsets among the statistics: the values that have rows in the embedding table."""
RowNumbers = dict[str, dict[str, Array]]
"""Row numbers `[B, N_g]` of a batch in each table, by width group."""
_ADDED = (SELECTOR, FACTORS, VALUES)
_NONE: BatchStats = {}


@dataclass(frozen=True)
class Model:
    """A click model as static description; its parameters are passed in.

    Equal descriptions are equal, so that what is compiled for one serves the others.

    Attributes:
      tables: shape of each table.
      network: module called as `network(rows, train=bool) -> logits [B]`, where `rows` maps
        each table's name to its looked-up rows.
    """

    tables: Mapping[str, EmbeddingSpec]
    network: nn.Module

    @property
    def embedding(self) -> EmbeddingSpec:
        """Shape of the table that selection methods act on."""
        return self.tables[EMBEDDING]

    def __hash__(self) -> int:
        """Hash of the tables' shapes and the network."""
        return hash((frozenset(self.tables.items()), self.network))


def init_model(key: Array, model: Model) -> tuple[Params, BatchStats]:
    """Fresh parameters and batch-norm statistics (empty without batch norm).

    Where only some values have rows, the statistics hold a place to say which: none, until then.
    """
    table_key, network_key = jax.random.split(key)
    tables = {
        name: init_table(jax.random.fold_in(table_key, i), spec)
        for i, (name, spec) in enumerate(model.tables.items())
    }
    spec, added = model.embedding, {}
    if spec.held is not None:
        added[VALUES] = {group.name: empty_subset(group.values) for group in spec.groups}
    numbers = row_numbers(model, jnp.zeros((1, len(spec.sizes)), jnp.int32), added)
    variables = model.network.init(network_key, lookup_rows(tables, numbers), train=False)
    params = {"tables": tables, "network": variables["params"]}
    return params, variables.get("batch_stats", {}) | added


def row_numbers(model: Model, ids: Array, batch_stats: BatchStats = _NONE) -> RowNumbers:
    """Where the rows of `[B, N]` ids are in every table.

    `batch_stats["values"]` has a subset of values for each width group of the embedding table,
    where not all have rows of their own; row 0 is that of the others.
    """
    numbers = {name: positions(spec, ids) for name, spec in model.tables.items()}
    if VALUES in batch_stats:
        subsets = batch_stats[VALUES]
        numbers[EMBEDDING] = {
            group: places_in(subsets[group], values) for group, values in numbers[EMBEDDING].items()
        }
    return numbers


def lookup_rows(tables: Mapping[str, Table], numbers: RowNumbers) -> dict[str, Rows]:
    """Rows of every table by their numbers."""
    return {name: lookup(tables[name], places) for name, places in numbers.items()}


def apply_network(
    model: Model,
    network: Params,
    batch_stats: BatchStats,
    rows: Mapping[str, Rows],
    *,
    dropout_key: Array | None = None,
) -> tuple[Array, BatchStats]:
    """Logits `[B]` and new batch-norm statistics.

    A `dropout_key` means training: batch statistics and dropout. Without one the running
    statistics are used and returned unchanged. What a selection method adds to either tree is
    left alone.
    """
    added = {name: batch_stats[name] for name in _ADDED if name in batch_stats}
    variables = {
        "params": {name: tree for name, tree in network.items() if name != SELECTOR},
        "batch_stats": {name: tree for name, tree in batch_stats.items() if name not in added},
    }
    if dropout_key is None:
        return cast(Any, model.network).apply(variables, rows, train=False), batch_stats
    logits, updated = cast(Any, model.network).apply(
        variables, rows, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats"]
    )
    return logits, updated.get("batch_stats", {}) | added


def factored(
    rows: Mapping[str, Rows], numbers: RowNumbers, batch_stats: BatchStats
) -> Mapping[str, Rows]:
    """Rows of the embedding table times their factors, where a model has any.

    `batch_stats["factors"]` is a table like the embedding table, `[V_g, d_g]` or `[V_g, 1]` by
    width group; a factor of 0 removes a coordinate or a whole row. Gradients at the looked-up
    rows are then zero too, so that what is removed stays so.
    """
    if FACTORS not in batch_stats:
        return rows
    factors = lookup(batch_stats[FACTORS], numbers[EMBEDDING])
    return {**rows, EMBEDDING: {name: r * factors[name] for name, r in rows[EMBEDDING].items()}}


def cut_network(full: Model, compact: Model, tree: Any, like: Any) -> Any:
    """The part of a full-size model's network weights that a compact model has.

    Where the compact model has fewer inputs, what is cut holds all K coordinates first.

    Args:
      full: the model with all coordinates.
      compact: the same with kept ones.
      tree: parameters or statistics of the network of `full`.
      like: those of `compact`.
    """
    coordinates, columns = full.embedding.coordinates, compact.embedding.columns

    def cut(leaf: Array, target: Array) -> Array:
        for axis, (size, wanted) in enumerate(zip(leaf.shape, target.shape, strict=True)):
            if size != wanted:
                rest = np.arange(coordinates, size)
                leaf = leaf.take(np.append(columns, rest).astype(int), axis)
        return leaf

    return jax.tree.map(cut, tree, like)


def count_parameters(params: Any) -> int:
    """Numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
