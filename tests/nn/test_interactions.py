"""Interactions beside loops over instances, fields and coordinates, in float64."""

from __future__ import annotations

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ihas_jax.nn import interactions as ours

B, N, D = 3, 4, 2
PAIRS = list(combinations(range(N), 2))
P = len(PAIRS)
# one program for all examples of one shape
embeddings = arrays(np.float64, (B, N, D), elements=st.floats(-3, 3, width=32))
orders = st.permutations(range(N))
COMPILED = {name: jax.jit(getattr(ours, name)) for name in (
    "pooled_products", "pair_products", "inner_products", "field_aware_products", "logarithmic",
)}  # fmt: skip
ANOVA = jax.jit(ours.anova, static_argnums=1)


@pytest.fixture(autouse=True)
def _(float64):
    """All of it in float64."""


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


def test_pairs_go_through_the_second_field_first():
    assert list(zip(*ours.pairs(N), strict=True)) == PAIRS
    assert PAIRS == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert ours.pairs(1)[0].size == 0


def test_products_of_pairs():
    e = draw(B, N, D)
    expected = [[instance[i] * instance[j] for i, j in PAIRS] for instance in e]
    assert_same(COMPILED["pair_products"](e), expected)
    inner = [[sum(product) for product in instance] for instance in expected]
    assert_same(COMPILED["inner_products"](e), inner)
    pooled = [sum(instance) for instance in expected]
    assert_same(COMPILED["pooled_products"](e), pooled)


def test_outer_products_have_a_matrix_for_each_pair():
    e, kernel = draw(B, N, D), draw(D, P, D)
    expected = np.zeros((B, P))
    for b in range(B):
        for p, (i, j) in enumerate(PAIRS):
            for c in range(D):
                for d in range(D):
                    expected[b, p] += e[b, i, c] * kernel[d, p, c] * e[b, j, d]
    assert_same(jax.jit(ours.outer_products)(e, kernel), expected)


@pytest.mark.parametrize("order", range(1, N + 2))
def test_anova_sums_the_products_of_all_sets_of_so_many_fields(order):
    e = draw(B, N, D)
    expected = np.zeros((B, D))  # and stays so where there are fewer fields
    for b in range(B):
        for chosen in combinations(range(N), order):
            expected[b] += np.prod([e[b, n] for n in chosen], axis=0)
    assert_same(ANOVA(e, order), expected)


def test_field_aware_products_take_each_field_s_vector_for_the_other():
    e = draw(B, N, N, D)
    expected = [[instance[i, j] * instance[j, i] for i, j in PAIRS] for instance in e]
    assert_same(COMPILED["field_aware_products"](e), expected)


def test_compressing_mixes_the_products_of_both_layers_in_each_coordinate():
    x0, h, kernel, bias = draw(B, N, D), draw(B, 3, D), draw(N, 3, 5), draw(5)
    expected = np.zeros((B, 5, D))
    for b in range(B):
        for f in range(5):
            for d in range(D):
                expected[b, f, d] = bias[f] + sum(
                    kernel[n, k, f] * x0[b, n, d] * h[b, k, d] for n in range(N) for k in range(3)
                )
    assert_same(jax.jit(ours.compress)(x0, h, kernel, bias), expected)


def test_the_three_cross_layers():
    K = 4
    x0, x, weight, bias = draw(B, K), draw(B, K, seed=1), draw(K), draw(K, seed=1)
    kernel, gate = draw(K, K), draw(K, K, seed=1)
    expected = {name: np.zeros((B, K)) for name in ("vector", "matrix", "gated")}
    for b in range(B):
        inner = sum(x[b, i] * weight[i] for i in range(K))
        for k in range(K):
            mixed = sum(x[b, i] * kernel[i, k] for i in range(K)) + bias[k]
            opened = 1 / (1 + np.exp(-sum(x[b, i] * gate[i, k] for i in range(K))))
            expected["vector"][b, k] = x0[b, k] * inner + bias[k] + x[b, k]
            expected["matrix"][b, k] = x0[b, k] * mixed + x[b, k]
            expected["gated"][b, k] = x0[b, k] * mixed * opened + x[b, k]
    assert_same(jax.jit(ours.cross)(x0, x, weight, bias), expected["vector"])
    assert_same(jax.jit(ours.cross_matrix)(x0, x, (kernel,), bias), expected["matrix"])
    assert_same(jax.jit(ours.cross_gated)(x0, x, (kernel,), (gate,), bias), expected["gated"])


