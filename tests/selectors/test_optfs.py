from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy.special import expit

from ihas_jax.config import AdamConfig
from ihas_jax.config.methods import OptFSConfig
from ihas_jax.models.forward import Lookup
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.base import Recipe, Weights
from ihas_jax.selectors.optfs import OptFSGates, annealed, build_optfs, ticket
from ihas_jax.selectors.selection import all_coordinates

SIZES, N, D, V = (4, 2, 3), 3, 2, 9
CONFIG = OptFSConfig(epochs=4, temperature=125.0, weight=0.3)
SELECTOR = OptFSGates(CONFIG, EmbeddingSpec(SIZES, D), epoch_steps=5)
GATES = np.random.default_rng(0).normal(scale=0.5, size=(V, 1))
PLACES = np.array([[0, 4, 8], [3, 5, 6], [3, 4, 7], [1, 4, 8]])
E = np.random.default_rng(1).normal(size=(4, N, D))
FRESH = expit(0.5)
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


def weights_after(steps, gates=GATES):
    return Weights({"gates": jnp.asarray(gates)}, stats={"steps": jnp.asarray(steps, jnp.int32)})


def test_the_temperature_rises_from_1_by_equal_factors_and_stays_at_the_last():
    found = [annealed(jnp.asarray(epoch), 4, 125.0) for epoch in range(6)]
    np.testing.assert_allclose(found, [1, 5, 25, 125, 125, 125], rtol=1e-12)
    np.testing.assert_allclose(annealed(jnp.asarray(0), 1, 125.0), 125)


@jax.jit
def run(weights):
    lookup = Lookup(E, PLACES)
    return SELECTOR.sample(weights, lookup, KEY), SELECTOR.select(weights, lookup)


@pytest.mark.parametrize(
    ("steps", "searched", "evaluated"), [(0, 1, 1), (4, 1, 1), (5, 5, 1), (6, 5, 5), (20, 125, 125)]
)
def test_factors_follow_the_epoch_and_evaluation_that_of_the_last_step(steps, searched, evaluated):
    sampled, selected = run(weights_after(steps))
    for found, temperature in ((sampled, searched), (selected, evaluated)):
        factors = expit(temperature * GATES[PLACES]) / FRESH
        np.testing.assert_allclose(found.vectors, E * factors, rtol=1e-12)
    penalty = 0.3 * expit(searched * GATES).sum() / V
    np.testing.assert_allclose(sampled.penalty, penalty, rtol=1e-12)
    assert sampled.stats["steps"] == steps + 1 and sampled.stats["steps"].dtype == jnp.int32
    masks = np.repeat(GATES[PLACES, 0] > 0, D, axis=1)
    np.testing.assert_array_equal(selected.masks, masks)
    assert 0 < masks.mean() < 1


def test_fresh_gates_leave_the_embeddings_as_they_are():
    fresh = jax.jit(SELECTOR.init)(KEY)
    assert fresh.gates["gates"].shape == (V, 1) and fresh.stats["steps"] == 0
    assert not fresh.gates["gates"].weak_type  # or the search would be compiled a second time
    sampled, selected = run(fresh)
    np.testing.assert_allclose(sampled.vectors, E, rtol=1e-12)
    assert (np.asarray(selected.masks) == 1).all()


def test_gates_learn_from_the_rows_that_have_their_value_and_all_from_the_penalty():
    upstream = np.random.default_rng(2).normal(size=E.shape)
    weights = weights_after(5)

    @jax.jit
    @jax.grad
    def gradient(gates):
        sampled = SELECTOR.sample(weights._replace(gates=gates), Lookup(E, PLACES), KEY)
        return (upstream * sampled.vectors).sum() + sampled.penalty

    opened = expit(5 * GATES)
    slope = 5 * opened * (1 - opened)
    expected = 0.3 / V * slope
    np.add.at(expected, PLACES, (upstream * E).sum(2, keepdims=True) * slope[PLACES] / FRESH)
    np.testing.assert_allclose(gradient(weights.gates)["gates"], expected, rtol=1e-11)
    assert 2 not in PLACES


