"""Standard errors of differences, against the definition by pairs and against repetition."""

from __future__ import annotations

import numpy as np
import pytest

from ihas_jax.stages.certainty import auc_error, logloss_error
from ihas_jax.training.metrics import auc


def by_pairs(labels, probs, other):
    """The definition: variances over rows of a class of mean wins against the other class."""
    parts = []
    for label in (1, 0):
        gaps = []
        for i in np.flatnonzero(labels == label):
            wins = []
            for p in (probs, other):
                against = p[labels != label]
                higher = (p[i] > against) if label else (p[i] < against)
                wins.append(np.mean(higher + 0.5 * (p[i] == against)))
            gaps.append(wins[0] - wins[1])
        parts.append(np.var(gaps, ddof=1) / len(gaps))
    return np.sqrt(sum(parts))


def test_the_error_of_the_auc_is_that_of_wins_by_pairs():
    rng = np.random.default_rng(1)
    labels = (rng.random(60) < 0.3).astype(np.uint8)
    probs = np.round(rng.random(60), 1)  # ties within and between the classes
    other = np.round(0.5 * probs + 0.5 * rng.random(60), 1)
    assert auc_error(labels, probs, other) == pytest.approx(by_pairs(labels, probs, other))


def test_the_error_of_the_auc_is_the_deviation_over_many_samples():
    rng, gaps, errors = np.random.default_rng(2), [], []
    for _ in range(300):
        labels = rng.integers(0, 2, 400)
        shared = labels + 2 * rng.normal(size=400)
        one, two = shared + 0.5 * rng.normal(size=400), shared + rng.normal(size=400)
        gaps.append(auc(labels, one) - auc(labels, two))
        errors.append(auc_error(labels, one, two))
    assert np.mean(errors) == pytest.approx(np.std(gaps, ddof=1), rel=0.12)


def test_a_model_beside_itself_has_no_error():
    labels, probs = np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.4])
    assert auc_error(labels, probs, probs) == 0
    assert logloss_error(labels, probs, probs) == 0


def test_the_error_of_the_logloss_by_hand():
    labels = np.array([1, 0])
    found = logloss_error(labels, np.array([0.8, 0.4]), np.array([0.5, 0.5]))
    gaps = np.array([-np.log(0.8) + np.log(0.5), -np.log(0.6) + np.log(0.5)])
    assert found == pytest.approx(abs(gaps[0] - gaps[1]) / 2)


@pytest.mark.parametrize("labels", [[1], [0, 0], [0, 0, 1]])
def test_too_few_rows_of_a_class_have_no_error(labels):
    probs = np.linspace(0.1, 0.9, len(labels))
    assert np.isnan(auc_error(np.array(labels), probs, probs[::-1]))
