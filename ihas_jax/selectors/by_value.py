"""Routers that look up what the values of a row say, and need neither embeddings nor gates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
