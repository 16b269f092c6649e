"""Which of several candidates is the smallest good model, and how sure its gain is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t

from ihas_jax.training.metrics import Scores, auc

_BLOCKS = 20
_ROUNDING = 1e-12
Facts = Mapping[str, Any]
"""The facts of a candidate, as `measure` has them."""


def best_of(candidates: Sequence[Facts]) -> int:
    """The first candidate with the best validation score."""
    scores = [_objective(facts) for facts in candidates]
    return scores.index(max(scores))


def choose_smallest(candidates: Sequence[Facts], tolerance: float) -> int:
    """The smallest candidate whose validation score is within a tolerance of the best one.

    Of equally small ones the best is taken. The score is the AUC, or minus the logloss where the
    validation rows have one class.
    """
    scores = [_objective(facts) for facts in candidates]
    least = max(scores) - tolerance - _ROUNDING
    good = [i for i, found in enumerate(scores) if found >= least]
    return min(good, key=lambda i: (candidates[i]["parameters"], -scores[i]))


def efficient(candidates: Sequence[Facts]) -> list[int]:
    """The candidates that no other one equals or beats in validation score, size and speed.

    Times are compared in steps of a quarter, since a shared machine does not measure them better.
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


def gain(labels: np.ndarray, probs: np.ndarray, base: np.ndarray, seed: int) -> dict[str, float]:
    """The difference of two models in AUC, with an interval of 95 %.

    The standard error is that of the mean difference over 20 random blocks of the rows. It says how
    sure the difference is for these two models; other seeds would differ, too.

    Args:
      labels: `[m]`, 0 or 1.
      probs: click probabilities `[m]`.
      base: those of the model that is compared with.
      seed: the seed of the blocks.

    Returns:
      `auc`, `low` and `high`; the last two are nan where a block has one class.
    """
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(labels))
    parts = np.array_split(order, min(_BLOCKS, len(labels)))
    found = np.array([auc(labels[p], probs[p]) - auc(labels[p], base[p]) for p in parts])
    whole = auc(labels, probs) - auc(labels, base)
    error = float(found.std(ddof=1)) / np.sqrt(len(found)) if len(found) > 1 else float("nan")
    half = float(t.ppf(0.975, max(len(found) - 1, 1))) * error
    return {"auc": whole, "low": whole - half, "high": whole + half}


def _steps(microseconds: float) -> int:
    return round(math.log(microseconds) / math.log(1.25))


def _objective(facts: Facts) -> float:
    return Scores(facts["valid_auc"], facts["valid_logloss"]).objective
