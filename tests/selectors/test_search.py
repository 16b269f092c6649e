from __future__ import annotations

import dataclasses
from itertools import pairwise
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import GateConfig
from ihas_jax.config.methods import AdaFSConfig
from ihas_jax.data.batches import Feed, Rounds
from ihas_jax.data.dataset import Split
from ihas_jax.models import build_model
from ihas_jax.models.forward import embed, forward, predict
from ihas_jax.selectors.adafs import AdaFS
from ihas_jax.selectors.base import Sampling, Selecting
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.selectors.registry import build_selector
from ihas_jax.selectors.search import (
    init_search,
    make_gate_step,
    make_model_step,
    make_search_round,
)
from ihas_jax.training.optimizers import l2_adam
from ihas_jax.training.rounds import take
from ihas_jax.training.steps import Batch, click_loss, init_train

EVERY, BATCH_SIZE, EPOCHS = 2, 4, 2
TRAIN, VALID = np.arange(28, dtype=np.int32), np.arange(12, dtype=np.int32)


@pytest.fixture(scope="module")
def parts(tiny):
    """The compiled pieces of a search, its data on the device, and its first state."""
    config, model, selector = tiny.config, tiny.model, tiny.selector
    data, gate_data = (
        Batch(*(jnp.asarray(part[rows]) for part in tiny.data))
        for rows in (slice(28), slice(28, 40))
    )
    return SimpleNamespace(
        data=data,
        gate_data=gate_data,
        state=jax.jit(lambda key: init_search(key, config, model, selector))(tiny.key),
        model_step=jax.jit(make_model_step(config, model, selector)),
        gate_step=jax.jit(make_gate_step(config, model, selector)),
        round_=jax.jit(make_search_round(config, model, selector)),
    )


@pytest.fixture(scope="module")
def rounds(parts):
    """Seven batches an epoch in rounds of 3, 3 and 1, so that rounds and gate steps get apart."""
    return Rounds(
        split=Split(*map(np.asarray, parts.data)),
        feed=Feed(TRAIN, BATCH_SIZE, seed=1),
        round_batches=3,
        epochs=EPOCHS,
        resident=True,
        gate_split=Split(*map(np.asarray, parts.gate_data)),
        gate_feed=Feed(VALID, BATCH_SIZE, seed=2),
        gate_every=EVERY,
    )


@pytest.fixture(scope="module")
def trail(parts, rounds):
    """The state after each round of two epochs."""
    states = [parts.state]
    for index in range(len(rounds)):
        item = rounds[index]
        state, metrics = parts.round_(
            states[-1],
            parts.data,
            item.rows,
            parts.gate_data,
            item.gate_rows,
            np.int32(item.batches),
        )
        assert metrics.keys() == {"loss", "gate_loss", "gate_penalty", "gate_steps"}
        states.append(state)
    return states


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def all_moved(a, b):
    return all((x != y).any() for x, y in zip(leaves(a), leaves(b), strict=True))


def assert_close(found, expected):
    """Equal up to the order of additions that a scan and a single step may choose."""
    for name, key in expected.keys.items():
        assert (found.keys[name] == key).all()
    found, expected = (dataclasses.replace(state, keys=None) for state in (found, expected))
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def updates(state):
    """How often the gates' Adam has stepped."""
    (count,) = {
        int(leaf) for leaf in leaves(state.optimizers["selector"]) if leaf.dtype == np.int32
    }
    return count


def test_a_model_step_changes_all_but_the_selector(parts):
    batch = take(parts.data, jnp.arange(8))
    after, metrics = parts.model_step(parts.state, batch)
    before = parts.state
    assert same(after.params["selector"], before.params["selector"])
    assert same(after.optimizers["selector"], before.optimizers["selector"])
    assert all_moved(after.params["network"], before.params["network"])
    assert all_moved(after.params["tables"], before.params["tables"])
    assert int(after.step) == 1
    assert metrics.keys() == {"loss"}


def test_a_gate_step_changes_nothing_but_the_selector(parts):
    after, metrics = parts.gate_step(parts.state, take(parts.gate_data, jnp.arange(8)))
    before = parts.state
    assert all_moved(after.params["selector"], before.params["selector"])
    for name in ("tables", "network"):
        assert same(after.params[name], before.params[name])
        assert same(after.optimizers[name], before.optimizers[name])
    for name in ("stats", "step"):
        assert same(getattr(after, name), getattr(before, name))
    assert updates(after) == 1
    assert metrics.keys() == {"loss", "penalty"}


