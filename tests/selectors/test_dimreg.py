from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from ihas_jax.config.methods import DimRegConfig
from ihas_jax.models.forward import Lookup
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.base import Recipe, Weights
from ihas_jax.selectors.dimreg import DimRegGates, build_dimreg
from ihas_jax.selectors.selection import kept_coordinates

N, D, K = 3, 2, 6
CONFIG = DimRegConfig(weight=0.7, l1_ratio=1.3, slope=4.0)
SELECTOR = DimRegGates(CONFIG, EmbeddingSpec((4, 2, 3), D))
THETA = np.random.default_rng(0).normal(scale=0.3, size=K)
E = np.random.default_rng(1).normal(size=(5, N, D))
LOOKUP = Lookup(E, np.zeros((5, N), np.int32))
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


@jax.jit
def run(theta):
    weights = Weights({"theta": theta})
    return SELECTOR.sample(weights, LOOKUP, KEY), SELECTOR.select(weights, LOOKUP)


def test_gates_multiply_in_the_search_and_in_evaluation_alike():
    sampled, selected = run(THETA)
    expected = E * expit(4 * THETA).reshape(N, D)
    np.testing.assert_allclose(sampled.vectors, expected, rtol=1e-12)
    np.testing.assert_allclose(selected.vectors, expected, rtol=1e-12)
    np.testing.assert_array_equal(selected.masks, np.tile(THETA > 0, (5, 1)))
    assert 0 < (THETA > 0).mean() < 1
    assert sampled.stats == {}


def test_the_penalty_is_the_weighted_mean_over_coordinates():
    g = expit(4 * THETA)
    expected = 0.7 * (1.3 * g - np.abs(g - g.mean())).mean()
    np.testing.assert_allclose(run(THETA)[0].penalty, expected, rtol=1e-12)


def test_theta_learns_from_the_loss_and_from_the_penalty_and_its_mean():
    upstream = np.random.default_rng(2).normal(size=E.shape)

    @jax.jit
    @jax.grad
    def gradient(theta):
        sampled = SELECTOR.sample(Weights({"theta": theta}), LOOKUP, KEY)
        return (upstream * sampled.vectors).sum() + sampled.penalty

    g = expit(4 * THETA)
    signs = np.sign(g - g.mean())
    assert abs(signs.mean()) > 0.1  # or the gradient through the mean would be zero
    of_penalty = 0.7 / K * (1.3 - signs + signs.mean())
    of_loss = (upstream * E).sum(axis=0).ravel()
    expected = (of_loss + of_penalty) * 4 * g * (1 - g)
    np.testing.assert_allclose(gradient(THETA), expected, rtol=1e-11)


def test_fresh_gates_are_half_open_and_only_l1_moves_them():
    fresh = SELECTOR.init(KEY).gates["theta"]
    assert fresh.shape == (K,)
    np.testing.assert_allclose(run(fresh)[0].vectors, E / 2, rtol=1e-14)
    gradient = jax.jit(
        jax.grad(lambda theta: SELECTOR.sample(Weights({"theta": theta}), LOOKUP, KEY).penalty)
    )(fresh)
    np.testing.assert_allclose(gradient, np.full(K, 0.7 / K * 1.3 * 4 / 4), rtol=1e-12)


def test_coordinates_with_positive_theta_are_kept(choose):
    theta = jnp.array([0.1, -0.1, 0.0, -0.0, 2.0, 1e-9])
    selection = choose(SELECTOR, {"selector": {"theta": theta}})
    assert selection.kept == ((0,), (), (0, 1))
    assert selection.values is None and selection.mask is None


def test_without_any_the_largest_is_kept():
    theta = np.array([-3.0, -2.0, -1.0, -0.5, -0.5, -4.0])
    assert kept_coordinates(theta, theta > 0, D) == ((), (1,), ())


def test_the_search_is_bilevel_and_retraining_starts_afresh(tiny):
    selector = build_dimreg(tiny.config.having(CONFIG), tiny.model, 20)
    assert selector == DimRegGates(CONFIG, tiny.model.embedding)
    assert selector.recipe == Recipe(gate_batches="validation")
