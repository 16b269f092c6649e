"""Adam for embedding tables, of which each step reads and writes the rows of its batch alone.

`rowwise` leaves other rows as they are. `deferred` is dense Adam: a row makes up for the steps that
it has missed when it is next read, so whatever reads a table during a training asks
`current_vectors`, and whatever reads one after it has called `settle`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jax.sharding import PartitionSpec

from ihas_jax.nn.split import DATA, ROWS, is_split, local_index, read_rows
from ihas_jax.training.missed import after_missed, rows_after_missed
from ihas_jax.training.rowwise import BatchRows, RowAdam, init_row_adam, read_batch, write_batch

Tables = Any
"""A tree of arrays `[V_g, d_g]`; an index of it is a tree of arrays `[B, N_g]`."""
_BATCH = PartitionSpec((DATA, ROWS))


@struct.dataclass
class RowwiseState:
    """State of Adam for tables of which a step reads the rows of its batch.

    Attributes:
      steps: `[]` int32, steps taken.
      mean: first moments, a tree like the tables.
      square: second moments, a tree like the tables.
      scratch: vectors `[V_g]`, one per table.
      last: vectors `[V_g]` int32, the step of each row's last update; None unless deferred.
      learning_rate: the learning rate.
      l2: the coefficient of the L2 term.
    """

    steps: Array
    mean: Any
    square: Any
    scratch: Any
    last: Any
    learning_rate: float = struct.field(pytree_node=False)
    l2: float = struct.field(pytree_node=False)

    def of(self, tables: Tables) -> list[RowAdam]:
        """Each table and what belongs to it."""
        leaves = jax.tree.leaves(tables)
        none = [None] * len(leaves)
        parts = (self.mean, self.square, self.scratch, none if self.last is None else self.last)
        columns = [jax.tree.leaves(part, is_leaf=lambda leaf: leaf is None) for part in parts]
        return [RowAdam(*row) for row in zip(leaves, *columns, strict=True)]

    def having(self, tables: Tables, rows: list[RowAdam]) -> tuple[Tables, RowwiseState]:
        """Tables like the given ones, and the state, of what `of` returned."""
        tree = jax.tree.structure(tables)
        columns = [
            None if column[0] is None else jax.tree.unflatten(tree, column)
            for column in zip(*rows, strict=True)
        ]
        names = ("mean", "square", "scratch", "last")
        return columns[0], dataclasses.replace(
            cast(Any, self), **dict(zip(names, columns[1:], strict=True))
        )


def init_rows(
    tables: Tables, learning_rate: float, l2: float, *, deferred: bool = False
) -> RowwiseState:
    """The state before the first step; with `deferred`, rows make up for the steps they miss."""
    none = RowwiseState(jnp.zeros((), jnp.int32), None, None, None, None, learning_rate, l2)
    fresh = [init_row_adam(leaf, deferred=deferred) for leaf in jax.tree.leaves(tables)]
    return none.having(tables, fresh)[1]


def read_tables(
    tables: Tables, state: RowwiseState, index: Any, pace: Array, axis_name: str | None = None
) -> tuple[Any, list[BatchRows]]:
    """The vectors `[B, N_g, d_g]` of a batch, and its distinct rows for `write_tables`.

    The latter hold the tables, in which rows of the batch have made up for missed steps. Devices of
    a mapped axis, or of the mesh of `jax.set_mesh`, read the rows of the whole batch from tables
    that they all hold, and those of their own blocks from tables that are split.
    """
    vectors, batches, on_mesh = [], [], axis_name is None and _on_mesh()
    for own, places in zip(state.of(tables), jax.tree.leaves(index), strict=True):
        read = _read_on_mesh if on_mesh else partial(_read_here, axis_name=axis_name)
        found, batch = read(own, places, state.steps, _rate(state, own, pace), state.l2)
        vectors.append(found)
        batches.append(batch)
    return jax.tree.unflatten(jax.tree.structure(index), vectors), batches


def write_tables(
    tables: Tables,
    state: RowwiseState,
    batches: list[BatchRows],
    gradients: Any,
    pace: Array,
    axis_name: str | None = None,
) -> tuple[Tables, RowwiseState]:
    """One step on the rows that `read_tables` has read, by gradients `[B, N_g, d_g]` at them.

    Over the devices of a mapped axis the step is that of the mean gradient.
    """
    if axis_name is not None:
        gradients = lax.all_gather(gradients, axis_name, tiled=True)
        devices = lax.psum(1, axis_name)
        gradients = jax.tree.map(lambda leaf: leaf / devices, gradients)
    steps = state.steps + 1
    written = []
    for own, batch, g in zip(state.of(tables), batches, jax.tree.leaves(gradients), strict=True):
        write = _write_on_mesh if axis_name is None and _on_mesh() else write_batch
        flat, rate = g.reshape(-1, g.shape[-1]), _rate(state, own, pace)
        written.append(write(own, batch, flat, steps, rate, state.l2))
    tables, state = state.having(tables, written)
    return tables, dataclasses.replace(cast(Any, state), steps=steps)


def current_vectors(tables: Tables, state: Any, index: Any, pace: Array) -> Any:
    """The vectors `[B, N_g, d_g]` of a batch that no step updates, by whatever optimiser."""
    if not is_deferred(state):
        return jax.tree.map(read_rows, tables, index)

    def read(own: RowAdam, index: Array) -> Array:
        assert own.last is not None
        table, mean, square, last = (
            read_rows(leaf, index).reshape(-1, *leaf.shape[1:])
            for leaf in (own.table, own.mean, own.square, own.last)
        )
        rate = _rate(state, own, pace)
        rows = rows_after_missed(table, mean, square, last, state.steps, rate, state.l2)
        return rows.reshape(*index.shape, -1)

    pairs = zip(state.of(tables), jax.tree.leaves(index), strict=True)
    return jax.tree.unflatten(jax.tree.structure(index), [read(*pair) for pair in pairs])


def settle_tables(tables: Tables, state: Any, pace: Array) -> tuple[Tables, Any]:
    """Has all rows make up for the steps that they have missed, if the optimiser defers any."""
    if not is_deferred(state):
        return tables, state
    settled = []
    for own in state.of(tables):
        assert own.last is not None
        rate = _rate(state, own, pace)
        parts = (own.table, own.mean, own.square, own.last)
        rows = after_missed(*parts, state.steps, rate, state.l2)
        settled.append(RowAdam(*rows, own.scratch, jnp.full_like(own.last, state.steps)))
    return state.having(tables, settled)


def is_deferred(state: Any) -> bool:
    """Whether an optimiser's state is one whose rows may have missed steps."""
    return isinstance(state, RowwiseState) and state.last is not None


