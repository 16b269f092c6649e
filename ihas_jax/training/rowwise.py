"""Row-wise Adam: an embedding table's update that reads and writes only the rows of a batch.

A dense update works on the whole `[V, d]` table at every step. A row-wise update works on the
distinct rows of the batch, so its time does not grow with V. Rows that occur several times are
found without a sort: each position writes its number into a `[V]` scratch vector, and the position
that reads its own number back represents the row.

A table may know of each row the step of its last update. Then what is read has made up for the
steps that the row has missed since, which is done once for each distinct row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from ihas_jax.training.missed import BETA1, BETA2, EPSILON, moments_after_missed, rows_after_missed

_CHUNK_ROWS = 4096
Carry = TypeVar("Carry")
Rows = tuple[Array, Array, Array, Array | None]
"""Rows of a table, of both moments, and the steps of their last updates."""


class RowAdam(NamedTuple):
    """One table and its Adam moments.

    Attributes:
      table: `[V, d]`.
      mean: `[V, d]` running mean of the gradients.
      square: `[V, d]` running mean of their squares.
      scratch: `[V]` int32, of any content; a new one per step would touch all V rows.
      last: `[V]` int32, the step of each row's last update, from 1 on; None if rows do not make
        up for missed steps.
    """

    table: Array
    mean: Array
    square: Array
    scratch: Array
    last: Array | None = None

    @property
    def rows(self) -> Rows:
        """What an update of a row changes."""
        return self.table, self.mean, self.square, self.last


class BatchRows(NamedTuple):
    """The distinct rows of a batch of P positions.

    Attributes:
      table: `[V, d]` the table, whose rows of the batch have made up for missed steps; their
        moments have not.
      row_of: `[P]` int32, the row of each position.
      first: `[P]` int32, the position that represents the row of each; P for one left out.
      chosen: `[R]` int32, the positions that represent rows, P behind the last.
      number: `[1]` int32, how many distinct rows there are.
      scratch: the scratch vector.
    """

    table: Array
    row_of: Array
    first: Array
    chosen: Array
    number: Array
    scratch: Array


def init_row_adam(table: Array, *, deferred: bool = False) -> RowAdam:
    """A table with fresh moments, which remembers the last steps of rows if it is `deferred`."""
    scratch = jnp.zeros(table.shape[0], jnp.int32)
    last = jnp.zeros_like(scratch) if deferred else None
    return RowAdam(table, jnp.zeros_like(table), jnp.zeros_like(table), scratch, last)


def read_batch(
    state: RowAdam, index: Array, steps: Array, learning_rate: Array | float, l2: float
) -> tuple[Array, BatchRows]:
    """The vectors of a batch, and its distinct rows for `write_batch`.

    Args:
      state: the table and its moments.
      index: `[P]` int32, the rows of a batch, each in 0..V-1, or V for one that is left out.
      steps: `[]` int32, number of steps taken.
      learning_rate: `[]`, that of missed steps.
      l2: the coefficient of the L2 term.

    Returns:
      `[P, d]`, zeros for what is left out, and the distinct rows.
    """
    rate = jnp.asarray(learning_rate, state.table.dtype)
    scalars = jnp.asarray(steps, jnp.int32)[None], rate[None]
    found: tuple[Array, BatchRows] = _reader(l2)(state, index, *scalars)
    return found


def write_batch(
    state: RowAdam,
    batch: BatchRows,
    gradients: Array,
    steps: Array,
    learning_rate: Array | float,
    l2: float,
) -> RowAdam:
    """One step of Adam on the rows that occur in a batch.

    Gradients of equal rows are summed first, and L2 is added to them. Where the table does not
    remember last steps, moments of other rows do not decay: with `l2` 0 this is torch's
    SparseAdam, but for epsilon, which is added after the bias correction, as in torch's Adam.

    Args:
      state: the table and its moments.
      batch: what `read_batch` has read from the same state.
      gradients: `[P, d]` gradient at each position.
      steps: `[]` number of this step, from 1 on, for the bias correction.
      learning_rate: `[]`, the learning rate.
      l2: the coefficient of the L2 term.
    """
    bias = jnp.sqrt(1 - BETA2 ** steps.astype(gradients.dtype))
    rate = learning_rate * bias / (1 - BETA1 ** steps.astype(gradients.dtype))
    # dividing bias through: m / c1 / (sqrt(v) / bias + eps) = m * (bias / c1) / (sqrt(v) + ...)
    scales = jnp.stack([rate, EPSILON * bias])[None]
    count = jnp.asarray(steps, jnp.int32)[None]
    written: RowAdam = _writer(l2)(state, batch, gradients, count, scales)
    return written


def update_rows(
    state: RowAdam,
    index: Array,
    gradients: Array,
    steps: Array,
    learning_rate: Array | float,
    l2: float,
) -> RowAdam:
    """`read_batch` and `write_batch` with gradients that do not depend on what is read."""
    _, batch = read_batch(state, index, steps - 1, learning_rate, l2)
    return write_batch(state, batch, gradients, steps, learning_rate, l2)


def _reader(l2: float) -> custom_vmap:
    """`(state, index, steps, rates) -> (vectors, batch)`.

    The state may be that of S tables of V / S rows on top of each other, then `steps` and `rates`
    are `[S]`. So a `vmap` over seeds is one call for one larger table; batching the loop itself
    would copy what it writes in each of its rounds.
    """

    @custom_vmap
    def read(state: RowAdam, index: Array, steps: Array, rates: Array) -> tuple[Array, BatchRows]:
        chunk = _chunk(len(index))
        unit = chunk if chunk == len(index) else chunk * len(steps)
        batch = _distinct(state, index, unit)
        if state.last is not None:
            batch = batch._replace(table=made_up(state, batch, steps, rates))
        return batch.table.at[index].get(mode="fill", fill_value=0), batch

    def made_up(state: RowAdam, batch: BatchRows, steps: Array, rates: Array) -> Array:
        chunk, rows = _chunk(len(batch.row_of)), len(state.table)

        def body(start: Array, table: Array) -> Array:
            _, source, target = _places(batch, start, chunk, rows)
            tables = (table, *state.rows[1:])
            w, m, v, last = (_read(leaf, source) for leaf in tables if leaf is not None)
            step, rate = (_read(leaf, source // (rows // len(steps))) for leaf in (steps, rates))
            new = rows_after_missed(w, m, v, last, step, rate, l2)
            return table.at[target].set(new, mode="drop")

        return _loop(body, state.table, batch.number, chunk, len(batch.chosen))

    @read.def_vmap
    def over_tables(
        axis_size: int, in_batched: list[Any], *arguments: Any
    ) -> tuple[tuple[Array, BatchRows], Any]:
        state, index, *scalars = _stack(axis_size, in_batched, arguments)
        index = _shift(index, state.table.shape[1])
        vectors, batch = read(*_merged((state, index, *scalars)))
        batch = batch._replace(number=jnp.tile(batch.number, axis_size))
        return _split((vectors, batch), axis_size)

    return read


def _writer(l2: float) -> custom_vmap:
    """`(state, batch, gradients, steps, scales) -> state`.

    As for `_reader` there may be S tables, then `steps` is `[S]` and `scales` `[S, 2]`.
    """

    @custom_vmap
    def write(
        state: RowAdam, batch: BatchRows, gradients: Array, steps: Array, scales: Array
    ) -> RowAdam:
        rows, size = len(state.table), len(batch.row_of)
        chunk = _chunk(size)
        # rounds must not overlap, since each reads what it writes
        spare = -len(batch.chosen) % chunk
        batch = batch._replace(chosen=jnp.pad(batch.chosen, (0, spare), constant_values=size))
        # each representative adds the gradients of its row's other positions to its own
        positions = jnp.arange(size, dtype=jnp.int32)
        others = jnp.where(batch.first == positions, size, batch.first)
        totals = gradients.at[others].add(gradients, mode="drop")

        def body(start: Array, tables: Rows) -> Rows:
            place, source, target = _places(batch, start, chunk, rows)
            table_of = source // (rows // len(steps))
            step, scale = _read(steps, table_of), _read(scales, table_of)
            w, m, v, last = jax.tree.map(lambda leaf: _read(leaf, source), tables)
            if last is not None:
                m, v = moments_after_missed(w, m, v, step - 1 - last, l2)
            g = _read(totals, place) + l2 * w
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * g * g
            w = w - scale[:, :1] * m / (jnp.sqrt(v) + scale[:, 1:])
            # a step that depends on what was read, or XLA would copy all of `last` to write in it
            after = (w, m, v, None if last is None else jnp.maximum(last, step))
            put = jax.tree.map(lambda old, new: old.at[target].set(new, mode="drop"), tables, after)
            return cast(Rows, put)

        tables = batch.table, state.mean, state.square, state.last
        tables = _loop(body, tables, batch.number, chunk, len(batch.chosen))
        return RowAdam(*tables[:3], batch.scratch, tables[3])

    @write.def_vmap
    def over_tables(axis_size: int, in_batched: list[Any], *arguments: Any) -> tuple[RowAdam, Any]:
        state, batch, *others = _stack(axis_size, in_batched, arguments)
        if not in_batched[1].first:  # a batch that one table has read, for many
            size = batch.first.shape[1]
            batch = batch._replace(
                row_of=_shift(batch.row_of, state.table.shape[1]),
                first=_shift(batch.first, size),
                chosen=_shift(batch.chosen, size),
                number=jnp.full_like(batch.number, batch.chosen.size),
            )
        return _split(write(*_merged((state, batch, *others))), axis_size)

    return write


def _split(merged: Any, size: int) -> tuple[Any, Any]:
    """Arrays `[S * P, ...]` as S of `[P, ...]`, and the mark of each that it has that axis."""
    split = jax.tree.map(lambda leaf: leaf.reshape(size, -1, *leaf.shape[1:]), merged)
    return split, jax.tree.map(lambda _: True, split)


def _stack(size: int, batched: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
    """Arguments of a `vmap`, all with its axis."""

    def stacked(leaf: Array, has: bool) -> Array:
        return leaf if has else jnp.broadcast_to(leaf, (size, *leaf.shape))

    return jax.tree.map(stacked, list(arguments), list(batched))


def _merged(stacked: Any) -> Any:
    """Each S arrays `[S, P, ...]` on top of each other, `[S * P, ...]`."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), stacked)


