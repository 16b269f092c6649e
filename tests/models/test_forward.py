"""The one walk from ids to logits, beside a walk of a toy model worked by hand in NumPy.

The toy's transform adds to embeddings and its network squares them, so that factors, transform and
network in any other order would give other logits.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.base import FACTORS, VALUES, Model, Variables
from ihas_jax.models.forward import (
    Transformed,
    embed,
    forward,
    init_model,
    look_up,
    predict,
    table_index,
)
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.nn.subset import make_subset

SIZES, B, N, D = (3, 2), 4, 2, 2
IDS = np.array([[0, 1], [2, 0], [1, 1], [2, 1]], np.int32)
ROWS = IDS + np.array([0, 3])
KEY = jax.random.key(5)
TRANSFORM_KEY, DROPOUT_KEY = jax.random.split(KEY)
pytestmark = pytest.mark.usefixtures("float64")


class Network(nn.Module):
    """First-order weights, and the weighted squares of centred embeddings."""

    @nn.compact
    def __call__(self, vectors, *, train):
        (x,), (linear,) = (vectors[name].values() for name in ("embedding", "linear"))
        x = x.reshape(len(x), -1)
        running = self.variable("batch_stats", "mean", jnp.zeros, x.shape[1])
        center = x.mean(axis=0) if train else running.value
        if train:
            running.value = center
        weights = self.param("weights", nn.initializers.ones, x.shape[1])
        return (x - center) ** 2 @ weights + linear.sum(axis=(1, 2))


def shift(variables, lookup, key):
    """Adds a number of each row, and in training noise; tells what it was shown."""
    by = variables.params["shift"][lookup.row_index]
    noise = 0.0 if key is None else jax.random.uniform(key, by.shape)
    return Transformed(
        lookup.vectors + by + noise,
        penalty=by.sum(),
        stats={"toy": lookup.vectors.sum()},
        masks=(lookup.vectors != 0).reshape(len(by), -1),
    )


MODEL = Model({"embedding": EmbeddingSpec(SIZES, D), "linear": EmbeddingSpec(SIZES, 1)}, Network())


@pytest.fixture(scope="module")
def toy():
    """Arrays of the model: numbers of size one, and factors of which some are 0."""
    rng = np.random.default_rng(0)
    sizes = {"table": (5, D), "linear": (5, 1), "shift": (5, D), "weights": N * D, "mean": N * D}
    a = SimpleNamespace(**{name: rng.normal(size=size) for name, size in sizes.items()})
    a.factors = np.array([[2.0, 0], [1, 1], [0, 0], [0.5, 3], [0, 1]])
    params = {
        "tables": {"embedding": {"width_2": a.table}, "linear": {"width_1": a.linear}},
        "network": {"weights": a.weights},
        "shift": a.shift,
    }
    stats = {"network": {"mean": a.mean}, "toy": -1.0}
    variables = Variables(params, stats, {FACTORS: {"width_2": a.factors}})
    with jax.enable_x64(True):
        a.variables = jax.tree.map(jnp.asarray, variables)
        yield a


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("transform", [None, shift])
@pytest.mark.parametrize("factors", [False, True])
def test_the_order_is_look_up_factors_select_network_in_training_and_evaluation(
    toy, factors, transform, train
):
    x = toy.table[ROWS] * (toy.factors[ROWS] if factors else 1)
    shown, penalty, masks = x, 0.0, None
    if transform:
        noise = np.asarray(jax.random.uniform(TRANSFORM_KEY, x.shape)) if train else 0
        x = x + toy.shift[ROWS] + noise
        penalty, masks = toy.shift[ROWS].sum(), (shown != 0).reshape(B, -1)
    flat = x.reshape(B, -1)
    mean = flat.mean(axis=0) if train else toy.mean
    logits = (flat - mean) ** 2 @ toy.weights + toy.linear[ROWS].sum(axis=(1, 2))
    seen = shown.sum() if train and transform else -1

    variables = toy.variables if factors else toy.variables._replace(constants={})
    found = forward(MODEL, variables, IDS, transform, key=KEY if train else None)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-12)
    np.testing.assert_allclose(found.penalty, penalty, rtol=1e-12)
    np.testing.assert_array_equal(found.masks, masks)
    assert found.stats.keys() == {"network", "toy"}
    np.testing.assert_allclose(found.stats["network"]["mean"], mean, rtol=1e-12)
    np.testing.assert_allclose(found.stats["toy"], seen, rtol=1e-12)
    if not train:
        probs = predict(MODEL, variables, IDS, transform)
        np.testing.assert_allclose(probs, 1 / (1 + np.exp(-logits)), rtol=1e-12)
        assert found.stats is variables.stats


def test_embed_is_the_walk_up_to_the_network(toy):
    seen, made = embed(MODEL, toy.variables, IDS, shift)
    shown = toy.table[ROWS] * toy.factors[ROWS]
    np.testing.assert_allclose(seen["embedding"]["width_2"], shown + toy.shift[ROWS], rtol=1e-12)
    assert seen["embedding"]["width_2"] is made.vectors
    np.testing.assert_array_equal(seen["linear"]["width_1"], toy.linear[ROWS])
    seen, made = embed(MODEL, toy.variables, IDS)
    np.testing.assert_allclose(seen["embedding"]["width_2"], shown, rtol=1e-12)
    assert made is None
    # a router has one table of two
    tables = {"embedding": toy.variables.params["tables"]["embedding"]}
    router = toy.variables._replace(params=toy.variables.params | {"tables": tables})
    assert embed(MODEL, router, IDS)[0].keys() == {"embedding"}


def handed_in(toy, key):
    """The walk as a function of the vectors that are handed in, and those of the tables."""

    def walk(vectors):
        return forward(MODEL, toy.variables, IDS, shift, vectors=vectors, key=key)

    tables = toy.variables.params["tables"]
    return walk, look_up(tables, table_index(MODEL, toy.variables, IDS))


@pytest.mark.parametrize("key", [None, KEY])
def test_vectors_that_are_handed_in_stand_for_those_looked_up(toy, key):
    walk, vectors = handed_in(toy, key)
    jax.tree.map(
        np.testing.assert_array_equal,
        walk(vectors),
        forward(MODEL, toy.variables, IDS, shift, key=key),
    )
    doubled = jax.tree.map(lambda leaf: 2 * leaf, toy.variables.params["tables"])
    other = toy.variables._replace(params=toy.variables.params | {"tables": doubled})
    np.testing.assert_allclose(
        walk(jax.tree.map(lambda leaf: 2 * leaf, vectors)).logits,
        forward(MODEL, other, IDS, shift, key=key).logits,
        rtol=1e-12,
    )


@pytest.mark.parametrize("key", [None, KEY])
def test_gradients_at_handed_in_vectors_are_zero_where_factors_are_zero(toy, key):
    walk, vectors = handed_in(toy, key)
    gradient = jax.grad(lambda vectors: (walk(vectors).logits ** 2).sum())(vectors)
    removed = toy.factors[ROWS] == 0
    assert 0 < removed.mean() < 1
    np.testing.assert_array_equal(gradient["embedding"]["width_2"] == 0, removed)
    np.testing.assert_allclose(
        gradient["linear"]["width_1"], 2 * walk(vectors).logits[:, None, None].repeat(N, 1)
    )


def test_values_without_rows_share_the_first_of_the_embedding_table_alone(toy):
    stored = np.array([True, False, True, False, True])
    spec = EmbeddingSpec(SIZES, D, stored_values=(2, 1))
    model = dataclasses.replace(MODEL, tables=MODEL.tables | {"embedding": spec})
    constants = {VALUES: {"width_2": make_subset(stored)}}
    index = table_index(model, toy.variables._replace(constants=constants), IDS)
    np.testing.assert_array_equal(index["embedding"]["width_2"], [[1, 3], [2, 0], [0, 3], [2, 3]])
    np.testing.assert_array_equal(index["linear"]["width_1"], ROWS)
    # a fresh model has a place to say which: none, so that all share the first
    fresh = jax.jit(partial(init_model, model=model))(KEY)
    assert fresh.constants.keys() == {VALUES}
    assert fresh.params["tables"]["embedding"]["width_2"].shape == (1 + 3, D)
    assert not np.asarray(table_index(model, fresh, IDS)["embedding"]["width_2"]).any()


def test_a_fresh_model_has_statistics_under_the_name_of_its_network():
    fresh = init_model(KEY, MODEL)
    assert jax.tree.map(jnp.shape, fresh) == Variables(
        {
            "tables": {"embedding": {"width_2": (5, D)}, "linear": {"width_1": (5, 1)}},
            "network": {"weights": (N * D,)},
        },
        {"network": {"mean": (N * D,)}},
        {},
    )


def test_devices_that_share_a_batch_know_where_their_rows_begin(toy):
    def first(variables, lookup, key):
        return Transformed(jnp.full_like(lookup.vectors, lookup.first_row))

    @partial(jax.vmap, axis_name="devices")
    def split(ids):
        return embed(MODEL, toy.variables, ids, first, axis_name="devices")[1].vectors

    found = split(jnp.asarray(IDS.reshape(2, 2, N)))
    np.testing.assert_array_equal(found, np.full((2, 2, N, D), [[[[0]]], [[[2]]]]))


def test_dropout_draws_from_a_key_of_its_own_and_another_on_each_device(tiny):
    model = build_model(dataclasses.replace(tiny.config.model, dropout=0.5), tiny.sizes)
    ids = tiny.data.ids[:8].reshape(2, 4, -1)

    @jax.jit
    def compute(key):
        variables = init_model(key, model)

        def walk(ids, **options):
            return forward(model, variables, ids, key=KEY, **options).logits

        def dropped(ids, key):
            params, (vectors, _) = variables.params["network"], embed(model, variables, ids)
            return model.network.apply(
                {"params": params}, vectors, train=True, rngs={"dropout": key}
            )

        split = jax.vmap(partial(walk, axis_name="devices"), axis_name="devices")(ids)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(DROPOUT_KEY, np.arange(2))
        alone = walk(ids[0]), dropped(ids[0], DROPOUT_KEY)
        return alone, (split, jnp.stack([*map(dropped, ids, keys)]))

    for found, expected in compute(jax.random.key(0)):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_logits_of_a_wrong_shape_name_the_network():
    class Column(nn.Module):
        @nn.compact
        def __call__(self, vectors, *, train):
            return vectors["embedding"]["width_2"][:, :1, 0]

    model = Model({"embedding": EmbeddingSpec((3, 4), 2)}, Column())
    variables = Variables({"tables": {"embedding": {"width_2": jnp.ones((7, 2))}}, "network": {}})
    with pytest.raises(InputError, match=r"Column makes logits of the shape \[5, 1\]; \[5\] is"):
        forward(model, variables, np.zeros((5, 2), int))
