"""The choice among candidates, and how sure a gain is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from ihas_jax.stages.certainty import auc_error
from ihas_jax.stages.verdict import choose_smallest, doubts_of, efficient, gain, unbeaten
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


def models(rows=4000):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, rows)
    good = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.3 * rng.normal(size=rows), 0, 1)
    return labels, good, np.clip(good + 0.2 * rng.normal(size=rows), 0, 1)


def test_the_interval_is_two_standard_errors_wide_to_each_side():
    labels, good, worse = models()
    found = gain(labels, good, worse)
    half = 1.959964 * auc_error(labels, good, worse)
    assert found["auc"] == auc(labels, good) - auc(labels, worse)
    assert found["high"] - found["auc"] == pytest.approx(half)
    assert found["auc"] - found["low"] == pytest.approx(half)
    assert found["low"] > 0
    assert found["p"] == pytest.approx(2 * norm.sf(found["auc"] / auc_error(labels, good, worse)))
    assert gain(labels, good, good) == {"auc": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_what_is_in_doubt_may_be_chosen():
    """The second is behind by .002, the third by .004."""
    found = [facts(0.800, 900), facts(0.798, 500), facts(0.796, 100)]
    assert choose_smallest(found, 0.0005) == 0
    assert choose_smallest(found, 0.0005, [0.0, 0.0016, 0.003]) == 1
    assert choose_smallest(found, 0.0005, [0.0, 0.0014, 0.003]) == 0
    assert choose_smallest(found, 0.0011, [0.0, 0.003, 0.003]) == 2


def test_doubts_are_standard_errors_of_the_difference_from_the_best():
    labels, good, worse = models()
    own = [facts(0.5, 9), facts(auc(labels, good), 9), facts(auc(labels, worse), 5)]
    error = auc_error(labels, worse, good)
    for times in (1.0, 1.5):
        doubts = doubts_of(own, labels, [worse, good, worse], times)
        assert doubts == [times * error, 0.0, times * error]


@pytest.mark.parametrize(("below", "chosen"), [(0.0004, 1), (0.0006, 2)])
def test_no_doubt_takes_a_model_that_seems_to_be_below_the_base_model(below, chosen):
    """The doubt itself, of 0.05, would take it; the tolerance against the base model is .0005."""
    labels, good, worse = models()
    assert 10 * auc_error(labels, worse, good) > 0.05
    found = [facts(0.8, 900), facts(0.8 - below, 100), facts(0.81, 900)]
    doubts = doubts_of(found, labels, [worse, worse, good], 10.0)
    assert doubts == pytest.approx([0.01, 0.01, 0.0])
    assert choose_smallest(found, 0.0005, doubts) == chosen


def test_doubts_of_one_class_are_those_of_the_logloss():
    nan, labels = float("nan"), np.zeros(3)
    found = [facts(nan, 9, valid_logloss=loss) for loss in (0.9, 0.3, 0.2)]
    probs = [np.array([0.5, 0.5, 0.5])] * 2 + [np.array([0.1, 0.2, 0.3])]
    gaps = np.log([0.9, 0.8, 0.7]) - np.log(0.5)
    expected = gaps.std(ddof=1) / np.sqrt(3)
    assert doubts_of(found, labels, probs, 1.0) == pytest.approx([expected, expected, 0.0])
    assert doubts_of(found, labels[:1], [p[:1] for p in probs], 1.0) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_without_two_rows_of_each_class_there_is_no_interval(rows):
    labels = np.zeros(rows, int)
    labels[-1] = rows > 1
    found = gain(labels, np.linspace(0, 1, rows), np.full(rows, 0.5))
    assert all(np.isnan(found[name]) for name in ("low", "high", "p"))
    assert np.isnan(found["auc"]) == (rows == 1)
