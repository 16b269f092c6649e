"""The tests behind the verdicts on claims, against values worked out by hand and by integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import chi, norm, t

NAN = float("nan")


@pytest.fixture(scope="module")
def verdicts(script):
    return script("verdicts")


def test_holm_multiplies_the_smallest_by_the_number_and_never_falls(verdicts):
    """Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which would be less than before."""
    adjusted = verdicts.holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert verdicts.holm([0.4, 0.3]) == pytest.approx([0.6, 0.6])
    assert verdicts.holm([0.9, 0.8]) == [1.0, 1.0]
    assert verdicts.holm([]) == []


def test_what_can_not_be_tested_does_not_count_for_holm(verdicts):
    first, second, third = verdicts.holm([0.02, NAN, 0.03])
    assert (first, third) == pytest.approx((0.04, 0.04)) and math.isnan(second)


def by_integration(deviation, pairs, effect, level):
    """The power as the mean over the estimated deviation, which is a chi variable."""
    freedom, center = pairs - 1, effect * math.sqrt(pairs) / deviation
    critical = t.isf(level / 2, freedom)

    def found(s):
        edge = critical * s / math.sqrt(freedom)
        return (norm.sf(edge - center) + norm.cdf(-edge - center)) * chi.pdf(s, freedom)

    return quad(found, 0, np.inf, epsabs=1e-10)[0]


@pytest.mark.parametrize("pairs", [2, 3, 5, 30])
@pytest.mark.parametrize(("deviation", "level"), [(2e-3, 0.05), (5e-4, 0.05), (5e-4, 0.005)])
def test_the_power_is_that_of_the_noncentral_t(verdicts, pairs, deviation, level):
    found = verdicts.power(deviation, pairs, 1e-3, level)
    assert found == pytest.approx(by_integration(deviation, pairs, 1e-3, level), abs=1e-6)
    assert found == verdicts.power(deviation, pairs, -1e-3, level)


def test_the_power_at_its_edges(verdicts):
    assert verdicts.power(1.0, 10, 0.0, 0.05) == pytest.approx(0.05)
    assert verdicts.power(0.0, 3, 1e-3, 0.05) == 1.0
    assert verdicts.power(1e-9, 5, 1e-3, 0.05) == pytest.approx(1.0)
    assert math.isnan(verdicts.power(1.0, 1, 1.0, 0.05))


def test_the_seeds_that_are_needed_are_the_fewest(verdicts):
    needed = verdicts.pairs_needed(1e-3, 1e-3, 0.05)
    assert needed == 10  # the number for one standard deviation in tables of the paired t-test
    assert verdicts.power(1e-3, 10, 1e-3, 0.05) >= 0.8 > verdicts.power(1e-3, 9, 1e-3, 0.05)
    assert verdicts.pairs_needed(1.0, 1e-3, 0.05) is None
    assert verdicts.pairs_needed(NAN, 1e-3, 0.05) is None


UP, DOWN = (0.03, 0.02, 0.01), (-0.03, -0.02, -0.01)


def p_of(mean, against=0.0, deviation=0.01):
    return 2 * t.sf(abs(mean - against) / (deviation / math.sqrt(3)), df=2)


def test_evidence_for_a_claim_needs_all_its_gains_and_against_it_one(verdicts):
    assert verdicts.evidence({"a": UP}, 0.001) == pytest.approx((p_of(0.02), 1.0))
    assert verdicts.evidence({"a": DOWN}, 0.001) == pytest.approx((1.0, p_of(-0.02, 0.001)))
    wide = tuple(3 * gain for gain in UP)  # as sure as UP, by the same t
    both = verdicts.evidence({"a": wide, "b": UP}, 0.001)
    assert both == pytest.approx((p_of(0.02), 1.0))
    split = verdicts.evidence({"a": UP, "b": DOWN}, 0.001)
    assert split == pytest.approx((1.0, 2 * p_of(-0.02, 0.001)))


def test_a_gain_between_zero_and_what_is_of_interest_speaks_on_both_sides(verdicts):
    gains = {"a": (0.0004, 0.0005, 0.0006)}
    above, below = verdicts.evidence(gains, 0.001)
    assert above == pytest.approx(p_of(0.0005, deviation=1e-4))
    assert below == pytest.approx(p_of(0.0005, 0.001, deviation=1e-4))
    assert verdicts.verdict(verdicts.Evidence(above, below), 0.05) == "holds"


def test_one_seed_or_an_undefined_value_tells_nothing(verdicts):
    for gains in ({"a": (0.5,)}, {"a": UP, "b": (NAN, 0.5, 0.6)}):
        found = verdicts.evidence(gains, 0.001)
        assert all(map(math.isnan, found))
        assert verdicts.verdict(found, 0.05) == "can't be told"


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ((0.049, 1.0), "holds"),
        ((1.0, 0.049), "does not"),
        ((0.05, 0.05), "can't be told"),
        ((0.04, 0.04), "holds"),
    ],
)
def test_verdicts_follow_from_the_two_sides(verdicts, pair, words):
    assert verdicts.verdict(verdicts.Evidence(*pair), 0.05) == words


def test_claims_on_a_log_are_judged_together(verdicts):
    """The first claim alone has a p-value below the level, and of three claims has not."""
    sure, noise = (0.031, 0.030, 0.029), (0.01, -0.01, 0.004)
    (alone,) = verdicts.judge([({"a": UP}, 0.001)], 0.1)
    assert alone.verdict == "holds" and alone.evidence.above == pytest.approx(p_of(0.02))
    judged = verdicts.judge([({"a": UP}, 0.001), ({"b": noise}, 0.001), ({"c": sure}, 0.001)], 0.1)
    assert [one.verdict for one in judged] == ["can't be told", "can't be told", "holds"]
    assert judged[0].evidence.above == pytest.approx(2 * p_of(0.02))
    assert judged[2].evidence.above == pytest.approx(3 * p_of(0.03, deviation=0.001))
    # two claims are left, so Holm's procedure ended at half of the level
    assert judged[0].power == pytest.approx(by_integration(0.01, 3, 0.001, 0.05))


def test_the_weakest_gain_is_shown_and_the_widest_decides_the_power(verdicts):
    (found,) = verdicts.judge([({"a": UP, "b": DOWN, "c": (0.9, 0.5, 0.1)}, 0.001)])
    assert (found.weakest, found.gains) == ("b", DOWN)
    assert found.power == pytest.approx(by_integration(0.4, 3, 0.001, 0.05))
    assert verdicts.judge([]) == []
