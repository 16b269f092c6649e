from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import ModelConfig, OptimizerConfig
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.training.rounds import make_round, take
from ihas_jax.training.steps import Batch, init_train, make_step, model_optimizers

SIZES = (5, 3, 4)
OFFSETS = np.array([0, 5, 8])
OPTIMIZER = OptimizerConfig(learning_rate=0.05, l2=0.02)
ROWS = np.array([[0, 3, 5, 7], [1, 1, 2, 6], [4, 0, 7, 2]], np.int32)


def fresh(model):
    """A first state with float64 weights and moments."""
    state = jax.jit(lambda key: init_train(key, model, OPTIMIZER))(jax.random.key(0))
    return jax.tree.map(lambda x: np.float64(x) if x.dtype == jnp.float32 else x, state)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(size, size=8) for size in SIZES], axis=1).astype(np.int32)
    return Batch(ids, rng.integers(2, size=8).astype(np.uint8))


@pytest.fixture(scope="module")
def plain():
    """Step and round of a model without batch norm, compiled once, in float64."""
    model = build_model(ModelConfig(dim=2, hidden=(4,)), SIZES, click_rate=0.3)
    with jax.enable_x64(True):
        step = make_step(model, model_optimizers(OPTIMIZER))
        state = fresh(model)
        # away from the tiny first embeddings, so that every gradient counts
        tables = jax.tree.map(lambda table: 3 * table, state.params["tables"])
        state = dataclasses.replace(state, params=state.params | {"tables": tables})
        return jax.jit(step), jax.jit(make_round(step)), state


def reference(params, moments, batch, t):
    """One step in NumPy: forward and backward pass by hand, then torch's Adam with L2."""
    e, w1, b1, w2, b2 = params
    rows = batch.ids + OFFSETS
    x = e[rows].reshape(len(rows), -1)
    hidden = x @ w1 + b1
    active = np.maximum(hidden, 0)
    logits = (active @ w2 + b2)[:, 0]
    y = batch.labels.astype(float)
    loss = np.mean(np.logaddexp(0, logits) - y * logits)
    error = ((1 / (1 + np.exp(-logits)) - y) / len(y))[:, None]
    back = (error @ w2.T) * (hidden > 0)
    table = np.zeros_like(e)
    np.add.at(table, rows, (back @ w1.T).reshape(*rows.shape, -1))
    gradients = (table, x.T @ back, back.sum(0), active.T @ error, error.sum(0))
    after, new_moments = [], []
    for p, g, (m, v) in zip(params, gradients, moments, strict=True):
        g = g + OPTIMIZER.l2 * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        after.append(p - OPTIMIZER.learning_rate * step)
        new_moments.append((m, v))
    return loss, after, new_moments


def flat(params):
    mlp = params["network"]["mlp"]
    (table,) = params["tables"]["embedding"].values()
    layers = (mlp["hidden_0"], mlp["output"])
    arrays = [table, *(layer[part] for layer in layers for part in ("kernel", "bias"))]
    return [np.asarray(array) for array in arrays]


@pytest.mark.parametrize("taught", [False, True])
def test_steps_are_those_of_a_network_written_out_in_numpy(float64, plain, data, taught):
    step, _, state = plain
    if taught:  # labels of students lie between a click and none
        data = data._replace(labels=np.linspace(0.05, 0.9, len(data.labels)))
    expected = flat(state.params)
    moments = [(0 * p, 0 * p) for p in expected]
    for t, rows in enumerate(ROWS, start=1):
        batch = Batch(data.ids[rows], data.labels[rows])
        loss, expected, moments = reference(expected, moments, batch, t)
        state, metrics = step(state, batch)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-10)
        for found, want in zip(flat(state.params), expected, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-9)
    assert int(state.step) == 3


def test_a_round_is_a_loop_of_steps_with_the_mean_of_their_losses(float64, plain, data):
    step, round_, state = plain
    resident = jax.tree.map(jnp.asarray, data)
    looped, losses = state, []
    for rows in ROWS:
        looped, metrics = step(looped, take(resident, rows))
        losses.append(float(metrics["loss"]))
    scanned, metrics = round_(state, resident, ROWS)
    assert len(set(losses)) == 3
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-12)
    assert_same(scanned, looped, rtol=1e-12)


def assert_same(found, expected, rtol):
    assert (found.keys["training"] == expected.keys["training"]).all()
    trees = [dataclasses.replace(state, keys=None) for state in (found, expected)]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14)


