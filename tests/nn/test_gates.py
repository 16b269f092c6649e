from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from ihas_jax.nn.gates import (
    gate_penalty,
    logistic_noise,
    sample_gates,
    straight_through,
)

TAU = 0.1
KEY = jax.random.key(7)
PROBS = np.array([0.02, 0.2, 0.5, 0.7, 0.97])
ROWS = 20_000

draw = jax.jit(sample_gates, static_argnames="temperature")


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
