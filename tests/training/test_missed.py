from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihas_jax.training.missed import after_missed

RATE = 1e-3
after = jax.jit(after_missed, static_argnums=6)


def adam(rows, mean, square, last, missed, l2):
    """Dense Adam in NumPy on rows without a gradient, step by step."""
    w, m, v = (np.array(part, np.float64) for part in (rows, mean, square))
    for t in range(last + 1, last + missed + 1):
        g = l2 * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w, m, v


def trained(seed, last, size=1e-4, rate=RATE):
    """Rows after `last` steps of Adam, each with a gradient."""
    rng = np.random.default_rng(seed)
    w, m, v = rng.uniform(-0.02, 0.02, (6, 4)), np.zeros((6, 4)), np.zeros((6, 4))
    for t in range(1, last + 1):
        g = size * rng.normal(size=w.shape)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w, m, v


def at_once(parts, last, missed, l2, dtype=jnp.float64):
    arrays = [jnp.asarray(part, dtype) for part in parts]
    steps = jnp.full(len(parts[0]), last, jnp.int32)
    return after(*arrays, steps, jnp.int32(last + missed), RATE, l2)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("last", [1, 2, 7, 40, 255, 256, 1000])
@pytest.mark.parametrize("missed", [1, 2, 5, 30, 200])
def test_without_l2_a_row_goes_where_its_momentum_takes_it(last, missed):
    start = trained(0, last)
    found, expected = at_once(start, last, missed, 0.0), adam(*start, last, missed, 0.0)
    way = np.abs(expected[0] - start[0]).max()
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-3 * way)
    for a, b in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_two_missed_steps_are_what_one_computes_by_hand():
    # after one step with a gradient of 1 the moments are 0.1 and 0.001
    w, m, v = at_once((np.ones((1, 1)), np.full((1, 1), 0.1), np.full((1, 1), 1e-3)), 1, 2, 0.0)
    second = 0.09 / 0.19 / np.sqrt(0.000999 / (1 - 0.999**2))
    third = 0.081 / 0.271 / np.sqrt(0.000998001 / (1 - 0.999**3))
    np.testing.assert_allclose(w, 1 - RATE * (second + third), rtol=1e-9)
    np.testing.assert_allclose((m, v), ([[0.081]], [[0.000998001]]), rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("size", [1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize(("last", "missed"), [(3, 1), (3, 40), (100, 10), (300, 700), (5, 3000)])
def test_l2_pulls_a_row_as_far_as_adam_does(last, missed, size):
    start = trained(1, last, size)
    found, expected = at_once(start, last, missed, 1e-6), adam(*start, last, missed, 1e-6)
    without = adam(*start, last, missed, 0.0)[0]
    # the error is small beside what L2 does, and beside the row
    allowed = 0.5 * np.abs(expected[0] - without).max() + 1e-3 * np.abs(without).max()
    assert np.abs(found[0] - expected[0]).max() < allowed


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("missed", [200, 5000])
def test_a_row_that_no_batch_has_decays_to_zero(missed):
    start = (np.array([[0.02, -0.01]]), np.zeros((1, 2)), np.zeros((1, 2)))
    for rows in (at_once(start, 0, missed, 1e-6)[0], adam(*start, 0, missed, 1e-6)[0]):
        assert np.abs(rows).max() < 2e-5
    np.testing.assert_array_equal(at_once(start, 0, missed, 0.0)[0], start[0])


@pytest.mark.parametrize("l2", [0.0, 1e-6, 0.1])
def test_a_row_that_missed_nothing_stays_to_the_last_bit(l2):
    start = [np.asarray(part, np.float32) for part in trained(2, 5)]
    for found, own in zip(at_once(start, 5, 0, l2, jnp.float32), start, strict=True):
        np.testing.assert_array_equal(found, own)


def test_rows_have_their_own_steps_and_learning_rates():
    start = [np.asarray(part, np.float32) for part in trained(3, 9)]
    last, steps = np.array([9, 9, 2, 0, 9, 5], np.int32), np.array([9, 30, 30, 30, 9, 6], np.int32)
    rates = np.array([1e-3, 1e-3, 2e-3, 1e-3, 5e-3, 0.0], np.float32)
    found = after(*start, last, steps, rates, 1e-6)
    for i in range(6):
        one = [part[i : i + 1] for part in (*start, last, steps, rates)]
        for a, b in zip(found, after(*one, 1e-6), strict=True):
            np.testing.assert_allclose(a[i], b[0], rtol=1e-6, atol=1e-12)


@settings(max_examples=40)
@given(
    last=st.integers(1, 600),
    missed=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    seed=st.integers(0, 9),
)
def test_without_l2_steps_may_be_made_up_for_in_two_parts(last, missed, seed):
    start = trained(seed, min(last, 20))
    with jax.enable_x64(True):
        steps = jnp.full(6, last, jnp.int32)
        rows = [jnp.asarray(part) for part in start]
        whole = after(*rows, steps, jnp.int32(last + sum(missed)), RATE, 0.0)
        first = after(*rows, steps, jnp.int32(last + missed[0]), RATE, 0.0)
        parts = after(*first, steps + missed[0], jnp.int32(last + sum(missed)), RATE, 0.0)
    for a, b in zip(whole[1:], parts[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    np.testing.assert_allclose(whole[0], parts[0], rtol=0, atol=1e-2 * RATE)
