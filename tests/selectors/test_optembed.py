from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ihas_jax.config import AdamConfig, Config, ModelConfig, SearchConfig
from ihas_jax.config.methods import OptEmbedConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.forward import Lookup, init_model
from ihas_jax.nn.embedding import EmbeddingSpec, init_table
from ihas_jax.selectors.base import Recipe, Weights
from ihas_jax.selectors.optembed import (
    Supernet,
    build_optembed,
    mean_norm,
    sample_widths,
    step_function,
)
from ihas_jax.training.metrics import auc

SIZES, N, D, V, B = (4, 2, 3), 3, 3, 9, 6
FIELD = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
SELECTOR = Supernet(OptEmbedConfig(weight=0.3), EmbeddingSpec(SIZES, D), epoch_steps=5)
E = np.random.default_rng(0).normal(scale=0.5, size=(B, N, D))
LOOKUP = Lookup(E, np.zeros((B, N), np.int32))
THRESHOLDS = np.array([[0.6], [1.1], [0.9]])
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


def slopes(u):
    """The published surrogate of the step's derivative."""
    return np.select([np.abs(u) <= 0.4, np.abs(u) <= 1], [2 - 4 * np.abs(u), 0.4], 0.0)


def test_the_step_is_hard_and_its_gradient_the_published_surrogate():
    u = jnp.array([-1.5, -1, -0.7, -0.41, -0.4, -0.1, 0, 0.1, 0.25, 0.4, 0.41, 1, 1.01])
    expected = [0, 0.4, 0.4, 0.4, 0.4, 1.6, 2, 1.6, 1, 0.4, 0.4, 0.4, 0]
    found, gradient = jax.jit(jax.vmap(jax.value_and_grad(step_function)))(u)
    np.testing.assert_array_equal(found, [0] * 7 + [1] * 6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-14)
    np.testing.assert_allclose(slopes(np.asarray(u)), expected, rtol=1e-14)


drawn = jax.jit(sample_widths, static_argnums=(1, 2, 3))
sample = jax.jit(SELECTOR.sample)


def test_every_field_of_every_instance_draws_its_own_width_from_1_to_d_alike():
    rows = 3000
    found = np.asarray(drawn(KEY, rows, N, 4))
    assert found.shape == (rows, N) and found.dtype == np.int32
    for field in found.T:
        shares = np.bincount(field, minlength=5)[1:] / rows
        assert (np.abs(shares - 1 / 4) < 4 * np.sqrt(3 / 16 / rows)).all()
    neighbours = np.concatenate([found[::2], found[1::2]], axis=1)
    apart = np.abs(np.corrcoef(neighbours.T) - np.eye(2 * N))
    assert apart.max() < 4 / np.sqrt(rows / 2)


def test_rows_of_a_part_of_the_batch_draw_as_in_the_whole():
    whole = sample(Weights({"thresholds": THRESHOLDS}), LOOKUP, KEY)
    part = LOOKUP._replace(vectors=E[3:], row_index=LOOKUP.row_index[3:], first_row=3)
    second = sample(Weights({"thresholds": THRESHOLDS}), part, KEY)
    np.testing.assert_array_equal(second.vectors, whole.vectors[3:])


def masks_by_hand():
    """Margins `[B, N, 1]`, value masks, and prefix masks `[B, N, D]` of the widths drawn."""
    margins = np.abs(E).sum(axis=2, keepdims=True) - THRESHOLDS
    assert 0 < (margins > 0).mean() < 1
    return margins, margins > 0, np.arange(D) < np.asarray(drawn(KEY, B, N, D))[..., None]


def test_the_search_shows_first_coordinates_of_values_above_their_threshold():
    _, values, prefixes = masks_by_hand()
    sampled = sample(Weights({"thresholds": THRESHOLDS}), LOOKUP, KEY)
    np.testing.assert_allclose(sampled.vectors, E * values * prefixes, rtol=1e-14)
    np.testing.assert_allclose(sampled.penalty, 0.3 * np.exp(-THRESHOLDS).sum(), rtol=1e-14)
    assert sampled.stats == {}


