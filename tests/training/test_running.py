"""Scores of parts are those of all rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ihas_jax.training.metrics import DivergedError, score
from ihas_jax.training.running import RunningScores


@pytest.mark.parametrize("spread", [0.02, 1.0, 5.0])
def test_parts_score_as_the_whole(spread):
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, spread, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
    probs = (1 / (1 + np.exp(-logits))).astype(np.float32)
    running = RunningScores()
    for start in range(0, 20_000, 7_000):
        running.add(labels[start : start + 7_000], probs[start : start + 7_000])
    want = score(labels, probs)
    assert running.scores.auc == pytest.approx(want.auc, abs=2e-5)
    assert running.scores.logloss == pytest.approx(want.logloss, rel=1e-6)


def test_equal_and_extreme_predictions():
    running = RunningScores()
    assert running.scores is None
    running.add(np.array([0, 1, 0, 1], np.uint8), np.array([0, 1, 0.5, 0.5], np.float32))
    assert running.scores.auc == 0.875  # three pairs won, a tie
    running.add(np.zeros(0, np.uint8), np.zeros(0, np.float32))
    assert running.scores.auc == 0.875


def test_one_class_has_no_auc():
    running = RunningScores()
    running.add(np.ones(3, np.uint8), np.full(3, 0.5, np.float32))
    assert math.isnan(running.scores.auc)
    assert running.scores.only_label == 1
    assert running.scores.logloss == pytest.approx(math.log(2))
    with pytest.raises(DivergedError):
        running.add(np.ones(1, np.uint8), np.full(1, np.nan, np.float32))
