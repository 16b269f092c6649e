"""AUC and logloss of predicted probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ihas_jax.data.checks import check_labels
from ihas_jax.errors import InputError


class DivergedError(InputError):
    """A training diverged: its loss, a weight or a prediction is not a number."""


@dataclass(frozen=True)
class Scores:
    """Quality on one split; where only one label occurs, `auc` is nan and `only_label` names it."""

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
    """AUC and logloss of `[n]` labels (0 or 1) and probabilities.

    Raises:
      InputError: as `auc` and `logloss`.
    """
    value = auc(labels, probs)
    only = int(np.asarray(labels)[0]) if np.isnan(value) else None
    return Scores(value, logloss(labels, probs), only)


def auc(labels: np.ndarray, probs: np.ndarray) -> float:
    """Area under the ROC curve, exact, ties counted half; nan if one class is missing.

    Args:
      labels: `[n]`, 0 or 1, of any dtype.
      probs: `[n]` probabilities, or log-odds, since their order alone counts.

    Raises:
      InputError: the arrays are not of n > 0 rows each, a label is neither 0 nor 1, or a
        prediction is nan (`DivergedError`).
    """
    labels, probs = _checked(labels, probs)
    values, index = np.unique(probs, return_inverse=True)
    bins = index + len(values) * (labels == 1)
    counts = np.bincount(bins, minlength=2 * len(values)).reshape(1, 2, -1)
    return float(auc_of_counts(counts)[0])


def auc_of_counts(counts: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of rows counted by their predicted value, ties counted half.

    Args:
      counts: `[P, 2, bins]` integers, the other rows and then the clicks of each bin, in ascending
        order of the prediction.

    Returns:
      `[P]` float64; nan where one class is missing.
    """
    others, clicks = np.moveaxis(counts, 1, 0)
    below = np.cumsum(others, axis=1) - others
    won = (clicks * (below + others / 2)).sum(axis=1)
    pairs = clicks.sum(axis=1) * others.sum(axis=1)
    return np.where(pairs > 0, won / np.maximum(pairs, 1), np.nan)


def logloss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean binary cross-entropy in nats; probabilities are clipped to [1e-7, 1 - 1e-7].

    Args:
      labels: `[n]`, 0 or 1, of any dtype.
      probs: `[n]` probabilities.

    Raises:
      InputError: as `auc`; or a probability is below 0 or above 1.
    """
    labels, probs = _checked(labels, probs)
    if probs.min() < 0 or probs.max() > 1:
        row = int(((probs < 0) | (probs > 1)).argmax())
        raise InputError(
            f"The probability in row {row} is {probs[row]}, not within 0 and 1; the probability of "
            "log-odds x is 1 / (1 + exp(-x))."
        )
    return float(np.mean(row_losses(labels, probs)))


def row_losses(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The binary cross-entropy `[n]` of each row, in nats; see `logloss`."""
    clipped = np.clip(probs.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(-np.where(labels == 1, np.log(clipped), np.log1p(-clipped)))


def _checked(labels: Any, probs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays `[n]` of numbers."""
    given = {"labels": labels, "probabilities": probs}
    arrays = {}
    for name, numbers in given.items():
        try:
            array = arrays[name] = np.asarray(numbers)
        except ValueError as error:
            raise InputError(f"The {name} are not an array [n] of numbers ({error}).") from None
        if array.ndim != 1 or array.dtype.kind not in "biuf" or np.ma.isMaskedArray(numbers):
            column = f"; one column is {name}[:, i]" if array.ndim == 2 else ""
            raise InputError(
                f"The {name} are {array.dtype} of the shape {list(array.shape)}; [n] numbers are "
                f"needed, none of them missing{column}."
            )
    labels, probs = arrays.values()
    if len(labels) != len(probs) or not len(labels):
        raise InputError(
            f"{len(labels)} labels and {len(probs)} probabilities can't be compared; one of each "
            "is needed for each row."
        )
    check_labels(labels)
    if np.isnan(probs).any():
        raise DivergedError(
            f"The prediction in row {np.isnan(probs).argmax()} is nan, as are "
            f"{np.isnan(probs).mean():.1%} of all: the model that made them diverged."
        )
    return labels, probs