def test_cross_layers_of_low_rank_are_those_of_the_product():
    K, R = 4, 2
    x0, x, bias = draw(B, K), draw(B, K, seed=1), draw(K)
    kernel, gate = ((draw(K, R, seed=s), draw(R, K, seed=s + 1)) for s in (2, 4))
    W, G = (np.matmul(*factors) for factors in (kernel, gate))
    mixed = x0 * (x @ W + bias)
    assert_same(jax.jit(ours.cross_matrix)(x0, x, kernel, bias), mixed + x)
    opened = 1 / (1 + np.exp(-x @ G))
    assert_same(jax.jit(ours.cross_gated)(x0, x, kernel, gate, bias), mixed * opened + x)


def test_logarithmic_neurons_are_products_of_powers():
    e, powers = draw(B, N, D), draw(5, N)
    expected = np.zeros((B, D, 5))
    for b in range(B):
        for h in range(5):
            for d in range(D):
                product = 1.0
                for n in range(N):
                    product *= (1 + abs(e[b, n, d]) + 1e-7) ** powers[h, n]
                expected[b, d, h] = max(product - 1, 0)
    assert (expected == 0).any() and (expected > 0).any()
    assert_same(COMPILED["logarithmic"](e, powers), expected)


def test_bilinear_fusion_has_a_matrix_for_each_head():
    x, y, kernel = draw(B, 6), draw(B, 4), draw(2, 3, 2)
    expected = [
        sum(
            x[b, 3 * h + f] * kernel[h, f, g] * y[b, 2 * h + g]
            for h in range(2) for f in range(3) for g in range(2)
        )
        for b in range(B)
    ]  # fmt: skip
    assert_same(jax.jit(ours.bilinear_fusion)(x, y, kernel), expected)


@settings(max_examples=30)
@given(embeddings)
def test_the_ways_to_sum_over_pairs_agree(e):
    pooled = COMPILED["pooled_products"](e)
    # of sums as large as (4 * 3)^2, to which rounding is relative
    near = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(ANOVA(e, 2), pooled, **near)
    products = COMPILED["pair_products"](e)
    np.testing.assert_allclose(products.sum(axis=1), pooled, **near)
    np.testing.assert_allclose(COMPILED["inner_products"](e), products.sum(axis=2), **near)
    # a table whose vectors are the same for every other field
    aware = np.repeat(e[:, :, None], N, axis=2)
    np.testing.assert_array_equal(COMPILED["field_aware_products"](aware), products)


@settings(max_examples=30)
@given(embeddings, orders)
def test_the_order_of_fields_does_not_change_what_is_symmetric_in_them(e, order):
    permuted = e[:, np.array(order)]
    near = {"rtol": 1e-12, "atol": 1e-12}
    for function in (COMPILED["pooled_products"], lambda e: ANOVA(e, 3)):
        np.testing.assert_allclose(function(permuted), function(e), **near)
    inner = COMPILED["inner_products"]
    np.testing.assert_allclose(np.sort(inner(permuted)), np.sort(inner(e)), **near)


@settings(max_examples=30)
@given(embeddings, st.integers(0, N - 1))
def test_a_field_of_zeros_is_as_one_that_is_not_there(e, field):
    e[:, field] = 0
    others = np.array([e[:, n] for n in range(N) if n != field]).swapaxes(0, 1)
    expected = sum(others[:, i] * others[:, j] for i, j in combinations(range(N - 1), 2))
    np.testing.assert_allclose(COMPILED["pooled_products"](e), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ANOVA(e, 3), np.prod(others, axis=1), rtol=1e-12, atol=1e-12)


KERNEL = draw(D, P, D)
POWERS = draw(5, N)
FUNCTIONS = {
    "pooled_products": ours.pooled_products,
    "pair_products": ours.pair_products,
    "inner_products": ours.inner_products,
    "outer_products": lambda e: ours.outer_products(e, KERNEL),
    "anova": lambda e: ours.anova(e, 3),
    "compress": lambda e: ours.compress(e, e, draw(N, N, 5), draw(5)),
    "logarithmic": lambda e: ours.logarithmic(e, POWERS),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_finite_differences_and_finite_at_zero(name):
    """At embeddings of zeros too, where a logarithm would have none."""

    @jax.jit
    def value_and_gradient(e):
        weigh = jnp.sin(jnp.arange(1.0, FUNCTIONS[name](e).size + 1))
        return jax.value_and_grad(lambda e: FUNCTIONS[name](e).ravel() @ weigh)(e)

    e, direction = draw(B, N, D), draw(B, N, D, seed=1)
    _, gradient = value_and_gradient(e)
    step = 1e-6
    ahead, behind = (value_and_gradient(e + sign * step * direction)[0] for sign in (1, -1))
    np.testing.assert_allclose((gradient * direction).sum(), (ahead - behind) / 2 / step, rtol=1e-6)
    for zeros in (np.zeros((B, N, D)), e * (np.arange(D) == 0), e * (np.arange(N) < 2)[:, None]):
        value, gradient = value_and_gradient(zeros)
        assert np.isfinite(value) and np.isfinite(gradient).all()