def test_a_gate_step_is_adam_on_click_loss_plus_penalty(tiny, parts):
    state, batch = parts.state, take(parts.gate_data, jnp.arange(8))
    key = jax.random.fold_in(state.keys["validation"], state.step)

    def objective(selector):
        variables = state.variables._replace(params=state.params | {"selector": selector})
        output = forward(tiny.model, variables, batch.ids, Sampling(tiny.selector), key=key)
        return click_loss(output.logits, batch.labels) + output.penalty

    @jax.jit
    def expected(selector):
        value, gradient = jax.value_and_grad(objective)(selector)
        optimizer = l2_adam(tiny.config.search.gate_optimizer)
        moves, _ = optimizer.update(gradient, optimizer.init(selector), selector)
        return value, jax.tree.map(jnp.add, selector, moves)

    value, stepped = expected(state.params["selector"])
    after, metrics = parts.gate_step(state, batch)
    for found, want in zip(leaves(after.params["selector"]), leaves(stepped), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-7)
    total = float(metrics["loss"] + metrics["penalty"])
    np.testing.assert_allclose(total, value, rtol=1e-6)
    assert float(metrics["penalty"]) != 0


def test_gates_are_updated_exactly_every_so_many_batches(trail, rounds):
    assert [int(state.step) for state in trail] == [0, 3, 6, 7, 10, 13, 14]
    assert [updates(state) for state in trail] == [int(state.step) // EVERY for state in trail]
    for before, after in pairwise(trail):
        moved = updates(after) > updates(before)
        assert same(before.params["selector"], after.params["selector"]) != moved


def test_rounds_are_the_alternation_of_model_and_gate_steps(parts, rounds, trail):
    """Algorithm 1, lines 4 to 8, written out; the batches come straight from the two feeds."""
    state = parts.state
    for number in range(EPOCHS * rounds.feed.batches_per_epoch):
        (rows,) = rounds.feed(number, 1)
        state, _ = parts.model_step(state, take(parts.data, rows))
        if (number + 1) % EVERY == 0:
            (gate_rows,) = rounds.gate_feed((number + 1) // EVERY - 1, 1)
            state, _ = parts.gate_step(state, take(parts.gate_data, gate_rows))
    assert_close(trail[-1], state)
    assert all_moved(trail[-1].params, parts.state.params)


def test_later_rounds_compile_nothing_new(parts, trail):
    assert len(trail) == 7
    assert parts.round_._cache_size() == 1  # rounds of three batches and of one are one program


def test_two_seeds_search_side_by_side_under_vmap(tiny, parts, rounds, trail):
    keys = jnp.stack([tiny.key, jax.random.key(11)])
    round_ = make_search_round(tiny.config, tiny.model, tiny.selector)
    item = rounds[0]

    @jax.jit
    @jax.vmap
    def search(key):
        state = init_search(key, tiny.config, tiny.model, tiny.selector)
        gate_rows = jnp.asarray(item.gate_rows)
        return round_(state, parts.data, item.rows, parts.gate_data, gate_rows)

    after, metrics = search(keys)
    assert metrics["loss"].shape == (2,)
    part = jax.jit(lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree))
    first, second = part(after, 0), part(after, 1)
    assert_close(first, trail[1])
    assert all_moved(first.params, second.params)


def test_parts_of_a_batch_on_a_mapped_axis_give_the_single_device_steps(tiny, parts):
    model = build_model(tiny.config.model, tiny.sizes, click_rate=0.3, axis_name="data")
    steps = [make(tiny.config, model, tiny.selector) for make in (make_model_step, make_gate_step)]

    def both(state, batch):
        state, metrics = steps[0](state, batch)
        state, gate_metrics = steps[1](state, batch)
        return state, (metrics, gate_metrics)

    batch = take(parts.data, jnp.arange(8))
    halves = Batch(batch.ids.reshape(2, 4, -1), batch.labels.reshape(2, 4))
    mapped = jax.vmap(both, in_axes=(None, 0), out_axes=None, axis_name="data")
    found, metrics = jax.jit(mapped)(parts.state, halves)
    expected, loss = parts.model_step(parts.state, batch)
    expected, gate = parts.gate_step(expected, batch)
    assert_close(found, expected)
    for found_metrics, wanted in zip(metrics, (loss, gate), strict=True):
        for name, value in wanted.items():
            np.testing.assert_allclose(found_metrics[name], value, rtol=1e-5)


def test_a_penalty_that_sums_a_batch_sums_it_over_the_mapped_axis(tiny, parts):
    gates = dataclasses.replace(tiny.config.of(GateConfig), reduction="sum")
    config = tiny.config.having(gates)
    selector = BernoulliGates(gates, tiny.selector.coordinates)
    batch = take(parts.data, jnp.arange(8))
    halves = Batch(batch.ids.reshape(2, 4, -1), batch.labels.reshape(2, 4))
    step = make_gate_step(config, dataclasses.replace(tiny.model, axis_name="data"), selector)
    mapped = jax.vmap(step, in_axes=(None, 0), out_axes=None, axis_name="data")
    found, metrics = jax.jit(mapped)(parts.state, halves)
    expected, gate = jax.jit(make_gate_step(config, tiny.model, selector))(parts.state, batch)
    assert_close(found, expected)
    np.testing.assert_allclose(metrics["penalty"], gate["penalty"], rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "joint"), [("optfs", True), ("optembed", True), ("ihas", False)]
)
def test_a_joint_model_step_has_the_penalty_in_its_loss(tiny, method, joint):
    config = dataclasses.replace(tiny.config, method=method)
    selector = build_selector(config, tiny.model, 5)
    state = jax.eval_shape(lambda key: init_search(key, config, tiny.model, selector), tiny.key)
    step = make_model_step(config, tiny.model, selector)
    _, metrics = jax.eval_shape(step, state, Batch(*map(jnp.asarray, tiny.data)))
    assert set(metrics) == ({"loss", "penalty"} if joint else {"loss"})


