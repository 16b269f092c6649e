"""Moments of tables, and tables in other coordinates."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.nn.axes import Axes, identity, importance, moments, turn_table
from ihas_jax.nn.embedding import EmbeddingSpec

SIZES, VECTORS, DIM = (3, 4, 1, 2), 2, 3
SPEC = EmbeddingSpec(SIZES, VECTORS * DIM, vectors_per_field=VECTORS)
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(10, 6)).astype(np.float32)
COUNTS = np.array([2, 0, 3, 1, 1, 0, 4, 5, 0, 0])


def rows_of(field):
    """The vectors `[rows, M, d]` of a field, one by one for each training row."""
    start = sum(SIZES[:field])
    values = [v for v in range(start, start + SIZES[field]) for _ in range(COUNTS[v])]
    return TABLE[values].astype(float).reshape(-1, VECTORS, DIM)


def test_moments_are_those_over_training_rows():
    found = moments(SPEC, {"width_6": jnp.asarray(TABLE)}, COUNTS)
    assert found.mean.shape == (4, 2, 3) and found.covariance.shape == (4, 2, 3, 3)
    point = RNG.normal(size=(4, 2, 3))
    second = found.about(point)
    for n in range(3):
        rows = rows_of(n)
        for m in range(VECTORS):
            np.testing.assert_allclose(found.mean[n, m], rows[:, m].mean(axis=0), rtol=1e-12)
            covariance = np.cov(rows[:, m].T, bias=True)
            np.testing.assert_allclose(found.covariance[n, m], covariance, rtol=1e-12, atol=1e-15)
            gaps = rows[:, m] - point[n, m]
            np.testing.assert_allclose(second[n, m], gaps.T @ gaps / len(gaps), rtol=1e-12)


def test_a_field_whose_values_never_occur_has_moments_of_zero():
    found = moments(SPEC, {"width_6": jnp.asarray(TABLE)}, COUNTS)
    assert not found.mean[3].any() and not found.covariance[3].any()


def random_axes():
    forward = RNG.normal(size=(4, 2, 3, 3))
    mean = RNG.normal(size=(4, 2, 3))
    return Axes(mean, forward, np.linalg.inv(forward), np.zeros((4, 2, 3)))


def test_a_turned_table_has_each_vector_in_new_coordinates():
    axes = random_axes()
    turned = turn_table(SPEC, {"width_6": jnp.asarray(TABLE)}, axes)["width_6"]
    assert turned.dtype == np.float32
    for value in range(10):
        n = int(np.searchsorted(np.cumsum(SIZES), value, side="right"))
        for m in range(VECTORS):
            part = slice(m * DIM, (m + 1) * DIM)
            new = np.asarray(turned[value, part], float)
            expected = (TABLE[value, part] - axes.mean[n, m]) @ axes.forward[n, m]
            np.testing.assert_allclose(new, expected, rtol=1e-6, atol=1e-6)
            back = new @ axes.backward[n, m] + axes.mean[n, m]
            np.testing.assert_allclose(back, TABLE[value, part], rtol=1e-5, atol=1e-5)


def test_raw_coordinates_leave_a_table_as_it_is():
    turned = turn_table(SPEC, {"width_6": jnp.asarray(TABLE)}, identity(SPEC))
    np.testing.assert_array_equal(turned["width_6"], TABLE)


def test_importance_is_what_coordinates_add_to_the_variance_of_what_reads_them():
    e, weights = RNG.normal(size=(50, 3)), RNG.normal(size=(3, 5))
    forward = RNG.normal(size=(3, 3))
    backward = np.linalg.inv(forward)
    found = importance(e.T @ e / 50, weights @ weights.T, forward, backward)
    for i in range(3):
        lost = np.outer((e @ forward)[:, i], (backward @ weights)[i])
        np.testing.assert_allclose(found[i], (lost**2).sum(axis=1).mean(), rtol=1e-12)


@pytest.mark.parametrize("length", [9, 11])
def test_every_value_needs_a_count(length):
    with pytest.raises(ValueError, match="don't fit 10 values"):
        moments(SPEC, {"width_6": jnp.asarray(TABLE)}, np.ones(length))


def test_only_a_uniform_table_has_axes():
    for spec in (
        EmbeddingSpec(SIZES, 6, ((0,),) * 4),
        EmbeddingSpec(SIZES, 6, stored_values=SIZES),
    ):
        with pytest.raises(ValueError, match="uniform"):
            moments(spec, {"width_6": jnp.asarray(TABLE)}, COUNTS)
        with pytest.raises(ValueError, match="uniform"):
            turn_table(spec, {"width_6": jnp.asarray(TABLE)}, random_axes())
