"""Gates, row-wise updates and dropout do on every click model what they are there for."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ihas_jax.config import Config, GateConfig, OptimizerConfig, SearchConfig
from ihas_jax.models import build_model
from ihas_jax.models.base import EMBEDDING, Variables
from ihas_jax.models.forward import forward
from ihas_jax.models.parts import LINEAR
from ihas_jax.selectors.bernoulli import BernoulliGates
from ihas_jax.selectors.search import init_search, make_search_round
from ihas_jax.training.rounds import make_round
from ihas_jax.training.steps import Batch, TrainState, click_loss, make_step, model_optimizers

SIZES, STEPS = (5, 4, 6), 20
# the noise of the gates lies within +-11.8 and their temperature is high, so that a gate with
# this bias is always open and yet has a gradient
OPEN = 12.0
# models without a part that could have dropout
WITHOUT_DROPOUT = {"lr", "fm", "ffm", "hofm"}
# a softmax does not see what is added to all its inputs
INVARIANT = {"projection/bias": {"afm"}, "attention_0/key/bias": {"autoint"}}


def log_of_24_rows():
    """A log that the first field explains, and in which no field has its last value."""
    rng = np.random.default_rng(1)
    ids = np.stack([rng.permutation(np.arange(24) % (size - 1)) for size in SIZES], axis=1)
    return Batch(ids.astype(np.int32), (ids[:, 0] < 2).astype(np.uint8))


DATA = log_of_24_rows()
ROWS = np.tile(np.arange(24, dtype=np.int32), (STEPS, 1))
# whether a batch has the value, per row of a table
SEEN = np.concatenate([np.arange(size) < size - 1 for size in SIZES])
FIELD = np.repeat(np.arange(len(SIZES)), SIZES)


@pytest.fixture(scope="module")
def setting(small):
    """The programs of one model, each compiled once, and a state of random weights."""
    config = Config(
        model=small,
        optimizer=OptimizerConfig(learning_rate=0.02, l2=0.0),
        search=SearchConfig(gate_every=2),
        options=(GateConfig(temperature=10.0),),
    )
    model = build_model(small, SIZES)
    selector = BernoulliGates(config.of(GateConfig), model.embedding.coordinates)
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(
        lambda key: init_search(key, config, model, selector), jax.random.key(0)
    )
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape, scale=0.5), leaf.dtype), shapes.params
    )
    assert shapes.params.keys() == shapes.optimizers.keys() == {"tables", "network", "selector"}
    state = TrainState(
        step=jnp.int32(0),
        pace=jnp.float32(1),
        keys={"training": jax.random.key(2), "validation": jax.random.key(3)},
        params=params,
        stats={},
        constants={},
        optimizers=zeros(shapes.optimizers),
    )
    round_ = jax.jit(make_search_round(config, model, selector))

    def search(logits=None, step=0, count=1):
        """A round of the search, with gates of the given log-odds whatever the instance."""
        start = dataclasses.replace(state, step=jnp.int32(step))
        if logits is not None:
            kernel = jnp.zeros((model.embedding.coordinates,) * 2)
            gates = {"linear": {"kernel": kernel, "bias": jnp.asarray(logits, jnp.float32)}}
            start = dataclasses.replace(start, params=params | {"selector": gates})
        return start, *round_(start, DATA, ROWS, DATA, ROWS, np.int32(count))

    return SimpleNamespace(config=config, model=model, state=state, search=search)


def zeros(shapes):
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.fixture(scope="module")
def plain(setting):
    """Dense and row-wise training without gates: the state before, after one step, and all."""
    runs = {}
    for tables in ("dense", "rowwise"):
        config = dataclasses.replace(setting.config.optimizer, tables=tables)
        learns = model_optimizers(config)
        round_ = jax.jit(make_round(make_step(setting.model, learns)))
        params = {name: setting.state.params[name] for name in learns}
        optimizers = {name: learns[name].init(tree) for name, tree in params.items()}
        state = dataclasses.replace(setting.state, params=params, optimizers=optimizers)
        step, metrics = round_(state, DATA, ROWS, count=np.int32(1))
        end, _ = round_(step, DATA, ROWS, count=np.int32(STEPS - 1))
        _, after = round_(end, DATA, ROWS, count=np.int32(1))
        losses = float(metrics["loss"]), float(after["loss"])
        runs[tables] = SimpleNamespace(start=state, step=step, losses=losses)
    return runs


def unchanged(a, b):
    """Names of the leaves that are the same in both."""
    pairs = zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True)
    return {"/".join(entry.key for entry in path) for (path, x), y in pairs if np.array_equal(x, y)}


def test_model_steps_train_tables_and_network_and_gate_steps_the_gates_alone(setting):
    logits = np.full(setting.model.embedding.coordinates, OPEN)
    before, model_step, _ = setting.search(logits)
    invariant = {leaf for leaf, models in INVARIANT.items() if setting.config.model.name in models}
    for name in ("tables", "network"):
        assert unchanged(before.params[name], model_step.params[name]) <= invariant
    assert len(unchanged(before.params["selector"], model_step.params["selector"])) == 2
    # open gates make a model step independent of noise, so that the same step but for its number,
    # after which a gate step follows, shows what the gate step does
    _, both, _ = setting.search(logits, step=1)
    for name in ("tables", "network"):
        leaves = jax.tree.leaves(both.params[name])
        assert len(unchanged(model_step.params[name], both.params[name])) == len(leaves)
    assert not unchanged(before.params["selector"], both.params["selector"])


def test_a_round_of_the_search_moves_every_subtree_and_has_a_finite_loss(setting):
    before, after, metrics = setting.search(count=4)
    assert int(after.step) == 4
    for name in ("tables", "network", "selector"):
        assert not unchanged(before.params[name], after.params[name])
    assert np.isfinite(metrics["loss"]) and metrics["loss"] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


def test_open_gates_are_no_gates(setting, plain):
    logits = np.full(setting.model.embedding.coordinates, OPEN)
    _, after, metrics = setting.search(logits)
    np.testing.assert_allclose(metrics["loss"], plain["dense"].losses[0], rtol=1e-6)
    for name in ("tables", "network"):
        found, expected = after.params[name], plain["dense"].step.params[name]
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_closed_gates_stop_the_gradients_of_their_coordinates_and_no_others(setting):
    spec = setting.model.embedding
    mask = np.random.default_rng(3).permutation(np.arange(spec.coordinates) % 3 > 0)
    _, after, _ = setting.search(np.where(mask, OPEN, -OPEN))
    # after one step Adam's first moment is a tenth of the gradient
    moments = dict(after.optimizers["tables"][1][0].mu)
    (moment,) = map(np.asarray, moments.pop(EMBEDDING).values())
    is_open = mask.reshape(len(SIZES), -1)[FIELD] & SEEN[:, None]
    assert not moment[~is_open].any()
    for n in np.unique(FIELD[is_open.any(axis=1)]):
        assert moment[n == FIELD].any()
    assert moments.keys() == setting.model.tables.keys() - {EMBEDDING}
    for table in moments.values():
        # whatever the gates, each field's first-order weights get the gradient of the logits
        (moment,) = (np.asarray(part)[:, 0] for part in table.values())
        np.testing.assert_array_equal(moment != 0, SEEN)
        sums = np.bincount(FIELD, moment)
        assert abs(sums[0]) > 1e-4
        np.testing.assert_allclose(sums, sums[0], rtol=1e-4)


def test_the_first_step_is_the_same_with_dense_and_rowwise_updates(plain):
    dense, rowwise = plain["dense"], plain["rowwise"]
    np.testing.assert_allclose(rowwise.losses[0], dense.losses[0], rtol=1e-6)
    tables = dense.step.params["tables"]
    assert tables.keys() == rowwise.step.params["tables"].keys() <= {EMBEDDING, LINEAR}
    for name in tables:
        before, expected, found = (
            np.asarray(next(iter(state.params["tables"][name].values())))
            for state in (dense.start, dense.step, rowwise.step)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        for after in (found, expected):
            np.testing.assert_array_equal(after[~SEEN], before[~SEEN])
            assert (after[SEEN] != before[SEEN]).any(axis=1).all()


@pytest.mark.parametrize("tables", ["dense", "rowwise"])
def test_a_few_steps_lower_the_loss(plain, tables):
    before, after = plain[tables].losses
    assert after < 0.8 * before


def test_dropout_is_noise_in_training_and_absent_from_evaluation(setting):
    name, variables = setting.config.model.name, Variables(setting.state.params)
    model = build_model(dataclasses.replace(setting.config.model, dropout=0.5), SIZES)

    @jax.jit
    def compute(variables, key):
        trained = forward(model, variables, DATA.ids, key=key).logits
        evaluated = forward(model, variables, DATA.ids).logits
        expected = forward(setting.model, variables, DATA.ids).logits
        return click_loss(trained, jnp.asarray(DATA.labels)), evaluated, expected

    (loss, first, expected), (other_loss, second, _) = (
        compute(variables, jax.random.key(seed)) for seed in range(2)
    )
    assert (loss != other_loss) == (name not in WITHOUT_DROPOUT)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, expected)