def test_a_search_goes_on_from_the_pretrained_model_and_its_optimiser(tiny):
    @jax.jit
    def start(key):
        pretrained = init_train(key, tiny.model, tiny.config.optimizer)
        moments = jax.tree.map(lambda leaf: leaf + 1, pretrained.optimizers["tables"])
        optimizers = pretrained.optimizers | {"tables": moments}
        pretrained = dataclasses.replace(pretrained, optimizers=optimizers, step=jnp.int32(7))
        state = init_search(tiny.key, tiny.config, tiny.model, tiny.selector, pretrained)
        return pretrained, state

    pretrained, state = start(jax.random.key(5))
    for name in ("tables", "network"):
        assert same(state.params[name], pretrained.params[name])
        assert same(state.optimizers[name], pretrained.optimizers[name])
    assert int(state.step) == 0
    keys = [*state.keys.values(), *pretrained.keys.values()]
    assert len({*map(str, keys)}) == len(keys) == 3


def test_prediction_is_the_network_on_the_selected_embeddings(tiny, trail):
    params, ids = trail[-1].params, jnp.asarray(tiny.data.ids)
    transform = Selecting(tiny.selector)

    @jax.jit
    def run(variables):
        made = embed(tiny.model, variables, ids, transform)[1]
        return predict(tiny.model, variables, ids, transform), made.vectors, made.masks

    probs, vectors, masks = run(trail[-1].variables)
    (table,) = params["tables"]["embedding"].values()
    rows = np.asarray(table)[tiny.data.ids + np.array([0, 5, 8])].reshape(40, -1)
    x = rows * np.asarray(masks)
    np.testing.assert_array_equal(np.asarray(vectors).reshape(40, -1), x)
    mlp = jax.tree.map(np.asarray, params["network"]["mlp"])
    hidden = np.maximum(x @ mlp["hidden_0"]["kernel"] + mlp["hidden_0"]["bias"], 0)
    logits = hidden @ mlp["output"]["kernel"] + mlp["output"]["bias"]
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-logits[:, 0])), rtol=1e-5)
    assert 0 < masks.mean() < 1


@pytest.mark.parametrize(("connected", "products"), [(True, 2), (False, 1)])
def test_the_product_of_the_gates_is_computed_once_and_its_gradient_only_for_tables(
    tiny, parts, connected, products
):
    config = tiny.config.having(
        dataclasses.replace(tiny.config.of(GateConfig), gradient_to_tables=connected)
    )
    selector = BernoulliGates(config.of(GateConfig), 6)
    step = jax.jit(make_model_step(config, tiny.model, selector))
    text = step.lower(parts.state, take(parts.data, np.arange(5))).as_text()
    lines = [line for line in text.splitlines() if "dot_general" in line]
    assert len([line for line in lines if "tensor<6x6xf32>" in line]) == products


def test_a_gate_step_leaves_tables_alone_and_multiplies_twice(tiny, parts):
    """Once for the probabilities and once for the gradient of the gates' kernel."""
    step = jax.jit(make_gate_step(tiny.config, tiny.model, tiny.selector))
    text = step.lower(parts.state, take(parts.data, np.arange(5))).as_text()
    lines = [line for line in text.splitlines() if "dot_general" in line]
    assert len([line for line in lines if "tensor<6x6xf32>" in line]) == 2


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("make", [make_model_step, make_gate_step])
def test_a_selectors_batch_norm_sees_the_whole_batch_of_all_devices(tiny, make):
    selector = AdaFS(AdaFSConfig(dropout=0.0), tiny.model.embedding)
    state = init_search(tiny.key, tiny.config, tiny.model, selector)
    batch = Batch(*(jnp.asarray(part[:8]) for part in tiny.data))
    halves = jax.tree.map(lambda part: part.reshape(2, 4, *part.shape[1:]), batch)
    model = dataclasses.replace(tiny.model, axis_name="devices")
    step = make(tiny.config, model, selector)
    mapped = jax.jit(jax.vmap(step, (None, 0), axis_name="devices"))
    whole = jax.jit(make(tiny.config, tiny.model, selector))
    expected, found = whole(state, batch), mapped(state, halves)

    def same(ours, theirs):
        if not jnp.issubdtype(theirs.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(ours[0], theirs, rtol=1e-6, atol=1e-12)

    jax.tree.map(same, found, expected)
