"""Principal axes: inverses, exact losses, and directions without data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ihas_jax.nn.principal import (
    FELT,
    READ,
    own_axes,
    paired_axes,
    principal_map,
    root,
    shared_axes,
)


def draw(seed, dim, width, values, steep=0.0):
    """Vectors `[values, dim]` with weights that add up to 1, and a reading `[dim, width]`.

    The spread of both falls by `10 ** -steep` from the first direction to the last.
    """
    rng = np.random.default_rng(seed)
    fall = 10.0 ** -np.linspace(0, steep, dim)
    turns = [np.linalg.qr(rng.normal(size=(dim, dim)))[0] for _ in range(2)]
    e = (rng.normal(size=(values, dim)) * fall) @ turns[0]
    weights = rng.gamma(1.0, size=values)
    reading = turns[1] @ (fall[:, None] * rng.normal(size=(dim, width)))
    return e, weights / weights.sum(), reading


def moment(e, weights):
    gaps = e - weights @ e
    return (gaps.T * weights) @ gaps, gaps


shapes = st.tuples(
    st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 8), st.integers(1, 9), st.floats(0, 3)
)


@given(shapes, st.sampled_from([READ, FELT]))
def test_the_maps_are_inverse_whatever_the_rank(shape, floor):
    e, weights, reading = draw(*shape)
    forward, backward = principal_map(moment(e, weights)[0], reading, floor)
    np.testing.assert_allclose(forward @ backward, np.eye(shape[1]), atol=1e-6)
    # on vectors that occur, to the last digits
    gaps = e - weights @ e
    np.testing.assert_allclose(gaps @ forward @ backward, gaps, atol=1e-10)


@given(shapes, st.data())
def test_the_importance_of_dropped_axes_is_the_lost_variance_of_the_units(shape, data):
    e, weights, reading = draw(*shape)
    _, gaps = moment(e, weights)
    axes = axes_of(e, weights, reading)
    worth = axes.importance[0, 0]
    assert (np.diff(worth) <= 1e-12 * worth[0]).all()
    dim = len(worth)
    kept = data.draw(st.lists(st.booleans(), min_size=dim, max_size=dim).map(np.array))
    cut = (gaps @ axes.forward[0, 0]) * kept @ axes.backward[0, 0]
    lost = weights @ (((gaps - cut) @ reading) ** 2).sum(axis=1)
    total = weights @ ((gaps @ reading) ** 2).sum(axis=1)
    np.testing.assert_allclose(worth[~kept].sum(), lost, atol=1e-9 * total + 1e-15)


@given(shapes, st.integers(0, 6))
def test_no_projection_to_as_many_axes_loses_less(shape, number):
    e, weights, reading = draw(*shape)
    worth = axes_of(e, weights, reading).importance[0, 0]
    _, gaps = moment(e, weights)
    s = np.linalg.svd(np.sqrt(weights)[:, None] * gaps @ reading, compute_uv=False)
    np.testing.assert_allclose(
        worth[number:].sum(), (s[number:] ** 2).sum(), atol=1e-6 * (s**2).sum() + 1e-15
    )


def axes_of(e, weights, reading, floor=READ):
    second = moment(e, weights)[0][None, None]
    mean = (weights @ e)[None, None]
    return own_axes(mean, second, reading[None, None], floor, np.ones((1, 1), bool))


def test_coordinates_on_training_rows_are_uncorrelated_and_of_the_mean_variance():
    e, weights, reading = draw(3, 5, 7, 40)
    second, gaps = moment(e, weights)
    found = moment(gaps @ axes_of(e, weights, reading).forward[0, 0], weights)[0]
    np.testing.assert_allclose(found, np.eye(5) * np.trace(second) / 5, atol=1e-12)


def test_a_direction_without_data_comes_last_and_others_do_not_lean_on_it():
    rng = np.random.default_rng(1)
    e, weights = rng.normal(size=(8, 2)) @ rng.normal(size=(2, 5)) + 1, np.full(8, 1 / 8)
    axes = axes_of(e, weights, rng.normal(size=(5, 6)))
    worth, forward = axes.importance[0, 0], axes.forward[0, 0]
    assert worth[1] > 1e-3 and worth[2:].max() < 1e-14 * worth[0]
    gaps = e - weights @ e
    assert np.abs(gaps @ forward[:, 2:]).max() < 1e-12
    np.testing.assert_allclose(np.linalg.norm(forward[:, 2:], axis=0), 1)
    # a vector elsewhere stays about as long as it was
    new = rng.normal(size=5) @ forward
    assert np.abs(new).max() < 10


@given(st.integers(0, 10**6), st.floats(0, 12))
def test_no_vector_is_stretched_more_than_a_hundredfold(seed, steep):
    e, weights, reading = draw(seed, 4, 6, 10, steep)
    forward, _ = principal_map(moment(e, weights)[0], reading, READ)
    assert np.linalg.norm(forward, axis=0).max() <= 100 * (1 + 1e-9)


def test_fields_without_spread_or_reading_keep_their_coordinates_free_of_nan():
    zeros = np.zeros((1, 2, 3, 3))
    zeros[0, 1] = np.diag([1.0, 4.0, 2.0])
    axes = own_axes(np.zeros((1, 2, 3)), zeros, zeros[:, ::-1], READ, np.ones((1, 2), bool))
    assert np.isfinite(axes.forward).all() and not axes.importance.any()
    np.testing.assert_array_equal(axes.forward[0, 0], np.eye(3))
    np.testing.assert_allclose(axes.forward[0, 1] @ axes.backward[0, 1], np.eye(3), atol=1e-12)


def test_vectors_that_are_not_free_stay():
    e, weights, reading = draw(5, 4, 3, 20)
    second = np.stack([moment(e, weights)[0]] * 2)[:, None]
    free = np.array([[True], [False]])
    axes = own_axes(np.zeros((2, 1, 4)), second, np.stack([reading] * 2)[:, None], READ, free)
    np.testing.assert_array_equal(axes.forward[1, 0], np.eye(4))
    squared = reading @ reading.T
    np.testing.assert_allclose(axes.importance[1, 0], second[1, 0].diagonal() * squared.diagonal())
    assert np.abs(axes.forward[0, 0] - np.eye(4)).max() > 0.1


def test_a_square_root_squares_to_its_matrix():
    square = np.cov(np.random.default_rng(0).normal(size=(4, 9)))
    square[3], square[:, 3] = 0, 0
    found = root(square[None])[0]
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(found @ found, square, atol=1e-12)


def several(seed, fields=3, dim=4):
    parts = [draw(seed + n, dim, dim, 30, 1.0) for n in range(fields)]
    second = np.stack([moment(e, w)[0] for e, w, _ in parts])[:, None]
    return second, np.stack([root(r @ r.T) for *_, r in parts])[:, None]


@pytest.mark.parametrize("orthogonal", [True, False])
def test_a_shared_map_is_the_same_for_all_free_vectors_with_each_field_s_importance(orthogonal):
    second, reading = several(0)
    free = np.array([[True], [True], [False]])
    axes = shared_axes(
        np.zeros((3, 1, 4)), second, reading, (100, 400, 900), free, orthogonal=orthogonal
    )
    forward, backward = axes.forward[0, 0], axes.backward[0, 0]
    np.testing.assert_array_equal(axes.forward[1, 0], forward)
    np.testing.assert_array_equal(axes.forward[2, 0], np.eye(4))
    np.testing.assert_allclose(forward @ backward, np.eye(4), atol=1e-12)

    def mean(first, other):
        return (first + 2 * other) / 3

    if orthogonal:
        np.testing.assert_allclose(forward @ forward.T, np.eye(4), atol=1e-12)
        parts = [
            half @ read @ read @ half for half, read in zip(root(second), reading, strict=True)
        ]
        new = forward.T @ mean(parts[0][0], parts[1][0]) @ forward
        np.testing.assert_allclose(new, np.diag(new.diagonal()), atol=1e-12)
    else:
        new = forward.T @ mean(second[0, 0], second[1, 0]) @ forward
        np.testing.assert_allclose(new, np.diag(new.diagonal()), atol=1e-12)
        felt = mean(*(reading[n, 0] @ reading[n, 0] for n in range(2)))
        read = backward @ felt @ backward.T
        away = read - np.diag(read.diagonal())
        assert np.abs(away).max() < 1e-3 * read.diagonal().max()
    for n in range(2):
        spread = (forward.T @ second[n, 0] @ forward).diagonal()
        read = (backward @ reading[n, 0] @ reading[n, 0] @ backward.T).diagonal()
        np.testing.assert_allclose(axes.importance[n, 0], spread * read, rtol=1e-9)
    assert (np.diff(axes.importance[:2].sum(axis=(0, 1))) <= 0).all()


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 8))
def test_paired_maps_keep_inner_products_and_say_what_an_axis_of_them_is_worth(seed, dim, values):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(2, values, dim))
    vectors -= vectors.mean(axis=1, keepdims=True)
    second = np.zeros((2, 2, dim, dim))
    second[0, 1], second[1, 0] = (e.T @ e / values for e in vectors)
    # each vector's gradient is the other one
    axes = paired_axes(np.zeros((2, 2, dim)), second, root(second.swapaxes(0, 1)))
    a, b = vectors[0] @ axes.forward[0, 1], vectors[1] @ axes.forward[1, 0]
    np.testing.assert_allclose(a @ b.T, vectors[0] @ vectors[1].T, atol=1e-9)
    # over all pairs of values
    lost = ((a[:, None] * b[None]) ** 2).mean(axis=(0, 1))
    np.testing.assert_allclose(axes.importance[0, 1], lost, atol=1e-9)
    np.testing.assert_array_equal(axes.importance[0, 1], axes.importance[1, 0])
    assert (np.diff(axes.importance[0, 1]) <= 1e-12).all()
    assert np.linalg.norm(axes.forward, axis=-2).max() < 200
    varies = lost > 1e-6 * lost.max()
    np.testing.assert_allclose((a**2).mean(axis=0)[varies], (b**2).mean(axis=0)[varies], rtol=1e-6)


def test_a_vector_that_meets_a_constant_one_has_a_map_of_the_same_length():
    rng = np.random.default_rng(3)
    e = rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4))
    e -= e.mean(axis=0)
    second = np.zeros((2, 2, 4, 4))
    second[0, 1] = e.T @ e / 30
    axes = paired_axes(np.zeros((2, 2, 4)), second, root(second.swapaxes(0, 1)))
    lengths = np.linalg.norm(axes.forward, axis=-2)
    np.testing.assert_allclose(lengths[0, 1], lengths[1, 0])
    assert not axes.importance.any()


def test_paired_axes_are_those_that_lose_the_least_of_the_inner_products():
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)) for _ in range(2))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    second = np.zeros((2, 2, 4, 4))
    second[0, 1], second[1, 0] = a.T @ a / 30, b.T @ b / 30
    axes = paired_axes(np.zeros((2, 2, 4)), second, root(second.swapaxes(0, 1)))
    s = np.linalg.svd(a @ b.T, compute_uv=False)[:4]
    np.testing.assert_allclose(axes.importance[0, 1], s**2 / 900, rtol=1e-2)
