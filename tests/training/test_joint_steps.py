"""Steps of a toy selector: what each of them learns, counts and leaves alone.

The toy multiplies embeddings by its gates. Its penalty is linear in the gates and in the
embeddings, so that both would see it.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ihas_jax.models import build_model
from ihas_jax.models.base import SELECTOR
from ihas_jax.models.forward import Transformed
from ihas_jax.selectors.base import Recipe, Sampling, Selector, Weights
from ihas_jax.selectors.plan import SERVE_SEARCHED
from ihas_jax.training.steps import (
    TRAINING,
    VALIDATION,
    Batch,
    TrainState,
    init_train,
    make_step,
    model_optimizers,
)

RATE, DECAY = 0.1, 0.9
GATES = np.array([[1.0, 0.5], [2.0, 1.5], [0.3, -0.7]])
OFFSETS = np.array([0, 5, 8])
pytestmark = pytest.mark.usefixtures("float64")


@dataclasses.dataclass(frozen=True)
class Scaled(Selector):
    """Embeddings times gates `[N, D]`; draws a number to show its key, and counts its batches."""

    weight: float = 0.7

    @property
    def recipe(self):
        return Recipe(gate_batches="training")

    def init(self, key):
        return Weights({"scale": jnp.asarray(GATES)}, stats={"batches": jnp.zeros((), jnp.int32)})

    def sample(self, weights, lookup, key):
        scale = weights.gates["scale"]
        drawn = jax.random.uniform(key)
        penalty = self.weight * (scale.sum() + lookup.vectors.sum() + drawn)
        stats = {"batches": weights.stats["batches"] + 1}
        return Transformed(lookup.vectors * scale, penalty, stats)

    def select(self, weights, lookup):
        return Transformed(lookup.vectors * weights.gates["scale"])

    def choose(self, found):
        return SERVE_SEARCHED


def steps_of(tiny, **model):
    """A state with a fresh toy, and the steps of a search, compiled."""
    model = build_model(dataclasses.replace(tiny.config.model, **model), tiny.sizes)
    learns = model_optimizers(tiny.config.optimizer)
    gates = {SELECTOR: optax.sgd(RATE, momentum=DECAY)}

    def step(learns, weight=0.7, **options):
        transform = Sampling(Scaled(weight))
        return jax.jit(make_step(model, learns, transform=transform, **options))

    def start(key):
        state, weights = init_train(key, model, tiny.config.optimizer), Scaled().init(key)
        # away from the tiny first embeddings, so that every gradient counts
        tables = jax.tree.map(lambda table: 3 * table, state.params["tables"])
        return TrainState(
            step=state.step,
            pace=state.pace,
            keys=state.keys | {VALIDATION: jax.random.key(9)},
            params=state.params | {"tables": tables, SELECTOR: weights.gates},
            stats=state.stats | {SELECTOR: weights.stats},
            constants={},
            optimizers=state.optimizers | {SELECTOR: gates[SELECTOR].init(weights.gates)},
        )

    return SimpleNamespace(
        state=jax.jit(start)(tiny.key),
        model=step(learns),
        unpenalised=step(learns, weight=0.0),
        joint=step(learns | gates, penalised=True),
        gates=step(gates, penalised=True, on=VALIDATION),
        gates_in_training=step(gates, penalised=True),
    )


@pytest.fixture(scope="module")
def plain(tiny):
    with jax.enable_x64(True):
        yield steps_of(tiny)


@pytest.fixture(scope="module")
def normed(tiny):
    with jax.enable_x64(True):
        yield steps_of(tiny, batch_norm=True)


def batch_of(tiny, start):
    return Batch(*(part[start : start + 8] for part in tiny.data))


def table_of(tables):
    (table,) = tables["embedding"].values()
    return np.asarray(table)


def objective(params, table, scale, batch):
    """Mean cross-entropy of the model's formula with embeddings times the gates, and penalty.

    The penalty is that without what is drawn.
    """
    hidden, output = (params["network"]["mlp"][name] for name in ("hidden_0", "output"))
    rows = table[batch.ids + OFFSETS]
    x = (rows * scale).reshape(len(rows), -1)
    x = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
    logits = np.asarray(x @ output["kernel"] + output["bias"])[:, 0]
    loss = (np.logaddexp(0, logits) - batch.labels * logits).mean()
    return np.array([loss, 0.7 * (scale.sum() + rows.sum())])


def slopes(f, at, step=1e-5):
    """The gradient of the sum of `f` by central differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[place] = step
        found[place] = (f(at + shift) - f(at - shift)).sum() / (2 * step)
    return found


