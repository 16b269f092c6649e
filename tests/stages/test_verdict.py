"""The choice among candidates, and how sure a gain is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from ihas_jax.stages.verdict import choose_smallest, efficient, gain, unbeaten
from ihas_jax.training.metrics import auc


def facts(valid_auc, parameters, microseconds=1.0, valid_logloss=0.5):
    return {
        "valid_auc": valid_auc,
        "valid_logloss": valid_logloss,
        "parameters": parameters,
        "microseconds": microseconds,
    }


@pytest.mark.parametrize(
    ("tolerance", "chosen"), [(0.0, 1), (0.0005, 2), (0.001, 2), (0.0101, 3), (1.0, 4)]
)
def test_the_smallest_within_the_tolerance_is_chosen(tolerance, chosen):
    found = [facts(0.8000, 900), facts(0.8010, 800), facts(0.8005, 400), facts(0.7910, 300)]
    found.append(facts(0.7, 10))
    assert choose_smallest(found, tolerance) == chosen


def test_of_equally_small_ones_the_best_is_chosen():
    assert choose_smallest([facts(0.80, 50), facts(0.801, 50), facts(0.79, 60)], 0.01) == 1


def test_validation_rows_of_one_class_are_judged_by_logloss():
    nan = float("nan")
    found = [facts(nan, 9, valid_logloss=0.2), facts(nan, 5, valid_logloss=0.3)]
    assert choose_smallest(found, 0.05) == 0
    assert choose_smallest(found, 0.2) == 1
    assert efficient(found) == [0, 1]


def test_the_front_has_what_nothing_else_equals_or_beats():
    found = [
        facts(0.80, 100, 2.0),
        facts(0.80, 100, 3.0),  # slower than the first
        facts(0.80, 100, 2.1),  # slower by less than a clock can tell
        facts(0.79, 50, 5.0),  # smaller
        facts(0.78, 60, 1.0),  # faster
        facts(0.78, 60, 6.0),  # beaten in all three
        facts(0.78, 60, 1.0),  # equal to another one, which does not beat it
    ]
    assert efficient(found) == [0, 2, 3, 4, 6]


def test_a_point_is_beaten_by_one_that_is_better_in_one_cost_and_not_worse_in_another():
    costs = np.array([(1, 9), (2, 5), (2, 6), (3, 5), (4, 1), (4, 1), (9, 2)])
    assert unbeaten(costs) == [0, 1, 4, 5]
    assert unbeaten(np.zeros((0, 2))) == []


def test_the_interval_is_that_of_blocks_of_the_rows():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    good = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.3 * rng.normal(size=4000), 0, 1)
    worse = np.clip(good + 0.2 * rng.normal(size=4000), 0, 1)
    found = gain(labels, good, worse, 3)
    whole = auc(labels, good) - auc(labels, worse)
    order = np.random.Generator(np.random.Philox(3)).permutation(4000).reshape(20, 200)
    blocks = [auc(labels[b], good[b]) - auc(labels[b], worse[b]) for b in order]
    interval = ttest_1samp(blocks, 0).confidence_interval(0.95)
    assert found["auc"] == whole
    half = (interval.high - interval.low) / 2
    assert found["high"] - whole == pytest.approx(half)
    assert whole - found["low"] == pytest.approx(half)
    assert found["low"] > 0


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_without_both_classes_in_every_block_there_is_no_interval(rows):
    labels = np.zeros(rows, int)
    labels[-1] = rows > 1
    found = gain(labels, np.linspace(0, 1, rows), np.full(rows, 0.5), 0)
    assert np.isnan(found["low"]) and np.isnan(found["high"])
    assert np.isnan(found["auc"]) == (rows == 1)
