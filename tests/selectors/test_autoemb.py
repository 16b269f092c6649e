from __future__ import annotations

import dataclasses
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from ihas_jax.config import ModelConfig
from ihas_jax.config.methods import AutoEmbConfig
from ihas_jax.data.dataset import Split
from ihas_jax.errors import InputError
from ihas_jax.models import build_model
from ihas_jax.models.forward import Lookup
from ihas_jax.nn.embedding import EmbeddingSpec
from ihas_jax.selectors.autoemb import (
    AutoEmb,
    build_autoemb,
    default_dims,
    popularity_of,
    size_weights,
)
from ihas_jax.selectors.base import Recipe
from ihas_jax.selectors.plan import SERVE_SEARCHED

SIZES, B, N, D, DIMS, H = (3, 2, 4), 6, 3, 4, (1, 3), 5
SELECTOR = AutoEmb(AutoEmbConfig(hidden=H), DIMS, EmbeddingSpec(SIZES, D))
RNG = np.random.default_rng(0)
E = RNG.normal(0.3, 0.7, size=(B, N, D))
IDS = np.stack([RNG.integers(size, size=B) for size in SIZES], axis=1)
ROWS = IDS + np.array([0, 3, 5])
KEY = jax.random.key(1)
pytestmark = pytest.mark.usefixtures("float64")


def lookup(embeddings, rows=ROWS):
    return Lookup(embeddings, rows)


def numbers():
    """Weights of numbers of size one, variances positive."""
    rng = np.random.default_rng(2)
    fresh = jax.eval_shape(SELECTOR.init, KEY)
    weights = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), fresh)
    for stats in weights.stats["norms"].values():
        stats["var"] = np.exp(stats["var"])
    return weights


WEIGHTS = numbers()


def controlled(gates, popularity):
    """Weights `[B, N, C]` of the sizes, one value after the other."""
    mix = np.zeros((B, N, len(DIMS)))
    hidden, output = gates["hidden"], gates["output"]
    for b in range(B):
        for n in range(N):
            p = popularity[ROWS[b, n], 0]
            units = np.tanh(hidden["kernel"][n] * p + hidden["bias"][n])
            mix[b, n] = softmax(output["kernel"][n].T @ units + output["bias"][n])
    return mix


def reference(weights, embeddings, mix, *, train):
    """The weighted sum of candidates in NumPy, field by field, and the new statistics."""
    mixed, norms = np.zeros_like(embeddings), {}
    for k, (size, part) in enumerate(zip(DIMS, np.split(embeddings, [1], axis=2), strict=True)):
        layer, old = weights.layers[f"size_{size}"], weights.stats["norms"][f"size_{size}"]
        x = np.concatenate([part[:, n] @ layer["kernel"][n] for n in range(N)], axis=1)
        new = {"mean": x.mean(axis=0), "var": x.var(axis=0)} if train else old
        norms[f"size_{size}"] = {name: 0.9 * old[name] + 0.1 * new[name] for name in old}
        x = (x - new["mean"]) / np.sqrt(new["var"] + 1e-5)
        x = np.tanh(layer["norm"]["scale"] * x + layer["norm"]["bias"])
        mixed += mix[:, :, k, None] * x.reshape(B, N, D)
    return mixed, norms


def assert_trees_close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)


MIX = controlled(WEIGHTS.gates, WEIGHTS.stats["popularity"])


def test_the_search_sums_normalised_candidates_by_the_weights_of_their_popularity():
    sampled = jax.jit(SELECTOR.sample)(WEIGHTS, lookup(E), KEY)
    embeddings, norms = reference(WEIGHTS, E, MIX, train=True)
    np.testing.assert_allclose(sampled.vectors, embeddings, rtol=1e-9)
    popularity = WEIGHTS.stats["popularity"]
    assert_trees_close(sampled.stats, {"norms": norms, "popularity": popularity})
    assert sampled.penalty == 0


def test_evaluation_has_running_statistics_and_keeps_all_coordinates():
    selected = jax.jit(SELECTOR.select)(WEIGHTS, lookup(E))
    expected, _ = reference(WEIGHTS, E, MIX, train=False)
    np.testing.assert_allclose(selected.vectors, expected, rtol=1e-10)
    np.testing.assert_array_equal(selected.masks, np.ones((B, N * D)))
    assert SELECTOR.choose(None) is SERVE_SEARCHED


