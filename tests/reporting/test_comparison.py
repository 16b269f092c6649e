"""Means, deviations and paired differences, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from scipy.stats import t

from ihas_jax.reporting.comparison import auc_spread, paired_gain, spread

OURS, BASE = [0.75, 0.78, 0.74], [0.72, 0.76, 0.73]


def test_a_gain_is_what_the_values_are_above_the_base():
    gain = paired_gain(OURS, BASE)  # +0.03, +0.02, +0.01
    assert gain.spread.mean == pytest.approx(0.02)
    assert gain.spread.deviation == pytest.approx(0.01)
    statistic = 0.02 / (0.01 / math.sqrt(3))
    assert gain.p == pytest.approx(2 * t.sf(statistic, df=2))
    assert f"{gain.spread:+.4f}" == "+0.0200 ± 0.0100"
    assert paired_gain(BASE, OURS).spread.mean == pytest.approx(-0.02)


def test_a_single_seed_has_a_difference_and_no_test():
    gain = paired_gain(OURS[:1], BASE[:1])
    assert gain.spread.mean == pytest.approx(0.03)
    assert math.isnan(gain.spread.deviation) and math.isnan(gain.p) and gain.p_text == ""
    assert f"{gain.spread:+.4f}" == "+0.0300"


def test_where_nothing_differs_nothing_is_shown_to_differ():
    gain = paired_gain(OURS, OURS)
    assert (gain.spread.mean, gain.p, gain.p_text) == (0.0, 1.0, "1.000")


def test_seeds_that_all_differ_equally_differ_for_sure():
    """The differences are equal but for their rounding, of which no test can be made."""
    gain = paired_gain([0.71, 0.72, 0.73], [0.7, 0.71, 0.72])
    assert gain.spread.mean == pytest.approx(0.01) and (gain.p, gain.p_text) == (0.0, "<0.001")


def test_values_that_are_not_defined_have_no_test():
    gain = paired_gain([0.7, math.nan], [0.6, 0.6])
    assert math.isnan(gain.p) and f"{gain.spread:+.4f}" == "not defined"


@pytest.mark.parametrize(("p", "text"), [(0.0004, "<0.001"), (0.0123, "0.012")])
def test_p_values_have_three_digits(p, text):
    assert paired_gain(OURS, BASE)._replace(p=p).p_text == text


def test_deviations_are_those_of_a_sample():
    found = spread([1.0, 2.0, 4.0])
    assert (found.mean, found.deviation) == pytest.approx((7 / 3, math.sqrt(7 / 3)))
    assert auc_spread([{"auc": 0.71}, {"auc": 0.73}]) == "0.7200 ± 0.0141"
