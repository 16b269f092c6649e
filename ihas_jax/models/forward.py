"""The one walk from ids to logits: look up, factors, select, network.

`forward` is the only place where ids become logits; training, evaluation and serving call it.
`embed` is its first part, for those that need the selected embeddings alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array, lax

from ihas_jax.errors import InputError
from ihas_jax.models.base import (
    EMBEDDING,
    FACTORS,
    GROUPS,
    NETWORK,
    VALUES,
    Model,
    Stats,
    Variables,
    VectorsByTable,
)
from ihas_jax.nn.embedding import Table, init_table, lookup, value_index
from ihas_jax.nn.split import read_rows
from ihas_jax.nn.subset import empty_subset, index_in

Index = dict[str, dict[str, Array]]
"""Index `[B, N_g]` of a batch's rows in every table, by width group."""
_NONE: dict[str, Any] = {}


class Lookup(NamedTuple):
    """A batch's vectors of a uniform embedding table, as a transform sees them.

    Attributes:
      vectors: `[B, N, D]`.
      row_index: `[B, N]` int32, the index of their rows in the table `[V, D]`.
      first_row: place of the first instance in the whole batch, where devices share it.
    """

    vectors: Array
    row_index: Array
    first_row: Array | int = 0

    def read(self, array: Array) -> Array:
        """`[B, N, ...]`, the rows of an array `[V, ...]` that belong to the vectors.

        An array with a row for each row of the table is read in this way alone, since devices may
        hold parts of it.
        """
        return read_rows(array, self.row_index)


class Transformed(NamedTuple):
    """What a transform makes of looked-up embeddings.

    Attributes:
      vectors: `[B, N, D]`.
      penalty: `[]`, what the transform adds to the loss.
      stats: new statistics of the transform.
      masks: `[B, K]` of 0 and 1, the coordinates that a selection leaves; None where none is made.
      shown: further arrays `[B, ...]` for figures.
    """

    vectors: Array
    penalty: Array | float = 0.0
    stats: Stats = _NONE
    masks: Array | None = None
    shown: Mapping[str, Array] = _NONE


Transform = Callable[[Variables, Lookup, Array | None], Transformed]
"""`transform(variables, lookup, key)`; a PRNG key means training. Equal transforms compare equal,
so that what is compiled for one serves the others."""


class Output(NamedTuple):
    """Result of `forward`.

    Attributes:
      logits: `[B]`.
      penalty: `[]`, that of the transform.
      stats: new statistics of the network and the transform; the given ones without a key.
      masks: `[B, K]`, those of the transform.
    """

    logits: Array
    penalty: Array | float
    stats: Stats
    masks: Array | None


def init_model(key: Array, model: Model) -> Variables:
    """Fresh variables; without batch norm there are no statistics.

    If only some values have rows, the constants hold an empty subset, until another replaces it.
    """
    table_key, network_key = jax.random.split(key)
    tables = {
        name: init_table(jax.random.fold_in(table_key, i), spec)
        for i, (name, spec) in enumerate(model.tables.items())
    }
    spec, constants = model.embedding, {}
    if spec.stored_values is not None:
        constants[VALUES] = {group.name: empty_subset(group.values) for group in spec.groups}
    ids = jnp.zeros((1, len(spec.sizes)), jnp.int32)
    # layers depend on the shapes of vectors alone
    vectors = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(
            lambda: embed(model, Variables({"tables": tables}, constants=constants), ids)[0]
        ),
    )
    found = model.network.init(network_key, vectors, train=False)
    stats = {NETWORK: found["batch_stats"]} if "batch_stats" in found else {}
    return Variables({"tables": tables, NETWORK: found.get("params", {})}, stats, constants)


def table_index(model: Model, variables: Variables, ids: Array) -> Index:
    """Index of the rows of `[B, N]` ids in the tables that `variables` have.

    Raises:
      InputError: the ids are not integers `[B, N]`, or, outside of `jit`, one is not an id of its
        field.
    """
    index = {name: value_index(model.tables[name], ids) for name in variables.params["tables"]}
    if VALUES in variables.constants:
        subsets = variables.constants[VALUES]
        index[EMBEDDING] = {
            group: index_in(subsets[group], values) for group, values in index[EMBEDDING].items()
        }
    return index


def look_up(tables: Mapping[str, Table], index: Index, *, by_field: bool = False) -> VectorsByTable:
    """The vectors of every table at the index of their rows; `by_field` as in `lookup`."""
    return {name: lookup(tables[name], part, by_field=by_field) for name, part in index.items()}


