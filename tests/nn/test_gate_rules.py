"""Deterministic selection: the thresholds of both rules."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.nn.gates import (
    histogram,
    search_threshold,
    select_gates,
)

thresholds_of = jax.jit(search_threshold, static_argnames=("rule", "bins"))


def literal(counts):
    """The rule of the paper and of the code it cites: index of the threshold's bin, or None."""
    for i in range(len(counts) - 2):
        if counts[i + 1] - counts[i] <= 0 <= counts[i + 2] - counts[i + 1]:
            return i + 1
    return None


def guarded(counts):
    """The same after the first peak, if more mass than in the minimum is beyond it."""
    low = next(i for i, count in enumerate(counts) if count)
    if 2 * low >= len(counts):
        return None
    peak = low
    while peak + 1 < len(counts) and counts[peak + 1] >= counts[peak]:
        peak += 1
    for i in range(peak, len(counts) - 2):
        if (
            counts[i + 1] - counts[i] <= 0 <= counts[i + 2] - counts[i + 1]
            and max(counts[i + 2 :]) > counts[i + 1]
        ):
            return i + 1
    return None


def edge(index, bins):
    return 0.5 if index is None else index / bins


def reference(probs, rule, bins):
    rules = {"literal": literal, "guarded": guarded}
    rows = [np.histogram(row, bins, (0, 1))[0].tolist() for row in np.asarray(probs, np.float64)]
    return np.array([edge(rules[rule](row), bins) for row in rows])


def probs_of(counts):
    """Probabilities at the middle of the bins."""
    return np.repeat((np.arange(len(counts)) + 0.5) / len(counts), counts)[None].astype(np.float32)


def threshold(probs, rule, bins):
    """What the library finds, which every time has to be what the plain rule finds."""
    probs = np.atleast_2d(probs).astype(np.float32)
    found = np.asarray(thresholds_of(probs, rule=rule, bins=bins))
    np.testing.assert_allclose(found, reference(probs, rule, bins), rtol=1e-7)
    return found


K = 352
RNG = np.random.default_rng(0)
BETA = np.where(
    RNG.random((300, K)) < 0.5, RNG.beta(1, 8, (300, K)), RNG.beta(8, 1, (300, K))
).astype(np.float32)
UNIFORM = RNG.random((300, K), np.float32)
MIDDLE = RNG.uniform(0.4, 0.6, (20, K)).astype(np.float32)
SPIKES = np.where(np.arange(K) % 2, 0.005, 0.995)[None].astype(np.float32)


@pytest.mark.parametrize("probs", [MIDDLE, np.full((1, K), 0.9), SPIKES], ids=["mid", ".9", "two"])
def test_literal_stops_at_the_first_bin_where_the_second_is_empty(probs):
    np.testing.assert_allclose(threshold(probs, "literal", 100), 0.01, rtol=1e-7)


def test_literal_opens_everything_while_no_probability_is_near_zero():
    masks, _ = select_gates(jnp.asarray(MIDDLE), rule="literal", bins=100)
    np.testing.assert_array_equal(masks, np.ones_like(MIDDLE))


@pytest.mark.parametrize("rule", ["literal", "guarded"])
def test_both_rules_separate_two_spikes(rule):
    assert threshold(SPIKES, rule, 100) == np.float32(0.01)
    masks, _ = select_gates(jnp.asarray(SPIKES), rule=rule, bins=100)
    np.testing.assert_array_equal(masks, SPIKES > 0.5)


def test_literal_on_uniform_probabilities_is_counting_noise_near_the_left_end():
    found = threshold(UNIFORM, "literal", 100)
    assert np.median(found) == np.float32(0.02)
    assert found.mean() < 0.03
    grid = (np.arange(300) + 0.5) / 300  # three in every bin
    assert threshold(grid, "literal", 100) == np.float32(0.01)
    ramp = probs_of([5, 4, 3, 4, *(4,) * 96])
    assert threshold(ramp, "literal", 100) == np.float32(0.02)


def test_on_a_beta_mixture_literal_keeps_nine_tenths_and_guarded_about_half():
    found = threshold(BETA, "literal", 100)
    assert np.median(found) == np.float32(0.02)
    kept = (found[:, None] < BETA).mean()
    assert 0.90 < kept < 0.93
    found = threshold(BETA, "guarded", 20)
    assert 0.2 <= np.median(found) <= 0.5
    assert 0.5 < (found[:, None] < BETA).mean() < 0.6


