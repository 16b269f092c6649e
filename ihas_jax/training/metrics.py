"""AUC and logloss of predicted probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Quality on one split: `auc` is nan where only one label occurs, which `only_label` is."""

    auc: float
    logloss: float
    only_label: int | None = None

    @property
    def objective(self) -> float:
        """What early stopping maximises: the AUC, or minus the logloss of a single class."""
        return -self.logloss if np.isnan(self.auc) else self.auc

    @property
    def facts(self) -> dict[str, float]:
        """The scores by name, with `only_label` where only one occurs."""
        only = {} if self.only_label is None else {"only_label": self.only_label}
        return {"auc": self.auc, "logloss": self.logloss, **only}

    def __str__(self) -> str:
        return f"AUC: {auc_text(self.facts)} - logloss: {self.logloss:.4f}"


def auc_text(facts: Mapping[str, Any]) -> str:
    """The AUC among the facts of a model to four digits, or why it is not defined."""
    if not np.isnan(facts["auc"]):
        return f"{facts['auc']:.4f}"
    return f"not defined: all rows have label {facts.get('only_label', '0, or all have 1')}"


def score(labels: np.ndarray, probs: np.ndarray) -> Scores:
    """AUC and logloss of `[n]` labels (0 or 1) and probabilities."""
    value = auc(labels, probs)
    only = int(labels[0]) if np.isnan(value) and len(labels) else None
    return Scores(value, logloss(labels, probs), only)


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
