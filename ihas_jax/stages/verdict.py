"""Which of several candidates is the smallest good model, and how sure its gain is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from ihas_jax.stages.certainty import auc_error, logloss_error
from ihas_jax.training.metrics import Scores, auc

STEP = 1.25
"""Times whose ratio is smaller count as equal: a shared machine measures no better."""
_ROUNDING = 1e-12
Facts = Mapping[str, Any]
"""The facts of a candidate, as `measure` has them."""


def best_of(candidates: Sequence[Facts]) -> int:
    """The first candidate with the best validation score."""
    scores = [_objective(facts) for facts in candidates]
    return scores.index(max(scores))


def choose_smallest(
    candidates: Sequence[Facts], tolerance: float, doubts: Sequence[float] | None = None
) -> int:
    """The smallest candidate whose validation score is about as good as the best one.

    It is so if it is behind by no more than the tolerance and what is in doubt together. Of
    equally small ones the best is taken. The score is the AUC, or minus the logloss where the
    validation rows have one class.

    Args:
      candidates: their facts.
      tolerance: how far behind the best score a candidate may be.
      doubts: by how much more each may seem to be behind, such as `doubts_of`; None for nothing.
    """
    scores = [_objective(facts) for facts in candidates]
    allowed = [tolerance + doubt for doubt in doubts or [0.0] * len(scores)]
    best = max(scores) - _ROUNDING
    good = [i for i, own in enumerate(scores) if own >= best - allowed[i]]
    return min(good, key=lambda i: (candidates[i]["parameters"], -scores[i]))


def doubts_of(
    candidates: Sequence[Facts],
    labels: np.ndarray,
    probs: Sequence[np.ndarray],
    standard_errors: float,
) -> list[float]:
    """By how much candidates may seem to be behind the best one on validation rows.

    The best of many is the best by luck, too. To take the simplest model within a standard error
    is a rule of Breiman et al. (Classification and Regression Trees, 1984, section 3.4.3). No doubt
    takes a model that seems to be below the base model, which the user has already.

    Args:
      candidates: the facts of the base model, and of others.
      labels: `[m]`, 0 or 1, those of the validation rows.
      probs: click probabilities `[m]` of the validation rows, of each candidate.
      standard_errors: how many standard errors of the difference from the best one count.
    """
    best = best_of(candidates)
    most = _objective(candidates[best]) - _objective(candidates[0])
    error = logloss_error if math.isnan(candidates[0]["valid_auc"]) else auc_error
    errors = [error(labels, own, probs[best]) for own in probs]
    return [0.0 if math.isnan(one) else min(standard_errors * one, most) for one in errors]


def efficient(candidates: Sequence[Facts]) -> list[int]:
    """The candidates that no other one equals or beats in validation score, size and speed.

    Times are compared in steps of a factor of `STEP`.
    """
    points = np.array(
        [
            (-_objective(facts), facts["parameters"], _steps(facts["microseconds"]))
            for facts in candidates
        ]
    )

    return unbeaten(points)


def unbeaten(costs: np.ndarray) -> list[int]:
    """The places of the points that no other one equals or beats in everything.

    Points that are equal do not beat each other.

    Args:
      costs: `[n, k]` finite numbers, of which less is better.
    """

    def beaten(own: np.ndarray) -> bool:
        no_worse = (costs <= own).all(axis=1)
        return bool((no_worse & (costs < own).any(axis=1)).any())

    return [i for i, own in enumerate(costs) if not beaten(own)]


def gain(labels: np.ndarray, probs: np.ndarray, base: np.ndarray) -> dict[str, float]:
    """The difference of two models in AUC, with an interval of 95 %.

    The interval says how sure the difference is for these two models; other seeds would differ,
    too.

    Args:
      labels: `[m]`, 0 or 1.
      probs: click probabilities `[m]`.
      base: those of the model that is compared with.

    Returns:
      `auc`, `low`, `high`, and `p`, the p-value that the difference is zero; the last three are
      nan with fewer than two rows of a class.
    """
    whole, error = auc(labels, probs) - auc(labels, base), auc_error(labels, probs, base)
    half = float(norm.ppf(0.975)) * error
    p = 2 * float(norm.sf(abs(whole) / error)) if error else float(not whole)
    return {"auc": whole, "low": whole - half, "high": whole + half, "p": p}


def _steps(microseconds: float) -> int:
    return round(math.log(microseconds) / math.log(STEP))


def _objective(facts: Facts) -> float:
    return Scores(facts["valid_auc"], facts["valid_logloss"]).objective
