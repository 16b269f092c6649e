"""What a selection method keeps of an embedding table, as structure or as a mask."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ihas_jax.models.base import FACTORS, VALUES, Constants
from ihas_jax.nn.compact import carry_kept
from ihas_jax.nn.embedding import EmbeddingSpec, Group, Kept
from ihas_jax.nn.subset import make_subset, subset_bytes


@dataclass(frozen=True, eq=False)
class Selection:
    """Kept coordinates of each field, kept values, and a mask of single numbers.

    The retrained table has only the kept coordinates and values. Numbers that the mask removes
    stay in the table and are multiplied by 0.

    Attributes:
      kept: kept coordinates of each field.
      values: `[V]` of bool, the kept values; None for all.
      mask: `[V, D]` of bool, the kept numbers; None for all, and where values are removed.
      scale: factor of what is kept.
    """

    kept: Kept
    values: np.ndarray | None = None
    mask: np.ndarray | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raises: ValueError: there are values and a mask."""
        if self.values is not None and self.mask is not None:
            raise ValueError("a selection removes values or single numbers, not both")

    def parameters(self, spec: EmbeddingSpec) -> int:
        """Numbers left in a table; `spec` is the table before selection."""
        return sum(self.parameters_by_field(spec))

    def parameters_by_field(self, spec: EmbeddingSpec) -> list[int]:
        """Numbers left in each field of a table; `spec` is the table before selection."""
        if self.mask is not None:
            parts = by_field(self.mask, spec)
            pairs = zip(parts, self.kept, strict=True)
            return [int(np.count_nonzero(part[:, list(field)])) for part, field in pairs]
        rows = self.stored_values(spec) or spec.sizes
        return [number * len(field) for number, field in zip(rows, self.kept, strict=True)]

    def bytes(self, spec: EmbeddingSpec) -> int:
        """Bytes to store what is kept: 4 per number, and the record of what is kept.

        The record takes a bit per number that a mask may remove, and two bits per value.
        """
        bits = 0 if self.mask is None else self.mask.size
        groups = [] if self.values is None else dataclasses.replace(spec, kept=self.kept).groups
        subsets = sum(subset_bytes(group.values) for group in groups)
        return 4 * self.parameters(spec) + -(-bits // 8) + subsets

    def stored_values(self, spec: EmbeddingSpec) -> tuple[int, ...] | None:
        """Number of kept values of each field, None for all."""
        if self.values is None:
            return None
        return tuple(int(np.count_nonzero(part)) for part in by_field(self.values, spec))

    def carried(self, source: EmbeddingSpec, target: EmbeddingSpec) -> Selection:
        """The selection in the table of another model.

        Args:
          source: the table that the selection was chosen for.
          target: the full-size table of the other model; if it equals `source`, nothing changes.

        Raises:
          ValueError: the selection does not fit the other table; see `carry_kept`.
        """
        if self.mask is not None and (source.dim, source.vectors_per_field) != (
            target.dim,
            target.vectors_per_field,
        ):
            raise ValueError("a selection of single numbers fits tables of one shape alone")
        return dataclasses.replace(self, kept=carry_kept(self.kept, source, target))

    def constants(self, target: EmbeddingSpec) -> Constants:
        """The constants of a model with the compact table `target`: factors and kept values.

        There are none where only coordinates are removed.
        """
        constants: Constants = {}
        if self.values is not None:
            parts = by_field(self.values, target)
            constants[VALUES] = {
                group.name: make_subset(np.concatenate([parts[n] for n in group.fields]))
                for group in target.groups
            }
        if self.values is not None or self.mask is not None or self.scale != 1:
            constants[FACTORS] = {
                group.name: self._factors(group, target) for group in target.groups
            }
        return constants

    def factors(self, spec: EmbeddingSpec) -> np.ndarray:
        """Factors of the full-size table `spec` that make it what is kept, `[V, D]` float32."""
        factors = np.zeros((sum(spec.sizes), spec.dim), np.float32)
        for part, kept in zip(by_field(factors, spec), self.kept, strict=True):
            part[:, list(kept)] = self.scale
        for removed in (self.mask, None if self.values is None else self.values[:, None]):
            factors *= 1 if removed is None else removed
        return factors

    def _factors(self, group: Group, target: EmbeddingSpec) -> np.ndarray:
        """`[V_g, d_g]`, or `[V_g, 1]` without a mask; 0 for the row of removed values."""
        if self.mask is None:
            factors = np.full((group.rows, 1), self.scale, np.float32)
            if self.values is not None:
                factors[0] = 0
            return factors
        parts = by_field(self.mask, target)
        kept = [parts[n][:, list(self.kept[n])] for n in group.fields]
        return np.concatenate(kept).astype(np.float32) * np.float32(self.scale)


def select_values(
    values: np.ndarray, spec: EmbeddingSpec, kept: Kept | None = None, scale: float = 1.0
) -> Selection:
    """The selection of some values, `[V]` of bool, and of coordinates of each field.

    A field without a kept value keeps no coordinates.
    """
    fields = zip(by_field(values, spec), kept or all_coordinates(spec), strict=True)
    kept = tuple(field if part.any() else () for part, field in fields)
    return Selection(kept, None if values.all() else values, scale=scale)


def select_numbers(mask: np.ndarray, spec: EmbeddingSpec) -> Selection:
    """The selection of single numbers, `[V, D]` of bool, without coordinates that keep none.

    Without any number a coordinate of zeros stays.
    """
    parts = by_field(mask, spec)
    kept = tuple(tuple(np.flatnonzero(part.any(axis=0)).tolist()) for part in parts)
    return Selection(kept if any(kept) else ((0,), *kept[1:]), mask=mask)


def by_field(array: np.ndarray, spec: EmbeddingSpec) -> list[np.ndarray]:
    """The parts of an array `[V, ...]`, one per field."""
    return np.split(array, np.cumsum(spec.sizes)[:-1])


def mark_largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Whether each of some scores is among the `count` largest, or the first of equal ones."""
    chosen = np.zeros(scores.size, bool)
    chosen[np.argsort(-scores.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(scores.shape)


def kept_coordinates(scores: np.ndarray, chosen: np.ndarray, dim: int) -> Kept:
    """The chosen coordinates of each field; if none is chosen, the one of the largest score.

    Args:
      scores: `[K]`, K = N * D.
      chosen: `[K]` of bool.
      dim: D.
    """
    if not chosen.any():
        chosen = mark_largest(scores, 1)
    return tuple(tuple(int(j) for j in np.flatnonzero(field)) for field in chosen.reshape(-1, dim))


def all_coordinates(spec: EmbeddingSpec) -> Kept:
    """All coordinates of all fields."""
    return (tuple(range(spec.dim)),) * len(spec.sizes)