@pytest.fixture(scope="module")
def normed():
    """One step with batch norm of a whole batch, and the function that makes it on two parts."""
    config = ModelConfig(dim=2, hidden=(4,), batch_norm=True)
    with jax.enable_x64(True):
        model = build_model(config, SIZES, click_rate=0.3)
        split_model = build_model(config, SIZES, click_rate=0.3, axis_name="data")
        state = fresh(model)
        # biases before batch norm have no gradient: away from 0 the L2 term gives them one
        state = dataclasses.replace(state, params=jax.tree.map(lambda p: p + 0.1, state.params))
        single = jax.jit(make_step(model, model_optimizers(OPTIMIZER)))
        parts = jax.jit(
            jax.vmap(
                make_step(split_model, model_optimizers(OPTIMIZER)),
                in_axes=(None, 0),
                out_axes=None,
                axis_name="data",
            )
        )
    return single, parts, state


def test_parts_of_a_batch_on_a_mapped_axis_give_the_single_device_step(float64, normed, data):
    single, parts, state = normed
    halves = Batch(data.ids.reshape(2, 4, 3), data.labels.reshape(2, 4))
    expected, metrics = single(state, data)
    found, split_metrics = parts(state, halves)
    np.testing.assert_allclose(split_metrics["loss"], metrics["loss"], rtol=1e-12)
    assert_same(found, expected, rtol=1e-9)
    moved = found.params["tables"]["embedding"]["width_2"]
    assert np.abs(moved - state.params["tables"]["embedding"]["width_2"]).max() > 0.04
    before, after = (s.stats["network"]["mlp"]["norm_0"]["mean"] for s in (state, found))
    assert np.abs(after - before).max() > 0.001


def test_labels_of_any_dtype_give_the_same_step(float64, plain, data):
    step, _, state = plain
    expected, _ = step(state, data)
    found, _ = step(state, data._replace(labels=data.labels.astype(np.float32)))
    assert_same(found, expected, rtol=0)


@pytest.mark.parametrize("tables", ["dense", "deferred", "rowwise"])
def test_a_pace_is_a_factor_of_all_learning_rates(data, tables):
    model = build_model(ModelConfig(dim=2, hidden=(4,)), SIZES)

    def after(pace, rate):
        optimizer = OptimizerConfig(learning_rate=rate, l2=0.02, tables=tables)
        step = jax.jit(make_step(model, model_optimizers(optimizer)))
        state = jax.jit(lambda key: init_train(key, model, optimizer))(jax.random.key(0))
        state = dataclasses.replace(state, pace=jnp.float32(pace))
        for _ in range(3):
            state, _ = step(state, data)
        return state.params

    found, expected, other = after(0.2, 0.5), after(1.0, 0.1), after(1.0, 0.5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True):
        assert not np.allclose(a, b)


def test_dropout_draws_anew_in_every_step_and_repeats_with_the_key(data):
    model = build_model(ModelConfig(dim=2, hidden=(50,), dropout=0.5), SIZES)
    frozen = OptimizerConfig(learning_rate=1e-30, l2=0.0)
    step = jax.jit(make_step(model, model_optimizers(frozen)))
    state = jax.jit(lambda key: init_train(key, model, frozen))(jax.random.key(0))
    second, first_metrics = step(state, data)
    _, second_metrics = step(second, data)
    _, again = step(state, data)
    assert float(first_metrics["loss"]) != float(second_metrics["loss"])
    assert float(first_metrics["loss"]) == float(again["loss"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.zeros((8, 1), np.uint8)}, r"the shape \[8, 1\]; \[8\] is needed"),
        ({"labels": np.zeros(1, np.uint8)}, r"the shape \[1\]; \[8\] is needed"),
        ({"ids": np.zeros((8, 1), np.int32)}, r"the shape \[8, 1\]; \[n, 3\] is needed"),
        ({"ids": np.zeros((8, 3), np.float32)}, "are float32; integers are needed"),
    ],
)
def test_a_batch_of_other_shapes_is_refused(data, change, words):
    model = build_model(ModelConfig(dim=2, hidden=(4,)), SIZES)
    state = init_train(jax.random.key(0), model, OPTIMIZER)
    with pytest.raises(InputError, match=words):
        jax.eval_shape(
            make_step(model, model_optimizers(OPTIMIZER)), state, data._replace(**change)
        )
