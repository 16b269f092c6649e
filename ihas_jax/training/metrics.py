"""AUC and logloss of predicted probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Quality on one split: `auc` is nan where only one class occurs."""

    auc: float
    logloss: float

    @property
    def objective(self) -> float:
        """What early stopping maximises: the AUC, or minus the logloss of a single class."""
        return -self.logloss if np.isnan(self.auc) else self.auc

    def __str__(self) -> str:
        return f"AUC: {self.auc:.4f} - logloss: {self.logloss:.4f}"


def score(labels: np.ndarray, probs: np.ndarray) -> Scores:
    """AUC and logloss of `[n]` labels (0 or 1) and probabilities."""
    return Scores(auc(labels, probs), logloss(labels, probs))


def auc(labels: np.ndarray, probs: np.ndarray) -> float:
    """Area under the ROC curve, exact, ties counted half; nan if one class is missing."""
    order = np.argsort(probs, kind="stable")
    ranked, positive = probs[order], labels[order].astype(bool)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    positives = np.diff(np.cumsum(positive)[last], prepend=0)
    negatives = np.diff(last + 1, prepend=0) - positives
    below = np.cumsum(negatives) - negatives
    pairs = float(positives.sum()) * float(negatives.sum())
    return float(np.sum(positives * (below + negatives / 2)) / pairs) if pairs else float("nan")


def logloss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean binary cross-entropy in nats; probabilities are clipped to [1e-7, 1 - 1e-7]."""
    clipped = np.clip(probs.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(labels == 1, np.log(clipped), np.log1p(-clipped))))