def _shift(index: Array, length: int) -> Array:
    """An index `[S, P]` in each of S arrays, as one in all; their end for what is left out."""
    tables = len(index)
    own = index + length * jnp.arange(tables, dtype=index.dtype)[:, None]
    return jnp.where(index < length, own, tables * length)


def _read(leaf: Array, places: Array) -> Array:
    return leaf.at[places].get(mode="promise_in_bounds")


def _chunk(size: int) -> int:
    """Rows that a round of the loops over a batch of `size` positions works on."""
    # a loop of unknown length costs an accelerator more than the padding
    return min(size, _CHUNK_ROWS) if jax.default_backend() == "cpu" else size


def _loop(
    body: Callable[[Array, Carry], Carry], carry: Carry, number: Array, chunk: int, rows: int
) -> Carry:
    """`body(start, carry)` for each chunk of the first `number [1]` of `rows` rows."""
    if chunk == rows:
        return body(jnp.int32(0), carry)
    _, carry = lax.while_loop(
        lambda state: state[0] < number[0],
        lambda state: (state[0] + chunk, body(*state)),
        (jnp.int32(0), carry),
    )
    return carry


def _distinct(state: RowAdam, index: Array, unit: int) -> BatchRows:
    """Chooses one position of each distinct row of a batch; R is a multiple of `unit`."""
    size = len(index)
    padded = -(-size // unit) * unit
    positions = jnp.arange(size, dtype=jnp.int32)
    scratch = state.scratch.at[index].set(positions, mode="drop")
    first = scratch.at[index].get(mode="fill", fill_value=size)
    ranks = jnp.cumsum(first == positions, dtype=jnp.int32)
    places = jnp.where(first == positions, ranks - 1, padded)
    chosen = jnp.full(padded, size, jnp.int32).at[places].set(positions, mode="drop")
    return BatchRows(state.table, index, first, chosen, ranks[-1:], scratch)


def _places(batch: BatchRows, start: Array, chunk: int, rows: int) -> tuple[Array, Array, Array]:
    """A chunk of the chosen positions, their rows to read, and to write, or V behind the last."""
    place = lax.dynamic_slice_in_dim(batch.chosen, start, chunk)
    size = len(batch.row_of)
    within = jnp.minimum(place, size - 1)
    source = _read(batch.row_of, within)
    return within, jnp.minimum(source, rows - 1), jnp.where(place < size, source, rows)
