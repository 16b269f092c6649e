"""A turned model computes what the model did, for every click model that can be turned."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ihas_jax.config import Config, OptimizerConfig
from ihas_jax.errors import InputError
from ihas_jax.models import MODELS, ClickModel, Model, Network, build_model, register_model
from ihas_jax.models.base import EMBEDDING, Variables
from ihas_jax.models.cut import cut_network
from ihas_jax.models.forward import forward, init_model
from ihas_jax.nn.axes import Axes, identity
from ihas_jax.nn.compact import slice_table
from ihas_jax.selectors.axes import find_axes
from ihas_jax.selectors.turning import check_free, turn
from ihas_jax.training.rounds import make_round
from ihas_jax.training.steps import Batch, init_train, make_step, model_optimizers

SIZES = (6, 9, 2, 30, 1)
FREE = {
    "lr": ("none", True),
    "fm": ("rotation", True),
    "ffm": ("paired", True),
    "hofm": ("rotation", True),
    "dnn": ("own", True),
    "wide_deep": ("own", True),
    "ncf": ("own", True),
    "ipnn": ("rotation", True),
    "opnn": ("own", True),
    "dcn": ("own", False),
    "deepfm": ("rotation", True),
    "autoint": ("common", False),
    "finalmlp": ("own", True),
}
# the fields and vectors that stay
STAY = {"hofm": np.s_[:, 1:], "ncf": np.s_[:2], "ffm": np.s_[range(5), range(5)]}
FIXED = sorted(set(MODELS) - set(FREE))


def log(seed, rows, low=0):
    """Rows that the first fields explain; the last third of the values of a field is rare."""
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(max(1, size - low), size=rows) for size in SIZES], axis=1)
    clicks = rng.random(rows) < np.where(ids[:, 0] + ids[:, 1] % 3 > 3, 0.8, 0.1)
    return Batch(ids.astype(np.int32), clicks.astype(np.uint8))


# the last values of a field do not occur in training
TRAIN, ANY = log(0, 512, low=2), log(1, 400).ids


def draw(seed, model, dtype=jnp.float32):
    """Random weights; statistics of batch norm are positive."""
    rng = np.random.default_rng(seed)

    def of_leaf(path, leaf):
        numbers = rng.normal(size=leaf.shape, scale=0.5)
        numbers = abs(numbers) + 0.5 if path[-1].key == "var" else numbers
        return jnp.asarray(numbers, dtype)

    shapes = jax.eval_shape(lambda key: init_model(key, model), jax.random.key(0))
    return jax.tree.map_with_path(of_leaf, shapes)


def trained(model):
    """Weights after 60 steps of training, with which unseen values stay where they start."""
    config = Config(optimizer=OptimizerConfig(learning_rate=0.02, l2=0.0)).optimizer
    config = dataclasses.replace(config, tables="rowwise")
    state = init_train(jax.random.key(1), model, config)
    rows = np.random.default_rng(2).integers(512, size=(60, 64)).astype(np.int32)
    round_ = jax.jit(make_round(make_step(model, model_optimizers(config))))
    state, _ = round_(state, TRAIN, rows, count=np.int32(60))
    return Variables(state.params, state.stats)


@pytest.fixture(scope="module")
def case(small):
    """A model with batch norm, its logits as a function, and two sets of weights."""
    if small.name not in FREE:
        return SimpleNamespace(name=small.name, model=build_model(small, SIZES))
    config = dataclasses.replace(small, batch_norm=True, hofm_order=4, dim=4)
    model = build_model(config, SIZES)
    logits = jax.jit(lambda variables: forward(model, variables, ANY).logits)
    weights = {"random": draw(3, model), "trained": trained(model)}
    return SimpleNamespace(
        name=small.name, config=config, model=model, logits=logits, weights=weights
    )


each_free = pytest.mark.parametrize("small", FREE, indirect=True)
each_fixed = pytest.mark.parametrize("small", FIXED, indirect=True)


def vectors(model):
    m = model.embedding.vectors_per_field
    return len(SIZES), m, model.embedding.dim // m


def moved(name, axes):
    """Whether the axes are other ones, with nothing changed of what must stay."""
    stays = np.zeros(axes.mean.shape[:2], bool)
    if name in STAY:
        stays[STAY[name]] = True
    eye = np.broadcast_to(np.eye(axes.mean.shape[-1]), axes.forward.shape)
    np.testing.assert_array_equal(axes.forward[stays], eye[stays])
    assert not axes.mean[stays].any()
    gap = np.abs(axes.forward - eye)[~stays].max()
    return gap > 0.1 if FREE[name][0] != "none" else not gap and axes.mean.any()


@each_free
@pytest.mark.parametrize("weights", ["random", "trained"])
def test_the_turned_model_has_the_same_logits_also_for_values_that_never_occur(case, weights):
    variables = case.weights[weights]
    before = case.logits(variables)
    assert np.std(before) > 0.02
    for by in ("loss", "weights"):
        try:
            axes = find_axes(case.model, variables, TRAIN.ids, by=by)
        except InputError:
            assert by == "weights" and case.name not in ("lr", "dnn", "wide_deep", "finalmlp")
            continue
        assert moved(case.name, axes)
        turned = turn(case.model, variables, axes)
        assert jax.tree.map(jnp.shape, turned) == jax.tree.map(jnp.shape, variables)
        assert {leaf.dtype for leaf in jax.tree.leaves(turned)} == {jnp.dtype("float32")}
        np.testing.assert_allclose(case.logits(turned), before, rtol=1e-5, atol=1e-5)


def random_axes(seed, name, model):
    """Any axes that a model's freedom allows."""
    rng = np.random.default_rng(seed)
    fields, m, dim = vectors(model)
    maps, shift = FREE[name]
    raw = identity(model.embedding)
    forward = rng.normal(size=(fields, m, dim, dim))
    if maps == "rotation":
        forward[:] = np.linalg.qr(forward[0, 0])[0]
    elif maps == "common":
        forward[:] = forward[0, 0]
    elif maps == "none":
        forward = raw.forward
    backward = np.linalg.inv(forward)
    if maps == "paired":
        for i, j in zip(*np.triu_indices(fields, 1), strict=True):
            forward[j, i], backward[j, i] = backward[i, j].T, forward[i, j].T
    mean = rng.normal(size=(fields, m, dim)) * shift
    stays = np.zeros((fields, m), bool)
    if name in STAY:
        stays[STAY[name]] = True
    forward[stays], backward[stays], mean[stays] = np.eye(dim), np.eye(dim), 0
    return Axes(mean, forward, backward, raw.importance)


