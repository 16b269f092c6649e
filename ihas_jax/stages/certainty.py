"""How sure the difference of two models on the same rows is."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from ihas_jax.training.metrics import row_losses


def auc_error(labels: np.ndarray, probs: np.ndarray, other: np.ndarray) -> float:
    """The standard error of the difference of two models in AUC (DeLong et al., Biometrics 1988).

    It is nan with fewer than two rows of a class.

    Args:
      labels: `[m]`, 0 or 1.
      probs: click probabilities `[m]`.
      other: those of the model that is compared with.
    """
    clicks = labels == 1
    if min(clicks.sum(), (~clicks).sum()) < 2:
        return float("nan")
    gaps = _wins(clicks, probs) - _wins(clicks, other)
    parts = gaps[clicks], gaps[~clicks]
    return float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))


def logloss_error(labels: np.ndarray, probs: np.ndarray, other: np.ndarray) -> float:
    """The standard error of the difference of two models in logloss; nan for a single row."""
    if len(labels) < 2:
        return float("nan")
    gaps = row_losses(labels, probs) - row_losses(labels, other)
    return float(gaps.std(ddof=1) / np.sqrt(len(gaps)))


def _wins(clicks: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """`[m]`, the share of the rows of the other class that a row is ranked rightly against."""
    wins, ranks = np.empty(len(probs)), rankdata(probs)
    for own in (clicks, ~clicks):
        below = ranks[own] - rankdata(probs[own])
        wins[own] = below / (~own).sum()
    wins[~clicks] = 1 - wins[~clicks]
    return wins
