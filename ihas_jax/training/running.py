"""AUC and logloss of rows that come in parts, in memory that does not grow with their number."""

from __future__ import annotations

import numpy as np

from ihas_jax.training.metrics import Scores, auc_of_counts, logloss

_DROPPED_BITS = 9
_BINS = (int(np.float32(1).view(np.int32)) >> _DROPPED_BITS) + 1


class RunningScores:
    """Scores of parts of the rows, added up.

    Predictions whose float32 agrees in its first 14 binary digits are ties of the AUC, which moves
    it by about 1e-6; the logloss is exact.
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, _BINS), np.int64)
        self._loss = 0.0

    def add(self, labels: np.ndarray, probs: np.ndarray) -> None:
        """Adds `[n]` labels (0 or 1) and probabilities float32.

        Raises:
          InputError: as `ihas_jax.training.metrics.logloss`.
        """
        if len(labels):
            self._loss += logloss(labels, probs) * len(labels)
            np.add.at(self._counts, (labels, probs.view(np.int32) >> _DROPPED_BITS), 1)

    @property
    def scores(self) -> Scores | None:
        """The scores of all rows so far; None without rows."""
        rows = self._counts.sum(axis=1)
        if not rows.sum():
            return None
        used = self._counts[:, self._counts.any(axis=0)]
        auc = float(auc_of_counts(used[None])[0])
        return Scores(auc, self._loss / rows.sum(), int(rows.argmax()) if np.isnan(auc) else None)