@pytest.mark.parametrize("small", FREE, indirect=True)
@pytest.mark.parametrize("hidden", [(5, 4), ()])
@pytest.mark.usefixtures("float64")
def test_any_allowed_map_is_absorbed_to_the_last_digits(small, hidden):
    if small.name == "finalmlp" and not hidden:
        hidden = (2,)
    config = dataclasses.replace(small, hidden=hidden, batch_norm=True, hofm_order=4)
    model = build_model(config, SIZES)
    variables = draw(5, model, jnp.float64)
    before = forward(model, variables, ANY).logits
    for seed in range(3):
        axes = random_axes(seed, small.name, model)
        after = forward(model, turn(model, variables, axes), ANY).logits
        np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-10)


def compact(case, variables, kept):
    """The model with some coordinates alone, and its variables."""
    model = build_model(case.config, SIZES, kept=kept)
    shapes = jax.eval_shape(lambda key: init_model(key, model), jax.random.key(0)).params
    params = variables.params
    table = slice_table(case.model.embedding, params["tables"][EMBEDDING], model.embedding)
    network = cut_network(case.model, model, params["network"], shapes["network"])
    tables = params["tables"] | {EMBEDDING: table}
    return model, Variables({"tables": tables, "network": network}, variables.stats)


@each_free
def test_cutting_nothing_changes_nothing(case):
    variables = case.weights["trained"]
    turned = turn(case.model, variables, find_axes(case.model, variables, TRAIN.ids))
    dim = case.model.embedding.dim
    model, whole = compact(case, turned, (tuple(range(dim)),) * len(SIZES))
    found = jax.jit(forward, static_argnums=0)(model, whole, ANY).logits
    np.testing.assert_allclose(found, case.logits(variables), rtol=1e-5, atol=1e-5)


@each_free
def test_importance_falls_within_a_field_where_it_has_axes_for_itself(case):
    axes = find_axes(case.model, case.weights["trained"], TRAIN.ids)
    worth = axes.importance
    assert worth.shape == vectors(case.model) and (worth >= 0).all() and worth.max() > 0
    free = case.model.network.free_vectors()
    if FREE[case.name][0] in ("rotation", "common"):
        worth = worth[free].sum(axis=0)[None]
    elif FREE[case.name][0] != "none":
        worth = worth[free]
    assert (np.diff(worth, axis=-1) <= 1e-12).all()


@each_fixed
def test_a_model_without_freedom_says_why_and_still_weighs_its_raw_coordinates(case):
    variables = draw(3, case.model)
    axes = find_axes(case.model, variables, TRAIN.ids)
    np.testing.assert_array_equal(axes.forward, identity(case.model.embedding).forward)
    assert not axes.mean.any()
    assert axes.importance.shape == vectors(case.model) and axes.importance.max() > 0
    for ask in (
        lambda: check_free(case.model),
        lambda: turn(case.model, variables, axes),
    ):
        with pytest.raises(InputError, match=r"can't be turned .* coordinate"):
            ask()


def test_every_model_says_what_is_free(small):
    network = build_model(small, SIZES).network
    found = (network.freedom.maps, network.freedom.shift)
    assert found == FREE.get(small.name, ("none", False))
    assert bool(network.freedom.why) == (small.name not in FREE)


class Silent(Network):
    """A user's network that says nothing of axes."""

    @nn.compact
    def __call__(self, vectors, *, train):
        return self.flat(vectors).sum(axis=1)


class Plain(nn.Module):
    """One of another class."""

    def __call__(self, vectors, *, train):
        return vectors[EMBEDDING]["width_3"].sum(axis=(1, 2))


@pytest.mark.parametrize("network", [Silent, lambda spec: Plain()])
def test_a_user_s_model_that_says_nothing_has_no_freedom(network, small):
    def build(parts):
        spec = parts.embedding()
        return Model({EMBEDDING: spec}, network(spec))

    register_model("silent", ClickModel(build, "logit = sum"))
    model = build_model(dataclasses.replace(small, name="silent"), SIZES)
    variables = init_model(jax.random.key(0), model)
    assert find_axes(model, variables, TRAIN.ids).importance.shape == (5, 1, 3)
    with pytest.raises(InputError, match="does not say which maps"):
        turn(model, variables, identity(model.embedding))
