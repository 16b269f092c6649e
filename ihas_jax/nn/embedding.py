"""Embedding tables whose fields may have different widths.

A field keeps a subset of the D coordinates. Fields of equal width share one array, so a table
with uniform width is one `[V, D]` array and a compact table really is smaller: no masked
columns. A field that keeps nothing has no rows at all. Where values are removed, the others have
rows of their own and those share one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ihas_jax.data.checks import as_ids, check_width

Table = dict[str, Array]
"""Arrays `[V_g, d_g]` of one embedding table, by width group."""
Rows = dict[str, Array]
"""Looked-up rows `[B, N_g, d_g]`, by width group."""
Kept = tuple[tuple[int, ...], ...]
"""Kept coordinates of each field, ascending, each in 0..D-1."""


class Group(NamedTuple):
    """Fields of equal width, stored in one array.

    Attributes:
      name: of the array.
      width: of its rows, d_g.
      fields: whose embeddings it holds.
      offsets: number of the first value of each among those of all.
      values: number of values of all.
      rows: V_g, the number of rows: one for each value, or for each that has one and one more.
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
      vectors: each row is so many vectors of D / vectors coordinates side by side.
      apart: each of these vectors starts as a table `[V, D / vectors]` of its own does.
      held: how many values of each field have a row of their own, None for all. The others share
        row 0 of each array.
    """

    sizes: tuple[int, ...]
    dim: int
    kept: Kept | None = None
    init: Literal["xavier", "normal", "zeros"] = "xavier"
    vectors: int = 1
    apart: bool = False
    held: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError: `kept` or `held` does not fit `sizes` and `dim`."""
        if self.held is not None and len(self.held) != len(self.sizes):
            raise ValueError(f"held has {len(self.held)} fields, sizes {len(self.sizes)}")
        if any(not 0 <= n <= size for n, size in zip(self.held or (), self.sizes, strict=False)):
            raise ValueError(f"held {self.held} are not numbers of values, of {self.sizes}")
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
            rows = values if self.held is None else 1 + sum(self.held[n] for n in fields)
            groups.append(Group(f"width_{width}", width, fields, offsets, values, rows))
        return tuple(groups)

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """For each column of `flatten`, its place n * D + j among the K gated coordinates."""
        kept = self.kept or (tuple(range(self.dim)),) * len(self.sizes)
        return tuple(
            n * self.dim + j for group in self.groups for n in group.fields for j in kept[n]
        )


def init_table(key: Array, spec: EmbeddingSpec) -> Table:
    """Fresh float32 arrays, one `[V_g, d_g]` per width group.

    Note: the Xavier bound sqrt(6 / (V + D)) is that of the full table also where `spec` is
    compact, so that a field starts at the same scale whatever the widths.
    """
    width = spec.dim // spec.vectors if spec.apart else spec.dim
    bound = (6.0 / (sum(spec.sizes) + width)) ** 0.5
    ends = np.cumsum([group.rows * group.width for group in spec.groups])
    key = jax.random.fold_in(key, 0)  # with which the recorded results were made
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


def positions(spec: EmbeddingSpec, ids: Array) -> dict[str, Array]:
    """Ids local to their field `[B, N]` -> numbers `[B, N_g]` among the values of each group.

    They are row numbers of its array where all values have rows.

    Raises:
      InputError: the ids are not integers `[B, N]`; or, where their values are known, one is not an
        id of its field. Under `jit` values are not known, and ids that are none give rows of other
        fields: check them before (`Dataset`, `Bundle.predict_ids` do).
    """
    if isinstance(ids, jax.core.Tracer) or not getattr(ids, "is_fully_addressable", True):
        check_width(ids.shape, ids.dtype, len(spec.sizes))
    else:
        checked = as_ids(ids, spec.sizes)
        ids = ids if isinstance(ids, jax.Array) else jnp.asarray(checked, np.int32)
    everything = tuple(range(len(spec.sizes)))
    return {
        # selecting all columns would still be a gather, which leaves its result transposed
        group.name: (ids if group.fields == everything else ids[:, np.array(group.fields)])
        + np.array(group.offsets, np.int32)
        for group in spec.groups
    }


def lookup(table: Table, numbers: dict[str, Array]) -> Rows:
    """Embedding rows of a batch.

    Args:
      table: its arrays `[V_g, d_g]`, by group.
      numbers: row numbers `[B, N_g]` in each.

    Returns:
      `[B, N_g, d_g]` by group; for a uniform table the single group is `[B, N, D]`.
    """
    return {
        name: table[name].at[rows].get(mode="promise_in_bounds") for name, rows in numbers.items()
    }


def flatten(spec: EmbeddingSpec, rows: Rows) -> Array:
    """All kept coordinates of each instance, `[B, sum(widths)]`, ordered as `spec.columns`."""
    parts = [rows[group.name] for group in spec.groups]
    return jnp.concatenate([part.reshape(part.shape[0], -1) for part in parts], axis=1)


def align(spec: EmbeddingSpec, rows: Rows) -> Array:
    """Rows as `[B, N, D]` with zeros at removed coordinates."""
    if spec.kept is None:
        return rows[spec.groups[0].name]
    # reading each place is cheaper than writing it, a column of zeros serves removed ones
    flat = jnp.pad(flatten(spec, rows), ((0, 0), (0, 1)))
    places = np.full(spec.coordinates, len(spec.columns))
    places[np.array(spec.columns)] = np.arange(len(spec.columns))
    return flat[:, places].reshape(-1, len(spec.sizes), spec.dim)
