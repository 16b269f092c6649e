"""Embedding tables whose fields may have different widths.

A field keeps a subset of the D coordinates. Fields of equal width share one array, so a table
with uniform width is one `[V, D]` array, and a compact table is really smaller: it has no masked
columns. A field that keeps nothing has no rows at all. Removed values share one row per array,
and each other value has a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ihas_jax.data.checks import as_ids, check_width
from ihas_jax.nn.draw import as_normal, as_uniform, bits_of_rows
from ihas_jax.nn.split import is_split, make_blocks, padded_rows, read_rows, splitting

Table = dict[str, Array]
"""Arrays `[V_g, d_g]` of one embedding table, by width group; NumPy arrays on the host."""
Vectors = dict[str, Array]
"""Looked-up vectors `[B, N_g, d_g]`, by width group."""
Kept = tuple[tuple[int, ...], ...]
"""Kept coordinates of each field, ascending, each in 0..D-1."""


class Group(NamedTuple):
    """Fields of equal width, stored in one array.

    Attributes:
      name: name of the array.
      width: width of its rows, d_g.
      fields: the fields whose embeddings it holds.
      offsets: index of each field's first value among the values of these fields.
      values: number of values of these fields together.
      rows: V_g, the number of rows: one per value, or one per stored value and a shared one.
    """

    name: str
    width: int
    fields: tuple[int, ...]
    offsets: tuple[int, ...]
    values: int
    rows: int


@dataclass(frozen=True)
class EmbeddingSpec:
    """Static shape of one embedding table.

    Attributes:
      sizes: values of each field, N entries; V is their sum.
      dim: D, the size of a field that keeps all its coordinates.
      kept: the kept coordinates of each field; None keeps all.
      init: 'xavier' uniform over the whole `[V, D]` table, as the reference library does,
        or standard 'normal', or 'zeros'.
      vectors_per_field: M, the number of vectors side by side in each row; each has D / M
        coordinates.
      separate_init: whether each vector is initialised as a separate table `[V, D / M]`.
      stored_values: number of values per field that have their own row; None for all. The other
        values share row 0 of each array.
    """

    sizes: tuple[int, ...]
    dim: int
    kept: Kept | None = None
    init: Literal["xavier", "normal", "zeros"] = "xavier"
    vectors_per_field: int = 1
    separate_init: bool = False
    stored_values: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError: `kept` or `stored_values` does not fit `sizes` and `dim`."""
        if self.stored_values is not None and len(self.stored_values) != len(self.sizes):
            raise ValueError(
                f"stored_values has {len(self.stored_values)} fields, sizes {len(self.sizes)}"
            )
        if any(
            not 0 <= n <= size
            for n, size in zip(self.stored_values or (), self.sizes, strict=False)
        ):
            raise ValueError(
                f"stored_values {self.stored_values} exceeds the numbers of values {self.sizes}"
            )
        if self.kept is None:
            return
        if len(self.kept) != len(self.sizes):
            raise ValueError(f"kept has {len(self.kept)} fields, sizes {len(self.sizes)}")
        for coordinates in self.kept:
            if list(coordinates) != sorted(set(coordinates) & set(range(self.dim))):
                raise ValueError(f"kept {coordinates} is not an ascending subset of 0..D-1")

    @property
    def widths(self) -> tuple[int, ...]:
        """Kept coordinates per field, d_n."""
        if self.kept is None:
            return (self.dim,) * len(self.sizes)
        return tuple(len(coordinates) for coordinates in self.kept)

    @property
    def coordinates(self) -> int:
        """K = N * D, kept or not."""
        return len(self.sizes) * self.dim

    @property
    def parameters(self) -> int:
        """Numbers stored in the table."""
        return sum(group.rows * group.width for group in self.groups)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The width groups, widest first; fields that keep nothing are in none."""
        groups = []
        for width in sorted(set(self.widths) - {0}, reverse=True):
            fields = tuple(n for n, w in enumerate(self.widths) if w == width)
            ends = np.cumsum([self.sizes[n] for n in fields])
            offsets, values = (0, *(int(end) for end in ends[:-1])), int(ends[-1])
            rows = (
                values
                if self.stored_values is None
                else 1 + sum(self.stored_values[n] for n in fields)
            )
            groups.append(Group(f"width_{width}", width, fields, offsets, values, rows))
        return tuple(groups)

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Index n * D + j among the K gated coordinates of each column of `flatten`."""
        kept = self.kept or (tuple(range(self.dim)),) * len(self.sizes)
        return tuple(
            n * self.dim + j for group in self.groups for n in group.fields for j in kept[n]
        )


def init_table(key: Array, spec: EmbeddingSpec) -> Table:
    """Fresh float32 arrays, one `[V_g, d_g]` per width group.

    Where devices split arrays, each draws its own rows, and large arrays are padded with zeros.

    Note: the Xavier bound sqrt(6 / (V + D)) is that of the full table even if `spec` is compact,
    so that a field starts at the same scale whatever the widths.
    """
    width = spec.dim // spec.vectors_per_field if spec.separate_init else spec.dim
    bound = (6.0 / (sum(spec.sizes) + width)) ** 0.5
    ends = np.cumsum([group.rows * group.width for group in spec.groups])
    key = jax.random.fold_in(key, 0)  # the recorded results depend on it
    if splitting():
        starts = (0, *(int(end) for end in ends[:-1]))
        return {
            group.name: _draw_blocks(key, spec, group, start, bound)
            for group, start in zip(spec.groups, starts, strict=True)
        }
    # one draw for all groups, since XLA takes long to compile each
    if spec.init == "xavier":
        values = jax.random.uniform(key, (spec.parameters,), minval=-bound, maxval=bound)
    elif spec.init == "normal":
        values = jax.random.normal(key, (spec.parameters,))
    else:
        values = jnp.zeros(spec.parameters)
    return {
        group.name: part.reshape(group.rows, group.width)
        for group, part in zip(spec.groups, jnp.split(values, ends[:-1]), strict=True)
    }


