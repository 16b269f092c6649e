"""Row-wise Adam: an embedding table's update that reads and writes only the rows of a batch.

A dense update works on the whole `[V, d]` table at every step. A row-wise update works on the
distinct rows of the batch, so its time does not grow with V. Rows that occur several times are
found without a sort: each position writes its number into a `[V]` scratch vector, and the position
that reads its own number back represents the row. The distinct rows are read once, into arrays that
the look-up and the update share.

A table may know of each row the step of its last update. Then what is read has made up for the
steps that the row has missed since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

from ihas_jax.training.missed import BETA1, BETA2, EPSILON, after_missed

_CHUNK_ROWS = 4096
Carry = TypeVar("Carry")
Rows = tuple[Array, Array, Array]
"""Rows `[R, d]` of a table and of both moments."""


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


class BatchRows(NamedTuple):
    """The distinct rows of a batch of P positions, in arrays of R rows, at least P.

    Attributes:
      values: `[R, d]` the rows of the table and of both moments.
      rows: `[R]` int32, their numbers in the table, V behind the last.
      rank: `[P]` int32, where the row of each position is; R for one that is left out.
      number: `[1]` int32, how many distinct rows there are.
      scratch: the scratch vector.
    """

    values: Rows
    rows: Array
    rank: Array
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
    vectors, batch = _reader(l2)(*state, index, *scalars)
    return vectors, BatchRows(*batch)


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
    tables = (state.table, state.mean, state.square, state.last)
    scalars = jnp.asarray(steps, jnp.int32)[None], scales
    table, mean, square, last = _writer(l2)(*tables, *batch[:4], gradients, *scalars)
    return RowAdam(table, mean, square, batch.scratch, last)


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
    """`(table, mean, square, scratch, last, index, steps, rates) -> (vectors, batch)`.

    The table may be S tables of V / S rows on top of each other, then `steps` and `rates` are
    `[S]`. So a `vmap` over seeds is one call for one larger table; batching the loop itself would
    copy what it writes in each of its rounds.
    """

    @custom_vmap
    def read(
        table: Array,
        mean: Array,
        square: Array,
        scratch: Array,
        last: Array | None,
        index: Array,
        steps: Array,
        rates: Array,
    ) -> tuple[Array, tuple[Any, ...]]:
        chunk = _chunk(len(index))
        unit = chunk if chunk == len(index) else chunk * len(steps)
        scratch, rows, rank, number = _distinct(scratch, index, unit)

        def part(start: Array) -> Rows:
            source = jnp.minimum(lax.dynamic_slice(rows, (start,), (chunk,)), len(scratch) - 1)
            w, m, v = (_read(leaf, source) for leaf in (table, mean, square))
            if last is None:
                return w, m, v
            table_of = source // (len(scratch) // len(steps))
            missed = (_read(last, source), _read(steps, table_of), _read(rates, table_of))
            return after_missed(w, m, v, *missed, l2)

        def body(start: Array, parts: Rows) -> Rows:
            a, b, c = (
                lax.dynamic_update_slice_in_dim(whole, one, start, 0)
                for whole, one in zip(parts, part(start), strict=True)
            )
            return a, b, c

        empty = jnp.zeros((len(rows), table.shape[1]), table.dtype)
        values = _loop(body, (empty, empty, empty), number, chunk, len(rows))
        vectors = values[0].at[rank].get(mode="fill", fill_value=0)
        return vectors, (values, rows, rank, number, scratch)

    @read.def_vmap
    def over_tables(
        axis_size: int, in_batched: list[Any], *arguments: Any
    ) -> tuple[tuple[Any, ...], Any]:
        stacked = _stack(axis_size, in_batched, arguments)
        stacked[5] = _shift(stacked[5], stacked[0].shape[1])
        vectors, (*arrays, number, scratch) = read(*_merged(stacked))
        parts = (vectors, (*arrays, jnp.tile(number, axis_size), scratch))
        split = jax.tree.map(lambda leaf: leaf.reshape(axis_size, -1, *leaf.shape[1:]), parts)
        return split, jax.tree.map(lambda _: True, split)

    return read


def _writer(l2: float) -> custom_vmap:
    """`(table, mean, square, last, *batch, gradients, steps, scales) -> (table, ..., last)`.

    As for `_reader` there may be S tables, then `steps` is `[S]` and `scales` `[S, 2]`.
    """

    @custom_vmap
    def write(
        table: Array,
        mean: Array,
        square: Array,
        last: Array | None,
        values: Rows,
        rows: Array,
        rank: Array,
        number: Array,
        gradients: Array,
        steps: Array,
        scales: Array,
    ) -> tuple[Array | None, ...]:
        chunk = _chunk(len(rank))
        totals = jnp.zeros_like(values[0]).at[rank].add(gradients, mode="drop")

        def body(start: Array, tables: list[Array]) -> list[Array]:
            own = (lax.dynamic_slice_in_dim(leaf, start, chunk) for leaf in (*values, totals, rows))
            w, m, v, g, target = own
            table_of = target // (len(table) // len(steps))
            g = g + l2 * w
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * g * g
            scale = scales.at[table_of].get(mode="clip")
            w = w - scale[:, :1] * m / (jnp.sqrt(v) + scale[:, 1:])
            new = (w, m, v, steps.at[table_of].get(mode="clip"))[: len(tables)]
            return [
                old.at[target].set(one, mode="drop") for old, one in zip(tables, new, strict=True)
            ]

        tables = [table, mean, square] + ([] if last is None else [last])
        tables = _loop(body, tables, number, chunk, len(rows))
        return (*tables, None) if last is None else tuple(tables)

    @write.def_vmap
    def over_tables(
        axis_size: int, in_batched: list[Any], *arguments: Any
    ) -> tuple[tuple[Any, ...], Any]:
        stacked = _stack(axis_size, in_batched, arguments)
        if not in_batched[6]:  # a batch that one table has read, for many
            stacked[5] = _shift(stacked[5], stacked[0].shape[1])
            stacked[6] = _shift(stacked[6], stacked[5].shape[1])
            stacked[7] = jnp.full_like(stacked[7], stacked[5].size)
        merged = write(*_merged(stacked))
        split = jax.tree.map(lambda leaf: leaf.reshape(axis_size, -1, *leaf.shape[1:]), merged)
        return split, jax.tree.map(lambda _: True, split)

    return write


def _stack(size: int, batched: list[Any], arguments: tuple[Any, ...]) -> list[Any]:
    """Arguments of a `vmap`, all with its axis."""

    def stacked(leaf: Array, has: bool) -> Array:
        return leaf if has else jnp.broadcast_to(leaf, (size, *leaf.shape))

    return jax.tree.map(stacked, list(arguments), list(batched))


def _merged(stacked: list[Any]) -> list[Any]:
    """S arrays `[S, P, ...]` each on top of each other, `[S * P, ...]`."""
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


def _distinct(scratch: Array, index: Array, unit: int) -> tuple[Array, Array, Array, Array]:
    """Chooses one position of each distinct row of a batch.

    Returns:
      The scratch vector; the distinct rows, padded to a multiple of `unit` with V; where each
      position's row is among them; and `[1]` how many there are.
    """
    size = len(index)
    padded = -(-size // unit) * unit
    positions = jnp.arange(size, dtype=jnp.int32)
    scratch = scratch.at[index].set(positions, mode="drop")
    first = scratch.at[index].get(mode="fill", fill_value=size)
    ranks = jnp.cumsum(first == positions, dtype=jnp.int32)
    places = jnp.where(first == positions, ranks - 1, padded)
    rows = jnp.full(padded, len(scratch), jnp.int32).at[places].set(index, mode="drop")
    rank = (ranks - 1).at[first].get(mode="fill", fill_value=padded)
    return scratch, rows, rank, ranks[-1:]