def _rate(state: RowwiseState, own: RowAdam, pace: Array) -> Array:
    return jnp.asarray(pace, own.table.dtype) * state.learning_rate


def _on_mesh() -> bool:
    """Whether the devices of a mesh of ours share the batch."""
    mesh = jax.sharding.get_abstract_mesh()
    return bool(mesh.size > 1 and {DATA, ROWS} <= mesh.shape.keys())


def _read_here(
    own: RowAdam, index: Array, steps: Array, rate: Array, l2: float, axis_name: str | None
) -> tuple[Array, BatchRows]:
    """Reads a table that this device holds, for all devices of a mapped axis."""
    asked = index if axis_name is None else lax.all_gather(index, axis_name, tiled=True)
    vectors, batch = read_batch(own, asked.reshape(-1), steps, rate, l2)
    vectors = vectors.reshape(*asked.shape, -1)
    if axis_name is not None:
        vectors = _part(vectors, len(index), lax.axis_index(axis_name))
    return vectors, batch


def _read_on_mesh(
    own: RowAdam, index: Array, steps: Array, rate: Array, l2: float
) -> tuple[Array, BatchRows]:
    """Each device reads the whole batch: from the whole table, or what its block has of it.

    Without this devices would share the positions of the batch, and exchange rows in each pass of
    the loop over them.
    """
    split, shape = is_split(own.table), jax.sharding.get_abstract_mesh().shape
    rows = shape[ROWS]
    even = len(index) % (shape[DATA] * rows) == 0
    same = PartitionSpec()
    held, shared = PartitionSpec(ROWS) if split else same, _BATCH if even else same

    def each(own: RowAdam, index: Array, steps: Array, rate: Array) -> tuple[Array, BatchRows]:
        asked = lax.all_gather(index, (DATA, ROWS), tiled=True) if even else index
        local = local_index(own.table, asked) if split else asked
        vectors, batch = read_batch(own, local.reshape(-1), steps, rate, l2)
        vectors = vectors.reshape(*asked.shape, -1)
        if not even:
            return lax.psum(vectors, ROWS) if split else vectors, batch
        if not split:
            device = lax.axis_index(DATA) * rows + lax.axis_index(ROWS)
            return _part(vectors, len(index), device), batch
        vectors = _part(vectors, len(index) * rows, lax.axis_index(DATA))
        return lax.psum_scatter(vectors, ROWS, tiled=True), batch

    specs = (held, shared, same, same)
    function = jax.shard_map(each, in_specs=specs, out_specs=(shared, held), check_vma=False)
    found: tuple[Array, BatchRows] = function(own, index, steps, rate)
    return found


def _write_on_mesh(
    own: RowAdam, batch: BatchRows, gradients: Array, steps: Array, rate: Array, l2: float
) -> RowAdam:
    """Each device writes what it has read, by the gradients of the whole batch."""
    same = PartitionSpec()
    held = PartitionSpec(ROWS) if is_split(own.table) else same

    def each(own: RowAdam, batch: BatchRows, g: Array, steps: Array, rate: Array) -> RowAdam:
        return write_batch(own, batch, g, steps, rate, l2)

    specs = (held, held, same, same, same)
    function = jax.shard_map(each, in_specs=specs, out_specs=held, check_vma=False)
    written: RowAdam = function(own, batch, gradients, steps, rate)
    return written


def _part(vectors: Array, length: int, number: Array) -> Array:
    """The part of that number of vectors in parts of one length."""
    return lax.dynamic_slice_in_dim(vectors, number * length, length)