def test_pretraining_takes_the_mean_of_the_candidates():
    weights = WEIGHTS._replace(gates={})
    trained = jax.jit(SELECTOR.pretrain)(weights, lookup(E), KEY)
    mix = np.full((B, N, 2), 1 / 2)
    embeddings, norms = reference(weights, E, mix, train=True)
    np.testing.assert_allclose(trained.vectors, embeddings, rtol=1e-9)
    assert_trees_close(trained.stats["norms"], norms)
    np.testing.assert_array_equal(trained.stats["popularity"], WEIGHTS.stats["popularity"])
    expected, _ = reference(weights, E, mix, train=False)
    evaluated = SELECTOR.pretrain(weights, lookup(E), None)
    np.testing.assert_allclose(evaluated.vectors, expected, rtol=1e-10)


def differences(f, tree, step=1e-6):
    """The gradient of f at a tree of arrays by central differences."""
    leaves, structure = jax.tree.flatten(tree)
    gradients = [np.zeros(leaf.shape) for leaf in leaves]
    for i, leaf in enumerate(leaves):
        for place in np.ndindex(leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = leaf.copy()
                moved[place] += sign * step
                ends.append(f(structure.unflatten([*leaves[:i], moved, *leaves[i + 1 :]])))
            gradients[i][place] = (ends[0] - ends[1]) / (2 * step)
    return structure.unflatten(gradients)


def test_controllers_layers_and_embeddings_learn_from_the_sum():
    upstream = np.random.default_rng(3).normal(size=E.shape)

    @jax.jit
    @jax.grad
    def gradient(moved):
        embeddings, gates, layers = moved
        weights = jax.tree.map(jnp.asarray, WEIGHTS._replace(gates=gates, layers=layers))
        return (upstream * SELECTOR.sample(weights, lookup(embeddings), KEY).vectors).sum()

    def total(moved):
        embeddings, gates, layers = moved
        weights = WEIGHTS._replace(layers=layers)
        mix = controlled(gates, WEIGHTS.stats["popularity"])
        return (upstream * reference(weights, embeddings, mix, train=True)[0]).sum()

    at = (E, WEIGHTS.gates, WEIGHTS.layers)
    found, expected = gradient(at), differences(total, at)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), found, expected)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 0.01


def test_a_batch_split_across_devices_is_treated_as_a_whole():
    selector = SELECTOR.with_axis("devices")

    @jax.jit
    @partial(jax.vmap, axis_name="devices")
    def split(embeddings, rows):
        weights = jax.tree.map(jnp.asarray, WEIGHTS)
        return selector.sample(weights, lookup(embeddings, rows), KEY)

    sampled = split(E.reshape(2, B // 2, N, D), ROWS.reshape(2, B // 2, N))
    embeddings, norms = reference(WEIGHTS, E, MIX, train=True)
    np.testing.assert_allclose(sampled.vectors.reshape(E.shape), embeddings, rtol=1e-9)
    for device in range(2):
        found = jax.tree.map(lambda leaf, i=device: leaf[i], sampled.stats["norms"])
        assert_trees_close(found, norms)


def test_popularity_is_counted_in_the_training_rows():
    weights = SELECTOR.observe(WEIGHTS, Split(IDS.astype(np.int32), np.zeros(B, np.uint8)))
    found = weights.stats["popularity"]
    assert found.shape == (sum(SIZES), 1) and found.dtype == np.float32
    for n, size in enumerate(SIZES):
        logs = np.log([1 + (IDS[:, n] == value).sum() for value in range(size)])
        seen = logs[IDS[:, n]]  # of each row
        expected = (logs - seen.mean()) / np.sqrt(seen.var() + 1e-5)
        first = sum(SIZES[:n])
        np.testing.assert_allclose(found[first : first + size, 0], expected, rtol=1e-5)
    rest = weights._replace(stats=weights.stats | {"popularity": WEIGHTS.stats["popularity"]})
    jax.tree.map(np.testing.assert_array_equal, rest, WEIGHTS)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=8), st.integers(0, 7))
def test_popularity_rises_with_the_count_in_each_field_alone(counts, cut):
    sizes = (cut, len(counts) - cut) if 0 < cut < len(counts) else (len(counts),)
    found = popularity_of(np.array(counts), sizes)
    for own, logs in zip(
        *(np.split(x, np.cumsum(sizes)[:-1]) for x in (counts, found)), strict=True
    ):
        assert np.isfinite(logs).all()
        for (fewer, low), (more, high) in pairwise(sorted(zip(own, logs, strict=True))):
            assert low == high if fewer == more else low <= high
        if own.sum():
            assert abs(own @ logs.astype(float)) / own.sum() < 1e-3