def test_thresholds_and_embeddings_learn_through_the_surrogate():
    upstream = np.random.default_rng(2).normal(size=E.shape)
    margins, values, prefixes = masks_by_hand()

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(thresholds, embeddings):
        lookup = LOOKUP._replace(vectors=embeddings)
        sampled = SELECTOR.sample(Weights({"thresholds": thresholds}), lookup, KEY)
        return (upstream * sampled.vectors).sum() + sampled.penalty

    of_thresholds, of_embeddings = gradient(THRESHOLDS, E)
    through = (upstream * E * prefixes).sum(axis=2, keepdims=True) * slopes(margins)
    expected = -through.sum(axis=0) - 0.3 * np.exp(-THRESHOLDS)
    np.testing.assert_allclose(of_thresholds, expected, rtol=1e-12)
    expected = upstream * values * prefixes + through * np.sign(E)
    np.testing.assert_allclose(of_embeddings, expected, rtol=1e-12)


def test_evaluation_shows_all_coordinates_of_values_above_their_threshold():
    _, values, _ = masks_by_hand()
    selected = jax.jit(SELECTOR.select)(Weights({"thresholds": THRESHOLDS}), LOOKUP)
    np.testing.assert_array_equal(selected.vectors, E * values)
    np.testing.assert_array_equal(selected.masks, np.repeat(values[..., 0], D, axis=1))


def test_fresh_thresholds_keep_every_value():
    fresh = SELECTOR.init(KEY)
    np.testing.assert_array_equal(fresh.gates["thresholds"], np.zeros((N, 1)))
    assert np.asarray(SELECTOR.select(fresh, LOOKUP).masks).all()


@pytest.mark.parametrize("init", ["xavier", "normal"])
def test_the_mean_norm_is_that_of_a_fresh_table(init):
    spec = EmbeddingSpec((6000, 4000), 4, init=init)
    (table,) = init_table(KEY, spec).values()
    norms = np.abs(table).sum(axis=1)
    assert abs(norms.mean() - mean_norm(spec)) < 4 * norms.std() / 100
    zeros = dataclasses.replace(spec, init="zeros")
    assert mean_norm(zeros) == mean_norm(dataclasses.replace(spec, init="xavier"))


@pytest.mark.parametrize("epoch_steps", [30, 300])
@pytest.mark.parametrize(("weight", "reach"), [(1e-3, 1.0), (5.0, 1.0), (1e-3, 4.0)])
def test_the_penalty_alone_drives_thresholds_as_far_as_told(epoch_steps, weight, reach):
    config = OptEmbedConfig(weight=weight, reach=reach, epochs=4)
    selector = Supernet(config, EmbeddingSpec(SIZES, 2), epoch_steps)
    # the gates' shared optimiser is another, which must not matter
    optimizer = selector.optimizer(AdamConfig(learning_rate=9.0, l2=9.0))
    lookup = Lookup(jnp.ones((1, N, 2)), jnp.zeros((1, N), jnp.int32))
    gates = selector.init(KEY).gates

    def step(_, carry):
        gates, state = carry
        gradient = jax.grad(lambda gates: selector.sample(Weights(gates), lookup, KEY).penalty)
        updates, state = optimizer.update(gradient(gates), state, gates)
        return jax.tree.map(jnp.add, gates, updates), state

    start = (gates, optimizer.init(gates))
    end, _ = jax.jit(lambda start: lax.fori_loop(0, 4 * epoch_steps, step, start))(start)
    norm = 2 * math.sqrt(6 / (V + 2)) / 2  # of two numbers from U(-b, b): b / 2 each
    np.testing.assert_allclose(end["thresholds"], np.full((N, 1), reach * norm), rtol=0.02)


def test_without_a_penalty_thresholds_have_the_step_of_weight_1():
    gradient = np.array([[1.0], [-2.0], [0.5]])
    steps = []
    for weight in (0.0, 1.0):
        config = dataclasses.replace(SELECTOR.config, weight=weight)
        optimizer = dataclasses.replace(SELECTOR, config=config).optimizer(AdamConfig())
        updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        steps.append(updates)
    np.testing.assert_array_equal(*steps)
    norm = 3 * math.sqrt(6 / (V + 3)) / 2
    np.testing.assert_allclose(steps[0], -gradient * math.expm1(norm) / (10 * 5), rtol=1e-12)


@pytest.fixture(scope="module")
def searched(tiny):
    """A model with numbers of size one and rows to choose by, for thresholds to be given."""
    with jax.enable_x64(True):
        model = build_model(dataclasses.replace(tiny.config.model, dim=D), SIZES)
        rng = np.random.default_rng(3)
        shapes = jax.eval_shape(lambda key: init_model(key, model), KEY).params
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
        ids = np.stack([rng.integers(size, size=300) for size in SIZES], 1).astype(np.int32)
        split = Split(ids, rng.integers(2, size=300).astype(np.uint8))

        def found(thresholds):
            gates = {"thresholds": jnp.asarray(thresholds)}
            return params | {"selector": gates}, model, split

        yield found


