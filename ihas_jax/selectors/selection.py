"""What a selection method chose: structure where it is structure, a mask where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jax import Array

from ihas_jax.data.store import Split
from ihas_jax.models.base import BatchStats, Model, Params
from ihas_jax.nn.embedding import EmbeddingSpec, Kept


class Found(NamedTuple):
    """What a search left, and what to choose by.

    Attributes:
      model: the searched click model.
      params: its parameters with the selector's.
      batch_stats: its statistics with the selector's.
      valid: validation rows.
      key: PRNG key.
    """

    model: Model
    params: Params
    batch_stats: BatchStats
    valid: Split
    key: Array


@dataclass(frozen=True, eq=False)
class Selection:
    """Kept coordinates of each field, and factors of the rest.

    Attributes:
      kept: kept coordinates of each field; those of the others are no part of the model.
      factors: `[V, 1]` or `[V, D]` by which the embeddings are multiplied, 0 where a value or a
        coordinate of it is removed; None for ones.
    """

    kept: Kept
    factors: np.ndarray | None = None

    def parameters(self, spec: EmbeddingSpec) -> int:
        """Numbers left in a table, not counting removed ones; `spec` is it before selection."""
        return sum(self.parameters_by_field(spec))

    def parameters_by_field(self, spec: EmbeddingSpec) -> list[int]:
        """The same for each field."""
        if self.factors is None:
            return [size * len(field) for size, field in zip(spec.sizes, self.kept, strict=True)]
        starts = np.concatenate([[0], np.cumsum(spec.sizes)])
        shared = self.factors.shape[1] == 1
        return [
            int(np.count_nonzero(self._of_field(starts[n], starts[n + 1], field)))
            * (len(field) if shared else 1)
            for n, field in enumerate(self.kept)
        ]

    def bytes(self, spec: EmbeddingSpec) -> int:
        """Bytes to store them: 4 for each number, and one bit for each factor that may be 0."""
        bits = 0 if self.factors is None else self.factors.size
        return 4 * self.parameters(spec) + -(-bits // 8)

    def factor_table(self, target: EmbeddingSpec) -> dict[str, np.ndarray]:
        """The factors as arrays `[V_g, 1]` or `[V_g, d_g]`, one for each group of a table.

        Args:
          target: the compact table.
        """
        starts = np.concatenate([[0], np.cumsum(target.sizes)])
        return {
            group.name: np.concatenate(
                [self._of_field(starts[n], starts[n + 1], self.kept[n]) for n in group.fields]
            )
            for group in target.groups
        }

    def _of_field(self, start: int, stop: int, kept: tuple[int, ...]) -> np.ndarray:
        """Factors `[rows, kept]`, or `[rows, 1]` where all coordinates share them."""
        assert self.factors is not None
        rows = self.factors[start:stop]
        return rows if rows.shape[1] == 1 else rows[:, list(kept)]


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Whether each score is among the `count` largest, the first of equal ones; any shape."""
    chosen = np.zeros(scores.size, bool)
    chosen[np.argsort(-scores.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(scores.shape)


def coordinates(scores: np.ndarray, chosen: np.ndarray, dim: int) -> Kept:
    """Chosen ones of K coordinates by field; where none is, the one of the largest score.

    Args:
      scores: `[K]`, K = N * D.
      chosen: `[K]` of bool.
      dim: D.
    """
    if not chosen.any():
        chosen = largest(scores, 1)
    return tuple(tuple(int(j) for j in np.flatnonzero(field)) for field in chosen.reshape(-1, dim))


def whole(spec: EmbeddingSpec) -> Kept:
    """All coordinates of all fields."""
    return (tuple(range(spec.dim)),) * len(spec.sizes)