def _draw_blocks(key: Array, spec: EmbeddingSpec, group: Group, before: int, bound: float) -> Array:
    """The numbers that `init_table` draws for a group, `[padded V_g, d_g]`, each row on its device.

    Args:
      key: the key of the draw.
      spec: shape of the table.
      group: the group.
      before: numbers that are drawn for the groups before it.
      bound: the Xavier bound.
    """

    def block(first: Array, rows: int) -> Array:
        if spec.init == "zeros":
            return jnp.zeros((rows, group.width))
        bits = bits_of_rows(key, first, (rows, group.width), before)
        drawn = as_normal(bits) if spec.init == "normal" else as_uniform(bits, -bound, bound)
        padding = (first + jnp.arange(rows) >= group.rows)[:, None]
        return jnp.where(padding, 0.0, drawn)

    return make_blocks(block, padded_rows(group.rows))


def value_index(spec: EmbeddingSpec, ids: Array) -> dict[str, Array]:
    """Ids local to their field `[B, N]` -> index `[B, N_g]` among the values of each group.

    If every value has a row, this is the row's index in the group's array.

    Raises:
      InputError: the ids are not integers `[B, N]`, or, if they are concrete, one is not an id of
        its field. Under `jit` ids are not concrete, and a wrong id gives a row of another field:
        check ids before (`Dataset` and `Bundle.predict_ids` do).
    """
    if isinstance(ids, jax.core.Tracer) or not getattr(ids, "is_fully_addressable", True):
        check_width(ids.shape, ids.dtype, len(spec.sizes))
    else:
        checked = as_ids(ids, spec.sizes)
        ids = ids if isinstance(ids, jax.Array) else jnp.asarray(checked, np.int32)
    fields = [n for group in spec.groups for n in group.fields]
    offsets = np.array([offset for group in spec.groups for offset in group.offsets], np.int32)
    # one gather of columns for all groups is faster than one for each, and none is for one group
    index = (ids if fields == [*range(ids.shape[1])] else ids[:, np.array(fields, int)]) + offsets
    ends = np.cumsum([len(group.fields) for group in spec.groups])
    return {
        group.name: index[:, end - len(group.fields) : end]
        for group, end in zip(spec.groups, ends, strict=True)
    }


def field_of_rows(spec: EmbeddingSpec, rows: int) -> Array:
    """The field `[rows]` that each row of a uniform table belongs to, padding to the last."""
    ends = np.cumsum(spec.sizes[:-1], dtype=np.int32)
    # a search for each row, which devices can do for their own rows
    return jnp.searchsorted(jnp.asarray(ends), jnp.arange(rows, dtype=jnp.int32), side="right")


_FEW_FIELDS = 24
"""More fields of one array are read no faster one after the other, and take longer to compile."""


def lookup(table: Table, index: dict[str, Array], *, by_field: bool = False) -> Vectors:
    """Embeddings of a batch.

    Args:
      table: arrays `[V_g, d_g]`, by group.
      index: index `[B, N_g]` of the rows in each array.
      by_field: whether to read fields one after the other where that pays. XLA does so up to twice
        as fast on a CPU, since then it copies rows; but the gradient at the table is slow, since
        each field has one of its own.

    Returns:
      `[B, N_g, d_g]` by group; for a uniform table the single group is `[B, N, D]`.
    """

    def read(array: Array, rows: Array) -> Array:
        return array.at[rows].get(mode="promise_in_bounds")

    if any(map(is_split, table.values())):
        return {name: read_rows(table[name], rows) for name, rows in index.items()}
    several = len(index) > 1
    few = sum(rows.shape[1] for rows in index.values()) <= _FEW_FIELDS
    if not (by_field and (several or few)):
        return {name: read(table[name], rows) for name, rows in index.items()}
    # of several arrays XLA can fuse stacked reads into one loop, twice as slow, which asks for each
    # number which array it is from; one array is read faster that way
    join = _written if several else _stacked
    return {
        name: join([read(table[name], rows[:, n]) for n in range(rows.shape[1])])
        for name, rows in index.items()
    }


def _stacked(vectors: list[Array]) -> Array:
    """`[B, N, d]` of N times `[B, d]`."""
    return jnp.stack(vectors, axis=1)


def _written(vectors: list[Array]) -> Array:
    """`[B, N, d]` of N times `[B, d]`, written in place one after the other."""
    rows, width = vectors[0].shape
    joined = jnp.zeros((rows, len(vectors) * width), vectors[0].dtype)
    for n, part in enumerate(vectors):
        joined = lax.dynamic_update_slice(joined, part, (0, n * width))
    return joined.reshape(rows, len(vectors), width)


def flatten(spec: EmbeddingSpec, vectors: Vectors) -> Array:
    """All kept coordinates of each instance, `[B, sum(widths)]`, ordered as `spec.columns`."""
    parts = [vectors[group.name] for group in spec.groups]
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1)


def align(spec: EmbeddingSpec, vectors: Vectors) -> Array:
    """Embeddings as `[B, N, D]` with zeros at removed coordinates."""
    if spec.kept is None:
        return vectors[spec.groups[0].name]
    # reading each column is cheaper than writing it; removed ones read a column of zeros
    flat = jnp.pad(flatten(spec, vectors), ((0, 0), (0, 1)))
    index = np.full(spec.coordinates, len(spec.columns))
    index[np.array(spec.columns)] = np.arange(len(spec.columns))
    return flat[:, index].reshape(-1, len(spec.sizes), spec.dim)