def drawn(state, on):
    """The number that the toy draws in a step on these batches."""
    key = jax.random.fold_in(state.keys[on], state.step)
    return jax.random.uniform(jax.random.split(key)[0])


def counts(state):
    """Updates that each optimiser has counted, but for the toy's, which does not count."""
    return {
        name: int(optax.tree_utils.tree_get(state.optimizers[name], "count"))
        for name in ("tables", "network")
    }


def moved(before, after):
    """Names of the subtrees of the parameters that have changed: all of their leaves or none."""
    names = set()
    for name, tree in before.params.items():
        pairs = zip(*map(jax.tree.leaves, (tree, after.params[name])), strict=True)
        changed = {not np.array_equal(a, b) for a, b in pairs}
        assert len(changed) == 1, name
        names |= {name} if changed.pop() else set()
    return names


def test_joint_steps_move_all_subtrees_by_loss_and_penalty(tiny, plain):
    state, momentum, moment = plain.state, 0.0, 0.0
    for t in range(2):
        batch, params = batch_of(tiny, 8 * t), state.params
        table, scale = table_of(params["tables"]), np.asarray(params[SELECTOR]["scale"])
        loss, penalty = objective(params, table, scale, batch)
        penalty += 0.7 * drawn(state, TRAINING)
        of_scale = slopes(partial(objective, params, table, batch=batch), scale)
        of_table = slopes(partial(objective, params, scale=scale, batch=batch), table)
        assert np.abs(of_scale - 0.7).min() > 1e-4  # or the loss would not matter
        momentum = of_scale + DECAY * momentum
        moment = 0.1 * (of_table + tiny.config.optimizer.l2 * table) + 0.9 * moment

        before, (state, metrics) = state, plain.joint(state, batch)
        assert metrics.keys() == {"loss", "penalty"}
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-6)
        np.testing.assert_allclose(metrics["penalty"], penalty, rtol=1e-6)
        found = state.params[SELECTOR]["scale"]
        np.testing.assert_allclose(found, scale - RATE * momentum, rtol=1e-6)
        found = optax.tree_utils.tree_get(state.optimizers["tables"], "mu")
        np.testing.assert_allclose(table_of(found), moment, rtol=1e-5, atol=1e-8)
        assert moved(before, state) == {"tables", "network", SELECTOR}
    assert int(state.step) == int(state.stats[SELECTOR]["batches"]) == 2
    assert counts(state) == {"tables": 2, "network": 2}


def test_a_gate_step_on_validation_rows_counts_nothing_and_leaves_all_else_alone(tiny, normed):
    state, _ = normed.joint(normed.state, batch_of(tiny, 0))
    after, metrics = normed.gates(state, batch_of(tiny, 8))
    assert moved(state, after) == {SELECTOR}
    left = {name: getattr(after, name) for name in ("step", "keys", "stats", "constants")}
    for name, tree in left.items():
        before = getattr(state, name)
        assert jax.tree.structure(tree) == jax.tree.structure(before)
        assert all(map(jnp.array_equal, jax.tree.leaves(tree), jax.tree.leaves(before))), name
    assert state.stats.keys() == {"network", SELECTOR}
    assert counts(after) == {"tables": 1, "network": 1}
    # the same step on training rows counts, moves running statistics and draws from another key
    counted, others = normed.gates_in_training(state, batch_of(tiny, 8))
    assert int(counted.step) == int(counted.stats[SELECTOR]["batches"]) == 2
    difference = others["penalty"] - metrics["penalty"]
    expected = 0.7 * (drawn(state, TRAINING) - drawn(state, VALIDATION))
    np.testing.assert_allclose(difference, expected, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, counted.params, after.params)


def test_a_model_step_leaves_gates_alone_and_its_loss_has_no_penalty(tiny, plain):
    batch = batch_of(tiny, 0)
    after, metrics = plain.model(plain.state, batch)
    assert moved(plain.state, after) == {"tables", "network"} and metrics.keys() == {"loss"}
    trace = after.optimizers[SELECTOR][0].trace["scale"]
    np.testing.assert_array_equal(trace, np.zeros_like(GATES))
    other, others = plain.unpenalised(plain.state, batch)
    jax.tree.map(np.testing.assert_array_equal, after.params, other.params)
    assert metrics["loss"] == others["loss"]