def exact_auc(params, split, factors, widths):
    """AUC of the model's formula with values removed and each field cut off after its width."""
    (table,) = params["tables"]["embedding"].values()
    x = (table * factors)[split.ids + np.array([0, 4, 6])]
    x = np.where(np.arange(D) < np.array(widths)[:, None], x, 0).reshape(len(x), -1)
    hidden, output = (params["network"]["mlp"][name] for name in ("hidden_0", "output"))
    x = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
    return auc(split.labels, (x @ output["kernel"] + output["bias"])[:, 0])


def test_values_above_their_threshold_and_the_widths_of_the_best_auc_are_chosen(choose, searched):
    params, model, split = searched([[2.0], [1.0], [2.2]])
    (table,) = params["tables"]["embedding"].values()
    values = np.abs(table).sum(axis=1) > np.array([2.0, 1.0, 2.2])[FIELD]
    selector = dataclasses.replace(SELECTOR, config=OptEmbedConfig(generations=15, mutation=0.5))
    selection = choose(selector, params, model, split)
    assert selection.mask is None and selection.scale == 1
    np.testing.assert_array_equal(selection.values, values)
    assert all(values[field == FIELD].any() for field in range(N)) and not values.all()
    widths = [len(field) for field in selection.kept]
    assert selection.kept == tuple(tuple(range(width)) for width in widths)
    aucs = {
        candidate: exact_auc(params, split, values[:, None], candidate)
        for candidate in itertools.product((1, 2, 3), repeat=N)
    }
    best = max(aucs.values())
    assert aucs[tuple(widths)] == pytest.approx(best, abs=1e-12)
    # nor would it do to take all coordinates, or to look at the values that go
    assert sum(auc > best - 1e-9 for auc in aucs.values()) == 1 and widths != [D] * N
    ignoring = {candidate: exact_auc(params, split, 1.0, candidate) for candidate in aucs}
    assert max(ignoring, key=ignoring.get) != tuple(widths)


NONE = dataclasses.replace(SELECTOR, config=OptEmbedConfig(generations=0))


def test_a_field_without_values_has_no_coordinates(choose, searched):
    selection = choose(NONE, *searched([[0.0], [99.0], [0.0]]))
    assert selection.kept == ((0, 1, 2), (), (0, 1, 2))
    np.testing.assert_array_equal(selection.values, FIELD != 1)


def test_where_all_values_would_go_the_one_least_below_its_threshold_stays(choose, searched):
    thresholds = np.array([90.0, 80.0, 99.0])
    params, *rest = searched(thresholds[:, None])
    (table,) = params["tables"]["embedding"].values()
    selection = choose(NONE, params, *rest)
    last = np.argmax(np.abs(table).sum(axis=1) - thresholds[FIELD])
    np.testing.assert_array_equal(np.flatnonzero(selection.values), [last])
    assert FIELD[last] == 1
    assert selection.kept == ((), (0, 1, 2), ())
    assert selection.parameters(NONE.spec) == D


def test_thresholds_are_learnt_in_training_and_retraining_starts_from_initial_weights(tiny):
    optembed = OptEmbedConfig(weight=0.2)
    selector = build_optembed(tiny.config.having(optembed), tiny.model, 20)
    assert selector == Supernet(optembed, tiny.model.embedding, 20)
    assert selector.recipe == Recipe(gate_batches="training", initial_weights="initial")


def build(name, **search):
    config = Config(model=ModelConfig(name=name, dim=4), search=SearchConfig(**search))
    return build_optembed(config, build_model(config.model, SIZES), 20)


@pytest.mark.parametrize("name", ["ffm", "fnfm", "hofm"])
def test_models_with_several_vectors_for_a_field_are_refused(name):
    with pytest.raises(InputError, match=f"--model {name}, whose embeddings are .* vectors"):
        build(name)


def test_embeddings_that_start_at_zero_need_pretraining():
    with pytest.raises(InputError, match=r"--search\.pretrain-epochs 1"):
        build("lr", pretrain_epochs=0)
    assert build("lr", pretrain_epochs=1).spec.dim == 1
    assert build("fm", pretrain_epochs=0).spec.dim == 4