def test_equally_frequent_values_are_at_zero_and_a_log_without_rows_has_numbers():
    np.testing.assert_array_equal(popularity_of(np.array([7, 7, 7]), (3,)), np.zeros(3))
    assert np.isfinite(popularity_of(np.array([0, 0]), (2,))).all()


@given(st.floats(-50, 50), st.integers(0, 2**31))
def test_sizes_share_a_weight_of_one_that_popularity_alone_decides(popularity, seed):
    rng = np.random.default_rng(seed)
    shapes = {"hidden": ((N, H), (N, H)), "output": ((N, H, 3), (N, 3))}
    controller = {
        name: {"kernel": rng.normal(size=kernel), "bias": rng.normal(size=bias)}
        for name, (kernel, bias) in shapes.items()
    }
    mix = np.asarray(size_weights(controller, jnp.full((2, N, 1), popularity)))
    np.testing.assert_allclose(mix.sum(axis=2), 1, rtol=1e-12)
    np.testing.assert_array_equal(mix[0], mix[1])
    assert mix.shape == (2, N, 3) and mix.min() >= 0


@pytest.mark.parametrize("unit", [True, False])
def test_fresh_controllers_prefer_no_size_and_layers_are_torchs(unit):
    selector = AutoEmb(AutoEmbConfig(unit_products=unit), (4, 16), EmbeddingSpec(SIZES, 20))
    fresh = jax.jit(selector.init)(KEY)
    hidden, output = fresh.gates["hidden"], fresh.gates["output"]
    assert hidden["kernel"].shape == hidden["bias"].shape == (N, 32)
    assert 0.8 < np.abs(hidden["kernel"]).max() <= 1
    assert output["kernel"].shape == (N, 32, 2) and output["bias"].shape == (N, 2)
    np.testing.assert_array_equal(size_weights(fresh.gates, jnp.full((1, N, 1), 0.7)), 1 / 2)
    for size in (4, 16):
        layer, norm = fresh.layers[f"size_{size}"], fresh.stats["norms"][f"size_{size}"]
        assert layer["kernel"].shape == (N, size, 20)
        assert 0.8 * size**-0.5 < np.abs(layer["kernel"]).max() <= size**-0.5
        assert len({field.tobytes() for field in np.asarray(layer["kernel"])}) == N
        scale = (20 * 3) ** -0.25 if unit else 1.0
        np.testing.assert_allclose(layer["norm"]["scale"], np.full(N * 20, scale), rtol=1e-6)
        np.testing.assert_array_equal(norm["var"], np.ones(N * 20))
    np.testing.assert_array_equal(fresh.stats["popularity"], np.zeros((sum(SIZES), 1)))
    # or the search would be compiled a second time
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))


@given(st.integers(1, 300))
def test_default_sizes_ascend_and_add_up(dim):
    dims = default_dims(dim)
    assert sum(dims) == dim and list(dims) == sorted(set(dims)) and min(dims) > 0
    assert len(dims) == (1 if dim < 3 else 2 if dim < 8 else 3)


def test_sizes_are_an_eighth_a_quarter_and_the_rest():
    assert [default_dims(dim) for dim in (16, 8, 4)] == [(2, 4, 10), (1, 2, 5), (1, 3)]


def test_the_selector_is_that_of_the_config(tiny):
    model = build_model(ModelConfig("dnn", dim=8), SIZES)
    for dims, used in ((None, (1, 2, 5)), ((3, 5), (3, 5)), ((8,), (8,))):
        options = AutoEmbConfig(dims=dims)
        selector = build_autoemb(tiny.config.having(options), model, 20)
        assert selector == AutoEmb(options, used, model.embedding)
        assert selector.recipe == Recipe(gate_batches="validation")


@pytest.mark.parametrize(
    ("model", "dims", "message"),
    [
        ("dnn", (2, 4), r"--autoemb\.dims add up to 6, .* --model dnn have the size 8, .* add up"),
        ("lr", None, r"--method autoemb does not go with --model lr, .* size 1, with no sizes"),
        ("ffm", None, r"--model ffm, whose embeddings are 3 vectors"),
    ],
)
def test_models_without_a_choice_of_sizes_are_refused(tiny, model, dims, message):
    config = dataclasses.replace(tiny.config, method="autoemb", model=ModelConfig(model, dim=8))
    config = config.having(AutoEmbConfig(dims=dims))
    with pytest.raises(InputError, match=message):
        build_autoemb(config, build_model(config.model, SIZES), 20)