@pytest.mark.parametrize(
    "counts",
    [
        [0] * 9 + [9] + [0] * 10,  # one spike below a half
        [0, 0, 3, 5, 9, 7, 4, 2] + [0] * 12,  # one lump, no mass near 0: no interior minimum
        [9, 8, 7, 5, 3, 2, 1] + [0] * 13,  # falls to the end
        [1, 2, 3, 4] + [5] * 16,  # rises to the end
        [3] * 20,  # flat
        [0] * 10 + [2, 9, 1, 0, 0, 5, 3, 0, 0, 0],  # lowest bin starts at a half
        [0] * 17 + [9, 1, 5],  # all far above it
        [0] * 19 + [9],
        [9] + [0] * 19,
    ],
)
def test_guarded_falls_back_to_a_half_without_an_interior_minimum(counts):
    assert threshold(probs_of(counts), "guarded", 20) == np.float32(0.5)


@pytest.mark.parametrize(
    ("counts", "index"),
    [
        ([0, 0, 1, 4, 2, 3, 6, 1, 0, 0], 4),  # scans from the first peak, not from the left end
        ([0, 3, 3, 1, 2, 9, 0, 0, 0, 0], 3),  # from the right end of a flat peak
        ([8, 2, 0, 0, 0, 0, 0, 0, 3, 7], 2),  # lower end of an empty valley
        ([2, 9, 4, 3, 1, 1, 5, 6, 2, 0], 4),
        ([9, 1, 1, 0, 0, 0, 0, 0, 0, 5], 1),  # by the rule a flat step is a minimum
    ],
)
def test_guarded_takes_the_first_minimum_after_the_first_peak(counts, index):
    assert threshold(probs_of(counts), "guarded", 10) == np.float32(index / 10)


def test_half_is_the_threshold_whatever_the_probabilities_are():
    probs = jnp.asarray(np.concatenate([BETA[:2], UNIFORM[:1], MIDDLE[:1]]))
    masks, thresholds = select_gates(probs, rule="half")
    assert thresholds.dtype == probs.dtype
    np.testing.assert_array_equal(thresholds, np.full(4, 0.5, np.float32))
    np.testing.assert_array_equal(masks, probs > 0.5)


def test_a_gate_at_its_threshold_is_closed():
    probs = jnp.array([[0.5, 0.25, 0.75]])
    masks, thresholds = select_gates(probs, rule="guarded", bins=4)
    np.testing.assert_array_equal(thresholds, [0.5])
    np.testing.assert_array_equal(masks, [[0, 0, 1]])


def test_the_histogram_holds_both_ends():
    probs = jnp.array([[0.0, 0.1, 0.49, 0.5, 0.75, 0.99, 1.0]])
    np.testing.assert_array_equal(histogram(probs, 4), [[2, 1, 1, 3]])


@given(counts=st.lists(st.integers(0, 12), min_size=10, max_size=10), seed=st.integers(0, 99))
def test_thresholds_are_those_of_the_plain_rule_in_any_order(counts, seed):
    counts[-1] += 120 - sum(counts)  # always 120 probabilities: one compiled function
    probs = probs_of(counts)
    shuffled = np.random.default_rng(seed).permutation(probs[0])[None]
    for rule in ("literal", "guarded"):
        found = threshold(probs, rule, 10)
        assert 0 <= found <= 1
        assert found in [*(np.arange(10) / np.float32(10)).astype(np.float32), np.float32(0.5)]
        assert found == threshold(shuffled, rule, 10)


@st.composite
def two_peaks(draw):
    """Strictly down from bin 0, perhaps after a rise, to a valley; then a second peak."""
    counts = [draw(st.integers(0, 3))]
    for _ in range(draw(st.integers(1, 3))):
        counts.insert(0, counts[0] + draw(st.integers(1, 3)))
    for _ in range(draw(st.integers(0, 2))):
        if counts[0] > 1:
            counts.insert(0, draw(st.integers(1, counts[0] - 1)))
    valley = len(counts) - 1
    for _ in range(draw(st.integers(1, 3))):
        counts.append(counts[-1] + draw(st.integers(1, 3)))
    while len(counts) < 10:
        counts.append(max(counts[-1] - 1, 0))
    counts[-1] += 200 - sum(counts)  # always 200 probabilities
    return counts, valley


@given(case=two_peaks())
def test_on_two_clean_peaks_both_rules_find_the_valley(case):
    counts, valley = case
    for rule in ("literal", "guarded"):
        assert threshold(probs_of(counts), rule, 10) == np.float32(valley / 10)