def test_rows_of_padding_have_no_part_in_the_penalty():
    weights = weights_after(5)

    @jax.jit
    @jax.value_and_grad
    def penalty(gates):
        return SELECTOR.sample(weights._replace(gates=gates), Lookup(E, PLACES), KEY).penalty

    (own, slope), (padded, padded_slope) = (
        penalty({"gates": np.pad(GATES, ((0, rows), (0, 0)))}) for rows in (0, 3)
    )
    np.testing.assert_allclose(padded, own, rtol=1e-14)
    np.testing.assert_allclose(padded_slope["gates"][:V], slope["gates"], rtol=1e-14)
    assert not padded_slope["gates"][V:].any()


def unopposed(config, epoch_steps, values):
    """One of so many gates after each step, moved by the penalty alone."""
    selector = OptFSGates(config, EmbeddingSpec((values,), 1), epoch_steps)
    # the gates' shared optimiser is another, which must not matter
    optimizer = selector.optimizer(AdamConfig(learning_rate=9.0, l2=9.0))

    def penalty(gate, steps):
        temperature = annealed(steps // epoch_steps, config.epochs, config.temperature)
        return config.weight * jax.nn.sigmoid(temperature * gate) / values

    def step(carry, steps):
        gate, state = carry
        updates, state = optimizer.update(jax.grad(penalty)(gate, steps), state, gate)
        return (gate + updates, state), gate + updates

    gate = jnp.asarray(0.5)
    steps = jnp.arange(config.epochs * epoch_steps)
    run = jax.jit(lambda carry: lax.scan(step, carry, steps)[1])
    return np.asarray(run((gate, optimizer.init(gate))))


@pytest.mark.parametrize("epoch_steps", [30, 3000])
@pytest.mark.parametrize("values", [100, 10**7])
def test_gates_that_nothing_holds_open_close_before_half_of_the_search(epoch_steps, values):
    config = OptFSConfig()
    found = unopposed(config, epoch_steps, values)
    steps = len(found)
    pace = np.arange(1, epoch_steps + 1) / steps  # while the temperature is 1
    np.testing.assert_allclose(0.5 - found[:epoch_steps], pace, rtol=0.02)
    assert 0.3 < (found > 0).mean() <= 0.5
    assert found[-1] < 0


def test_the_optimiser_is_adam_whose_epsilon_is_divided_by_the_number_of_values():
    optimizer = SELECTOR.optimizer(AdamConfig(learning_rate=9.0, l2=9.0))
    gates = jnp.asarray(GATES)
    state, mean, square, expected = optimizer.init(gates), 0.0, 0.0, np.array(GATES)
    update = jax.jit(optimizer.update)
    for t in range(1, 4):
        gradient = np.random.default_rng(t).normal(scale=1e-9, size=(V, 1))
        updates, state = update(gradient, state, gates)
        gates = gates + updates
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        size = np.sqrt(square / (1 - 0.999**t)) + 1e-8 / V
        expected -= mean / (1 - 0.9**t) / size / (4 * 5)
    np.testing.assert_allclose(gates, expected, rtol=1e-11)


def test_the_ticket_keeps_values_with_open_gates_and_scales_them(choose):
    selection = choose(SELECTOR, {"selector": {"gates": jnp.asarray(GATES)}})
    assert selection.kept == all_coordinates(SELECTOR.spec)
    np.testing.assert_array_equal(selection.values, GATES[:, 0] > 0)
    assert selection.mask is None
    assert selection.scale == pytest.approx(1.6065306597126334, rel=1e-15)
    assert selection.parameters(SELECTOR.spec) == 2 * (GATES > 0).sum()


def test_without_an_open_gate_the_largest_value_is_kept():
    opened = ticket(np.array([-3.0, 0.0, -1.0, 0.0]))
    np.testing.assert_array_equal(opened, [False, True, False, False])


def test_the_recipe_is_that_of_the_config(tiny):
    for rewind, start in ((2, "rewound"), (0, "initial")):
        optfs = OptFSConfig(epochs=3, rewind=rewind)
        selector = build_optfs(tiny.config.having(optfs), tiny.model, 20)
        assert (selector.spec, selector.epoch_steps) == (tiny.model.embedding, 20)
        assert selector.recipe == Recipe(
            gate_batches="training", epochs=3, rewind_epochs=rewind, initial_weights=start
        )
