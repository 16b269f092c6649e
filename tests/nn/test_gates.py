from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from ihas_jax.nn.gates import (
    gate_penalty,
    histogram,
    logistic_noise,
    sample_gates,
    search_threshold,
    select_gates,
    straight_through,
)

TAU = 0.1
KEY = jax.random.key(7)
PROBS = np.array([0.02, 0.2, 0.5, 0.7, 0.97])
ROWS = 20_000

draw = jax.jit(sample_gates, static_argnames="temperature")
thresholds_of = jax.jit(search_threshold, static_argnames=("rule", "bins"))


def logits_of(probs, rows):
    logits = np.log(probs) - np.log1p(-probs)
    return np.tile(logits, (rows, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def gates():
    """20,000 draws of five gates."""
    return np.asarray(draw(KEY, logits_of(PROBS, ROWS), temperature=TAU))


# sampling, equations 1 and 2


@pytest.mark.parametrize("size", [1, 2, 7, 40_000])
def test_noise_is_logistic_and_takes_the_middle_of_65536_equal_parts(size):
    noise = np.asarray(logistic_noise(KEY, size), np.float64)
    assert noise.shape == (size,)
    parts = expit(noise) * 65_536
    np.testing.assert_allclose(parts % 1, 0.5, atol=0.01)
    if size == 40_000:
        # Kolmogorov's statistic: 1.95 / sqrt(n) is exceeded once in a thousand draws
        gap = np.abs(np.sort(parts) / 65_536 - (np.arange(size) + 0.5) / size).max()
        assert gap < 1.95 / size**0.5
        halves = noise[: size // 2], noise[size // 2 :]  # the two halves of the random words
        assert abs(np.corrcoef(*halves)[0, 1]) < 4 / (size // 2) ** 0.5


def test_gates_are_exactly_0_or_1(gates):
    assert gates.dtype == np.float32
    np.testing.assert_array_equal(np.unique(gates), [0, 1])


def test_a_gate_opens_as_often_as_its_probability_says(gates):
    error = np.sqrt(PROBS * (1 - PROBS) / ROWS)
    assert (np.abs(gates.mean(axis=0) - PROBS) < 4 * error).all()


def test_gates_of_one_instance_and_of_neighbours_are_independent(gates):
    centred = (gates - PROBS) / np.sqrt(PROBS * (1 - PROBS))
    within = centred.T @ centred / ROWS
    between = centred[1:].T @ centred[:-1] / ROWS
    bound = 4.5 / np.sqrt(ROWS)  # 35 correlations
    assert np.abs(within - np.diag(np.diag(within))).max() < bound
    assert np.abs(between).max() < bound


def test_the_arg_max_of_two_perturbed_log_probabilities_has_the_same_law(gates):
    """Equation 1 as printed, two Gumbel variables per gate; and the soft sample of equation 2."""
    gumbel = np.random.default_rng(0).gumbel(size=(2, ROWS, len(PROBS)))
    open_, closed = np.log(PROBS) + gumbel[0], np.log1p(-PROBS) + gumbel[1]
    two_gumbels = np.argmax([closed, open_], axis=0)
    error = np.sqrt(2 * PROBS * (1 - PROBS) / ROWS)
    assert (np.abs(gates.mean(axis=0) - two_gumbels.mean(axis=0)) < 4 * error).all()
    # the gradient tells the relaxed sample
    slope = jax.jit(jax.grad(lambda logits: sample_gates(KEY, logits, temperature=1.0).sum()))
    ours = np.asarray(slope(logits_of(PROBS, ROWS))).mean(axis=0)
    soft = expit(open_ - closed)
    slopes = soft * (1 - soft)
    error = np.sqrt(2) * slopes.std(axis=0) / np.sqrt(ROWS)
    assert (np.abs(ours - slopes.mean(axis=0)) < 4 * error).all()


def test_log_odds_far_out_decide_the_gate_and_have_a_finite_gradient():
    logits = jnp.array([[-1e4, 1e4]], jnp.float32)
    value, pullback = jax.vjp(lambda x: sample_gates(KEY, x, temperature=TAU), logits)
    np.testing.assert_array_equal(value, [[0, 1]])
    np.testing.assert_array_equal(pullback(jnp.ones((1, 2)))[0], [[0, 0]])


def test_the_gradient_is_that_of_the_relaxed_sample_times_upstream(float64):
    rng = np.random.default_rng(1)
    logits, upstream = rng.normal(0, 0.2, (6, 5)), rng.normal(size=(6, 5))
    keys = [jax.random.fold_in(KEY, row) for row in range(6)]
    noise = np.stack([logistic_noise(key, 5, jnp.float64) for key in keys])
    value, pullback = jax.vjp(lambda x: draw(KEY, x, temperature=TAU), jnp.asarray(logits))
    np.testing.assert_array_equal(value, logits + noise > 0)
    soft = expit((logits + noise) / TAU)
    slope = soft * (1 - soft) / TAU
    assert slope.max() > 0.1
    np.testing.assert_allclose(
        pullback(jnp.asarray(upstream))[0], slope * upstream, rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_straight_through_is_hard_forward_and_soft_backward(float64, temperature):
    perturbed = np.array([-2, -0.1, -0.01, 0, 0.02, 0.3, 3])
    value, pullback = jax.vjp(
        jax.jit(lambda x: straight_through(x, temperature)), jnp.asarray(perturbed)
    )
    np.testing.assert_array_equal(value, [0, 0, 0, 0, 1, 1, 1])
    soft = expit(perturbed / temperature)
    slope = soft * (1 - soft) / temperature
    np.testing.assert_allclose(pullback(jnp.ones(7))[0], slope, rtol=1e-9, atol=1e-14)


def test_noise_depends_on_the_row_not_on_how_the_batch_is_split():
    logits = np.zeros((8, 50), np.float32)
    whole = np.asarray(draw(KEY, logits, temperature=TAU))
    halves = [draw(KEY, logits[:4], temperature=TAU, first_row=start) for start in (0, 4)]
    np.testing.assert_array_equal(np.concatenate(halves), whole)
    assert (whole[:4] != whole[4:]).any()


# deterministic selection


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


# the regulariser, equation 5

P = np.array([[0.1, 0.5, 0.9], [0.2, 0.2, 0.8]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # row 1: sum 1.5, mean .5, deviations .4 + 0 + .4; row 2: 1.2, .4, .2 + .2 + .4
        ({}, ((0.8 * 1.5 - 0.8) + (0.8 * 1.2 - 0.8)) / 2),
        ({"reduction": "sum"}, (0.8 * 1.5 - 0.8) + (0.8 * 1.2 - 0.8)),
        ({"polarization": False}, 0.8 * 2.7 / 2),
        ({"polarization": False, "reduction": "sum"}, 0.8 * 2.7),
        ({"l0_weight": 0.0}, -0.8),
    ],
)
def test_the_penalty_is_what_one_computes_by_hand(float64, options, expected):
    value = gate_penalty(jnp.asarray(P), **({"l0_weight": 0.8} | options))
    assert value.shape == ()
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_the_gradient_of_the_penalty_flows_through_the_mean(float64):
    probs = np.array([[0.1, 0.45, 0.9, 0.7], [0.2, 0.3, 0.8, 0.25]])

    def penalty(p):
        return (0.8 * p - np.abs(p - p.mean(axis=1, keepdims=True))).sum(axis=1).mean()

    numeric, step = np.zeros_like(probs), 1e-6
    for i in np.ndindex(probs.shape):
        up, down = probs.copy(), probs.copy()
        up[i] += step
        down[i] -= step
        numeric[i] = (penalty(up) - penalty(down)) / (2 * step)
    gradient = jax.grad(lambda p: gate_penalty(p, l0_weight=0.8))(jnp.asarray(probs))
    np.testing.assert_allclose(gradient, numeric, atol=1e-9)
    # by hand, row 2: signs of p - .3875 are - - + -, their mean -1/2, so d = .8 - (sign + 1/2)
    np.testing.assert_allclose(2 * gradient[1], [1.3, 1.3, -0.7, 1.3], atol=1e-12)
