from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ihas_jax.config import OptimizerConfig
from ihas_jax.nn.embedding import EmbeddingSpec, flatten, lookup, value_index
from ihas_jax.training import optimizers
from ihas_jax.training.optimizers import dense_tables, l2_adam, make_table_optimizer

pytestmark = pytest.mark.usefixtures("float64")


def torch_adam(param, gradients, lr, l2):
    """torch.optim.Adam with `weight_decay`, in float64: the parameter after each step."""
    param = np.asarray(param, np.float64)
    mean, square, trace = np.zeros_like(param), np.zeros_like(param), []
    for t, gradient in enumerate(gradients, start=1):
        gradient = gradient + l2 * param
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        denominator = np.sqrt(square) / np.sqrt(1 - 0.999**t) + 1e-8
        param = param - lr / (1 - 0.9**t) * mean / denominator
        trace.append(param)
    return trace


def run(config, param, gradients):
    optimizer = l2_adam(config)

    @jax.jit
    def step(param, state, gradient):
        updates, state = optimizer.update(gradient, state, param)
        return optax.apply_updates(param, updates), state

    param = jnp.asarray(param, jnp.float64)
    state, trace = optimizer.init(param), []
    for gradient in gradients:
        param, state = step(param, state, jnp.asarray(gradient, jnp.float64))
        trace.append(np.asarray(param))
    return trace


def test_several_steps_are_torchs():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(4, 3))
    gradients = rng.normal(size=(8, 4, 3))
    ours = run(OptimizerConfig(learning_rate=0.1, l2=0.3), start, gradients)
    for found, expected in zip(ours, torch_adam(start, gradients, 0.1, 0.3), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("param", "gradient", "l2", "expected"),
    [
        # the first step is lr * g / (|g| + 1e-8) with g = gradient + l2 * param
        (1.0, 0.5, 0.0, 0.9),
        (1.0, 0.5, 0.5, 0.9),  # decoupled weight decay would give 0.85
        (1.0, -0.4, 0.5, 0.9),  # the L2 term turns the sign
        (1.0, 1e-8, 0.0, 0.95),  # epsilon inside the root would give 0.99999
        (2.0, 0.0, 0.5, 1.9),
    ],
)
def test_the_first_step_is_what_one_computes_by_hand(param, gradient, l2, expected):
    ((found,),) = run(OptimizerConfig(learning_rate=0.1, l2=l2), [param], [[gradient]])
    np.testing.assert_allclose(found, expected, rtol=2e-8)  # epsilon is left out above


def test_the_second_step_is_what_one_computes_by_hand():
    # g = 1, then -1: m = (.09 - .1) / .19, v = 1, so the second step is +.1 * .01 / .19;
    # epsilon is left out
    first, second = run(OptimizerConfig(learning_rate=0.1, l2=0.0), [0.0], [[1.0], [-1.0]])
    np.testing.assert_allclose(first, [-0.1], rtol=2e-8)
    np.testing.assert_allclose(second, [-0.1 + 0.1 * 0.01 / 0.19], rtol=2e-8)


SPEC = EmbeddingSpec((4, 3, 2), 2, ((0, 1), (1,), (0, 1)))
IDS = np.array([[1, 0, 1], [1, 2, 1], [1, 0, 0], [3, 0, 1]], np.int32)


def tables_of(rng):
    return {
        group.name: jnp.asarray(rng.normal(size=(group.rows, group.width)), jnp.float64)
        for group in SPEC.groups
    }


def test_dense_tables_are_the_optimiser_on_the_gradient_of_the_whole_table():
    rng = np.random.default_rng(0)
    table = tables_of(rng)
    weights = jnp.asarray(rng.normal(size=(4, 5)), jnp.float64)

    def loss(rows):
        return jnp.sum(weights * flatten(SPEC, rows) ** 2)

    optimizer = l2_adam(OptimizerConfig(learning_rate=0.1, l2=0.2))
    ours = dense_tables(optimizer)
    state, expected, expected_state = ours.init(table), table, optimizer.init(table)
    places = value_index(SPEC, IDS)

    @jax.jit
    def step(table, state):
        vectors, reading = ours.read(table, state, places, 1.0)
        return ours.update(table, state, reading, jax.grad(loss)(vectors), 1.0)

    @jax.jit
    def whole(table, state):
        gradient = jax.grad(lambda t: loss(lookup(t, places)))(table)
        updates, state = optimizer.update(gradient, state, table)
        return optax.apply_updates(table, updates), state

    for _ in range(3):
        table, state = step(table, state)
        expected, expected_state = whole(expected, expected_state)
    for found, want in zip(
        jax.tree.leaves((table, state)), jax.tree.leaves((expected, expected_state)), strict=True
    ):
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-14)


def test_gradients_of_a_value_seen_twice_add_up():
    # plain gradient descent shows the dense gradient itself
    ours = dense_tables(optax.sgd(1.0))
    table = {"width_1": jnp.zeros((3, 1))}
    rows, gradients = (
        {"width_1": jnp.array([[1], [1], [0]])},
        jnp.array([[[1.0]], [[2.0]], [[4.0]]]),
    )
    moved, _ = ours.update(table, ours.init(table), rows, {"width_1": gradients}, 1.0)
    np.testing.assert_array_equal(moved["width_1"], [[-4], [-3], [0]])


def test_rows_outside_the_batch_move_by_l2_and_by_momentum():
    table = {"width_1": jnp.array([[1.0], [-2.0]])}
    hit, missed = {"width_1": jnp.array([[0]])}, {"width_1": jnp.array([[1]])}
    gradient = {"width_1": jnp.array([[[1.0]]])}
    decayed = dense_tables(l2_adam(OptimizerConfig(learning_rate=0.1, l2=0.5)))
    moved, _ = decayed.update(table, decayed.init(table), hit, gradient, 1.0)
    np.testing.assert_allclose(moved["width_1"], [[0.9], [-1.9]], rtol=2e-8)
    plain = dense_tables(l2_adam(OptimizerConfig(learning_rate=0.1, l2=0.0)))
    first, state = plain.update(table, plain.init(table), hit, gradient, 1.0)
    np.testing.assert_array_equal(first["width_1"][1], table["width_1"][1])
    second, _ = plain.update(first, state, missed, gradient, 1.0)
    expected = torch_adam([1.0], [np.ones(1), np.zeros(1)], 0.1, 0.0)[-1]
    np.testing.assert_allclose(second["width_1"][0], expected, rtol=1e-12)
    assert second["width_1"][0, 0] < first["width_1"][0, 0]


@pytest.mark.parametrize(("numbers", "kind"), [(12, "dense"), (11, "deferred")])
def test_auto_defers_the_updates_of_tables_of_more_than_so_many_numbers(monkeypatch, numbers, kind):
    monkeypatch.setattr(optimizers, "LARGE", numbers)
    rng = np.random.default_rng(0)
    tables = {"width_3": jnp.asarray(rng.normal(size=(2, 3))), "width_1": jnp.ones((6, 1))}
    # row 1 of the first table, and row 5 of the second, are in the first and third batch alone
    batches = [({"width_3": jnp.array([[i]]), "width_1": jnp.array([[5 * i]])}) for i in (1, 0, 1)]

    def trained(updates):
        optimizer = make_table_optimizer(OptimizerConfig(l2=0.1, tables=updates))
        own, state = tables, optimizer.init(tables)
        for index in batches:
            vectors, reading = optimizer.read(own, state, index, 1.0)
            own, state = optimizer.update(own, state, reading, vectors, 1.0)
        return own, state

    found, expected = trained("auto"), trained(kind)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