def embed(
    model: Model,
    variables: Variables,
    ids: Array,
    transform: Transform | None = None,
    *,
    vectors: VectorsByTable | None = None,
    key: Array | None = None,
    axis_name: str | None = None,
    by_field: bool = False,
) -> tuple[VectorsByTable, Transformed | None]:
    """The first part of `forward`: look up, factors, select.

    Args:
      model: the click model; with a transform its embedding table is uniform.
      variables: the model's variables. Tables that they lack are left out of the result.
      ids: `[B, N]`.
      transform: what a selection method makes of the embeddings.
      vectors: the looked-up vectors, where the caller differentiates at them.
      key: PRNG key of the transform in training.
      axis_name: mapped axis whose devices share the batch.
      by_field: as in `lookup`: faster, where nobody differentiates at the tables.

    Returns:
      What the network sees, and what the transform made of the embeddings.

    Raises:
      InputError: as `table_index`.
    """
    index = table_index(model, variables, ids)
    if vectors is None:
        vectors = look_up(variables.params["tables"], index, by_field=by_field)
    if FACTORS in variables.constants:
        factors = lookup(variables.constants[FACTORS], index[EMBEDDING], by_field=by_field)
        scaled = {name: part * factors[name] for name, part in vectors[EMBEDDING].items()}
        vectors = vectors | {EMBEDDING: scaled}
    if GROUPS in variables.constants:
        groups = variables.constants[GROUPS]
        group = groups["of_value"][jnp.take(ids, groups["field"], axis=1)]
        vectors = vectors | {GROUPS: cast(Any, group)}
    if transform is None:
        return vectors, None
    ((group, embeddings),) = vectors[EMBEDDING].items()
    first = 0 if axis_name is None else lax.axis_index(axis_name) * len(embeddings)
    made = transform(variables, Lookup(embeddings, index[EMBEDDING][group], first), key)
    return vectors | {EMBEDDING: {group: made.vectors}}, made


def forward(
    model: Model,
    variables: Variables,
    ids: Array,
    transform: Transform | None = None,
    *,
    vectors: VectorsByTable | None = None,
    key: Array | None = None,
    axis_name: str | None = None,
    by_field: bool = False,
) -> Output:
    """Logits of a batch: look up, factors, select, network.

    Args:
      model: the click model; with a transform its embedding table is uniform.
      variables: its variables, and those of the transform.
      ids: `[B, N]`.
      transform: what a selection method makes of the embeddings; None for nothing.
      vectors: the looked-up vectors, where the caller differentiates at them.
      key: PRNG key, which means training: batch statistics, dropout and the transform's noise.
        Without one the running statistics are used and returned unchanged.
      axis_name: mapped axis whose devices share the batch.
      by_field: as in `lookup`: faster, where nobody differentiates at the tables.

    Raises:
      InputError: as `table_index`.
    """
    transform_key, dropout_key = (None, None) if key is None else jax.random.split(key)
    seen, made = embed(
        model,
        variables,
        ids,
        transform,
        vectors=vectors,
        key=transform_key,
        axis_name=axis_name,
        by_field=by_field,
    )
    if dropout_key is not None and axis_name is not None:
        dropout_key = jax.random.fold_in(dropout_key, lax.axis_index(axis_name))
    logits, stats = _apply(model, variables, seen, dropout_key)
    if logits.shape != ids.shape[:1]:
        raise InputError(
            f"{type(model.network).__name__} makes logits of the shape {list(logits.shape)}; "
            f"{list(ids.shape[:1])} is needed, one logit for each row."
        )
    if made is None:
        return Output(logits, 0.0, stats, None)
    stats = stats | made.stats if key is not None else stats
    return Output(logits, made.penalty, stats, made.masks)


def predict(
    model: Model, variables: Variables, ids: Array, transform: Transform | None = None
) -> Array:
    """Click probabilities `[B]` of ids `[B, N]`, without noise; see `forward`."""
    return jax.nn.sigmoid(forward(model, variables, ids, transform).logits)


def _apply(
    model: Model, variables: Variables, vectors: VectorsByTable, dropout_key: Array | None
) -> tuple[Array, Stats]:
    """Logits `[B]` of the network, and all statistics with the network's new ones."""
    params, stats = variables.params[NETWORK], variables.stats.get(NETWORK, {})
    arrays = {"params": params, "batch_stats": stats}
    network = cast(Any, model.network)
    if dropout_key is None:
        return network.apply(arrays, vectors, train=False), variables.stats
    logits, updated = network.apply(
        arrays, vectors, train=True, rngs={"dropout": dropout_key}, mutable=["batch_stats"]
    )
    new = {NETWORK: updated["batch_stats"]} if updated.get("batch_stats") else {}
    return logits, variables.stats | new
