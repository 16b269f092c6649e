"""Routers that look up what the values of a row say, and need neither embeddings nor gates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CHUNK_ROWS = 1 << 11  # what is looked up stays in the cache


@dataclass(frozen=True, eq=False)
class ValueRouter:
    """Routes a row to the cluster of its value of a field.

    Attributes:
      field: the position of the field.
      of_value: `[V_n]` uint8, the cluster of each of its values.
    """

    field: int
    of_value: np.ndarray

    @property
    def parameters(self) -> int:
        """Number of clusters of values that routing looks up."""
        return int(self.of_value.size)

    @property
    def bytes(self) -> int:
        """Size of the clusters of values."""
        return self.of_value.nbytes

    def assign(self, ids: np.ndarray, *, title: str = "") -> np.ndarray:
        """Cluster `[n]` int32 of each row of ids `[n, N]`."""
        found: np.ndarray = self.of_value[ids[:, self.field]].astype(np.int32)
        return found


@dataclass(frozen=True, eq=False)
class ScoreRouter:
    """Routes a row to the cluster with the largest sum of the scores of its values.

    Scores are whole numbers, so that sums are the same in any order, on any machine and in any
    language. The first cluster has no scores: its sum is 0. Of equal sums the first one counts.

    Attributes:
      bias: `[C - 1]` int32, what every row adds to the sum of each cluster but the first.
      scores: `[C - 1, V]` int16, the scores of each value of all fields, one field after the other.
      first: `[N]` int32, the column of `scores` of each field's first value.
    """

    bias: np.ndarray
    scores: np.ndarray
    first: np.ndarray

    @property
    def parameters(self) -> int:
        """Number of scores."""
        return int(self.scores.size + self.bias.size)

    @property
    def bytes(self) -> int:
        """Size of the scores."""
        return self.scores.nbytes + self.bias.nbytes

    def assign(self, ids: np.ndarray, *, title: str = "") -> np.ndarray:
        """Cluster `[n]` int32 of each row of ids `[n, N]`."""
        found = np.zeros(len(ids), np.int32)
        for start in range(0, len(ids), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            index = ids[part] + self.first
            largest = np.zeros(len(index), np.int32)
            # einsum, since NumPy's sum is slow along short last axes
            for cluster, (bias, scores) in enumerate(zip(self.bias, self.scores, strict=True), 1):
                sums = np.einsum("ij->i", scores.take(index), dtype=np.int32) + bias
                found[part][sums > largest] = cluster
                np.maximum(largest, sums, out=largest)
        return found
